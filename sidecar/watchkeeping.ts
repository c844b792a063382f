// watchkeeping.ts — a tick while tasks are outstanding, so that a stop of this process is noticed.
//
// A SIGSTOP inside a long deadline would leave no trace: when the deadline comes, the whole time would
// be blamed on the mount. With a tick every 100 ms the turn after the stop finds its alarm overdue and
// lateness.ts takes the time off. An idle sidecar has no tick.
import type { Alarm, Deadlines } from './deadlines.ts';

const TICK_US = 100_000;

export class Watchkeeping implements Alarm {
  atUs = 0;
  heapIndex = -1;
  #deadlines: Deadlines;
  #needed: () => boolean;

  constructor(deadlines: Deadlines, needed: () => boolean) {
    this.#deadlines = deadlines;
    this.#needed = needed;
  }

  endTurn(nowUs: number): void {
    if (this.heapIndex < 0 && this.#needed()) this.#deadlines.set(this, nowUs + TICK_US);
  }

  ring(): void {
    // Set again at the end of the turn, if anything is still outstanding.
  }
}
