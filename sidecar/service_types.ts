// service_types.ts — where the two halves of the sidecar meet.
//
// The front (main, line reader and writer, log, leaving) knows pipes and processes; the service
// (tasks, deadlines, breakers, slots) knows requests and lanes. Neither imports the other's files:
// main.ts alone puts them together, and tests put a stub on either side of these types.
import type { Engine, Native, NativeEvent } from '../native/index.ts';
import type { Answer, Event, Id, MountInfo, StuckEntry } from '../protocol/messages.ts';
import type { Request } from '../protocol/request.ts';
import type { MountTable } from './mount_table.ts';

/** CLOCK_MONOTONIC and one timer; the only clock that decides anything. */
export interface Clock {
  nowUs(): number;
  /** Replaces the former time; 0 disarms. Fires late or on time, never early. */
  arm(atUs: number): void;
}

/** Structured lines on stderr. Calls never block and never throw; a line may be dropped and counted. */
export interface Log {
  info(event: string, fields?: object): void;
  warn(event: string, fields?: object): void;
  error(event: string, fields?: object): void;
}

/** The process figures of the `stats` answer; filled off the request path, so it returns at once. */
export interface Usage {
  latest(): UsageFigures;
}

export interface UsageFigures {
  /** Per cent of one processor, from pidusage, over the time between its last two samples. */
  cpu_percent: number | null;
  /** Resident bytes, from pidusage. The pages touched of a shared arena count too. */
  resident_bytes: number | null;
  /** How old the two figures above are; null while there are none. */
  sampled_ms_ago: number | null;
  /** From getrusage(2), always fresh. */
  cpu_user_ms: number;
  cpu_system_ms: number;
  resident_peak_bytes: number;
}

export type Recycle = 'auto' | 'on' | 'off';

export interface MountOption {
  name: string;
  /** Absolute; resolved lexically, never looked at by the main thread. */
  root: string;
  create: boolean;
}

/** What a store may hold: so much, or a share of its file system. */
export type Capacity = { bytes: number } | { percent: number };

export interface ServiceOptions {
  mounts: MountOption[];
  /** By mount; none: its store grows as it likes. */
  capacity: ReadonlyMap<string, Capacity>;
  /** For tests: all times of collectors are so many times shorter. */
  collectorHaste: number;
  slotBytes: number;
  slots: number;
  timeoutMs: number;
  stallMs: number;
  engine: Engine;
  /** Per device and class, made on demand. */
  lanes: number;
  /** Stuck lanes per device. */
  stuckMax: number;
  /** Stuck lanes and operations in the whole process. */
  stuckProcessMax: number;
  fsync: boolean;
  fileMode: number;
  /** auto: on file systems that are known to gain by it and to keep its rules; on: on others of this machine too. */
  recycle: Recycle;
  /** What dead sidecars left in recycle/ is unlinked. */
  tidy: boolean;
  /** How long a look-up believes what this process stored, loaded or saw; 0: it always asks the mount. */
  indexMs: number;
  /** For tests with many stuck operations: the breaker counts but never opens. */
  holdBreakerClosed: boolean;
}

export interface ServiceDeps {
  native: Native;
  clock: Clock;
  send(message: Answer | Event): void;
  log: Log;
  usage?: Usage;
  /** The kernel's list of mounts; absent in tests. */
  mountTable?: MountTable;
  /** A `shutdown` request was accepted and its answer sent: main drains for this long and leaves. */
  onShutdown(timeoutMs: number): void;
}

/** What may be asked without being a client: nothing of it is counted as a request, and nothing changes. */
export interface Look {
  stats(): Record<string, unknown>;
  /** Oldest first; `overMs`: also what is not late. */
  stuck(overMs: number | undefined, listedMax: number): { stuck: StuckEntry[]; more?: number };
  help(): Record<string, unknown>;
  mounts(): MountInfo[];
}

export interface Service {
  readonly look: Look;
  /** Identifies the mounts in lanes; resolves when all have answered, whatever they do after at most waitMs (START_WAIT_MS = 80). */
  start(waitMs?: number): Promise<MountInfo[]>;
  /** The engine that runs, which may be another one than was asked for; known once start() has resolved. */
  engine(): Engine;
  /** A decoded request; its one answer goes out through deps.send. */
  handle(request: Request): void;
  onNative(batch: NativeEvent[]): void;
  /**
   * Whether a task with this id is not answered yet. The front asks before it refuses a line that it
   * could not decode: an answer with an id in use would be a second answer to the first request.
   */
  holdsId(id: Id): boolean;
  /** Tasks not answered yet. */
  outstanding(): number;
  /** Refuses new work with SHUTTING_DOWN, waits for tasks, at the bound settles the rest SHUTTING_DOWN. */
  drain(timeoutMs: number, done: () => void): void;
  /** A person at the terminal said yes: identify this mount again with `create`. Absent: not offered. */
  createStore?(mount: string): void;
}

export type CreateService = (deps: ServiceDeps, options: ServiceOptions) => Service;
