// urging.ts — stores that found no room: who waits for some, how often a pass is begun for them, and how much that removes.
//
// The same on every sidecar with a limit: on the one that collects a pass of its own follows, on the others it is asked for (signs.ts). Others
// may have filled the disk, and the store must not be drained to nothing for them: hence all the bounds.

/** A disk that others filled must not drain the store to nothing: stores that find no room never bring it below this. */
export const URGED_FLOOR_OF_LIMIT = 0.5;
/** What one urged pass removes: a 64th of the limit, or where that is less, this, and so many blocks. */
export const URGED_PART_OF_LIMIT = 1 / 64;
export const URGED_BYTES_MIN = 64 * 1024 * 1024;
export const URGED_BLOCKS_MIN = 16;
/** And never more than this, or with a small limit one pass would go straight to the floor. */
export const URGED_PART_OF_LIMIT_MAX = 1 / 8;

export interface UrgingTimes {
  /** After an urged pass; doubled while stores find no room all the same. */
  urgeUs: number;
  urgeMaxUs: number;
}

export const URGING_TIMES: UrgingTimes = { urgeUs: 60_000_000, urgeMaxUs: 600_000_000 };

/** Hears of the end of the pass that it urged: whether it is worth to try again. */
export type Waiter = (tryAgain: boolean, nowUs: number) => void;

/** What an urged pass removes of a store that is within its limit. */
export class UrgedPortion {
  readonly floorBytes: number;
  #bytes: number;
  #bytesMax: number;

  constructor(limitBytes: number) {
    this.floorBytes = limitBytes * URGED_FLOOR_OF_LIMIT;
    this.#bytes = Math.max(limitBytes * URGED_PART_OF_LIMIT, URGED_BYTES_MIN);
    this.#bytesMax = limitBytes * URGED_PART_OF_LIMIT_MAX;
  }

  isFreed(bytes: number, blocks: number): boolean {
    return bytes >= this.#bytesMax || (bytes >= this.#bytes && blocks >= URGED_BLOCKS_MIN);
  }
}

export class Urging {
  /** A pass is wanted, and none has begun. */
  wanted = false;
  #times: UrgingTimes;
  #waiters = new Set<Waiter>();
  #fromUs = 0;
  #everyUs: number;
  #retryFailed = false;

  constructor(times: UrgingTimes) {
    this.#times = times;
    this.#everyUs = times.urgeUs;
  }

  /** False: not so soon again, and `waiter` (null: nobody) hears nothing. `underWay`: the pass that it would want is. */
  join(waiter: Waiter | null, underWay: boolean, nowUs: number): boolean {
    if (!this.wanted && !underWay) {
      if (nowUs < this.#fromUs) return false;
      this.#fromUs = nowUs + this.#everyUs;
      this.#retryFailed = false;
      this.wanted = true;
    }
    if (waiter !== null) this.#waiters.add(waiter);
    return true;
  }

  /** It collects from now on: how another one answered says nothing of its own passes. */
  begins(nowUs: number): void {
    this.#everyUs = this.#times.urgeUs;
    this.#fromUs = Math.min(this.#fromUs, nowUs + this.#everyUs);
  }

  /** A pass is wanted by somebody who still waits for it. */
  get isAwaited(): boolean {
    return this.wanted && this.#waiters.size > 0;
  }

  /** Its task was answered meanwhile. */
  gaveUp(waiter: Waiter): void {
    this.#waiters.delete(waiter);
  }

  /** To all that wait. */
  tell(tryAgain: boolean, nowUs: number): void {
    this.wanted = false;
    if (this.#waiters.size === 0) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const waiter of waiters) waiter(tryAgain, nowUs);
  }

  /** What became of a store that was tried again. */
  retried(found: boolean, nowUs: number): void {
    if (found) {
      this.#everyUs = this.#times.urgeUs;
      return;
    }
    if (this.#retryFailed) return; // one of many that waited for the same pass
    this.#retryFailed = true;
    this.#everyUs = Math.min(2 * this.#everyUs, this.#times.urgeMaxUs);
    this.#fromUs = nowUs + this.#everyUs;
  }
}
