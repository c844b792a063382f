// prober.ts — asks again and again, one question at a time, and never waits for an answer.
//
// A question that is not answered in time is given up (its lane belongs to the kernel until it comes
// back) and joined by another, with a growing pause, until three are stuck; from then on a stuck one
// that returns starts the next. It does so at once: the resume is noticed by the very calls that were
// stuck. But a mount may lose the answers of all three for good (a FUSE daemon that was replaced, a lost
// reply of a server) and answer everything new, so more are sent, rarely, up to a bound.
// Used for the probes of a breaker and for identifying a mount.
import type { Deadlines, Alarm } from './deadlines.ts';
import type { Lanes } from './lanes.ts';
import type { Done, Operation, Owner } from './operation.ts';

/** The quick phase: enough for one or two bad files, few enough not to pile onto a mount that hangs. */
export const PROBES_QUICK = 3;
/** Beyond three: if all of these were lost, nothing else would ever find out that the mount is well. At this pace a hang of two minutes costs the rest. */
export const PROBE_SLOW_US = 10_000_000;
/** Where that ends: a thread each, and a mount that lost so many answers is not about to get well. */
export const PROBES_STUCK_MAX = 16;
/** The same with those stuck in mounts that are gone from the path: two whole generations. */
export const PROBES_HELD_MAX = 2 * PROBES_STUCK_MAX;
/** After 250 ms a second is sent, then waits double: three are out within two seconds of a hang. */
export const PROBE_JOIN_US = 250_000;

export interface ProbeHost {
  /** A fresh operation with `owner`, not submitted; null when there is nothing to ask just now. */
  ask(owner: Owner, nowUs: number): Operation | null;
  /** An answer, perhaps a late one; returns the pause before the next question, 0 to stop. */
  answered(done: Done, late: boolean, operation: Operation): number;
  nowUs(): number;
}

export class Prober implements Alarm, Owner {
  atUs = 0;
  heapIndex = -1;
  asked = 0;
  running = false;
  #live: Operation | null = null;
  #stuck = new Set<Operation>();
  /** Stuck in a mount that is gone: no word about the one that is there now. */
  #bygone = new Set<Operation>();
  #joinUs = PROBE_JOIN_US;
  #host: ProbeHost;
  #lanes: Lanes;
  #deadlines: Deadlines;

  constructor(host: ProbeHost, lanes: Lanes, deadlines: Deadlines) {
    this.#host = host;
    this.#lanes = lanes;
    this.#deadlines = deadlines;
  }

  /** First question at once. */
  start(nowUs: number): void {
    if (this.running) return;
    this.running = true;
    this.#joinUs = PROBE_JOIN_US;
    this.#ask(nowUs);
  }

  stop(): void {
    this.running = false;
    this.#deadlines.clear(this);
    if (this.#live !== null) this.#giveUp(this.#live, this.#host.nowUs());
  }

  /** The quick ones are all stuck: until one of them returns, the next comes at the slow pace only. */
  exhausted(): boolean {
    return this.#stuck.size >= PROBES_QUICK;
  }

  stuck(): number {
    return this.#stuck.size;
  }

  /** Something else came back: ask now instead of at the end of the pause. */
  nudge(nowUs: number): void {
    if (this.running && this.#live === null && !this.exhausted()) this.ring(nowUs);
  }

  /** What is stuck belongs to a mount that is gone: it no longer counts, and the next question goes out now. */
  forgetStuck(nowUs: number): void {
    for (const operation of this.#stuck) this.#bygone.add(operation);
    this.#stuck.clear();
    this.#joinUs = PROBE_JOIN_US;
    if (this.running) this.ring(nowUs);
  }

  ring(nowUs: number): void {
    if (this.#live !== null) {
      this.#giveUp(this.#live, nowUs);
      this.#joinUs *= 2;
      if (this.#stuck.size === PROBES_QUICK) {
        this.#deadlines.set(this, nowUs + PROBE_SLOW_US);
        return;
      }
    }
    this.#ask(nowUs);
  }

  completed(operation: Operation, done: Done): void {
    if (operation !== this.#live) return;
    this.#live = null;
    this.#joinUs = PROBE_JOIN_US;
    this.#next(this.#host.answered(done, false, operation));
  }

  returned(operation: Operation, done: Done): void {
    this.#stuck.delete(operation);
    const bygone = this.#bygone.delete(operation); // what it met says nothing about the mount that is there now
    if (bygone || !this.running) return;
    const pauseUs = this.#host.answered(done, true, operation);
    if (this.#live !== null) return;
    if (pauseUs === 0) this.#next(0);
    else this.ring(this.#host.nowUs());
  }

  dropped(): void {
    // Probe pools are never emptied by a breaker.
  }

  #ask(nowUs: number): void {
    if (!this.running || this.#stuck.size >= PROBES_STUCK_MAX || this.#stuck.size + this.#bygone.size >= PROBES_HELD_MAX) return;
    const operation = this.#host.ask(this, nowUs);
    if (operation !== null) {
      this.#live = operation;
      this.asked += 1;
      this.#lanes.submit(operation, nowUs);
    }
    this.#deadlines.set(this, nowUs + (this.exhausted() ? PROBE_SLOW_US : this.#joinUs));
  }

  #giveUp(operation: Operation, nowUs: number): void {
    this.#live = null;
    const settled = this.#lanes.settle(operation, nowUs);
    if (settled.quarantined) this.#stuck.add(operation);
  }

  #next(pauseUs: number): void {
    if (!this.running) return;
    if (pauseUs === 0) this.stop();
    else this.#deadlines.set(this, this.#host.nowUs() + pauseUs);
  }
}
