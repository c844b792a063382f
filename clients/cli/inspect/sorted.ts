// sorted.ts — the first of many in an order, in bounded memory: what comes behind the limit is counted and left out.
import type { Found } from './kinds.ts';

/** Kept for sorting: their rows as they will be printed, 600 to 900 MiB in all. */
export const SORTED_MAX = 1_000_000;
/** Above the limit, before the last ones are cut off: sorting anew costs a second of a million. */
const SLACK = 65_536;

export type Order = 'age' | 'size' | 'name';

interface Kept {
  path: string;
  /** The larger comes first. */
  by: number;
  row: string;
}

const BY: Record<Order, (one: Found) => number> = { age: ({ entry }) => entry.modified_ms, size: ({ entry }) => entry.bytes, name: () => 0 };

export class Sorted {
  #kept: Kept[] = [];
  #by: (one: Found) => number;
  #max: number;
  leftOut = 0;

  constructor(order: Order, max = SORTED_MAX) {
    this.#by = BY[order];
    this.#max = max;
  }

  add(one: Found, row: string): void {
    this.#kept.push({ path: one.path, by: this.#by(one), row });
    if (this.#kept.length >= this.#max + SLACK) this.#cut();
  }

  rows(): readonly { row: string }[] {
    this.#cut();
    return this.#kept;
  }

  #cut(): void {
    this.#kept.sort((a, b) => b.by - a.by || (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
    this.leftOut += Math.max(0, this.#kept.length - this.#max);
    this.#kept.length = Math.min(this.#kept.length, this.#max);
  }
}
