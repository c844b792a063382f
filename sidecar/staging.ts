// staging.ts — private memory for blocks that are typed by hand (text, base64, inline loads).
//
// An area is quarantined like a slot: a late read must not land in an area that now holds somebody
// else's text. Loads keep half of the areas whatever stuck stores hold.
import { LIMITS } from '../protocol/messages.ts';
import { FREE, IN_FLIGHT, QUARANTINED, Slots, type MemoryBook } from './slots.ts';

/** One inline block each: 8 in a request, so eight stuck requests of eight before hands at a keyboard notice. */
export const STAGING_AREAS = 64;
export const STAGING_AREA_BYTES = LIMITS.inline_bytes_max;

export class Staging implements MemoryBook {
  #book = new Slots(STAGING_AREAS);
  #byStores = new Uint8Array(STAGING_AREAS);
  #storesHold = 0;

  /** How many more blocks of this kind find room. */
  left(forStore: boolean): number {
    const free = this.#book.counts[FREE]!;
    return forStore ? Math.min(free, STAGING_AREAS / 2 - this.#storesHold) : free;
  }

  /** Throws when there is none left: ask left() first. */
  claim(forStore: boolean): number {
    for (let area = 0; area < STAGING_AREAS; area += 1) {
      if (this.#book.state(area) !== FREE) continue;
      this.#book.claim(area);
      this.#byStores[area] = forStore ? 1 : 0;
      if (forStore) this.#storesHold += 1;
      return area;
    }
    throw new Error('no staging area is free');
  }

  offset(area: number): number {
    return area * STAGING_AREA_BYTES;
  }

  quarantine(area: number): void {
    this.#book.quarantine(area);
  }

  release(area: number): boolean {
    if (this.#byStores[area] === 1) this.#storesHold -= 1;
    this.#byStores[area] = 0;
    return this.#book.release(area);
  }

  figures(): { areas: number; in_flight: number; quarantined: number } {
    return { areas: STAGING_AREAS, in_flight: this.#book.counts[IN_FLIGHT]!, quarantined: this.#book.counts[QUARANTINED]! };
  }
}
