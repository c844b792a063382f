// signs.ts — a sidecar whose store found no room asks the one that collects for some, by the times of two empty files in collector/.
//
//   who waits:     listens to `made` ─► tells `want` ─────────────────► listens to `made` until it changes
//   who collects:  listens to `want` each second ─► changed: a pass ─► tells `made`
//
// Only that a time changed counts, never what it says: no clocks are compared. A change between two of its looks is one want, however many
// told it; and what was told before it collected it has not heard. A want for which no pass begins, or whose pass made no room, is answered all
// the same: the store that is tried once more finds what others made, or that there is none, and its slots are not held until its deadline.

/** How often the one that collects listens: a store's deadline is a few seconds, a look is an open, a stat and a close. */
export const LISTEN_EVERY_US = 1_000_000;
/** How often one that waits does, and only while it waits. */
export const ANSWER_EVERY_US = 200_000;
/** A want is given up after so long: a pass sees half a million blocks in that time, and stores that wait have slots that others want. */
export const WANT_US = 10_000_000;
/** The time of a sign that is not there, or nobody's. */
const NEVER = '0';

export interface SignTimes {
  listenUs: number;
  answerUs: number;
  wantUs: number;
}

export const SIGN_TIMES: SignTimes = { listenUs: LISTEN_EVERY_US, answerUs: ANSWER_EVERY_US, wantUs: WANT_US };

export type SignAsk = { kind: 'sign'; action: 'listen' | 'tell'; sign: 'want' | 'made' };

/** Asked by the one that collects, and not by one that waits. */
export function isOfHolder({ action, sign }: SignAsk): boolean {
  return (action === 'listen') === (sign === 'want');
}

/** The half of the one that collects. */
export class Hearing {
  #times: SignTimes;
  #want = '';
  #listenUs = 0;
  #heardUs = -Infinity;
  #owes = false;
  #toldUs = -Infinity;

  constructor(times: SignTimes) {
    this.#times = times;
  }

  /** It has the lease from now on. */
  begins(): void {
    this.#want = '';
    this.#listenUs = 0;
    this.#owes = false;
  }

  /** When to go on. */
  get dueUs(): number {
    return this.#owes ? Math.min(this.#tellUs(), this.#listenUs) : this.#listenUs;
  }

  /** Those that are heard are to try again. */
  owes(): void {
    this.#owes = true;
  }

  /** What is still owed where the lease is given back. */
  last(): SignAsk | null {
    return this.#owes ? { kind: 'sign', action: 'tell', sign: 'made' } : null;
  }

  next(nowUs: number): SignAsk | null {
    if (this.#owes && nowUs >= this.#tellUs()) return { kind: 'sign', action: 'tell', sign: 'made' };
    return nowUs >= this.#listenUs ? { kind: 'sign', action: 'listen', sign: 'want' } : null;
  }

  /** `toldNs`: null where the call failed. True: somebody wants room, and did not at the last look, which is not longer ago than he waits. */
  answered(ask: SignAsk, toldNs: string | null, nowUs: number): boolean {
    if (ask.sign === 'made') {
      this.#owes = false; // once: who does not hear it is answered at its deadline
      this.#toldUs = nowUs;
      return false;
    }
    this.#listenUs = nowUs + this.#times.listenUs;
    if (toldNs === null) return false;
    const wants = this.#want !== '' && toldNs !== this.#want && toldNs !== NEVER;
    // Else whoever it was has most likely gone, or the file was just made anew: an answer, and no pass for nobody.
    const isTold = this.#want !== NEVER && nowUs - this.#heardUs <= this.#times.wantUs;
    this.#want = toldNs;
    this.#heardUs = nowUs;
    if (wants && !isTold) this.owes();
    return wants && isTold;
  }

  // Room is made with each block that goes, and nobody listens more often.
  #tellUs(): number {
    return this.#toldUs + this.#times.answerUs;
  }
}

/** The half of one that waits for room. */
export class Wanting {
  /** When to listen next. */
  dueUs = 0;
  /** How often it told what it wants. */
  told = 0;
  /** The want before this one has had no answer until now: `made` is as it was then. */
  unanswered = false;
  #times: SignTimes;
  #stage: 'silent' | 'telling' | 'told' = 'silent';
  #made = '';
  #madeBefore = '';
  #endUs = 0;

  constructor(times: SignTimes) {
    this.#times = times;
  }

  /** Nobody waits any more, or not for this. */
  ends(): void {
    if (this.#stage === 'told') this.#madeBefore = this.#made;
    this.#stage = 'silent';
    this.dueUs = 0;
  }

  next(nowUs: number): SignAsk | null {
    if (this.#stage === 'telling') return { kind: 'sign', action: 'tell', sign: 'want' };
    return nowUs >= this.dueUs ? { kind: 'sign', action: 'listen', sign: 'made' } : null;
  }

  /** Whether to try again; null: it is still waited for. */
  answered(ask: SignAsk, toldNs: string | null, nowUs: number): boolean | null {
    this.unanswered = false;
    if (toldNs === null || toldNs === NEVER) return false; // nobody could answer
    if (ask.sign === 'want') {
      this.told += 1;
      this.#stage = 'told';
      this.#endUs = nowUs + this.#times.wantUs;
    } else if (this.#stage === 'silent') {
      this.unanswered = toldNs === this.#madeBefore;
      this.#madeBefore = '';
      this.#made = toldNs;
      this.#stage = 'telling';
      return null;
    } else if (toldNs !== this.#made) return true;
    else if (nowUs >= this.#endUs) return false;
    this.dueUs = nowUs + this.#times.answerUs;
    return null;
  }
}
