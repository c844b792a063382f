// agenda.ts — what will happen, by virtual time; the only thing that moves the clock.
//
// Of two events for one moment the one that was put down first comes first: the same run always.

export interface Due {
  atUs: number;
  order: number;
  /** null: called off. */
  run: (() => void) | null;
}

export class Agenda {
  nowUs: number;
  #heap: Due[] = [];
  #order = 0;

  constructor(startUs: number) {
    this.nowUs = startUs;
  }

  at(atUs: number, run: () => void): Due {
    const due = { atUs: Math.max(atUs, this.nowUs), order: (this.#order += 1), run };
    const heap = this.#heap;
    let at = heap.length;
    heap.push(due);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(due, heap[parent]!)) break;
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = due;
    return due;
  }

  in(us: number, run: () => void): Due {
    return this.at(this.nowUs + us, run);
  }

  /** The next event up to `untilUs`, with the clock at its time; null when there is none. It has to be run. */
  next(untilUs: number): (() => void) | null {
    for (let first = this.#heap[0]; first !== undefined && first.atUs <= untilUs; first = this.#heap[0]) {
      this.#dropFirst();
      if (first.run === null) continue;
      this.nowUs = Math.max(this.nowUs, first.atUs);
      const { run } = first;
      first.run = null;
      return run;
    }
    return null;
  }

  #dropFirst(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child += 1;
      if (!isBefore(heap[child]!, last)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function isBefore(one: Due, other: Due): boolean {
  return one.atUs !== other.atUs ? one.atUs < other.atUs : one.order < other.order;
}
