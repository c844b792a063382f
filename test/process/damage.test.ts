// What a load makes of a block file that is not what it was: the right code, never wrong bytes, and a file is moved aside only when
// it contradicts itself. Everything else in the tree stays as it is, and the next store of the key makes it good again.
//
// Padding: the zeros between the payload's end and the next page belong to no block and are under no checksum. A bit that flips
// there changes no byte that anyone gets, so the block is healthy, loads, and stays where it is.

import { copyFileSync, linkSync, lstatSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { execFileSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ENGINES, keysOf, patternOf } from '../support/rig.ts';
import { HEADER_BYTES, namesIn, type PlainStore, startPlain, startStore, temporariesIn, treeOf } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 5_000; // one whole page, and a part of another: 3,192 bytes of padding
const FILE_BYTES = HEADER_BYTES + 8_192;
const FORMAT_AT = 8;

/** What is to become of the file after a load has met it. */
type Fate = 'aside' | 'stays';
interface Case {
  what: string;
  damage: (path: string, key: string) => void;
  code: string;
  fate: Fate;
  errno?: string;
  /** A store without "replace" makes it good. */
  heals: boolean;
}

function rewritten(path: string, change: (file: Buffer) => void): void {
  const file = readFileSync(path);
  change(file);
  writeFileSync(path, file);
}
const flip = (at: number, bit: number): Case['damage'] => (path) => rewritten(path, (file) => void (file[at] = file[at]! ^ (1 << bit)));
const cut = (bytes: number): Case['damage'] => (path) => truncateSync(path, bytes);
const instead = (make: (path: string) => void): Case['damage'] => (path) => {
  rmSync(path);
  make(path);
};

/** Why there can be no device files here. */
function noDevices(): string {
  if (process.getuid!() !== 0) return 'only root can make them';
  const path = join(freshDirectory(), 'null');
  try {
    execFileSync('mknod', [path, 'c', '1', '3'], { stdio: 'ignore' });
    readFileSync(path);
    return '';
  } catch (error) {
    return `they cannot be made or opened in the temporary directory (${(error as Error).message})`;
  }
}

/** Damages one block a case, loads them all, and compares whole trees with what the cases say. */
async function run(store: PlainStore, cases: Case[]): Promise<void> {
  const keys = keysOf('d', cases.length);
  for (const one of await store.put(keys, BYTES)) expect(one.code).toBe('OK');
  cases.forEach(({ damage }, i) => damage(store.path(keys[i]!), keys[i]!));
  const before = treeOf(store.root);

  const loaded = await store.get(keys, BYTES);
  const seen: Record<string, string> = {};
  const wanted: Record<string, string> = {};
  cases.forEach(({ what, code, errno }, i) => {
    const { entry, data } = loaded[i]!;
    if (data && !data.equals(patternOf(keys[i]!, BYTES))) throw new Error(`${what}: wrong bytes were given out as good`);
    seen[what] = `${loaded[i]!.code} ${entry?.errno ?? ''}`.trim();
    wanted[what] = `${code} ${errno ?? ''}`.trim();
    expect(entry?.slot ?? 'free', what).toBe('free');
    if (code === 'CORRUPT') expect(entry?.message, what).toMatch(/.{12}/);
  });
  expect(seen).toEqual(wanted);

  const moved = cases.map((_, i) => i).filter((i) => cases[i]!.fate === 'aside');
  const aside = await store.aside(moved.length);
  expect(aside).toHaveLength(moved.length);
  const expected: Record<string, string> = { ...before };
  if (moved.length > 0) expected['aside'] ??= 'directory 700';
  for (const i of moved) {
    const path = store.path(keys[i]!).slice(store.root.length + 1);
    const hex = keys[i]!.split('/')[1]!;
    const name = aside.find((one) => one.startsWith(`d.${hex}.`));
    expect(name, cases[i]!.what).toMatch(new RegExp(`^d\\.${hex}\\.${/inode (\d+)/.exec(before[path]!)![1]}\\.[0-9a-f]{16}-\\d+$`));
    expected[join('aside', name!)] = expected[path]!; // the same inode, the same bytes
    delete expected[path];
  }
  expect(treeOf(store.root)).toEqual(expected);
  const gone = moved.map((i) => keys[i]!);
  if (gone.length > 0) expect(await store.has(gone)).toEqual(gone.map(() => false));

  for (const [i, one] of (await store.put(keys, BYTES)).entries()) {
    if (cases[i]!.heals) expect(one.code, cases[i]!.what).toBe('OK');
  }
  const healed = await store.get(keys, BYTES);
  const good = (i: number): boolean => healed[i]!.data?.equals(patternOf(keys[i]!, BYTES)) ?? false;
  expect(Object.fromEntries(cases.map(({ what }, i) => [what, good(i)]))).toEqual(Object.fromEntries(cases.map(({ what, heals }) => [what, heals])));
  expect(temporariesIn(store.root)).toEqual([]);
  expect(namesIn(join(store.root, 'aside'))).toEqual(aside);
}

describe.each(ENGINES)('damage (%s)', (engine) => {
  test('a block that was cut off or has grown is CORRUPT and moved aside; shorter than the magic it is nobody’s', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const ours = [8, 9, 12, 100, 272, 4087, 4088, 4095, 4096, 4097, 5000, 8191, 8192, 9096, FILE_BYTES - 4096, FILE_BYTES - 1];
    await run(store, [
      { what: 'empty', damage: cut(0), code: 'CORRUPT', fate: 'aside', heals: true },
      ...[1, 4, 7].map((bytes): Case => ({ what: `${bytes} bytes are left`, damage: cut(bytes), code: 'CORRUPT', fate: 'stays', heals: true })),
      ...[...new Set(ours)].map((bytes): Case => ({ what: `${bytes} bytes are left`, damage: cut(bytes), code: 'CORRUPT', fate: 'aside', heals: true })),
      ...[1, 512, 4096, 2 ** 40].map((more): Case => ({ what: `${more} bytes more`, damage: cut(FILE_BYTES + more), code: 'CORRUPT', fate: 'aside', heals: true })),
      { what: 'only zeros', damage: (path) => rewritten(path, (file) => void file.fill(0)), code: 'CORRUPT', fate: 'aside', heals: true },
      { what: 'a header page of zeros', damage: (path) => rewritten(path, (file) => void file.fill(0, 0, HEADER_BYTES)), code: 'CORRUPT', fate: 'aside', heals: true },
      { what: 'a payload of zeros', damage: (path) => rewritten(path, (file) => void file.fill(0, HEADER_BYTES)), code: 'CORRUPT', fate: 'aside', heals: true },
      { what: 'a sparse file of 4 TiB', damage: instead((path) => { writeFileSync(path, ''); truncateSync(path, 2 ** 42); }), code: 'CORRUPT', fate: 'aside', heals: true },
      { what: 'nothing wrong', damage: () => {}, code: 'OK', fate: 'stays', heals: true },
    ]);
  });

  test('one flipped bit anywhere in header or payload is never a block; in the padding it is none of the block’s', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const places = (from: number, to: number, step: number): number[] => Array.from({ length: Math.ceil((to - from) / step) }, (_, i) => from + i * step);
    const cases: Case[] = [];
    const add = (ats: number[], of: string, rest: Pick<Case, 'code' | 'fate'>): void =>
      void ats.forEach((at) => cases.push({ what: `bit ${at % 8} of byte ${at}, ${of}`, damage: flip(at, at % 8), heals: true, ...rest }));
    add(places(0, FORMAT_AT, 1), 'the magic: no longer ours to move', { code: 'CORRUPT', fate: 'stays' });
    add(places(FORMAT_AT, 272, 1), 'a field of the header', { code: 'CORRUPT', fate: 'aside' });
    add([...places(272, 4088, 131), ...places(4080, 4096, 1)], 'the rest of the header page', { code: 'CORRUPT', fate: 'aside' });
    add([...places(4096, 4096 + BYTES, 89), 8191, 8192, 4096 + BYTES - 1], 'the payload', { code: 'CORRUPT', fate: 'aside' });
    add([4096 + BYTES, ...places(4096 + BYTES + 1, FILE_BYTES, 131), FILE_BYTES - 1], 'the padding', { code: 'OK', fate: 'stays' });
    for (let bit = 0; bit < 8; bit += 1) cases.push({ what: `bit ${bit} of the format`, damage: flip(FORMAT_AT, bit), code: 'CORRUPT', fate: 'aside', heals: true });
    await run(store, cases);
  });

  test('a file that is somebody else’s, or no file at all, is CORRUPT and stays; what a store can replace, it does', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const outside = join(freshDirectory(), 'outside');
    writeFileSync(outside, patternOf('outside', FILE_BYTES));
    const special = (...words: string[]): Case['damage'] => instead((path) => void execFileSync(words[0]!, words.slice(1).map((word) => (word === 'PATH' ? path : word))));
    const why = noDevices();
    if (why !== '') process.stderr.write(`SKIPPED: device files as blocks: ${why}\n`);
    const devices: Case[] = [
      { what: 'a character device', damage: special('mknod', 'PATH', 'c', '1', '5'), code: 'CORRUPT', fate: 'stays', heals: true },
      { what: 'a block device that is not there', damage: special('mknod', 'PATH', 'b', '240', '77'), code: 'CORRUPT', errno: 'ENXIO', fate: 'stays', heals: true },
    ];
    await run(store, [
      { what: 'another magic', damage: (path) => rewritten(path, (file) => void file.write('\x89PNG\r\n\x1a\n', 'latin1')), code: 'CORRUPT', fate: 'stays', heals: true },
      { what: 'a text', damage: instead((path) => writeFileSync(path, 'do not delete\n'.repeat(1000))), code: 'CORRUPT', fate: 'stays', heals: true },
      { what: 'a short text', damage: instead((path) => writeFileSync(path, 'do not delete\n')), code: 'CORRUPT', fate: 'stays', heals: true },
      { what: 'an empty directory', damage: instead((path) => mkdirSync(path)), code: 'CORRUPT', fate: 'stays', heals: false },
      { what: 'a directory with something in it', damage: instead((path) => { mkdirSync(path); writeFileSync(join(path, 'x'), 'x'); }), code: 'CORRUPT', fate: 'stays', heals: false },
      { what: 'a link to a file outside', damage: instead((path) => symlinkSync(outside, path)), code: 'CORRUPT', errno: 'ELOOP', fate: 'stays', heals: true },
      { what: 'a link to nothing', damage: instead((path) => symlinkSync('/nowhere/at/all', path)), code: 'CORRUPT', errno: 'ELOOP', fate: 'stays', heals: true },
      { what: 'a link to itself', damage: instead((path) => symlinkSync(path, path)), code: 'CORRUPT', errno: 'ELOOP', fate: 'stays', heals: true },
      { what: 'a link to /proc/self/fd/0', damage: instead((path) => symlinkSync('/proc/self/fd/0', path)), code: 'CORRUPT', errno: 'ELOOP', fate: 'stays', heals: true },
      { what: 'a FIFO', damage: special('mkfifo', 'PATH'), code: 'CORRUPT', fate: 'stays', heals: true },
      { what: 'a socket', damage: special('python3', '-c', 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])', 'PATH'), code: 'CORRUPT', errno: 'ENXIO', fate: 'stays', heals: true },
      ...(why === '' ? devices : []),
    ]);
    expect(readFileSync(outside)).toEqual(patternOf('outside', FILE_BYTES));
  });

  test('a good block that is not the one asked for stays: another length, a newer format, another key or namespace', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const [short, newer, copied, foreign, linked, giver] = keysOf('v', 6) as [string, string, string, string, string, string];
    await store.put([short], 1_000);
    await store.put([newer, giver], BYTES);
    await store.put([giver.replace('v/', 'w/')], BYTES);
    rewritten(store.path(newer), (file) => {
      file.writeUInt32LE(2, FORMAT_AT);
      file.writeUInt32LE(8192, 12); // what else a later format may have
    });
    for (const key of [copied, foreign, linked]) mkdirSync(dirname(store.path(key)), { recursive: true });
    copyFileSync(store.path(giver), store.path(copied));
    copyFileSync(store.path(giver.replace('v/', 'w/')), store.path(foreign));
    linkSync(store.path(giver), store.path(linked));
    const keys = [short, newer, copied, foreign, linked, giver];
    const before = treeOf(store.root);
    const loaded = await store.get(keys, BYTES);
    expect(loaded.map((one) => one.code)).toEqual(['LENGTH_MISMATCH', 'NOT_FOUND', 'CORRUPT', 'CORRUPT', 'CORRUPT', 'OK']);
    expect(loaded[0]!.entry).toMatchObject({ stored_bytes: 1_000 });
    expect(loaded[0]!.entry!.message).toContain('1000 bytes long');
    expect(loaded[2]!.entry!.message ?? '').toContain('another key');
    expect(treeOf(store.root)).toEqual(before);

    // What is good for somebody is kept by a store that says "keep"; what is good for nobody under this name is replaced.
    const stored = [];
    for (const key of keys.slice(0, 5)) stored.push((await store.put([key], BYTES))[0]!);
    expect(stored.map((one) => `${one.code} ${one.kept ? 'kept' : 'written'}`)).toEqual(['OK kept', 'OK kept', 'OK written', 'OK written', 'OK written']);
    expect((await store.get(keys, BYTES)).map((one) => one.code)).toEqual(['LENGTH_MISMATCH', 'NOT_FOUND', 'OK', 'OK', 'OK', 'OK']);
    for (const one of await store.put([short, newer], BYTES, { replace: true })) expect(one).toMatchObject({ code: 'OK', kept: false });
    for (const [i, one] of (await store.get(keys, BYTES)).entries()) expect(one.data).toEqual(patternOf(keys[i]!, BYTES));
    expect(namesIn(join(store.root, 'aside'))).toEqual([]);
    expect(temporariesIn(store.root)).toEqual([]);
  });

  test('a second name of a damaged file, somebody’s backup, is not touched', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const keys = keysOf('h', 2);
    await store.put(keys, BYTES);
    const backups = keys.map((key) => `${store.path(key)}.backup`);
    keys.forEach((key, i) => linkSync(store.path(key), backups[i]!));
    flip(HEADER_BYTES + 5, 1)(store.path(keys[0]!), keys[0]!);
    const inode = statSync(backups[0]!).ino;
    expect((await store.get(keys, BYTES)).map((one) => one.code)).toEqual(['CORRUPT', 'OK']);
    const [name] = await store.aside(1);
    expect(statSync(join(store.root, 'aside', name!)).ino).toBe(inode);
    expect(statSync(backups[0]!).ino).toBe(inode);
    expect(await store.has(keys)).toEqual([false, true]);
    expect((await store.put(keys, BYTES)).map((one) => one.code)).toEqual(['OK', 'OK']);
    expect(statSync(backups[0]!).ino).toBe(inode); // replaced by name, not written into
  });

  test('temporaries that somebody left are never loaded, never listed and in nobody’s way', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const [absent, present] = keysOf('t', 2) as [string, string];
    await store.put([absent, present], BYTES);
    const leftovers: string[] = [];
    for (const key of [absent, present]) {
      for (const [i, bytes] of [0, 17, 4096, 9000, FILE_BYTES].entries()) {
        const leftover = `${store.path(key).slice(0, -4)}.0123456789abcdef-${i}.tmp`;
        copyFileSync(store.path(key), leftover);
        truncateSync(leftover, bytes);
        leftovers.push(leftover);
      }
    }
    rmSync(store.path(absent));
    const before = treeOf(store.root);
    expect(await store.has([absent, present])).toEqual([false, true]);
    expect((await store.get([absent, present], BYTES)).map((one) => one.code)).toEqual(['NOT_FOUND', 'OK']);
    expect((await store.drop(absent)).code).toBe('OK'); // what is not there counts as removed
    expect(treeOf(store.root)).toEqual(before);
    expect((await store.put([absent], BYTES))[0]).toMatchObject({ code: 'OK', kept: false });
    expect((await store.drop(present)).code).toBe('OK');
    expect((await store.get([absent, present], BYTES)).map((one) => one.code)).toEqual(['OK', 'NOT_FOUND']);
    for (const leftover of leftovers) expect(lstatSync(leftover).isFile()).toBe(true);
  });

  test('a link in the middle of the way leads nowhere: nothing is read or written behind it', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const outside = freshDirectory();
    const [key, other] = ['l/00aa', 'm/00aa'];
    await store.put([key, other], BYTES);
    // The fan-out directory of one and the whole namespace of the other lie elsewhere now, with a link in their place.
    execFileSync('mv', [dirname(store.path(key)), join(outside, 'fan')]);
    symlinkSync(join(outside, 'fan'), dirname(store.path(key)));
    execFileSync('mv', [join(store.root, 'blocks/m'), join(outside, 'space')]);
    symlinkSync(join(outside, 'space'), join(store.root, 'blocks/m'));
    const before = [treeOf(store.root), treeOf(outside)];
    expect((await store.get([key, other], BYTES)).map((one) => one.code)).toEqual(['CORRUPT', 'CORRUPT']);
    for (const replace of [false, true]) {
      for (const one of await store.put([key, other], BYTES, { replace })) expect(one).toMatchObject({ code: 'IO_ERROR', entry: { errno: expect.stringMatching(/^(ELOOP|ENOTDIR|EXDEV)$/) as string } });
    }
    for (const one of [await store.drop(key), await store.drop(other)]) expect(one.code).toBe('IO_ERROR');
    expect([treeOf(store.root), treeOf(outside)]).toEqual(before);
  });

  test('where nothing can be moved aside the damaged file stays, and the next store replaces it', async () => {
    const store = await startStore(freshDirectory(), { engine });
    const keys = keysOf('n', 8);
    await store.put(keys, BYTES);
    writeFileSync(join(store.root, 'aside'), 'a file where the directory should be');
    for (const key of keys) flip(HEADER_BYTES, 0)(store.path(key), key);
    const before = treeOf(store.root);
    for (const one of await store.get(keys, BYTES)) expect(one.code).toBe('CORRUPT');
    const remembered = async (): Promise<void> => void (await expect.poll(() => store.stat('keys_bad'), { timeout: 10_000 }).toBe(keys.length));
    await remembered();
    expect(treeOf(store.root)).toEqual(before);
    for (const one of await store.put(keys, BYTES)) expect(one).toMatchObject({ code: 'OK', kept: false });
    for (const one of await store.get(keys, BYTES)) expect(one.code).toBe('OK');
    expect(await store.stat('keys_bad')).toBe(0);
    expect(temporariesIn(store.root)).toEqual([]);
  });
});

