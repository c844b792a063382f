// keeping.test.ts — what keeps a store in order, through the addon as it is built, on a real directory: listed, verified, touched,
// removed only if it is the file that was seen, and only while the lease lasts.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Engine, type Entry, LIST_ENTRIES_MAX, listing } from '../../native/index.ts';
import { LaneBench, type Store } from '../support/lane_bench.ts';

const bench = new LaneBench();
const LEASE = { kind: 'lease', fileMode: 0o600 } as const;

let root = '';
let store: Store;

async function list(path: string, entriesMax = LIST_ENTRIES_MAX): Promise<Entry[]> {
  const entries: Entry[] = [];
  for (let cookie: string | null = ''; cookie !== null; ) {
    const told = await store.run({ kind: 'list', path, cookie, entriesMax });
    expect(told.status).toBe('ok');
    const piece = listing(told.text);
    entries.push(...piece.entries);
    cookie = piece.cookie;
  }
  return entries;
}

async function entry(path: string, name: string): Promise<Entry> {
  return (await list(path)).find((one) => one.name === name)!;
}

describe.each<[string, string, Engine]>([
  ['tmpfs', '/dev/shm', 'threads'],
  ['tmpfs', '/dev/shm', 'aio'],
  ['a disk', '/var/tmp', 'threads'],
  ['a disk', '/var/tmp', 'aio'],
])('on %s (%s) by %s', (_what, below, engine) => {
  beforeEach(async () => {
    root = mkdtempSync(join(below, 'kvlane-keeping-'));
    store = await bench.store(root, engine);
  });
  afterEach(() => rmSync(root, { recursive: true }));

  test('a listing tells what stat tells', async () => {
    await store.put('demo', 'aa01', 10_000);
    const seen = statSync(join(root, 'blocks/demo/aa/aa01.kvb'), { bigint: true });
    expect(await list('blocks/demo/aa')).toEqual([
      { type: 'f', name: 'aa01.kvb', allocatedBytes: Number(seen.blocks) * 512, bytes: 16_384, modifiedNs: String(seen.mtimeNs), changedNs: String(seen.ctimeNs), inode: String(seen.ino) },
    ]);
    expect((await list('blocks')).map(({ type, name }) => [type, name])).toEqual([['d', 'demo']]);
    expect(await store.run({ kind: 'list', path: 'blocks/none', cookie: '', entriesMax: 1 })).toMatchObject({ status: 'not_found', errno: 2 });
  });

  test('one entry more than a call tells, and each is told once', async () => {
    mkdirSync(join(root, 'aside'));
    const names = Array.from({ length: LIST_ENTRIES_MAX + 1 }, (_, i) => `left-over-${i}`);
    for (const name of names) writeFileSync(join(root, 'aside', name), '');
    for (const entriesMax of [1000, LIST_ENTRIES_MAX]) expect((await list('aside', entriesMax)).map(({ name }) => name).sort()).toEqual([...names].sort());
  });

  test('names that are no text, links and FIFOs come as what they are, and hold nothing up', async () => {
    mkdirSync(join(root, 'aside'));
    writeFileSync(join(root, 'aside', 'two\nlines'), '');
    writeFileSync(Buffer.concat([Buffer.from(join(root, 'aside/')), Buffer.from([0xff, 0x41])]), '');
    symlinkSync('/etc/passwd', join(root, 'aside/link'));
    execFileSync('mkfifo', [join(root, 'aside/fifo')]);
    expect((await list('aside')).map(({ type, name }) => `${type} ${name}`).sort()).toEqual(['? %FFA', '? two%0Alines', 'l link', 'o fifo']);
  });

  test('a block is verified, and a flipped bit found; the file stays as it is', async () => {
    await store.put('demo', 'aa01', 700_001);
    expect(await store.run({ kind: 'verify', namespace: 'demo', hex: 'aa01' })).toMatchObject({ status: 'ok', storedBytes: 700_001 });
    const file = join(root, 'blocks/demo/aa/aa01.kvb');
    const bytes = readFileSync(file);
    bytes[600_000]! ^= 1;
    writeFileSync(file, bytes);
    expect(await store.run({ kind: 'verify', namespace: 'demo', hex: 'aa01' })).toMatchObject({ status: 'corrupt', text: 'the payload does not fit its checksum' });
    expect(readFileSync(file).equals(bytes)).toBe(true);
    expect(await store.run({ kind: 'verify', namespace: 'demo', hex: 'aa02' })).toMatchObject({ status: 'not_found' });
  });

  test('a block that was touched is no longer the file that was seen', async () => {
    await store.put('demo', 'aa01');
    const file = join(root, 'blocks/demo/aa/aa01.kvb');
    utimesSync(file, 1000, 1000);
    const { inode, modifiedNs } = await entry('blocks/demo/aa', 'aa01.kvb');
    expect(modifiedNs).toBe('1000000000000');
    const touched = await store.run({ kind: 'touch', namespace: 'demo', names: ['aa01', 'bb01'], olderUs: 3_600_000_000 });
    expect(JSON.parse(touched.text)).toEqual({ touched: 1, absent: 1, fresh: 0, failed: 0 });
    expect(JSON.parse((await store.run({ kind: 'touch', namespace: 'demo', names: ['aa01'], olderUs: 3_600_000_000 })).text)).toMatchObject({ touched: 0, fresh: 1 });
    expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'aa01', inode, modifiedNs })).toMatchObject({ status: 'ok', kept: true });
    const now = await entry('blocks/demo/aa', 'aa01.kvb');
    expect(await store.run({ kind: 'remove', namespace: 'demo', hex: 'aa01', inode: now.inode, modifiedNs: now.modifiedNs, fence: '' })).toMatchObject({ status: 'ok', kept: false });
    expect(existsSync(file)).toBe(false);
  });

  test('two who want the lease: one has it, the other hears so, and takes over when it is left', async () => {
    const look = async (): Promise<unknown> => JSON.parse((await store.run({ ...LEASE, action: 'look', number: 0, text: '' })).text);
    expect(await look()).toEqual({ number: 0, content: '', modified_ns: '0' });
    const [one, other] = await Promise.all(['one', 'other'].map((text) => store.run({ ...LEASE, action: 'take', number: 1, text })));
    expect([one!.status, other!.status].sort()).toEqual(['fenced', 'ok']);
    const winner = one!.status === 'ok' ? 'one' : 'other';
    expect(await look()).toEqual({ number: 1, content: winner, modified_ns: String(statSync(join(root, 'collector/1'), { bigint: true }).mtimeNs) });
    await store.put('demo', 'aa01');
    const removes = { kind: 'remove', namespace: 'demo', hex: 'aa01', fence: 'collector/2' } as const;
    expect(await store.run({ ...LEASE, action: 'renew', number: 1, text: `${winner} 2` })).toMatchObject({ status: 'ok' });
    expect(await store.run({ ...LEASE, action: 'leave', number: 1, text: '' })).toMatchObject({ status: 'ok' });
    expect(await look()).toMatchObject({ number: 1, content: 'left' });
    expect(await store.run({ ...LEASE, action: 'take', number: 2, text: 'the next' })).toMatchObject({ status: 'ok' });
    expect(await store.run({ ...LEASE, action: 'renew', number: 1, text: 'late' })).toMatchObject({ status: 'fenced' });
    expect(await store.run(removes)).toMatchObject({ status: 'fenced', phase: 'stat' });
    expect(await store.run({ ...removes, fence: 'collector/3' })).toMatchObject({ status: 'ok' });
    expect(readdirSync(join(root, 'collector')).sort()).toEqual(['1', '2', 'made', 'want']);
  });

  test('leftovers go if they are what was seen, and nothing else goes this way', async () => {
    await store.put('demo', 'aa01');
    for (const path of ['blocks/demo/aa/aa01.0123456789abcdef-1.tmp', 'recycle/0123456789abcdef/7', 'aside/demo.aa01.1.x-1']) {
      mkdirSync(join(root, path, '..'), { recursive: true });
      writeFileSync(join(root, path), 'x');
      const name = path.slice(path.lastIndexOf('/') + 1);
      const { inode, changedNs } = await entry(path.slice(0, path.lastIndexOf('/')), name);
      expect(await store.run({ kind: 'remove_file', path, inode, changedNs: `${BigInt(changedNs) + 1n}`, fence: '' })).toMatchObject({ status: 'ok', kept: true });
      expect(await store.run({ kind: 'remove_file', path, inode, changedNs, fence: '' })).toMatchObject({ status: 'ok', kept: false });
      expect(existsSync(join(root, path))).toBe(false);
    }
    expect(await store.run({ kind: 'remove_file', path: 'blocks/demo/aa/aa01.kvb', inode: '', changedNs: '', fence: '' })).toMatchObject({ status: 'io_error', errno: 22, phase: 'queue' });
    expect(existsSync(join(root, 'blocks/demo/aa/aa01.kvb'))).toBe(true);
  });
});

