// What the console shows: answers, events, refusals with a caret, units; and the session that puts them together.
import { describe, expect, test } from 'vitest';
import { columnsOf, placeOfFault, underlined } from '../../clients/cli/console/pretty/fault.ts';
import { logLine, timeOfDay } from '../../clients/cli/console/pretty/event.ts';
import { tree } from '../../clients/cli/console/pretty/tree.ts';
import { Session } from '../../clients/cli/console/session.ts';
import { colours, coloursWanted, harmless } from '../../clients/cli/text/colour.ts';
import { columns } from '../../clients/cli/text/table.ts';
import { duration, ranges, rate, size } from '../../clients/cli/text/units.ts';
import type { ReadyEvent } from '../../protocol/messages.ts';

const c = colours(false);

test('quantities as people say them', () => {
  expect([0.4, 0, 3.14, 99.96, 250.4, 1843, 75_210, 99_999, 250_000, 3_600_000, 10_920_000, 187_200_000, -5].map(duration)).toEqual(
    ['0.4 ms', '0 ms', '3.1 ms', '100 ms', '250 ms', '1.84 s', '75.2 s', '100 s', '4 min 10 s', '1 h', '3 h 2 min', '2 d 4 h', '-5 ms'],
  );
  expect([0, 1, 1023, 1024, 1536, 1048576, 5 * 1024 ** 4].map(size)).toEqual(['0 bytes', '1 byte', '1023 bytes', '1 KiB', '1.5 KiB', '1 MiB', '5 TiB']);
  expect(ranges([7, 1, 3, 2, 2])).toBe('1-3, 7');
  expect(columns([['a', '1'], ['long', '12'], ['x', 'text']])).toEqual(['  a        1', '  long    12', '  x     text']);
  expect([0, 0.25, 99.94, 1234.6, 250_000].map(rate)).toEqual(['0', '0.3', '99.9', '1235', '250k']);
});

test('colours only where they are welcome, and nothing that a terminal would obey', () => {
  expect(coloursWanted(true, { TERM: 'xterm' })).toBe(true);
  expect(coloursWanted(true, { TERM: 'dumb' })).toBe(false);
  expect(coloursWanted(true, { TERM: 'xterm', NO_COLOR: '1' })).toBe(false);
  expect(coloursWanted(false, { FORCE_COLOR: '1' })).toBe(true);
  expect(harmless('a\x1b[2Jb\x9b')).toBe('a\\x1b[2Jb\\x9b');
});

describe('the place of a fault', () => {
  const json = '{"id":1,"op":"load","blocks":[{"key":"a/00","slot":3},{"slot":128}],"timout_ms":5}';
  test.each<[string, string | null]>([
    ['blocks[1].slot must be an integer from 0 to 127, got 128', '128'],
    ['blocks[1].key is missing', '}'],
    ['keys is missing', '}'],
    ['unknown field "timout_ms" (did you mean "timeout_ms"?)', '"timout_ms"'],
    ['unknown field "slot" in blocks[1] (did you mean "slots"?)', '"slot"'],
    ['unknown op "load"', '"load"'],
    ['line 3: not JSON at character 9: expected a comma', '"'],
    ['blocks and keys are two forms of the same; give blocks, or keys', '[{"key":"a/00","slot":3},{"slot":128}]'],
    ['no slot is free', null],
  ])('%s', (message, at) => {
    const place = placeOfFault(message, json, null);
    expect(place && json.slice(place.start, place.end)).toBe(at);
  });

  test('in words it is the word', () => {
    const spans = new Map([['keys[1]', { start: 10, end: 17 }]]);
    expect(placeOfFault('keys[1] must be namespace/hex', 'load a/00 a/zz', spans)).toEqual({ start: 10, end: 17 });
    expect(placeOfFault('mount is missing; there are "a", "b"', 'load a/00', new Map())).toEqual({ start: 9, end: 10 });
  });

  test('a long line is cut around it, wide letters take two columns', () => {
    const line = `${'x'.repeat(200)}FAULT${'y'.repeat(200)}`;
    const [shown = '', caret = ''] = underlined(line, { start: 200, end: 205 }, 60, c);
    expect(shown.length).toBeLessThanOrEqual(60);
    expect(shown.slice(caret.indexOf('^'), caret.lastIndexOf('^') + 1)).toBe('FAULT');
    expect(columnsOf('a漢é')).toBe(4);
    expect(underlined('"漢": x', { start: 5, end: 6 }, 80, c)[1]).toBe(`  ${' '.repeat(6)}^`);
  });
});

test('a tree says units, and things of one kind as a table', () => {
  const lines = tree({ uptime_ms: 75_000, since_us: 1_000_000, arena_bytes: 4096, none: {}, classes: { load: { state: 'ok', lanes: 3 }, store: { state: 'suspended', lanes: 12 } }, list: [1, 2] }, c, 3_000_000);
  expect(lines).toEqual(['  uptime: 75 s', '  since: 2 s ago', '  arena: 4 KiB', '  none: none', '  classes:', '           state      lanes', '    load   ok             3', '    store  suspended     12', '  list: 1, 2']);
});

