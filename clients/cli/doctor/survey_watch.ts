// survey_watch.ts — a step is not done: does one call of it hang, is the mount slow, or did nobody run here? Pure: looks in, a verdict out.
//
// Looks are counted, and no clock is read: after this process was stopped (a frozen container, a starved host) a call looks as old as the
// stop was long, and one that is over is not yet known to be. A call that is there at the next look too has not come back.
import type { StuckCall } from '../../../native/index.ts';

/** Between two looks. */
export const LOOK_MS = 100;
/** A call that is younger may still come back: then it is slow, and does not hang. As serve's --stall-ms. */
export const YOUNG_MS = 1_000;

/** `slow`: calls come back, too late; `idle`: no call was ever seen, so it is not the mount that is waited for. */
export type Verdict = 'wait' | 'hung' | 'slow' | 'idle';
export type Call = Pick<StuckCall, 'tid' | 'syscall' | 'sinceUs' | 'forUs'>;

export class Watch {
  readonly #looksMax: number;
  #looks = 0;
  #seen = false;
  #before: Call | undefined;

  constructor(msMax: number) {
    this.#looksMax = msMax / LOOK_MS;
  }

  /** `call`: what the lane is inside of; between two calls it is inside of none. */
  look(call: Call | undefined): Verdict {
    const inside = call === undefined || call.syscall === 'none' ? undefined : call;
    const stays = inside !== undefined && inside.tid === this.#before?.tid && inside.sinceUs === this.#before.sinceUs;
    this.#before = inside;
    this.#looks += 1;
    this.#seen ||= inside !== undefined;
    if (stays && inside.forUs >= YOUNG_MS * 1000) return 'hung';
    if (this.#looks < this.#looksMax) return 'wait';
    return this.#seen ? 'slow' : 'idle';
  }
}
