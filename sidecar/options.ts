// options.ts — the command line → options that are right in every field, or a sentence that says what would be.
//
// Pure: looks at no file and starts nothing. A mount's path is resolved by text alone, since even a
// stat of a mount that hangs would hang us.
import { resolve } from 'node:path';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { Bounce, Engine, HugePages } from '../native/index.ts';
import { LIMITS, VERSION } from '../protocol/messages.ts';
import type { Capacity, MountOption, Recycle } from './service_types.ts';
import { serveHelpAfter, SERVE_DESCRIPTION, SERVE_SUMMARY, SERVE_USAGE } from './serve_words.ts';
import { EXIT_USAGE } from './shutdown.ts';

export interface ServeOptions {
  mounts: MountOption[];
  arena: { fd: number } | { bytes: number };
  hugePages: HugePages;
  bounce: Bounce;
  slotBytes: number;
  timeoutMs: number;
  stallMs: number;
  engine: Engine;
  lanes: number;
  stuckMax: number;
  stuckProcessMax: number;
  fsync: boolean;
  fileMode: number;
  recycle: Recycle;
  tidy: boolean;
  capacity: ReadonlyMap<string, Capacity>;
  collectorHaste: number;
  /** How long a look-up believes what this process stored, loaded or saw; 0: it always asks the mount. */
  indexMs: number;
  holdBreakerClosed: boolean;
  unchecked: boolean;
  /** Of the arena; null: as many as it holds. */
  slotsMax: number | null;
  /** Tools may look at the sidecar through a socket; where, if not in the usual places. */
  attach: { directory: string | null } | null;
  /** How long `ready` may wait for the mounts to answer; null: as usual. */
  startWaitMs: number | null;
}

export type CommandLine =
  | { do: 'serve'; options: ServeOptions }
  /** Nothing to start: say this and leave. */
  | { do: 'say'; text: string; exitCode: number };

/** A device each, with three classes of lanes: more mounts than anyone has, few enough to list in one line. `npm run scale` measures them. */
export const MOUNTS_MAX = 64;
const PAGE_BYTES = 4_096; // slots hold O_DIRECT transfers
const ARENA_MIB_MAX = 1024 * 1024; // 1 TiB
const LANES_MAX = 64;
const INDEX_MS_MIN = 100; // its tables are made anew four times in that
const INDEX_MS_MAX = 60_000; // a minute of loads of blocks that another host removed is more than any look-up saves
const STUCK_MAX_MAX = 16_384; // a thread each

const CAPACITY_BYTES_MIN = 1024 ** 2; // less is a mistake in the unit
const CAPACITY_BYTES_MAX = 2 ** 53; // 8 PiB; beyond it a number is not exact
const CAPACITY_PERCENT_MAX = 95; // file systems get slow, and keep some for root, before they are full

export const MOUNT_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
export const MOUNT_NAME_WORDS = '1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit';

