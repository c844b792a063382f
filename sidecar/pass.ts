// pass.ts — one look at all blocks of a store, and which of them go for it: the oldest, until the goal is reached.
import type { Leftover } from './leftovers.ts';
import type { Candidate, Oldest } from './oldest.ts';
import type { StoreScan } from './store_scan.ts';
import { UrgedPortion } from './urging.ts';

/** Removed down to so much of the limit: a pass is then worth its scan, and little that may be wanted goes too early. */
export const GOAL_OF_LIMIT = 0.95;
/** Steps of one turn of the loop: less than a millisecond with cold code, where all 32,768 took 22. */
export const TURNED_OVER_MAX = 1_024;
/** Blocks that may not go now, one after another in one turn; beyond them the loop has its turn. */
export const PASSED_OVER_MAX = 64;

export class Pass {
  readonly startedUs: number;
  readonly scan: StoreScan;
  readonly oldest: Oldest;
  stage: 'scanning' | 'evicting' | 'sweeping' = 'scanning';
  /** Stores that found no room wait for it. */
  urged: boolean;
  freedBytes = 0;
  evicted = 0;
  /** Of it the file system has back: the files of the others wait to be overwritten. */
  roomBytes = 0;
  failedRemovals = 0;
  /** Passed over, since removing them was refused; the first of them, and why. */
  refused = 0;
  firstRefusal = '';
  leftovers: Leftover[] = [];
  #goalBytes = Infinity;
  /** Of an urged pass within the limit. */
  #portion: UrgedPortion | null = null;

  constructor(startedUs: number, urged: boolean, scan: StoreScan, oldest: Oldest) {
    this.startedUs = startedUs;
    this.urged = urged;
    this.scan = scan;
    this.oldest = oldest;
  }

  /** All was seen. */
  scanned(limitBytes: number, leftovers: Leftover[]): void {
    const used = this.scan.usedBytes;
    this.stage = 'evicting';
    this.leftovers = leftovers;
    if (used > limitBytes) this.#goalBytes = limitBytes * GOAL_OF_LIMIT;
    else if (this.urged) {
      this.#portion = new UrgedPortion(limitBytes);
      this.#goalBytes = this.#portion.floorBytes;
    } else this.#goalBytes = used;
  }

  /** What goes next of `usedBytes`: `later`, since this turn looked at enough; null: nothing more. Of `too young` so are all that follow. */
  next(usedBytes: number, mayGo: (block: Candidate) => boolean | 'too young'): Candidate | 'later' | null {
    if (usedBytes <= this.#goalBytes) return null;
    if (this.#portion?.isFreed(this.freedBytes, this.evicted) === true) return null;
    if (!this.oldest.turnOver(TURNED_OVER_MAX)) return 'later';
    for (let passedOver = 0; passedOver < PASSED_OVER_MAX; passedOver += 1) {
      const block = this.oldest.next();
      if (block === null) return null;
      const may = mayGo(block);
      if (may === 'too young') return null;
      if (this.#portion !== null && usedBytes - block.allocatedBytes < this.#goalBytes) return null; // not below the floor
      if (may) return block;
    }
    return 'later';
  }

  removed(bytes: number, recycled: boolean): void {
    this.freedBytes += bytes;
    if (!recycled) this.roomBytes += bytes;
    this.evicted += 1;
  }

  /** More had to go than the oldest that were kept in memory. */
  isShort(usedBytes: number): boolean {
    return this.oldest.size === 0 && usedBytes > this.#goalBytes && this.evicted > 0;
  }
}
