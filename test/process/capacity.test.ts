// A store that is kept within its capacity, by real sidecars on real files, with the collectors' times shortened.
//
// Nothing here is timed but by generous bounds; what holds must hold at each look. A holder on a busy machine may lose its lease for
// a moment when its times are short, so a role is waited for, and who took how many turns is not asked.
import { execFileSync, spawnSync } from 'node:child_process';
import { appendFileSync, chmodSync, chownSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, onTestFinished, test, type TestContext, vi } from 'vitest';
import { ENGINES, keysOf, patternOf } from '../support/rig.ts';
import { type PlainStore, startStore, TIMEOUT_MS } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 60_000;
/** With its header, in whole pages. */
const FILE_BYTES = 65_536;
/** A lease is held for 0.6 s and dead after 1.2 s; a pass is due every 6 s at least. */
const HASTE = 100;
/** Ten times longer: for what must not be lost while the test looks. */
const STEADY = 10;
const WAIT_MS = 30_000;
vi.setConfig({ testTimeout: 3 * WAIT_MS }); // a wait that ends says what was waited for

interface Capacity {
  limit_bytes: number | null;
  used_bytes: number | null;
  blocks: number;
  role: 'holder' | 'waiting' | 'off';
  lease_number: number;
  passes: number;
  failed_passes: number;
  evicted_blocks: number;
  urged: number;
  wants: number;
  touched: number;
  state: string;
  reason?: string;
}

const limited = (blocks: number, haste = HASTE): string[] => ['--capacity-bytes', String(blocks * FILE_BYTES), '--test-collector-haste', String(haste), '--recycle', 'off'];

async function capacityOf(store: PlainStore): Promise<Capacity> {
  const answer = (await store.client.request('stats', { timeout_ms: TIMEOUT_MS } as never)) as unknown as { stats?: { mounts: { capacity: Capacity }[] } };
  if (answer.stats === undefined) throw new Error(`no stats: ${JSON.stringify(answer)}; stderr: ${store.client.stderr}`);
  return answer.stats.mounts[0]!.capacity;
}

async function until(what: string, true_: () => Promise<boolean>, said: () => unknown = () => ''): Promise<void> {
  const end = performance.now() + WAIT_MS;
  while (!(await true_())) {
    if (performance.now() > end) throw new Error(`waited ${WAIT_MS} ms until ${what}; ${JSON.stringify(await said())}`);
    await new Promise((go) => setTimeout(go, 10));
  }
}

/** So long ago, by the file's own time. */
function age(store: PlainStore, key: string, s: number): void {
  const then = statSync(store.path(key)).mtimeMs / 1000 - s;
  utimesSync(store.path(key), then, then);
}

function usedBytes(root: string): number {
  let used = 0;
  const below = (path: string): void => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.isDirectory()) below(join(path, entry.name));
      else if (entry.name.endsWith('.kvb')) used += (statSync(join(path, entry.name), { throwIfNoEntry: false })?.blocks ?? 0) * 512;
    }
  };
  below(join(root, 'blocks'));
  return used;
}

