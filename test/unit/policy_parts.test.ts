// policy_parts.test.ts — the small pieces of the policy, each alone.
import { describe, expect, test } from 'vitest';
import { Deadlines, type Alarm } from '../../sidecar/deadlines.ts';
import { errnoName, saysSick } from '../../sidecar/errno.ts';
import { failedEntries, type Failure } from '../../sidecar/failures.ts';
import { Lateness } from '../../sidecar/lateness.ts';
import { HISTORY_MIN, LatencyBySize, Recent } from '../../sidecar/latency.ts';
import { FREE, QUARANTINED, Slots } from '../../sidecar/slots.ts';
import { STAGING_AREAS, Staging } from '../../sidecar/staging.ts';
import { manualClock } from '../support/manual_clock.ts';

function bell(rang: number[]): Alarm {
  return { atUs: 0, heapIndex: -1, ring: (nowUs) => void rang.push(nowUs) };
}

describe('deadlines', () => {
  test('alarms ring in the order of their times, none before its time, with one timer armed for the earliest', () => {
    const clock = manualClock(0);
    const deadlines = new Deadlines(clock);
    const rang: number[] = [];
    const times = [50, 10, 40, 20, 30];
    const seen: number[] = [];
    for (const ms of times) deadlines.set({ atUs: 0, heapIndex: -1, ring: () => void seen.push(ms) }, ms * 1000);
    deadlines.arm();
    expect(clock.armedUs()).toBe(10_000);
    clock.onTimer = () => {
      rang.push(clock.nowUs());
      deadlines.fired();
      deadlines.ringDue(clock.nowUs());
      deadlines.arm();
    };
    clock.advance(100);
    expect(seen).toEqual([10, 20, 30, 40, 50]);
    expect(rang).toEqual([10_000, 20_000, 30_000, 40_000, 50_000]);
    expect(clock.armedUs()).toBe(0);
  });

  test('a cleared alarm stays silent and one that is set again rings once, at the new time', () => {
    const deadlines = new Deadlines(manualClock(0));
    const rang: number[] = [];
    const cleared = bell(rang);
    const moved = bell(rang);
    deadlines.set(cleared, 10);
    deadlines.set(moved, 5);
    deadlines.set(moved, 20);
    deadlines.clear(cleared);
    deadlines.clear(cleared);
    deadlines.ringDue(19);
    expect(rang).toEqual([]);
    deadlines.ringDue(20);
    deadlines.ringDue(100);
    expect(rang).toEqual([20]);
  });

  test('of alarms for one time the one that was set last rings first', () => {
    const deadlines = new Deadlines(manualClock(0));
    const seen: number[] = [];
    for (let i = 0; i < 100; i += 1) deadlines.set({ atUs: 0, heapIndex: -1, ring: () => void seen.push(i) }, 10);
    deadlines.set({ atUs: 0, heapIndex: -1, ring: () => void seen.push(100) }, 9);
    deadlines.ringDue(10);
    expect(seen).toEqual(Array.from({ length: 101 }, (_, i) => 100 - i));
  });
});

describe('slots', () => {
  test('a quarantined slot becomes free only by its release, which says so', () => {
    const slots = new Slots(4);
    slots.claim(2);
    slots.quarantine(2);
    expect(slots.state(2)).toBe(QUARANTINED);
    expect(slots.counts).toEqual([3, 0, 1]);
    expect(slots.release(2)).toBe(true);
    expect(slots.state(2)).toBe(FREE);
    slots.claim(2);
    expect(slots.release(2)).toBe(false);
  });

  test.each([
    ['claimed twice', (slots: Slots) => slots.claim(0), (slots: Slots) => slots.claim(0)],
    ['quarantined while free', () => {}, (slots: Slots) => slots.quarantine(0)],
    ['released while free', () => {}, (slots: Slots) => slots.release(0)],
    ['claimed out of quarantine', (slots: Slots) => (slots.claim(0), slots.quarantine(0)), (slots: Slots) => slots.claim(0)],
  ])('a slot that is %s stops the sidecar rather than hand out memory twice', (_what, before, step) => {
    const slots = new Slots(1);
    before(slots);
    expect(() => step(slots)).toThrow(/slot 0 is/);
  });

  test('stuck inline stores leave half of the staging areas to loads', () => {
    const staging = new Staging();
    for (let left = staging.left(true); left > 0; left -= 1) staging.claim(true);
    expect(staging.left(true)).toBe(0);
    expect(staging.left(false)).toBe(STAGING_AREAS / 2);
    expect(new Set(Array.from({ length: STAGING_AREAS / 2 }, () => staging.claim(false))).size).toBe(STAGING_AREAS / 2);
    expect(() => staging.claim(false)).toThrow('no staging area is free');
  });
});

