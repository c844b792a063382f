// histogram.ts — how long things took since the start, in fixed buckets: what a scraper can add up over processes and hours.
//
// Beside Recent (latency.ts), which knows exact quantiles of the last 256: those decide, these are only told.

/** Upper bounds; above the last there is one more. From 0.5 ms on the same as those of the vLLM connector (stats.py), so that both fit one plot. */
export const BOUNDS_MS: readonly number[] = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
const BOUNDS_US = BOUNDS_MS.map((bound) => bound * 1000);

export interface HistogramPicture {
  /** One a bucket, not added up. */
  counts: number[];
  sum_ms: number;
}

export class Histogram {
  #counts = new Array<number>(BOUNDS_US.length + 1).fill(0);
  #sumUs = 0;

  record(us: number): void {
    let bucket = 0;
    while (bucket < BOUNDS_US.length && us > BOUNDS_US[bucket]!) bucket += 1;
    this.#counts[bucket]! += 1;
    this.#sumUs += us;
  }

  picture(): HistogramPicture {
    return { counts: [...this.#counts], sum_ms: Math.round(this.#sumUs) / 1000 };
  }
}
