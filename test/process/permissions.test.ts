// Whose files: the modes a store is made with, and what a sidecar answers that may not read or write there. Root may do everything,
// so the sidecar runs as another user; who is not root cannot start one as such, and these tests say so.

import { chmodSync, chownSync, existsSync, mkdtempSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Fields } from '../../clients/node/client.ts';
import { sidecarMain } from '../../clients/node/process.ts';
import { keysOf, patternOf } from '../support/rig.ts';
import { namesIn, type PlainStore, startPlain, startStore, temporariesIn, treeOf } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 5_000;
const OTHER = 12_345; // nobody's number; 65534 may use reserved space on some disks
const AS_OTHER = ['setpriv', `--reuid=${OTHER}`, `--regid=${OTHER}`, '--clear-groups'];

function why(): string {
  if (process.getuid!() !== 0) return 'only root can start a sidecar as another user';
  for (let at = dirname(sidecarMain()); at !== '/'; at = dirname(at)) if ((statSync(at).mode & 0o005) !== 0o005) return `${at} cannot be read by other users, so a sidecar of theirs cannot start`;
  return '';
}

function without(what: string): boolean {
  const reason = why();
  if (reason !== '') process.stderr.write(`SKIPPED: ${what}: ${reason}\n`);
  return reason !== '';
}

