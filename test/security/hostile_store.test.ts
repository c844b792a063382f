// A store directory that somebody else may write to, and uses it against whoever serves it: links, pipes and devices wherever a
// file or directory of ours should be, files that change while they are read, names that are none of ours, what is not ours at all.
//
// The measure is the same everywhere: an answer in time, never wrong bytes as good ones, and nothing outside of the root was made,
// changed, moved or removed (treeOf, before and after). What is defended and what not stands in sidecar/THREATS.md.

import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, chownSync, closeSync, copyFileSync, existsSync, fstatSync, linkSync, mkdirSync, mkdtempSync, openSync, readFileSync, readSync, renameSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Fields } from '../../clients/node/client.ts';
import { ENGINES, keysOf, patternOf } from '../support/rig.ts';
import { HEADER_BYTES, namesIn, type PlainStore, startPlain, startStore, temporariesIn, treeOf, until } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 5_000;
const FILE_BYTES = HEADER_BYTES + 8_192;
const asRoot = process.getuid!() === 0;

/** A directory outside of every store, with something in it that must stay as it is. */
function outsideWith(): string {
  const outside = freshDirectory();
  mkdirSync(join(outside, 'p', '00'), { recursive: true });
  // A good record of a store: who follows a link to it takes it for one.
  writeFileSync(join(outside, 'block'), '{"format":1,"store_id":"0123456789abcdef0123456789abcdef","created":"2026-01-01T00:00:00Z"}');
  for (const name of ['kvlane.json', 'p.json', 'p/00/precious', '1']) writeFileSync(join(outside, name), `precious ${name}\n`.repeat(300));
  return outside;
}

const named = async (store: PlainStore, name: string, fingerprint: object = { model: 'tiny' }): Promise<Record<string, any>> =>
  (await store.client.request('namespace', { name, fingerprint, timeout_ms: 10_000 } as unknown as Fields<'namespace'>)) as unknown as Record<string, any>;

/** Each kind of answer must come, whatever it says; a load that says OK has the right bytes. Returns the codes. */
async function everything(store: PlainStore, keys: readonly string[]): Promise<string[]> {
  const codes: string[] = [];
  for (const replace of [false, true]) for (const one of await store.put(keys, BYTES, { replace })) codes.push(one.code);
  for (const [i, one] of (await store.get(keys, BYTES)).entries()) {
    codes.push(one.code);
    if (one.code === 'OK') expect(one.data, keys[i]).toEqual(patternOf(keys[i]!, BYTES));
  }
  await store.has(keys).catch(() => codes.push('no look-up'));
  for (const key of keys) codes.push((await store.drop(key)).code);
  const answer = await named(store, 'p');
  codes.push(answer['error']?.code ?? 'OK');
  expect(codes.filter((code) => code === 'NO ANSWER' || code === 'DEADLINE_EXCEEDED')).toEqual([]);
  return codes;
}

/** What may stand where a directory or file of ours is wanted. */
const KINDS: [string, (path: string, outside: string, isDirectory: boolean) => void][] = [
  ['a link to a place outside', (path, outside, isDirectory) => symlinkSync(isDirectory ? outside : join(outside, 'block'), path)],
  ['a link to /proc/self', (path) => symlinkSync('/proc/self/fd/0', path)],
  ['a FIFO', (path) => void execFileSync('mkfifo', [path])],
  ['a socket', (path) => void execFileSync('python3', ['-ISc', 'import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])', path])],
  ['a directory or a file, whichever is wrong', (path, _outside, isDirectory) => (isDirectory ? writeFileSync(path, 'a file') : mkdirSync(path))],
  ...(asRoot ? [['a device', (path: string) => void execFileSync('mknod', [path, 'c', '1', '5'])] as [string, (path: string) => void]] : []),
];
/** What is taken at once; a directory and what is in it are not. True: a directory is wanted there. */
const PLACES: Record<string, boolean>[] = [
  { blocks: true, namespaces: true },
  { 'blocks/p': true, 'namespaces/p.json': false, aside: true, recycle: true },
  { probe: true },
  { 'probe/block': false },
];

