// Whoever holds the sidecar's pipes and its arena, and means no good: lines that abuse JSON, more requests than anybody has, memory
// that is no arena or changes under a running call. He may end his own sidecar; he gets nothing from outside the roots he named,
// and no answer to one of his requests is lost, doubled or meant for another.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import { TASKS_MAX } from '../../sidecar/task_table.ts';
import { failuresOf, keysOf, patternOf, withRig } from '../support/rig.ts';
import { SLOT_BYTES, startStore, treeOf } from '../support/plain_store.ts';
import { freshDirectory, startSidecar, within, type Message } from '../support/sidecar_process.ts';

const RESIDENT_KIB_MAX = 400 * 1024;
const IN_FLIGHT = process.env['KVLANE_SECURITY_FULL'] ? 1_000_000 : 100_000;
const BYTES = 5_000;

/** A line, and what must be in its answer. */
const ABUSE: [string, object][] = [
  ['{"__proto__":{"id":7,"op":"ping"}}', { id: null, error: { code: 'INVALID_REQUEST' } }],
  ['{"id":7,"op":"ping","__proto__":{"polluted":1}}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
  ['{"id":7,"op":"lookup","keys":["a/00"],"constructor":{"prototype":{"polluted":1}}}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
  ...['constructor', 'toString', 'hasOwnProperty', '__defineGetter__', ''].map((op): [string, object] => [`{"id":7,"op":"${op}"}`, { id: 7, error: { code: op === '' ? expect.any(String) : 'UNKNOWN_OP' } }]),
  ...['__proto__', 'constructor', '\\ud800', '../..', ''].map((mount): [string, object] => [`{"id":7,"op":"lookup","keys":["a/00"],"mount":"${mount}"}`, { id: 7, error: { code: 'INVALID_REQUEST' } }]),
  ['{"id":6,"id":7,"op":"ping"}', { id: 7, ok: true }], // a name twice: the last one counts, everywhere
  ['{"id":7,"op":"shutdown","op":"ping"}', { id: 7, ok: true }],
  ['{"id":7,"op":"lookup","keys":["../00"],"keys":["a/00"]}', { id: 7, ok: true, present: [false] }],
  ['{"id":7,"op":"lookup","keys":["a/00"],"keys":["../00"]}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
  ...['NaN', 'Infinity', '-Infinity', '0x10', '010', '+1', '.5', '1.'].map((number): [string, object] => [`{"id":${number},"op":"ping"}`, { id: null, error: { code: 'INVALID_REQUEST' } }]),
  ...['1e999', '-1e999', '9007199254740993', '18446744073709551616', '1e400', '-0.1', '1e-400.5'].map((number): [string, object] => [`{"id":${number},"op":"ping"}`, { id: null, error: { code: 'INVALID_REQUEST' } }]),
  ...['1e999', '9007199254740993', '-1', '"1"', '[1]', '{}', 'null', 'true'].map((number): [string, object] => [`{"id":7,"op":"lookup","keys":["a/00"],"timeout_ms":${number}}`, { id: 7, error: { code: 'INVALID_REQUEST' } }]),
  ...['1e999', '-1', '4294967296', '9007199254740992', '0.5', '"0"', 'null', '[0]'].map((number): [string, object] => [`{"id":7,"op":"load","namespace":"a","keys":["00"],"slots":[${number}],"bytes":4096}`, { id: 7, error: { code: 'INVALID_REQUEST' } }]),
  ...['1e999', '-1', '0', '1048577', '9007199254740992', '4294967296', '"1"', 'null'].map((number): [string, object] => [`{"id":7,"op":"store","namespace":"a","keys":["00"],"slots":[0],"bytes":${number}}`, { id: 7, error: { code: 'INVALID_REQUEST' } }]),
  ['{"id":"\\ud800","op":"ping"}', { id: '\ud800', ok: true }],
  ['{"id":"\\u0000\\u001b[2J","op":"ping"}', { id: '\u0000\u001b[2J', ok: true }],
  ['{"id":7,"op":"store","blocks":[{"key":"a/00","text":"\\ud800"}]}', { id: 7 }],
  ['{"id":7,"op":"store","blocks":[{"key":"a/\\u002e\\u002e/00","text":"x"}]}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
  ['{"id":7,"op":"store","blocks":[{"key":"a%2f..%2f00","text":"x"}]}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
  ['{"id":7,"op":"cancel","task":"__proto__"}', { id: 7, state: 'unknown' }],
  ['{"id":7,"op":"cancel","task":7}', { id: 7 }],
  ['{"id":7,"op":"namespace","name":"constructor","fingerprint":{"__proto__":{"x":1},"toString":1}}', { id: 7, state: 'created' }],
  ['{"id":7,"op":"namespace","name":"constructor","fingerprint":{"toString":1}}', { id: 7, state: 'differs' }],
  ['{"id":7,"op":"namespace","name":"..","fingerprint":{}}', { id: 7, error: { code: 'INVALID_REQUEST' } }],
];

test('lines that abuse JSON are answered once each as what they say, and change nothing for those that follow', async () => {
  const root = freshDirectory();
  const sidecar = startSidecar({ args: ['--mount', `kv0=${root}`, '--create', '--arena-mib', '8'] });
  await sidecar.ready();
  for (const [line, wanted] of ABUSE) {
    const before = sidecar.messages.length;
    sidecar.write(`${line}\n`);
    const answered = await sidecar.message((message) => sidecar.messages.indexOf(message) >= before && ('ok' in message), `an answer to ${line}`);
    expect(answered, line).toMatchObject(wanted);
    sidecar.send({ id: 'after', op: 'ping' });
    await sidecar.message((message) => message['id'] === 'after' && sidecar.messages.indexOf(message) >= before, `the ping after ${line}`);
    const more = sidecar.messages.slice(before);
    expect(more.map((message) => message['id']).filter((id) => id !== 'after'), line).toHaveLength(1);
    expect(more.at(-1), line).toMatchObject({ id: 'after', ok: true });
  }
  expect(Object.keys(treeOf(root)).filter((path) => path.includes('..'))).toEqual([]);
});

test('more requests in flight than anybody has, at a mount that hangs: each is answered once, beyond the cap at once, in bounded memory', { timeout: 120_000 }, () =>
  withRig({ engine: 'threads', breakerHeldClosed: true, stuckMax: 8 }, async (rig) => {
    const keys = keysOf('g', 4);
    await rig.fill(keys);
    await rig.lab.hang('read', { match: '/blocks/*' });
    await rig.lab.hang('getattr', { match: '/blocks/*' });
    await rig.lab.hang('lookup', { match: '/blocks/*' });
    const from = rig.heard.length;
    const stdin = rig.client.process.child.stdin as Writable;
    let peakMib = 0;
    const began = performance.now();
    for (let id = 0; id < IN_FLIGHT; id += 2_000) {
      const lines = Array.from({ length: 2_000 }, (_, i) => `{"id":"f${id + i}","op":"lookup","keys":["never/00${((id + i) % 256).toString(16).padStart(2, '0')}"],"timeout_ms":5000}\n`).join('');
      if (!stdin.write(lines)) await within(once(stdin, 'drain'), () => 'the sidecar does not read');
    }
    const flooded = performance.now() - began;
    const seen = new Map<string, number>();
    let next = from;
    await rig.until('every request is answered', () => {
      peakMib = Math.max(peakMib, rig.process().residentMib);
      for (; next < rig.heard.length; next += 1) {
        const { message } = rig.heard[next]! as { message: Message };
        if (typeof message['id'] === 'string' && message['id'][0] === 'f') seen.set(message['id'], (seen.get(message['id']) ?? 0) + 1);
      }
      return seen.size >= IN_FLIGHT;
    }, 60_000);
    expect([...seen.values()].filter((times) => times !== 1)).toEqual([]);
    const codes = new Map<string, number>();
    for (const { message } of rig.heard.slice(from) as { message: Message }[]) if (typeof message['id'] === 'string') codes.set(message['error']?.code ?? 'answered', (codes.get(message['error']?.code ?? 'answered') ?? 0) + 1);
    console.log(`${IN_FLIGHT} requests in ${flooded.toFixed(0)} ms: ${JSON.stringify(Object.fromEntries(codes))}, at most ${peakMib} MiB`);
    expect(codes.get('SATURATED') ?? 0).toBeGreaterThan(IN_FLIGHT - 4 * TASKS_MAX);
    expect(peakMib * 1024).toBeLessThan(RESIDENT_KIB_MAX);
    await rig.heal();
  }));

/** A descriptor 9 of some kind, then the sidecar: MAKE leaves it in `fd`. */
const withDescriptor = (make: string): string[] => ['python3', '-c', `import fcntl,os,socket,sys,tempfile\nsize=8<<20\n${make}\nos.dup2(fd, 9)\nos.execvp(sys.argv[1], sys.argv[1:])`];
const SEALS = 'fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)';
const MEMFD = 'fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)';
test.each([
  ['a pipe', 'fd = os.pipe()[1]', 'not a memfd'],
  ['a socket', 'fd = socket.socketpair()[0].detach()', 'not a memfd'],
  ['a plain file', 'fd, name = tempfile.mkstemp(dir="/var/tmp"); os.unlink(name); os.ftruncate(fd, size)', 'not a memfd'],
  ['a file of a tmpfs, which has seals too', 'fd, name = tempfile.mkstemp(dir="/dev/shm"); os.unlink(name); os.ftruncate(fd, size)', 'F_SEAL_SHRINK'],
  ['a directory', 'fd = os.open("/", os.O_RDONLY)', 'not a memfd'],
  ['a device', 'fd = os.open("/dev/zero", os.O_RDWR)', 'not a memfd'],
  ['memory that may be truncated under a running call', `${MEMFD}; os.ftruncate(fd, size)`, 'F_SEAL_SHRINK'],
  ['memory that may not shrink, but grow', `${MEMFD}; os.ftruncate(fd, size); fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)`, 'F_SEAL_GROW'],
  ['memory of no size', `${MEMFD}; ${SEALS}`, 'multiple of its page size'],
  ['memory of a size that is no number of pages', `${MEMFD}; os.ftruncate(fd, size + 1); ${SEALS}`, 'multiple of its page size'],
  ['memory smaller than a slot', `${MEMFD}; os.ftruncate(fd, 65536); ${SEALS}`, ''],
  ['memory sealed against writing', `${MEMFD}; os.ftruncate(fd, size); ${SEALS}; fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)`, 'writable'],
  ['memory opened for reading only', `${MEMFD}; os.ftruncate(fd, size); ${SEALS}; fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)`, 'writable'],
  ['an epoll', 'import select; e = select.epoll(); fd = e.fileno()', 'not a memfd'],
])('%s in the place of the arena is refused in one sentence with status 2, before anything is served', async (_what, make, part) => {
  const root = freshDirectory();
  const sidecar = startSidecar({ wrapper: withDescriptor(make), args: ['--mount', `kv0=${root}`, '--create', '--arena-fd', '9'] });
  expect(await sidecar.exited).toEqual({ code: 2, signal: null });
  await sidecar.ended;
  expect(sidecar.messages).toEqual([]);
  expect(sidecar.stderr()).toMatch(/^kvlane: .+\n$/);
  expect(sidecar.stderr()).toContain(part);
  expect(treeOf(root)).toEqual({});
});

test('a sealed arena can neither be cut off nor grow while the sidecar uses it; holes in it cost the client his bytes and nobody else', async () => {
  const store = await startStore(freshDirectory());
  const keys = keysOf('a', 16);
  const { path, bytes } = store.client.ready.arena;
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  for (const size of [0, 4096, bytes + 4096]) expect(() => ftruncateSync(fd, size)).toThrow(/EPERM/);
  expect(statSync(path).size).toBe(bytes);
  let over = false;
  const punching = (async () => {
    for (let turn = 0; !over; turn += 1) {
      execFileSync('fallocate', ['--punch-hole', '--offset', '0', '--length', String(bytes), path]);
      await new Promise((go) => setImmediate(go));
    }
  })();
  for (let turn = 0; turn < 10; turn += 1) {
    for (const one of await store.put(keys, BYTES, { replace: true })) expect(one.code).toBe('OK');
    const loaded = (await store.client.request('load', { keys, slots: keys.map((_, i) => i), bytes: BYTES, timeout_ms: 20_000 })) as unknown as Message;
    expect(loaded).toHaveProperty('done');
  }
  over = true;
  await punching;
  expect(store.client.isGone).toBe(false);
  for (const one of await store.put(keys, BYTES, { replace: true })) expect(one.code).toBe('OK');
  for (const [i, one] of (await store.get(keys, BYTES)).entries()) expect(one.data).toEqual(patternOf(keys[i]!, BYTES));
});

test('a slot that is changed while it is stored damages that block at most: it is what the slot held for a moment, or CORRUPT', async () => {
  const store = await startStore(freshDirectory());
  const keys = keysOf('c', 8);
  const slots = keys.map((_, i) => i);
  const bytes = 20_000;
  const [ones, twos] = [Buffer.alloc(bytes, 1), Buffer.alloc(bytes, 2)];
  const seen = new Map<string, number>();
  for (const slot of slots) store.client.writeSlot(slot, ones);
  // By a process of its own that has the arena mapped, as an engine has.
  const WRITER = `import mmap,sys
size, slots, step = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
file = open(sys.argv[1], 'r+b')
arena = mmap.mmap(file.fileno(), size * slots)
both = bytes([1]) * step, bytes([2]) * step
print('on', flush=True)
while True:
 for slot in range(slots):
  for one in both: arena[slot * size : slot * size + step] = one`;
  const writer = spawn('python3', ['-ISc', WRITER, store.client.ready.arena.path, String(SLOT_BYTES), String(slots.length), String(bytes)], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => void writer.kill('SIGKILL'));
  await once(writer.stdout, 'data');
  for (let turn = 0; turn < 12; turn += 1) {
    const stored = (await store.client.request('store', { keys, slots, bytes, if_exists: 'replace', timeout_ms: 20_000 })) as unknown as Message;
    expect(stored).toMatchObject({ ok: true });
    // Loaded into slots that nobody writes to.
    const loaded = (await store.client.request('load', { keys, slots: slots.map((slot) => slot + 32), bytes, timeout_ms: 20_000 })) as unknown as Message;
    const failed = failuresOf(loaded);
    for (const [i, slot] of slots.entries()) {
      const code = loaded['error']?.code ?? failed.get(i)?.code ?? 'OK';
      expect(['OK', 'CORRUPT', 'NOT_FOUND']).toContain(code);
      let what = code;
      if (code === 'OK') {
        const data = store.client.readSlot(slot + 32, bytes);
        expect(data.filter((byte) => byte !== 1 && byte !== 2)).toHaveLength(0); // of this slot, never of another memory
        what = data.equals(ones) || data.equals(twos) ? 'one version' : 'what the slot held when its checksum was made';
      }
      seen.set(what, (seen.get(what) ?? 0) + 1);
    }
  }
  console.log(`slots changed while stored: ${JSON.stringify(Object.fromEntries(seen))}`);
  expect(store.client.isGone).toBe(false);
});

test('whatever a client asks for, nothing is made or read outside of the roots', async () => {
  const outer = mkdtempSync(join(tmpdir(), 'kvlane-test-'));
  onTestFinished(() => rmSync(outer, { recursive: true, force: true }));
  const root = join(outer, 'root');
  const sidecar = startSidecar({ args: ['--mount', `kv0=${root}`, '--create', '--arena-mib', '8'] });
  await sidecar.ready();
  const parts = ['..', '.', '', '/', '//', '\u0000', '..\\', '%2e%2e', '\u2024\u2024', '\uff0e\uff0e', 'a', 'kvlane.json', '@1', 'a@../1', 'Z'.repeat(64), 'Z'.repeat(65), '-', '~', '$HOME', '\n'];
  let id = 0;
  for (const one of parts) {
    for (const other of parts) {
      for (const request of [
        { op: 'store', blocks: [{ key: `${one}/${other}`, text: 'x' }] },
        { op: 'load', namespace: one, keys: [other], slots: [0], bytes: 4096 },
        { op: 'remove', keys: [`${one}/${other}/00`] },
        { op: 'namespace', name: `${one}/${other}`, fingerprint: {} },
      ]) sidecar.send({ id: (id += 1), ...request });
    }
  }
  await sidecar.answer(id);
  const bad = sidecar.messages.filter((message) => 'ok' in message && message['ok'] !== false);
  expect(bad).toEqual([]);
  expect(Object.keys(treeOf(outer)).filter((path) => !/^root(\/(kvlane\.json|probe|probe\/.*|blocks|namespaces|recycle|recycle\/.*))?$/.test(path))).toEqual([]);
  expect(readFileSync(join(root, 'kvlane.json'), 'utf8')).toContain('store_id');
});
