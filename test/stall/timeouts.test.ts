// The four of the original fix, each on a kernel that is really stuck: open times out, IO times out, the same blocks time out
// again and again, and everything that may be stuck is.

import { expect, it } from 'vitest';
import { codesOf, expectFreed, expectPrompt, expectSlotsAgree, opsOf } from '../support/promptness.ts';
import { failuresOf, keysOf, measured, onEachEngine, withRig } from '../support/rig.ts';

const TIMEOUT_MS = 300;
/** A refusal needs no lane; on a quiet machine it is there in less than 5 ms. */
const REFUSED_MS = 100;
const BLOCKS = { match: '/blocks/*' }; // the store's own files, kvlane.json and the probe block, answer

onEachEngine('timeouts', (engine) => {
  it('runs on the engine that was asked for, not on one it fell back to', () =>
    withRig({ engine }, async (rig) => {
      await rig.fill(keysOf('t', 4));
      expect(await rig.loads(keysOf('t', 1)[0]!)).toBe(true);
      const { engines } = await rig.stats();
      expect(engines, rig.client.stderr).toEqual([engine, engine, engine]);
    }));

  for (const phase of ['open', 'read'] as const) {
    it(`answers a load whose ${phase} hangs at its deadline, and gives its memory back only when the kernel does`, () =>
      withRig({ engine, breakerHeldClosed: true }, async (rig) => {
        const keys = keysOf('t', 12);
        await rig.fill(keys);
        await rig.lab.hang(phase, BLOCKS);
        const from = rig.heard.length;
        const slots = rig.lease(12);
        const pending = rig.load(keys, slots, TIMEOUT_MS);
        await rig.lab.waitStuck(phase);
        const asked = await pending;
        expectPrompt(rig, `12 blocks, ${phase} hangs`, [asked]);
        const failures = failuresOf(asked.answer);
        expect(failures.size).toBe(12);
        expect(new Set([...failures.values()].map((entry) => entry.code))).toEqual(new Set(['DEADLINE_EXCEEDED']));
        expect([...failures.values()].map((entry) => entry.phase)).toContain(phase);
        const quarantined = await expectSlotsAgree(rig, phase, [{ slots, answer: asked.answer }], from);
        expect(quarantined.length).toBeGreaterThan(0);
        rig.client.arena.release(slots);
        expect(rig.client.arena.lease(64)).toBeNull(); // released is not free

        await rig.heal();
        expectFreed(rig, phase, quarantined, from);
        for (const key of keys) expect(await rig.loads(key)).toBe(true);
      }));
  }

  it('goes on when the same blocks time out again and again, and loses no further lane to them', () =>
    withRig({ engine, breakerHeldClosed: true }, async (rig) => {
      const keys = keysOf('t', 4);
      await rig.fill(keys);
      await rig.lab.hang('read', BLOCKS);
      const all = [];
      const stuck = [];
      for (let round = 0; round < 6; round += 1) {
        const slots = rig.lease(4);
        all.push(await rig.load(keys, slots, TIMEOUT_MS));
        rig.client.arena.release(slots);
        stuck.push((await rig.stats()).stuckOperations);
      }
      expectPrompt(rig, '6 times the same 4 blocks', all);
      measured(`${engine}: stuck after each round: ${stuck.join(' ')}; answered after ${all.map((one) => Math.round(one.tookMs)).join(' ')} ms`);
      expect(Math.max(...stuck)).toBe(4);
      for (const again of all.slice(1)) {
        expect(codesOf(again)).toEqual(['KEY_BUSY', 'KEY_BUSY', 'KEY_BUSY', 'KEY_BUSY']);
        expect(again.tookMs).toBeLessThan(REFUSED_MS);
      }
      await rig.heal();
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('answers stores of the same blocks in time, however often they hang, and stores them in the end', () =>
    withRig({ engine, breakerHeldClosed: true, stuckMax: 16 }, async (rig) => {
      const keys = keysOf('t', 4);
      await rig.lab.hang(['write', 'rename'], BLOCKS);
      const all = [];
      for (let round = 0; round < 6; round += 1) {
        const slots = rig.lease(4);
        all.push(await rig.store(keys, slots, TIMEOUT_MS, { replace: true }));
        rig.client.arena.release(slots);
      }
      expectPrompt(rig, '6 times a store of the same 4 blocks', all);
      expect((await rig.stats()).stuckOperations).toBeLessThanOrEqual(16 + 4);
      await rig.heal();
      await rig.fill(keys);
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('says SATURATED at once when all that may be stuck is stuck, and works on after the resume', () =>
    withRig({ engine, breakerHeldClosed: true, stuckMax: 8, args: ['--lanes', '2'], slots: 256 }, async (rig) => {
      const keys = keysOf('t', 400);
      await rig.fill(keys);
      await rig.lab.hang('read', BLOCKS);
      const from = rig.heard.length;
      const held: { slots: number[]; answer: object }[] = [];
      const all = [];
      let refused = 0;
      // As many rounds as it takes: an engine may put several operations into one lane.
      for (let round = 0; round < 12 && refused === 0; round += 1) {
        const some = keys.slice(round * 32, round * 32 + 32);
        const slots = rig.lease(some.length);
        const asked = await rig.load(some, slots, TIMEOUT_MS);
        rig.client.arena.release(slots);
        held.push({ slots, answer: asked.answer });
        all.push(asked);
        if (codesOf(asked).every((code) => code === 'SATURATED')) refused += 1;
      }
      expectPrompt(rig, 'loads until all lanes are stuck', all);
      expect(refused).toBe(1);
      expect((await rig.lab.status()).held.read).toBeGreaterThanOrEqual(8 + 2);

      const slots = rig.lease(1);
      const took = [];
      for (let again = 0; again < 20; again += 1) {
        const asked = await rig.load([keys[399]!], slots, TIMEOUT_MS);
        expect(codesOf(asked)).toEqual(['SATURATED']);
        took.push(asked.tookMs);
      }
      rig.client.arena.release(slots);
      took.sort((a, b) => a - b);
      measured(`${engine}: refused as SATURATED after ${took[10]!.toFixed(2)} ms (median), ${took[19]!.toFixed(2)} ms (worst of 20)`);
      expect(took[10]).toBeLessThan(REFUSED_MS);
      // Another class has lanes of its own.
      const known = opsOf([await rig.lookup(keys.slice(0, 4), 2_000)]);
      expect(known.flatMap(codesOf)).toEqual(['OK']);

      const quarantined = await expectSlotsAgree(rig, 'saturated', held, from);
      await rig.heal();
      expectFreed(rig, 'saturated', quarantined, from);
      expect(await rig.loads(keys[399]!)).toBe(true);
    }));
});
