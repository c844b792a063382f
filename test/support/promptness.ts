// promptness.ts — was everything answered in time? What must hold of any set of answers, whatever hung.
//
// Two bounds: `LATE_MS` for the worst one leaves room for a machine that is busy with other things; the median leaves less for
// a design that waits somewhere, since a wait costs every request. Requests of one burst share one deadline and so one
// hiccup: over several bursts `LATE_MEDIAN_MS` is the tighter bound. The numbers themselves are printed.

import { expect } from 'vitest';
import type { Fields } from '../../clients/node/client.ts';
import type { Op } from '../../protocol/messages.ts';
import { type Asked, failuresOf, measured, type Rig, spreadOf, type Spread } from './rig.ts';

/** After the deadline. What should be seen on a quiet machine: 20 ms for all, 5 ms for 99 of 100. */
export const LATE_MS = 250;
export const LATE_BURST_MEDIAN_MS = 100;
export const LATE_MEDIAN_MS = 25;

/** Any answer of the ops that have deadlines. */
export type AnyAsked = Asked<'load'> | Asked<'store'> | Asked<'lookup'> | Asked<'remove'>;

/** Its deadline is the reason for this answer. */
export function ranOut(asked: AnyAsked): boolean {
  const answer = asked.answer as { complete?: boolean; error?: { code: string } };
  if (answer.complete === false) return true;
  return answer.error?.code === 'DEADLINE_EXCEEDED' || [...failuresOf(answer).values()].some((entry) => entry.code === 'DEADLINE_EXCEEDED');
}

export function codesOf(asked: AnyAsked): string[] {
  const answer = asked.answer as { ok: boolean; complete?: boolean; error?: { code: string } };
  if (answer.error) return [answer.error.code];
  if (answer.complete === false) return ['INCOMPLETE'];
  return answer.ok ? ['OK'] : [...failuresOf(answer).values()].map((entry) => entry.code);
}

/** "3 OK, 7 DEADLINE_EXCEEDED/read" */
export function tally(all: readonly AnyAsked[]): string {
  const counts = new Map<string, number>();
  for (const asked of all) {
    const phases = [...failuresOf(asked.answer).values()].map((entry) => `${entry.code}/${entry.phase ?? '-'}`);
    for (const what of phases.length > 0 ? phases : codesOf(asked)) counts.set(what, (counts.get(what) ?? 0) + 1);
  }
  return [...counts].map(([what, count]) => `${count} ${what}`).join(', ');
}

/**
 * How long this machine takes now for n lines there and n back, no lane asked: what a burst of n answers costs in any case. On a
 * quiet machine 1,000 take about 20 ms; with five test runs beside this one it was 300.
 */
export async function burstMs(rig: Rig, n: number): Promise<number> {
  const began = performance.now();
  await Promise.all(Array.from({ length: n }, () => rig.client.request('ping', { timeout_ms: 10_000 } as Fields<'ping'>)));
  return performance.now() - began;
}

/**
 * Every request answered, by its deadline, and no time-out before it. Returns how late those were whose time ran out. `burst` is
 * what burstMs said for as many: a slow machine may take several times that, a design that waits takes longer on any machine.
 */
export function expectPrompt(rig: Rig, what: string, all: readonly AnyAsked[], burst = 0): Spread | null {
  const overran = all.filter(ranOut).map((asked) => asked.overshootMs);
  const lastWords = all.filter((asked) => asked.lastWordMs !== null).length;
  const spread = overran.length > 0 ? spreadOf(overran) : null;
  const late = spread ? `overshoot p50 ${spread.p50} p99 ${spread.p99} max ${spread.max} ms` : 'none at its deadline';
  measured(`${rig.engine}: ${what}: ${tally(all)}; ${late}${burst > 0 ? `; as many pings took ${burst.toFixed(1)} ms` : ''}${lastWords > 0 ? `; ${lastWords} had the client's last word first` : ''}`);
  for (const asked of all) expect('source' in asked.answer, `${what}: request ${asked.id} was never answered by the sidecar`).toBe(false);
  for (const asked of all) expect(Math.max(asked.overshootMs, asked.lastWordMs ?? 0), `${what}: request ${asked.id}: ${JSON.stringify(asked.answer).slice(0, 300)}`).toBeLessThan(LATE_MS + 4 * burst);
  if (spread) {
    expect(spread.min, `${what}: a time-out before its deadline`).toBeGreaterThanOrEqual(0);
    expect(spread.p50, `${what}: the median of what ran out`).toBeLessThan(LATE_BURST_MEDIAN_MS + 4 * burst);
  }
  return spread;
}

const freedSince = (rig: Rig, line: number): number[] =>
  rig.heard.slice(line).flatMap(({ message }) => (message['event'] === 'slots_freed' ? (message['slots'] as number[]) : []));

/**
 * The answers, the client's book and the sidecar's own agree on which slots the kernel has. Returns those that the answers named.
 * A call that was merely slow may have come back since: then slots_freed has said so.
 */
export async function expectSlotsAgree(rig: Rig, what: string, asked: readonly { slots: readonly number[]; answer: object }[], sinceLine: number): Promise<number[]> {
  const said: number[] = [];
  for (const { slots, answer } of asked) {
    for (const [block, entry] of failuresOf(answer)) {
      expect(entry.slot, `${what}: ${JSON.stringify(entry)}`).toBeOneOf(['free', 'quarantined']);
      if (entry.slot === 'quarantined') said.push(slots[block]!);
      // A block that no lane has taken up is nobody's.
      if (entry.phase === 'queue') expect(entry.slot, `${what}: ${JSON.stringify(entry)}`).toBe('free');
    }
  }
  said.sort((a, b) => a - b);
  let held: number[] = [];
  let theirs = NaN;
  const agree = async (): Promise<boolean> => {
    theirs = (await rig.stats()).slots.quarantined;
    const freed = new Set(freedSince(rig, sinceLine));
    held = said.filter((slot) => !freed.has(slot));
    return theirs === held.length; // not so while a slots_freed is between its making and here
  };
  await rig.until(`${what}: the sidecar's book of slots is that of the answers`, agree, 2_000);
  expect(rig.client.arena.quarantined, `${what}: the client's book`).toEqual(held);
  return said;
}

/** After a resume: each quarantined slot was named by slots_freed, once. */
export function expectFreed(rig: Rig, what: string, slots: readonly number[], sinceLine: number): void {
  expect(freedSince(rig, sinceLine).sort((a, b) => a - b), `${what}: slots_freed`).toEqual([...slots].sort((a, b) => a - b));
}

export function opsOf<O extends Op>(all: readonly Asked<O>[]): AnyAsked[] {
  return all as unknown as AnyAsked[];
}
