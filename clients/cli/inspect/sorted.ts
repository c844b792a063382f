// sorted.ts — the first of many in an order, in bounded memory: what comes behind the limit is counted and left out.
import type { Found } from './kinds.ts';

/** Kept for sorting; some 400 bytes each. */
export const SORTED_MAX = 1_000_000;
/** Above the limit, before the last ones are cut off: sorting anew costs a second of a million. */
const SLACK = 65_536;

export type Order = 'age' | 'size' | 'name';

const COMPARE: Record<Order, (a: Found, b: Found) => number> = {
  age: (a, b) => b.entry.modified_ms - a.entry.modified_ms || byName(a, b),
  size: (a, b) => b.entry.bytes - a.entry.bytes || byName(a, b),
  name: byName,
};

export class Sorted {
  #kept: Found[] = [];
  #order: Order;
  #max: number;
  leftOut = 0;

  constructor(order: Order, max = SORTED_MAX) {
    this.#order = order;
    this.#max = max;
  }

  add(one: Found): void {
    this.#kept.push(one);
    if (this.#kept.length >= this.#max + SLACK) this.#cut();
  }

  all(): readonly Found[] {
    this.#cut();
    return this.#kept;
  }

  #cut(): void {
    this.#kept.sort(COMPARE[this.#order]);
    this.leftOut += Math.max(0, this.#kept.length - this.#max);
    this.#kept.length = Math.min(this.#kept.length, this.#max);
  }
}

function byName(a: Found, b: Found): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}
