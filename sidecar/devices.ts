// devices.ts — lanes, breakers and caps belong to a device; mounts with equal st_dev share them.
//
// A device whose last mount went elsewhere is closed as soon as nobody waits for anything of it: its idle
// lanes have roots open, which keep the old file system in use. It stays listed while calls are stuck there.
import type { Engine, LaneClass, Native } from '../native/index.ts';
import { LANE_CLASSES } from '../protocol/messages.ts';
import { Breaker } from './breaker.ts';
import { LaneGroup, type GroupContext } from './lane_group.ts';
import type { Lanes } from './lanes.ts';
import type { Mount } from './mount.ts';
import type { Operation } from './operation.ts';
import { PROBES_HELD_MAX } from './prober.ts';

export interface DeviceOptions {
  engine: Engine;
  lanes: number;
  stuckMax: number;
  stallUs: number;
  holdBreakerClosed: boolean;
}

export class Device {
  readonly label: string;
  /** Of each class: those it has whatever is stuck elsewhere. */
  readonly lanes: number;
  readonly mounts: Mount[] = [];
  readonly groups: Record<LaneClass, LaneGroup>;
  /** Loads that were given up inside the kernel, by block: refused alone while the mount is ok. */
  readonly stuckLoads = new Map<string, Operation>();
  stuckChanged = false;
  /** It has no lanes but stuck ones, and gets nothing to do any more. */
  closed = false;
  #limits = { load: 0, store: 0, metadata: 0 };
  #native: Native;
  #lanes: Lanes;
  #options: DeviceOptions;

  constructor(label: string, options: DeviceOptions, context: GroupContext) {
    this.label = label;
    this.lanes = options.lanes;
    this.#native = context.native;
    this.#lanes = context.lanes;
    this.#options = options;
    const group = (laneClass: LaneClass): LaneGroup => {
      const { engine, lanes, stallUs, holdBreakerClosed } = options;
      const pool = context.native.createPool({ laneClass, lanes, engine, forProbes: false });
      const probePool = context.native.createPool({ laneClass, lanes: 1, engine, forProbes: true });
      context.native.setStuckLimit(probePool, PROBES_HELD_MAX - 1);
      return new LaneGroup(this, laneClass, { pool, probePool }, new Breaker(stallUs, holdBreakerClosed), context);
    };
    this.groups = { load: group('load'), store: group('store'), metadata: group('metadata') };
    for (const laneClass of LANE_CLASSES) this.#setLimit(laneClass, this.#share(laneClass, [0, 0, 0]));
  }

  /** Threads that the class may have: its first ones, and those made in the place of stuck ones. */
  threadsMax(laneClass: LaneClass): number {
    return this.lanes + this.#limits[laneClass];
  }

  /** Threads of one class beyond its first ones: what the cap of the process counts. */
  extraLanes(group: LaneGroup): number {
    return Math.max(0, this.#native.poolState(group.pool).lanes - this.lanes);
  }

  stuckLimit(laneClass: LaneClass): number {
    return this.#limits[laneClass];
  }

  endTurn(nowUs: number): void {
    this.groups.load.endTurn(nowUs);
    this.groups.store.endTurn(nowUs);
    this.groups.metadata.endTurn(nowUs);
    if (!this.stuckChanged) return;
    this.stuckChanged = false;
    const stuck = LANE_CLASSES.map((laneClass) => this.#native.poolState(this.groups[laneClass].pool).stuck);
    for (const laneClass of LANE_CLASSES) this.#setLimit(laneClass, this.#share(laneClass, stuck));
    for (const laneClass of LANE_CLASSES) this.groups[laneClass].dropIfSaturated(nowUs);
  }

  /** No mount lies on it. True when nothing of it is left, and it may be forgotten. */
  isOver(): boolean {
    const groups = LANE_CLASSES.map((laneClass) => this.groups[laneClass]);
    if (!this.closed) {
      for (const group of groups) if (group.inHand > 0 && this.#lanes.inHandOf(group).some((operation) => operation.state !== 'abandoned')) return false;
      this.closed = true;
      for (const { pool, probePool } of groups) {
        this.#native.closePool(pool);
        this.#native.closePool(probePool);
      }
    }
    if (groups.some((group) => group.inHand > 0)) return false;
    // A lane may still be at the closing of its root: it counts for the cap of the process until it is gone.
    return groups.every(({ pool, probePool }) => this.#native.poolState(pool).lanes + this.#native.poolState(probePool).lanes === 0);
  }

  // The rule of --stuck-max: stuck lanes that were replaced count, K of them on a device. Loads may use
  // all K; stores, and metadata, half of K each, so that neither takes the last replacement from a
  // load. What one class has stuck is missing to the others. Beside K every class always has its
  // first `lanes` lanes, so that no class ever loses its lanes to another one.
  #share(laneClass: LaneClass, stuck: number[]): number {
    const k = this.#options.stuckMax;
    let others = 0;
    for (let i = 0; i < LANE_CLASSES.length; i += 1) if (LANE_CLASSES[i] !== laneClass) others += stuck[i]!;
    return Math.max(0, Math.min(laneClass === 'load' ? k : Math.floor(k / 2), k - others));
  }

  #setLimit(laneClass: LaneClass, limit: number): void {
    if (this.#limits[laneClass] === limit) return;
    this.#limits[laneClass] = limit;
    this.#native.setStuckLimit(this.groups[laneClass].pool, limit);
  }
}

export class Devices {
  /** Also closed ones that still have calls in the kernel. */
  all: Device[] = [];
  #options: DeviceOptions;
  #context: GroupContext;
  #stuckProcessMax: number;

  constructor(options: DeviceOptions, stuckProcessMax: number, context: GroupContext) {
    this.#options = options;
    this.#stuckProcessMax = stuckProcessMax;
    this.#context = context;
  }

  /** `label` is st_dev as "major:minor". */
  of(label: string): Device {
    let device = this.all.find((one) => one.label === label && !one.closed);
    if (device === undefined) {
      device = new Device(label, this.#options, this.#context);
      this.all.push(device);
    }
    return device;
  }

  /** The process may make no thread beyond the first ones any more. As native counts it: probes have a reserve of their own. */
  noMoreThreads(): boolean {
    let extra = 0;
    for (const device of this.all) for (const laneClass of LANE_CLASSES) extra += device.extraLanes(device.groups[laneClass]);
    return extra >= this.#stuckProcessMax;
  }

  endTurn(nowUs: number): void {
    let over = 0;
    for (const device of this.all) {
      device.endTurn(nowUs);
      if (device.mounts.length === 0 && device.isOver()) over += 1;
    }
    if (over > 0) this.all = this.all.filter((device) => device.mounts.length > 0 || !device.isOver());
  }
}
