// story.ts — what happened in a run: counted always, told when asked for.
//
// The coverage is what a large run must have seen all of; the story is for a person with a failing seed.

import type { Rule } from './rules.ts';

/** A promise that did not hold. `rule` names the invariant, the message says what it means here. */
export class Broken extends Error {
  readonly rule: Rule;
  constructor(rule: Rule, message: string) {
    super(message);
    this.rule = rule;
  }
}

export type Seen = Map<string, Map<string, number>>;

export class Story {
  /** Lines, or null when nobody listens. */
  readonly lines: string[] | null;
  #seen: Seen;
  events = 0;
  #nowUs: () => number = () => 0;
  #startUs = 0;

  constructor(told: boolean, seen: Seen) {
    this.lines = told ? [] : null;
    this.#seen = seen;
  }

  begin(nowUs: () => number): void {
    this.#nowUs = nowUs;
    this.#startUs = nowUs();
  }

  /** Counts what was reached: "code" "NOT_FOUND". Two words, since gluing them for each is a tenth of a run. */
  saw(what: string, which = ''): void {
    let counts = this.#seen.get(what);
    if (counts === undefined) this.#seen.set(what, (counts = new Map()));
    counts.set(which, (counts.get(which) ?? 0) + 1);
  }

  /** `text` is only called when somebody listens. */
  tell(who: string, text: () => string): void {
    this.events += 1;
    if (this.lines === null) return;
    const ms = (this.#nowUs() - this.#startUs) / 1000;
    this.lines.push(`${ms.toFixed(3).padStart(12)} ms  ${who.padEnd(8)} ${text()}`);
  }
}
