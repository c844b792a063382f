// list, verify and sweep: one answer by the deadline whatever the lanes do, what may be asked, and what the lanes' words become.
import { describe, expect, test } from 'vitest';
import { decode } from '../../protocol/decode.ts';
import { LIMITS } from '../../protocol/messages.ts';
import type { Request } from '../../protocol/request.ts';
import { isDirectoryPath, isLeftoverPath } from '../../protocol/store_paths.ts';
import { identifies, started } from '../support/service_harness.ts';

const HEAD = { line: 1, mount: 'kv0' };
const list = (id: number, more: object = {}) => ({ ...HEAD, id, op: 'list', path: 'blocks/demo/00', cookie: '', entriesMax: 512, ...more }) as Request & { op: 'list'; id: number };
const verify = (id: number, hexes: string[], more: object = {}) => ({ ...HEAD, id, op: 'verify', blocks: { namespaces: hexes.map(() => 'demo'), hexes }, ...more }) as Request & { op: 'verify'; id: number };
const SWEPT = 'aside/demo.00ff.77.0123456789abcdef-1';
const sweep = (id: number, more: object = {}) => ({ ...HEAD, id, op: 'sweep', path: SWEPT, inode: '77', changedNs: '5', ...more }) as Request & { op: 'sweep'; id: number };

describe('list', () => {
  test('asks a metadata lane for one directory, and tells its names with the cookie of the next answer', async () => {
    const { native, ask, deliver, answer } = await started();
    ask(list(1, { cookie: '9', entriesMax: 2 }));
    const [held] = native.held('list');
    expect(held!.spec).toMatchObject({ kind: 'list', path: 'blocks/demo/00', cookie: '9', entriesMax: 2 });
    expect(native.pools[held!.pool]).toMatchObject({ laneClass: 'metadata' });
    native.release(held!, { text: '4711\nf 8192 8000 1700000000123456789 1700000001999999999 18446744073709551615 00ff.kvb\nl 0 9 18446744073708051616 0 7 a name\n' });
    deliver();
    expect(answer(1)).toEqual({
      id: 1, ok: true, cookie: '4711',
      entries: [
        { name: '00ff.kvb', type: 'file', bytes: 8000, allocated_bytes: 8192, modified_ms: 1700000000123, changed_ms: 1700000001999, inode: '18446744073709551615', changed_ns: '1700000001999999999' },
        { name: 'a name', type: 'link', bytes: 9, allocated_bytes: 0, modified_ms: -1, changed_ms: 0, inode: '7', changed_ns: '0' },
      ],
    });
  });

  test('a directory that is not there is NOT_FOUND; one that hangs is answered at its deadline, with where', async () => {
    const { native, ask, deliver, advance, answer, answers } = await started();
    ask(list(1));
    native.releaseAll('list', { status: 'not_found', errno: 2, phase: 'open' });
    deliver();
    expect(answer(1)).toMatchObject({ ok: false, error: { code: 'NOT_FOUND', message: expect.stringContaining('list of blocks/demo/00 on mount kv0') } });
    ask(list(2, { timeoutMs: 300 }));
    advance(299);
    expect(answers(2)).toEqual([]);
    advance(1);
    expect(answer(2)).toMatchObject({ ok: false, error: { code: 'DEADLINE_EXCEEDED', message: expect.stringContaining('after 300 ms, in stat for 300 ms') } });
    native.releaseAll('list', { text: '-' });
    deliver();
    expect(answers(2), 'once').toHaveLength(1);
  });

  test('the largest answer of list fits in a line', async () => {
    const { native, ask, deliver, answer } = await started();
    const digits = '18446744073709551615';
    ask(list(1));
    native.releaseAll('list', { text: `${digits}\n${`f ${digits} ${digits} ${digits} ${digits} ${digits} ${'\u0001'.repeat(255)}\n`.repeat(LIMITS.list_entries_max)}` });
    deliver();
    const told = answer(1) as { entries: { bytes: number }[] };
    expect(told.entries).toHaveLength(LIMITS.list_entries_max);
    expect(told.entries[0]!.bytes).toBe(LIMITS.id_max);
    expect(JSON.stringify(told).length + 64).toBeLessThan(LIMITS.line_bytes_max);
  });
});

