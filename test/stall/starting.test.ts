// Starting on a mount that hangs, and mounts that go away, come back, or are not the right one. The sidecar is ready in the usual
// time whatever its mount does, and comes back by itself; and whatever lies under a mount point never gets a byte of ours.

import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import type { Code } from '../../protocol/messages.ts';
import { backAfter, BACK_MS } from '../support/mount_story.ts';
import { treeOf } from '../support/mount_point.ts';
import { isNamed, mountOf, onStage } from '../support/mount_stage.ts';
import { codesOf, LATE_MS } from '../support/promptness.ts';
import { keysOf, measured, onEachEngine, type Rig } from '../support/rig.ts';
import type { Lab, OpClass } from '../support/stall.ts';

const TIMEOUT_MS = 300;
const CALM_MS = 10_000;
const EVERY_BLOCK = '/blocks/*';
/** A start waits 80 ms for its mounts at most; the rest of this is noise. */
const READY_EXTRA_MS = 1_000;
const SAID_MS = 5_000;
const HANGS: { what: string; hang(lab: Lab): Promise<void> }[] = [
  ...(['open', 'lookup', 'getattr', 'read', 'all'] as const).map((what: OpClass | 'all') => ({ what: `${what} hung`, hang: (lab: Lab) => lab.hang(what) })),
  { what: 'nobody there to answer', hang: (lab) => lab.stop() },
];

