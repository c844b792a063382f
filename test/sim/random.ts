// random.ts — numbers that look like chance and are the same for the same seed, on every machine.
//
// Each step of a run draws from a generator of its own, made from the seed and the step's number: a step that is
// left out while a failure is being shortened changes nothing about the numbers of the others.

export class Random {
  #state: number;

  constructor(seed: number, stream = 0) {
    this.#state = mixed(mixed(seed >>> 0) ^ Math.imul(stream + 1, 0x9e3779b1));
  }

  /** A whole number from 0 to below - 1. */
  below(below: number): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    return Math.floor((mixed(this.#state) / 4_294_967_296) * below);
  }

  /** True once in so many. */
  oneIn(many: number): boolean {
    return this.below(many) === 0;
  }

  from(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** A time in microseconds of any order of magnitude up to `most`: short ones are as likely as long ones. */
  spread(most: number): number {
    return this.below(Math.max(1, Math.floor(most / 10 ** this.below(5)))) + 1;
  }

  weighted<T extends string>(weights: Record<T, number>): T {
    let sum = 0;
    for (const word in weights) sum += weights[word];
    let left = this.below(sum);
    for (const word in weights) {
      left -= weights[word];
      if (left < 0) return word;
    }
    throw new Error('no weights');
  }
}

function mixed(word: number): number {
  let h = word >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x21f0aaad);
  h = Math.imul(h ^ (h >>> 15), 0x735a2d97);
  return (h ^ (h >>> 15)) >>> 0;
}
