// index.ts — the native addon, found, loaded and typed.
//
// Everything it offers returns at once: no function here makes a call on a mount, and none waits.
// What takes time happens in lanes and comes back as events, in batches, on this thread.
import { join } from 'node:path';
import { type Addon, unpacked } from './packed.ts';

export { type Entry, type Listing, LIST_ENTRIES_MAX, listing } from './listing.ts';

export type LaneClass = 'load' | 'store' | 'metadata';
export type Engine = 'threads' | 'aio';
export type Phase = 'queue' | 'open' | 'stat' | 'header' | 'read' | 'write' | 'fsync' | 'rename' | 'unlink' | 'close';
export type NativeStatus =
  | 'ok'
  | 'not_found'
  | 'corrupt'
  | 'length_mismatch'
  | 'newer_format'
  | 'io_error'
  | 'no_space'
  | 'wrong_store'
  | 'expired' // the deadline passed while it was queued or between two calls; no call was started after it
  | 'saturated' // no thread could be made for it (errno), and no lane lives
  | 'fenced'; // another holds the lease, or held it; nothing was changed

export interface Native {
  /** CLOCK_MONOTONIC in microseconds. */
  nowUs(): number;
  /** Once. Throws with `code` KVLANE_NO_OPENAT2 where the kernel or a seccomp profile lacks what lanes need. `onEvents` is called on this thread, never from inside another function of this interface. */
  start(options: { stallUs: number; stuckProcessMax: number; /** No payload gets a checksum: to measure what they cost. */ unchecked?: boolean }, onEvents: (batch: NativeEvent[]) => void): void;
  /** What the next call of onEvents would bring, now: before something is judged by its time. */
  collect(): NativeEvent[];
  /** One timer; replaces the former, 0 disarms. Its event comes at the time or after it, never before. */
  armTimer(atUs: number): void;
  /** Maps an inherited memfd as region 0, after checking its seals and size. Errors carry `code`: ARENA_…. Before any pool. */
  adoptArena(fd: number, wishes: ArenaWishes): ArenaInfo;
  /** Makes a sealed memfd and maps it as region 0; rounded up where it gets huge pages. */
  createArena(bytes: number, wishes: ArenaWishes): ArenaInfo;
  /** What it lies on now: transparent huge pages may go. Where there are some it reads /proc, a millisecond. */
  observeArena(): ArenaInfo;
  /** Private memory, region 1. */
  createStaging(bytes: number): void;
  writeStaging(offset: number, data: Uint8Array): void;
  /** A copy. */
  readStaging(offset: number, bytes: number): Buffer;
  addMount(path: string): number;
  /** What lanes verify when they open the root; null: not known yet, and only identify and probe run. */
  setMountIdentity(mount: number, storeId: string | null): void;
  /** What the mount may keep of removed and replaced blocks, to overwrite it; nothing at first. */
  setRecycling(mount: number, limits: RecycleLimits): void;
  recycling(mount: number): RecycleFigures;
  /**
   * One queue and its lanes, which are made on demand. `forProbes`: those in the place of stuck ones come from a small
   * reserve instead of stuckProcessMax.
   */
  createPool(options: { laneClass: LaneClass; lanes: number; engine: Engine; forProbes: boolean }): number;
  /** How many lanes the pool may have beyond its own while some are stuck; 0 at first. */
  setStuckLimit(pool: number, lanes: number): void;
  /**
   * Its lanes leave as they become free and close their roots, stuck ones when they come back; nothing is waited for.
   * Nothing may be queued in it, and nothing may be submitted to it again; poolState and stuck go on telling of it.
   */
  closePool(pool: number): void;
  /** Throws only on programming errors. */
  submit(pool: number, operation: OpSpec): void;
  /** As submit() for each of these blocks, in this order, in one crossing. When it throws, those before the wrong one may be under way. */
  submitBlocks(pool: number, shared: SharedSpec, blocks: readonly BlockSpec[]): void;
  /** Settles the caller's claim. An id that is not outstanding is `done`: its event may be in the batch that is being read. */
  abandon(id: number): Abandoned;
  /** Takes it back out of the queue: true, and nothing is heard of it again. False: a lane took it up, and the caller's claim stands. */
  withdraw(id: number): boolean;
  /** Somebody beside its task waits for it: its end is told at once, not with those of its task. */
  hurry(id: number): void;
  poolState(pool: number): PoolState;
  /** Calls over stallUs, and abandoned operations that the kernel still has; `all`: whatever lanes have in hand. */
  stuck(all?: boolean): StuckCall[];
  /** Ends the process now; joins nothing, flushes nothing. */
  hardExit(code: number): never;
  /** {type: 'parent_gone'} once, at once if it has gone already; a notice if it cannot be watched. */
  watchParent(pid: number): void;
  /** What is really used: aio falls back to threads, aloud. */
  engineOf(pool: number): Engine;
}

