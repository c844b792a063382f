// lateness.ts — how long this process itself was not running, taken off every blame.
//
// After a SIGSTOP, a paused VM or a starved loop every call in the kernel looks old, and a deadline
// that passed meanwhile looks like a stuck mount. Deadlines stay what they are (the caller's time went
// by); only the evidence against a mount is counted without the time in which nobody watched.

/** Less than this is a busy loop or the scheduler, and too small to matter to any rule. */
export const LATE_TURN_US = 20_000;
const ENTRIES_MAX = 32; // a stop older than the last 32 of them no longer helps anybody still in the kernel

export class Lateness {
  #entries: { atUs: number; lateUs: number }[] = [];

  /** At the start of a turn: `dueUs` is the earliest alarm, 0 when none is set. */
  observe(nowUs: number, dueUs: number): void {
    if (dueUs !== 0) this.#note(dueUs, nowUs);
  }

  /** At the end of a turn: a stop inside it left no alarm overdue when it began, but many when it ends. */
  turnTook(beganUs: number, endUs: number): void {
    this.#note(beganUs, endUs);
  }

  /** The part of [sinceUs, nowUs] in which nobody watched. */
  lateUs(sinceUs: number): number {
    let lateUs = 0;
    for (let i = this.#entries.length - 1; i >= 0; i -= 1) {
      const entry = this.#entries[i]!;
      if (entry.atUs <= sinceUs) break;
      lateUs += Math.min(entry.lateUs, entry.atUs - sinceUs);
    }
    return lateUs;
  }

  /** How long something has been going on under our eyes. */
  heldUs(sinceUs: number, nowUs: number): number {
    return Math.max(0, nowUs - sinceUs - this.lateUs(sinceUs));
  }

  #note(fromUs: number, toUs: number): void {
    if (toUs - fromUs < LATE_TURN_US) return;
    this.#entries.push({ atUs: toUs, lateUs: toUs - fromUs });
    if (this.#entries.length > ENTRIES_MAX) this.#entries.shift();
  }
}
