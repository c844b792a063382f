// faults.ts — what may go wrong with the disks and mounts of a world, and how it is put right again.
//
// What it has done to a class of a mount it remembers (`maySuffer`): there a suspension or a missed deadline may be its work.
import type { LaneClass } from '../../native/index.ts';
import { LANE_CLASSES, PHASES } from '../../protocol/messages.ts';
import type { Agenda } from './agenda.ts';
import { ERRNOS } from './calls.ts';
import { FileSystem, Root, type Store } from './disk.ts';
import type { SimNative } from './native.ts';
import type { Random } from './random.ts';
import type { Story } from './story.ts';

export type Fault = 'hang' | 'resume' | 'badFile' | 'slow' | 'errno' | 'damage' | 'unmount' | 'remount' | 'threads';
export const FAULTS: ReadonlySet<string> = new Set<Fault>(['hang', 'resume', 'badFile', 'slow', 'errno', 'damage', 'unmount', 'remount', 'threads']);

/** A store that is mounted in the place of the right one. */
export const OTHER = 'f'.repeat(32);
/** Slower than this, and a call may look stuck. */
const SLOW_MAX = 30;

export interface FaultsHost {
  agenda: Agenda;
  story: Story;
  random(): Random;
  roots: Root[];
  stores: Map<string, Store>;
  /** Nothing is ever stuck: then nothing may be suspended either. */
  calm: boolean;
  keys: number;
  /** What the sidecar that runs took the store of this mount for. */
  identityOf(mount: number): string | null;
  newTag(): string;
}

export class Faults {
  noThreads = false;
  /** Threads were short once. */
  troubledThreads = false;
  /** Or something was mounted elsewhere. */
  troubled = false;
  /** All is to be well from now on. */
  healed = false;
  #fileSystems: FileSystem[] = [];
  #sick = new Set<string>();
  #homes = new Map<Root, string>();
  #mountIds = 30;
  #labels = 0;
  #host: FaultsHost;

  constructor(host: FaultsHost) {
    this.#host = host;
  }

