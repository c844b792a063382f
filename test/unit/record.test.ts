// The record: frames and entries, reading it back, which answer belongs to which line, and what a replay makes of it.
import { describe, expect, test } from 'vitest';
import { Conversation } from '../../clients/cli/record/conversation.ts';
import { Entries, LINE_BYTES_MAX } from '../../clients/cli/record/entries.ts';
import { LivesReader, NoRecord } from '../../clients/cli/record/format.ts';
import type { From, Life, RecordEntry } from '../../clients/cli/record/format.ts';
import { frameHead, FrameReader } from '../../clients/cli/record/frames.ts';
import type { Frame } from '../../clients/cli/record/frames.ts';
import { isInherited, stdioWith } from '../../clients/cli/record/inherited.ts';
import { differences, eventWords, readyDifferences, timeless, unlike } from '../../clients/cli/replay/compare.ts';
import { isAlike, reportLines } from '../../clients/cli/replay/report.ts';
import type { LifeReport } from '../../clients/cli/replay/report.ts';
import { seedsOf } from '../../clients/cli/replay/seed.ts';
import { serveWords } from '../../clients/cli/replay/stage.ts';
import { colours } from '../../clients/cli/text/colour.ts';
import type { ReadyEvent } from '../../protocol/messages.ts';
import { parseCommandLine } from '../../sidecar/options.ts';

const bytes = (from: From, atUs: number, text: string | Buffer): Frame => ({ kind: 'bytes', from, atUs, payload: Buffer.from(text as string) });
const roots = { recorded: new Map([['/mnt/a', 'kv0']]), replayed: new Map([['/tmp/x', 'kv0']]) };

describe('what is written', () => {
  const taken = (...frames: Frame[]): Record<string, unknown>[] => {
    const entries = new Entries(7);
    return frames
      .map((frame) => entries.take(frame))
      .join('')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  };

  test('a line in pieces is one entry, with the time of its last piece; two streams do not mix', () => {
    expect(taken(bytes('client', 1, '{"id":1,'), bytes('sidecar', 2, '{"event":"x"}\n'), bytes('client', 3, '"op":"ping"}\n{"id"'), bytes('client', 4, ':2}\n'))).toEqual([
      { life: 7, at_us: 2, from: 'sidecar', message: { event: 'x' } },
      { life: 7, at_us: 3, from: 'client', message: { id: 1, op: 'ping' } },
      { life: 7, at_us: 4, from: 'client', message: { id: 2 } },
    ]);
  });

  test('what would not come out as it went in is kept as text, or as base64', () => {
    expect(taken(bytes('client', 1, '{ "id":1}\n{"a":1.0}\n{"a":1,"a":2}\noops\r\n\n'), bytes('client', 2, Buffer.from([0xff, 0x0a])))).toEqual([
      { life: 7, at_us: 1, from: 'client', text: '{ "id":1}' },
      { life: 7, at_us: 1, from: 'client', text: '{"a":1.0}' },
      { life: 7, at_us: 1, from: 'client', text: '{"a":1,"a":2}' },
      { life: 7, at_us: 1, from: 'client', text: 'oops\r' },
      { life: 7, at_us: 1, from: 'client', text: '' },
      { life: 7, at_us: 2, from: 'client', base64: '/w==' },
    ]);
  });

  test('the end of a stream, with and without a newline before it', () => {
    expect(taken(bytes('client', 1, 'half'), { ...bytes('client', 2, ''), kind: 'ended' }, { ...bytes('sidecar', 3, ''), kind: 'ended' })).toEqual([
      { life: 7, at_us: 2, from: 'client', unterminated: true, text: 'half' },
      { life: 7, at_us: 2, from: 'client', ended: true },
      { life: 7, at_us: 3, from: 'sidecar', ended: true },
    ]);
  });

  test('after a loss the rest of a broken line is no line', () => {
    expect(taken(bytes('client', 1, '{"id":'), { kind: 'lost', from: 'client', atUs: 2, payload: Buffer.from('999') }, bytes('client', 2, '5,"x":1}\n{"id":6}\n'))).toEqual([
      { life: 7, at_us: 2, from: 'recorder', lost: { of: 'client', bytes: 999 } },
      { life: 7, at_us: 2, from: 'client', message: { id: 6 } },
    ]);
  });

  test('a line without an end is cut, and memory with it', () => {
    const entries = new Entries(7);
    const chunk = Buffer.alloc(1024 * 1024, 'x');
    for (let i = 0; i < 8; i += 1) expect(entries.take({ ...bytes('client', i, ''), payload: chunk })).toBe('');
    const entry = JSON.parse(entries.take(bytes('client', 9, '\n'))) as { text: string; cut_bytes: number };
    expect(entry.text.length).toBe(LINE_BYTES_MAX);
    expect(entry.cut_bytes).toBe(8 * 1024 * 1024 - LINE_BYTES_MAX);
  });

  test('frames come through in any pieces', () => {
    const sent = [Buffer.from('one'), Buffer.alloc(0), Buffer.from('three\n')];
    const wire = Buffer.concat(sent.flatMap((payload, i) => [frameHead(i === 1 ? 'ended' : 'bytes', i === 2 ? 'log' : 'client', i * 1000.5, payload.length), payload]));
    for (const size of [1, 7, wire.length]) {
      const reader = new FrameReader();
      const got: Frame[] = [];
      for (let at = 0; at < wire.length; at += size) reader.feed(wire.subarray(at, at + size), (frame) => got.push({ ...frame, payload: Buffer.from(frame.payload) }));
      expect(got).toEqual(sent.map((payload, i) => ({ kind: i === 1 ? 'ended' : 'bytes', from: i === 2 ? 'log' : 'client', atUs: i * 1000.5, payload })));
    }
  });
});

