// disk.ts — stores, the file systems they lie on, and what may be wrong with these.
//
// A store outlives every sidecar. A file system may hang for a class of calls or for one block, be slow, answer with
// errors, be unmounted, and lie under a root again as another device. What hangs waits in `parked` until it resumes.
import type { LaneClass, Phase } from '../../native/index.ts';
import type { Random } from './random.ts';

/** What a name led to, from a moment on. */
export interface Version {
  fromUs: number;
  state: 'absent' | 'whole' | 'damaged' | 'foreign' | 'newer';
  bytes: number;
  /** Stands for the bytes: no two stores write the same. */
  tag: string;
  inode: number;
}

export interface NamespaceRecord {
  fingerprint: string;
  fromUs: number;
}

const ABSENT: Version = { fromUs: 0, state: 'absent', bytes: 0, tag: '', inode: 0 };
/** Of one key; older ones are of no use to a request that is still unanswered. */
const VERSIONS_KEPT = 40;

export class Store {
  readonly id: string;
  readonly blocks = new Map<string, Version[]>();
  /** Of each namespace: its generations, from the first on. */
  readonly records = new Map<string, NamespaceRecord[]>();
  /** Keys that once led to what no load takes: a store may replace that whatever it was asked. */
  readonly everBad = new Set<string>();
  #inodes = 100;

  constructor(id: string) {
    this.id = id;
  }

  current(key: string): Version {
    return this.blocks.get(key)?.at(-1) ?? ABSENT;
  }

  put(key: string, state: Version['state'], bytes: number, tag: string, nowUs: number): void {
    let versions = this.blocks.get(key);
    if (versions === undefined) this.blocks.set(key, (versions = [ABSENT]));
    if (state === 'damaged' || state === 'foreign') this.everBad.add(key);
    versions.push({ fromUs: nowUs, state, bytes, tag, inode: (this.#inodes += 1) });
    if (versions.length > VERSIONS_KEPT) versions.shift();
  }

  /** What the name led to at any moment since then. */
  since(key: string, fromUs: number): Version[] {
    const versions = this.blocks.get(key) ?? [ABSENT];
    let first = versions.length - 1;
    while (first > 0 && versions[first]!.fromUs >= fromUs) first -= 1;
    return versions.slice(first);
  }
}

export interface Parked {
  go(): void;
}

export class FileSystem {
  label: string;
  readonly type: string;
  readonly store: Store | null;
  /** Every call of the class, or those of one kind. */
  readonly hung = new Map<LaneClass, Phase | 'any'>();
  readonly slow: Record<LaneClass, number> = { load: 1, store: 1, metadata: 1 };
  readonly errno: Record<LaneClass, number> = { load: 0, store: 0, metadata: 0 };
  /** Blocks whose own calls hang: one bad file. */
  readonly bad = new Set<string>();
  parked: { at: Parked; laneClass: LaneClass; key: string; phase: Phase }[] = [];

  constructor(label: string, type: string, store: Store | null) {
    this.label = label;
    this.type = type;
    this.store = store;
  }

  hangs(laneClass: LaneClass, key: string, phase: Phase): boolean {
    const which = this.hung.get(laneClass);
    return which === 'any' || which === phase || this.bad.has(key);
  }

  /** Those that wait for what no longer hangs, in an order of its own. */
  resumed(random: Random): Parked[] {
    const free = this.parked.filter((one) => !this.hangs(one.laneClass, one.key, one.phase));
    if (free.length === 0) return [];
    this.parked = this.parked.filter((one) => this.hangs(one.laneClass, one.key, one.phase));
    const shuffled: Parked[] = [];
    while (free.length > 0) shuffled.push(...free.splice(random.below(free.length), 1).map((one) => one.at));
    return shuffled;
  }

  answers(laneClass: LaneClass): boolean {
    return !this.hung.has(laneClass) && this.bad.size === 0 && this.errno[laneClass] === 0 && this.slow[laneClass] <= 30;
  }

  heal(): void {
    this.hung.clear();
    this.bad.clear();
    for (const laneClass of ['load', 'store', 'metadata'] as const) {
      this.slow[laneClass] = 1;
      this.errno[laneClass] = 0;
    }
  }
}

/** A root directory, and what is mounted there just now. */
export class Root {
  readonly path: string;
  fileSystem: FileSystem;
  /** Counts the mounts: the id in the kernel's list. */
  mountId: number;
  mountedUs = 0;

  constructor(path: string, fileSystem: FileSystem, mountId: number) {
    this.path = path;
    this.fileSystem = fileSystem;
    this.mountId = mountId;
  }
}