describe.each(KINDS)('%s', (_kind, make) => {
  test('in the place of each directory and file that the sidecar makes: every request is answered, and nothing outside is touched', async () => {
    const outside = outsideWith();
    const before = treeOf(outside);
    const root = freshDirectory();
    const maker = await startStore(root);
    await maker.put(['p/00aa'], BYTES);
    await named(maker, 'p');
    await maker.client.shutdown();
    const keys = keysOf('p', 2);
    for (const places of PLACES) {
      const what = Object.keys(places).join(', ');
      for (const [place, isDirectory] of Object.entries(places)) {
        const path = join(root, place);
        if (existsSync(path)) renameSync(path, `${path}.held`);
        make(path, outside, isDirectory);
      }
      const store = await startPlain(root, { create: false });
      await everything(store, keys);
      // A damaged block makes it look for a place to put it aside.
      await store.put(['q/00bb'], BYTES);
      if (existsSync(store.path('q/00bb'))) truncateSync(store.path('q/00bb'), HEADER_BYTES + 7);
      expect((await store.get(['q/00bb'], BYTES))[0]!.code, what).not.toBe('OK');
      await store.client.shutdown();
      expect(treeOf(outside), what).toEqual(before);
      for (const place of Object.keys(places)) {
        const path = join(root, place);
        rmSync(path, { recursive: true, force: true });
        if (existsSync(`${path}.held`)) renameSync(`${path}.held`, path);
      }
    }
  });

  test('in the place of kvlane.json: no store, in words, and nothing is made beside it or behind it', async () => {
    const outside = outsideWith();
    for (const create of [false, true]) {
      const root = freshDirectory();
      make(join(root, 'kvlane.json'), outside, false);
      const before = [treeOf(root), treeOf(outside)];
      const store = await startPlain(root, { create });
      for (const one of [(await store.put(['p/00aa'], BYTES))[0]!, (await store.get(['p/00aa'], BYTES))[0]!]) expect(one.code).toMatch(/^(WRONG_STORE|IO_ERROR)$/);
      expect([treeOf(root), treeOf(outside)]).toEqual(before);
      await store.client.shutdown(300);
    }
  });
});

test.each(ENGINES)('a directory that turns into a link and back while it is used leads nowhere (%s)', async (engine) => {
  const outside = outsideWith();
  const store = await startStore(freshDirectory(), { engine });
  const keys = Array.from({ length: 32 }, (_, i) => `r/00${i.toString(16).padStart(2, '0')}`);
  await store.put(keys, BYTES);
  const fan = dirname(store.path(keys[0]!));
  const before = treeOf(outside);
  // By a process that does nothing else, in one call each time: as fast as a hostile one would.
  const EXCHANGE = `import ctypes,os,sys
fan, link = sys.argv[1].encode(), sys.argv[1].encode() + b'.link'
os.symlink(sys.argv[2], link)
libc = ctypes.CDLL(None, use_errno=True)
print('on', flush=True)
while True: libc.renameat2(-100, fan, -100, link, 2)`;
  const racer = spawn('python3', ['-ISc', EXCHANGE, fan, join(outside, 'p', '00')], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void racer.kill('SIGKILL'));
  await new Promise((go) => racer.stdout.once('data', go));
  const seen = new Map<string, number>();
  const count = (code: string): void => void seen.set(code, (seen.get(code) ?? 0) + 1);
  for (let turn = 0; turn < 20; turn += 1) {
    for (const [i, one] of (await store.get(keys, BYTES)).entries()) {
      if (one.code === 'OK' && !one.data!.equals(patternOf(keys[i]!, BYTES))) throw new Error(`wrong bytes for ${keys[i]}`);
      count(`load ${one.code}`);
    }
    for (const one of await store.put(keys, BYTES, { replace: turn % 2 === 0 })) count(`store ${one.code}`);
    count(`remove ${(await store.drop(keys[turn]!)).code}`);
  }
  console.log(`raced: ${JSON.stringify(Object.fromEntries(seen))}`);
  expect(racer.exitCode, 'it raced all the time').toBeNull();
  expect([...seen.keys()], 'both the directory and the link were met').toEqual(expect.arrayContaining(['load OK', 'load CORRUPT']));
  expect(treeOf(outside)).toEqual(before);
  expect([...seen.keys()].filter((what) => /DEADLINE|NO ANSWER/.test(what))).toEqual([]);
});

