// client.ts — a sidecar and its requests. Every promise here settles in time whatever the sidecar does:
// a request at its deadline + grace_ms at the latest, start and shutdown at bounds of their own.

import { EventEmitter } from 'node:events';
import { LIMITS, PROTOCOL, VERSION } from '../../protocol/messages.ts';
import type { Answers, ErrorAnswer, Event, Events, FailedEntry, Id, Op, ReadyEvent, RequestMessages } from '../../protocol/messages.ts';
import { Arena } from './arena.ts';
import { clientAnswer, StartError, UsageError, type ClientAnswer } from './errors.ts';
import { nowUs, Pending } from './pending.ts';
import { SidecarProcess, type Exit, type ProcessOptions } from './process.ts';

/** From spawn to the line `ready`: 80 ms for the mounts and a cold Node, with room for a loaded machine. */
const START_MS = 10_000;
/** Beyond the time a shutdown was given, for the last lines and the exit itself; then it is killed. */
const LEAVE_MS = 1000;

export interface SpawnOptions extends ProcessOptions {
  startMs?: number;
}
export type Fields<O extends Op> = Omit<RequestMessages[O], 'id' | 'op'> & { id?: Id };
export type Result<O extends Op> = Answers[O] | ErrorAnswer | ClientAnswer;
export interface Left {
  exit: Exit | null;
  /** It would not die: a call of it is stuck in the kernel, and nobody waits for it any more. */
  abandoned: boolean;
}
/** 'event': each event line · 'message': each line, parsed · 'late': an answer after the client's last word · 'gone': no more lines will come. */
interface ClientEvents {
  event: [Event];
  message: [unknown];
  late: [object];
  gone: [string];
}

const TIMED = new Set<Op>(['store', 'load', 'lookup', 'remove', 'namespace', 'list', 'verify', 'sweep']);

export class Client extends EventEmitter<ClientEvents> {
  readonly process: SidecarProcess;
  #ready: ReadyEvent | null = null;
  #arena: Arena | null = null;
  #nextId = 1;
  readonly #pending = new Pending();
  #goneReason: string | null = null;