describe('time', () => {
  test('the time in which the process did not run is taken off what happened meanwhile, once, and off nothing later', () => {
    const lateness = new Lateness();
    lateness.observe(10_000_000, 2_000_000); // due at 2 s, run at 10 s
    expect(lateness.heldUs(1_000_000, 10_000_000)).toBe(1_000_000);
    expect(lateness.heldUs(6_000_000, 10_000_000)).toBe(0);
    expect(lateness.heldUs(10_000_000, 11_000_000)).toBe(1_000_000);
    lateness.observe(10_500_000, 10_490_000);
    expect(lateness.lateUs(10_200_000)).toBe(0);
  });

  test('a percentile needs a little history, and forgets what is long past', () => {
    const latency = new LatencyBySize();
    for (let i = 0; i < HISTORY_MIN - 1; i += 1) latency.record(1 << 20, 1000);
    expect(latency.p99Us(1 << 20)).toBe(0);
    latency.record(1 << 20, 9000);
    expect(latency.p99Us(1 << 20)).toBe(9000);
    expect(latency.p99Us(1 << 23), 'another size has a history of its own').toBe(0);
    const recent = new Recent();
    recent.record(1_000_000);
    for (let i = 0; i < 256; i += 1) recent.record(10);
    expect(recent.quantileUs(1)).toBe(10);
  });
});

describe('failed entries', () => {
  const failure = (block: number, more: Partial<Failure> = {}): Failure => ({
    block, code: 'NOT_FOUND', phase: 'open', slot: 'free', waitedUs: 1000, errno: 0, outcomeUnknown: false, storedBytes: 0, heldUs: 0, detail: '', ...more,
  });
  const asked = { op: 'load', mount: 'kv0', key: (block: number) => `demo/${block}`, slot: (block: number) => block + 10 } as const;

  test('blocks that failed alike are one entry with ranges; one alone is named by its number', () => {
    const failures = [failure(0), failure(1), failure(2), failure(7, { waitedUs: 2600 }), failure(4, { code: 'IO_ERROR', errno: 5, phase: 'read' })];
    expect(failedEntries(failures, asked)).toEqual([
      { blocks: [[0, 2], [7, 7]], code: 'NOT_FOUND', phase: 'open', waited_ms: 3, slot: 'free' },
      { block: 4, code: 'IO_ERROR', phase: 'read', waited_ms: 1, slot: 'free', errno: 'EIO', message: expect.stringContaining('demo/4') },
    ]);
  });

  test('the sentence says what was asked, where it stopped, for how long, and what happens next', () => {
    const [entry] = failedEntries([failure(3, { code: 'DEADLINE_EXCEEDED', phase: 'read', slot: 'quarantined', waitedUs: 250_000, heldUs: 249_000 })], asked);
    expect(entry!.message).toBe('load of demo/3 on mount kv0 reached its deadline after 250 ms, in read for 249 ms; slot 13 is quarantined until the kernel gives it back');
  });

  test('the largest answer of unlike failures fits into a line', () => {
    const failures = Array.from({ length: 4096 }, (_, block) => failure(block, { code: 'LENGTH_MISMATCH', storedBytes: 1_000_000 + block, phase: 'header' }));
    expect(Buffer.byteLength(JSON.stringify(failedEntries(failures, asked)))).toBeLessThan(1 << 20);
  });

  test('errnos have the names people search for', () => {
    expect([5, 28, 13, 116, 107].map(errnoName)).toEqual(['EIO', 'ENOSPC', 'EACCES', 'ESTALE', 'ENOTCONN']);
    expect([5, 28, 13, 30, 107].map(saysSick)).toEqual([true, false, false, false, true]);
    expect(errnoName(9999)).toBe('E9999');
  });
});
