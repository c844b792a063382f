// What a mount that answers with errors costs: the code and the errno are the kernel's, the phase is where it was, nothing is half
// visible, no temporary stays, the old block is what it was, and the next request after it works.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import type { FailedEntry } from '../../protocol/messages.ts';
import { codesOf } from '../support/promptness.ts';
import { startStore, treeOf } from '../support/plain_store.ts';
import { failuresOf, keysOf, measured, onEachEngine, patternOf, type Rig, withRig } from '../support/rig.ts';
import { freshDirectory } from '../support/sidecar_process.ts';
import type { Errno, OpClass, RuleOptions } from '../support/stall.ts';

const TIMEOUT_MS = 15_000;
const BLOCKS = '/blocks/*'; // kvlane.json and the probe's own files answer

interface Failing {
  classes: OpClass | OpClass[];
  errno: Errno;
  code: 'IO_ERROR' | 'NO_SPACE' | 'NOT_FOUND';
  phase: string;
  rule?: RuleOptions;
}

const LOADS: Failing[] = [
  ...(['EIO', 'EACCES', 'EPERM', 'ESTALE', 'ETIMEDOUT', 'EMFILE'] as const).map((errno): Failing => ({ classes: 'open', errno, code: 'IO_ERROR', phase: 'open' })),
  ...(['EIO', 'EPERM', 'ETIMEDOUT'] as const).map((errno): Failing => ({ classes: 'read', errno, code: 'IO_ERROR', phase: 'read' })),
  { classes: 'read', errno: 'ESTALE', code: 'NOT_FOUND', phase: 'read' }, // twice: another host removed it
  { classes: 'lookup', errno: 'EIO', code: 'IO_ERROR', phase: 'open' },
  { classes: 'getattr', errno: 'EIO', code: 'IO_ERROR', phase: 'open' }, // attributes have expired: the kernel's own open asks for them first
];

/** For a store of a new block and one that replaces. */
const STORES: Failing[] = [
  ...(['EIO', 'EACCES', 'ETIMEDOUT', 'EROFS', 'EPERM'] as const).map((errno): Failing => ({ classes: 'open', errno, code: 'IO_ERROR', phase: 'open', rule: { match: '*.tmp' } })),
  ...(['ENOSPC', 'EDQUOT'] as const).map((errno): Failing => ({ classes: 'open', errno, code: 'NO_SPACE', phase: 'open', rule: { match: '*.tmp' } })),
  ...(['EIO', 'ETIMEDOUT', 'EROFS', 'ESTALE', 'EPERM'] as const).map((errno): Failing => ({ classes: 'write', errno, code: 'IO_ERROR', phase: 'write' })),
  ...(['ENOSPC', 'EDQUOT'] as const).map((errno): Failing => ({ classes: 'write', errno, code: 'NO_SPACE', phase: 'write' })),
  { classes: 'fsync', errno: 'EIO', code: 'IO_ERROR', phase: 'fsync', rule: { match: '*.tmp' } },
  ...(['ENOSPC', 'EDQUOT'] as const).map((errno): Failing => ({ classes: 'fsync', errno, code: 'NO_SPACE', phase: 'fsync', rule: { match: '*.tmp' } })),
  { classes: 'close', errno: 'EIO', code: 'IO_ERROR', phase: 'close', rule: { match: '*.tmp' } },
  { classes: 'close', errno: 'EDQUOT', code: 'NO_SPACE', phase: 'close', rule: { match: '*.tmp' } },
  ...(['EIO', 'EACCES', 'EROFS'] as const).map((errno): Failing => ({ classes: 'rename', errno, code: 'IO_ERROR', phase: 'rename' })),
  ...(['ENOSPC', 'EDQUOT'] as const).map((errno): Failing => ({ classes: 'rename', errno, code: 'NO_SPACE', phase: 'rename' })),
];

const told = (one: Failing): string => `${[one.classes].flat().join('+')} ${one.errno}`;

/** What the store holds, seen behind the gates. */
function filesOf(rig: Rig): string[] {
  return readdirSync(rig.lab.back, { recursive: true, encoding: 'utf8' }).filter((path) => /^(blocks|aside)\/.*\.(kvb|tmp)|^aside\/./.test(path)).sort();
}
const bytesOf = (rig: Rig, key: string): Buffer => {
  const [namespace = '', hex = ''] = key.split('/');
  return readFileSync(join(rig.lab.back, 'blocks', namespace, hex.slice(0, 2), `${hex}.kvb`));
};
/** The one entry of a request for one block. */
function only(answer: object): FailedEntry {
  const failures = [...failuresOf(answer).values()];
  if (failures.length !== 1) throw new Error(`one failed block was expected: ${JSON.stringify(answer)}`);
  return failures[0]!;
}

