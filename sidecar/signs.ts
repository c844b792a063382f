// signs.ts — a sidecar whose store found no room asks the one that collects for some, by the times of two empty files in collector/.
//
//   who waits:     listens to `made` ─► tells `want` ─────────────────► listens to `made` until it changes
//   who collects:  listens to `want` each second ─► changed: a pass ─► tells `made`
//
// Only that a time changed counts, never what it says: no clocks are compared. A change between two of its looks is one want, however many
// told it; and what was told before it collected it has not heard. Whoever is not answered has lost nothing but the wait.

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

  /** Room was made for those that are heard. */
  owes(): void {
    this.#owes = true;
  }

  next(nowUs: number): SignAsk | null {
    if (this.#owes && nowUs >= this.#tellUs()) return { kind: 'sign', action: 'tell', sign: 'made' };
    return nowUs >= this.#listenUs ? { kind: 'sign', action: 'listen', sign: 'want' } : null;
  }

  /** `toldNs`: null where the call failed. True: somebody wants room, and did not at the last look. */
  answered(ask: SignAsk, toldNs: string | null, nowUs: number): boolean {
    if (ask.sign === 'made') {
      this.#owes = false; // once: who does not hear it is answered at its deadline
      this.#toldUs = nowUs;
      return false;
    }
    this.#listenUs = nowUs + this.#times.listenUs;
    const before = this.#want;
    if (toldNs !== null) this.#want = toldNs;
    return before !== '' && toldNs !== null && toldNs !== before && toldNs !== NEVER;
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
  #times: SignTimes;
  #stage: 'silent' | 'telling' | 'told' = 'silent';
  #made = '';
  #endUs = 0;

  constructor(times: SignTimes) {
    this.#times = times;
  }

  /** Nobody waits any more, or not for this. */
  ends(): void {
    this.#stage = 'silent';
    this.dueUs = 0;
  }

  next(nowUs: number): SignAsk | null {
    if (this.#stage === 'telling') return { kind: 'sign', action: 'tell', sign: 'want' };
    return nowUs >= this.dueUs ? { kind: 'sign', action: 'listen', sign: 'made' } : null;
  }

  /** Whether room was made; null: it is still waited for. */
  answered(ask: SignAsk, toldNs: string | null, nowUs: number): boolean | null {
    const madeRoom = this.#heard(ask, toldNs, nowUs);
    if (madeRoom !== null) this.ends();
    return madeRoom;
  }

  #heard(ask: SignAsk, toldNs: string | null, nowUs: number): boolean | null {
    if (toldNs === null || toldNs === NEVER) return false; // nobody could answer
    if (ask.sign === 'want') {
      this.told += 1;
      this.#stage = 'told';
      this.#endUs = nowUs + this.#times.wantUs;
    } else if (this.#stage === 'silent') {
      this.#made = toldNs;
      this.#stage = 'telling';
      return null;
    } else if (toldNs !== this.#made) return true;
    else if (nowUs >= this.#endUs) return false;
    this.dueUs = nowUs + this.#times.answerUs;
    return null;
  }
}
