// doctor — a mount, looked at before it is trusted.
import { EXIT_FOUND, EXIT_OK, whole } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const TIMEOUT_S_DEFAULT = 5;
export const TIMEOUT_S_MAX = 60;
const EXIT_UNKNOWN = 3;

export const command: CommandSpec = {
  name: 'doctor',
  summary: 'look at a mount before it is trusted with a cache',
  description:
    'Says whether a directory is fit to hold a cache: what file system it is and what its mount options mean when the server dies, what a small real probe met there, what this machine and this process allow, and for each thing what to do about it.\n\n' +
    'The probe makes a directory of its own, .kvlane-doctor-PID-RANDOM, writes 9 MiB there, reads them back, renames, lists and removes them; a store that is there is not touched. Every call is made by a lane in another process: a mount that hangs is told as such when the time is over, with the call and its place in the kernel, and nobody waits for it. The one exception is a doctor that is process 1 of a container: the container ends when that call does.\n\n' +
    'Run it where the engine will run, as the same user, in the same container.',
  usage: 'DIR [--timeout-s S] [--json] [--no-color]',
  arguments: [{ name: 'DIR', does: 'where the store is, or is to be' }], // not completed: the shell would hang where it hangs
  options: [
    { flags: '--timeout-s <S>', does: `seconds for the probe, 1 to ${TIMEOUT_S_MAX}; what has not returned then, and has had a second, hangs. Removing what was made has four seconds more`, parse: whole(1, TIMEOUT_S_MAX), default: TIMEOUT_S_DEFAULT },
    { flags: '--json', does: 'print it for a script: verdict, findings (id, level, what, why, do), mount, times' },
    { flags: '--no-color', does: 'without colours, as with NO_COLOR set' },
  ],
  sections: [{ title: 'Levels', text: 'bad    the mount is not fit\nwarn   it works, and something will be slow, lost or awkward\nnote   to be known before it is relied on\nok     as it should be' }],
  examples: [
    { type: 'kvlane doctor /mnt/cache', shows: 'Look at a mount:' },
    { type: "kvlane doctor --json /mnt/cache | jq -r '.findings[] | select(.level == \"bad\") | .what'", shows: 'What is bad, for a script:' },
    { type: 'kvlane doctor /mnt/cache && kvlane serve --mount kv0=/mnt/cache', shows: 'Start only on a mount that is fit:' },
  ],
  exitCodes: [
    [0, 'fit: nothing bad was found, warnings perhaps'],
    [1, 'not fit: something bad was found, or the mount does not answer'],
    [2, 'a bad option, or no directory was named'],
    [3, 'it could not be told: the probe could not be made'],
  ],
  seeAlso: ['serve', 'top'],
  async run({ words, options }) {
    const { examine } = await import('./examine.ts');
    const { asJson, asText, verdictOf } = await import('./render.ts');
    const { colours, coloursWanted } = await import('../text/colour.ts');
    const { print } = await import('../output.ts');
    const { isatty } = await import('node:tty');
    const report = await examine(words[0]!, Number(options['timeoutS']) * 1000);
    const colour = options['color'] !== false && coloursWanted(isatty(1), process.env);
    await print(options['json'] === true ? asJson(report) : asText(report, colours(colour)));
    return { fit: EXIT_OK, not_fit: EXIT_FOUND, unknown: EXIT_UNKNOWN }[verdictOf(report)];
  },
};
