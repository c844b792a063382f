// Recycled files, with real sidecars on one store: whoever stores, replaces, removes and loads the same keys, each load gets one whole
// version of its own key or nothing.

import { existsSync, renameSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ENGINES, keysOf, measured } from '../support/rig.ts';
import { blockPath, namesIn, type Outcome, type PlainStore, startStore, temporariesIn, TIMEOUT_MS, treeOf } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 40_000;
const ON = { args: ['--recycle', 'on'] } as const;

interface Figures {
  on: boolean;
  files: number;
  bytes: number;
  recycled: number;
  kept: number;
  dropped: number;
  lost: number;
}

async function recyclingOf(store: PlainStore): Promise<Figures> {
  const answer = (await store.client.request('stats', { timeout_ms: TIMEOUT_MS } as never)) as unknown as { stats: { mounts: { recycling: Figures }[] } };
  return answer.stats.mounts[0]!.recycling;
}

/** Every four bytes say whose they are: the key's number above, the version's below. */
function version(key: number, number: number): Buffer {
  const data = Buffer.alloc(BYTES);
  data.writeUInt32LE((key << 24) | number, 0);
  data.copyWithin(4, 0);
  for (let filled = 4; filled < BYTES; filled *= 2) data.copyWithin(filled, 0, Math.min(filled, BYTES - filled));
  return data;
}

/** True if it was there; a mixture, or the bytes of another key, is a failure. */
function whole(one: Outcome, key: number): boolean {
  if (one.code === 'NOT_FOUND') return false;
  if (!one.data) throw new Error(`key ${key}: ${one.code} ${one.entry?.message}`);
  const word = one.data.readUInt32LE(0);
  if (word >>> 24 !== key) throw new Error(`key ${key} was given the bytes of key ${word >>> 24}`);
  if (!one.data.equals(version(key, word & 0xffffff))) throw new Error(`key ${key} was given a mixture`);
  return true;
}

function inodeOf(path: string): number {
  return statSync(path).ino;
}

