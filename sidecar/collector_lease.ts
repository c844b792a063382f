// collector_lease.ts — which of the sidecars that share a store collects: known by watching, without a common clock.
//
// The lease is a file whose content its holder changes every few seconds (on a full disk its time only). Whoever sees no change of either for
// DEAD_US of his own monotonic time takes the next number. The holder counts itself as one only until HOLD_US after it began its last
// successful renewal, so it has stopped for a minute before anybody else may start, whatever held it up (SIGSTOP, a stuck
// lane, a lost network). A machine that was suspended as a whole does not notice on its monotonic clock: that is
// what the fence is for, the next number's file, which native looks for before each unlink.

/** How often a contender looks, and a holder renews: often enough that one lost renewal ends nothing. */
export const LEASE_EVERY_US = 10_000_000;
/** A renewal is believed for so long from its start: five more may fail. */
export const HOLD_US = 60_000_000;
/** Content that did not change for so long is a dead holder's: twice HOLD_US, for clocks that go differently and calls that hang. */
export const DEAD_US = 120_000_000;
/** What a holder writes that leaves in order: the next takes over at once. */
export const LEFT = 'left';

/** Numbers end with 15 digits in native, and the fence is one more than ours. Only a file that somebody put there gets so far: taken every second, it would be in thirty million years. */
export const LEASE_NUMBER_MAX = 999_999_999_999_998;

export interface LeaseTimes {
  everyUs: number;
  holdUs: number;
  deadUs: number;
}

export const LEASE_TIMES: LeaseTimes = { everyUs: LEASE_EVERY_US, holdUs: HOLD_US, deadUs: DEAD_US };

export type LeaseStep = { action: 'look' } | { action: 'take' | 'renew'; number: number; text: string };

export class CollectorLease {
  #times: LeaseTimes;
  #owner: string;
  #counter = 0;
  /** Of ours; 0: none, or another took the next. */
  #number = 0;
  #holdUntilUs = 0;
  #seen: { number: number; content: string; modifiedNs: string; sinceUs: number } | null = null;
  /** The number to take next; 0: look first. */
  #take = 0;
  /** The highest that was seen or had. */
  number = 0;

  /** `owner`: no other writer's, ever. */
  constructor(owner: string, times: LeaseTimes) {
    this.#owner = owner;
    this.#times = times;
  }

  holds(nowUs: number): boolean {
    return this.#number > 0 && nowUs < this.#holdUntilUs;
  }

  /** Somebody else had it lately, by what was seen: after HOLD_US without a change he believes so himself no more. */
  isAnothers(nowUs: number): boolean {
    const seen = this.#seen;
    return seen !== null && this.#take === 0 && nowUs - seen.sinceUs < this.#times.holdUs;
  }

  /** Until when it holds; nothing that evicts may begin later. */
  get endUs(): number {
    return this.#holdUntilUs;
  }

  /** Whose existence says that ours is over. */
  get fence(): string {
    return `collector/${this.#number + 1}`;
  }

  /** What to ask for now. A renewal also when the last one is long ago: while nobody took the next number it is still ours. */
  next(): LeaseStep {
    if (this.#number > 0) return { action: 'renew', number: this.#number, text: this.#content() };
    if (this.#take > 0) return { action: 'take', number: this.#take, text: this.#content() };
    return { action: 'look' };
  }

  /** What a look found. True: the next step is to take it, at once. */
  looked(number: number, content: string, startedUs: number, nowUs: number, modifiedNs = ''): boolean {
    this.number = Math.max(this.number, number);
    const seen = this.#seen;
    const unchanged = seen !== null && seen.number === number && seen.content === content && seen.modifiedNs === modifiedNs;
    if (!unchanged) this.#seen = { number, content, modifiedNs, sinceUs: nowUs };
    // It was seen by sinceUs, and still there after startedUs: unchanged for at least what lies between.
    const dead = number === 0 || content === LEFT || (unchanged && startedUs - seen.sinceUs >= this.#times.deadUs);
    this.#take = dead && number < LEASE_NUMBER_MAX ? number + 1 : 0;
    return this.#take > 0;
  }

  /** `startedUs`: when it was asked for; the holding counts from there. */
  granted(step: LeaseStep, startedUs: number): void {
    if (step.action === 'look') return;
    this.#number = this.number = step.number;
    this.#take = 0;
    this.#seen = null;
    this.#holdUntilUs = startedUs + this.#times.holdUs;
  }

  /** Somebody has a higher number. */
  fenced(): void {
    this.#number = 0;
    this.#take = 0;
    this.#holdUntilUs = 0;
    this.#seen = null;
  }

  /** A question that was not answered: a take may have happened or not, so look before the next. */
  unanswered(): void {
    this.#take = 0;
  }

  #content(): string {
    this.#counter += 1;
    return `${this.#owner} ${this.#counter}`;
  }
}

/** What native tells of a lease, or of a sign. */
export function readLease(text: string): { number: number; content: string; modifiedNs: string; modifiedUs: number; totalBytes: number | null } | null {
  try {
    const { number, content, modified_ns, total_bytes } = JSON.parse(text) as Record<string, unknown>;
    const modifiedUs = Number(modified_ns) / 1000;
    if (!Number.isSafeInteger(number) || !Number.isFinite(modifiedUs)) return null;
    return { number: number as number, content: typeof content === 'string' ? content : '', modifiedNs: String(modified_ns), modifiedUs, totalBytes: typeof total_bytes === 'number' && total_bytes > 0 ? total_bytes : null };
  } catch {
    return null;
  }
}
