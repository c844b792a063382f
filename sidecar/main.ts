// main.ts — the command `kvlane`: options → wiring → run; the only file that starts things.
//
// Nothing here or below it touches a mount: that is what lanes are for. The order matters: what may be
// refused is refused before anything runs, stdout belongs to the protocol from the first line on, and
// stdin is read only after `ready` is on its way.
import { fstatSync, writeSync } from 'node:fs';
import type { ArenaInfo, Native, NativeEvent } from '../native/index.ts';
import { decode } from '../protocol/decode.ts';
import { LIMITS } from '../protocol/messages.ts';
import type { Event, Id, MountInfo } from '../protocol/messages.ts';
import type { Attach } from './attach.ts';
import { pipeSink, pooledSink } from './byte_sink.ts';
import type { ByteSink } from './byte_sink.ts';
import { nativeClock } from './clock.ts';
import { readyEvent } from './handshake.ts';
import type { ReadyFacts } from './handshake.ts';
import { offerStores, whatToType, withoutStore } from './hints.ts';
import type { StoreOffer } from './hints.ts';
import { late } from './late.ts';
import { createLineWriter } from './line_writer.ts';
import { createLog } from './log.ts';
import type { StderrLog } from './log.ts';
import { parseCommandLine } from './options.ts';
import type { ServeOptions } from './options.ts';
import { watchParent } from './parent_watch.ts';
import type { Service } from './service_types.ts';
import { createLeave, EXIT_USAGE } from './shutdown.ts';
import type { Leave } from './shutdown.ts';
import { pumpStdin, stdinSource } from './stdin_pump.ts';
import { isTerminal } from './terminal.ts';
import { createUsage, FIRST_SAMPLE_MS } from './usage.ts';

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;

/** An engine must not wait for a slow mount; a person is better told what is there, and offered a store, than that nothing is known yet. */
const PERSON_WAIT_MS = 2_000;
/** After `ready`, when the first requests are through: nobody looks at a sidecar that is so young. */
const ATTACH_MS = 100;

const commandLine = parseCommandLine(process.argv.slice(2), process.cwd);
if (commandLine.do === 'say') {
  sayAndExit(commandLine.text, commandLine.exitCode);
} else {
  void serve(commandLine.options); // not awaited: what runs is one CommonJS file, see launch.cjs
}