/** auto: hugetlb, else transparent ones, else small pages · require: one of the two · hugetlb, thp: just this · off: not asked for. */
export type HugePages = 'auto' | 'require' | 'hugetlb' | 'thp' | 'off';
/** What goes through private huge pages while the arena lies on small ones. */
export type Bounce = 'none' | 'loads' | 'stores' | 'all';

export interface ArenaWishes {
  hugePages: HugePages;
  bounce: Bounce;
}

/** As observed. `thp` only when all of it lies on huge pages; hugeBytes counts them. */
export interface ArenaInfo {
  fd: number;
  bytes: number;
  pageBytes: number;
  hugeBytes: number;
  backing: 'hugetlb' | 'thp' | 'shmem';
  /** What the host's administrator should run for huge pages; empty where there is nothing to say. */
  advice: string;
}

export interface RecycleLimits {
  /** 0: none, and those that are there stay unused. */
  files: number;
  bytes: number;
  /** For so long a replaced file is left alone. */
  restUs: number;
  fileMode: number;
}

export interface RecycleFigures {
  /** false also where the file system turned out to have no use for it. */
  on: boolean;
  /** Waiting now. */
  files: number;
  bytes: number;
  /** Since the start: blocks stored over such a file; files that came in, that were unlinked, that were gone or changed when wanted. */
  recycled: number;
  kept: number;
  dropped: number;
  lost: number;
}

export type OpSpec = { id: number; mount: number; rootGeneration: number; /** 0: none */ deadlineUs: number } & (
  | { kind: 'load'; namespace: string; hex: string; region: 0 | 1; offset: number; bytes: number }
  | { kind: 'store'; namespace: string; hex: string; region: 0 | 1; offset: number; bytes: number; replace: boolean; durable: boolean; fileMode: number }
  | { kind: 'lookup'; namespace: string; names: readonly string[] }
  /**
   * inode, modifiedNs (as `list` tells them; '' or absent: any): only this very file, else ok with `kept`; with `inode` it is unlinked,
   * unless `recycles`: then it is kept to be overwritten, as any other. fence 'collector/8' ('' or absent: none): only while 7 is the highest lease, else `fenced`.
   */
  | { kind: 'remove'; namespace: string; hex: string; inode?: string; modifiedNs?: string; recycles?: boolean; fence?: string }
  | { kind: 'aside'; namespace: string; hex: string; inode: string; fileMode: number }
  | { kind: 'identify'; create: boolean; fileMode: number }
  | { kind: 'namespace'; namespace: string; fingerprint: string; bump: boolean; fileMode: number }
  | { kind: 'tidy'; olderUs: number; fileMode: number }
  | { kind: 'probe'; probeClass: LaneClass; fileMode: number }
  /** One directory: blocks, blocks/NS, blocks/NS/ab, recycle, recycle/W, aside, namespaces, collector, probe or probe/N. cookie '' at first; `listing` reads the text. */
  | { kind: 'list'; path: string; cookie: string; entriesMax: number }
  /** Reads a block whole and checks it as a load does; ok with storedBytes and text: {"created_us":n,"writer":"hex"}, the writer if it is one. Changes nothing; corrupt: `text` says what. */
  | { kind: 'verify'; namespace: string; hex: string }
  /** A leftover that is no block: blocks/NS/ab/….tmp, recycle/W/N, aside/N; not this process's own. Conditions as of `remove`, but by the time of change. */
  | { kind: 'remove_file'; path: string; inode: string; changedNs: string; fence: string }
  /** Those that were modified longer ago, or so far in the future, get the time of now. text: {"touched":n,"absent":n,"fresh":n,"failed":n}; errno: of the first that failed. */
  | { kind: 'touch'; namespace: string; names: readonly string[]; olderUs: number }
  /**
   * Who may remove blocks for room: the highest number in collector/. text, of each action: {"number":n,"modified_ns":"…"}, where modified_ns is by the file
   * system's clock; of look with "content", and number 0 where nobody ever was; of take and renew with "total_bytes" of the file system. What the others hold is found out by looking whether it changes, never by clocks.
   * take: `text` becomes the content of `number`, which must be higher than all. renew: of one's own. leave: the content becomes `left`. `fenced`: another has it,
   * and the text's number is his.
   * listen, tell: of the sign `text`, which is want or made (block_lease.cc), when it was last told; modified_ns '0': it is not there, or nobody's. tell: it is told now;
   * an error where there is none.
   */
  | { kind: 'lease'; action: 'look' | 'take' | 'renew' | 'leave' | 'listen' | 'tell'; number: number; text: string; fileMode: number }
  /** One step, in a directory of its own below the root, .kvlane-doctor-DIRECTORY; the root need not be a store. Its `text` is JSON, whatever its status. */
  | { kind: 'survey'; step: SurveyStep; directory: string; fileMode: number }
);

