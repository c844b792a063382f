// latency.ts — recent latencies by size of block, for percentiles.
//
// A breaker that knows that this mount needs 160 ms for 8 MiB does not take 400 ms for a hang. Late
// completions are not recorded by its users: one operation that was stuck for a minute would make the
// breaker blind for four.

const SAMPLES = 256; // the recent past; at one load a millisecond a quarter of a second, sorted in microseconds
/** Fewer than this say nothing about a 99th percentile. */
export const HISTORY_MIN = 8;

export class Recent {
  #samples = new Float64Array(SAMPLES);
  #sorted: Float64Array | null = null;
  count = 0;

  record(us: number): void {
    this.#samples[this.count % SAMPLES] = us;
    this.count += 1;
    this.#sorted = null;
  }

  /** 0 ≤ quantile ≤ 1; 0 without samples. */
  quantileUs(quantile: number): number {
    const known = Math.min(this.count, SAMPLES);
    if (known === 0) return 0;
    this.#sorted ??= this.#samples.slice(0, known).sort();
    return this.#sorted[Math.min(known - 1, Math.floor(quantile * known))]!;
  }
}

/** Sizes are classed by powers of two from 4 KiB up. */
export class LatencyBySize {
  #classes: (Recent | undefined)[] = [];

  record(bytes: number, us: number): void {
    const index = sizeClass(bytes);
    (this.#classes[index] ??= new Recent()).record(us);
  }

  /** 0: no history to speak of. */
  p99Us(bytes: number): number {
    const recent = this.#classes[sizeClass(bytes)];
    return recent === undefined || recent.count < HISTORY_MIN ? 0 : recent.quantileUs(0.99);
  }
}

function sizeClass(bytes: number): number {
  return 32 - Math.clz32(Math.max(0, bytes - 1) >>> 12);
}
