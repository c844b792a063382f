// arena.ts — the sidecar's memory, reached by the path it names, and which of its slots may be used.
// A slot is free when nobody leased it, no unanswered request names it, and it is not quarantined; the lease is
// the caller's word, the other two are the kernel's, and releasing a slot early does not make it free.

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import type { ArenaFacts, FailedEntry } from '../../protocol/messages.ts';
import { ArenaError, UsageError } from './errors.ts';

export class Arena {
  readonly facts: ArenaFacts;
  #fd: number | null;
  readonly #leased = new Set<number>();
  /** Slot → unanswered requests that name it: more than one when the second is about to get SLOT_BUSY. */
  readonly #asked = new Map<number, number>();
  readonly #quarantined = new Set<number>();

  constructor(facts: ArenaFacts) {
    this.facts = facts;
    try {
      this.#fd = openSync(facts.path, 'r+');
    } catch (error) {
      throw new ArenaError(`cannot open the arena at ${facts.path}: ${(error as Error).message}`);
    }
  }

  write(slot: number, data: Uint8Array, offset = 0): void {
    const at = this.#place(slot, offset, data.length);
    if (this.facts.backing === 'hugetlb') throw new ArenaError('an arena of huge pages takes no write(2), only a mapping; start the sidecar with --huge-pages off or thp for this client');
    for (let done = 0; done < data.length; ) done += writeSync(this.#open(), data, done, data.length - done, at + done);
  }

  read(slot: number, bytes: number, offset = 0): Buffer {
    const at = this.#place(slot, offset, bytes);
    const data = Buffer.alloc(bytes);
    for (let done = 0; done < bytes; ) {
      const got = readSync(this.#open(), data, done, bytes - done, at + done);
      if (got === 0) throw new ArenaError(`the arena ends at ${at + done}, before slot ${slot} does`);
      done += got;
    }
    return data;
  }

  /** The lowest free slots, or null when there are fewer. */
  lease(count: number): number[] | null {
    const slots: number[] = [];
    for (let slot = 0; slot < this.facts.slots && slots.length < count; slot += 1) if (this.#isFree(slot)) slots.push(slot);
    if (slots.length < count) return null;
    for (const slot of slots) this.#leased.add(slot);
    return slots;
  }

  release(slots: readonly number[]): void {
    for (const slot of slots) this.#leased.delete(slot);
  }

  get quarantined(): readonly number[] {
    return [...this.#quarantined].sort((a, b) => a - b);
  }

  /** The client's bookkeeping: a request that names these slots is on its way. */
  asked(slots: readonly number[]): void {
    for (const slot of slots) this.#asked.set(slot, (this.#asked.get(slot) ?? 0) + 1);
  }

  /** Its answer came; entries that say so leave their slots quarantined. */
  answered(slots: readonly number[], failed: readonly FailedEntry[]): void {
    for (const slot of slots) {
      const left = (this.#asked.get(slot) ?? 1) - 1;
      if (left > 0) this.#asked.set(slot, left);
      else this.#asked.delete(slot);
    }
    for (const entry of failed) {
      if (entry.slot !== 'quarantined') continue;
      const ranges = entry.block === undefined ? (entry.blocks ?? []) : [[entry.block, entry.block]];
      for (const [first = 0, last = first] of ranges) {
        for (let block = first; block <= last; block += 1) {
          const slot = slots[block];
          if (slot !== undefined && slot >= 0) this.#quarantined.add(slot);
        }
      }
    }
  }

  /** The event slots_freed. */
  freed(slots: readonly number[]): void {
    for (const slot of slots) this.#quarantined.delete(slot);
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
    this.#fd = null;
  }

  #isFree(slot: number): boolean {
    return !this.#leased.has(slot) && !this.#asked.has(slot) && !this.#quarantined.has(slot);
  }

  #open(): number {
    if (this.#fd === null) throw new ArenaError('the arena went with its sidecar');
    return this.#fd;
  }

  #place(slot: number, offset: number, bytes: number): number {
    const { slots, slot_bytes: slotBytes } = this.facts;
    if (!Number.isInteger(slot) || slot < 0 || slot >= slots) throw new UsageError(`slot must be an integer from 0 to ${slots - 1}, got ${slot}`);
    if (offset < 0 || offset + bytes > slotBytes) throw new UsageError(`${bytes} bytes at ${offset} do not fit a slot of ${slotBytes}`);
    return slot * slotBytes + offset;
  }
}
