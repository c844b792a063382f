// Late completion: what the kernel does after the answer. A load fills a slot that nobody leases, a store never appears (or
// whole, if its rename was under way), and a late unlink takes no block with it that was stored since.
//
// Where bytes could go wrong the test breaks the caller's rule on purpose and writes to slots that are the kernel's: so that
// the hazard is seen to be real, and the block with those bytes is seen not to get a name. The same through the Python
// client, with SIGSTOP and SIGKILL: clients/python/tests/stall/test_late.py.

import { readFileSync, writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { blockFile, expectAtDeadline, expectNeverThere, expectNoTemporaries, expectStays, filesBelow, onlyFailure, payloadBehind, PLACES, storeBytes } from '../support/late.ts';
import { failuresOf, identified, measured, onEachEngine, patternOf, type Rig, withRig } from '../support/rig.ts';

const TIMEOUT_MS = 300;
const LONG_MS = 8_000;
const BYTES = 16_384;
const KEYS = ['late/aa01', 'late/aa02', 'late/aa03', 'late/aa04'] as const; // one directory, so that its names are in the cache
const KEY = KEYS[0];
const MARK = Buffer.alloc(BYTES, 0xa5);
const RULE_BROKEN = Buffer.alloc(BYTES, 0x5a);
const NEW = Buffer.alloc(BYTES, 'stored again.');

/** Every slot that can be leased, each filled with the pattern. */
function takeEverything(rig: Rig): number[] {
  const mine: number[] = [];
  for (let some = rig.client.arena.lease(1); some !== null; some = rig.client.arena.lease(1)) mine.push(...some);
  for (const slot of mine) rig.client.writeSlot(slot, MARK);
  return mine;
}

/** Lanes that have loaded before go straight to their block; a new one may get stuck on the way to it. */
async function warmUp(rig: Rig): Promise<void> {
  const slots = rig.lease(KEYS.length);
  const { answer } = await rig.load(KEYS, slots, LONG_MS);
  expect(answer).toMatchObject({ ok: true });
  rig.client.arena.release(slots);
}

onEachEngine('late completion', (engine) => {
  const options = { engine, slotBytes: BYTES, slots: 32, breakerHeldClosed: true } as const;

  for (const place of PLACES) {
    const lab = place === 'blk' ? ({ loop: 'ext4' } as const) : {};
    const there = { ...options, on: place, lab };

    for (const end of ['its deadline', 'a cancel'] as const) {
      it(`a load answered at ${end} fills no slot leased since (${place})`, () =>
        withRig(there, async (rig) => {
          await rig.fill(KEYS);
          await warmUp(rig);
          await rig.lab.hang('read', place === 'mnt' ? { match: '/blocks/*' } : {});
          const slots = rig.lease(KEYS.length);
          const pending = rig.ask('load', { id: 'held', keys: [...KEYS], slots, bytes: BYTES, timeout_ms: end === 'a cancel' ? LONG_MS : TIMEOUT_MS });
          await rig.lab.waitStuck('read');
          if (end === 'a cancel') expect(await rig.client.request('cancel', { task: 'held' })).toMatchObject({ ok: true, state: 'cancelled' });
          const failures = failuresOf((await pending).answer);
          expect([...failures.values()].every((entry) => entry.code === (end === 'a cancel' ? 'CANCELLED' : 'DEADLINE_EXCEEDED'))).toBe(true);
          rig.client.arena.release(slots);
          const held = await rig.keptByTheKernel();
          const kept = slots.map((slot, block) => ({ slot, block })).filter(({ slot }) => held.includes(slot));
          for (const { block } of kept) expect(failures.get(block)).toMatchObject({ slot: 'quarantined' });
          for (const { slot } of kept) rig.client.writeSlot(slot, RULE_BROKEN);

          const mine = takeEverything(rig);
          await rig.heal();
          const changed = mine.filter((slot) => !rig.client.readSlot(slot, BYTES).equals(MARK));
          expect(changed, 'slots that were leased again').toEqual([]);
          expect(mine.length).toBe(32 * 2 - kept.length);
          const late = kept.filter(({ slot, block }) => rig.client.readSlot(slot, BYTES).equals(patternOf(KEYS[block]!, BYTES)));
          expect(late.length, 'late bytes really came').toBeGreaterThan(0);
          measured(`${engine}, ${place}, ${end}: ${late.length} late loads, 0 of ${mine.length} leased slots changed`);
          rig.client.arena.release(mine);
          for (const key of KEYS) expect(await rig.loads(key)).toBe(true);
        }));
    }

    it(`a store whose bytes are taken late never appears, whatever they are by then (${place})`, () =>
      withRig(there, async (rig) => {
        await rig.fill([KEY]);
        const late = KEYS.slice(1);
        const slots = rig.lease(late.length);
        late.forEach((key, i) => rig.client.writeSlot(slots[i]!, patternOf(key, BYTES)));
        if (place === 'mnt') await rig.lab.hang('getattr', { match: '/blocks/*.tmp' });
        else await rig.lab.stop();
        const pending = rig.store(late, slots, 2 * TIMEOUT_MS);
        if (place === 'mnt') {
          // The last request before the write: the kernel asks who may write to the new file. The write is not read any more.
          await rig.lab.waitStuck('getattr');
          await rig.lab.hang('unlink');
          await rig.lab.stop();
          await rig.lab.resume('getattr');
        }
        await rig.lab.waitUntaken();
        const asked = await pending;
        expectAtDeadline(asked);
        const failures = [...failuresOf(asked.answer).values()];
        expect(failures).toHaveLength(late.length);
        for (const entry of failures) expect(entry).toMatchObject({ code: 'DEADLINE_EXCEEDED' });
        for (const entry of failures) expect(entry.outcome, 'no rename was under way').toBeUndefined();
        const untaken = failures.filter((entry) => entry.phase === 'write');
        expect(untaken.length, JSON.stringify(failures)).toBeGreaterThan(0);
        for (const entry of untaken) expect(entry.slot).toBe('quarantined');
        for (const slot of slots) rig.client.writeSlot(slot, RULE_BROKEN);
        rig.client.arena.release(slots);
        expect(rig.client.arena.quarantined.length).toBeGreaterThan(0);

        await rig.lab.cont();
        if (place === 'mnt') {
          // Their clean-up is held: what was written can be looked at, and it is what the buffer held when it was taken.
          await rig.lab.waitStuck('unlink');
          const written = (await filesBelow(rig.lab.back, '.tmp')).map((file) => payloadBehind(file, BYTES));
          expect(written.some((bytes) => bytes.equals(RULE_BROKEN)), 'the hazard is real').toBe(true);
        }
        await rig.heal();
        await expectNeverThere(rig, place, late);
        for (const key of late) expect((await storeBytes(rig, key, NEW)).asked.answer).toMatchObject({ ok: true, kept: 0 });
        await expectStays(rig, place, late[0]!, NEW);
      }));
  }

  it('a store stuck on a frozen ext4 before its file is made never appears after the thaw', () =>
    withRig({ ...options, on: 'blk', lab: { loop: 'ext4' } }, async (rig) => {
      await rig.fill([KEY]);
      await rig.lab.freeze();
      const { asked } = await storeBytes(rig, KEYS[1], NEW, TIMEOUT_MS);
      expectAtDeadline(asked);
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'open', slot: 'quarantined' });
      expect(onlyFailure(asked).outcome).toBeUndefined();
      await rig.lab.thaw();
      await rig.heal();
      await expectNeverThere(rig, 'blk', [KEYS[1]]);
    }));

  for (const when of ['before', 'after'] as const) {
    for (const end of ['its deadline', 'a cancel'] as const) {
      it(`a store answered at ${end} in its rename appears whole, its memory notwithstanding (held ${when})`, () =>
        withRig(options, async (rig) => {
          await rig.fill([KEYS[1]]);
          await rig.lab.hang('rename', { when });
          const [slot] = rig.lease(1) as [number];
          rig.client.writeSlot(slot, NEW);
          const pending = rig.ask('store', { id: 'held', keys: [KEY], slots: [slot], bytes: BYTES, timeout_ms: end === 'a cancel' ? LONG_MS : TIMEOUT_MS });
          await rig.lab.waitStuck('rename');
          if (end === 'a cancel') await rig.client.request('cancel', { task: 'held' });
          const failed = [...failuresOf((await pending).answer).values()]; // the sidecar's words: only they say what became of the slot
          expect(failed).toMatchObject([{ code: end === 'a cancel' ? 'CANCELLED' : 'DEADLINE_EXCEEDED', phase: 'rename', outcome: 'unknown', slot: 'quarantined' }]);
          rig.client.writeSlot(slot, RULE_BROKEN);
          rig.client.arena.release([slot]);

          const waiting = storeBytes(rig, KEY, RULE_BROKEN, LONG_MS);
          const { asked: refused } = await storeBytes(rig, KEY, RULE_BROKEN, TIMEOUT_MS);
          expectAtDeadline(refused);
          expect(onlyFailure(refused)).toMatchObject({ code: 'KEY_BUSY', slot: 'free' });
          await rig.heal();
          expect((await waiting).asked.answer).toMatchObject({ ok: true, kept: 1 }); // behind the late one: the block was there
          await expectStays(rig, 'mnt', KEY, NEW);
        }));
    }
  }

  it('a store stuck in a rename that then fails is absent, and can be made again', () =>
    withRig(options, async (rig) => {
      await rig.fill([KEYS[1]]);
      await rig.lab.hang('rename');
      const { asked } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS);
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'rename', outcome: 'unknown' });
      await rig.lab.resume('rename', { errno: 'EIO' });
      await rig.heal();
      await expectNeverThere(rig, 'mnt', [KEY]);
      expect((await storeBytes(rig, KEY, NEW)).asked.answer).toMatchObject({ ok: true, kept: 0 });
      await expectStays(rig, 'mnt', KEY, NEW);
    }));

  it('a replace stuck in its rename leaves the old block or the new one, whole', () =>
    withRig(options, async (rig) => {
      await rig.fill([KEY]);
      await rig.lab.hang('rename');
      const { asked } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS, { replace: true });
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'rename', outcome: 'unknown' });
      expect(payloadBehind(blockFile(rig.lab.back, KEY), BYTES).equals(patternOf(KEY, BYTES)), 'the old block until then').toBe(true);
      await rig.heal();
      await expectStays(rig, 'mnt', KEY, NEW);
    }));

  for (const stuck of ['before', 'after', 'frozen'] as const) {
    it(`a stuck unlink takes no block with it that was stored again (${stuck})`, () =>
      withRig(stuck === 'frozen' ? { ...options, on: 'blk', lab: { loop: 'ext4' }, args: ['--recycle', 'off'] } : options, async (rig) => {
        const place = stuck === 'frozen' ? 'blk' : 'mnt';
        await rig.fill([KEY]);
        if (stuck === 'frozen') await rig.lab.freeze();
        else await rig.lab.hang('unlink', { when: stuck });
        const removed = await rig.remove([KEY], TIMEOUT_MS);
        expectAtDeadline(removed);
        expect(onlyFailure(removed)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'unlink', outcome: 'unknown' });

        const waiting = storeBytes(rig, KEY, NEW, LONG_MS);
        const { asked: refused } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS);
        expectAtDeadline(refused);
        expect(onlyFailure(refused)).toMatchObject({ code: 'KEY_BUSY', slot: 'free' });
        if (stuck === 'frozen') await rig.lab.thaw();
        await rig.heal();
        expect((await waiting).asked.answer).toMatchObject({ ok: true, kept: 0 });
        await expectStays(rig, place, KEY, NEW);
      }));
  }

  it("a store's own clean-up, stuck, takes nothing but its temporary", () =>
    withRig(options, async (rig) => {
      await rig.fill([KEYS[1]]);
      await rig.lab.fail('write', 'ENOSPC', { match: '/blocks/*', count: 1 });
      await rig.lab.hang('unlink');
      const { asked } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS);
      expectAtDeadline(asked);
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'unlink', slot: 'quarantined' });
      expect(onlyFailure(asked).outcome, 'it will not appear').toBeUndefined();
      // Not behind a gate: whether it gets through is the kernel's matter, which locks the directory meanwhile.
      const again = storeBytes(rig, KEY, NEW, LONG_MS);
      await rig.heal();
      expect((await again).asked.answer).toMatchObject({ ok: true, kept: 0 });
      await expectStays(rig, 'mnt', KEY, NEW);
    }));

  it('a damaged block whose setting aside is stuck takes no block with it that was stored since', () =>
    withRig(options, async (rig) => {
      await rig.fill([KEY]);
      await identified(rig);
      const file = blockFile(rig.lab.back, KEY);
      const bytes = readFileSync(file);
      bytes[bytes.length - 1]! ^= 1;
      writeFileSync(file, bytes);
      await rig.lab.hang('rename');
      const slots = rig.lease(1);
      expect(onlyFailure(await rig.load([KEY], slots, LONG_MS))).toMatchObject({ code: 'CORRUPT', slot: 'free' });
      rig.client.arena.release(slots);
      await rig.lab.waitStuck('rename');
      const waiting = storeBytes(rig, KEY, NEW, LONG_MS);
      const { asked: refused } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS);
      expect(onlyFailure(refused)).toMatchObject({ code: 'KEY_BUSY', slot: 'free' });
      await rig.heal();
      expect((await waiting).asked.answer).toMatchObject({ ok: true, kept: 0 });
      await expectStays(rig, 'mnt', KEY, NEW);
      await expectNoTemporaries(rig, 'mnt');
    }));
});