test.each(ENGINES)('a file that grows, shrinks and is rewritten while it is read is a miss or the right bytes, and never ends the sidecar (%s)', async (engine) => {
  const store = await startStore(freshDirectory(), { engine });
  const keys = keysOf('g', 8);
  const bytes = 60_000;
  await store.put(keys, bytes);
  const racer = spawn(
    'python3',
    ['-c', 'import os,sys\nsize=int(sys.argv[1])\nfds=[os.open(p, os.O_RDWR) for p in sys.argv[2:]]\nwhole=[os.pread(fd,size,0) for fd in fds]\nprint("on", flush=True)\nwhile True:\n for fd, b in zip(fds, whole):\n  os.ftruncate(fd, 0); os.ftruncate(fd, 4097); os.pwrite(fd, b[:20000], 0); os.ftruncate(fd, 1<<40); os.pwrite(fd, b"x"*9000, 30000); os.ftruncate(fd, size); os.pwrite(fd, b, 0)',
      String(HEADER_BYTES + 61_440), ...keys.map((key) => store.path(key))],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  onTestFinished(() => void racer.kill('SIGKILL'));
  await new Promise((go) => racer.stdout.once('data', go));
  const seen = new Map<string, number>();
  for (let turn = 0; turn < 40; turn += 1) {
    const loaded = await store.get(keys, bytes);
    for (const [i, { code, data }] of loaded.entries()) {
      if (code === 'OK' && !data!.equals(patternOf(keys[i]!, bytes))) throw new Error(`wrong bytes for ${keys[i]}`);
      seen.set(code, (seen.get(code) ?? 0) + 1);
    }
  }
  console.log(`read under change: ${JSON.stringify(Object.fromEntries(seen))}`);
  expect(racer.exitCode, 'it raced all the time').toBeNull();
  expect(seen.size, 'a file was met in the midst of a change').toBeGreaterThan(1);
  for (const code of seen.keys()) expect(['OK', 'CORRUPT', 'NOT_FOUND', 'LENGTH_MISMATCH']).toContain(code);
  expect(store.client.isGone).toBe(false);
});

test('a block that somebody holds a lease on is IO_ERROR at once where the lease forbids reading, and can be replaced', async () => {
  const store = await startStore(freshDirectory());
  const [leased, free] = keysOf('l', 2) as [string, string];
  await store.put([leased, free], BYTES);
  // The kernel asks the holder to let go and would have others wait for up to lease-break-time, 45 s.
  const HOLD = 'import fcntl,os,signal,sys\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfcntl.fcntl(os.open(sys.argv[1], os.O_RDWR), fcntl.F_SETLEASE, fcntl.F_WRLCK)\nprint("on", flush=True)\nsignal.pause()';
  const holder = spawn('python3', ['-ISc', HOLD, store.path(leased)], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void holder.kill('SIGKILL'));
  await new Promise((go) => holder.stdout.once('data', go));
  const began = performance.now();
  expect(await store.get([leased, free], BYTES)).toMatchObject([{ code: 'IO_ERROR', entry: { errno: 'EAGAIN', phase: 'open' } }, { code: 'OK' }]);
  expect(await store.has([leased, free])).toEqual([true, true]);
  expect((await store.put([leased], BYTES, { replace: true }))[0]!.code).toBe('OK');
  expect((await store.get([leased], BYTES))[0]).toMatchObject({ code: 'OK', data: patternOf(leased, BYTES) });
  expect(performance.now() - began).toBeLessThan(20_000);
});

test('a hard link to somebody’s file in the place of a block: its bytes are not given out, nothing is written into it, and it stays', async () => {
  const store = await startStore(freshDirectory());
  const victim = join(dirname(store.root), `kvlane-test-victim-${process.pid}`); // the same file system, another place
  onTestFinished(() => rmSync(victim, { force: true }));
  for (const content of ['the key of the house\n', 'x'.repeat(FILE_BYTES)]) {
    writeFileSync(victim, content, { mode: 0o600 });
    const inode = statSync(victim).ino;
    const keys = keysOf('h', 4) as [string, string, string, string];
    await store.put(keys, BYTES);
    for (const key of keys) {
      rmSync(store.path(key));
      linkSync(victim, store.path(key));
    }
    for (const one of await store.get(keys, BYTES)) expect(one).toMatchObject({ code: 'CORRUPT', data: null });
    for (const key of keys.slice(2)) await store.drop(key);
    for (const one of await store.put(keysOf(`i${content.length}`, 8), BYTES)) expect(one.code).toBe('OK'); // over the victim, if it had become a recycled file
    await store.put([keys[0]], BYTES); // keep
    await store.put([keys[1]], BYTES, { replace: true });
    await new Promise((go) => setTimeout(go, 100)); // what was replaced rests for a while
    for (const one of await store.put(keysOf(`j${content.length}`, 8), BYTES)) expect(one.code).toBe('OK');
    expect(readFileSync(victim, 'utf8')).toBe(content);
    expect(statSync(victim).ino).toBe(inode);
    await store.put(keys, BYTES, { replace: true });
  }
});

test('a hard link to a file among those that wait to be overwritten is seen before the overwriting', async () => {
  const store = await startStore(freshDirectory(), { args: ['--recycle', 'on'] });
  const victim = `${store.root}.victim`;
  onTestFinished(() => rmSync(victim, { force: true }));
  const keys = keysOf('h', 6);
  await store.put(keys, BYTES);
  for (const key of keys) await store.drop(key);
  const writers = namesIn(join(store.root, 'recycle'));
  expect(writers).toHaveLength(1);
  const waiting = namesIn(join(store.root, 'recycle', writers[0]!));
  expect(waiting.length).toBeGreaterThan(0);
  writeFileSync(victim, Buffer.alloc(FILE_BYTES, 'v'), { mode: 0o600 });
  for (const name of waiting) {
    rmSync(join(store.root, 'recycle', writers[0]!, name));
    linkSync(victim, join(store.root, 'recycle', writers[0]!, name));
  }
  for (const one of await store.put(keysOf('j', 6), BYTES)) expect(one.code).toBe('OK');
  expect(readFileSync(victim)).toEqual(Buffer.alloc(FILE_BYTES, 'v'));
});

test('names that are none of ours, however long and of whatever bytes, are neither found nor touched nor in the way', async () => {
  const root = freshDirectory();
  const store = await startStore(root);
  const keys = keysOf('n', 4);
  await store.put(keys, BYTES);
  const block = readFileSync(store.path(keys[0]!));
  const fan = dirname(store.path(keys[0]!));
  const strange = [
    ...['00AA.kvb', '00aa.KVB', '00aa', '00aa.kvb.bak', '.kvb', '..kvb', '...', ' 00aa.kvb', '00aa.kvb ', '00aa\n.kvb', '-rf', '00aa.kvb\u202e'].map((name) => Buffer.from(name)),
    Buffer.from('f'.repeat(255)),
    Buffer.concat([Buffer.from([0xff, 0xfe, 0xc0, 0xaf]), Buffer.from('.kvb')]),
    Buffer.from([0xed, 0xa0, 0x80]),
  ];
  for (const directory of [fan, join(root, 'blocks'), join(root, 'namespaces'), join(root, 'probe'), root, join(root, 'recycle')]) {
    mkdirSync(directory, { recursive: true });
    for (const name of strange) {
      const path = Buffer.concat([Buffer.from(`${directory}/`), name]);
      if (!existsSync(path)) writeFileSync(path, block);
    }
  }
  const count = (): number => Number(execFileSync('sh', ['-c', 'find "$1" -mindepth 1 -printf x | wc -c', 'sh', root], { encoding: 'utf8' }));
  const before = count();
  expect((await store.get(keys, BYTES)).map((one) => one.code)).toEqual(keys.map(() => 'OK'));
  expect(await store.has([`${keys[0]}00`, `${keys[0]}ff`])).toEqual([false, false]);
  expect((await named(store, 'n'))['state']).toBe('created');
  await store.client.shutdown();
  const next = await startStore(root); // its tidying goes through recycle/
  expect((await next.get(keys, BYTES)).map((one) => one.code)).toEqual(keys.map(() => 'OK'));
  expect(count()).toBeGreaterThanOrEqual(before); // the record of the namespace is new
  for (const name of strange) expect(existsSync(Buffer.concat([Buffer.from(`${fan}/`), name]))).toBe(true);
});

test.skipIf(!asRoot || !process.env['KVLANE_LAB_ANY_NAMESPACE'])('another file system mounted inside of the tree is served as it is, and nothing of ours ends on the wrong one', async () => {
  const store = await startStore(freshDirectory());
  const keys = Array.from({ length: 6 }, (_, i) => `m/00${i.toString(16).padStart(2, '0')}`);
  await store.put(keys, BYTES);
  const fan = dirname(store.path(keys[0]!));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'kvlane-test', fan]);
  onTestFinished(() => void execFileSync('umount', ['-l', fan]));
  const before = treeOf(store.root);
  expect((await store.get(keys, BYTES)).map((one) => one.code)).toEqual(keys.map(() => 'NOT_FOUND'));
  for (const one of await store.put(keys, BYTES)) expect(one.code).toBe('OK');
  for (const [i, one] of (await store.get(keys, BYTES)).entries()) expect(one.data).toEqual(patternOf(keys[i]!, BYTES));
  for (const one of await store.put(keys, BYTES, { replace: true })) expect(one.code).toBe('OK');
  truncateSync(store.path(keys[0]!), 4500);
  expect((await store.get([keys[0]!], BYTES))[0]!.code).toBe('CORRUPT'); // cannot be moved aside: another file system
  for (const key of keys) expect((await store.drop(key)).code).toBe('OK');
  expect(namesIn(fan)).toEqual([]);
  expect(temporariesIn(store.root)).toEqual([]);
  expect(Object.keys(treeOf(store.root)).filter((path) => !path.startsWith('aside') && !path.startsWith('recycle'))).toEqual(Object.keys(before));
});