describe('what is read', () => {
  const head = (life: number) => JSON.stringify({ life, at_us: 0, from: 'recorder', kvlane_record: 1, version: '0.1.0', began: 'x', began_us: 5, command: ['kvlane', 'serve'], system: '', node: '' });
  const entry = (life: number, at: number) => JSON.stringify({ life, at_us: at, from: 'client', message: { id: at } });

  test('lives that share a file are told apart, also where they wrote at once', () => {
    const reader = new LivesReader();
    for (const line of [head(1), entry(1, 1), head(2), entry(2, 5), entry(1, 2), '', head(1), entry(1, 9)]) reader.line(line);
    expect(reader.lives.map(({ head: { life }, entries }) => [life, entries.map((one) => one.at_us)])).toEqual([[1, [1, 2]], [2, [5]], [1, [9]]]);
    expect(reader.damaged).toBe(0);
  });

  test('a last line that was cut is passed over, one before it is counted', () => {
    const reader = new LivesReader();
    for (const line of [head(1), '{"life":1,"at', entry(1, 1), '{"li']) reader.line(line);
    expect(reader.lives[0]!.entries).toHaveLength(1);
    expect(reader.damaged).toBe(1);
  });

  test.each([['hello'], ['{"id":1}'], [JSON.stringify({ kvlane_record: 2, life: 1 })]])('%s is no record that this kvlane reads', (line) => {
    expect(() => new LivesReader().line(line)).toThrow(NoRecord);
  });

  test('an answer belongs to the line with its id while that is unanswered, otherwise to the line of its number', () => {
    const talk = new Conversation();
    const line = (message: Record<string, unknown>) => talk.asked({ life: 1, at_us: 0, from: 'client', message });
    const first = line({ id: 1, op: 'ping' });
    const second = line({ id: 1, op: 'stats' });
    const bad = talk.asked({ life: 1, at_us: 0, from: 'client', text: '{oops' });
    expect(talk.answered({ id: null, line: 2, duplicate_of: 1 })).toBe(second);
    expect(talk.answered({ id: null, line: 3 })).toBe(bad);
    expect(talk.answered({ id: 1, ok: true })).toBe(first);
    expect(talk.answered({ id: 1, ok: true })).toBeNull();
    const again = line({ id: 1, op: 'ping' });
    expect(talk.answered({ id: 1, ok: true })).toBe(again);
  });
});