describe('verify', () => {
  test('reads each block by a load lane, and what it finds is told and changes nothing', async () => {
    const { native, ask, deliver, answer } = await started();
    ask(verify(1, ['00aa', '00bb', '00cc', '00dd', '00ee'], { timeoutMs: 5000 }));
    const held = native.held('verify');
    expect(native.pools[held[0]!.pool]).toMatchObject({ laneClass: 'load' });
    const endings = [{ storedBytes: 4096, text: '{"created_us":1700000000123456,"writer":"0123456789abcdef"}' }, { status: 'corrupt', text: 'the payload does not fit its checksum', inode: '5@6' }, { status: 'newer_format' }, { status: 'not_found' }, { status: 'io_error', errno: 5 }] as const;
    for (const ending of endings) {
      native.release(native.inKernel('verify')[0]!, ending);
      deliver();
    }
    expect(answer(1)).toEqual({
      id: 1, ok: true, complete: false,
      blocks: [
        { finding: 'sound', stored_bytes: 4096, created_ms: 1700000000123, writer: '0123456789abcdef' },
        { finding: 'corrupt', message: 'the payload does not fit its checksum' },
        { finding: 'newer_format' },
        { finding: 'not_found' },
        { finding: 'unknown', code: 'IO_ERROR', phase: 'read', errno: 'EIO' },
      ],
    });
    expect(native.submitted.filter((spec) => spec.kind === 'aside')).toEqual([]);
  });

  test('at the deadline it answers what is proven, and of the others where they are', async () => {
    const { native, ask, deliver, advance, answer } = await started({ lanes: 2 });
    ask(verify(1, ['00aa', '00bb', '00cc', '00dd'], { timeoutMs: 400 }));
    native.release(native.inKernel('verify')[0]!, { storedBytes: 1 });
    deliver();
    advance(400);
    expect(answer(1)).toMatchObject({
      ok: true, complete: false,
      blocks: [{ finding: 'sound' }, { finding: 'unknown', code: 'DEADLINE_EXCEEDED', phase: 'read' }, { finding: 'unknown', phase: 'read' }, { finding: 'unknown', phase: 'queue' }],
    });
  });

  test('what a suspended mount has not begun is said to be that; the next request is refused at once', async () => {
    const { native, ask, advance, answer, deliver } = await started({ lanes: 1 });
    ask(verify(1, ['00aa', '00bb'], { timeoutMs: 60_000 }));
    native.stall(native.inKernel('verify')[0]!);
    deliver();
    advance(2000);
    ask(verify(2, ['00cc']));
    expect(answer(2)).toMatchObject({ ok: false, error: { code: 'MOUNT_SUSPENDED' } });
    advance(58_000);
    expect(answer(1)).toMatchObject({ ok: true, complete: false, blocks: [{ finding: 'unknown', code: 'DEADLINE_EXCEEDED' }, { finding: 'unknown' }] });
  });

  test('a cancel and the shutdown end it, once', async () => {
    const { ask, answer, service, native, deliver } = await started();
    ask(verify(1, ['00aa']));
    ask({ id: 2, op: 'cancel', task: 1 });
    expect(answer(1)).toMatchObject({ ok: true, complete: false, blocks: [{ finding: 'unknown', code: 'CANCELLED' }] });
    ask(sweep(3));
    native.reach(native.inKernel('remove_file')[0]!, 'unlink', true);
    ask({ id: 4, op: 'cancel', task: 3 });
    expect(answer(3)).toMatchObject({ ok: false, error: { code: 'CANCELLED', message: expect.stringContaining('the file may be gone, or go late') } });
    native.releaseAll();
    deliver();
    expect(service.outstanding()).toBe(0);
  });

  test('how long it took to read whole blocks says nothing about how slow one load may be', async () => {
    const { native, ask, load, advance, deliver, events } = await started({}, identifies);
    for (let id = 1; id <= 20; id += 1) {
      ask(verify(id, ['00aa']));
      advance(1500);
      native.releaseAll('verify', { kernelUs: 1_500_000 });
      deliver();
    }
    load(100, [0], { timeoutMs: 1100 });
    advance(1100);
    expect(events('mount').at(-1)).toMatchObject({ class: 'load', state: 'suspended' });
  });
});

describe('sweep', () => {
  test.each([
    [{}, { ok: true, state: 'removed' }],
    [{ kept: true }, { ok: true, state: 'changed' }],
    [{ status: 'not_found' }, { ok: true, state: 'absent' }],
    [{ status: 'io_error', errno: 13 }, { ok: false, error: { code: 'IO_ERROR', errno: 'EACCES' } }],
  ] as const)('a lane that ends with %j is told as %j', async (ending, told) => {
    const { native, ask, deliver, answer } = await started();
    ask(sweep(1));
    expect(native.held('remove_file')[0]!.spec).toMatchObject({ path: SWEPT, inode: '77', changedNs: '5', fence: '' });
    native.releaseAll('remove_file', ending);
    deliver();
    expect(answer(1)).toMatchObject(told);
  });
});