describe.each(ENGINES)('recycled files (%s)', (engine) => {
  test('a removed and a replaced block leave files that the next blocks are written over', async () => {
    const store = await startStore(freshDirectory(), { engine, ...ON });
    const keys = keysOf('r', 4);
    await store.put(keys, BYTES);
    const inodes = keys.map((key) => inodeOf(store.path(key)));
    for (const key of keys) expect((await store.drop(key)).code).toBe('OK');
    expect(await recyclingOf(store)).toMatchObject({ on: true, files: 4, recycled: 0, dropped: 0 });
    const next = keysOf('s', 4);
    await store.put(next, BYTES);
    expect(next.map((key) => inodeOf(store.path(key))).sort()).toEqual(inodes.sort());
    expect(await recyclingOf(store)).toMatchObject({ files: 0, bytes: 0, recycled: 4 });
    for (const one of await store.get(keys, BYTES)) expect(one.code).toBe('NOT_FOUND');
    for (const one of await store.get(next, BYTES)) expect(one.code).toBe('OK');
    await store.put(next, BYTES, { replace: true });
    expect(await recyclingOf(store)).toMatchObject({ files: 4, recycled: 4, kept: 8 });
    expect(temporariesIn(store.root)).toEqual([]);
  });

  test('two sidecars store, replace and remove the same keys while a third loads them: whole versions of the right key, or nothing', async () => {
    const root = freshDirectory();
    const a = await startStore(root, { engine, slots: 32, ...ON });
    const b = await startStore(root, { engine, slots: 32, ...ON });
    const reader = await startStore(root, { engine, slots: 32, ...ON });
    const keys = keysOf('w', 12);
    const data = (round: number) => (key: string) => version(keys.indexOf(key) + 1, round);
    let there = 0;
    let gone = 0;
    const rounds = 150;
    const numbered = (all: Outcome[]): void => all.forEach((one, i) => (whole(one, i + 1) ? (there += 1) : (gone += 1)));
    for (let round = 1; round <= rounds; round += 1) {
      const some = keys.filter((_, i) => (i + round) % 3 === 0);
      const work = [
        a.put(keys, BYTES, { replace: round % 2 === 0, data: data(2 * round) }),
        b.put(keys, BYTES, { replace: round % 3 === 0, data: data(2 * round + 1) }),
        ...some.map((key, i) => (i % 2 === 0 ? a : b).drop(key)),
      ];
      numbered(await reader.get(keys, BYTES));
      numbered(await reader.get(keys, BYTES));
      for (const one of (await Promise.all(work)).flat()) expect(one.code, one.entry?.message ?? '').toBe('OK');
    }
    const figures = [await recyclingOf(a), await recyclingOf(b)];
    measured(`${engine}: ${there} loads whole, ${gone} found nothing, ${figures.map(({ recycled, lost }) => `${recycled} recycled and ${lost} lost`).join(', ')}`);
    expect(there).toBeGreaterThan(0);
    expect(figures[0]!.recycled + figures[1]!.recycled).toBeGreaterThan(0);
    expect(namesIn(join(root, 'aside')), 'nothing was taken for damaged').toEqual([]);
    await a.put(keys, BYTES, { replace: true, data: data(9999) });
    for (const looker of [a, b, reader]) numbered(await looker.get(keys, BYTES));
    for (const key of keys) expect(namesIn(dirname(blockPath(root, key)))).toContain(`${key.slice(2)}.kvb`);
    expect(temporariesIn(root)).toEqual([]);
  });

  test('blocks are replaced all the time, and no load misses one', async () => {
    const root = freshDirectory();
    const a = await startStore(root, { engine, slots: 32, ...ON });
    const reader = await startStore(root, { engine, slots: 32, ...ON });
    const keys = keysOf('p', 8);
    await a.put(keys, BYTES, { data: (key) => version(keys.indexOf(key) + 1, 0) });
    for (let round = 1; round <= 100; round += 1) {
      const write = a.put(keys, BYTES, { replace: true, data: (key) => version(keys.indexOf(key) + 1, round) });
      (await reader.get(keys, BYTES)).forEach((one, i) => expect(whole(one, i + 1), `round ${round}`).toBe(true));
      for (const one of await write) expect(one.code).toBe('OK');
    }
    expect((await recyclingOf(a)).recycled).toBeGreaterThan(0);
  });
});

test('the bytes of another key under a name, as a power cut may leave them, are a miss, are not set aside, and are stored over', async () => {
  const store = await startStore(freshDirectory(), ON);
  const [one, two] = keysOf('c', 2) as [string, string];
  await store.put([one, two], BYTES);
  renameSync(store.path(one), store.path(two));
  expect((await store.get([two], BYTES))[0]).toMatchObject({ code: 'CORRUPT' });
  expect(namesIn(join(store.root, 'aside'))).toEqual([]);
  expect((await store.put([two], BYTES))[0]).toMatchObject({ code: 'OK', kept: false });
  expect((await store.get([two], BYTES))[0]!.code).toBe('OK');
});

test('switched off, nothing is kept', async () => {
  const store = await startStore(freshDirectory(), { args: ['--recycle', 'off'] });
  const [key] = keysOf('o', 1) as [string];
  await store.put([key], BYTES);
  await store.put([key], BYTES, { replace: true });
  await store.drop(key);
  expect(await recyclingOf(store)).toMatchObject({ on: false, files: 0, kept: 0 });
  expect(existsSync(join(store.root, 'recycle'))).toBe(false);
});

test('what another sidecar left, dead or alive, is not overwritten', async () => {
  const root = freshDirectory();
  const dead = await startStore(root, ON);
  const keys = keysOf('d', 3);
  await dead.put(keys, BYTES);
  for (const key of keys) await dead.drop(key);
  await dead.client.shutdown(300);
  const [writer] = namesIn(join(root, 'recycle')) as [string];
  const left = join(root, 'recycle', writer);
  expect(namesIn(left)).toHaveLength(3);
  const before = treeOf(left);
  const next = await startStore(root, ON);
  await next.put(keysOf('e', 3), BYTES);
  expect(treeOf(left), 'untouched while it may be somebody').toEqual(before);
  expect((await recyclingOf(next)).recycled).toBe(0);
});