describe.each(ENGINES)('capacity (%s)', (engine) => {
  test('without it no file is made beside the blocks, and nothing goes', async () => {
    const store = await startStore(freshDirectory(), { engine, args: ['--recycle', 'off'] });
    await store.put(keysOf('n', 80), BYTES);
    expect(existsSync(join(store.root, 'collector'))).toBe(false);
    expect(await capacityOf(store)).toBeUndefined();
    expect((await store.get(keysOf('n', 80), BYTES)).every(({ code }) => code === 'OK')).toBe(true);
  });

  test('the blocks used longest ago go first, down to 95 % of the limit, and the others load', async () => {
    const root = freshDirectory();
    const before = await startStore(root, { engine, args: ['--recycle', 'off'] });
    const keys = keysOf('l', 100);
    await before.put(keys, BYTES);
    keys.forEach((key, i) => age(before, key, 10_000 - i));
    await before.client.shutdown(300);
    const store = await startStore(root, { engine, args: limited(80, STEADY) });
    await until('it is within its limit', async () => { const { passes, used_bytes } = await capacityOf(store); return passes > 0 && used_bytes === 76 * FILE_BYTES; }, () => capacityOf(store));
    expect(await capacityOf(store)).toMatchObject({ limit_bytes: 80 * FILE_BYTES, lease_number: 1, evicted_blocks: 24 });
    const found = await store.get(keys, BYTES);
    expect(found.map(({ code }) => code)).toEqual(keys.map((_, i) => (i < 24 ? 'NOT_FOUND' : 'OK')));
    expect(usedBytes(root)).toBe(76 * FILE_BYTES);
  });

  test('the files of what went are overwritten by the stores after it', async () => {
    const args = [...limited(80, STEADY).slice(0, -1), 'on']; // whatever file system tests have
    const root = freshDirectory();
    const before = await startStore(root, { engine });
    const keys = keysOf('e', 100);
    await before.put(keys, BYTES);
    keys.forEach((key, i) => age(before, key, 10_000 - i));
    await before.client.shutdown(300);
    const store = await startStore(root, { engine, args });
    await until('it is within its limit', async () => (await capacityOf(store)).used_bytes === 76 * FILE_BYTES, () => capacityOf(store));
    const inodes = new Set(readdirSync(join(root, 'recycle'), { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile()).map((entry) => statSync(join(entry.parentPath, entry.name)).ino));
    expect(inodes.size).toBe(24);
    const next = keysOf('f', 4);
    await store.put(next, BYTES);
    expect(next.map((key) => inodes.has(statSync(store.path(key)).ino))).toEqual(next.map(() => true));
    expect((await store.get(next, BYTES)).map(({ data }, i) => data!.equals(patternOf(next[i]!, BYTES)))).toEqual(next.map(() => true));
  });

  test('blocks of another user, which it may not open, are passed over, and the next ones go', async (context) => {
    if (process.geteuid!() !== 0) context.skip('SKIPPED: only root can make files of another user');
    const root = freshDirectory();
    const before = await startStore(root, { engine, args: ['--recycle', 'off'] });
    const keys = keysOf('p', 100);
    await before.put(keys, BYTES);
    keys.forEach((key, i) => age(before, key, 10_000 - i));
    await before.client.shutdown(300);
    execFileSync('chown', ['-R', '65534', root]);
    for (const key of keys.slice(0, 20)) {
      chownSync(before.path(key), 0, 0);
      chmodSync(before.path(key), 0o600);
    }
    const store = await startStore(root, { engine, args: limited(80, STEADY), wrapper: ['setpriv', '--reuid', '65534', '--clear-groups'] });
    await until('it is within its limit', async () => (await capacityOf(store)).used_bytes === 76 * FILE_BYTES, () => capacityOf(store));
    await until('the pass is over', async () => (await capacityOf(store)).passes > 0, () => capacityOf(store));
    expect(await capacityOf(store)).toMatchObject({ evicted_blocks: 24, reason: expect.stringMatching(/^20 files may not be removed, the first \S+: EACCES/) as string });
    expect(keys.map((key) => existsSync(store.path(key)))).toEqual(keys.map((_, i) => i < 20 || i >= 44));
  });

  test('a block that was loaded counts as used: its time is refreshed, and an older one goes instead', async () => {
    const root = freshDirectory();
    const store = await startStore(root, { engine, args: limited(80) });
    const keys = keysOf('t', 70);
    await store.put(keys, BYTES);
    keys.forEach((key, i) => age(store, key, 10_000 - i));
    const loved = keys.slice(0, 5);
    for (const one of await store.get(loved, BYTES)) expect(one.code).toBe('OK');
    await until('their times are refreshed', async () => (await capacityOf(store)).touched >= loved.length, () => capacityOf(store));
    await store.put(keysOf('u', 20), BYTES);
    await until('some have gone', async () => (await capacityOf(store)).evicted_blocks >= 10, () => capacityOf(store));
    expect((await store.get(loved, BYTES)).map(({ code }) => code)).toEqual(loved.map(() => 'OK'));
    expect((await store.get(keys.slice(5, 15), BYTES)).every(({ code }) => code === 'NOT_FOUND')).toBe(true);
  });

  test('two sidecars store into one store all the time: it comes back to its limit, and every load has all of its block or NOT_FOUND', async () => {
    const root = freshDirectory();
    const one = await startStore(root, { engine, args: limited(60) });
    const two = await startStore(root, { engine, args: limited(60) });
    const keys = keysOf('w', 400);
    let loaded = 0;
    let gone = 0;
    for (let round = 0; round < 10; round += 1) {
      const some = keys.slice(round * 40, round * 40 + 40);
      await Promise.all([one.put(some.slice(0, 20), BYTES), two.put(some.slice(20), BYTES)]);
      for (const [i, found] of (await two.get(some, BYTES)).entries()) {
        if (found.code === 'NOT_FOUND') gone += 1;
        else {
          expect(found.code).toBe('OK');
          expect(found.data!.equals(patternOf(some[i]!, BYTES))).toBe(true);
          loaded += 1;
        }
      }
    }
    await until('it is within its limit', async () => usedBytes(root) <= 60 * FILE_BYTES, async () => [await capacityOf(one), await capacityOf(two)]);
    expect(loaded).toBeGreaterThan(0);
    const both = async (): Promise<Capacity[]> => [await capacityOf(one), await capacityOf(two)];
    await until('one of them collects', async () => (await both()).map(({ role }) => role).sort().join() === 'holder,waiting', both);
    expect((await both()).some((each) => each.evicted_blocks > 0)).toBe(true);
    expect(gone + loaded).toBe(400);
  });

  test('a holder that was killed is taken for dead, and the other collects; one that leaves in order hands over at once', async () => {
    const root = freshDirectory();
    const one = await startStore(root, { engine, args: limited(60) });
    await until('it collects', async () => (await capacityOf(one)).role === 'holder');
    const two = await startStore(root, { engine, args: limited(60) });
    await until('the other waits', async () => (await capacityOf(two)).lease_number === 1);
    one.client.process.child.kill('SIGKILL');
    await until('the other collects', async () => (await capacityOf(two)).role === 'holder', () => capacityOf(two));
    expect(await capacityOf(two)).toMatchObject({ lease_number: 2 });
    await two.put(keysOf('k', 80), BYTES);
    await until('it is within its limit', async () => usedBytes(root) <= 60 * FILE_BYTES, () => capacityOf(two));
    await two.client.shutdown(300);
    // It has a fifth of a second to give the lease back, which a busy machine may not grant. If it did, the third needs no haste: it would wait two minutes for a dead one.
    const left = readFileSync(join(root, 'collector', '2'), 'utf8') === 'left';
    const three = await startStore(root, { engine, args: limited(60, left ? 1 : HASTE) });
    await until('the third collects', async () => (await capacityOf(three)).role === 'holder', () => capacityOf(three));
    expect(readdirSync(join(root, 'collector')).sort()).toEqual(['2', '3', 'made', 'want']);
  });

  test('a holder that was stopped and goes on when another has taken over removes nothing', async () => {
    const root = freshDirectory();
    // The first would need 12 s to take the lease back, and believes for 6 s that it has it; what is removed is removed by the first.
    const one = await startStore(root, { engine, args: limited(60, STEADY) });
    await until('it collects', async () => (await capacityOf(one)).role === 'holder');
    const two = await startStore(root, { engine, args: limited(1_000, 3 * HASTE) });
    await until('the other has looked', async () => (await capacityOf(two)).lease_number >= 1);
    await one.put(keysOf('k', 55), BYTES);
    const { child } = one.client.process;
    child.kill('SIGSTOP');
    onTestFinished(() => void child.kill('SIGCONT'));
    await until('the other collects', async () => (await capacityOf(two)).role === 'holder', () => capacityOf(two));
    await two.put(keysOf('m', 55), BYTES);
    child.kill('SIGCONT');
    const before = await capacityOf(two);
    await until('the first knows', async () => (await capacityOf(one)).lease_number >= 2, () => capacityOf(one));
    await until('some passes are over', async () => (await capacityOf(two)).passes > before.passes + 1, () => capacityOf(two));
    expect(await capacityOf(one)).toMatchObject({ role: 'waiting', evicted_blocks: 0 });
    expect(usedBytes(root)).toBe(110 * FILE_BYTES);
  });

  test('a temporary that nobody writes to is collected, and everything else beside the blocks stays', async () => {
    const root = freshDirectory();
    const store = await startStore(root, { engine, args: limited(1_000, 1_000) });
    await store.put(keysOf('o', 5), BYTES);
    const directory = join(store.path(keysOf('o', 1)[0]!), '..');
    const shard = basename(directory);
    const orphan = join(directory, `${shard}12.0123456789abcdef-7.tmp`);
    writeFileSync(orphan, 'half a block');
    writeFileSync(join(directory, 'notes.txt'), 'mine');
    mkdirSync(join(directory, `${shard}13.0123456789abcdef-7.tmp`));
    await until('it is collected', async () => !existsSync(orphan), () => capacityOf(store));
    expect(readFileSync(join(directory, 'notes.txt'), 'utf8')).toBe('mine');
    expect(existsSync(join(directory, `${shard}13.0123456789abcdef-7.tmp`))).toBe(true);
    expect((await store.get(keysOf('o', 5), BYTES)).every(({ code }) => code === 'OK')).toBe(true);
  });
});

describe('a file system of its own', () => {
  function tmpfs(context: TestContext, mib: number): string {
    const at = freshDirectory();
    const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'none', at], { encoding: 'utf8' });
    if (status !== 0) context.skip(`SKIPPED: no tmpfs can be mounted here: ${stderr.trim()}`);
    onTestFinished(() => void execFileSync('umount', ['-l', at]));
    return at;
  }

  test('a store that finds no room has some made, and is tried once more', async (context) => {
    const store = await startStore(tmpfs(context, 8), { args: ['--capacity-bytes', '8MiB', '--recycle', 'off'] });
    await until('it collects', async () => (await capacityOf(store)).role === 'holder' && (await capacityOf(store)).passes > 0);
    const keys = keysOf('f', 110);
    await store.put(keys, BYTES);
    keys.forEach((key, i) => age(store, key, 10_000 - i));
    const more = keysOf('g', 20);
    expect((await store.put(more, BYTES)).map(({ code }) => code)).toEqual(more.map(() => 'OK'));
    expect(await capacityOf(store)).toMatchObject({ urged: 1 });
    expect((await store.get(more, BYTES)).every(({ code }) => code === 'OK')).toBe(true);
    expect((await store.get([keys[0]!], BYTES))[0]!.code).toBe('NOT_FOUND');
  });

  /** In a file: its journal, its tables and its own idea of what needs room. */
  function onLoop(context: TestContext, type: 'ext4' | 'xfs'): string {
    const at = freshDirectory();
    const image = join(freshDirectory(), 'image');
    writeFileSync(image, '');
    truncateSync(image, (type === 'ext4' ? 24 : 320) * 1024 * 1024); // what mkfs takes
    for (const [command, ...words] of [[`mkfs.${type}`, '-q', image], ['mount', '-o', 'loop', image, at]]) {
      const { status, stderr, error } = spawnSync(command!, words, { encoding: 'utf8' });
      if (status !== 0) context.skip(`SKIPPED: no ${type} can be made and mounted here: ${command}: ${error?.message ?? stderr.trim()}`);
    }
    onTestFinished(() => void execFileSync('umount', ['-l', at]));
    return at;
  }

  /** Two on one full file system, with the times that users have: the first one collects, and the other's stores meet the end of the room. */
  async function fullForTwo(root: string): Promise<{ holder: PlainStore; other: PlainStore; keys: string[] }> {
    const args = ['--capacity-bytes', '8MiB', '--recycle', 'off'];
    const holder = await startStore(root, { args });
    await until('it collects', async () => (await capacityOf(holder)).role === 'holder' && (await capacityOf(holder)).passes > 0);
    const other = await startStore(root, { args });
    await until('the other looked', async () => (await capacityOf(other)).reason === 'another sidecar collects');
    const keys = keysOf('f', 110);
    await holder.put(keys, BYTES);
    keys.forEach((key, i) => age(holder, key, 10_000 - i));
    for (const bytes of [1 << 20, 4096]) {
      try {
        for (;;) appendFileSync(join(root, 'theirs'), Buffer.alloc(bytes));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
      }
    }
    return { holder, other, keys };
  }

  test.for(['tmpfs', 'ext4', 'xfs'] as const)('a store that finds no room on the sidecar that does not collect has some made by the one that does, and is tried once more (%s)', async (type, context) => {
    const { holder, other, keys } = await fullForTwo(type === 'tmpfs' ? tmpfs(context, 8) : onLoop(context, type));
    const more = keysOf('g', 8);
    expect((await other.put(more, BYTES)).map(({ code }) => code)).toEqual(more.map(() => 'OK'));
    expect(await capacityOf(other)).toMatchObject({ role: 'waiting', wants: 1, evicted_blocks: 0 });
    expect(await capacityOf(holder)).toMatchObject({ role: 'holder', urged: 1 });
    expect((await capacityOf(holder)).evicted_blocks).toBeGreaterThan(0);
    expect((await other.get(more, BYTES)).every(({ code, data }, i) => code === 'OK' && data!.equals(patternOf(more[i]!, BYTES)))).toBe(true);
    expect((await other.get([keys[0]!], BYTES))[0]!.code).toBe('NOT_FOUND');
  });

  test.for(['SIGKILL', 'SIGSTOP'] as const)('where the one that collects met %s the other’s stores find no room by their deadline, and nothing goes', async (signal, context) => {
    const { holder, other, keys } = await fullForTwo(tmpfs(context, 8));
    const { child } = holder.client.process;
    child.kill(signal);
    onTestFinished(() => void child.kill('SIGCONT'));
    const slots = other.client.arena.lease(1)!;
    const timeout_ms = 1_500;
    const started = performance.now();
    const answer = await other.client.request('store', { keys: keysOf('g', 1), slots, bytes: BYTES, timeout_ms } as never);
    expect(answer).toMatchObject({ ok: false, failed: [{ code: 'NO_SPACE', errno: 'ENOSPC', slot: 'free' }] });
    expect(performance.now() - started).toBeLessThan(WAIT_MS);
    expect(await other.client.request('store', { keys: keysOf('h', 1), slots, bytes: BYTES, timeout_ms } as never)).toMatchObject({ failed: [{ code: 'NO_SPACE' }] });
    other.client.arena.release(slots);
    expect(keys.every((key) => existsSync(other.path(key)))).toBe(true);
  });

  test('where others filled the disk the store keeps half of its limit, and says NO_SPACE', async (context) => {
    const at = tmpfs(context, 8);
    const store = await startStore(at, { args: limited(64) });
    await until('it collects', async () => (await capacityOf(store)).role === 'holder');
    const keys = keysOf('f', 60);
    await store.put(keys, BYTES);
    keys.forEach((key, i) => age(store, key, 10_000 - i));
    const fill = (): void => {
      try {
        execFileSync('dd', ['if=/dev/zero', `of=${join(at, 'theirs')}`, 'bs=65536', 'conv=notrunc', 'oflag=append'], { stdio: 'ignore' });
      } catch {
        // until it is full
      }
    };
    let refused = 0;
    for (let i = 0; i < 60; i += 1) {
      fill();
      const [one] = await store.put(keysOf(`m${i}`, 1), BYTES);
      if (one!.code === 'NO_SPACE') refused += 1;
      else expect(one!.code).toBe('OK');
    }
    expect(refused).toBeGreaterThan(0);
    expect(usedBytes(at)).toBeGreaterThanOrEqual(32 * FILE_BYTES);
    expect((await capacityOf(store)).urged).toBeGreaterThan(0);
  });

  test('a share of the file system', async (context) => {
    const at = tmpfs(context, 8);
    const store = await startStore(at, { args: ['--capacity-share', '50', '--test-collector-haste', String(HASTE), '--recycle', 'off'] });
    await until('it knows', async () => (await capacityOf(store)).limit_bytes === 4 * 1024 * 1024, () => capacityOf(store));
    await store.put(keysOf('s', 100), BYTES);
    await until('it is within its limit', async () => usedBytes(at) <= 4 * 1024 * 1024, () => capacityOf(store));
  });
});
