// lanes.ts — pools of threads as native/core/lane_pool.cc keeps them: first in, first out, made on demand, replaced while
// stuck up to the limits, too many of them leaving again. No thread is real; what a lane does is a script on the agenda.
import type { Engine, LaneClass, NativeStatus, OpSpec, Phase } from '../../native/index.ts';
import type { Due } from './agenda.ts';
import type { Call } from './calls.ts';
import type { FileSystem } from './disk.ts';

export interface Seated {
  spec: OpSpec;
  pool: Pool;
  lane: Lane | null;
  state: 'queued' | 'running' | 'committing' | 'done';
  abandoned: boolean;
  /** Given up when it had ended already, and the service had not been told. */
  unwanted: boolean;
  stalled: boolean;
  /** On its way out of the last call. */
  phase: Phase;
  sinceUs: number;
  submittedUs: number;
  /** When the service was told of its end. */
  toldUs: number;
  endedUs: number;
  /** How it ended. */
  status: NativeStatus;
  storedBytes: number;
  calls: readonly Call[];
  at: number;
  /** Its call's end, unless something holds it. */
  returns: Due | null;
  fileSystem: FileSystem | null;
  /** Its first call opens the root; the lane keeps it if that is the right store. */
  opensRoot: boolean;
  found: Uint8Array | null;
  /** What it may change, '' if nothing. */
  name: string;
  /** What the memory held when it was handed over; stores. */
  given: string;
  /** What is about to be published. */
  written: string;
  kernelUs: number;
  key: string;
}

export class Lane {
  readonly number: number;
  readonly seats: Seated[] = [];
  readonly seatsMax: number;
  retiring = false;
  countedStuck = false;
  /** What it has open of each mount. */
  readonly roots = new Map<number, { generation: number; fileSystem: FileSystem }>();

  constructor(number: number, seatsMax: number) {
    this.number = number;
    this.seatsMax = seatsMax;
  }

  stuck(): boolean {
    let lost = 0;
    for (const one of this.seats) {
      if (!one.stalled && !one.abandoned) continue;
      if (one.calls[one.at]?.holdsThread !== false) return true;
      lost += 1;
    }
    return lost === this.seatsMax;
  }

  /** May take up another operation now. */
  free(): boolean {
    if (this.retiring || this.seats.length >= this.seatsMax) return false;
    for (const one of this.seats) if (one.calls[one.at]?.holdsThread !== false) return false;
    return true;
  }
}

export interface PoolOptions {
  laneClass: LaneClass;
  lanes: number;
  engine: Engine;
  forProbes: boolean;
}

/** Lanes of all pools beyond their first ones; probes have a reserve of their own. */
export class ExtraLanes {
  used = 0;
  /** Counts every change of a lane or a limit. */
  changes = 0;
  max: number;
  constructor(max: number) {
    this.max = max;
  }
}

export class Pool {
  readonly number: number;
  readonly options: PoolOptions;
  readonly queue: Seated[] = [];
  lanes: Lane[] = [];
  stuck = 0;
  closed = false;
  #limit = 0;
  #extra: ExtraLanes;
  #made = 0;

  constructor(number: number, options: PoolOptions, extra: ExtraLanes) {
    this.number = number;
    this.options = options;
    this.#extra = extra;
  }

  get limit(): number {
    return this.#limit;
  }

  set limit(limit: number) {
    this.#limit = limit;
    this.#extra.changes += 1;
  }

  alive(): number {
    let alive = 0;
    for (const lane of this.lanes) if (!lane.countedStuck && !lane.retiring) alive += 1;
    return alive;
  }

  recount(lane: Lane): void {
    const stuck = !lane.retiring && lane.stuck();
    if (stuck === lane.countedStuck) return;
    lane.countedStuck = stuck;
    this.#extra.changes += 1;
    this.stuck += stuck ? 1 : -1;
  }

  /** So that each waiting operation finds a lane. False: a thread could not be made. */
  start(mayMake: () => boolean): boolean {
    if (this.closed) return true;
    let idle = 0;
    for (const lane of this.lanes) if (lane.seats.length === 0 && !lane.retiring) idle += 1;
    while (this.queue.length > idle && this.alive() < this.options.lanes) {
      const extra = this.lanes.length >= this.options.lanes;
      if (extra && (this.lanes.length >= this.options.lanes + this.limit || this.#extra.used >= this.#extra.max)) return true;
      if (!mayMake()) return false;
      if (extra) this.#extra.used += 1;
      this.#extra.changes += 1;
      this.lanes.push(new Lane((this.#made += 1), this.options.engine === 'aio' ? 8 : 1));
      idle += 1;
    }
    return true;
  }

  tooMany(lane: Lane): boolean {
    return lane.retiring || this.closed || (!lane.countedStuck && this.alive() > this.options.lanes);
  }

  forget(lane: Lane): void {
    if (this.lanes.length > this.options.lanes) this.#extra.used -= 1;
    this.#extra.changes += 1;
    if (lane.countedStuck) this.stuck -= 1;
    this.lanes = this.lanes.filter((one) => one !== lane);
  }
}
