// console — a sidecar, and a line editor to talk to it by hand.
import { command as serve } from '../serve.ts';
import { Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'console',
  summary: 'talk to a sidecar by hand, with completion and answers in words',
  description:
    'Starts a sidecar with these options and talks to it. A request is typed in words (load demo/00ff) or as the JSON that a client would send; tab completes requests, fields, mounts and keys, and the arrow keys bring back what was typed before, also in earlier sessions.\n\nAnswers come in words, with the time they took. A refusal shows the line with a caret under the place that it speaks of. What happens meanwhile, a call that is stuck or a mount that is suspended, is said above the line that is being typed.\n\nserve on a terminal is the same. Where stdin or stdout is not a terminal, both are the plain protocol.',
  usage: '--mount NAME=DIR [options] | --attach SOCKET',
  takesAll: true,
  options: [...serve.options, { flags: '--attach <SOCKET>', does: 'start none: talk to the sidecar that runs at this socket; it answers what only looks (stats, stuck, ping, help)', completes: 'file' }, { flags: '--record <FILE>', does: 'keep what is said, as kvlane record does', completes: 'file' }, { flags: '--no-history', does: 'neither read nor write the file of what was typed' }],
  sections: [
    {
      title: 'Typed',
      text: `store demo/00ff hello              load demo/00ff
lookup demo/00ff demo/0100         remove demo/00ff
load demo/00ff timeout_ms=250      stats, stuck, ping, help
{"op":"lookup","keys":["demo/00ff"]}

.wire   show the lines of the protocol too, or no more
.raw    show nothing but the lines of the protocol, or answers in words again
.quit   leave, as ctrl-D does

ctrl-C clears the line; in an empty one it cancels what is not answered yet, and leaves when there is nothing.`,
    },
    { title: 'Files', text: '$XDG_STATE_HOME/kvlane/history, or ~/.local/state/kvlane/history: what was typed, the last 1000 lines.' },
  ],
  examples: [{ shows: 'A store in a new directory, and a block in it:', type: 'kvlane console --mount kv0=/mnt/cache --create\nkvlane> store demo/00ff hello' }],
  exitCodes: [
    [0, 'asked to leave (.quit, ctrl-D, ctrl-C, a shutdown request, a signal), and left'],
    [2, 'a bad option, or an arena that cannot be used; nothing was started'],
    [70, 'the sidecar had an error inside, or did not leave in time and was killed: its log says which'],
    [128, 'and the number of a signal: the sidecar was killed by it, or the terminal is gone (129); any other status of the sidecar is passed on'],
  ],
  seeAlso: ['serve', 'record', 'replay'],
  async run({ all }) {
    const { runConsole } = await import('./run.ts');
    const words = all.filter((word) => word !== '--no-history');
    const attach = taken(words, '--attach');
    const record = taken(words, '--record');
    if (attach !== null && words.length + (record === null ? 0 : 1) > 0) throw new Wrong(`--attach talks to a sidecar that runs already: leave out ${words[0] ?? '--record'}`);
    return runConsole(words, { keepHistory: !all.includes('--no-history'), attach, record });
  },
};

/** Its value, and it is gone from the words. */
function taken(words: string[], name: string): string | null {
  const at = words.findIndex((word) => word === name || word.startsWith(`${name}=`));
  if (at < 0) return null;
  const [first = '', second = ''] = words.splice(at, words[at] === name ? 2 : 1);
  const value = first === name ? second : first.slice(name.length + 1);
  if (value === '' || (first === name && value.startsWith('-'))) throw new Wrong(`${name} wants a path behind it, got ${value === '' ? 'nothing' : `the option ${value}`}`);
  return value;
}
