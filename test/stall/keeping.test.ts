// What keeps a store in order, on a mount that hangs: each operation says where it hangs, can be given up, holds up no other, and what
// it had not begun by then never happens. Through the addon alone; and once all of it on an ext4 with direct IO.
import { existsSync, readFileSync, readdirSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Entry, listing } from '../../native/index.ts';
import { type Ask, LaneBench, type Store } from '../support/lane_bench.ts';
import { ENGINES } from '../support/rig.ts';
import { type Lab, type LabOptions, noLab, type OpClass, withLab } from '../support/stall.ts';

const LEASE = { kind: 'lease', fileMode: 0o600, number: 1, text: 'me' } as const;
const BLOCK = 'blocks/demo/aa/aa01.kvb';

const bench = new LaneBench();

/** A lane holds its root open, and a file system in use cannot be taken down. */
function onLab(o: LabOptions, body: (lab: Lab) => Promise<void>): Promise<void> {
  return withLab(o, async (lab) => {
    try {
      await body(lab);
    } finally {
      await lab.resume();
      await bench.rest();
    }
  });
}

async function seen(store: Store): Promise<Entry> {
  return listing((await store.run({ kind: 'list', path: 'blocks/demo/aa', cookie: '', entriesMax: 9 })).text).entries.find(({ name }) => name === 'aa01.kvb')!;
}

const HANGS: [what: string, hangs: OpClass, match: string, phase: string, ask: (store: Store) => Promise<Ask> | Ask][] = [
  ['a listing, as it reads the directory', 'read', '/blocks/demo/aa', 'open', () => ({ kind: 'list', path: 'blocks/demo/aa', cookie: '', entriesMax: 9 })],
  ['a verification, as it reads the block', 'read', '/blocks/demo/*', 'read', () => ({ kind: 'verify', namespace: 'demo', hex: 'aa01' })],
  ['a remove, as it opens the block to look at it', 'open', '/blocks/demo/*', 'open', async (store) => ({ kind: 'remove', namespace: 'demo', hex: 'aa01', ...(await seen(store)) })],
  ['a remove, as it looks for the lease', 'open', '/collector', 'open', async (store) => ({ kind: 'remove', namespace: 'demo', hex: 'aa01', ...(await seen(store)), fence: 'collector/2' })],
  ['a touch, as it opens the block', 'open', '/blocks/demo/*', 'open', () => ({ kind: 'touch', namespace: 'demo', names: ['aa01'], olderUs: 0 })],
  ['a touch, as it asks for the time or changes it', 'getattr', '/blocks/demo/*', 'open|stat', () => ({ kind: 'touch', namespace: 'demo', names: ['aa01'], olderUs: 0 })],
  ['a take of the lease, as it makes the file', 'write', '/collector/*', 'write', () => ({ ...LEASE, action: 'take', number: 2 })],
  ['a look at the lease, as it reads the file', 'read', '/collector/1', 'read', () => ({ ...LEASE, action: 'look' })],
];