export function parseCommandLine(words: readonly string[], cwd: () => string): CommandLine {
  let said = '';
  let result: CommandLine | null = null;
  const { program } = serveProgram(cwd, (text) => void (said += text), (options) => void (result = { do: 'serve', options }));
  try {
    program.parse([...words], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const asked = error.code === 'commander.helpDisplayed' || error.code === 'commander.version';
    return { do: 'say', text: said, exitCode: asked ? 0 : EXIT_USAGE };
  }
  return result ?? { do: 'say', text: said, exitCode: EXIT_USAGE };
}

/** What commander is told of `serve`; the tools make its completion and its manual page of the same. */
export function serveProgram(cwd: () => string, say: (text: string) => void, take: (options: ServeOptions) => void): { program: Command; serve: Command } {
  const program = new Command('kvlane')
    .description('KV cache blocks in and out of a mounted file system, every request answered by its deadline.')
    .version(VERSION, '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      writeOut: say,
      writeErr: say,
      outputError: (text, write) => write(text.replace(/^error: /, 'kvlane: ')),
    });

  const serve = program
    .command('serve')
    .summary(SERVE_SUMMARY)
    .description(SERVE_DESCRIPTION)
    .usage(SERVE_USAGE)
    .helpOption('-h, --help', 'print this help')
    .addOption(
      new Option('--mount <NAME=DIR>', 'a store: the name requests use, and its root directory; repeat for more').argParser(
        (word: string, before: MountOption[] = []) => [...before, mountOption(word, before, cwd)],
      ),
    )
    .option('--create', 'make the store in a root that has none (without it such a mount answers WRONG_STORE)')
    .addOption(new Option('--arena-fd <N>', 'inherited memfd, sealed against shrinking and growing, that holds the slots').argParser(whole(3, 2 ** 20)))
    .addOption(new Option('--arena-mib <M>', 'make an arena of this size instead').argParser(whole(1, ARENA_MIB_MAX)).default(64))
    .addOption(new Option('--huge-pages <HOW>', 'for an arena of our own: auto takes what the host allows, the others insist (require: on either kind); off also keeps us from asking for any in an inherited one').choices(['auto', 'require', 'hugetlb', 'thp', 'off']).default('auto'))
    .addOption(new Option('--bounce <WHAT>', 'blocks of 64 KiB to 8 MiB go through private huge pages while the arena lies on small ones').choices(['none', 'loads', 'stores', 'all']).default('loads'))
    .addOption(new Option('--slot-bytes <B>', 'one slot, a multiple of 4096').argParser(slotBytes).default(1024 * 1024, '1MiB'))
    .addOption(new Option('--timeout-ms <T>', 'deadline of a request that names none').argParser(whole(1, LIMITS.timeout_ms_max)).default(2_000))
    .addOption(new Option('--stall-ms <S>', 'a call in the kernel for longer is reported, and is evidence against its mount').argParser(whole(1, LIMITS.timeout_ms_max)).default(1_000))
    .addOption(new Option('--engine <NAME>', 'how lanes do their IO').choices(['threads', 'aio']).default('threads'))
    .addOption(new Option('--lanes <L>', 'threads per device and class (load, store, metadata), made on demand').argParser(whole(1, LANES_MAX)).default(8))
    .addOption(new Option('--stuck-max <K>', 'stuck threads per device before it is refused as SATURATED').argParser(whole(1, STUCK_MAX_MAX)).default(64))
    .addOption(new Option('--stuck-process-max <K>', 'the same for the whole process').argParser(whole(1, STUCK_MAX_MAX)).default(4_096))
    .option('--fsync', 'a stored block is on the disk before its answer (slower; a cache seldom needs it)')
    .addOption(new Option('--file-mode <MODE>', 'permissions of new block files, octal').argParser(fileMode).default(0o600, '0600'))
    .addOption(new Option('--recycle <WHEN>', 'overwrite the files of removed and replaced blocks instead of making new ones; auto: on ext4, xfs and tmpfs; on: on other file systems of this machine too, never on a network one').choices(['auto', 'on', 'off']).default('auto'))
    .option('--no-tidy', 'unlink nothing that sidecars which ended left in recycle/: for who only looks')
    .addOption(new Option('--index-ms <T>', 'look-ups believe for so long that a block is there which this sidecar stored, loaded or saw; if another process removed it, its load says NOT_FOUND; 0 asks the mount each time').argParser(indexMs).default(0))
    .addOption(new Option('--capacity-bytes <[NAME=]SIZE>', 'what the store of mount NAME (without it: each) may occupy; beyond it the blocks used longest ago are removed, by one sidecar for all that share the store').argParser((word: string, before: CapacityWord[] = []) => [...before, capacityBytes(word)]))
    .addOption(new Option('--capacity-share <[NAME=]PERCENT>', 'the same as a share of its file system').argParser((word: string, before: CapacityWord[] = []) => [...before, capacityShare(word)]))
    .option('--no-attach', 'no socket for kvlane top and metrics to look in by')
    .addOption(new Option('--attach-dir <DIR>', 'where that socket lies: a directory of your own on a tmpfs (usually $XDG_RUNTIME_DIR/kvlane or /dev/shm/kvlane-UID)').argParser((word: string) => attachDirectory(word, cwd)))
    .addOption(new Option('--test-hold-breaker-closed', 'for tests: never suspend a mount, whatever it does'))
    .addOption(new Option('--test-unchecked', 'for tests: payloads get no checksum, and such blocks count as damaged elsewhere'))
    .addOption(new Option('--test-collector-haste <N>', 'for tests: all times of what keeps a store within its capacity are so many times shorter').argParser(whole(1, 10_000)))
    .addOption(new Option('--test-slots <N>', 'for tests and replays: use so many slots of the arena and no more').argParser(whole(1, 2 ** 40)))
    .addOption(new Option('--test-start-wait-ms <W>', 'for tests: "ready" may wait so long for the mounts to answer, on a busy machine too').argParser(whole(1, LIMITS.timeout_ms_max)))
    .addHelpText('after', serveHelpAfter)
    .action((given: Given, command: Command) => {
      const byHand = (name: string): boolean => command.getOptionValueSource(name) === 'cli';
      const [word] = command.args;
      if (word !== undefined) {
        const meant = word.includes('=') || word.startsWith('/') ? `; did you mean --mount ${word.includes('=') ? word : `kv0=${word}`}?` : '';
        return command.error(`kvlane: serve takes options only, got '${word}'${meant}`, { exitCode: EXIT_USAGE });
      }
      if (given.mount === undefined) {
        return command.error("kvlane: --mount is missing: name at least one store, for example --mount kv0=/mnt/cache", { exitCode: EXIT_USAGE });
      }
      if (given.arenaFd !== undefined && byHand('arenaMib')) {
        return command.error('kvlane: --arena-fd and --arena-mib exclude each other: the inherited arena has its own size', { exitCode: EXIT_USAGE });
      }
      const arena = given.arenaFd !== undefined ? { fd: given.arenaFd } : { bytes: given.arenaMib * 1024 * 1024 };
      if ('bytes' in arena && arena.bytes < given.slotBytes) {
        return command.error(`kvlane: --arena-mib ${given.arenaMib} holds no slot of ${given.slotBytes} bytes: raise it, or lower --slot-bytes`, {
          exitCode: EXIT_USAGE,
        });
      }
      const capacity = capacityOf(given);
      if (typeof capacity === 'string') return command.error(`kvlane: ${capacity}`, { exitCode: EXIT_USAGE });
      take({
        mounts: given.mount.map((mount) => ({ ...mount, create: given.create ?? false })),
        arena,
        hugePages: given.hugePages,
        bounce: given.bounce,
        slotBytes: given.slotBytes,
        timeoutMs: given.timeoutMs,
        stallMs: given.stallMs,
        engine: given.engine,
        lanes: given.lanes,
        stuckMax: given.stuckMax,
        stuckProcessMax: given.stuckProcessMax,
        fsync: given.fsync ?? false,
        fileMode: given.fileMode,
        recycle: given.recycle,
        tidy: given.tidy,
        capacity,
        collectorHaste: given.testCollectorHaste ?? 1,
        indexMs: given.indexMs,
        holdBreakerClosed: given.testHoldBreakerClosed ?? false,
        unchecked: given.testUnchecked ?? false,
        slotsMax: given.testSlots ?? null,
        attach: given.attach ? { directory: given.attachDir ?? null } : null,
        startWaitMs: given.testStartWaitMs ?? null,
      });
      return undefined;
    });
  serve.copyInheritedSettings(program);
  serve.allowExcessArguments(true); // refused above, in words that help more
  program.addHelpText('after', '\nTry: kvlane serve --help');
  return { program, serve };
}

