// breaker.ts — may this class of operation on this device be asked at all?
//
//   unknown ─► ok ◄──────────────┐
//      └────► suspended ─► probing┘      (probing ─► suspended when a probe fails again)
// It opens on evidence of stuck calls only (errors that come back are answers). Evidence is a call in
// the kernel with nothing of its class completing; look-ups answered from a cache and completions from
// before the call say nothing. One call that stays while others come and go is one bad file: excused,
// refused alone elsewhere, and never evidence again; its operation's next call may be.
import type { MountState } from '../protocol/messages.ts';

/** Good answers in a row before a suspended class is used again: one may be a cache or luck. */
export const GOOD_ANSWERS = 3;
/** No history makes the breaker wait longer than this, however slow the mount used to be. */
export const PATIENCE_MAX_US = 30_000_000;
/** A mount that moves less than this is as good as stuck: with 64 MiB in flight it has 6.7 s for a first completion. */
const BYTES_PER_US_MIN = 10; // 10 MB/s
/** For a deadline that passed the promise itself is the measure: 50 MB/s must not look like a hang. */
const OVERRUN_BYTES_PER_US_MIN = 50;
/** A deadline shorter than one slow seek proves nothing about the mount. */
const OVERRUN_MIN_US = 20_000;

export interface CallInKernel {
  sinceUs: number;
  /** In the kernel under our eyes, without the time in which this process did not run. */
  heldUs: number;
  /** Whether such time was taken off. */
  discounted: boolean;
  /** Recent p99 for its size, 0 without history. */
  p99Us: number;
  /** Bytes of the class in flight, this call included. */
  bytesInFlight: number;
}

export class Breaker {
  state: MountState = 'unknown';
  reason = '';
  /** The last completion that no cache could have made. */
  healthUs = 0;
  /** When the latest-begun of the good completions began: a call older than that was overtaken. */
  provenUs = 0;
  openedUs = 0;
  opened = 0;
  /** --test-hold-breaker-closed: how often it would have opened. */
  heldClosed = 0;
  good = 0;
  #fresh = false;
  #stallUs: number;
  #hold: boolean;

  constructor(stallUs: number, holdClosed: boolean) {
    this.#stallUs = stallUs;
    this.#hold = holdClosed;
  }

  isOpen(): boolean {
    return this.state === 'suspended' || this.state === 'probing';
  }

  /** A call of the class completed in time and was no cache's work. */
  completed(beganUs: number, nowUs: number): void {
    this.healthUs = nowUs;
    if (beganUs > this.provenUs) this.provenUs = beganUs;
    if (this.state === 'unknown') this.state = 'ok';
  }

  /** Others that began after it have completed: this call is stuck for reasons of its own. */
  overtaken(sinceUs: number): boolean {
    return this.provenUs > sinceUs;
  }

  /** How long nothing may complete while such a call is in flight. */
  patienceUs(call: { p99Us: number; bytesInFlight: number }): number {
    return Math.min(PATIENCE_MAX_US, Math.max(this.#stallUs, 4 * call.p99Us, call.bytesInFlight / BYTES_PER_US_MIN));
  }

  /** A deadline overran inside a call: is that evidence? */
  overrunCounts(call: CallInKernel): boolean {
    if (this.healthUs > call.sinceUs) return false;
    const atLeastUs = call.discounted ? this.#stallUs : OVERRUN_MIN_US;
    return call.heldUs >= Math.max(atLeastUs, 4 * call.p99Us, Math.min(PATIENCE_MAX_US, call.bytesInFlight / OVERRUN_BYTES_PER_US_MIN));
  }

  /** True when it opened now. */
  trip(reason: string, nowUs: number): boolean {
    if (this.isOpen()) return false;
    if (this.#hold) {
      this.heldClosed += 1;
      return false;
    }
    this.state = 'suspended';
    this.reason = reason;
    this.openedUs = nowUs;
    this.opened += 1;
    this.good = 0;
    this.#fresh = false;
    return true;
  }

  /**
   * While open: something came back well. True when that closed it. At least one of the good answers
   * must be to a question asked after it opened; `freshWaived` when no further probe may be made.
   */
  answeredWell(fresh: boolean, freshWaived: boolean, nowUs: number): boolean {
    if (!this.isOpen()) return false;
    this.state = 'probing';
    this.good += 1;
    this.#fresh ||= fresh;
    if (this.good < GOOD_ANSWERS || !(this.#fresh || freshWaived)) return false;
    this.state = 'ok';
    this.reason = '';
    this.healthUs = nowUs;
    this.provenUs = nowUs;
    return true;
  }

  answeredBadly(reason: string): void {
    if (!this.isOpen()) return;
    this.state = 'suspended';
    this.reason = reason;
    this.good = 0;
    this.#fresh = false;
  }
}