test('kvlane.json of another store, put there while it runs: the old one is not mixed with it', async () => {
  const [root, other] = [freshDirectory(), freshDirectory()];
  const [store, second] = [await startStore(root), await startStore(other)];
  await store.put(['s/00aa'], BYTES);
  await second.client.shutdown();
  const own = readFileSync(join(root, 'kvlane.json'));
  copyFileSync(join(other, 'kvlane.json'), join(root, 'kvlane.json'));
  // Nothing was loaded yet: the lane that does it opens the root afresh, and compares.
  const code = async (): Promise<string> => (await store.get(['s/00aa'], BYTES))[0]!.code;
  expect(await code()).toBe('WRONG_STORE');
  await until('stores are refused too', async () => (await store.put(['s/00cc'], BYTES, { replace: true }))[0]!.code === 'WRONG_STORE');
  const before = treeOf(root);
  expect((await store.put(['s/00dd'], BYTES))[0]!.code).toBe('WRONG_STORE');
  expect(treeOf(root)).toEqual(before);
  // A new sidecar takes the directory for what it says.
  const fresh = await startPlain(root, { create: false });
  expect((await fresh.get(['s/00aa'], BYTES))[0]!.code).toBe('OK');
  await fresh.client.shutdown();
  writeFileSync(join(root, 'kvlane.json'), '{"format":1,"store_id":"not hex"}');
  const third = await startPlain(root);
  expect((await third.put(['s/00bb'], BYTES))[0]!.code).toBe('WRONG_STORE');
  expect(Object.keys(treeOf(root)).filter((path) => path.startsWith('blocks'))).toEqual(Object.keys(before).filter((path) => path.startsWith('blocks')));
  writeFileSync(join(root, 'kvlane.json'), own);
  await until('with its own it is the store again', async () => (await code()) === 'OK');
});