test('of the log only what is no event already', () => {
  expect(logLine('{"time":"x","level":"info","event":"leaving"}', c)).toBeNull();
  expect(logLine('{"time":"x","level":"warn","event":"stalled"}', c)).toBeNull();
  expect(logLine('{"time":"x","level":"warn","event":"log_dropped","lines":3,"reason":"a b"}', c)).toBe('log: log dropped lines=3 reason="a b"');
  expect(logLine('(node) Warning: \x1b[1m', c)).toBe('(node) Warning: \\x1b[1m');
  expect(timeOfDay(new Date(2026, 0, 2, 3, 4, 5))).toBe('03:04:05');
});

describe('a session', () => {
  const ready = {
    event: 'ready', protocol: 1, version: '0.1.0', pid: 7, now_us: 1, engine: 'threads', timeout_ms: 2000, stall_ms: 1000,
    arena: { owner: 'sidecar', path: '', bytes: 65_536, slot_bytes: 4096, slots: 16, page_bytes: 4096, backing: 'shmem' },
    mounts: [{ name: 'kv0', root: '/mnt', device: '1:1', state: 'unknown', store_id: 'x', fs_type: 'ext4', direct: false }], limits: {},
  } as unknown as ReadyEvent;

  function start() {
    const shown: string[] = [];
    const sent: Record<string, unknown>[] = [];
    let prompt = '';
    let left = 0;
    let nowMs = 0;
    let later: (() => void)[] = [];
    const session = new Session({
      c, show: (lines) => void shown.push(...lines), send: (line) => (sent.push(line.startsWith('{"') ? (JSON.parse(line) as Record<string, unknown>) : { line }), true),
      leave: () => void (left += 1), prompt: (text) => void (prompt = text), width: () => 80, nowMs: () => nowMs, later: (_ms, what) => void later.push(what), nowUs: () => 5_000_000, date: () => new Date(2026, 0, 1, 12, 0, 0),
    });
    session.line(JSON.stringify(ready));
    return {
      session, sent,
      shown: () => shown.splice(0),
      prompt: () => prompt,
      left: () => left,
      says: (message: object) => session.line(JSON.stringify(message)),
      pass(ms: number) {
        nowMs += ms;
        for (const what of later.splice(0)) what();
      },
    };
  }

  test('says what there is, and each answer with its time', () => {
    const { session, sent, shown, says, pass } = start();
    expect(shown().slice(0, 2)).toEqual(['kvlane 0.1.0 is ready: process 7, engine threads, 16 slots of 4 KiB, answers within 2 s', '  kv0  /mnt  a store on ext4, without O_DIRECT']);
    session.typed('lookup demo/00 demo/01 demo/02');
    expect(sent).toEqual([{ id: 1, op: 'lookup', keys: ['demo/00', 'demo/01', 'demo/02'] }]);
    pass(12);
    says({ id: 1, ok: true, present: [true, false, null], prefix: 1, complete: false });
    expect(shown()).toEqual(['#1 1 of 3 blocks is there, 1 not known in time (12 ms)', '  demo/00  present', '  demo/01  absent', '  demo/02  not known']);
    session.typed('load demo/00 demo/01');
    says({ id: 2, ok: false, done: 1, blocks: [{ block: 0, bytes: 2, text: 'hi' }], failed: [{ block: 1, code: 'DEADLINE_EXCEEDED', phase: 'read', waited_ms: 2000, slot: 'quarantined' }] });
    expect(shown()).toEqual(['#2 loaded 1 of 2 blocks (0 ms)', '  demo/00  2 bytes  "hi"', '  demo/01  DEADLINE_EXCEEDED  in read after 2 s, slot quarantined', expect.stringContaining('Treat a load as a miss') as string]);
    expect(session.known.keys).toEqual(['demo/01', 'demo/00', 'demo/02']);
  });

  test('JSON goes as it was typed; a missing id is put in, and a taken one is answered by its line', () => {
    const { session, sent, shown, says } = start();
    shown();
    session.typed('{"op":"ping"}');
    session.typed('{}');
    session.typed('{"id":1,"op":"stats"}');
    session.typed('{oops');
    expect(sent).toEqual([{ id: 1, op: 'ping' }, { id: 2 }, { id: 1, op: 'stats' }, { line: '{oops' }]);
    says({ id: null, ok: false, error: { code: 'DUPLICATE_ID', message: 'id 1 is in use' }, duplicate_of: 1, line: 3 });
    says({ id: null, ok: false, error: { code: 'INVALID_REQUEST', message: "line 4: not JSON at character 2: expected a name in double quotes, found 'oops', in '{oops'. Send one." }, line: 4 });
    expect(shown()).toEqual([
      expect.stringMatching(/^DUPLICATE_ID \(0 ms\): id 1 is in use; 1 is not answered yet/) as string, expect.any(String) as string,
      '  {oops', '   ^', "INVALID_REQUEST (0 ms): not JSON: expected a name in double quotes, found 'oops'",
    ]);
    says({ id: 1, ok: true, now_us: 5 });
    expect(shown()).toEqual(['#1 pong (0 ms)']);
  });

  test('the prompt says who waits, and what is suspended', () => {
    const { session, prompt, says, pass, shown, sent } = start();
    expect(prompt()).toBe('kvlane> ');
    session.typed('load demo/00');
    expect(prompt()).toBe('kvlane> ');
    pass(250);
    expect(prompt()).toBe('kvlane (1 waiting)> ');
    shown();
    says({ event: 'mount', mount: 'kv0', class: 'load', state: 'suspended', was: 'ok', reason: 'a read is stuck' });
    expect(shown()).toEqual(['12:00:00 kv0, load: ok → suspended: a read is stuck']);
    expect(prompt()).toBe('kvlane (1 waiting, kv0 load suspended)> ');
    expect(session.cancelAll()).toBe(true);
    expect(sent.at(-1)).toEqual({ id: 2, op: 'cancel', task: 1 });
    says({ id: 1, ok: false, done: 0, failed: [{ block: 0, code: 'CANCELLED', slot: 'free' }] });
    says({ id: 2, ok: true, state: 'cancelled' });
    says({ event: 'mount', mount: 'kv0', class: 'load', state: 'ok', was: 'suspended', reason: '' });
    expect(prompt()).toBe('kvlane> ');
    expect(session.cancelAll()).toBe(false);
  });

  test('an id that no answer can carry is answered by its line, and nobody waits for it', () => {
    const { session, sent, shown, says, pass, prompt } = start();
    shown();
    for (const id of [1.5, -1, 2 ** 53, 'x'.repeat(65)]) session.typed(JSON.stringify({ id, op: 'ping' }));
    pass(300);
    expect(prompt()).toBe('kvlane> ');
    for (let line = 1; line <= 4; line += 1) says({ id: null, ok: false, error: { code: 'INVALID_REQUEST', message: 'id must be an integer' }, line });
    expect(shown().filter((line) => line.startsWith('INVALID_REQUEST'))).toHaveLength(4);
    expect(session.cancelAll()).toBe(false);
    expect(sent).toHaveLength(4);
  });

  test('ctrl-C cancels each request once: what does not answer even that keeps nobody', () => {
    const { session, sent } = start();
    session.typed('ping');
    expect(session.cancelAll()).toBe(true);
    session.typed('stats');
    expect(session.cancelAll()).toBe(true);
    expect(sent.slice(1)).toEqual([{ id: 2, op: 'cancel', task: 1 }, { id: 3, op: 'stats' }, { id: 4, op: 'cancel', task: 3 }]);
    expect(session.cancelAll()).toBe(false);
  });

  test('what is stuck, with how long and where', () => {
    const { says, session, shown } = start();
    shown();
    session.typed('stuck');
    says({ id: 1, ok: true, stuck: [{ mount: 'kv0', class: 'load', phase: 'read', key: 'demo/00', slot: 17, task: 2, tid: 4720, syscall: 'preadv2', since_us: 1, for_ms: 1843, settled: true }] });
    expect(shown()).toEqual(['#1 1 call in the kernel, the longest for 1.84 s (0 ms)', '  1.84 s  kv0  load  read (preadv2)  thread 4720  demo/00  slot 17, answered already']);
    says({ event: 'recovered', mount: 'kv0', class: 'load', phase: 'read', key: 'demo/00', tid: 4720, syscall: 'preadv2', since_us: 1, for_ms: 75_210, settled: true });
    says({ event: 'slots_freed', slots: [3, 1, 2] });
    expect(shown()).toEqual(['12:00:00 returned after 75.2 s: read (preadv2) of demo/00 on kv0, thread 4720', '12:00:00 slots 1-3 are free again']);
  });

  test('keys of earlier sessions are known', () => {
    const { session } = start();
    session.remember(['store old/00 text', '{"op":"lookup","namespace":"old","keys":["01"]}', 'nonsense here', '{broken', '.wire']);
    expect(session.known.keys).toEqual(['old/01', 'old/00']);
  });

  test('words that are none are not sent, and commands of its own neither', () => {
    const { session, sent, shown, left } = start();
    shown();
    session.typed('laod demo/00');
    expect(shown()).toEqual(['  laod demo/00', '  ^^^^', 'not sent: no such request; did you mean load?']);
    session.typed('.nonsense');
    session.typed('   ');
    session.typed('quit');
    expect(sent).toEqual([]);
    expect(left()).toBe(1);
  });
});
