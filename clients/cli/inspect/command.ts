// inspect — what lies in a store: listed, added up, explained, verified and removed, by a sidecar of its own.
import { LIMITS } from '../../../protocol/messages.ts';
import { whole } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';
import { ACTIONS, age, OLDER_DEFAULT_MS, rate } from './asked.ts';

export const command: CommandSpec = {
  name: 'inspect',
  summary: 'list, explain, verify and remove what lies in a store',
  description:
    'Looks into a store through a sidecar of its own, which it starts on the directory and ends again. The store may be in use, also by other hosts. Looking changes nothing: nothing is made, moved, tidied away or set aside, and a directory that is no store is said to be none.\n\nEvery look has a deadline. A mount that hangs is waited for once more as long, and then there is a message with what is known, and exit status 3.\n\nA key is NAMESPACE/HASH, with the generation as in llama@3/9f3c. Names that kvlane did not make are listed as foreign, with what a terminal would obey made visible, and are never followed or removed.',
  usage: 'ls|df|explain|verify|rm DIR [WHAT…] [options]',
  arguments: [
    { name: 'ACTION', does: 'what to do', choices: ACTIONS },
    { name: 'DIR', does: 'the directory of the store' }, // not completed: the shell would hang where it hangs
    { name: 'WHAT', does: 'for ls NAMESPACE or NAMESPACE/PREFIX, for explain a key, a namespace or a file, for verify namespaces, for rm keys', optional: true, variadic: true },
  ],
  options: [
    { flags: '--long', does: 'with ls: size, time of writing in UTC and kind of each, and what is no block, too' },
    { flags: '--sort <BY>', does: 'with ls: newest first, largest first, or by name; at most 1,000,000 names are kept for it, and what is left out is said', choices: ['age', 'size', 'name'] },
    { flags: '--leftovers', does: 'with ls: only what stores and sidecars left behind; with rm: that is what goes' },
    { flags: '--rate <BYTES>', does: 'with verify: read no more than this a second, on average: 50M', parse: rate },
    { flags: '--namespace <NS>', does: 'with rm: all blocks of this namespace (with its generation)' },
    { flags: '--older-than <TIME>', does: 'with rm --leftovers: only what has not changed for so long; a store that is under way may lose its file to a time shorter than it takes', parse: age, default: OLDER_DEFAULT_MS, defaultShown: '1h' },
    { flags: '--dry-run', does: 'with rm: say what would go, and remove nothing' },
    { flags: '--yes', does: 'with rm: do not ask' },
    { flags: '--json', does: 'with all but rm: as JSON, one object a line' },
    { flags: '--timeout-ms <T>', does: 'the deadline of one look; reading a block may take longer, by its size', parse: whole(1, LIMITS.timeout_ms_max), default: 10_000 },
  ],
  sections: [
    {
      title: 'Actions',
      text: `ls DIR                    the namespaces
ls DIR NAMESPACE[/PREFIX] its blocks, in the file system's order
df DIR                    files and bytes by namespace, of what was left, and
                          of records; not of probe/, a few small files
explain DIR KEY|NS|FILE   what this is, whether it is sound, what to do
verify DIR [NAMESPACE…]   read and check every block: a scrub
rm DIR KEY…               remove blocks; more than one: asks, or wants --yes
rm DIR --namespace NS     remove all blocks of a namespace
rm DIR --leftovers        remove temporaries, files that wait to be
                          overwritten, and damaged files set aside`,
    },
    {
      title: 'Scrubbing',
      text: `verify tells on stdout what is damaged, and on stderr how far it is: a bar on
a terminal, a line every ten seconds elsewhere. Blocks that are removed
meanwhile are no damage. A damaged block costs a recompute, never a wrong
byte; the next load sets it aside, the next store of its key mends it.`,
    },
  ],
  examples: [
    { shows: 'What takes the room:', type: 'kvlane inspect df /mnt/cache' },
    { shows: 'The largest blocks of a namespace:', type: 'kvlane inspect ls /mnt/cache llama@3 --long --sort size | head' },
    { shows: 'A scrub at night, at 50 MiB a second:', type: 'kvlane inspect verify /mnt/cache --rate 50M' },
    { shows: 'What dead sidecars left, seen and then removed:', type: 'kvlane inspect rm /mnt/cache --leftovers --dry-run\nkvlane inspect rm /mnt/cache --leftovers --yes' },
  ],
  exitCodes: [
    [0, 'done; of verify: every block is sound, or of a newer format'],
    [1, 'damage was found (also where not all could be looked at), something is not there, or something could not be removed or was left for its date'],
    [2, 'a bad option, or a directory that is no store; nothing was done'],
    [3, 'not all could be looked at: the mount hangs, or a directory or block cannot be read; the message says what is known'],
    [70, 'an error inside kvlane'],
  ],
  seeAlso: ['serve', 'top'],
  async run(given) {
    const { runInspect } = await import('./run.ts');
    return runInspect(given);
  },
};