test('a file system without O_DIRECT gives the same answers', async () => {
  const { mkdtempSync } = await import('node:fs');
  const root = mkdtempSync('/dev/shm/kvlane-test-');
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  const store = await startStore(root);
  await run(store, [
    { what: 'cut in the payload', damage: cut(8192), code: 'CORRUPT', fate: 'aside', heals: true },
    { what: 'cut in the header', damage: cut(100), code: 'CORRUPT', fate: 'aside', heals: true },
    { what: 'grown', damage: cut(FILE_BYTES + 1), code: 'CORRUPT', fate: 'aside', heals: true },
    { what: 'a bit of the payload', damage: flip(HEADER_BYTES + BYTES - 1, 7), code: 'CORRUPT', fate: 'aside', heals: true },
    { what: 'a bit of the padding', damage: flip(HEADER_BYTES + BYTES, 7), code: 'OK', fate: 'stays', heals: true },
    { what: 'a directory', damage: instead((path) => mkdirSync(path)), code: 'CORRUPT', fate: 'stays', heals: false },
    { what: 'a FIFO', damage: instead((path) => void execFileSync('mkfifo', [path])), code: 'CORRUPT', fate: 'stays', heals: true },
  ]);
});

test('a directory in the place of a block is said to be one by whoever wants to write there', async () => {
  const store = await startStore(freshDirectory());
  const key = 'd/00aa';
  mkdirSync(store.path(key), { recursive: true });
  const before = treeOf(store.root);
  for (const replace of [false, true]) expect((await store.put([key], BYTES, { replace }))[0]).toMatchObject({ code: 'IO_ERROR', entry: { errno: 'EISDIR', phase: 'rename' } });
  expect(await store.drop(key)).toMatchObject({ code: 'IO_ERROR', entry: { errno: 'EISDIR', phase: 'unlink' } });
  expect(treeOf(store.root)).toEqual(before);
});

test('a kvlane.json that describes no store of this format is WRONG_STORE, and with --create it is not overwritten', async () => {
  const texts = ['', '{}', 'not JSON', '[]', '{"format":2,"store_id":"00000000000000000000000000000000"}', '{"format":1,"store_id":"short"}', '\0'.repeat(4096), ' '.repeat(100_000)];
  for (const text of texts) {
    const root = freshDirectory();
    writeFileSync(join(root, 'kvlane.json'), text);
    const before = treeOf(root);
    const store = await startPlain(root);
    const one = (await store.put(['d/00aa'], BYTES))[0]!;
    expect(one.code, text.slice(0, 60)).toBe('WRONG_STORE');
    expect((one.entry as { message?: string }).message, text.slice(0, 60)).toContain('does not describe a store of format 1');
    expect((await store.get(['d/00aa'], BYTES))[0]!.code).toBe('WRONG_STORE');
    expect(treeOf(root)).toEqual(before);
    await store.client.shutdown(300);
  }
});
