// leftovers.ts — temporaries of stores whose writer is dead: seen unchanged for long, by our own clock.
//
// Nobody can know whether a writer on another host lives. But a store under way changes its file, and ends; one that was
// seen twice, an hour apart on this process's monotonic clock, with the same inode and the same time of change, is
// nobody's. No date on any file is compared with any clock, so a step of a clock removes nothing.

/** Remembered at once, some 200 bytes each; beyond it they wait for a later pass. */
export const LEFTOVERS_MAX = 4_096;
/** No store takes so long: the longest deadline that is usual is seconds, and its call would have to hang. */
export const LEFTOVER_AGE_US = 3_600_000_000;

export interface Leftover {
  path: string;
  inode: string;
  changedNs: string;
}

interface Seen extends Leftover {
  firstSeenUs: number;
  firstPass: number;
  lastPass: number;
}

export class Leftovers {
  #seen = new Map<string, Seen>();
  #ageUs: number;
  #max: number;
  #pass = 0;
  /** Met while the table was full. */
  unremembered = 0;

  constructor(ageUs = LEFTOVER_AGE_US, max = LEFTOVERS_MAX) {
    this.#ageUs = ageUs;
    this.#max = max;
  }

  get size(): number {
    return this.#seen.size;
  }

  passBegins(): void {
    this.#pass += 1;
  }

  saw({ path, inode, changedNs }: Leftover, nowUs: number): void {
    const known = this.#seen.get(path);
    if (known !== undefined && known.inode === inode && known.changedNs === changedNs) {
      known.lastPass = this.#pass;
      return;
    }
    if (known === undefined && this.#seen.size >= this.#max) {
      this.unremembered += 1;
      return;
    }
    this.#seen.set(path, { path, inode, changedNs, firstSeenUs: nowUs, firstPass: this.#pass, lastPass: this.#pass });
  }

  /** After a pass that saw all: those to remove. What it did not see again is forgotten. */
  due(nowUs: number): Leftover[] {
    const due: Leftover[] = [];
    for (const [path, one] of this.#seen) {
      if (one.lastPass !== this.#pass) this.#seen.delete(path);
      else if (one.firstPass < this.#pass && nowUs - one.firstSeenUs >= this.#ageUs) due.push({ path, inode: one.inode, changedNs: one.changedNs });
    }
    return due;
  }

  /** It is gone, or another file by now. */
  forget(path: string): void {
    this.#seen.delete(path);
  }
}