test.each<[object, RegExp]>([
  [{ kind: 'list', path: 'blocks', cookie: 'x', entriesMax: 1 }, /cookie must be a number of 64 bits in decimal digits, got x/],
  [{ kind: 'list', path: 'blocks', cookie: '18446744073709551616', entriesMax: 1 }, /cookie must be a number of 64 bits/],
  [{ kind: 'list', path: 'blocks', cookie: '', entriesMax: -1 }, /entriesMax must be a whole number/],
  [{ kind: 'remove', namespace: 'demo', hex: 'aa', inode: '-1' }, /inode must be a number of 64 bits/],
  [{ kind: 'remove', namespace: 'demo', hex: 'aa', fence: 'collector/08' }, /fence must be collector\/N, where N is a lease's number, got collector\/08/],
  [{ kind: 'remove', namespace: 'demo', hex: 'aa', fence: '8' }, /fence must be collector\/N/],
  [{ kind: 'remove', namespace: 'demo', hex: 'aa', fence: 'collector/../kvlane.json' }, /fence must be collector\/N/],
  [{ kind: 'lease', action: 'grab', number: 1, text: 'x', fileMode: 0o600 }, /action must be look, take, renew, leave, listen or tell, got grab/],
  [{ kind: 'touch', namespace: 'demo', names: 'aa', olderUs: 0 }, /names must be an array of strings/],
  [{ kind: 'verify', namespace: 'demo', hex: '../aa' }, /hex cannot be a file name/],
])('%j is the mistake of a caller, and thrown', (ask, words) => {
  const mount = bench.native.addMount('/nowhere');
  expect(() => bench.begin('threads', mount, ask as never)).toThrow(words);
});