describe('what differs', () => {
  test.each<[string, string, object, object | null, string[]]>([
    ['the same, but for times', 'load', { id: 1, ok: false, done: 0, failed: [{ block: 0, code: 'DEADLINE_EXCEEDED', phase: 'read', waited_ms: 250, slot: 'free' }] }, { id: 1, ok: false, done: 0, failed: [{ blocks: [[0, 0]], code: 'DEADLINE_EXCEEDED', phase: 'open', waited_ms: 251, slot: 'free' }] }, []],
    ['a block that is there now', 'load', { id: 1, ok: false, done: 1, failed: [{ block: 1, code: 'NOT_FOUND' }] }, { id: 1, ok: true, done: 2 }, ['ok: false → true', 'done: 1 → 2', 'block 1: NOT_FOUND → nothing']],
    ['a slot that was quarantined', 'load', { id: 1, ok: false, done: 0, failed: [{ block: 0, code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }] }, { id: 1, ok: false, done: 0, failed: [{ block: 0, code: 'DEADLINE_EXCEEDED', slot: 'free' }] }, ['block 0: DEADLINE_EXCEEDED, slot quarantined → DEADLINE_EXCEEDED']],
    ['what a block holds', 'load', { id: 1, ok: true, done: 1, blocks: [{ block: 0, bytes: 1, text: 'a' }] }, { id: 1, ok: true, done: 1, blocks: [{ block: 0, bytes: 1, text: 'b' }] }, ['block 0: {"bytes":1,"text":"a"} → {"bytes":1,"text":"b"}']],
    ['a look-up', 'lookup', { id: 1, ok: true, present: [true, null], prefix: 1, complete: false }, { id: 1, ok: true, present: [true, true], prefix: 2, complete: true }, ['prefix: 1 → 2', 'complete: false → true', 'present[1]: null → true']],
    ['a path in a message', 'store', { id: 1, ok: false, error: { code: 'IO_ERROR', errno: 'EIO', message: '/mnt/a/kvlane.json after 12 ms' } }, { id: 1, ok: false, error: { code: 'IO_ERROR', errno: 'EIO', message: '/tmp/x/kvlane.json after 3 ms' } }, []],
    ['what stats count', 'stats', { id: 1, ok: true, stats: { a: 1 } }, { id: 1, ok: true, stats: { a: 2 } }, []],
    ['no answer', 'ping', { id: 1, ok: true, now_us: 4 }, null, ['no answer came']],
  ])('%s', (_what, op, recorded, replayed, found) => {
    expect(differences(op, recorded as Record<string, unknown>, replayed as Record<string, unknown> | null, roots)).toEqual(found);
  });

  test('events, but for times, each as often as it came', () => {
    const stalled = { event: 'stalled', mount: 'kv0', class: 'load', phase: 'read', key: 'a/00', tid: 5, for_ms: 1000 };
    expect(eventWords(stalled, roots.recorded)).toBe('stalled: read of a/00 on kv0');
    expect(eventWords({ event: 'slots_freed', slots: [1] }, roots.recorded)).toBeNull();
    expect(unlike(['a', 'a', 'b'], ['a', 'c'])).toEqual([{ only: 'recorded', what: 'a', times: 1 }, { only: 'recorded', what: 'b', times: 1 }, { only: 'replayed', what: 'c', times: 1 }]);
    expect(timeless('waited 12 ms, 1.5 s, now 1234567890, slot 12', new Map())).toBe('waited N ms, N s, now N, slot 12');
  });

  test('of ready: what a client builds on differs, what only says where it was is noted', () => {
    const ready = { protocol: 1, version: '1', engine: 'threads', timeout_ms: 1, stall_ms: 1, limits: {}, arena: { slots: 4, slot_bytes: 1, backing: 'shmem' }, mounts: [{ name: 'kv0', fs_type: 'ext4', direct: true }] };
    expect(readyDifferences(ready, { ...ready, version: '2', engine: 'aio', mounts: [{ name: 'kv0', fs_type: 'tmpfs', direct: true }] })).toEqual({ differ: ['engine: "threads" → "aio"'], notes: ['version: "1" → "2"', 'mount kv0, fs_type: "ext4" → "tmpfs"'] });
  });
});

test('what must have been there before: found, and not stored by the record itself', () => {
  let at = 0;
  const talk: RecordEntry[] = [{ life: 1, at_us: 0, from: 'sidecar', message: { event: 'ready', mounts: [{ name: 'kv0' }] } }];
  const said = (request: object, answer: object): void => {
    const id = (at += 1);
    talk.push({ life: 1, at_us: at, from: 'client', message: { id, ...request } }, { life: 1, at_us: at, from: 'sidecar', message: { id, ok: true, ...answer } });
  };
  said({ op: 'lookup', namespace: 'a', keys: ['00', '01', '02'] }, { present: [true, false, null], prefix: 1, complete: false });
  said({ op: 'load', keys: ['a/00', 'a/03'], slots: [0, 1], bytes: 8192 }, { ok: false, done: 1, failed: [{ block: 1, code: 'NOT_FOUND' }] }); // 00: now its length is known
  said({ op: 'store', keys: ['a/01', 'a/03'], slots: [0, 1], bytes: 100 }, { done: 2, kept: 0 });
  said({ op: 'load', keys: ['a/01', 'a/03'], slots: [0, 1], bytes: 100 }, { done: 2 }); // stored by the record
  said({ op: 'load', keys: ['b/00'], inline: true }, { done: 1, blocks: [{ block: 0, bytes: 2, text: 'hi' }] });
  said({ op: 'store', blocks: [{ key: 'b/01', text: 'kept' }] }, { done: 1, kept: 1 });
  said({ op: 'load', keys: ['b/02'], slots: [1], bytes: 5 }, { ok: false, done: 0, failed: [{ block: 0, code: 'LENGTH_MISMATCH', stored_bytes: 77 }] });
  said({ op: 'remove', keys: ['b/03'] }, { done: 1 });
  said({ op: 'store', keys: ['c/00', 'c/01'], slots: [0, 1], bytes: 10 }, { done: 2, kept: 1 });
  said({ op: 'namespace', name: 'a', fingerprint: { m: 1 } }, { state: 'differs', name: 'a', generation: 3, key_namespace: 'a@3', fingerprint: { m: 2 } });
  said({ op: 'namespace', name: 'b', fingerprint: { m: 1 } }, { state: 'created', name: 'b', generation: 0, key_namespace: 'b', fingerprint: { m: 1 } });
  const life = { head: {}, entries: talk } as unknown as Life;
  const { blocks, namespaces, notes } = seedsOf([life]);
  expect(blocks).toEqual([
    { mount: 'kv0', key: 'a/00', bytes: 8192 },
    { mount: 'kv0', key: 'b/00', bytes: 2, text: 'hi' },
    { mount: 'kv0', key: 'b/01', bytes: 4 },
    { mount: 'kv0', key: 'b/02', bytes: 77 },
  ]);
  expect(namespaces).toEqual([{ mount: 'kv0', name: 'a', fingerprint: { m: 2 }, generation: 3 }]);
  expect(notes).toEqual([expect.stringContaining('1 of the blocks')]);
});