onEachEngine('starting', (engine) => {
  for (const { what, hang } of HANGS) {
    it(`on a mount that hangs, ${what}: ready in the usual time, refused or answered by the deadline, and back by itself`, () =>
      onStage(async (stage) => {
        const keys = keysOf('s', 4);
        const first = await stage.start(engine, stage.labs[0]!.mnt);
        await first.fill(keys);
        const { readyMs: usualMs } = first;
        await stage.end(first);

        const [lab] = stage.labs;
        await hang(lab!);
        const rig = await stage.start(engine, lab!.mnt, { known: false });
        const [mount] = rig.client.ready.mounts;
        measured(`${engine}: ${what}: ready after ${rig.readyMs.toFixed(0)} ms, on the healthy mount after ${usualMs.toFixed(0)} ms; state ${mount!.state}`);
        expect(rig.readyMs).toBeLessThan(usualMs + READY_EXTRA_MS);
        expect(mount!.state).toBeOneOf(['suspended', 'unknown']);
        const slots = rig.lease(1);
        for (const asked of [await rig.load([keys[0]!], slots, TIMEOUT_MS), await rig.store(['s/ff00'], slots, TIMEOUT_MS)]) {
          expect(codesOf(asked)).toEqual([expect.toBeOneOf(['MOUNT_SUSPENDED', 'DEADLINE_EXCEEDED'])]);
          expect(asked.overshootMs).toBeLessThan(LATE_MS);
        }
        rig.client.arena.release(slots);

        const sinceMs = performance.now();
        await lab!.cont();
        await lab!.resume();
        await expectBack(rig, what, sinceMs, keys);
      }));
  }

  it('with the mount missing: nothing is stored on the disk underneath, and it works when the mount is there', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const keys = keysOf('s', 4);
      await stage.fill(engine, keys);
      point.litter();
      const before = await point.underneath();

      const rig = await stage.start(engine, point.dir, { create: false, known: false });
      expect(rig.client.ready.mounts[0]).toMatchObject({ state: 'suspended', code: 'WRONG_STORE' });
      await expectAll(rig, 'WRONG_STORE', 40);
      expect(await point.underneath()).toBe(before);
      await point.mount(stage.labs[0]!.mnt);
      await expectBack(rig, 'the missing mount was mounted', performance.now(), keys);
      expect(await point.underneath()).toBe(before);
    }));

  it('with --create on a mount that hangs and then goes away: no store is made on the disk underneath', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab] = stage.labs;
      const keys = keysOf('s', 4);
      await stage.fill(engine, keys);
      point.litter();
      const before = await point.underneath();
      await point.mount(lab!.mnt);
      await lab!.hang('all');
      const rig = await stage.start(engine, point.dir, { known: false });
      await rig.until('its second look at the store is stuck too', async () => (await lab!.status()).held.all >= 2);
      await point.unmountLazily();
      await rig.until('it has looked at what is underneath', async () => isNamed(await mountOf(rig)));
      expect(await point.underneath(), JSON.stringify(await mountOf(rig))).toBe(before);
      expect(await mountOf(rig)).toMatchObject({ code: 'WRONG_STORE' });
      await lab!.resume();
      await rig.until('the stuck looks came back', async () => (await rig.stats()).stuckOperations === 0);
      await expectAll(rig, 'WRONG_STORE', 8);
      expect(await point.underneath()).toBe(before);
      await point.mount(lab!.mnt);
      await expectBack(rig, 'it hung, went away and was mounted again', performance.now(), keys);
      expect(await point.underneath()).toBe(before);
    }));

  it('with --create on a mount that hangs and has no store yet: it is made once the mount answers', () =>
    onStage(async (stage) => {
      const [lab] = stage.labs;
      await lab!.hang('all');
      const rig = await stage.start(engine, lab!.mnt, { known: false });
      await rig.until('its second look at the store is stuck too', async () => (await lab!.status()).held.all >= 2);
      const sinceMs = performance.now();
      await lab!.resume();
      await rig.until('the store is made', async () => (await mountOf(rig)).store_id !== undefined);
      measured(`${engine}: the store was made ${(performance.now() - sinceMs).toFixed(0)} ms after the resume`);
      expect(performance.now() - sinceMs).toBeLessThan(BACK_MS);
      const keys = keysOf('s', 4);
      await rig.fill(keys);
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('lazily unmounted during a hang, with stores in flight and queued: nothing underneath, and back after the remount', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab] = stage.labs;
      point.litter();
      const before = await point.underneath();
      await point.mount(lab!.mnt);
      const rig = await stage.start(engine, point.dir);
      const keys = keysOf('s', 4);
      await rig.fill(keys);

      const wanted = keysOf('late', 16);
      const stores = await storesInFlight(rig, wanted, ['write'], lab!);
      await point.unmountLazily();
      const answers = await Promise.all(stores.asked);
      for (const asked of answers) expect(asked.answer.ok).toBe(false);
      rig.client.arena.release(stores.slots);
      measured(`${engine}: stores in flight and queued when it was unmounted: ${answers.flatMap(codesOf).join(' ')}`);
      await expectSaid(rig, 'WRONG_STORE');
      await expectAll(rig, 'WRONG_STORE', 40);
      expect(await point.underneath()).toBe(before);

      await lab!.resume(); // what was in the kernel goes on in the mount that is gone
      await rig.until('what was stuck has come back', async () => (await rig.stats()).stuckOperations === 0);
      await expectAll(rig, 'WRONG_STORE', 8);
      expect(await point.underneath()).toBe(before);

      await point.mount(lab!.mnt);
      await expectBack(rig, 'lazily unmounted during a hang', performance.now(), keys);
      const found = (await rig.lookup(wanted, CALM_MS)).answer;
      expect(found, 'stores that were answered as failed').toMatchObject({ present: wanted.map(() => false) });
      expect(await point.underneath()).toBe(before);
    }));

  it('lazily unmounted with nothing hung: what it has open it may use on, but nothing goes underneath', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab] = stage.labs;
      point.litter();
      const before = await point.underneath();
      await point.mount(lab!.mnt);
      const rig = await stage.start(engine, point.dir);
      const keys = keysOf('s', 4);
      await rig.fill(keys);
      await point.unmountLazily();
      const slots = rig.lease(12);
      const after: string[] = [];
      for (let round = 0; round < 10; round += 1) {
        const asked = await Promise.all([rig.store(keysOf('after', 8, 8 * round), slots.slice(4), CALM_MS), rig.load(keys, slots.slice(0, 4), CALM_MS), rig.lookup(keys, CALM_MS)]);
        after.push(...asked.flatMap(codesOf));
        await new Promise((go) => setTimeout(go, 20)); // lanes come and go meanwhile
      }
      rig.client.arena.release(slots);
      measured(`${engine}: unmounted with nothing hung: ${[...new Set(after)].map((code) => `${after.filter((one) => one === code).length} ${code}`).join(', ')}`);
      for (const code of after) expect(code).toBeOneOf(['OK', 'WRONG_STORE']);
      expect(await point.underneath()).toBe(before);
      await point.mount(lab!.mnt);
      await expectBack(rig, 'unmounted with nothing hung, and mounted again', performance.now(), keys);
      expect(await point.underneath()).toBe(before);
    }));

  it('remounted on another device while the old mount still hangs: hits again', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab, other] = stage.labs;
      point.litter();
      const before = await point.underneath();
      await point.mount(lab!.mnt);
      const rig = await stage.start(engine, point.dir);
      const keys = keysOf('s', 4);
      await rig.fill(keys);
      const device = rig.client.ready.mounts[0]!.device ?? (await mountOf(rig)).device;
      execFileSync('cp', ['-a', `${lab!.back}/.`, other!.back]); // what a mirror has, or the same server by another way

      const stores = await storesInFlight(rig, keysOf('late', 16), ['read', 'write'], lab!);
      const slots = rig.lease(keys.length);
      await rig.load(keys, slots, TIMEOUT_MS);
      rig.client.arena.release(slots);
      await point.unmountLazily();
      await Promise.all(stores.asked);
      rig.client.arena.release(stores.slots);
      await expectSaid(rig, 'WRONG_STORE');
      expect(await point.underneath()).toBe(before);

      await point.mount(other!.mnt);
      await expectBack(rig, 'remounted from another device, the old one hung', performance.now(), keys);
      expect((await mountOf(rig)).device).not.toBe(device);
      expect((await lab!.status()).held.all, 'the old mount was to hang all the time').toBeGreaterThan(0);
      expect(await point.underneath()).toBe(before);
    }, 2));

  it('another store mounted in its place: refused as WRONG_STORE, not touched, and hits again when the right one is back', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab, other] = stage.labs;
      await stage.fill(engine, keysOf('other', 4), other!);
      await point.mount(lab!.mnt);
      const rig = await stage.start(engine, point.dir);
      const keys = keysOf('s', 4);
      await rig.fill(keys);
      const others = await treeOf(other!.back);

      const stores = await storesInFlight(rig, keysOf('late', 16), ['write'], lab!);
      await point.unmountLazily();
      await point.mount(other!.mnt);
      await Promise.all(stores.asked);
      rig.client.arena.release(stores.slots);
      await expectSaid(rig, 'WRONG_STORE');
      await expectAll(rig, 'WRONG_STORE', 40);
      expect((await mountOf(rig)).reason).toMatch(/holds store [0-9a-f]{32}, not [0-9a-f]{32}/);
      await lab!.resume();
      await rig.until('what was stuck has come back', async () => (await rig.stats()).stuckOperations === 0);
      expect(await treeOf(other!.back), "another store's files").toBe(others);

      await point.unmountLazily();
      await point.mount(lab!.mnt);
      await expectBack(rig, 'the right store is mounted again', performance.now(), keys);
      expect(await treeOf(other!.back), "another store's files").toBe(others);
    }, 2));
});

