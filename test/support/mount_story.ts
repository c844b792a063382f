// mount_story.ts — what a sidecar said and did about its mounts, for tests of breakers: events in order, states, recovery.

import { expect } from 'vitest';
import type { LaneClass, MountState } from '../../protocol/messages.ts';
import { type AnyAsked, codesOf, ranOut } from './promptness.ts';
import { measured, type Rig, spreadOf } from './rig.ts';

/** A refusal asks no lane. On a quiet machine it is there in less than 5 ms; this leaves room for a busy one. */
export const REFUSED_MS = 100;
/** A mount is to be used again within a second of its resume; twice that is asserted. */
export const BACK_MS = 2_000;
const POLL_MS = 5;

interface MountEvent {
  mount: string;
  class: LaneClass;
  state: MountState;
  was: MountState;
  reason: string;
}

/** The `mount` events so far, in order. */
export function eventsOf(rig: Rig, o: { from?: number; laneClass?: LaneClass; mount?: string } = {}): MountEvent[] {
  const events = rig.heard.slice(o.from ?? 0).map(({ message }) => message);
  return (events.filter((message) => message['event'] === 'mount') as unknown as MountEvent[]).filter(
    (event) => (o.laneClass === undefined || event.class === o.laneClass) && (o.mount === undefined || event.mount === o.mount),
  );
}

/** Suspended, probed, used again, each state beginning where the one before ended; a probe that fails in between is allowed. */
export function expectStory(rig: Rig, laneClass: LaneClass, o: { from?: number; mount?: string } = {}): void {
  const events = eventsOf(rig, { laneClass, ...o });
  const told = events.map((event) => `${event.was} → ${event.state}`).join(', ');
  expect(events.length, told).toBeGreaterThanOrEqual(3);
  expect(events[0]!.was, told).toBeOneOf(['unknown', 'ok']);
  expect(events[0]!.state, told).toBe('suspended');
  expect(events.at(-1)!.state, told).toBe('ok');
  events.forEach((event, i) => {
    expect(event.reason.length, `${told}: every event says why`).toBeGreaterThan(10);
    if (i > 0) expect(event.was, told).toBe(events[i - 1]!.state);
    if (event.state === 'ok') expect(event.was, told).toBe('probing');
  });
}

export interface ClassPicture {
  state: MountState;
  lanes: number;
  lanes_stuck: number;
  suspended_times: number;
  probes: number;
  probes_stuck: number;
  operations_abandoned: number;
}

/** One class of the device that this mount lies on. */
export async function classOf(rig: Rig, laneClass: LaneClass, mount = 'kv0'): Promise<ClassPicture> {
  const { devices } = (await rig.stats()).whole as unknown as { devices: { mounts: string[]; classes: Record<LaneClass, ClassPicture> }[] };
  return devices.find((device) => device.mounts.includes(mount))!.classes[laneClass];
}

/** Three probes hang: the longest way back there is. */
export function untilProbesAreStuck(rig: Rig, laneClass: LaneClass, stuck = 3): Promise<void> {
  return rig.until(`${stuck} probes are stuck`, async () => (await classOf(rig, laneClass)).probes_stuck === stuck);
}

/**
 * Asks until it is refused; returns how often that took. Once, normally: the first deadline is evidence enough, unless recent
 * answers of this size took more than a quarter of it, which a busy machine can make them. Then stall_ms decides.
 */
export async function untilSuspended(what: string, ask: () => Promise<AnyAsked>, boundMs = 5_000): Promise<number> {
  const beganMs = performance.now();
  for (let before = 0; ; before += 1) {
    const asked = await ask();
    if (codesOf(asked)[0] === 'MOUNT_SUSPENDED') {
      if (before > 1) measured(`${what}: ${before} requests ran out of time before it was suspended, after ${(performance.now() - beganMs).toFixed(0)} ms`);
      return before;
    }
    expect(ranOut(asked), `${what}: ${JSON.stringify(asked.answer)}`).toBe(true);
    expect(performance.now() - beganMs, `${what}: not suspended`).toBeLessThan(boundMs);
  }
}

/** Asks again and again, and is refused again and again. Prints how fast. */
export async function expectRefusedAtOnce(what: string, ask: () => Promise<AnyAsked>, code = 'MOUNT_SUSPENDED', times = 20): Promise<void> {
  const took: number[] = [];
  for (let i = 0; i < times; i += 1) {
    const asked = await ask();
    expect(codesOf(asked), `${what}: ${JSON.stringify(asked.answer)}`).toEqual([code]);
    took.push(asked.tookMs);
  }
  const { p50, max } = spreadOf(took);
  measured(`${what}: refused as ${code} after ${took[0]!.toFixed(2)} ms, then p50 ${p50} max ${max} ms`);
  expect(p50, what).toBeLessThan(REFUSED_MS);
}

/** Until it is answered well; the milliseconds since `sinceMs` (performance.now()). */
export async function backAfter(rig: Rig, what: string, sinceMs: number, ask: () => Promise<AnyAsked>): Promise<number> {
  let last = '';
  for (;;) {
    const asked = await ask();
    const tookMs = performance.now() - sinceMs;
    last = codesOf(asked).join(' ');
    if (last === 'OK') {
      measured(`${rig.engine}: ${what}: back ${tookMs.toFixed(0)} ms after the resume`);
      return tookMs;
    }
    expect(tookMs, `${what}: not back, says ${JSON.stringify(asked.answer)}; ${JSON.stringify((await rig.stats()).whole)}`).toBeLessThan(8_000);
    await new Promise((go) => setTimeout(go, POLL_MS));
  }
}