test('of what is open at the start, node has its own; the rest was handed over and is handed on', () => {
  expect(isInherited({ fd: 7, target: '/memfd:arena (deleted)', flags: 0o2000002 })).toBe(true);
  expect(isInherited({ fd: 7, target: 'socket:[1]', flags: 0o2 })).toBe(true);
  expect(isInherited({ fd: 7, target: 'pipe:[1]', flags: 0 })).toBe(true);
  expect(isInherited({ fd: 7, target: 'pipe:[1]', flags: 0o4000 })).toBe(false);
  expect(isInherited({ fd: 7, target: 'anon_inode:[eventpoll]', flags: 0 })).toBe(false);
  expect(isInherited({ fd: 2, target: '/dev/null', flags: 0 })).toBe(false);
  expect(stdioWith([5])).toEqual(['pipe', 'pipe', 'pipe', 'ignore', 'ignore', 5]);
});

test('a replay takes over what shapes the sidecar, and nothing of the place', () => {
  const ready = { engine: 'aio', timeout_ms: 250, stall_ms: 100, arena: { slots: 100, slot_bytes: 4096 }, mounts: [{ name: 'kv0', root: '/mnt/a' }, { name: 'far', root: '/mnt/b' }] } as unknown as ReadyEvent;
  const command = ['kvlane', 'serve', '--mount', 'kv0=/mnt/a', '--mount=far=/mnt/b', '--create', '--arena-fd', '7', '--lanes', '2', '--recycle=off', '--fsync', '--timeout-ms', '250', '--huge-pages', 'require'];
  const words = serveWords({ head: { command }, entries: [] } as unknown as Life, ready, new Map([['kv0', '/tmp/x/kv0'], ['far', '/tmp/x/far']]));
  expect(words).toEqual([
    '--mount', 'kv0=/tmp/x/kv0', '--mount', 'far=/tmp/x/far', '--lanes', '2', '--recycle=off', '--fsync',
    '--timeout-ms', '250', '--stall-ms', '100', '--engine', 'aio', '--slot-bytes', '4096', '--arena-mib', '1', '--test-slots', '100', '--huge-pages', 'off', '--test-start-wait-ms', '10000',
  ]);
  expect(parseCommandLine(['serve', ...words], () => '/')).toMatchObject({ do: 'serve', options: { slotsMax: 100, lanes: 2, fsync: true } });
});

test('many differences are said by what became what', () => {
  const one = (block: number) => ({ line: 1, at_ms: 1, op: 'load', id: 1, keys: ['a/00'], what: ['ok: false → true', `block ${block}: DEADLINE_EXCEEDED → nothing`, `block ${block + 1}: DEADLINE_EXCEEDED → nothing`] });
  const report: LifeReport = { life: 1, began: '', requests: 8, alike: 0, unanswered: 0, differ: [1, 2, 3, 4, 5, 6].map(one), also: [], notes: ['a note'], took_ms: { recorded: 2000, replayed: 100 }, median_ms: { recorded: 1, replayed: 2 } };
  const lines = reportLines(report, colours(false), '');
  expect(lines.slice(0, 4)).toEqual(['6 answers of 6 differ', '  8 lines in 100 ms (recorded: 2 s); the median answer took 2 ms (recorded: 1 ms)', '  6 times block: DEADLINE_EXCEEDED → nothing', '  line 1, at 1 ms: load #1 a/00']);
  expect(lines.at(-1)).toBe('  (a note)');
  expect(isAlike(report)).toBe(false);
});