test('records that are huge, sparse, deep or nonsense cost neither memory nor time', async () => {
  const root = freshDirectory();
  const maker = await startStore(root);
  await named(maker, 'p');
  await maker.client.shutdown();
  const record = join(root, 'namespaces/p.json');
  const texts: [string, () => void][] = [
    ['a sparse file of 4 TiB', () => truncateSync(record, 2 ** 42)],
    ['deep JSON', () => writeFileSync(record, '['.repeat(60_000) + ']'.repeat(60_000))],
    ['a record with __proto__', () => writeFileSync(record, '{"name":"p","generation":1,"fingerprint":{"__proto__":{"polluted":true}},"__proto__":{"polluted":true}}')],
    ['not UTF-8', () => writeFileSync(record, Buffer.from([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]))],
    ['a generation out of range', () => writeFileSync(record, '{"name":"p","generation":1e999,"fingerprint":{}}')],
    ['a generation that is a path', () => writeFileSync(record, '{"name":"../../x","generation":"../../x","fingerprint":{}}')],
  ];
  for (const [what, make] of texts) {
    writeFileSync(record, '');
    make();
    const store = await startPlain(root, { create: false });
    const answer = await named(store, 'p');
    expect(answer['error']?.code ?? answer['state'], what).toMatch(/^(CORRUPT|IO_ERROR|differs|matches)$/);
    if (answer['key_namespace'] !== undefined) expect(answer['key_namespace'], what).toMatch(/^p(@\d+)?$/);
    expect((await store.put(['p/00aa'], BYTES, { replace: true }))[0]!.code, what).toBe('OK');
    const rss = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${store.client.process.child.pid}/status`, 'utf8'))![1]);
    expect(rss, what).toBeLessThan(300 * 1024);
    await store.client.shutdown();
  }
});

test('a forged block with a right checksum is given out: whoever may write to the store is believed', async () => {
  const [store, forger] = [await startStore(freshDirectory()), await startStore(freshDirectory())];
  const key = 'f/00aa';
  await store.put([key], BYTES);
  await forger.put([key], BYTES, { data: () => Buffer.alloc(BYTES, 'forged') });
  copyFileSync(forger.path(key), store.path(key));
  expect((await store.get([key], BYTES))[0]).toMatchObject({ code: 'OK', data: Buffer.alloc(BYTES, 'forged') });
});

test('what belongs to another user is neither overwritten nor taken over', { skip: !asRoot }, async () => {
  const root = mkdtempSync(join(tmpdir(), 'kvlane-test-'));
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  chmodSync(root, 0o777);
  const store = await startStore(root, { args: ['--recycle', 'on'] });
  const keys = keysOf('o', 4);
  await store.put(keys, BYTES);
  const held = keys.map((key) => openSync(store.path(key), 'r')); // nobody else gets their inode numbers
  onTestFinished(() => held.forEach((fd) => closeSync(fd)));
  const inodes = held.map((fd) => fstatSync(fd).ino);
  const bytes = held.map((fd) => readFileSync(fd));
  for (const key of keys) chownSync(store.path(key), 12_345, 12_345);
  for (const key of keys.slice(0, 2)) expect((await store.drop(key)).code).toBe('OK');
  for (const one of await store.put(keys.slice(2), BYTES, { replace: true })) expect(one.code).toBe('OK');
  for (const one of await store.put(keysOf('q', 4), BYTES)) expect(one.code).toBe('OK');
  for (const key of [...keys.slice(2), ...keysOf('q', 4)]) {
    expect(statSync(store.path(key)).uid).toBe(process.getuid!());
    expect(inodes).not.toContain(statSync(store.path(key)).ino);
  }
  held.forEach((fd, i) => {
    const now = Buffer.alloc(bytes[i]!.length);
    readSync(fd, now, 0, now.length, 0);
    expect(now).toEqual(bytes[i]);
  });
});