/** A directory that belongs to the other user. */
function theirDirectory(mode = 0o700): string {
  const path = mkdtempSync(join(tmpdir(), 'kvlane-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  chownSync(path, OTHER, OTHER);
  chmodSync(path, mode);
  return path;
}

const modesIn = (root: string): Record<string, string> =>
  Object.fromEntries(Object.keys(treeOf(root)).map((path) => [path.replace(/[0-9a-f]{16}/g, 'WRITER'), (statSync(join(root, path)).mode & 0o7777).toString(8)]));

test.each([
  ['0000', [], '600', '700'],
  ['0077', [], '600', '700'],
  ['0777', [], '600', '700'],
  ['0777', ['--file-mode', '0660'], '660', '770'],
  ['0022', ['--file-mode', '0664'], '664', '775'],
  ['0777', ['--file-mode', '0644'], '644', '755'],
])('a umask of %s and %j: files have mode %s, directories %s', async (umask, args, fileMode, directoryMode) => {
  const store = await startStore(freshDirectory(), { args, wrapper: ['sh', '-c', `umask ${umask}; exec "$@"`, 'sh'] });
  const [key] = keysOf('p', 1) as [string];
  expect((await store.put([key], BYTES))[0]!.code).toBe('OK');
  await store.client.request('namespace', { name: 'p', fingerprint: { model: 'tiny' }, timeout_ms: 10_000 } as unknown as Fields<'namespace'>);
  const modes = modesIn(store.root);
  expect(Object.keys(modes)).toEqual(expect.arrayContaining(['kvlane.json', 'blocks', 'namespaces/p.json', 'probe', 'probe/block']));
  for (const [path, mode] of Object.entries(modes)) expect(mode, path).toBe(statSync(join(store.root, path)).isDirectory() ? directoryMode : fileMode);
});

describe.skipIf(without('permissions'))('without permission', () => {
  const start = (root: string, args: string[] = []): Promise<PlainStore> => startStore(root, { wrapper: AS_OTHER, args });

  test('a block that may not be read is IO_ERROR with EACCES, stays, and is kept; with "replace" it is replaced', async () => {
    const store = await start(theirDirectory());
    const [closed, foreign, open] = keysOf('p', 3) as [string, string, string];
    await store.put([closed, foreign, open], BYTES);
    chmodSync(store.path(closed), 0);
    chownSync(store.path(foreign), 0, 0); // root's, 0600
    chownSync(store.path(open), 0, 0);
    chmodSync(store.path(open), 0o644); // root's, but for everyone to read: O_NOATIME is refused, the block is not
    const before = treeOf(store.root);
    const denied = { code: 'IO_ERROR', entry: { errno: 'EACCES', phase: 'open', slot: 'free' } };
    expect(await store.get([closed, foreign, open], BYTES)).toMatchObject([denied, denied, { code: 'OK', data: patternOf(open, BYTES) }]);
    for (const key of [closed, foreign]) expect((await store.put([key], BYTES))[0]).toMatchObject({ code: 'OK', kept: true });
    expect(treeOf(store.root)).toEqual(before);
    for (const key of [closed, foreign]) expect((await store.put([key], BYTES, { replace: true }))[0]).toMatchObject({ code: 'OK', kept: false });
    for (const key of [closed, foreign, open]) expect((await store.get([key], BYTES))[0]).toMatchObject({ code: 'OK', data: patternOf(key, BYTES) });
    expect(namesIn(join(store.root, 'aside'))).toEqual([]);
  });

  test('directories that may not be written: loads go on, stores and removes are IO_ERROR, nothing is left behind', async () => {
    const store = await start(theirDirectory(), ['--recycle', 'off']); // the room for recycled files is elsewhere, and may be written
    const keys = keysOf('p', 4);
    await store.put(keys, BYTES);
    const fans = [...new Set(keys.map((key) => dirname(store.path(key))))];
    for (const fan of fans) chmodSync(fan, 0o500);
    chmodSync(join(store.root, 'blocks'), 0o500);
    const before = treeOf(store.root);
    for (const one of await store.get(keys, BYTES)) expect(one.code).toBe('OK');
    const denied = (phase: string) => ({ code: 'IO_ERROR', entry: { errno: 'EACCES', phase } });
    for (const one of await store.put(keys, BYTES, { replace: true })) expect(one).toMatchObject(denied('open'));
    expect((await store.put(['new/00aa'], BYTES))[0]).toMatchObject(denied('open'));
    expect(await store.drop(keys[0]!)).toMatchObject(denied('unlink'));
    expect(treeOf(store.root)).toEqual(before);
    for (const fan of fans) chmodSync(fan, 0o000);
    for (const one of await store.get(keys, BYTES)) expect(one).toMatchObject(denied('open'));
  });

  test('a damaged file that may be read but not moved stays, and what follows says so', async () => {
    const store = await start(theirDirectory());
    const [key] = keysOf('p', 1) as [string];
    await store.put([key], BYTES);
    truncateSync(store.path(key), 4500);
    chmodSync(dirname(store.path(key)), 0o500);
    const before = treeOf(store.root)[`blocks/p/${key.slice(2, 4)}/${key.slice(2)}.kvb`];
    expect((await store.get([key], BYTES))[0]!.code).toBe('CORRUPT');
    await expect.poll(() => store.stat('keys_bad'), { timeout: 10_000 }).toBe(1);
    expect(treeOf(store.root)[`blocks/p/${key.slice(2, 4)}/${key.slice(2)}.kvb`]).toBe(before);
    expect((await store.put([key], BYTES))[0]).toMatchObject({ code: 'IO_ERROR', entry: { errno: 'EACCES' } });
    chmodSync(dirname(store.path(key)), 0o700);
    expect((await store.put([key], BYTES))[0]).toMatchObject({ code: 'OK', kept: false });
    expect((await store.get([key], BYTES))[0]!.code).toBe('OK');
  });

  test('a store of root’s that nobody else may read is said to be that, and nothing is made in it', async () => {
    const root = freshDirectory();
    const roots = await startStore(root);
    await roots.put(['p/00aa'], BYTES);
    await roots.client.shutdown();
    chmodSync(root, 0o755); // the way in is free, kvlane.json and the blocks are 0600 and 0700
    const before = treeOf(root);
    const store = await startPlain(root, { wrapper: AS_OTHER });
    const [load, put] = [(await store.get(['p/00aa'], BYTES))[0]!, (await store.put(['p/00ab'], BYTES))[0]!];
    for (const one of [load, put]) {
      expect(one.code).toBe('IO_ERROR');
      expect(one.entry).toMatchObject({ errno: 'EACCES' });
      expect((one.entry as { message?: string }).message).toContain('kvlane.json cannot be read); the user that kvlane runs as needs to read and write there');
    }
    expect(treeOf(root)).toEqual(before);
  });

  test('a root that may not be written is not made a store; one that may not be entered neither', async () => {
    for (const mode of [0o755, 0o700]) {
      const root = freshDirectory();
      chmodSync(root, mode);
      const store = await startPlain(root, { wrapper: AS_OTHER });
      const one = (await store.put(['p/00aa'], BYTES))[0]!;
      expect(one).toMatchObject({ code: 'IO_ERROR', entry: { errno: 'EACCES' } });
      expect(existsSync(join(root, 'kvlane.json'))).toBe(false);
      expect(temporariesIn(root)).toEqual([]);
    }
  });

  test('a store for several users: the group reads and writes what another made', async () => {
    const root = theirDirectory(0o2770);
    const store = await start(root, ['--file-mode', '0660']);
    await store.put(['p/00aa'], BYTES);
    const colleague = await startStore(root, { wrapper: ['setpriv', `--reuid=${OTHER + 1}`, `--regid=${OTHER}`, '--clear-groups'], args: ['--file-mode', '0660'] });
    expect((await colleague.get(['p/00aa'], BYTES))[0]).toMatchObject({ code: 'OK', data: patternOf('p/00aa', BYTES) });
    expect((await colleague.put(['p/00aa', 'p/01aa'], BYTES, { replace: true })).map((one) => one.code)).toEqual(['OK', 'OK']);
    expect((await store.get(['p/00aa', 'p/01aa'], BYTES)).map((one) => one.code)).toEqual(['OK', 'OK']);
    expect((await store.drop('p/01aa')).code).toBe('OK');
  });
});
