// 10, 100 and 1,000 requests in flight on a mount that hangs, and then 1,000 operations that are really in the kernel: the
// deadline is kept to the same few milliseconds, other work goes on, and what it costs in memory and threads is said.

import { expect, it } from 'vitest';
import { nowUs } from '../../clients/node/pending.ts';
import { type AnyAsked, burstMs, codesOf, expectFreed, expectPrompt, expectSlotsAgree, LATE_BURST_MEDIAN_MS, opsOf } from '../support/promptness.ts';
import { keysOf, measured, onEachEngine, type Rig, spreadOf, withRig } from '../support/rig.ts';

const MANY = 1_000;
const SLOT_BYTES = 4_096;
const TIMEOUT_MS = 600;
/** For the second test: long enough that all 1,000 are in the kernel before the first of them runs out. */
const STICK_MS = 6_000;
/** A stuck thread costs its stack's first pages and a lane's two, a task a few kilobytes; 1,000 of them must not cost 256 MiB. */
const GROWTH_MIB_MAX = 256;

/**
 * n loads, one block each, with one deadline. Were each given its own, the first to run out would take lanes with them until --stuck-max
 * is reached, and those behind them would be told SATURATED, rightly, some milliseconds before their own.
 */
async function loadAll(rig: Rig, keys: readonly string[], timeoutMs: number, meanwhile: () => Promise<void> = async () => {}): Promise<{ all: AnyAsked[]; held: { slots: number[]; answer: object }[] }> {
  const slots = rig.lease(keys.length);
  const deadlineUs = nowUs() + timeoutMs * 1000;
  const pending = Promise.all(keys.map((key, i) => rig.ask('load', { keys: [key], slots: [slots[i]!], bytes: SLOT_BYTES, deadline_us: deadlineUs })));
  await meanwhile();
  const answers = await pending;
  rig.client.arena.release(slots);
  return { all: opsOf(answers), held: answers.map(({ answer }, i) => ({ slots: [slots[i]!], answer })) };
}

onEachEngine('many at once', (engine) => {
  it('keeps the deadline of 10, 100 and 1,000 requests in flight', () =>
    withRig({ engine, breakerHeldClosed: true, slots: 1_100, slotBytes: SLOT_BYTES }, async (rig) => {
      const keys = keysOf('m', MANY);
      await rig.fill(keys);
      for (const n of [10, 100, MANY]) {
        const burst = await burstMs(rig, n);
        const from = rig.heard.length;
        await rig.lab.hang('all');
        const { all, held } = await loadAll(rig, keys.slice(0, n), TIMEOUT_MS);
        expectPrompt(rig, `${n} requests in flight`, all, burst);
        for (const asked of all) expect(codesOf(asked)).toEqual(['DEADLINE_EXCEEDED']);
        const quarantined = await expectSlotsAgree(rig, `${n} in flight`, held, from);
        await rig.heal();
        expectFreed(rig, `${n} in flight`, quarantined, from);
        expect(await rig.loads(keys[n - 1]!)).toBe(true);
      }
    }));

  it('keeps the deadline with 1,000 operations stuck in the kernel, and does not mind them', () =>
    withRig({ engine, breakerHeldClosed: true, stallMs: 20, stuckMax: MANY, slots: 1_100, slotBytes: SLOT_BYTES, args: ['--lanes', '64'] }, async (rig) => {
      const keys = keysOf('m', MANY + 100);
      await rig.fill(keys);
      const before = rig.process();
      const from = rig.heard.length;
      await rig.lab.hang('read', { match: '/blocks/*' });
      const burst = await burstMs(rig, MANY);
      let heldReads = 0;
      const began = performance.now();
      const { all, held } = await loadAll(rig, keys.slice(0, MANY), STICK_MS, async () => {
        await rig.lab.waitStuck('read', MANY, STICK_MS);
        heldReads = (await rig.lab.status()).held.read;
        measured(`${engine}: ${heldReads} reads held in the kernel after ${Math.round(performance.now() - began)} ms`);
      });
      expect(heldReads).toBe(MANY);
      expectPrompt(rig, `${MANY} operations stuck, all with one deadline`, all, burst);
      for (const asked of all) expect(codesOf(asked)).toEqual(['DEADLINE_EXCEEDED']);
      expect(await expectSlotsAgree(rig, 'stuck', held, from)).toHaveLength(MANY);
      const { stuckOperations } = await rig.stats();
      expect(stuckOperations).toBe(MANY);
      const listed = await rig.client.request('stuck', { timeout_ms: 5_000 } as never);
      expect((listed as { stuck: unknown[] }).stuck).toHaveLength(MANY);

      const after = rig.process();
      const grownMib = after.residentMib - before.residentMib;
      measured(`${engine}: sidecar with ${MANY} stuck: ${after.residentMib} MiB resident (${grownMib.toFixed(1)} more than before), ${after.threads} threads (before ${before.threads})`);
      expect(grownMib).toBeLessThan(GROWTH_MIB_MAX);
      expect((await rig.lab.status()).held.read, 'still all of them').toBe(MANY);

      // On top of them: a class that is well answers; loads run out of time in the last lanes or, without one, are refused.
      const late: number[] = [];
      for (let round = 0; round < 8; round += 1) {
        const slots = rig.lease(4);
        const more = opsOf(await Promise.all(slots.map((slot, i) => rig.load([keys[MANY + 4 * round + i]!], [slot], TIMEOUT_MS / 2))));
        const known = await rig.lookup(keys.slice(0, 20), 3_000);
        rig.client.arena.release(slots);
        expectPrompt(rig, `4 loads on top of ${MANY + 4 * round} stuck`, more);
        late.push(...more.map((asked) => asked.overshootMs));
        for (const asked of more) expect(codesOf(asked)).toEqual(['DEADLINE_EXCEEDED']);
        expect(codesOf(known)).toEqual(['OK']);
      }
      const spread = spreadOf(late);
      measured(`${engine}: loads on top of ${MANY} stuck: overshoot p50 ${spread.p50} p99 ${spread.p99} max ${spread.max} ms`);
      expect(spread.p50).toBeLessThan(LATE_BURST_MEDIAN_MS);

      const healedMs = await rig.heal();
      measured(`${engine}: all ${MANY} back and their slots free ${Math.round(healedMs)} ms after the resume; ${rig.process().threads} threads, ${rig.process().residentMib} MiB`);
      expect(rig.heard.slice(from).flatMap(({ message }) => (message['event'] === 'slots_freed' ? (message['slots'] as number[]) : [])).length).toBeGreaterThanOrEqual(MANY);
      for (const key of keys.slice(0, 5)) expect(await rig.loads(key)).toBe(true);
      await rig.until('the extra lanes have left', async () => (await rig.stats()).lanes <= 3 * 64);
    }));
});