interface Given {
  mount?: MountOption[];
  create?: boolean;
  arenaFd?: number;
  arenaMib: number;
  hugePages: HugePages;
  bounce: Bounce;
  slotBytes: number;
  timeoutMs: number;
  stallMs: number;
  engine: Engine;
  lanes: number;
  stuckMax: number;
  stuckProcessMax: number;
  fsync?: boolean;
  fileMode: number;
  recycle: Recycle;
  tidy: boolean;
  indexMs: number;
  capacityBytes?: CapacityWord[];
  capacityShare?: CapacityWord[];
  testCollectorHaste?: number;
  testHoldBreakerClosed?: boolean;
  testUnchecked?: boolean;
  testSlots?: number;
  attach: boolean;
  attachDir?: string;
  testStartWaitMs?: number;
}

function mountOption(word: string, before: readonly MountOption[], cwd: () => string): MountOption {
  const equals = word.indexOf('=');
  const name = word.slice(0, equals);
  const root = word.slice(equals + 1);
  if (equals < 0) throw new InvalidArgumentError(`Name and directory are wanted, for example kv0=${word || '/mnt/cache'}.`);
  if (!MOUNT_NAME.test(name)) throw new InvalidArgumentError(`The name before = has ${MOUNT_NAME_WORDS}.`);
  if (root === '' || root.includes('\0')) throw new InvalidArgumentError('The directory after = is missing.');
  if (before.some((mount) => mount.name === name)) throw new InvalidArgumentError(`The name ${name} is taken by an earlier --mount.`);
  if (before.length >= MOUNTS_MAX) throw new InvalidArgumentError(`At most ${MOUNTS_MAX} mounts.`);
  return { name, root: absolute(root, cwd), create: false };
}

function attachDirectory(word: string, cwd: () => string): string {
  if (word === '' || word.includes('\0')) throw new InvalidArgumentError('A directory is wanted.');
  return absolute(word, cwd);
}

function absolute(path: string, cwd: () => string): string {
  if (path.startsWith('/')) return resolve('/', path);
  try {
    return resolve(cwd(), path);
  } catch {
    throw new InvalidArgumentError('It is relative, and the working directory is gone: give a path that starts with /.');
  }
}