/** Some held by the kernel, more waiting for a lane; answered by their deadline at the latest. */
async function storesInFlight(rig: Rig, keys: readonly string[], hung: readonly OpClass[], lab: Lab): Promise<{ asked: ReturnType<Rig['store']>[]; slots: number[] }> {
  await lab.hang(['write'], { match: EVERY_BLOCK });
  const slots = rig.lease(keys.length);
  const asked = keys.map((key, i) => rig.store([key], [slots[i]!], 4 * TIMEOUT_MS));
  await lab.waitStuck('write');
  if (hung.includes('read')) await lab.hang(hung); // not before: a lane that looks at the root again would not come to write
  return { asked, slots };
}

/** Loads, stores, look-ups and removes, many of them at once: every one is answered with this code. */
async function expectAll(rig: Rig, code: Code, count: number): Promise<void> {
  const keys = keysOf('refused', count);
  const slots = rig.lease(count);
  const took: number[] = [];
  const asked = keys.flatMap((key, i) => [rig.store([key], [slots[i]!], CALM_MS), rig.lookup([key], CALM_MS), rig.remove([key], CALM_MS)]);
  for (const one of await Promise.all(asked)) {
    expect(codesOf(one), JSON.stringify(one.answer)).toEqual([code]);
    took.push(one.tookMs);
  }
  const loads = await Promise.all(keys.map((key, i) => rig.load([key], [slots[i]!], CALM_MS)));
  for (const one of loads) expect(codesOf(one), JSON.stringify(one.answer)).toEqual([code]);
  rig.client.arena.release(slots);
  measured(`${rig.engine}: ${took.length + loads.length} requests refused as ${code}, the last after ${Math.max(...took).toFixed(0)} ms`);
}

/** The mount is known to be the wrong one; prints how long that took to be noticed. */
async function expectSaid(rig: Rig, code: Code): Promise<void> {
  const beganMs = performance.now();
  await rig.until(`the mount is ${code}`, async () => (await mountOf(rig)).code === code);
  const tookMs = performance.now() - beganMs;
  measured(`${rig.engine}: ${code} known after ${tookMs.toFixed(0)} ms`);
  expect(tookMs).toBeLessThan(SAID_MS);
}

async function expectBack(rig: Rig, what: string, sinceMs: number, keys: readonly string[]): Promise<void> {
  const slots = rig.lease(1);
  const tookMs = await backAfter(rig, what, sinceMs, () => rig.load([keys[0]!], slots, TIMEOUT_MS));
  rig.client.arena.release(slots);
  expect(tookMs).toBeLessThan(BACK_MS);
  for (const key of keys) expect(await rig.loads(key)).toBe(true);
  const fresh = `s/${Math.floor(performance.now() * 1000).toString(16).padStart(14, '0')}`;
  await rig.until('stores work again', async () => {
    const target = rig.lease(1);
    const { answer } = await rig.store([fresh], target, CALM_MS);
    rig.client.arena.release(target);
    return answer.ok;
  });
}