  newRoot(path: string, fileSystem: FileSystem): Root {
    return new Root(path, fileSystem, (this.#mountIds += 1));
  }

  newFileSystem(store: Store | null, label: string | null): FileSystem {
    const fileSystem = new FileSystem(label ?? `254:${(this.#labels += 1)}`, this.#host.random().pick(['ext4', 'xfs', 'nfs4', 'btrfs']), store);
    this.#fileSystems.push(fileSystem);
    return fileSystem;
  }

  /** Something of this class was slow or stuck there, or nobody watched. */
  maySuffer(mount: string, laneClass: LaneClass): boolean {
    return this.#sick.has(`${mount} ${laneClass}`) || this.#sick.has('all');
  }

  /** The process itself stopped: what it did not watch may look sick. */
  nobodyWatched(): void {
    this.#sick.add('all');
  }

  // ---- what may happen ----

  happens(fault: Fault): void {
    const { story, stores, roots, agenda } = this.#host;
    const random = this.#host.random();
    switch (fault) {
      case 'hang':
        return this.hang();
      case 'resume':
        return this.#resume();
      case 'badFile': {
        const fileSystem = this.#anyFileSystem();
        const key = `${random.pick(['llama', 'qwen@3'])}/${(0xa0 + random.below(this.#host.keys)).toString(16)}`;
        this.#tell('one bad file', () => `every call for ${key} on ${fileSystem.label} hangs`);
        fileSystem.bad.add(key);
        for (const laneClass of LANE_CLASSES) this.#isSick(fileSystem, laneClass);
        return;
      }
      case 'slow': {
        const fileSystem = this.#anyFileSystem();
        const laneClass = random.pick(LANE_CLASSES);
        const factor = random.pick(this.#host.calm ? [1, 5, SLOW_MAX] : [1, 5, SLOW_MAX, 400, 4_000]);
        this.#tell('slow', () => `${laneClass} on ${fileSystem.label} takes ${factor} times as long`);
        fileSystem.slow[laneClass] = factor;
        if (factor > SLOW_MAX) this.#isSick(fileSystem, laneClass);
        return;
      }
      case 'errno': {
        const fileSystem = this.#anyFileSystem();
        const laneClass = random.pick(LANE_CLASSES);
        const errno = random.pick([0, 0, ...ERRNOS]);
        if (errno !== 0) this.#tell('errors', () => `${laneClass} on ${fileSystem.label} fails with ${errno}`);
        fileSystem.errno[laneClass] = errno;
        return;
      }
      case 'damage':
        return this.#damage();
      case 'unmount': {
        const root = random.pick(roots);
        this.#tell('unmounted', () => `${root.path} shows the directory underneath`);
        this.mount(root, this.newFileSystem(random.oneIn(3) ? stores.get(OTHER)! : null, null));
        return;
      }
      case 'remount': {
        const root = random.pick(roots);
        const right = this.homeOf(root);
        this.#tell('remounted', () => `${root.path} is mounted again on ${right.label}`);
        this.mount(root, right);
        return;
      }
      case 'threads':
        this.noThreads = !this.noThreads;
        this.troubled = this.troubledThreads = true;
        if (this.noThreads) this.#tell('no more threads', () => 'no thread can be made');
        else story.tell('fault', () => `threads can be made again, at ${agenda.nowUs}`);
        return;
    }
  }

  /** The sidecar starts before its mount is there: the first lane hangs in what lies underneath, and is let go when it is. */
  mountedLate(): void {
    const { stores, roots, agenda } = this.#host;
    const root = this.#host.random().pick(roots);
    const home = root.fileSystem;
    const underneath = this.newFileSystem(stores.get(OTHER)!, null);
    this.#tell('mounted late', () => `${root.path} is another store, which hangs, until it is mounted`);
    this.mount(root, underneath);
    for (const laneClass of LANE_CLASSES) {
      underneath.hung.set(laneClass, 'any');
      this.#isSick(underneath, laneClass);
    }
    agenda.in(this.#host.random().below(150_000), () => {
      if (root.fileSystem === underneath) this.mount(root, home);
      underneath.hung.clear();
      this.#resumeParked();
    });
  }

  hang(): void {
    const random = this.#host.random();
    const fileSystem = this.#anyFileSystem();
    const classes = random.oneIn(2) ? LANE_CLASSES : [random.pick(LANE_CLASSES)];
    const phase = random.oneIn(2) ? 'any' : random.pick(PHASES);
    this.#tell('hang', () => `${classes.join(', ')} on ${fileSystem.label} hang${phase === 'any' ? '' : ` in ${phase}`}`);
    for (const laneClass of classes) {
      fileSystem.hung.set(laneClass, phase);
      this.#isSick(fileSystem, laneClass);
    }
  }

  mount(root: Root, fileSystem: FileSystem): void {
    if (!this.#homes.has(root)) this.#homes.set(root, root.fileSystem.store!.id);
    this.troubled = true;
    root.fileSystem = fileSystem;
    root.mountId = this.#mountIds += 1;
    root.mountedUs = this.#host.agenda.nowUs;
    const mount = this.#host.roots.indexOf(root);
    for (const laneClass of LANE_CLASSES) if (fileSystem.hung.has(laneClass) || fileSystem.bad.size > 0 || fileSystem.slow[laneClass] > SLOW_MAX) this.#sick.add(`kv${mount} ${laneClass}`);
  }

  /** The right store: on the file system it was on, or as another device. */
  homeOf(root: Root): FileSystem {
    const id = this.#storeIdOf(root);
    const before = this.#fileSystems.filter((one) => one.store?.id === id);
    return this.#host.random().oneIn(2) ? before[before.length - 1]! : this.newFileSystem(this.#host.stores.get(id)!, null);
  }

  isRight(root: Root): boolean {
    return root.fileSystem.store?.id === this.#storeIdOf(root);
  }

  // ---- putting right ----

  heal(): void {
    this.healed = true;
    this.noThreads = false;
    for (const fileSystem of this.#fileSystems) fileSystem.heal();
  }

  /** All that hangs goes on, and what was slow is through soon. */
  resumeAll(native: SimNative): void {
    this.#resumeParked();
    native.speedUp();
  }

  #resume(): void {
    const sick = this.#fileSystems.filter((one) => one.hung.size > 0 || one.bad.size > 0);
    if (sick.length === 0) return;
    const fileSystem = this.#host.random().pick(sick);
    this.#tell('resume', () => `${fileSystem.label} goes on`);
    fileSystem.hung.clear();
    fileSystem.bad.clear();
    this.#resumeParked();
  }

  #resumeParked(): void {
    const { agenda } = this.#host;
    for (const fileSystem of this.#fileSystems) for (const one of fileSystem.resumed(this.#host.random())) agenda.in(this.#host.random().below(20_000), () => one.go());
  }

  // ---- which, and who suffers ----

  #damage(): void {
    const random = this.#host.random();
    const { store } = this.#anyFileSystem();
    if (store === null) return;
    const keys = [...store.blocks.keys()];
    if (keys.length === 0) return;
    const key = random.pick(keys);
    const version = store.current(key);
    if (version.state === 'absent') return;
    const state = random.pick(['damaged', 'damaged', 'foreign', 'newer', 'whole', 'absent'] as const);
    this.#tell(`block ${state}`, () => `${key} is ${state} from now on`);
    store.put(key, state, random.oneIn(3) ? version.bytes : 1 + random.below(65_536), state === 'absent' ? '' : this.#host.newTag(), this.#host.agenda.nowUs);
  }

  #isSick(fileSystem: FileSystem, laneClass: LaneClass): void {
    // Lanes and breakers are a device's: what shares it is sick with it.
    const { roots } = this.#host;
    roots.forEach((root, mount) => {
      if (root.fileSystem.label === fileSystem.label) this.#sick.add(`kv${mount} ${laneClass}`);
    });
    if (!roots.some((root) => root.fileSystem === fileSystem)) this.#sick.add('all');
  }

  #anyFileSystem(): FileSystem {
    const random = this.#host.random();
    return random.oneIn(6) ? random.pick(this.#fileSystems) : random.pick(this.#host.roots).fileSystem;
  }

  /** What the sidecar that runs took it for; before there is one, what was there at first. */
  #storeIdOf(root: Root): string {
    return this.#host.identityOf(this.#host.roots.indexOf(root)) ?? this.#homes.get(root) ?? root.fileSystem.store!.id;
  }

  #tell(kind: string, text: () => string): void {
    this.#host.story.saw('fault', kind);
    this.#host.story.tell('fault', text);
  }
}
