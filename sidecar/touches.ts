// touches.ts — which blocks were used, so that their files' times say so: at most hourly a block, never in the way of a load.
//
// Recency is the modification time of a block's file, which all sidecars and hosts see. A load that was answered is noted
// here, in memory; the times are set later, in batches, by a metadata lane, and only one batch is under way at a time.

/** A file's time is refreshed at most so often. */
export const TOUCH_EVERY_US = 3_600_000_000;
/** Keys whose last refreshing is known, some 150 bytes each; one that was forgotten is asked for again, and its file says that it is fresh. */
export const TOUCHED_MAX = 65_536;
/** Waiting; what finds no room is counted, and comes again with its next load. */
export const TOUCH_QUEUE_MAX = 4_096;
/** In one operation: some milliseconds of a lane. */
export const TOUCH_BATCH_MAX = 256;

export interface TouchBatch {
  namespace: string;
  hexes: string[];
}

export class Touches {
  #lastUs = new Map<string, number>();
  #queue = new Map<string, string[]>();
  #everyUs: number;
  queued = 0;
  /** Loaded while the queue was full. */
  passedOver = 0;

  constructor(everyUs = TOUCH_EVERY_US) {
    this.#everyUs = everyUs;
  }

  loaded(namespace: string, hex: string, nowUs: number): void {
    const key = `${namespace}/${hex}`;
    const lastUs = this.#lastUs.get(key);
    if (lastUs !== undefined && nowUs - lastUs < this.#everyUs) return;
    if (this.queued >= TOUCH_QUEUE_MAX) {
      this.passedOver += 1;
      return;
    }
    this.#lastUs.delete(key); // so that it goes to the young end
    this.#lastUs.set(key, nowUs);
    if (this.#lastUs.size > TOUCHED_MAX) this.#lastUs.delete(this.#lastUs.keys().next().value!);
    const waiting = this.#queue.get(namespace);
    if (waiting === undefined) this.#queue.set(namespace, [hex]);
    else waiting.push(hex);
    this.queued += 1;
  }

  /** The next ones, of one namespace; null when none waits. */
  take(): TouchBatch | null {
    const [first] = this.#queue;
    if (first === undefined) return null;
    const [namespace, waiting] = first;
    const hexes = waiting.splice(0, TOUCH_BATCH_MAX);
    this.#queue.delete(namespace);
    if (waiting.length > 0) this.#queue.set(namespace, waiting); // behind the others: each has its turn
    this.queued -= hexes.length;
    return { namespace, hexes };
  }

  /** They were not set: the next load asks again. */
  failed({ namespace, hexes }: TouchBatch): void {
    for (const hex of hexes) this.#lastUs.delete(`${namespace}/${hex}`);
  }
}
