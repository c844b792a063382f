// deadlines.ts — everything that must happen at a time, in one heap over one timer.
//
// Policy owns no timers of its own: a task's deadline, a probe's turn and the end of the start-up wait
// are all alarms in here, and Clock.arm is told of the earliest one only. An alarm rings late or on
// time, never early. A sidecar with nothing in the heap has nothing that wakes it.
//
// Of alarms for one time the one that was set last rings first. A thousand requests may share a deadline:
// then those that still wait for a lane are taken back before those that hold one are given up, and no lane
// is made in the place of a stuck one only to find nothing to do.
import type { Clock } from './service_types.ts';

export interface Alarm {
  /** Both belong to Deadlines; start them with atUs 0 and heapIndex -1. */
  atUs: number;
  heapIndex: number;
  /** Also theirs: counts the alarms that were set. */
  order?: number;
  /** May set itself again, but only to a time after nowUs. */
  ring(nowUs: number): void;
}

export class Deadlines {
  #heap: Alarm[] = [];
  #clock: Clock;
  #armedUs = 0;
  #sets = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  set(alarm: Alarm, atUs: number): void {
    if (!Number.isSafeInteger(atUs)) throw new Error(`an alarm's time is whole microseconds, got ${atUs}`); // the native timer would say so when it is armed
    if (alarm.heapIndex >= 0) this.clear(alarm);
    alarm.atUs = atUs;
    alarm.order = this.#sets += 1;
    alarm.heapIndex = this.#heap.length;
    this.#heap.push(alarm);
    this.#up(alarm.heapIndex);
  }

  clear(alarm: Alarm): void {
    const at = alarm.heapIndex;
    if (at < 0) return;
    alarm.heapIndex = -1;
    const last = this.#heap.pop()!;
    if (last === alarm) return;
    this.#heap[at] = last;
    last.heapIndex = at;
    this.#up(at);
    this.#down(last.heapIndex);
  }

  /** 0 when there is none. */
  earliestUs(): number {
    return this.#heap[0]?.atUs ?? 0;
  }

  size(): number {
    return this.#heap.length;
  }

  ringDue(nowUs: number): void {
    for (let first = this.#heap[0]; first !== undefined && first.atUs <= nowUs; first = this.#heap[0]) {
      this.clear(first);
      first.ring(nowUs);
    }
  }

  /** The timer went off: whatever is earliest now has to be armed again. */
  fired(): void {
    this.#armedUs = 0;
  }

  /** Once at the end of every turn, so that a burst of new tasks costs one arming. */
  arm(): void {
    const earliestUs = this.earliestUs();
    if (earliestUs === this.#armedUs) return;
    this.#armedUs = earliestUs;
    this.#clock.arm(earliestUs);
  }

  #up(from: number): void {
    let at = from;
    const alarm = this.#heap[at]!;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = this.#heap[parent]!;
      if (!isBefore(alarm, above)) break;
      this.#place(above, at);
      at = parent;
    }
    this.#place(alarm, at);
  }

  #down(from: number): void {
    let at = from;
    const alarm = this.#heap[at]!;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#heap.length) break;
      if (child + 1 < this.#heap.length && isBefore(this.#heap[child + 1]!, this.#heap[child]!)) child += 1;
      const below = this.#heap[child]!;
      if (!isBefore(below, alarm)) break;
      this.#place(below, at);
      at = child;
    }
    this.#place(alarm, at);
  }

  #place(alarm: Alarm, at: number): void {
    this.#heap[at] = alarm;
    alarm.heapIndex = at;
  }
}

function isBefore(one: Alarm, other: Alarm): boolean {
  return one.atUs !== other.atUs ? one.atUs < other.atUs : one.order! > other.order!;
}