  private constructor(options: SpawnOptions) {
    super();
    this.process = new SidecarProcess(options, { line: (text) => this.#line(text), gone: (reason) => this.#gone(reason) });
  }

  static async spawn(options: SpawnOptions): Promise<Client> {
    const startedUs = nowUs();
    const startMs = options.startMs ?? START_MS;
    const client = new Client(options);
    try {
      await client.#untilReady(startMs);
      client.#checkReady(startedUs);
      client.#arena = new Arena(client.ready.arena);
      return client;
    } catch (error) {
      client.kill();
      await client.process.waitExit(LEAVE_MS);
      client.release();
      throw error;
    }
  }

  get ready(): ReadyEvent {
    if (!this.#ready) throw new UsageError('the sidecar is not ready yet');
    return this.#ready;
  }

  get arena(): Arena {
    if (!this.#arena) throw new UsageError('the sidecar is not ready yet');
    return this.#arena;
  }

  get isGone(): boolean {
    return this.#goneReason !== null;
  }

  /** Requests that the sidecar has not answered. */
  get outstanding(): number {
    return this.#pending.size;
  }

  get stderr(): string {
    return this.process.stderr;
  }

  /** Always resolves; `source: "client"` says that the answer is this client's own. */
  request<O extends Op>(op: O, fields?: Fields<O>): Promise<Result<O>> {
    const { id = this.#freeId(), timeout_ms: timeoutMs, ...rest } = { ...fields } as { id?: Id; timeout_ms?: number; deadline_us?: number };
    if (this.#pending.has(id)) throw new UsageError(`id ${JSON.stringify(id)} is not answered yet`);
    // An absolute deadline: a sidecar that was stopped must not count from when it woke.
    const deadlineUs = rest.deadline_us ?? nowUs() + (timeoutMs ?? this.ready.timeout_ms) * 1000;
    if (TIMED.has(op)) rest.deadline_us = deadlineUs;
    const message = { id, op, ...rest, ...(op === 'shutdown' && timeoutMs !== undefined ? { timeout_ms: timeoutMs } : {}) };
    const slots = slotsOf(message);
    return new Promise((resolve) => {
      if (this.#goneReason !== null) return resolve(clientAnswer(id, 'SIDECAR_GONE', `${op} was not sent: the sidecar is gone (${this.#goneReason})`));
      const line = JSON.stringify(message);
      const bytes = Buffer.byteLength(line);
      if (bytes > LIMITS.line_bytes_max) return resolve(clientAnswer(id, 'LINE_TOO_LONG', `${op} was not sent: its line has ${bytes} bytes, the limit is ${LIMITS.line_bytes_max}`));
      if (!this.process.write(line)) return resolve(clientAnswer(id, 'SATURATED', `${op} was not sent: the sidecar does not read`));
      this.arena.asked(slots);
      this.#pending.add(id, op, slots, deadlineUs + LIMITS.grace_ms * 1000, (answer) => resolve(answer as Result<O>));
    });
  }

  /** A line as it is, also one that is no request; what comes back is in the events 'message'. */
  writeLine(text: string): boolean {
    return this.process.write(text);
  }

  /** The next event of this kind (that fits), or null when it did not come in time, or never will. */
  nextEvent<E extends Event['event']>(name: E, timeoutMs: number, fits: (event: Events[E]) => boolean = () => true): Promise<Events[E] | null> {
    return new Promise((resolve) => {
      const end = (event: Events[E] | null): void => {
        clearTimeout(timer);
        this.off('event', heard);
        this.off('gone', missed);
        resolve(event);
      };
      const missed = (): void => end(null);
      const heard = (event: Event): void => {
        if (event.event === name && fits(event as Events[E])) end(event as Events[E]);
      };
      const timer = setTimeout(end, timeoutMs, null);
      this.on('event', heard);
      this.on('gone', missed);
      if (this.isGone) missed();
    });
  }

  writeSlot(slot: number, data: Uint8Array, offset = 0): void {
    this.arena.write(slot, data, offset);
  }

  readSlot(slot: number, bytes: number, offset = 0): Buffer {
    return this.arena.read(slot, bytes, offset);
  }

  /** Asks it to leave, then makes it, then goes on without it; returns within timeoutMs + 3 × LEAVE_MS. */
  async shutdown(timeoutMs = 500): Promise<Left> {
    if (!this.isGone) await this.request('shutdown', { timeout_ms: timeoutMs });
    this.process.child.stdin.end();
    let exit = await this.process.waitExit(timeoutMs + LEAVE_MS);
    if (!exit) {
      this.kill();
      exit = await this.process.waitExit(LEAVE_MS);
    }
    this.release();
    return { exit, abandoned: exit === null };
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    this.process.child.kill(signal);
  }

  /** Lets go at once, without a word: pipes, arena, the wish to hear of its exit. */
  release(): void {
    this.process.release();
    this.#arena?.close();
  }

  #freeId(): number {
    while (this.#pending.has(this.#nextId)) this.#nextId += 1;
    return this.#nextId++;
  }

  #untilReady(startMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const fail = (what: string): void => reject(new StartError(`the sidecar ${what}`, this.stderr));
      const timer = setTimeout(() => fail(`was not ready within ${startMs} ms`), startMs);
      this.once('gone', (reason) => {
        clearTimeout(timer);
        fail(`did not become ready: ${reason}`);
      });
      this.once('event', () => {
        clearTimeout(timer);
        this.#ready ? resolve() : fail('did not begin with "ready"');
      });
    });
  }

  #checkReady(startedUs: number): void {
    const { protocol, version, now_us: theirsUs } = this.ready;
    if (protocol !== PROTOCOL) {
      throw new StartError(`client speaks protocol ${PROTOCOL}, sidecar speaks ${protocol} (client ${VERSION}, sidecar ${version}); install matching versions`, '');
    }
    const skewUs = LIMITS.clock_skew_ms_max * 1000;
    if (theirsUs < startedUs - skewUs || theirsUs > nowUs() + skewUs) {
      throw new StartError(`the sidecar's clock says ${theirsUs} us and ours ${nowUs()} us: deadlines would mean different times (another time namespace?)`, '');
    }
  }

  #line(text: string): void {
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(text) as Record<string, unknown>;
    } catch {
      this.kill();
      return this.#gone('it wrote a line that is not JSON');
    }
    this.emit('message', message);
    if (typeof message['event'] === 'string') return this.#event(message as unknown as Event);
    const { id } = message as { id: Id | null };
    // Without an id it answers a line that had none that could be read: for whoever wrote it with writeLine.
    if (id === null) return;
    const entry = this.#pending.answered(id, message);
    if (!entry) return;
    this.#arena?.answered(entry.slots, (message['failed'] as FailedEntry[] | undefined) ?? []);
    if (entry.settled) this.emit('late', message);
  }

  #event(event: Event): void {
    if (event.event === 'ready') this.#ready ??= event;
    if (event.event === 'slots_freed') this.#arena?.freed(event.slots);
    this.emit('event', event);
  }

  #gone(reason: string): void {
    if (this.#goneReason !== null) return;
    this.#goneReason = reason;
    this.#pending.endAll(reason);
    this.emit('gone', reason);
  }
}

/** Slot of block i (-1: inline), for the bookkeeping; whether they are right is the sidecar's to say. */
function slotsOf(message: object): number[] {
  const { slots, blocks } = message as { slots?: unknown; blocks?: unknown };
  if (Array.isArray(slots)) return slots as number[];
  if (!Array.isArray(blocks)) return [];
  const found = (blocks as { slot?: number }[]).map((block) => block?.slot ?? -1);
  return found.some((slot) => slot >= 0) ? found : [];
}