/** A small tmpfs of this test's own: real errors, and no FUSE between. */
function tmpfs(options: string): string {
  const at = freshDirectory();
  execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'kvlane-test', at]);
  onTestFinished(() => void execFileSync('umount', ['--lazy', at]));
  return at;
}

onEachEngine('errors', (engine) => {
  it('each call of a load that fails is IO_ERROR with its errno and its phase (NOT_FOUND, if the file is gone), and the block is not touched', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('e', LOADS.length);
      await rig.fill(keys);
      const before = [filesOf(rig), keys.map((key) => bytesOf(rig, key).toString('latin1'))];
      for (const [i, failing] of LOADS.entries()) {
        const slots = rig.lease(1);
        await rig.lab.fail(failing.classes, failing.errno, { match: BLOCKS, ...failing.rule });
        const { answer } = await rig.load([keys[i]!], slots, TIMEOUT_MS);
        await rig.lab.resume();
        rig.client.arena.release(slots);
        expect(only(answer), told(failing)).toMatchObject({ code: failing.code, errno: failing.errno, phase: failing.phase, slot: 'free' });
        expect(only(answer).message, told(failing)).toContain(failing.code === 'NOT_FOUND' ? 'another host removed or replaced it' : failing.errno);
        expect(await rig.loads(keys[i]!), `${told(failing)}: the load after it`).toBe(true);
      }
      expect([filesOf(rig), keys.map((key) => bytesOf(rig, key).toString('latin1'))]).toEqual(before);
    }));

  it('an error of the close of a block that was read and verified is no error', () =>
    withRig({ engine }, async (rig) => {
      const [key] = keysOf('e', 1) as [string];
      await rig.fill([key]);
      await rig.lab.fail('close', 'EIO', { match: BLOCKS });
      expect(await rig.loads(key)).toBe(true);
    }));

  it('each call of a store that fails leaves no new block, no temporary, and the old block as it was', () =>
    withRig({ engine, fsync: true, slots: 64 }, async (rig) => {
      const [news, olds] = [keysOf('n', STORES.length), keysOf('o', STORES.length)];
      await rig.fill(olds);
      const slots = rig.lease(1);
      for (const [i, failing] of STORES.entries()) {
        for (const replace of [false, true]) {
          const key = (replace ? olds : news)[i]!;
          const before = filesOf(rig);
          rig.client.writeSlot(slots[0]!, patternOf(`${key} anew`, rig.slotBytes));
          await rig.lab.fail(failing.classes, failing.errno, { match: BLOCKS, ...failing.rule });
          const { answer } = await rig.store([key], slots, TIMEOUT_MS, { replace });
          await rig.lab.resume();
          const what = `${told(failing)}, ${replace ? 'replace' : 'a new block'}`;
          expect(only(answer), what).toMatchObject({ code: failing.code, errno: failing.errno, phase: failing.phase, slot: 'free' });
          expect(filesOf(rig), what).toEqual(before);
          const known = await rig.lookup([key], TIMEOUT_MS);
          expect((known.answer as { present?: unknown }).present, what).toEqual([replace]);
          if (replace) expect(await rig.loads(key), what).toBe(true); // patternOf(key): the old bytes
          else await rig.fill([key]); // and now it works
        }
      }
      rig.client.arena.release(slots);
      for (const key of [...news, ...olds]) expect(await rig.loads(key)).toBe(true);
      measured(`${engine}: ${2 * STORES.length} stores failed, no trace of them`);
    }));

  it('a directory that cannot be made is the store’s failure; made by the next one', () =>
    withRig({ engine }, async (rig) => {
      for (const [i, [errno, code]] of ([['EIO', 'IO_ERROR'], ['ENOSPC', 'NO_SPACE'], ['EDQUOT', 'NO_SPACE'], ['EROFS', 'IO_ERROR']] as const).entries()) {
        const [key] = keysOf(`m${i}`, 1) as [string];
        const slots = rig.lease(1);
        await rig.lab.fail('mkdir', errno);
        const { answer } = await rig.store([key], slots, TIMEOUT_MS);
        await rig.lab.resume();
        rig.client.arena.release(slots);
        expect(only(answer)).toMatchObject({ code, errno, phase: 'open' });
        await rig.fill([key]);
        expect(await rig.loads(key)).toBe(true);
      }
    }));

  it('a durable store whose directory could not be forced out says so: the block is there, how safe it is is not known', () =>
    withRig({ engine, fsync: true }, async (rig) => {
      const [key] = keysOf('e', 1) as [string];
      await rig.fill(keysOf('e', 2));
      await rig.remove([key], TIMEOUT_MS);
      const slots = rig.lease(1);
      rig.client.writeSlot(slots[0]!, patternOf(key, rig.slotBytes));
      await rig.lab.fail('fsync', 'EIO', { match: `/blocks/e/${key.slice(2, 4)}` });
      const { answer } = await rig.store([key], slots, TIMEOUT_MS);
      await rig.lab.resume();
      rig.client.arena.release(slots);
      expect(only(answer)).toMatchObject({ code: 'IO_ERROR', errno: 'EIO', phase: 'fsync' });
      expect(only(answer).message).toContain('the block is stored');
      expect(await rig.loads(key)).toBe(true);
    }));

  it('a remove that fails is IO_ERROR and removes nothing; a temporary that cannot be removed is in nobody’s way', () =>
    withRig({ engine }, async (rig) => {
      const [key, other] = keysOf('e', 2) as [string, string];
      await rig.fill([key]);
      for (const errno of ['EIO', 'EACCES', 'EROFS'] as const) {
        await rig.lab.fail('unlink', errno);
        const { answer } = await rig.remove([key], TIMEOUT_MS);
        await rig.lab.resume();
        expect(only(answer)).toMatchObject({ code: 'IO_ERROR', errno, phase: 'unlink' });
        expect(await rig.loads(key)).toBe(true);
      }
      const slots = rig.lease(1);
      await rig.lab.fail(['write', 'unlink'], 'EIO', { match: BLOCKS });
      expect(only((await rig.store([other], slots, TIMEOUT_MS)).answer)).toMatchObject({ code: 'IO_ERROR', errno: 'EIO', phase: 'write' });
      await rig.lab.resume();
      rig.client.arena.release(slots);
      expect(filesOf(rig).filter((path) => path.endsWith('.tmp'))).toHaveLength(1);
      expect(((await rig.lookup([other], TIMEOUT_MS)).answer as { present?: unknown }).present).toEqual([false]);
      await rig.fill([other]);
      expect(await rig.loads(other)).toBe(true);
    }));

  it('errors are answers: a thousand of them suspend nothing and cost no lane', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('e', 40);
      await rig.fill(keys);
      await rig.lab.fail(['open', 'read'], 'EIO', { match: BLOCKS });
      const slots = rig.lease(40);
      const all = [];
      for (let round = 0; round < 25; round += 1) all.push(await rig.load(keys, slots, TIMEOUT_MS));
      rig.client.arena.release(slots);
      expect(new Set(all.flatMap(codesOf))).toEqual(new Set(['IO_ERROR']));
      const { states, stuckOperations } = await rig.stats();
      expect([...new Set(states)].filter((state) => state === 'suspended')).toEqual([]);
      expect(stuckOperations).toBe(0);
      await rig.lab.resume();
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('a mount that turns read-only: loads go on, what would change it is EROFS, and after that it works as before', async () => {
    const root = tmpfs('size=16m,mode=0700');
    const store = await startStore(root, { engine });
    const [good, bad] = ['r/00aa', 'r/00bb'];
    await store.put([good, bad], 5_000);
    truncateSync(store.path(bad), 5_000);
    execFileSync('mount', ['-o', 'remount,ro', root]);
    const before = treeOf(root);
    expect((await store.get([good, bad], 5_000)).map((one) => one.code)).toEqual(['OK', 'CORRUPT']);
    const denied = (phase: string) => ({ code: 'IO_ERROR', entry: { errno: 'EROFS', phase } });
    for (const key of ['r/00cc', 'new/00aa']) expect((await store.put([key], 5_000))[0]).toMatchObject(denied('open'));
    expect((await store.put([good], 5_000, { replace: true }))[0]).toMatchObject(denied('open'));
    expect((await store.put([good], 5_000))[0]).toMatchObject({ code: 'OK', kept: true });
    expect(await store.drop(good)).toMatchObject(denied('unlink'));
    expect(await store.has([good, 'r/00cc'])).toEqual([true, false]);
    expect(treeOf(root)).toEqual(before);
    execFileSync('mount', ['-o', 'remount,rw', root]);
    expect((await store.put([bad, 'r/00cc'], 5_000)).map((one) => one.code)).toEqual(['OK', 'OK']);
    expect((await store.get([good, bad, 'r/00cc'], 5_000)).map((one) => one.code)).toEqual(['OK', 'OK', 'OK']);
  });

  it('a file system without room for bytes, or for names: NO_SPACE, and the old block stays', async () => {
    for (const options of ['size=1m', 'size=16m,nr_inodes=40']) {
      const root = tmpfs(`${options},mode=0700`);
      const store = await startStore(root, { engine });
      const keys = keysOf('s', 64).map((key) => `s/00${key.slice(2)}`); // one directory
      const put = await store.put(keys, 40_000);
      const failed = put.filter((one) => one.code !== 'OK');
      const stored = keys.filter((_, i) => put[i]!.code === 'OK');
      expect(stored.length).toBeGreaterThan(8);
      expect(failed.length).toBeGreaterThan(8);
      for (const one of failed) expect(one).toMatchObject({ code: 'NO_SPACE', entry: { errno: 'ENOSPC' } });
      const replaced = (await store.put([stored[0]!], 60_000, { replace: true }))[0]!;
      if (replaced.code !== 'OK') expect(replaced).toMatchObject({ code: 'NO_SPACE' });
      const again = replaced.code === 'OK' ? stored.slice(1) : stored;
      const loaded = await store.get(again, 40_000);
      expect(again.filter((key, i) => !loaded[i]!.data?.equals(patternOf(key, 40_000)))).toEqual([]);
      expect(Object.keys(treeOf(root)).filter((path) => path.endsWith('.tmp'))).toEqual([]);
      for (const key of stored.slice(0, 6)) await store.drop(key);
      expect((await store.put(keys.slice(0, 2), 40_000)).map((one) => one.code)).toEqual(['OK', 'OK']);
      measured(`${engine}: ${options}: ${stored.length} of 64 blocks fitted, then ${failed[0]!.entry!.phase}`);
    }
  });

  for (const on of ['mnt', 'blk'] as const) {
    it(`a mount that is really full (${on}): NO_SPACE, what was there loads, and what is removed makes room`, () =>
      withRig({ engine, on, slots: 32, slotBytes: 1 << 20, lab: { sizeMib: on === 'mnt' ? 24 : 96, ...(on === 'blk' ? { loop: 'ext4' as const } : {}) } }, async (rig) => {
        const slots = rig.lease(8);
        const stored: string[] = [];
        let full: FailedEntry[] = [];
        for (let round = 0; round < 40 && full.length === 0; round += 1) {
          const keys = keysOf('full', 8, round * 8);
          keys.forEach((key, i) => rig.client.writeSlot(slots[i]!, patternOf(key, rig.slotBytes)));
          const { answer } = await rig.store(keys, slots, TIMEOUT_MS);
          const failures = failuresOf(answer);
          stored.push(...keys.filter((_, i) => !failures.has(i)));
          full = [...failures.values()];
        }
        expect(full.length).toBeGreaterThan(0);
        for (const entry of full) expect(entry).toMatchObject({ code: 'NO_SPACE', errno: 'ENOSPC', slot: 'free' });
        if (on === 'mnt') expect(filesOf(rig).filter((path) => path.endsWith('.tmp'))).toEqual([]);
        // A failed replace leaves the old block.
        rig.client.writeSlot(slots[0]!, patternOf('anew', rig.slotBytes));
        const again = await rig.store([stored[0]!], slots.slice(0, 1), TIMEOUT_MS, { replace: true });
        if (codesOf(again)[0] === 'NO_SPACE') expect(await rig.loads(stored[0]!)).toBe(true);
        for (const key of stored.slice(1)) expect(await rig.loads(key)).toBe(true);
        rig.client.arena.release(slots);
        measured(`${engine}: full after ${stored.length} MiB, in ${full[0]!.phase}`);
        await rig.remove(stored.slice(0, 4), TIMEOUT_MS);
        await rig.fill(keysOf('room', 2));
        for (const key of keysOf('room', 2)) expect(await rig.loads(key)).toBe(true);
      }));
  }
});
