// Recycled files on a disk that hangs: a store stuck in its write keeps its file for ever, and a stuck move of a removed
// block's file takes no block with it that was stored since.

import { expect, it } from 'vitest';
import { expectAtDeadline, expectNeverThere, expectStays, filesBelow, onlyFailure, storeBytes } from '../support/late.ts';
import { measured, onEachEngine, patternOf, type Rig, withRig } from '../support/rig.ts';
import path from 'node:path';

const TIMEOUT_MS = 300;
const LONG_MS = 8_000;
const BYTES = 16_384;
const KEYS = ['late/aa01', 'late/aa02', 'late/aa03', 'late/aa04', 'late/aa05'] as const; // one directory, so that its names are in the cache
const [KEY, OTHER, GONE, NEXT, LAST] = KEYS;
const RULE_BROKEN = Buffer.alloc(BYTES, 0x5a);
const NEW = Buffer.alloc(BYTES, 'stored again.');

async function recycled(rig: Rig): Promise<{ files: number; recycled: number; lost: number }> {
  const { mounts } = (await rig.stats()).whole as { mounts: { recycling: { files: number; recycled: number; lost: number } }[] };
  return mounts[0]!.recycling;
}

onEachEngine('recycled files on a stuck disk', (engine) => {
  const options = { engine, slotBytes: BYTES, slots: 32, breakerHeldClosed: true, on: 'blk', lab: { loop: 'ext4' } } as const;

  it('a store stuck over a recycled file never appears, and its file is never used again', () =>
    withRig({ ...options, args: ['--lanes', '1'] }, async (rig) => { // one lane: a new one would be stuck in reading kvlane.json, and take no file
      await rig.fill([KEY, OTHER, GONE]);
      expect((await rig.remove([GONE], LONG_MS)).answer).toMatchObject({ ok: true });
      expect(await recycled(rig)).toMatchObject({ files: 1, recycled: 0 });
      await rig.lab.stop();
      const { asked, slot } = await storeBytes(rig, NEXT, NEW, 2 * TIMEOUT_MS);
      expectAtDeadline(asked);
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'write', slot: 'quarantined' });
      expect(await recycled(rig), 'the stuck store has it').toMatchObject({ files: 0 });
      rig.client.writeSlot(slot, RULE_BROKEN);
      await rig.lab.cont();
      await rig.heal();
      await expectNeverThere(rig, 'blk', [NEXT, GONE]);
      expect(await filesBelow(path.join(rig.lab.blk, 'recycle'), ''), 'it is unlinked, and not kept').toEqual([]);
      expect(await recycled(rig)).toMatchObject({ files: 0, recycled: 0 });
      expect((await storeBytes(rig, LAST, NEW)).asked.answer).toMatchObject({ ok: true, kept: 0 });
      await expectStays(rig, 'blk', LAST, NEW);
      await expectStays(rig, 'blk', KEY, patternOf(KEY, BYTES));
      measured(`${engine}: the late write went to a file without a name`);
    }));

  it('a stuck move of a removed block takes no block with it that was stored again', () =>
    withRig(options, async (rig) => {
      await rig.fill([KEY, GONE]);
      expect((await rig.remove([GONE], LONG_MS)).answer).toMatchObject({ ok: true });
      await rig.lab.freeze();
      const removed = await rig.remove([KEY], TIMEOUT_MS);
      expectAtDeadline(removed);
      expect(onlyFailure(removed)).toMatchObject({ code: 'DEADLINE_EXCEEDED', phase: 'rename', outcome: 'unknown' });
      const waiting = storeBytes(rig, KEY, NEW, LONG_MS);
      const { asked: refused } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS);
      expect(onlyFailure(refused)).toMatchObject({ code: 'KEY_BUSY', slot: 'free' });
      await rig.lab.thaw();
      await rig.heal();
      expect((await waiting).asked.answer).toMatchObject({ ok: true, kept: 0 });
      await expectStays(rig, 'blk', KEY, NEW);
    }));

  it('a replace stuck in the exchange of names leaves the old block or the new one, whole', () =>
    withRig(options, async (rig) => {
      await rig.fill([KEY, GONE]);
      expect((await rig.remove([GONE], LONG_MS)).answer).toMatchObject({ ok: true });
      await rig.lab.freeze();
      const { asked } = await storeBytes(rig, KEY, NEW, TIMEOUT_MS, { replace: true });
      expectAtDeadline(asked);
      expect(onlyFailure(asked)).toMatchObject({ code: 'DEADLINE_EXCEEDED', slot: 'quarantined' });
      const held = onlyFailure(asked).outcome === 'unknown';
      await rig.lab.thaw();
      await rig.heal();
      await expectStays(rig, 'blk', KEY, held ? NEW : patternOf(KEY, BYTES));
    }));
});
