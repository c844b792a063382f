// mounts.ts — which directories are the stores they should be; asks until they are.
//
// A mount is identified in a lane of its own, before its device is known and again whenever a lane or a
// probe found another store (or none) behind its path, or the list of mounts changed. Start-up waits 80 ms for that and no longer: a
// mount that did not answer starts suspended and comes back by itself.
import type { Engine, LaneClass, Native } from '../native/index.ts';
import { LANE_CLASSES, type Code, type Event, type MountInfo } from '../protocol/messages.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Device, Devices } from './devices.ts';
import { errnoName } from './errno.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Lanes } from './lanes.ts';
import { Mount } from './mount.ts';
import type { MountTable } from './mount_table.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import { PROBES_HELD_MAX, Prober, type ProbeHost } from './prober.ts';
import type { Log, MountOption } from './service_types.ts';
import { StoreMaking } from './store_making.ts';

/** Ready in the usual time with a hung mount: a healthy one answers in a millisecond, the rest of the start takes 60. */
export const START_WAIT_MS = 80;
/** How often a wrong store is looked at again: the right one is noticed well within a second. */
const IDENTIFY_AGAIN_US = 150_000;

export interface MountsContext {
  native: Native;
  engine: Engine;
  lanes: Lanes;
  deadlines: Deadlines;
  log: Log;
  mountTable: MountTable;
  nowUs(): number;
  /** It is the right store, on this device and file system. */
  identified(mount: Mount): void;
  /** Which store one is has been learnt just now. */
  learnt(): void;
  send(event: Event): void;
}

export class Mounts implements Alarm {
  atUs = 0;
  heapIndex = -1;
  readonly all: Mount[];
  #byName = new Map<string, Mount>();
  #identifiers: Prober[];
  #identifyPools: number[];
  #making: StoreMaking[];
  #devices: Devices;
  /** Of each mount the device that the first list showed, until it has been compared. */
  #listed = new Map<Mount, string>();
  #context: MountsContext;
  #startedUs = 0;
  /** Events wait until `ready` is out; what they would say is in it. */
  #announcing = false;
  #ready: (() => void) | null = null;