describe('what may be named', () => {
  const context = { slots: 1, slotBytes: 4096, mounts: ['kv0'], line: 1 };
  const refusal = (fields: object): string => {
    const decoded = decode({ id: 1, ...fields }, context);
    return decoded.ok ? 'ok' : decoded.message;
  };

  test.each(['blocks', 'blocks/demo', 'blocks/demo@3/0f', 'recycle', 'recycle/0123456789abcdef', 'aside', 'namespaces', 'collector', 'probe', 'probe/15'])('%s is a directory of a store', (path) => {
    expect(isDirectoryPath(path)).toBe(true);
    expect(refusal({ op: 'list', path })).toBe('ok');
  });

  test.each(['', '.', '..', '/', 'blocks/', 'blocks/..', 'blocks/../x', 'blocks/demo/0', 'blocks/demo/0F', 'blocks/demo/00/x', 'blocks/-x', 'recycle/x', 'probe/x', 'probe/1/2', 'kvlane.json', 'blocks\n', 'blocks/demo/00\n', 'aside/x', '\0'])('%j is none', (path) => {
    expect(isDirectoryPath(path)).toBe(false);
    expect(refusal({ op: 'list', path })).toMatch(/^path must be /);
  });

  test.each(['blocks/demo/00/00ff.0123456789abcdef-12.tmp', 'recycle/0123456789abcdef/7', SWEPT, 'aside/a.b.00ff.7.0123456789abcdef-1'])('%s may be swept', (path) => {
    expect(isLeftoverPath(path)).toBe(true);
    expect(refusal({ op: 'sweep', path, inode: '1', changed_ns: '18446744073708051616' })).toBe('ok');
  });

  test.each(['blocks/demo/00/00ff.kvb', 'blocks/demo/01/00ff.0123456789abcdef-12.tmp', 'blocks/demo/00/x.tmp', 'blocks/demo/00/../00/00ff.0123456789abcdef-1.tmp', 'recycle/0123456789abcdef', 'recycle/0123456789abcdef/7x', 'kvlane.json', 'namespaces/demo.json', 'aside/other', `${SWEPT}\n`])('%j may not', (path) => {
    expect(isLeftoverPath(path)).toBe(false);
    expect(refusal({ op: 'sweep', path, inode: '1', changed_ns: '1' })).toMatch(/^path must be .*blocks are removed with remove$/s);
  });

  test('limits hold at their value, and refuse one past it in words', () => {
    const keys = (count: number) => Array.from({ length: count }, (_, i) => `demo/${(i + 256).toString(16).padStart(4, '0')}`);
    expect(refusal({ op: 'verify', keys: keys(LIMITS.verify_blocks_max) })).toBe('ok');
    expect(refusal({ op: 'verify', keys: keys(LIMITS.verify_blocks_max + 1) })).toBe('keys has 257 entries, of verify the limit is 256; ask for them in several requests');
    expect(refusal({ op: 'list', path: 'aside', entries_max: LIMITS.list_entries_max })).toBe('ok');
    expect(refusal({ op: 'list', path: 'aside', entries_max: LIMITS.list_entries_max + 1 })).toBe('entries_max must be an integer from 1 to 512, got 513');
    expect(refusal({ op: 'list', path: 'a'.repeat(LIMITS.path_chars_max) })).toMatch(/^path must be blocks, /);
    expect(refusal({ op: 'list', path: 'a'.repeat(LIMITS.path_chars_max + 1) })).toMatch(/^path must be a path below the root of at most 320 characters/);
    expect(refusal({ op: 'list', path: 'aside', cookie: 'x' })).toMatch(/^cookie must be the cookie of the answer before/);
    for (const cookie of ['-1', '1'.repeat(21)]) expect(refusal({ op: 'list', path: 'aside', cookie })).toMatch(/^cookie must be/);
    const most = String(2n ** 64n - 1n);
    const beyond = String(2n ** 64n);
    expect(refusal({ op: 'list', path: 'aside', cookie: most })).toBe('ok');
    expect(refusal({ op: 'list', path: 'aside', cookie: beyond })).toMatch(/^cookie must be at most 18446744073709551615, got '?"?18446744073709551616/);
    expect(refusal({ op: 'sweep', path: SWEPT, inode: most, changed_ns: most })).toBe('ok');
    expect(refusal({ op: 'sweep', path: SWEPT, inode: beyond, changed_ns: '1' })).toMatch(/^inode must be at most/);
    expect(refusal({ op: 'sweep', path: SWEPT, inode: '1', changed_ns: beyond })).toMatch(/^changed_ns must be at most/);
    expect(refusal({ op: 'sweep', path: SWEPT, inode: 7, changed_ns: '1' })).toMatch(/^inode must be a decimal number as a string, as list told it/);
  });
});
