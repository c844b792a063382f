// capacity.ts — how much each mount's store may hold, and who is told of what for that: off unless it was asked for.
//
// A collector for each mount that has a limit (collector.ts), and the refreshing of the times of blocks that were loaded
// (touches.ts). With no limit nothing of it runs, and no file is made.
import type { Deadlines, Alarm } from './deadlines.ts';
import { COLLECTOR_TIMES, Collector, type CollectorTimes } from './collector.ts';
import { type LaneDeps, OwnLane } from './collector_lane.ts';
import type { Lanes } from './lanes.ts';
import type { Mount } from './mount.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import type { Capacity as Limit, Log } from './service_types.ts';
import { TOUCH_EVERY_US, Touches, type TouchBatch } from './touches.ts';
import type { Waiter } from './urging.ts';

/** Nobody waits for it. */
const TOUCH_TIMEOUT_US = 5_000_000;
/** After a batch the metadata lanes have so long for others: at most 2,560 files a second. */
const TOUCH_REST_US = 100_000;

/** However hasty a test: a call on a busy machine. */
const HASTY_CALL_US_MIN = 1_000_000;
/** Between two looks at a sign: not a thousand of them a second. */
const HASTY_LISTEN_US_MIN = 10_000;

export interface CapacityDeps extends LaneDeps {
  log: Log;
  /** All times of collectors are so many times shorter: for tests. */
  haste: number;
}

export class Capacity {
  #kept = new Map<Mount, Keeper>();
  #limits: ReadonlyMap<string, Limit>;
  #deps: CapacityDeps;

  constructor(limits: ReadonlyMap<string, Limit>, deps: CapacityDeps) {
    this.#limits = limits;
    this.#deps = deps;
  }

