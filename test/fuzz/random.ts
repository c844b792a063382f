// random.ts — numbers that a seed decides: the same seed is the same run.

/** An integer from 0 to below - 1. */
export type Random = (below: number) => number;

export function seeded(seed: number): Random {
  let state = (seed ^ 0x9e3779b9) >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296 * below) | 0;
  };
}

export const pick = <T>(from: readonly T[], random: Random): T => from[random(from.length)]!;
