// top — the running sidecars, live.
import { EXIT_FOUND, EXIT_OK, whole, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

const EVERY_MS_DEFAULT = 1_000;
/** Between the two looks of --once: for rates. */
const ONCE_MS = 500;
const ROUND_MS_MAX = 2_500;

export const command: CommandSpec = {
  name: 'top',
  summary: 'watch the running sidecars: mounts, lanes, what is stuck and where',
  description:
    'Shows the running sidecars of this user: their mounts and whether these are in use, what goes through and how long it takes, every lane that is in a call with what it does and for how long, the slots, and what the process costs.\n\n' +
    'It asks each through its socket and changes nothing. One that does not answer is shown as silent and keeps nobody waiting.\n\n' +
    'For a call that is stuck the place in the kernel is shown: the stack for root, the function it sleeps in for the sidecar\'s own user; of a sidecar in another pid namespace neither.\n\n' +
    'Rates and percentiles are those of the time between two pictures; percentiles are read off a histogram.',
  usage: '[--pid P | --all-users] [--every MS] [--once | --json]',
  options: [
    { flags: '--pid <P>', does: 'this sidecar alone', parse: whole(1, 2 ** 31 - 1) },
    { flags: '--every <MS>', does: 'milliseconds between two pictures', parse: whole(100, 3_600_000), default: EVERY_MS_DEFAULT },
    { flags: '--once', does: 'print one picture as text and leave; also what happens when the output is no terminal, or a dumb one (TERM)' },
    { flags: '--json', does: 'print one picture as JSON and leave' },
    { flags: '--no-color', does: 'without colours, as with NO_COLOR set' },
    { flags: '--all-users', does: 'those of every user on this machine; for root' },
    { flags: '--attach-dir <DIR>', does: 'look for sockets there, and nowhere else', completes: 'directory' },
  ],
  sections: [
    { title: 'Keys', text: 'q, ctrl-C      quit\nspace          pause, go on\nup, down       scroll by a line (also k, j), page up and page down by a screen, g and G to the ends\nctrl-L         paint afresh\nctrl-Z         stop, as any program' },
    {
      title: 'What the columns say',
      text: 'STATE       ok, unknown (nothing asked yet), suspended (refused at once: its calls did not come back), probing (the first good answers)\nIO/s        operations that came back, one a block\np50, p99    of their time in the kernel; of requests, from the line to the answer\nBUSY        threads in a call / all of the class\nSTUCK       threads in a call that is late or was given up\nslots       ! quarantined: the kernel may still write there, # in flight, . free',
    },
  ],
  examples: [
    { type: 'kvlane top', shows: 'Watch:' },
    { type: "kvlane top --json | jq '.sidecars[].calls[] | select(.late)'", shows: 'What is stuck now, for a script:' },
    { type: 'docker exec -it engine kvlane top', shows: 'In the container where the engine runs:' },
  ],
  exitCodes: [
    [0, 'ended with q; or printed'],
    [1, 'with --once or --json: no sidecar runs that could be asked, or not the one of --pid'],
    [2, 'a bad option'],
    [130, 'ended with ctrl-C; 143 by SIGTERM, 129 by SIGHUP'],
  ],
  seeAlso: ['metrics', 'serve'],
  async run({ options }) {
    const { Watcher } = await import('./watcher.ts');
    const pid = (options['pid'] as number | undefined) ?? null;
    const watcher = new Watcher({ where: { directory: (options['attachDir'] as string | undefined) ?? null, allUsers: options['allUsers'] === true }, pid });
    const once = options['once'] === true;
    const json = options['json'] === true;
    if (once && json) throw new Wrong('--once and --json exclude each other');
    if (once || json || !process.stdout.isTTY || process.env['TERM'] === 'dumb') {
      const { printError, print } = await import('../output.ts');
      const { whyNone } = await import('../attached/none.ts');
      const { asJson, asText } = await import('./once.ts');
      await watcher.round(ROUND_MS_MAX);
      if (watcher.watched().length > 0) {
        await new Promise((resolve) => setTimeout(resolve, ONCE_MS));
        await watcher.round(ROUND_MS_MAX);
      }
      watcher.close();
      const watched = watcher.watched();
      if (watched.length === 0) await printError(`kvlane top: ${whyNone(watcher.search, pid)}\n`);
      if (json) await print(asJson(watched));
      else if (watched.length > 0) await print(asText(watched));
      return watched.length === 0 ? EXIT_FOUND : EXIT_OK;
    }
    const { live } = await import('./live.ts');
    const { coloursWanted } = await import('../text/colour.ts');
    // Who does not say what terminal it is gets what every VT100 knows, and no colours.
    const colour = options['color'] !== false && (process.env['TERM'] ?? '') !== '' && coloursWanted(true, process.env);
    return live(watcher, { everyMs: Number(options['every']), pid, colour });
  },
};
