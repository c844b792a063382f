// lane_group.ts — one device's lanes of one class: queue, breaker, latencies, probes.
//
// Here the facts from the lanes (this came back, that is stuck, a deadline passed inside that call)
// become evidence, and evidence becomes a suspended or recovered class. A decision to suspend is only
// noted where it is found and carried out at the end of the turn: it settles other tasks, and the one
// that is being settled must be through first.
import type { LaneClass, Native, StuckCall } from '../native/index.ts';
import type { MountState } from '../protocol/messages.ts';
import { Breaker } from './breaker.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Device } from './devices.ts';
import { errnoName, saysSick } from './errno.ts';
import { Histogram } from './histogram.ts';
import type { Lateness } from './lateness.ts';
import type { Lanes } from './lanes.ts';
import { LatencyBySize } from './latency.ts';
import type { Mount } from './mount.ts';
import { Operation, gateKeyOf, keyOf, type Done, type Owner } from './operation.ts';
import { Prober, type ProbeHost } from './prober.ts';

/** Their time says how much they had to read, not how fast the mount is. */
const MANY_CALLS: ReadonlySet<Operation['kind']> = new Set(['list', 'verify']);
/** Between two good probes: apart enough not to be one lucky moment, and three of them well under a second. */
export const PROBE_AGAIN_US = 25_000;
/** After a probe that failed at once: four a second notice a mount that comes back within one. */
export const PROBE_FAILED_US = 250_000;

/** A load given up sooner may only have had a short deadline. */
const BLAME_MIN_US = 20_000;

export interface GroupContext {
  native: Native;
  lanes: Lanes;
  deadlines: Deadlines;
  lateness: Lateness;
  nowUs(): number;
  /** The cap of the whole process is reached. */
  noMoreThreads(): boolean;
  /** A probe found the root to be another store, or none. */
  storeLost(mount: Mount, done: Done): void;
  /** The state of a class changed on every mount of the device. */
  announce(device: Device, laneClass: LaneClass): void;
}

export class LaneGroup implements Alarm, ProbeHost {
  atUs = 0;
  heapIndex = -1;
  readonly device: Device;
  readonly laneClass: LaneClass;
  readonly pool: number;
  readonly probePool: number;
  readonly breaker: Breaker;
  readonly latency = new LatencyBySize();
  readonly prober: Prober;
  /** Since the start, probes left out. failed: came back with anything but what was asked for, a miss too; late: after its caller had given it up. */
  readonly figures = { done: 0, failed: 0, late: 0, doneBytes: 0, kernelTime: new Histogram() };
  /** How many operations were handed over and have not come back; also those that were abandoned. */
  inHand = 0;
  /** Of these, abandoned inside the kernel. */
  abandoned = 0;
  /** Set where evidence is found, carried out by endTurn(). */
  #suspicion = '';
  /** Calls stalled in this turn; judged together at its end. */
  #lookAgain = false;
  #stalled = new Map<number, StuckCall>();
  #context: GroupContext;
  #nextMount = 0;
  #bytesAtUs = -1;
  #bytes = 0;

  constructor(device: Device, laneClass: LaneClass, pools: { pool: number; probePool: number }, breaker: Breaker, context: GroupContext) {
    this.device = device;
    this.laneClass = laneClass;
    this.pool = pools.pool;
    this.probePool = pools.probePool;
    this.breaker = breaker;
    this.#context = context;
    this.prober = new Prober(this, context.lanes, context.deadlines);
  }

  nowUs(): number {
    return this.#context.nowUs();
  }

  state(): MountState {
    return this.breaker.state;
  }

  // ---- what lanes.ts tells ----

  completed(operation: Operation, done: Done, nowUs: number): void {
    if (operation.kind === 'probe') return;
    this.#count(operation, done);
    if (done.status === 'wrong_store') this.#context.storeLost(operation.mount, done);
    if (!done.uncached || done.status === 'expired' || done.status === 'saturated') return;
    this.breaker.completed(nowUs - done.kernelUs, nowUs);
    if (done.status === 'ok' && done.kernelUsKnown && !MANY_CALLS.has(operation.kind)) this.latency.record(operation.bytes, done.kernelUs);
  }

