// store_limit.ts — how much a store may hold, of a file system whose size may be told wrong, or smaller for a while.

/** What is allowed of a file system of so many bytes; null: not known yet. */
export type LimitOf = (totalBytes: number | null) => number | null;

export class StoreLimit {
  #of: LimitOf;
  #shrinkUs: number;
  #totalBytes: number | null = null;
  /** Since when it is told to be smaller than that. */
  #smallerUs: number | null = null;

  /** `shrinkUs`: for so long a file system must have been smaller before a share of it is. */
  constructor(of: LimitOf, shrinkUs: number) {
    this.#of = of;
    this.#shrinkUs = shrinkUs;
  }

  bytes(): number | null {
    return this.#of(this.#totalBytes);
  }

  // A file system of several machines shrinks while one of them is away, and its blocks are not to go for that.
  learn(totalBytes: number, nowUs: number): void {
    if (this.#totalBytes === null || totalBytes >= this.#totalBytes) this.#smallerUs = null;
    else if (this.#smallerUs === null) {
      this.#smallerUs = nowUs;
      return;
    } else if (nowUs - this.#smallerUs < this.#shrinkUs) return;
    this.#totalBytes = totalBytes;
  }

  /** Why a share of this file system's size is no limit; empty: it is one. Some, of FUSE, claim what they like. */
  falseSize(usedBytes: number): string {
    const isShare = this.#of(null) === null;
    if (!isShare || this.#totalBytes === null || usedBytes <= this.#totalBytes) return '';
    return `the file system says that it has ${this.#totalBytes} bytes, and the blocks occupy ${usedBytes}: a share of that is no limit; give one with --capacity-bytes`;
  }
}
