// sorted.ts — the first of many in an order, in bounded memory: what comes behind the limit is counted and left out.
//
// Of each only the name and six numbers are kept, the numbers in columns: as objects, a million took three times as much.
import type { ListEntry } from '../../../protocol/messages.ts';
import { found, type Found } from './kinds.ts';

/** Kept for sorting: for names of 64 digits less than 160 MiB of heap, and 50 MiB of columns. */
export const SORTED_MAX = 1_000_000;
/** Above the limit, before the last ones are cut off: sorting anew costs a second of a million. */
const SLACK = 65_536;

export type Order = 'age' | 'size' | 'name';

const TYPES: readonly ListEntry['type'][] = ['file', 'directory', 'link', 'other', 'escaped'];
const COLUMNS = ['type', 'bytes', 'allocated_bytes', 'modified_ms', 'changed_ms'] as const;
type Column = (typeof COLUMNS)[number];
const BY: Record<Order, Column | null> = { age: 'modified_ms', size: 'bytes', name: null };

export class Sorted {
  #directories: string[] = []; // shared by the names in each
  #names: string[] = [];
  #inodes: BigUint64Array;
  #numbers: Record<Column, Float64Array>;
  #by: Column | null;
  #max: number;
  leftOut = 0;

  constructor(order: Order, max = SORTED_MAX) {
    this.#by = BY[order];
    this.#max = max;
    const room = max + SLACK; // pages that are not written take no memory
    this.#inodes = new BigUint64Array(room);
    this.#numbers = Object.fromEntries(COLUMNS.map((column) => [column, new Float64Array(room)])) as Record<Column, Float64Array>;
  }

  add({ path, entry }: Found): void {
    const at = this.#names.length;
    const directory = path.slice(0, -entry.name.length - 1);
    this.#directories.push(directory === this.#directories[at - 1] ? this.#directories[at - 1]! : directory);
    this.#names.push(entry.name);
    this.#inodes[at] = BigInt(entry.inode);
    for (const column of COLUMNS) this.#numbers[column][at] = column === 'type' ? TYPES.indexOf(entry.type) : entry[column];
    if (at + 1 === this.#max + SLACK) this.#keep(this.#order());
  }

  /** How many `rows` gives. */
  get kept(): number {
    return Math.min(this.#names.length, this.#max);
  }

  *rows(): Generator<Found> {
    const order = this.#order();
    this.leftOut += Math.max(0, order.length - this.#max);
    for (const at of order.subarray(0, this.#max)) yield this.#at(at);
  }

  #at(at: number): Found {
    const number = (column: Column): number => this.#numbers[column][at]!;
    const entry: ListEntry = { name: this.#names[at]!, type: TYPES[number('type')]!, bytes: number('bytes'), allocated_bytes: number('allocated_bytes'), modified_ms: number('modified_ms'), changed_ms: number('changed_ms'), inode: String(this.#inodes[at]), changed_ns: '' };
    return found(this.#directories[at]!, entry);
  }

  /** Where the first lies, the second, and so on; the larger number comes first, then by directory and name. */
  #order(): Uint32Array {
    const by = this.#by === null ? null : this.#numbers[this.#by];
    const name = (a: number, b: number): number => (this.#directories[a] === this.#directories[b] ? compared(this.#names[a]!, this.#names[b]!) : compared(`${this.#directories[a]}/`, `${this.#directories[b]}/`));
    return Uint32Array.from(this.#names.keys()).sort((a, b) => (by === null ? 0 : by[b]! - by[a]!) || name(a, b));
  }

  #keep(order: Uint32Array): void {
    const first = order.subarray(0, this.#max);
    this.leftOut += order.length - first.length;
    this.#directories = Array.from(first, (at) => this.#directories[at]!);
    this.#names = Array.from(first, (at) => this.#names[at]!);
    this.#inodes = reordered(this.#inodes, first);
    for (const column of COLUMNS) this.#numbers[column] = reordered(this.#numbers[column], first);
  }
}

function reordered<A extends BigUint64Array | Float64Array>(column: A, order: Uint32Array): A {
  const copy = column.slice() as A;
  for (let to = 0; to < order.length; to += 1) copy[to] = column[order[to]!]!;
  return copy;
}

function compared(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