  #count(operation: Operation, done: Done): void {
    const { figures } = this;
    if (done.status === 'ok') {
      figures.done += 1;
      if (!done.kept) figures.doneBytes += operation.bytes;
    } else figures.failed += 1;
    if (done.kernelUsKnown) figures.kernelTime.record(done.kernelUs);
  }

  left(operation: Operation): void {
    if (operation.kind === 'probe') return; // counted by its prober
    this.abandoned += 1;
    this.device.stuckChanged = true;
    if (operation.kind === 'load') this.device.stuckLoads.set(blockOf(operation), operation);
  }

  returned(operation: Operation, done: Done, nowUs: number): void {
    if (operation.kind === 'probe') return;
    this.figures.late += 1;
    this.abandoned -= 1;
    this.device.stuckChanged = true;
    this.#stalled.delete(operation.id);
    if (operation.kind === 'load' && this.device.stuckLoads.get(blockOf(operation)) === operation) this.device.stuckLoads.delete(blockOf(operation));
    if (!this.breaker.isOpen() || !isGoodAnswer(done)) return;
    const before = this.breaker.state;
    if (this.breaker.answeredWell(false, this.prober.exhausted(), nowUs)) this.#closed();
    else {
      if (before !== this.breaker.state) this.#context.announce(this.device, this.laneClass);
      this.prober.nudge(nowUs);
    }
  }

  // ---- evidence ----

  noteStalled(operation: Operation, call: StuckCall): void {
    if (operation.kind === 'probe') return;
    this.device.stuckChanged = true; // a stalled lane is replaced, and counts
    this.#stalled.set(operation.id, call);
    this.#lookAgain = true;
  }

  noteRecovered(id: number): void {
    this.device.stuckChanged = true;
    this.#stalled.delete(id);
  }

  /** A task's deadline passed and the lane was inside a call for it. */
  noteOverrun(operation: Operation, nowUs: number): void {
    if (this.breaker.isOpen() || this.#suspicion !== '' || operation.sinceUs <= operation.excusedUs) return;
    if (this.breaker.overtaken(operation.sinceUs)) return;
    const heldUs = this.#context.lateness.heldUs(operation.sinceUs, nowUs);
    const call = {
      sinceUs: operation.sinceUs,
      heldUs,
      discounted: this.#context.lateness.lateUs(operation.sinceUs) > 0,
      p99Us: this.latency.p99Us(operation.bytes),
      bytesInFlight: this.#bytesInFlight(nowUs) + operation.bytes,
    };
    if (!this.breaker.overrunCounts(call)) return;
    this.#suspicion = `a ${operation.kind} of ${keyOf(operation)} reached its deadline after ${ms(heldUs)} ms in ${operation.phase}, and no ${this.laneClass} has completed since it began`;
  }

  /** A load that was given up in the kernel: has it been there longer than this mount explains? */
  blamedAlone(operation: Operation, nowUs: number): boolean {
    const heldUs = this.#context.lateness.heldUs(operation.sinceUs, nowUs);
    return operation.sinceUs <= operation.excusedUs || heldUs >= Math.max(BLAME_MIN_US, 4 * this.latency.p99Us(operation.bytes));
  }

  /** Looks at the stalled calls again; as an alarm, at the moment when the oldest may count. */
  ring(nowUs: number): void {
    if (this.breaker.isOpen() || this.#suspicion !== '') return;
    let againUs = 0;
    let calls = 0;
    let oldest: StuckCall | null = null;
    let silentUs = 0;
    for (const [id, call] of this.#stalled) {
      const operation = this.#context.lanes.operation(id);
      if (operation === null || !operation.inHand) this.#stalled.delete(id);
      else if (call.sinceUs <= operation.excusedUs || this.breaker.overtaken(call.sinceUs)) operation.excusedUs = Math.max(operation.excusedUs, call.sinceUs);
      else {
        calls += 1;
        const fromUs = Math.max(call.sinceUs, this.breaker.healthUs);
        const patienceUs = this.breaker.patienceUs({ p99Us: this.latency.p99Us(operation.bytes), bytesInFlight: this.#bytesInFlight(nowUs) });
        const heldUs = this.#context.lateness.heldUs(fromUs, nowUs);
        if (heldUs >= patienceUs) {
          if (oldest === null || call.sinceUs < oldest.sinceUs) oldest = call;
          silentUs = Math.max(silentUs, heldUs);
        } else {
          const atUs = nowUs + Math.ceil(patienceUs - heldUs);
          if (againUs === 0 || atUs < againUs) againUs = atUs;
        }
      }
    }
    if (oldest !== null) this.#suspicion = `${calls} ${PLURAL[this.laneClass]} in flight, none completed for ${ms(silentUs)} ms (the oldest is in ${oldest.phase})`;
    else if (againUs > 0) this.#context.deadlines.set(this, againUs);
  }

  /** Carries out what the evidence of this turn says. */
  endTurn(nowUs: number): void {
    if (this.#lookAgain) {
      this.#lookAgain = false;
      this.ring(nowUs);
    }
    if (this.#suspicion === '') return;
    const reason = this.#suspicion;
    this.#suspicion = '';
    if (!this.breaker.trip(reason, nowUs)) return;
    this.#context.deadlines.clear(this);
    this.#context.announce(this.device, this.laneClass);
    this.mountsChanged(nowUs);
    this.#context.lanes.dropQueued(this, 'MOUNT_SUSPENDED', `suspended for ${this.laneClass} while it waited for a lane: ${reason}`, nowUs);
  }

  /** No live lane is left and none may be made: waiting for one would only end at the deadline. */
  saturated(): boolean {
    if (this.abandoned === 0) return false;
    const { stuck, lanes } = this.#context.native.poolState(this.pool);
    if (stuck < lanes || lanes < this.device.lanes) return false;
    return lanes >= this.device.threadsMax(this.laneClass) || this.#context.noMoreThreads();
  }

  /** The last lane was lost: what waits for one is told now. */
  dropIfSaturated(nowUs: number): void {
    if (!this.saturated()) return;
    this.#context.lanes.dropQueued(this, 'SATURATED', `all its ${this.laneClass} lanes are stuck in the kernel and no more may be made`, nowUs);
  }

  // ---- probing ----

  /** A device that no mount lies on is not asked. */
  mountsChanged(nowUs: number): void {
    if (this.device.mounts.length === 0) this.prober.stop();
    else if (this.breaker.isOpen()) this.prober.start(nowUs);
  }

  ask(owner: Owner, _nowUs: number): Operation | null {
    const mounts = this.device.mounts.filter((mount) => mount.standing === 'right');
    const mount = mounts[this.#nextMount % mounts.length];
    this.#nextMount += 1;
    if (mount === undefined) return null;
    return new Operation('probe', mount, this, this.probePool, owner, 0, 0);
  }

  answered(done: Done, _late: boolean, operation: Operation): number {
    const before = this.breaker.state;
    if (done.status === 'wrong_store') {
      this.#context.storeLost(operation.mount, done);
      return PROBE_FAILED_US;
    }
    if (isGoodAnswer(done)) {
      const fresh = operation.submittedUs >= this.breaker.openedUs;
      if (this.breaker.answeredWell(fresh, this.prober.exhausted(), this.nowUs())) {
        this.#closed();
        return 0;
      }
    } else this.breaker.answeredBadly(`a probe answered ${done.errno === 0 ? done.status : errnoName(done.errno)} in ${done.phase}`);
    if (before !== this.breaker.state) this.#context.announce(this.device, this.laneClass);
    return this.breaker.state === 'probing' ? PROBE_AGAIN_US : PROBE_FAILED_US;
  }

  #closed(): void {
    this.prober.stop();
    // What was in the kernel all along says nothing new when it stays there.
    const nowUs = this.nowUs();
    for (const operation of this.#context.lanes.inHandOf(this)) operation.excusedUs = nowUs;
    this.#stalled.clear();
    // The mount may be another one behind the same path now: every lane opens the root again and compares.
    for (const mount of this.device.mounts) mount.rootGeneration += 1;
    this.device.stuckChanged = true;
    this.#context.announce(this.device, this.laneClass);
  }

  #bytesInFlight(nowUs: number): number {
    if (this.#bytesAtUs !== nowUs) {
      this.#bytesAtUs = nowUs;
      this.#bytes = this.#context.native.poolState(this.pool).runningBytes;
    }
    return this.#bytes;
  }
}

const PLURAL = { load: 'loads', store: 'stores', metadata: 'metadata calls' } as const;

/** The kernel answered for real. A full or read-only file system answers; one whose device is gone does not. */
function isGoodAnswer(done: Done): boolean {
  if (done.status === 'wrong_store' || done.status === 'saturated') return false;
  return done.status !== 'io_error' || !saysSick(done.errno);
}

function blockOf(operation: Operation): string {
  return gateKeyOf(operation.mount, operation.namespace, operation.hex);
}

function ms(us: number): number {
  return Math.round(us / 1000);
}
