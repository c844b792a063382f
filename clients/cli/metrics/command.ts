// metrics — the sidecars' figures for Prometheus: printed, kept in a file, or served on loopback.
import { EXIT_FOUND, EXIT_OK, whole, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

const EVERY_S_DEFAULT = 15;

export const command: CommandSpec = {
  name: 'metrics',
  summary: 'print, write or serve metrics of the running sidecars, for Prometheus',
  description:
    'Asks the running sidecars of this user what they do, and tells it as Prometheus reads it.\n\n' +
    'Without an option it prints once. With --file it keeps a file up to date, for the textfile collector of node_exporter. With --listen it serves them all at /metrics, to this machine only.\n\n' +
    'A sidecar that does not answer within a second and a half is told as kvlane_sidecar_up 0. The sidecars are asked through their sockets (see serve, --attach-dir), and rest after each answer for twenty times as long as it took, up to 100 ms, however often they are asked.\n\n' +
    'A dashboard for Grafana and rules for alerts lie in monitoring/.',
  usage: '[--pid P | --all-users] [--file PATH [--every S] | --listen ADDRESS]',
  options: [
    { flags: '--pid <P>', does: 'of this sidecar alone', parse: whole(1, 2 ** 31 - 1) },
    { flags: '--file <PATH>', does: 'write to this file, whole each time, again and again until it is ended', completes: 'file' },
    { flags: '--every <S>', does: 'seconds between two writings; 0: only once', parse: whole(0, 86_400), default: EVERY_S_DEFAULT },
    { flags: '--listen <ADDRESS>', does: 'serve http://ADDRESS/metrics until it is ended, for example 127.0.0.1:9464' },
    { flags: '--all-users', does: 'of every user on this machine; for root' },
    { flags: '--attach-dir <DIR>', does: 'look for sockets there, and nowhere else', completes: 'directory' },
  ],
  examples: [
    { type: 'kvlane metrics', shows: 'What there is, once:' },
    { type: 'kvlane metrics --listen 127.0.0.1:9464', shows: 'For a Prometheus with the target 127.0.0.1:9464:' },
    { type: 'kvlane metrics --file /var/lib/node_exporter/kvlane.prom', shows: 'For node_exporter --collector.textfile.directory=/var/lib/node_exporter:' },
  ],
  exitCodes: [
    [0, 'told'],
    [1, 'no sidecar runs that could be asked, or not the one of --pid'],
    [2, 'a bad option, a file that cannot be written (the first time; later it is said on stderr and tried again), an address that cannot be listened on'],
  ],
  seeAlso: ['top', 'serve'],
  async run({ options, typed }) {
    const { collect } = await import('./collect.ts');
    const { CONTENT_TYPE, expositionOf } = await import('./text.ts');
    const { whyNone } = await import('../attached/none.ts');
    const { print, printError } = await import('../output.ts');
    const where = { directory: (options['attachDir'] as string | undefined) ?? null, allUsers: options['allUsers'] === true };
    const pid = (options['pid'] as number | undefined) ?? null;
    const file = options['file'] as string | undefined;
    if (file !== undefined && options['listen'] !== undefined) throw new Wrong('--file and --listen exclude each other');
    if (file === undefined && typed('every')) throw new Wrong('--every says how often --file is written');
    const scrape = async (): Promise<string> => expositionOf((await collect(where, pid)).looks);

    if (options['listen'] !== undefined) {
      const { addressOf, serveMetrics, urlOf } = await import('./endpoint.ts');
      const server = await serveMetrics(addressOf(String(options['listen'])), CONTENT_TYPE, scrape);
      await printError(`kvlane metrics: ${urlOf(server)}\n`);
      await untilEnded();
      server.closeAllConnections();
      return EXIT_OK;
    }
    if (file !== undefined) {
      const { keepFile } = await import('./file.ts');
      await keepFile(file, Number(options['every']), scrape, untilEnded);
      return EXIT_OK;
    }
    const { looks, search } = await collect(where, pid);
    if (!looks.some((look) => look.up || look.trouble !== 'dead')) {
      await printError(`kvlane metrics: ${whyNone(search, pid)}\n`);
      return EXIT_FOUND;
    }
    await print(await expositionOf(looks));
    return EXIT_OK;
  },
};

/** SIGINT or SIGTERM; asked once. */
function untilEnded(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => resolve());
  });
}