async function serve(options: ServeOptions): Promise<void> {
  process.chdir('/'); // a working directory on a mount would keep it from being unmounted
  process.umask(0); // --file-mode is meant as it is said

  const log = createLog({ sink: pooledSink(STDERR), terminal: isTerminal(STDERR) });
  // Whatever a library prints must not reach stdout. Not process.stderr either: making it would set its pipe non-blocking for everybody.
  printsGoTo(log);
  process.removeAllListeners('warning');
  process.on('warning', (warning) => log.warn('node_warning', { warning }));

  const native = await nativePart();
  const { arena, slots } = makeArena(native, options);

  let service: Service | null = null;
  let leave: Leave = () => {};
  const stdout = stdoutSink((error) => writer.fail(`stdout: ${error.message}`));
  const writer = createLineWriter({ sink: stdout, onGone: (why) => leave('stdout_gone', { why }) });
  let attach: Attach | null = null;
  let left = false;
  leave = createLeave({ service: () => service, writer, log, native, leaving: () => {
    left = true;
    attach?.close();
  } });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => leave('signal', { signal }));
  process.on('uncaughtException', (error) => leave('fatal_error', { error }));
  process.on('unhandledRejection', (error) => leave('fatal_error', { error }));

  // `ready` is the first line, whatever happens while the mounts are looked at.
  let early: object[] | null = [];
  const send = (message: object): void => {
    if (early === null) writer.send(message);
    else early.push(message);
    if (attach !== null && 'event' in message) attach.heard(message as Event);
  };

  const heard = (batch: NativeEvent[]): NativeEvent[] => {
    if (batch.some((event) => event.type === 'parent_gone')) leave('parent_gone');
    return batch;
  };
  startNative(native, options, (batch) => service?.onNative(heard(batch)));
  watchParent(native, log);
  const clock = nativeClock(native);
  const usage = createUsage(log);
  const { createService } = await import('./service.ts');
  const { procMountTable } = await import('./mount_table.ts');
  const { arena: _arena, hugePages: _huge, bounce: _bounce, startWaitMs: _wait, slotsMax: _slots, unchecked: _unchecked, attach: attaching, ...policy } = options;
  const running = createService(
    { native: { ...native, collect: () => heard(native.collect()) }, clock, send, log, usage, mountTable: procMountTable(), onShutdown: (timeoutMs) => leave('shutdown_request', { drainMs: timeoutMs }) },
    { ...policy, slots },
  );

  service = running;
  const byHand = isTerminal(STDIN) && isTerminal(STDERR);
  const started = running.start(options.startWaitMs ?? (byHand ? PERSON_WAIT_MS : undefined));
  const mounts = await started;
  const facts = (): ReadyFacts => ({
    nowUs: clock.nowUs(),
    engine: running.engine(),
    timeoutMs: options.timeoutMs,
    stallMs: options.stallMs,
    arena,
    arenaOwner: 'fd' in options.arena ? 'client' : 'sidecar',
    slotBytes: options.slotBytes,
    slots,
    mounts: running.look.mounts(),
  });
  writer.send(readyEvent({ ...facts(), mounts }));
  for (const message of early) writer.send(message);
  early = null;
  await new Promise(setImmediate); // it is on its way; the rest of the start is for the time in which the client looks at it
  stdout.open();
  if (options.unchecked) log.warn('payloads_unchecked', { why: '--test-unchecked' });
  if (arena.advice !== '') log.warn('arena_on_small_pages', { advice: arena.advice });
  setTimeout(() => usage.refresh(), FIRST_SAMPLE_MS).unref();
  if (attaching !== null) {
    setTimeout(() => {
      void openDoor().catch((error: unknown) => log.warn('not_attachable', { error }));
    }, ATTACH_MS).unref();
  }

  async function openDoor(): Promise<void> {
    const { createAttach } = await import('./attach.ts');
    const { attachPlaces } = await import('./attach_place.ts');
    if (left) return;
    const places = attachPlaces(process.env, process.geteuid!(), attaching?.directory ?? undefined);
    attach = createAttach(places, { service: running, hello: () => readyEvent(facts()), nowUs: clock.nowUs, log });
  }

  const offer = byHand ? greet(mounts, running, log) : null;
  await readRequests({ service: running, options, slots, clock, send, offer, leave });
}

interface Reading {
  service: Service;
  options: ServeOptions;
  slots: number;
  clock: { nowUs(): number };
  send(message: object): void;
  offer: StoreOffer | null;
  leave: Leave;
}

async function readRequests({ service, options, slots, clock, send, offer, leave }: Reading): Promise<void> {
  const { createLineReader } = await import('./line_reader.ts'); // with ndjson: not before `ready` is out
  const mounts = options.mounts.map((mount) => mount.name);
  const refuse = (id: Id | null, code: string, message: string, line: number): void => {
    // An id in use belongs to the answer of the task that has it.
    const held = id !== null && service.holdsId(id);
    if (id === null || held) send({ id: null, ok: false, error: { code, message }, ...(held ? { duplicate_of: id } : {}), line });
    else send({ id, ok: false, error: { code, message } });
  };
  const reader = createLineReader(
    {
      onValue(value, line) {
        const decoded = decode(value, { slots, slotBytes: options.slotBytes, mounts, line, nowUs: clock.nowUs() });
        if (decoded.ok) service.handle(decoded.request);
        else refuse(decoded.id, decoded.code, decoded.message, line);
      },
      onRefused: ({ code, message, line }) => refuse(null, code, message, line),
    },
    LIMITS.line_bytes_max,
  );
  pumpStdin(stdinSource(), {
    take: (bytes) => reader.feed(offer?.open() ? offer.take(bytes) : bytes),
    ended(fault) {
      if (offer?.open()) reader.feed(offer.typed());
      reader.end();
      leave('stdin_end', fault === null ? {} : { error: fault.message });
    },
  });
}

