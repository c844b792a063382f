// slots.ts — what the kernel may be doing with each piece of memory, by the sidecar's own book.
//
// The client leases slots; this book only knows which of them the kernel may still touch. `in flight`
// ends with the operation's own completion. `quarantined` is a slot whose task was settled while the
// call was in the kernel: it is free only when that very call returns, an hour later if need be.
// A slot whose call is over stays its request's until that is answered: the bytes of a load wait there.
// The staging areas of inline blocks are kept in a book of the same kind.

export const FREE = 0;
export const IN_FLIGHT = 1;
export const QUARANTINED = 2;

export interface MemoryBook {
  quarantine(area: number): void;
  /** True when it had been quarantined. */
  release(area: number): boolean;
}

export class Slots implements MemoryBook {
  #states: Uint8Array;
  /** 1: named by a request that was started and is not answered. */
  #asked: Uint8Array;
  readonly counts = [0, 0, 0];

  constructor(count: number) {
    this.#states = new Uint8Array(count);
    this.#asked = new Uint8Array(count);
    this.counts[FREE] = count;
  }

  state(slot: number): number {
    return this.#states[slot]!;
  }

  /** Why no other request may have it now; null: it may. */
  whyBusy(slot: number): string | null {
    const state = this.#states[slot]!;
    if (state === FREE && this.#asked[slot] === 0) return null;
    if (state === QUARANTINED) return `${NAMES[state]}; it is free after slots_freed names it`;
    return `${state === FREE ? 'part of a request that is not answered yet' : NAMES[state]}; it is free after the answer to the request that uses it`;
  }

  /** From the start of the request that names it to its answer. */
  ask(slot: number): void {
    this.#asked[slot] = 1;
  }

  answer(slot: number): void {
    this.#asked[slot] = 0;
  }

  claim(slot: number): void {
    this.#move(slot, FREE, IN_FLIGHT);
  }

  quarantine(slot: number): void {
    this.#move(slot, IN_FLIGHT, QUARANTINED);
  }

  release(slot: number): boolean {
    const was = this.#states[slot]!;
    this.#move(slot, was === FREE ? IN_FLIGHT : was, FREE);
    return was === QUARANTINED;
  }

  // A wrong step here would mean memory handed out twice: better a crash than a wrong byte.
  #move(slot: number, from: number, to: number): void {
    if (this.#states[slot] !== from) throw new Error(`slot ${slot} is ${NAMES[this.#states[slot]!]}, cannot go from ${NAMES[from]} to ${NAMES[to]}`);
    this.#states[slot] = to;
    this.counts[from]! -= 1;
    this.counts[to]! += 1;
  }
}

const NAMES = ['free', 'in flight', 'quarantined'] as const;