describe.skipIf(noLab('what keeps a store in order, on a mount that hangs'))('keeping a store in order', () => {
  it.each(HANGS)('%s: hangs, is told, is given up, changes nothing after, and others go on', (_what, hangs, match, phase, ask) =>
    onLab({}, async (lab) => {
      const store = await bench.store(join(lab.mnt, 'store'), 'threads');
      const back = join(lab.back, 'store');
      await store.put('demo', 'aa01');
      await store.put('other', 'bb01');
      await store.run({ ...LEASE, action: 'take' });
      utimesSync(join(back, BLOCK), 1000, 1000);
      const asked = await ask(store);
      await lab.hang(hangs, { match: `/store${match}` });
      const { id, ended } = store.begin(asked);
      await lab.waitStuck(hangs);
      expect(bench.native.stuck(true)).toMatchObject([{ id, kind: asked.kind, phase: expect.stringMatching(phase) }]);
      expect(bench.native.abandon(id)).toMatchObject({ state: 'running', phase: expect.stringMatching(phase) });
      expect(await store.run({ kind: 'list', path: 'blocks/other/bb', cookie: '', entriesMax: 9 })).toMatchObject({ status: 'ok' });
      await lab.resume();
      expect(await ended).toMatchObject({ late: true });
      await lab.waitFree();
      expect(existsSync(join(back, BLOCK))).toBe(true);
      if (hangs !== 'getattr') expect(statSync(join(back, BLOCK)).mtimeMs).toBe(1_000_000); // a time that was being changed may change late
      expect(readdirSync(join(back, 'collector')).sort()).toEqual(['1', 'made', 'want']);
    }),
  );

  it.each([
    ['a remove', 'unlink', { kind: 'remove', namespace: 'demo', hex: 'aa01', fence: 'collector/2' }, 'unlink'],
    ['a renewal', 'rename', { ...LEASE, action: 'renew', text: 'me again' }, 'rename'],
  ] as [string, OpClass, Ask, string][])('%s that hangs as the name changes is told as committing, and is done late and whole', (_what, hangs, asked, phase) =>
    onLab({}, async (lab) => {
      const store = await bench.store(join(lab.mnt, 'store'), 'threads');
      const back = join(lab.back, 'store');
      await store.put('demo', 'aa01');
      await store.run({ ...LEASE, action: 'take' });
      await lab.hang(hangs);
      const { id, ended } = store.begin(asked);
      await lab.waitStuck(hangs);
      expect(bench.native.abandon(id)).toMatchObject({ state: 'committing', phase });
      expect(existsSync(join(back, BLOCK))).toBe(true);
      expect(readFileSync(join(back, 'collector/1'), 'utf8')).toBe('me');
      await lab.resume();
      expect(await ended).toMatchObject({ late: true });
      expect(existsSync(join(back, BLOCK))).toBe(asked.kind !== 'remove');
      expect(readFileSync(join(back, 'collector/1'), 'utf8')).toBe(asked.kind === 'remove' ? 'me' : 'me again');
      expect(readdirSync(join(back, 'collector')).sort()).toEqual(['1', 'made', 'want']);
    }),
  );

  it('a lease that is taken while an unlink hangs does not stop that one, and stops the next', () =>
    onLab({}, async (lab) => {
      const store = await bench.store(join(lab.mnt, 'store'), 'threads');
      for (const hex of ['aa01', 'bb01']) await store.put('demo', hex);
      await store.run({ ...LEASE, action: 'take' });
      await lab.hang('unlink', { match: '/store/blocks/*' });
      const { ended } = store.begin({ kind: 'remove', namespace: 'demo', hex: 'aa01', fence: 'collector/2' });
      await lab.waitStuck('unlink');
      expect(await store.run({ ...LEASE, action: 'take', number: 2, text: 'another' })).toMatchObject({ status: 'ok' });
      expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'bb01', fence: 'collector/2' })).toMatchObject({ status: 'fenced' });
      await lab.resume();
      expect(await ended).toMatchObject({ status: 'ok', kept: false });
      expect(await store.run({ kind: 'verify', namespace: 'demo', hex: 'bb01' })).toMatchObject({ status: 'ok' });
    }));

  it.each(ENGINES)('on an ext4 by %s: a verification hangs with the disk and is given up; all goes on when it is back', (engine) =>
    onLab({ loop: 'ext4' }, async (lab) => {
      const store = await bench.store(join(lab.blk, 'store'), engine);
      for (const hex of ['aa01', 'aa02']) await store.put('demo', hex, 700_000);
      await lab.hang('read');
      const { id, ended } = store.begin({ kind: 'verify', namespace: 'demo', hex: 'aa01' });
      await lab.waitStuck('read');
      expect(bench.native.abandon(id)).toMatchObject({ state: 'running', phase: 'read' });
      await lab.resume();
      expect(await ended).toMatchObject({ late: true });
      expect(await store.run({ kind: 'verify', namespace: 'demo', hex: 'aa02' })).toMatchObject({ status: 'ok', storedBytes: 700_000, uncached: true });
      const block = await seen(store);
      expect(JSON.parse((await store.run({ kind: 'touch', namespace: 'demo', names: ['aa01', 'aa02'], olderUs: 0 })).text)).toMatchObject({ touched: 2 });
      expect(await store.run({ ...LEASE, action: 'take' })).toMatchObject({ status: 'ok' });
      expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'aa01', inode: block.inode, modifiedNs: block.modifiedNs, fence: 'collector/2' })).toMatchObject({ kept: true });
      const { inode, modifiedNs } = await seen(store);
      expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'aa01', inode, modifiedNs, fence: 'collector/3' })).toMatchObject({ status: 'fenced' });
      expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'aa01', inode, modifiedNs, fence: 'collector/2' })).toMatchObject({ status: 'ok', kept: false });
      expect(await store.run({ ...LEASE, action: 'leave' })).toMatchObject({ status: 'ok' });
    }),
  );
});