function greet(mounts: MountInfo[], service: Service, log: StderrLog): StoreOffer | null {
  for (const line of whatToType(mounts)) log.say(line);
  const missing = withoutStore(mounts);
  if (missing.length === 0 || service.createStore === undefined) return null;
  return offerStores(missing, { say: (text) => log.say(text), create: (mount) => service.createStore?.(mount) });
}

async function nativePart(): Promise<Native> {
  const { loadNative } = await import('../native/index.ts'); // not before it is needed: --help works without a build
  try {
    return loadNative();
  } catch (error) {
    return sayAndExit(`kvlane: ${(error as Error).message}\n`, EXIT_USAGE);
  }
}

/** What this machine lacks is said once, here, and not by every operation. */
function startNative(native: Native, options: ServeOptions, onEvents: (batch: NativeEvent[]) => void): void {
  try {
    const { unchecked, stuckProcessMax } = options;
    native.start({ stallUs: options.stallMs * 1000, stuckProcessMax, unchecked }, onEvents);
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'KVLANE_NO_OPENAT2') throw error;
    sayAndExit(`kvlane: ${(error as Error).message}\n`, EXIT_USAGE);
  }
}

function makeArena(native: Native, options: ServeOptions): { arena: ArenaInfo; slots: number } {
  let arena: ArenaInfo;
  try {
    const wishes = { hugePages: options.hugePages, bounce: options.bounce };
    arena = 'fd' in options.arena ? native.adoptArena(options.arena.fd, wishes) : native.createArena(options.arena.bytes, wishes);
  } catch (error) {
    const asked = 'fd' in options.arena ? `--arena-fd ${options.arena.fd}` : `an arena of ${options.arena.bytes} bytes`;
    return sayAndExit(`kvlane: ${asked} cannot be used: ${(error as Error).message}\n`, EXIT_USAGE);
  }
  const slots = Math.min(options.slotsMax ?? Infinity, Math.floor(arena.bytes / options.slotBytes));
  if (slots < 1) sayAndExit(`kvlane: the arena has ${arena.bytes} bytes and holds no slot of ${options.slotBytes}: lower --slot-bytes\n`, EXIT_USAGE);
  return { arena, slots };
}

/** Whatever prints, whenever it does. The console is made for the first of them: hardly ever, and then later. */
function printsGoTo(log: StderrLog): void {
  let made: Console | null = null;
  const make = (): Console => {
    const { Writable } = late('node:stream');
    const { Console } = late('node:console');
    return new Console(
      new Writable({
        write(text: Buffer, _encoding, done) {
          log.warn('printed', { text: text.toString().trimEnd() });
          done();
        },
      }),
    );
  };
  Object.defineProperty(globalThis, 'console', { configurable: true, get: () => (made ??= make()) });
}

/** Until open(), which takes milliseconds, by way of a thread: so goes the first line, `ready`. */
function stdoutSink(onError: (error: Error) => void): ByteSink & { open(): void } {
  let sink = pooledSink(STDOUT);
  const open = (): void => {
    const kind = fstatSync(STDOUT); // Node has done the same at its start
    if (kind.isFIFO() || kind.isSocket()) sink = pipeSink(STDOUT, process.stdout, onError);
  };
  return { open, write: (text, done) => sink.write(text, done) };
}

/** Before anything runs: the one place where process.exit() is safe. */
function sayAndExit(text: string, exitCode: number): never {
  try {
    writeSync(exitCode === 0 ? STDOUT : STDERR, text);
  } catch {
    // Nobody listens; the status still speaks.
  }
  process.exit(exitCode);
}
