// oldest.ts — of any number of blocks the K that were used longest ago, in bounded memory.
//
// A heap with the youngest on top while blocks are offered: whoever is older than that takes its place. Turned over, it
// gives them out oldest first, a step of log K each. Sorting 65,536 at once, or turning so many over, would hold up the loop:
// that too is done in pieces, by whoever wants them out.

/** A million blocks of 1 MiB are a TiB, and a pass frees a twentieth: 50,000. What it frees beyond K comes with the next pass. */
export const OLDEST_MAX = 65_536;

/** All of a block that its removal needs. Some 500 bytes with its strings: 32 MiB for K of them. */
export interface Candidate {
  namespace: string;
  hex: string;
  modifiedNs: string;
  inode: string;
  allocatedBytes: number;
  /** When it was used last, by the file system's clock; smaller is older. */
  rankUs: number;
}

export class Oldest {
  #heap: Candidate[] = [];
  #max: number;
  #givingOut = false;
  /** Below it nothing is in the new order yet. */
  #unturned = 0;

  constructor(max = OLDEST_MAX) {
    this.#max = max;
  }

  get size(): number {
    return this.#heap.length;
  }

  /** Whether one of this rank would be kept: asked first, since making a candidate costs copies. */
  wants(rankUs: number): boolean {
    return this.#heap.length < this.#max || rankUs < this.#heap[0]!.rankUs;
  }

  offer(candidate: Candidate): void {
    if (this.#givingOut) throw new Error('blocks are being given out');
    if (!this.wants(candidate.rankUs)) return;
    if (this.#heap.length < this.#max) {
      this.#heap.push(candidate);
      this.#up(this.#heap.length - 1);
    } else {
      this.#heap[0] = candidate;
      this.#down(0);
    }
  }

  /** So many steps towards giving them out; true: there. Nothing can be offered any more. */
  turnOver(steps: number): boolean {
    if (!this.#givingOut) {
      this.#givingOut = true;
      this.#unturned = this.#heap.length >> 1;
    }
    const until = Math.max(0, this.#unturned - steps);
    while (this.#unturned > until) this.#down((this.#unturned -= 1));
    return this.#unturned === 0;
  }

  /** The oldest that is left; null when none is. Only when they are turned over. */
  next(): Candidate | null {
    if (!this.#givingOut || this.#unturned > 0) throw new Error('they are not turned over');
    const [oldest] = this.#heap;
    if (oldest === undefined) return null;
    const last = this.#heap.pop()!;
    if (last !== oldest) {
      this.#heap[0] = last;
      this.#down(0);
    }
    return oldest;
  }

  #before(one: Candidate, other: Candidate): boolean {
    return this.#givingOut ? one.rankUs < other.rankUs : one.rankUs > other.rankUs;
  }

  #up(from: number): void {
    const heap = this.#heap;
    const candidate = heap[from]!;
    let at = from;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(candidate, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = candidate;
  }

  #down(from: number): void {
    const heap = this.#heap;
    const candidate = heap[from]!;
    let at = from;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child += 1;
      if (!this.#before(heap[child]!, candidate)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = candidate;
  }
}