function whole(min: number, max: number): (word: string) => number {
  return (word) => {
    const value = /^[0-9]{1,15}$/.test(word) ? Number(word) : NaN;
    if (!(value >= min && value <= max)) throw new InvalidArgumentError(`A whole number from ${min} to ${max} is wanted.`);
    return value;
  };
}

const UNITS: Record<string, bigint> = { '': 1n, kib: 2n ** 10n, mib: 2n ** 20n, gib: 2n ** 30n, tib: 2n ** 40n };

/** NaN where it is none, or more than a number holds exactly. */
function sizeOf(word: string): number {
  const [, digits = '', unit = ''] = /^([0-9]{1,16}) ?(|[KMGT]iB)$/i.exec(word) ?? [];
  if (digits === '') return NaN;
  const bytes = BigInt(digits) * UNITS[unit.toLowerCase()]!;
  return bytes > BigInt(CAPACITY_BYTES_MAX) ? NaN : Number(bytes);
}

/** For mount `name`, or null: for each that has no word of its own. */
type CapacityWord = { name: string | null; option: string; capacity: Capacity };

function named(word: string): [name: string | null, value: string] {
  const equals = word.indexOf('=');
  return equals < 0 ? [null, word] : [word.slice(0, equals), word.slice(equals + 1)];
}

function capacityBytes(word: string): CapacityWord {
  const [name, value] = named(word);
  const bytes = sizeOf(value);
  if (!(bytes >= CAPACITY_BYTES_MIN && bytes <= CAPACITY_BYTES_MAX)) throw new InvalidArgumentError('A size from 1MiB to 8192TiB is wanted, for example 500GiB, or kv0=500GiB for one of several mounts.');
  return { name, option: '--capacity-bytes', capacity: { bytes } };
}

function capacityShare(word: string): CapacityWord {
  const [name, value] = named(word);
  const percent = /^[0-9]{1,3}%?$/.test(value) ? Number.parseInt(value, 10) : NaN;
  if (!(percent >= 1 && percent <= CAPACITY_PERCENT_MAX)) throw new InvalidArgumentError(`A whole number of per cent from 1 to ${CAPACITY_PERCENT_MAX} is wanted, for example 80, or kv0=80 for one of several mounts.`);
  return { name, option: '--capacity-share', capacity: { percent } };
}

/** By mount; or what is wrong, as a sentence. */
function capacityOf(given: Given): Map<string, Capacity> | string {
  const capacity = new Map<string, Capacity>();
  const words = [...(given.capacityBytes ?? []), ...(given.capacityShare ?? [])];
  const mounts = given.mount!.map(({ name }) => name);
  for (const { name, option } of words) {
    if (name !== null && !mounts.includes(name)) return `${option} names the mount ${JSON.stringify(name)}; there is ${mounts.join(', ')}`;
    if (words.filter((one) => one.name === name).length > 1) return `${option}: ${name === null ? 'the capacity of all mounts' : `the capacity of mount ${name}`} is given twice; one --capacity-bytes or --capacity-share is wanted`;
  }
  for (const mount of mounts) {
    const word = words.find(({ name }) => name === mount) ?? words.find(({ name }) => name === null);
    if (word !== undefined) capacity.set(mount, word.capacity);
  }
  return capacity;
}

function slotBytes(word: string): number {
  const bytes = sizeOf(word);
  if (!(bytes >= PAGE_BYTES && bytes <= 1024 ** 3)) throw new InvalidArgumentError('A size from 4096 to 1GiB is wanted, for example 1048576 or 1MiB.');
  if (bytes % PAGE_BYTES !== 0) throw new InvalidArgumentError(`A multiple of 4096 is wanted; the next one is ${Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES}.`);
  return bytes;
}

function indexMs(word: string): number {
  const ms = /^[0-9]{1,5}$/.test(word) ? Number(word) : NaN;
  if (ms === 0 || (ms >= INDEX_MS_MIN && ms <= INDEX_MS_MAX)) return ms;
  throw new InvalidArgumentError(`0 is wanted, or milliseconds from ${INDEX_MS_MIN} to ${INDEX_MS_MAX}.`);
}

function fileMode(word: string): number {
  const mode = /^0?[0-7]{3}$/.test(word) ? Number.parseInt(word, 8) : NaN;
  if (Number.isNaN(mode)) throw new InvalidArgumentError('An octal mode is wanted, for example 0600 or 0660.');
  if ((mode & 0o600) !== 0o600) throw new InvalidArgumentError('The owner must be able to read and write (0600 at least).');
  if ((mode & 0o111) !== 0) throw new InvalidArgumentError('Block files are not run: no execute bits.');
  return mode;
}