  /** Which store it is and where it lies is known, for the first time or again. */
  identified(mount: Mount, nowUs: number): void {
    const limit = this.#limits.get(mount.name);
    if (limit === undefined) return;
    const before = this.#kept.get(mount);
    if (before?.isOf(mount) === true) return;
    before?.close(nowUs);
    const keeper = new Keeper(mount, limit, this.#deps);
    this.#kept.set(mount, keeper);
    keeper.collector.start(nowUs);
  }

  loaded(mount: Mount, namespace: string, hex: string, nowUs: number): void {
    if (this.#kept.size > 0) this.#kept.get(mount)?.touching.loaded(namespace, hex, nowUs);
  }

  stored(mount: Mount, bytes: number, nowUs: number): void {
    if (this.#kept.size > 0) this.#kept.get(mount)?.collector.stored(bytes, nowUs);
  }

  /** A store found no room. Who can hear of some that is made; null: nobody makes any. */
  urge(mount: Mount, waiter: Waiter, nowUs: number): Collector | null {
    const keeper = this.#kept.get(mount);
    return keeper?.collector.urge(waiter, nowUs) === true ? keeper.collector : null;
  }

  endTurn(nowUs: number): void {
    for (const { touching } of this.#kept.values()) touching.endTurn(nowUs);
  }

  /** Leases are given back. `done` once, when that is over; nothing here bounds it. */
  leave(nowUs: number, done: () => void): void {
    let left = 1;
    const over = (): void => {
      left -= 1;
      if (left === 0) done();
    };
    for (const { collector } of this.#kept.values()) {
      left += 1;
      collector.leave(nowUs, over);
    }
    over();
  }

  /** For `stats`; null where there is no limit. */
  picture(mount: Mount, nowUs: number): object | null {
    const limit = this.#limits.get(mount.name);
    if (limit === undefined) return null;
    const keeper = this.#kept.get(mount);
    if (keeper === undefined) return { limit_bytes: 'bytes' in limit ? limit.bytes : null, used_bytes: null, role: 'off', reason: 'the mount has not answered yet' };
    return { ...keeper.collector.picture(nowUs), ...keeper.touching.picture() };
  }
}

/** What one mount with a limit has. */
class Keeper {
  readonly collector: Collector;
  readonly touching: Touching;
  #lane: OwnLane;

  constructor(mount: Mount, limit: Limit, deps: CapacityDeps) {
    this.#lane = new OwnLane(mount, deps);
    this.collector = new Collector({
      lane: this.#lane,
      deadlines: deps.deadlines,
      owner: randomName(),
      limitBytes: (totalBytes) => limitBytes(limit, totalBytes),
      say: (level, event, fields) => deps.log[level](event, { mount: mount.name, ...fields }),
      times: hurried(deps.haste),
    });
    this.#lane.to((answer, nowUs) => this.collector.answered(answer, nowUs));
    this.touching = new Touching(mount, deps.lanes, deps.deadlines, Math.round(TOUCH_EVERY_US / deps.haste));
  }

  isOf(mount: Mount): boolean {
    return this.#lane.storeId === mount.storeId && this.#lane.device === mount.device!.label;
  }

  close(nowUs: number): void {
    this.collector.stop(nowUs);
    this.#lane.close(nowUs);
  }
}

/** One batch at a time on the metadata lanes, none while they are suspended. */
class Touching implements Owner, Alarm {
  atUs = 0;
  heapIndex = -1;
  #touches: Touches;
  #mount: Mount;
  #lanes: Lanes;
  #deadlines: Deadlines;
  #everyUs: number;
  #inHand: { operation: Operation; batch: TouchBatch } | null = null;
  #notBeforeUs = 0;
  #touched = 0;
  #failed = 0;

  constructor(mount: Mount, lanes: Lanes, deadlines: Deadlines, everyUs: number) {
    this.#mount = mount;
    this.#lanes = lanes;
    this.#deadlines = deadlines;
    this.#everyUs = everyUs;
    this.#touches = new Touches(everyUs);
  }

  loaded(namespace: string, hex: string, nowUs: number): void {
    this.#touches.loaded(namespace, hex, nowUs);
  }

  endTurn(nowUs: number): void {
    if (this.#inHand !== null || this.#touches.queued === 0) return;
    if (nowUs < this.#notBeforeUs) {
      if (this.heapIndex < 0) this.#deadlines.set(this, this.#notBeforeUs);
      return;
    }
    const group = this.#mount.standing === 'right' ? this.#mount.device!.groups.metadata : null;
    if (group === null || group.breaker.isOpen() || group.saturated()) return; // the next turn looks again
    const batch = this.#touches.take()!;
    const operation = new Operation('touch', this.#mount, group, group.pool, this, 0, nowUs + TOUCH_TIMEOUT_US);
    operation.namespace = batch.namespace;
    operation.names = batch.hexes;
    operation.asked = { olderUs: this.#everyUs };
    this.#inHand = { operation, batch };
    this.#deadlines.set(this, operation.deadlineUs);
    this.#lanes.submit(operation, nowUs);
  }

  ring(nowUs: number): void {
    if (this.#inHand === null) return; // a rest is over: endTurn() goes on
    this.#lanes.settle(this.#inHand.operation, nowUs);
    this.#end(false, nowUs);
  }

  completed(_operation: Operation, done: Done, nowUs: number): void {
    if (done.status === 'ok') {
      const { touched, failed } = readTouched(done.text);
      this.#touched += touched;
      this.#failed += failed;
    }
    this.#end(done.status === 'ok', nowUs);
  }

  dropped(operation: Operation): void {
    this.#end(false, operation.submittedUs);
  }

  picture(): object {
    return { touched: this.#touched, touches_failed: this.#failed, touches_passed_over: this.#touches.passedOver };
  }

  #end(done: boolean, nowUs: number): void {
    this.#deadlines.clear(this);
    if (!done) this.#touches.failed(this.#inHand!.batch);
    this.#inHand = null;
    this.#notBeforeUs = nowUs + TOUCH_REST_US;
  }
}

export function limitBytes(limit: Limit, totalBytes: number | null): number | null {
  if ('bytes' in limit) return limit.bytes;
  return totalBytes === null ? null : Math.floor((totalBytes / 100) * limit.percent);
}

function hurried(haste: number): CollectorTimes {
  const times = Object.fromEntries(Object.entries(COLLECTOR_TIMES).map(([name, us]) => [name, Math.round(us / haste)])) as unknown as CollectorTimes;
  const { callUs, everyUs, holdUs, deadUs, listenUs, answerUs, wantUs } = times;
  return { ...times, wantUs: Math.max(wantUs, HASTY_CALL_US_MIN), listenUs: Math.max(listenUs, HASTY_LISTEN_US_MIN), answerUs: Math.max(answerUs, HASTY_LISTEN_US_MIN), callUs: Math.max(callUs, HASTY_CALL_US_MIN), everyUs: Math.max(everyUs, HASTY_CALL_US_MIN / 20), holdUs: Math.max(holdUs, HASTY_CALL_US_MIN / 2), deadUs: Math.max(deadUs, HASTY_CALL_US_MIN) };
}

function randomName(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (word) => word.toString(16).padStart(8, '0')).join('');
}

function readTouched(text: string): { touched: number; failed: number } {
  try {
    const { touched, failed } = JSON.parse(text) as Record<string, unknown>;
    return { touched: Number(touched) || 0, failed: Number(failed) || 0 };
  } catch {
    return { touched: 0, failed: 0 };
  }
}