/** In the order in which they build on each other; `clean` after all, whatever became of them. */
export type SurveyStep = 'root' | 'make' | 'write' | 'read' | 'rename' | 'exclusive' | 'unlinked' | 'list' | 'clean';

/** What the blocks of one task have in common; as in the OpSpec of this kind. */
export interface SharedSpec {
  kind: 'load' | 'store' | 'remove';
  mount: number;
  rootGeneration: number;
  deadlineUs: number;
  namespace: string;
  /** These two: of stores. */
  durable: boolean;
  fileMode: number;
}

/** A remove has no memory, and only a store can replace. */
export interface BlockSpec {
  id: number;
  /** Without a line break, which divides them where they cross. */
  hex: string;
  region: 0 | 1;
  offset: number;
  bytes: number;
  replace: boolean;
}

/**
 * queued: dropped; no 'done' will come, its memory is free at once.
 * running: its 'done' comes later with late: true; its memory is the kernel's until then.
 * committing: as running, and the name may still change.
 * done: it was finished already; its 'done' is on the way with late: false, its memory is free.
 */
export type Abandoned = {
  state: 'queued' | 'running' | 'committing' | 'done';
  phase: Phase;
  /** Of the call it is inside; between two calls, when a lane took it. */
  sinceUs: number;
  /** lookup: what was proven until now. 0 not known, 1 absent, 2 present. */
  found?: Uint8Array;
};

export type NativeEvent =
  | {
      type: 'done';
      id: number;
      status: NativeStatus;
      errno: number;
      phase: Phase;
      kernelUs: number;
      /** false: kernelUs is an upper bound, and far off it may be; no latency. */
      kernelUsKnown: boolean;
      uncached: boolean;
      kept: boolean;
      storedBytes: number;
      /** The damaged file to set aside, for `aside` as it is: inode@nanoseconds of its last change. Empty: leave it alone. */
      inode: string;
      text: string;
      late: boolean;
      found?: Uint8Array;
    }
  | { type: 'stalled'; call: StuckCall }
  | { type: 'recovered'; call: StuckCall }
  | { type: 'timer' }
  | { type: 'parent_gone' }
  | { type: 'notice'; text: string };

export interface StuckCall {
  /** -1, with kind 'leave': a lane that closes its roots before it leaves. */
  id: number;
  pool: number;
  kind: string;
  tid: number;
  phase: Phase;
  /** 'none' between two calls. */
  syscall: string;
  sinceUs: number;
  forUs: number;
  abandoned: boolean;
  namespace: string;
  hex: string;
}

export interface PoolState {
  queued: number;
  /** On a lane and not abandoned. */
  running: number;
  /** Lanes that are held by a stalled or abandoned call. */
  stuck: number;
  /** All threads of the pool: idle, busy and stuck. */
  lanes: number;
  /** These three: operations inside a call and not abandoned. 0 when there is none; at most 8 ids, oldest first. */
  oldestSinceUs: number;
  oldestIds: number[];
  runningBytes: number;
}

/** The addon could not be loaded; says what was tried and what to do. */
export class NativeLoadError extends Error {
  readonly code = 'NATIVE_NOT_LOADED';
}

/** Finds and loads the addon: $KVLANE_NATIVE, which must be right if it is set, else native/build/Release. */
export function loadNative(): Native {
  const root = join(import.meta.dirname, '..'); // of native/ in the source tree, and of dist/ when built
  const named = process.env['KVLANE_NATIVE'];
  const path = named ?? join(root, 'native', 'build', 'Release', 'kvlane.node');
  try {
    const module = { exports: {} };
    process.dlopen(module, path); // what require() does in the end, after a search that takes longer
    return unpacked(module.exports as Addon);
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split('\n')[0] ?? '') : String(error);
    throw new NativeLoadError(
      [
        `kvlane's native part cannot be loaded (Node ${process.versions.node}, ${process.platform}-${process.arch}).`,
        `  tried ${path}${named === undefined ? '' : ' (from KVLANE_NATIVE)'}: ${reason}`,
        named === undefined ? `  to build it: cd ${root} && npm run build` : '  unset KVLANE_NATIVE to use the one that npm run build makes',
      ].join('\n'),
      { cause: error },
    );
  }
}