  constructor(options: MountOption[], devices: Devices, context: MountsContext) {
    this.#devices = devices;
    this.#context = context;
    this.all = options.map(({ name, root }, index) => new Mount(index, name, root, context.native.addMount(root)));
    for (const mount of this.all) this.#byName.set(mount.name, mount);
    this.#making = options.map(({ root, create }) => {
      const making = new StoreMaking(context.mountTable, context.log, root);
      if (create) making.want();
      return making;
    });
    // With the engine that was asked for, though these calls make no use of it: so `ready` can say whether it is to be had.
    this.#identifyPools = this.all.map(() => context.native.createPool({ laneClass: 'metadata', lanes: 1, engine: context.engine, forProbes: true }));
    this.#identifiers = this.all.map((mount) => {
      const pool = this.#identifyPools[mount.index]!;
      context.native.setStuckLimit(pool, PROBES_HELD_MAX - 1);
      return new Prober(new Identify(mount, pool, this, this.#making[mount.index]!, context), context.lanes, context.deadlines);
    });
  }

  named(name: string): Mount | null {
    return this.#byName.get(name) ?? null;
  }

  /** Calls back once: when all have answered, or after waitMs. Nothing is announced before. */
  start(waitMs: number, ready: () => void): void {
    const nowUs = this.#context.nowUs();
    this.#startedUs = nowUs;
    this.#ready = ready;
    for (const identifier of this.#identifiers) identifier.start(nowUs);
    this.#context.deadlines.set(this, nowUs + waitMs * 1000);
  }

  ring(): void {
    this.#context.deadlines.clear(this);
    for (const mount of this.all) if (mount.standing === 'unheard') mount.reason = `${mount.root} has not answered since the start`;
    for (const mount of this.all) for (const laneClass of LANE_CLASSES) mount.said[laneClass] = mount.state(laneClass);
    this.#announcing = true;
    const ready = this.#ready;
    this.#ready = null;
    ready?.();
  }

  /** Called at the end of a turn, so that `ready` and the events after it stay in order. */
  endTurn(): void {
    if (this.#ready !== null && this.all.every((mount) => mount.standing !== 'unheard')) this.ring();
  }

  /** What the lanes that identified the mounts got: the one that was asked for only if all of them did. */
  engine(): Engine {
    const { native, engine } = this.#context;
    return this.#identifyPools.map((pool) => native.engineOf(pool)).find((got) => got !== engine) ?? engine;
  }

  facts(mount: Mount): MountInfo {
    const facts: MountInfo = { name: mount.name, root: mount.root, device: mount.device?.label ?? null, state: mount.state('load') };
    if (mount.storeId !== null) facts.store_id = mount.storeId;
    if (mount.standing === 'right') Object.assign(facts, { fs_type: mount.fsType, direct: mount.direct, created: mount.created });
    else Object.assign(facts, { code: mount.code, reason: mount.reason });
    return facts;
  }

  /** Says what changed for one class of one mount, if anything did. */
  refresh(mount: Mount, laneClass: LaneClass, reason: string, code?: Code): void {
    const state = mount.state(laneClass);
    const was = mount.said[laneClass];
    if (state === was) return;
    mount.said[laneClass] = state;
    if (!this.#announcing) return;
    const event = { event: 'mount', mount: mount.name, class: laneClass, state, was, reason } as const;
    this.#context.send(code === undefined ? event : { ...event, code });
    this.#context.log.warn('mount', { mount: mount.name, class: laneClass, state, was, reason });
  }

  /** The breaker of a device's class changed. */
  announce(device: Device, laneClass: LaneClass): void {
    const { breaker } = device.groups[laneClass];
    const silentMs = Math.round((this.#context.nowUs() - breaker.openedUs) / 1000);
    const reason = breaker.state === 'ok' ? `it answers again, ${silentMs} ms after it was suspended` : breaker.state === 'probing' ? 'it has begun to answer; a few more good answers and it is used again' : breaker.reason;
    for (const mount of device.mounts) this.refresh(mount, laneClass, reason);
  }

  /** It is asked again and again, by itself or through its device. */
  probed(mount: Mount): boolean {
    if (this.#identifiers[mount.index]!.running) return true;
    return mount.device !== null && LANE_CLASSES.some((laneClass) => mount.device!.groups[laneClass].prober.running);
  }

  /** The first list of mounts. A root that was replaced between its identification and this shows in no later one. */
  listed(mount: Mount, device: string, nowUs: number): void {
    mount.rootGeneration += 1; // also where lanes have opened the root already, and it is on the same device
    if (device !== '') this.#listed.set(mount, device);
    if (this.doubtful(mount) && mount.standing === 'right') this.#identifiers[mount.index]!.start(nowUs);
  }

  /** It was identified on another device than the first list showed: to be asked again. True once, since btrfs shows one number there and another to stat. */
  doubtful(mount: Mount): boolean {
    const listed = this.#listed.get(mount);
    if (listed === undefined || mount.device === null) return false;
    this.#listed.delete(mount);
    if (listed === mount.device.label) return false;
    mount.unsure = true; // the next answer settles it
    return true;
  }

  /**
   * Something was mounted or unmounted. Every lane opens the root again and compares, and the mount is identified
   * again: it may lie on another device. Also where the entry behind its path stayed: a link in the path may lead elsewhere.
   */
  listChanged(mount: Mount, moved: boolean, sinceUs: number, nowUs: number): void {
    mount.rootGeneration += 1;
    if (moved && mount.learntUs > sinceUs) mount.unsure = true;
    const identifier = this.#identifiers[mount.index]!;
    if (moved) {
      this.#context.log.info('another mount at the root', { mount: mount.name, root: mount.root });
      // What is stuck in the former mount holds up nobody.
      identifier.forgetStuck(nowUs);
      for (const laneClass of LANE_CLASSES) mount.device?.groups[laneClass].prober.forgetStuck(nowUs);
    }
    if (mount.standing === 'right') identifier.start(nowUs);
  }

  /** A lane or a probe opened the root and found another store, or none. */
  lost(mount: Mount, done: Done): void {
    if (mount.standing === 'wrong') return;
    this.#wrong(mount, done);
    this.#identifiers[mount.index]!.start(this.#context.nowUs());
  }

  /** Asked again with `create`: a person said yes. */
  createStore(name: string): void {
    const mount = this.named(name);
    if (mount === null || mount.storeId !== null) return;
    this.#making[mount.index]!.want();
    this.#identifiers[mount.index]!.nudge(this.#context.nowUs());
  }

  identified(mount: Mount, done: Done): boolean {
    const found = done.status === 'ok' ? readIdentity(done.text) : null;
    const learnt = found !== null && found.store_id !== mount.storeId && (mount.storeId === null || mount.unsure);
    if (found === null || (!learnt && found.store_id !== mount.storeId)) {
      this.#wrong(mount, done, found?.store_id);
      return false;
    }
    const wasUnheard = mount.standing === 'unheard';
    const before = mount.device?.label ?? null;
    const device = this.#devices.of(found.device);
    const left = mount.device === device ? null : mount.device;
    mount.unsure = false;
    if (mount.standing === 'right' && mount.device === device && !learnt) return true; // asked again for nothing
    if (learnt) {
      const formerly = mount.storeId;
      this.#context.native.setMountIdentity(mount.nativeId, found.store_id);
      mount.storeId = found.store_id;
      if (formerly !== null) this.#dropWhatWasAsked(mount, formerly);
      mount.learntUs = this.#context.nowUs();
      this.#context.learnt();
    }
    mount.fsType = found.fs_type;
    mount.direct = found.direct;
    mount.created ||= found.created;
    mount.standing = 'right';
    mount.reason = '';
    mount.rootGeneration += 1;
    if (mount.device !== device) {
      left?.mounts.splice(left.mounts.indexOf(mount), 1);
      device.mounts.push(mount);
      mount.device = device;
      for (const laneClass of LANE_CLASSES) {
        left?.groups[laneClass].mountsChanged(this.#context.nowUs());
        device.groups[laneClass].mountsChanged(this.#context.nowUs());
      }
    }
    const moved = before !== null && before !== device.label ? `, now on device ${device.label} (it was ${before})` : '';
    let reason = `the right store is mounted again${moved}`;
    if (found.created) reason = 'its store was made';
    else if (wasUnheard) reason = `it answered ${Math.round((this.#context.nowUs() - this.#startedUs) / 1000)} ms after the start`;
    for (const laneClass of LANE_CLASSES) {
      const group = device.groups[laneClass];
      // Identified late is answered: whoever waits for `ok` must be told.
      if (this.#announcing && group.breaker.state === 'unknown') group.breaker.state = 'ok';
      this.refresh(mount, laneClass, group.breaker.isOpen() ? group.breaker.reason : reason);
      // Its probes may all be stuck in what was mounted here before.
      group.prober.forgetStuck(this.#context.nowUs());
      if (left !== null) this.#takeAlong(mount, left.groups[laneClass], group);
    }
    this.#context.identified(mount);
    this.#context.log.info('mount identified', { mount: mount.name, device: device.label, store_id: found.store_id, fs_type: found.fs_type, direct: found.direct, created: found.created, shares_device_with: device.mounts.filter((one) => one !== mount).map((one) => one.name) });
    return true;
  }

  // Asked when it was taken for another store: what changes one name is kept apart by the store it was asked of.
  #dropWhatWasAsked(mount: Mount, formerly: string): void {
    const { lanes, nowUs } = this.#context;
    for (const laneClass of LANE_CLASSES) lanes.dropQueued(mount.device!.groups[laneClass], 'WRONG_STORE', `it was asked of store ${formerly}, but ${mount.root} is store ${mount.storeId}; ask again`, nowUs(), mount);
  }

  // What still waits for a lane of the device that the mount has left.
  #takeAlong(mount: Mount, from: LaneGroup, to: LaneGroup): void {
    const { lanes, nowUs } = this.#context;
    if (to.breaker.isOpen()) lanes.dropQueued(from, 'MOUNT_SUSPENDED', `its mount lies on device ${to.device.label} now, which is suspended for ${to.laneClass}: ${to.breaker.reason}`, nowUs(), mount);
    else lanes.moveQueued(mount, from, to, nowUs());
  }

  #wrong(mount: Mount, done: Done, foundId?: string): void {
    mount.standing = 'wrong';
    mount.code = done.status === 'io_error' && done.errno !== 0 && !['ENOENT', 'ENOTDIR'].includes(errnoName(done.errno)) ? 'IO_ERROR' : 'WRONG_STORE';
    mount.errno = mount.code === 'IO_ERROR' ? done.errno : 0;
    mount.reason = whyWrong(mount, done, foundId);
    mount.rootGeneration += 1;
    for (const laneClass of LANE_CLASSES) this.refresh(mount, laneClass, mount.reason, mount.code);
  }
}

class Identify implements ProbeHost {
  #mount: Mount;
  #pool: number;
  #mounts: Mounts;
  #making: StoreMaking;
  #context: MountsContext;

  constructor(mount: Mount, pool: number, mounts: Mounts, making: StoreMaking, context: MountsContext) {
    this.#mount = mount;
    this.#pool = pool;
    this.#mounts = mounts;
    this.#making = making;
    this.#context = context;
  }

  ask(owner: Owner): Operation {
    const operation = new Operation('identify', this.#mount, null, this.#pool, owner, 0, 0);
    operation.flag = this.#mount.storeId === null && this.#making.take();
    return operation;
  }

  answered(done: Done, late: boolean, operation: Operation): number {
    // Given up and come back: what it says may be old, and it made no further call. Ask afresh.
    if (late || done.status === 'saturated') return IDENTIFY_AGAIN_US;
    // Not a mount without a store yet: --create was said, and the question that was to make one got no answer.
    if (done.status === 'not_found' && this.#mount.storeId === null && !operation.flag && this.#making.missing()) return IDENTIFY_AGAIN_US;
    return this.#mounts.identified(this.#mount, done) && !this.#mounts.doubtful(this.#mount) ? 0 : IDENTIFY_AGAIN_US;
  }

  nowUs(): number {
    return this.#context.nowUs();
  }
}

interface Identity {
  store_id: string;
  device: string;
  fs_type: string;
  direct: boolean;
  created: boolean;
}

function readIdentity(text: string): Identity | null {
  try {
    const found = JSON.parse(text) as Identity;
    return typeof found.store_id === 'string' && typeof found.device === 'string' ? found : null;
  } catch {
    return null;
  }
}

/** What is there instead, and what would help. */
function whyWrong(mount: Mount, done: Done, foundId?: string): string {
  const { root, storeId } = mount;
  if (foundId !== undefined) return `${root} holds store ${foundId}, not ${storeId}; mount the right one there`;
  if (mount.code === 'IO_ERROR') {
    const denied = ['EACCES', 'EPERM', 'EROFS'].includes(errnoName(done.errno));
    return `${root} cannot be used as a store${detail(done)}${denied ? '; the user that kvlane runs as needs to read and write there' : ''}`;
  }
  if (storeId !== null) return `${root} is not store ${storeId} any more${detail(done)}; mount it again`;
  if (done.status === 'wrong_store') return `${root} cannot be used${detail(done)}; a later version made it or it is damaged, and it is left as it is`;
  return `${root} holds no store${detail(done)}; mount it, or make one with --create`;
}

function detail(done: Done): string {
  const words = [done.errno === 0 ? '' : errnoName(done.errno), done.text].filter((word) => word !== '').join(': ');
  return words === '' ? '' : ` (${words})`;
}
