// pending.ts — every request that is not answered, and the client's own last word on each.
// An entry outlives its promise: after the last word it keeps its id and its slots until the sidecar's
// answer comes, since the kernel may still be writing into them.

import type { Id } from '../../protocol/messages.ts';
import { clientAnswer, type ClientAnswer } from './errors.ts';

export interface Entry {
  id: Id;
  op: string;
  /** Slot of block i; empty for requests without slots. */
  slots: readonly number[];
  /** The client's own time for it has passed: the promise is settled, the slots are not back. */
  settled: boolean;
  lastWordUs: number;
  settle(answer: object): void;
  timer: NodeJS.Timeout | null;
}

/** CLOCK_MONOTONIC in microseconds; the same clock as the sidecar's. */
export function nowUs(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

export class Pending {
  readonly #entries = new Map<Id, Entry>();

  add(id: Id, op: string, slots: readonly number[], lastWordUs: number, settle: (answer: object) => void): void {
    const entry: Entry = { id, op, slots, settled: false, lastWordUs, settle, timer: null };
    this.#entries.set(id, entry);
    this.#arm(entry);
  }

  has(id: Id): boolean {
    return this.#entries.has(id);
  }

  /** Unanswered by the sidecar, also those that the client has settled. */
  get size(): number {
    return this.#entries.size;
  }

  /** The sidecar's answer: the entry ends. Returns it, or null when no request has this id. */
  answered(id: Id, answer: object): Entry | null {
    const entry = this.#entries.get(id);
    if (!entry) return null;
    this.#entries.delete(id);
    const late = entry.settled;
    this.#settle(entry, answer);
    return { ...entry, settled: late };
  }

  /** Nothing more will come. The entries end; their slots are lost with the arena. */
  endAll(reason: string): void {
    for (const entry of this.#entries.values()) {
      this.#settle(entry, clientAnswer(entry.id, 'SIDECAR_GONE', `${entry.op} was not answered: the sidecar is gone (${reason})`));
    }
    this.#entries.clear();
  }

  #arm(entry: Entry): void {
    const leftMs = (entry.lastWordUs - nowUs()) / 1000;
    entry.timer = setTimeout(() => {
      // Timers may fire a little early; a timeout is never answered before its time.
      if (nowUs() < entry.lastWordUs) return this.#arm(entry);
      this.#settle(entry, lastWord(entry));
    }, Math.max(0, Math.ceil(leftMs)));
  }

  #settle(entry: Entry, answer: object): void {
    if (entry.settled) return;
    entry.settled = true;
    if (entry.timer) clearTimeout(entry.timer);
    entry.settle(answer);
  }
}

function lastWord(entry: Entry): ClientAnswer {
  const kept = entry.slots.length > 0 ? '; its slots stay in use until the sidecar answers' : '';
  return clientAnswer(entry.id, 'DEADLINE_EXCEEDED', `${entry.op} was not answered by its deadline: the sidecar is stopped or busy${kept}`);
}
