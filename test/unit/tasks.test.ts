// tasks.test.ts — one answer, in time, and memory that belongs to the kernel until it gives it back.
import { describe, expect, test } from 'vitest';
import { NAMES_MAX } from '../../sidecar/task_table.ts';
import { MS, identifies, started } from '../support/service_harness.ts';

describe('one answer, in time', () => {
  test('a load is answered when its last block is through', async () => {
    const { native, load, deliver, answer, answers } = await started();
    load(1, [0, 1]);
    const [first, second] = native.held('load');
    native.release(first!);
    deliver();
    expect(answers(1)).toEqual([]);
    native.release(second!);
    deliver();
    expect(answer(1)).toEqual({ id: 1, ok: true, done: 2 });
  });

  test('a load whose lane never returns is answered at its deadline, not before, and its slot is not reused', async () => {
    const { clock, native, service, load, advance, answers, failed, answer } = await started();
    load(1, [17], { timeoutMs: 250, hexes: ['9f3c'] });
    advance(249.999);
    expect(answers(1)).toEqual([]);
    advance(0.001);
    expect(failed(1)).toMatchObject([{ block: 0, code: 'DEADLINE_EXCEEDED', phase: 'read', waited_ms: 250, slot: 'quarantined' }]);
    expect(failed(1)[0]!.message).toContain('in read for 250 ms');
    expect(service.outstanding()).toBe(0);
    load(2, [17], { hexes: ['aaaa'] });
    expect(answer(2)).toMatchObject({ ok: false, error: { code: expect.stringMatching('SLOT_BUSY|MOUNT_SUSPENDED') } });
    expect(clock.nowUs() > 0 && native.submitted.filter((spec) => spec.kind === 'load')).toHaveLength(1);
  });

  test('a block still in the queue at the deadline is free at once and was never started', async () => {
    const { native, load, advance, failed } = await started({ lanes: 1 });
    load(1, [0, 1, 2], { timeoutMs: 100 });
    advance(100);
    expect(failed(1)).toMatchObject([
      { block: 0, phase: 'read', slot: 'quarantined' },
      { blocks: [[1, 2]], phase: 'queue', slot: 'free' },
    ]);
    expect(native.held('load')).toHaveLength(1);
  });

  test('a request whose deadline has passed starts nothing', async () => {
    const { clock, native, load, store, lookup, failed, answer, advance } = await started();
    advance(1000);
    load(1, [0, 1], { deadlineUs: clock.nowUs() - 1 });
    expect(failed(1)).toMatchObject([{ blocks: [[0, 1]], code: 'DEADLINE_EXCEEDED', phase: 'queue', waited_ms: 0, slot: 'free' }]);
    store(2, [0], { deadlineUs: clock.nowUs() });
    expect(failed(2)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', phase: 'queue' }]);
    lookup(3, ['aa'], { timeoutMs: 0 });
    expect(answer(3)).toEqual({ id: 3, ok: true, present: [null], prefix: 0, complete: false });
    expect(native.submitted.filter((spec) => spec.kind !== 'identify')).toEqual([]);
  });

  test('a completion in the same batch as the timer wins: the block is there', async () => {
    const { clock, native, service, load, answer } = await started();
    load(1, [0], { timeoutMs: 100 });
    clock.onTimer = () => {};
    clock.jump(100);
    native.release(native.held('load')[0]!);
    service.onNative([{ type: 'timer' }, ...native.takeEvents()]);
    expect(answer(1)).toMatchObject({ ok: true, done: 1 });
  });

  test('a completion that waits for company is heard before the deadline of its task, whatever the turn was for', async () => {
    const { clock, native, load, ask, answer } = await started();
    load(1, [0, 1], { timeoutMs: 100 });
    clock.onTimer = () => {};
    for (const held of native.held('load')) native.release(held); // and no batch brings it
    clock.jump(100);
    ask({ id: 2, op: 'ping' });
    expect(answer(1)).toEqual({ id: 1, ok: true, done: 2 });
  });

  test('an operation that finished in the instant of its deadline leaves its slot free', async () => {
    const { clock, native, service, load, failed, sent } = await started();
    load(1, [5], { timeoutMs: 100 });
    clock.onTimer = () => {};
    clock.jump(100);
    native.release(native.held('load')[0]!);
    native.collect = () => []; // it finished after the look into the queue
    service.onNative([{ type: 'timer' }]); // the completion is in the next batch
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', slot: 'free' }]);
    service.onNative(native.takeEvents());
    expect(sent.filter((message) => 'event' in message && message.event === 'slots_freed')).toEqual([]);
    load(2, [5]);
    expect(native.held('load')).toHaveLength(1);
  });

  test('an id is unique while it is unanswered and free afterwards', async () => {
    const { native, load, ask, deliver, sent, answer, service } = await started();
    load(2, [0]);
    expect(service.holdsId(2)).toBe(true);
    ask({ id: 2, op: 'ping', line: 17 });
    expect(sent.at(-1)).toMatchObject({ id: null, ok: false, duplicate_of: 2, line: 17, error: { code: 'DUPLICATE_ID' } });
    ask({ id: '2', op: 'ping' });
    expect(answer('2')).toMatchObject({ ok: true });
    native.releaseAll('load');
    deliver();
    expect(service.holdsId(2)).toBe(false);
    load(2, [0]);
    expect(native.held('load')).toHaveLength(1);
  });

  test.each([
    [{ status: 'not_found', phase: 'open' }, { code: 'NOT_FOUND', phase: 'open', slot: 'free' }],
    [{ status: 'newer_format', phase: 'header' }, { code: 'NOT_FOUND' }],
    [{ status: 'length_mismatch', storedBytes: 77, phase: 'header' }, { code: 'LENGTH_MISMATCH', stored_bytes: 77 }],
    [{ status: 'io_error', errno: 5 }, { code: 'IO_ERROR', errno: 'EIO' }],
    [{ status: 'saturated', errno: 11, phase: 'queue' }, { code: 'SATURATED', errno: 'EAGAIN' }],
    [{ status: 'corrupt', phase: 'header' }, { code: 'CORRUPT' }],
  ] as const)('a lane that says %o is reported as %o', async (ending, entry) => {
    const { native, load, deliver, failed } = await started();
    load(1, [0]);
    native.releaseAll('load', ending);
    deliver();
    expect(failed(1)).toMatchObject([{ block: 0, ...entry }]);
  });

  test('a store counts what was kept', async () => {
    const { native, store, deliver, answer } = await started();
    store(1, [0, 1]);
    const [first, second] = native.held('store');
    native.release(first!, { kept: true });
    native.release(second!);
    deliver();
    expect(answer(1)).toEqual({ id: 1, ok: true, done: 2, kept: 1 });
  });

  test('a remove of what is not there is done', async () => {
    const { native, remove, deliver, answer } = await started();
    remove(1, ['aa', 'bb']);
    native.releaseAll('remove', { status: 'not_found' });
    deliver();
    expect(answer(1)).toEqual({ id: 1, ok: true, done: 2 });
  });
});

describe('a slot belongs to the kernel until its own call returns', () => {
  test('slots_freed comes after the answer that quarantined them, one event for a batch', async () => {
    const { native, load, advance, deliver, sent, events } = await started();
    load(1, [3, 4, 5], { timeoutMs: 100 });
    advance(100);
    expect(events('slots_freed')).toEqual([]);
    advance(3_600_000);
    native.releaseAll('load');
    deliver();
    expect(events('slots_freed')).toEqual([{ event: 'slots_freed', slots: [3, 4, 5] }]);
    const answered = sent.findIndex((message) => 'id' in message && message.id === 1);
    expect(sent.findIndex((message) => 'event' in message && message.event === 'slots_freed')).toBeGreaterThan(answered);
  });

  test('a slot that is in flight is refused to another request, and nothing of that request is started', async () => {
    const { native, load, store, answer } = await started();
    load(1, [7]);
    store(2, [6, 7]);
    expect(answer(2)).toMatchObject({ ok: false, error: { code: 'SLOT_BUSY', message: expect.stringContaining('slot 7 of block 1 is in flight') } });
    expect(native.held('store')).toEqual([]);
    store(3, [6]);
    expect(native.held('store')).toHaveLength(1);
  });

  test('a slot whose block is through is refused until its own request is answered', async () => {
    const { native, load, store, answer, answers, deliver } = await started();
    load(1, [7, 8], { hexes: ['aa', 'bb'] });
    const [first, second] = native.held('load');
    native.release(first!);
    deliver();
    expect(answers(1)).toEqual([]);
    store(2, [7], { hexes: ['cc'] });
    expect(answer(2)).toMatchObject({ ok: false, error: { code: 'SLOT_BUSY', message: expect.stringContaining('slot 7 of block 0 is part of a request that is not answered yet') } });
    expect(native.held('store'), 'its bytes are not yet the client\'s to replace').toEqual([]);
    native.release(second!);
    deliver();
    expect(answer(1)).toMatchObject({ ok: true, done: 2 });
    store(3, [7], { hexes: ['cc'] });
    expect(native.held('store')).toHaveLength(1);
  });

  test('a quarantined slot is refused until slots_freed, then taken', async () => {
    const { native, load, advance, answer, deliver } = await started({ holdBreakerClosed: true });
    load(1, [7], { timeoutMs: 100 });
    advance(100);
    load(2, [7], { hexes: ['bb'] });
    expect(answer(2)).toMatchObject({ error: { code: 'SLOT_BUSY', message: expect.stringContaining('quarantined') } });
    native.releaseAll('load');
    deliver();
    load(3, [7], { hexes: ['bb'] });
    expect(native.held('load')).toHaveLength(1);
  });

  test('a cancelled load is answered before its cancel, and its slot is quarantined', async () => {
    const { load, ask, sent, failed } = await started();
    load(1, [0]);
    ask({ id: 2, op: 'cancel', task: 1 });
    expect(sent.slice(-2)).toMatchObject([{ id: 1, ok: false }, { id: 2, ok: true, state: 'cancelled' }]);
    expect(failed(1)).toMatchObject([{ code: 'CANCELLED', phase: 'read', slot: 'quarantined' }]);
    ask({ id: 3, op: 'cancel', task: 1 });
    ask({ id: 4, op: 'cancel', task: 99 });
    expect(sent.slice(-2)).toMatchObject([{ id: 3, state: 'already_settled' }, { id: 4, state: 'unknown' }]);
  });

  test('inline blocks go through staging that is quarantined like a slot', async () => {
    const { native, store, load, advance, deliver, answer, ask } = await started();
    store(1, [null], { texts: ['hello'], hexes: ['00ff'] });
    native.releaseAll('store');
    deliver();
    expect(answer(1)).toEqual({ id: 1, ok: true, done: 1, kept: 0 });
    load(2, [null], { hexes: ['00ff'], bytes: 5 });
    native.releaseAll('load');
    deliver();
    expect(answer(2)).toMatchObject({ ok: true, done: 1, blocks: [{ block: 0, bytes: 5, text: 'hello' }] });
    load(3, [null], { hexes: ['00aa'], bytes: 5, timeoutMs: 50 });
    advance(50);
    ask({ id: 4, op: 'stats' });
    expect(answer(4)).toMatchObject({ stats: { staging: { quarantined: 1 } } });
    native.releaseAll('load');
    deliver();
    ask({ id: 5, op: 'stats' });
    expect(answer(5)).toMatchObject({ stats: { staging: { quarantined: 0, in_flight: 0 } } });
  });

  test('an inline load that does not say how long the block is learns it and reads again', async () => {
    const { native, load, deliver, answer } = await started();
    native.writeStaging(0, Buffer.from([0xff, 0xfe, 0x00]));
    load(1, [null], { bytes: null });
    native.releaseAll('load', { status: 'length_mismatch', storedBytes: 3, phase: 'header' });
    deliver();
    expect(native.held('load')[0]!.spec).toMatchObject({ bytes: 3 });
    native.releaseAll('load');
    deliver();
    expect(answer(1)).toMatchObject({ ok: true, blocks: [{ block: 0, bytes: 3, base64: '//4A' }] });
  });

  test('inline stores beyond the staging areas are SATURATED at once', async () => {
    const { store, answer } = await started();
    const texts = Array.from({ length: 8 }, () => 'x');
    for (let id = 1; id <= 5; id += 1) store(id, texts.map(() => null), { texts, hexes: texts.map((_, i) => `${id}${i}`) });
    expect(answer(5)).toMatchObject({ ok: false, error: { code: 'SATURATED' } });
  });
});

describe('look-ups', () => {
  test('beyond a million names in hand the next is SATURATED at once, and there is room again when one is answered', async () => {
    const { lookup, native, deliver, answer, answers } = await started({ timeoutMs: 600_000 }, (spec) => (spec.kind === 'identify' ? identifies(spec) : null));
    const hexes = Array.from({ length: 4_096 }, (_, i) => i.toString(16).padStart(4, '0'));
    const most = NAMES_MAX / hexes.length;
    for (let id = 1; id <= most + 1; id += 1) lookup(id, hexes);
    expect(answers(most)).toEqual([]);
    expect(answer(most + 1)).toMatchObject({ ok: false, error: { code: 'SATURATED', message: expect.stringContaining('1048576') } });
    lookup('small', ['aa']);
    expect(answer('small')).toMatchObject({ error: { code: 'SATURATED' } });
    for (let turn = 0; turn < 16 && answers(1).length === 0; turn += 1) {
      native.releaseAll('lookup'); // what the lanes have, 256 names each
      deliver();
    }
    expect(answers(1)).toHaveLength(1);
    lookup('again', hexes);
    expect(answers('again')).toEqual([]);
  });
});

describe('leaving', () => {
  test('a drain refuses new work, waits for tasks, and settles the rest at its bound', async () => {
    const { native, service, load, store, advance, deliver, answer, failed } = await started();
    let drained = 0;
    load(1, [0]);
    store(2, [1]);
    service.drain(500, () => (drained += 1));
    load(3, [2]);
    expect(answer(3)).toMatchObject({ error: { code: 'SHUTTING_DOWN' } });
    native.releaseAll('store');
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
    expect(drained).toBe(0);
    advance(500);
    expect(failed(1)).toMatchObject([{ code: 'SHUTTING_DOWN', slot: 'quarantined' }]);
    expect(drained).toBe(1);
    advance(5000);
    expect(drained).toBe(1);
  });

  test('a drain with nothing in flight is over at once, and a shutdown request hands its limit to main', async () => {
    const { service, ask, shutdowns, answer } = await started();
    ask({ id: 1, op: 'shutdown', timeoutMs: 70 });
    expect(answer(1)).toEqual({ id: 1, ok: true });
    expect(shutdowns).toEqual([70]);
    let drained = false;
    service.drain(70, () => (drained = true));
    expect(drained).toBe(true);
  });
});

describe('questions', () => {
  test('stuck lists what the kernel has: mount, class, key, slot, task, thread, call, since when, settled or not', async () => {
    const { clock, load, advance, ask, answer } = await started();
    const sinceUs = clock.nowUs();
    load('t', [17], { timeoutMs: 250, hexes: ['9f3c'] });
    advance(1843);
    ask({ id: 8, op: 'stuck' });
    const { stuck } = answer(8) as unknown as { stuck: object[] };
    expect({ stuck: stuck.slice(0, 1) }).toMatchObject({
      stuck: [{ mount: 'kv0', class: 'load', kind: 'load', phase: 'read', key: 'demo/9f3c', slot: 17, task: 't', syscall: 'preadv', since_us: sinceUs, for_ms: 1843, settled: true }],
    });
    expect(stuck.slice(1), 'the probes that found the mount stuck are in it too').toMatchObject([{ kind: 'probe' }, { kind: 'probe' }]);
  });

  test('stalled and recovered are told as events, with the task while it is known', async () => {
    const { native, load, advance, deliver, events } = await started();
    load(2, [17], { timeoutMs: 9000 });
    advance(1000);
    native.stall(native.held('load')[0]!);
    deliver();
    expect(events('stalled')).toMatchObject([{ mount: 'kv0', class: 'load', key: 'demo/0000', slot: 17, task: 2, for_ms: 1000, settled: false }]);
    advance(500);
    native.releaseAll('load');
    deliver();
    expect(events('recovered')).toMatchObject([{ task: 2, for_ms: 1500 }]);
  });

  test('help names every op with a line that can be typed, and every line is a request of that op', async () => {
    const { ask, answer } = await started();
    ask({ id: 1, op: 'help' });
    const { help } = answer(1) as unknown as { help: { ops: Record<string, { type: string }> } };
    for (const [op, { type }] of Object.entries(help.ops)) expect(JSON.parse(type)).toMatchObject({ op });
  });

  test('stats count requests, blocks, states and slots', async () => {
    const { native, load, deliver, ask, answer } = await started();
    load(1, [0, 1]);
    native.release(native.held('load')[0]!, { status: 'not_found' });
    native.releaseAll('load');
    deliver();
    load(2, [5]);
    ask({ id: 3, op: 'stats' });
    expect(answer(3)).toMatchObject({
      stats: {
        outstanding: 1, blocks_done: 1, blocks_failed: { NOT_FOUND: 1 }, loaded_bytes: 4096, slots: { free: 127, in_flight: 1, quarantined: 0 },
        ops: { load: { requests: 2, ok: 0, not_ok: 1 } }, devices: [{ device: '254:1', mounts: ['kv0'], classes: { load: { state: 'ok', running: 1 } } }],
      },
    });
  });

  test('stats tell since the start what each mount and class did, and how long it took, so that a scraper can add up', async () => {
    const { native, load, store, deliver, ask, answer, advance } = await started();
    store(1, [2]);
    native.releaseAll('store');
    deliver();
    load(2, [0, 1]);
    advance(3);
    native.release(native.held('load')[0]!, { status: 'not_found' });
    native.releaseAll('load');
    deliver();
    ask({ id: 3, op: 'stats' });
    const { stats } = answer(3) as unknown as { stats: { histogram_bounds_ms: number[]; ops: Record<string, { histogram: { counts: number[]; sum_ms: number } }>; devices: { classes: Record<string, object> }[]; mounts: object[] } };
    const { counts, sum_ms: sumMs } = stats.ops['load']!.histogram;
    expect(counts).toHaveLength(stats.histogram_bounds_ms.length + 1);
    expect(counts[stats.histogram_bounds_ms.indexOf(5)]).toBe(1);
    expect(sumMs).toBe(3);
    expect(stats.mounts[0]).toMatchObject({ blocks_loaded: 1, loaded_bytes: 4096, blocks_stored: 1, stored_bytes: 4096, blocks_kept: 0, blocks_removed: 0 });
    expect(stats.devices[0]!.classes).toMatchObject({
      load: { operations_done: 1, operations_failed: 1, operations_late: 0, done_bytes: 4096, kernel_time: { counts: expect.any(Array) } },
      store: { operations_done: 1, done_bytes: 4096 },
    });
  });

  test('what a lane has in hand is listed for who asks with over_ms, from that time on; late or not', async () => {
    const { load, ask, answer, advance } = await started();
    load(1, [0]);
    advance(40);
    load(2, [1], { hexes: ['bb'] });
    ask({ id: 3, op: 'stuck' });
    expect(answer(3)).toEqual({ id: 3, ok: true, stuck: [] });
    ask({ id: 4, op: 'stuck', overMs: 0 });
    expect(answer(4)).toMatchObject({ stuck: [{ task: 1, for_ms: 40, settled: false }, { task: 2, for_ms: 0 }] });
    ask({ id: 5, op: 'stuck', overMs: 40 });
    expect((answer(5) as unknown as { stuck: object[] }).stuck).toMatchObject([{ task: 1 }]);
    ask({ id: 6, op: 'stuck', overMs: 41 });
    expect(answer(6)).toMatchObject({ stuck: [] });
  });

  test('who may only look counts as no request, and gets as many calls as were asked for, the oldest', async () => {
    const { service, load, advance } = await started();
    load(1, [0]);
    advance(10);
    load(2, [1], { hexes: ['bb'] });
    expect(service.look.stuck(0, 1)).toMatchObject({ stuck: [{ task: 1 }], more: 1 });
    expect(service.look.stats()).toMatchObject({ outstanding: 2, ops: { load: { requests: 2 } } });
    expect(Object.keys(service.look.stats()['ops'] as object)).toEqual(['load']);
    expect(service.look.mounts()).toMatchObject([{ name: 'kv0', device: '254:1' }]);
  });

  test('the engine that is told of is the one that runs', async () => {
    const asked = await started({ engine: 'aio' });
    expect(asked.service.engine()).toBe('aio');
    asked.native.fallenBack = 'threads'; // fs.aio-max-nr is used up
    expect(asked.service.engine()).toBe('threads');
  });

  test('an idle sidecar has nothing that wakes it', async () => {
    const { clock, native, load, deliver, advance } = await started();
    expect(clock.armedUs()).toBe(0);
    load(1, [0]);
    expect(clock.armedUs()).toBeGreaterThan(clock.nowUs());
    native.releaseAll('load');
    deliver();
    advance(600); // a last look at the list of mounts
    expect(clock.armedUs()).toBe(0);
  });
});

describe('lookup', () => {
  const hexes = Array.from({ length: 600 }, (_, i) => i.toString(16).padStart(4, '0'));

  test('goes to the lanes in chunks of 256 names, the prefix first', async () => {
    const { native, lookup, deliver, answer } = await started();
    lookup(1, hexes);
    const chunks = native.held('lookup');
    expect(chunks.map((one) => one.spec.kind === 'lookup' && one.spec.names.length)).toEqual([256, 256, 88]);
    expect(chunks[0]!.spec).toMatchObject({ names: hexes.slice(0, 256) });
    chunks.forEach((one, i) => native.release(one, { found: new Uint8Array(i < 2 ? 256 : 88).fill(i === 1 ? 1 : 2) }));
    deliver();
    expect(answer(1)).toMatchObject({ ok: true, prefix: 256, complete: true });
  });

  test('answers at its deadline with what is proven; null is not known', async () => {
    const { native, lookup, advance, answer } = await started();
    lookup(1, ['aa', 'bb', 'cc'], { timeoutMs: 100 });
    native.held('lookup')[0]!.found = Uint8Array.of(2, 2, 0);
    advance(100);
    expect(answer(1)).toEqual({ id: 1, ok: true, present: [true, true, null], prefix: 2, complete: false });
  });

  test('that a sick mount left without any fact is an error with its reason', async () => {
    const { native, lookup, deliver, answer } = await started();
    lookup(1, ['aa']);
    native.releaseAll('lookup', { status: 'io_error', errno: 5, found: Uint8Array.of(0) });
    deliver();
    expect(answer(1)).toMatchObject({ ok: false, error: { code: 'IO_ERROR', errno: 'EIO' } });
  });
});

describe('namespace', () => {
  const request = { op: 'namespace', mount: 'kv0', name: 'llama', fingerprint: '{"m":1}', bump: false } as const;

  test('answers what is stored and what to write into keys', async () => {
    const { native, ask, deliver, answer } = await started();
    ask({ id: 1, ...request });
    expect(native.held('namespace')[0]!.spec).toMatchObject({ namespace: 'llama', fingerprint: '{"m":1}', bump: false });
    native.releaseAll('namespace', { text: '{"state":"differs","generation":3,"fingerprint":{"m":2}}' });
    deliver();
    expect(answer(1)).toEqual({ id: 1, ok: true, state: 'differs', name: 'llama', generation: 3, key_namespace: 'llama@3', fingerprint: { m: 2 } });
  });

  test('that overran while renaming says that the record may change late, and the next one waits behind it', async () => {
    const { native, ask, advance, answer } = await started({ holdBreakerClosed: true });
    ask({ id: 1, ...request, timeoutMs: 100 });
    native.reach(native.held('namespace')[0]!, 'rename', true);
    advance(100);
    expect(answer(1)).toMatchObject({ ok: false, error: { code: 'DEADLINE_EXCEEDED', message: expect.stringContaining('may change late') } });
    ask({ id: 2, ...request, timeoutMs: 100 });
    advance(100);
    expect(answer(2)).toMatchObject({ error: { code: 'KEY_BUSY' } });
  });
});

test('with a thousand operations really stuck every request is answered at its deadline', async () => {
  const { clock, native, load, advance, answer, sent } = await started({ slots: 1000, lanes: 4, stuckMax: 1000, stuckProcessMax: 1000, holdBreakerClosed: true });
  for (let id = 0; id < 1000; id += 1) load(id, [id], { hexes: [`a${id.toString(16).padStart(3, '0')}`], deadlineUs: clock.in(100 + id) });
  advance(99);
  expect(sent.filter((message) => 'id' in message)).toEqual([]);
  for (let id = 0; id < 1000; id += 1) {
    advance(1);
    expect(answer(id)).toMatchObject({ ok: false });
  }
  expect(native.inKernel('load').length).toBeGreaterThan(990);
  expect(MS).toBe(1000);
});

test('sixty-four blocks cost the policy tens of microseconds, not milliseconds', async () => {
  const { native, load, deliver, answer } = await started({}, (spec) => (spec.kind === 'load' ? {} : identifies(spec)));
  const slots = Array.from({ length: 64 }, (_, i) => i);
  for (let id = 0; id < 20; id += 1) {
    load(id, slots);
    deliver();
    expect(answer(id)).toMatchObject({ ok: true, done: 64 });
  }
  expect(native.operations.size).toBe(0);
});
