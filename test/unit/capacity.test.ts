// Capacity in the whole policy half: off by default, a lane of its own, stores that wait for room, times that are refreshed.
import { expect, test } from 'vitest';
import type { OpSpec } from '../../native/index.ts';
import type { ServiceOptions } from '../../sidecar/service_types.ts';
import { TOUCH_EVERY_US } from '../../sidecar/touches.ts';
import { leased, listed, type Ending } from '../support/fake_native.ts';
import { identifies, started, type Harness } from '../support/service_harness.ts';

const MIB = 1 << 20;
const LIMIT = { capacity: new Map([['kv0', { bytes: 100 * MIB }]]) };
const COLLECTS: ReadonlySet<string> = new Set(['lease', 'list', 'remove_file', 'touch']);

/** A store of so many blocks of 1 MiB, 00 the oldest; nobody has the lease. */
function holds(count: number, more: (spec: OpSpec) => Ending | null | undefined = () => undefined): (spec: OpSpec) => Ending | null {
  const names = Array.from({ length: count }, (_, i) => i.toString(16).padStart(4, '0'));
  const gone = new Set<string>();
  return (spec) => {
    const ending = more(spec);
    if (ending !== undefined) return ending;
    if (spec.kind === 'lease') return spec.action === 'look' ? leased(0, '') : leased(spec.number, undefined, '1800000000000000000');
    if (spec.kind === 'list') {
      if (spec.path === 'blocks') return listed([{ type: 'd', name: 'demo' }]);
      if (spec.path === 'blocks/demo') return listed([{ type: 'd', name: '00' }]);
      const files = names.filter((name) => !gone.has(name)).map((name, i) => ({ name: `${name}.kvb`, allocatedBytes: MIB, modifiedNs: `17${String(i).padStart(4, '0')}0000000000000`, inode: String(7 + i) }));
      const from = Number(spec.cookie || 0);
      return listed(files.slice(from, from + spec.entriesMax), from + spec.entriesMax < files.length ? String(from + spec.entriesMax) : '-');
    }
    if (spec.kind === 'remove' && spec.fence !== undefined) {
      gone.add(spec.hex);
      return {};
    }
    if (spec.kind === 'touch') return { text: `{"touched":${spec.names.length},"absent":0,"fresh":0,"failed":0}` };
    return identifies(spec);
  };
}

const capacity = (it: Harness): Record<string, unknown> | undefined => {
  it.ask({ id: 'stats', op: 'stats' });
  const { stats } = it.sent.findLast((message) => 'id' in message && message.id === 'stats') as unknown as { stats: { mounts: { capacity?: Record<string, unknown> }[] } };
  return stats.mounts[0]!.capacity;
};
const asked = (it: Harness, kind: OpSpec['kind']): OpSpec[] => it.native.submitted.filter((spec) => spec.kind === kind);

test('off, nothing of it runs: no lane, no call, nothing in stats', async () => {
  const it = await started();
  const pools = it.native.pools.length;
  it.load(1, [0]);
  it.native.releaseAll('load');
  it.advance(7_200_000);
  expect(it.native.submitted.filter((spec) => COLLECTS.has(spec.kind))).toEqual([]);
  expect(it.native.pools).toHaveLength(pools);
  expect(capacity(it)).toBeUndefined();
  it.store(2, [0]);
  it.native.releaseAll('store', { status: 'no_space', errno: 28 });
  it.deliver();
  expect(it.failed(2)).toMatchObject([{ code: 'NO_SPACE' }]);
});

test('only the mount that has a limit is looked at', async () => {
  const mounts = [{ name: 'kv0', root: '/a', create: false }, { name: 'kv1', root: '/b', create: false }];
  const it = await started({ mounts, capacity: new Map([['kv1', { bytes: MIB }]]) }, holds(0));
  it.advance(10);
  expect(new Set(asked(it, 'lease').map((spec) => spec.mount))).toEqual(new Set([1]));
});

test('what is beyond the limit goes, by version and under the fence, and the index forgets it', async () => {
  const it = await started({ ...LIMIT, indexMs: 5_000 }, holds(110));
  it.load(1, [0], { hexes: ['0000'] });
  it.native.releaseAll('load', {});
  it.deliver();
  it.advance(2_000);
  expect(asked(it, 'remove')).toHaveLength(15);
  expect(asked(it, 'remove')[0]).toMatchObject({ hex: '0000', inode: '7', modifiedNs: '1700000000000000000', fence: 'collector/2' });
  expect(capacity(it)).toMatchObject({ limit_bytes: 100 * MIB, used_bytes: 95 * MIB, evicted_blocks: 15, role: 'holder', lease_number: 1 });
  it.lookup(2, ['0000']);
  expect(it.native.held('lookup')).toHaveLength(1); // it asks the mount
});

test('the collector has one lane of its own, and a hang there costs nobody else anything', async () => {
  const it = await started({ ...LIMIT, lanes: 1 }, holds(50, (spec) => (spec.kind === 'list' ? null : undefined)));
  it.advance(10);
  const [list] = it.native.held('list');
  it.native.stall(list!);
  it.advance(10_000);
  expect(list).toMatchObject({ abandoned: true });
  it.lookup(1, ['aa']);
  it.native.release(it.native.held('lookup')[0]!, { found: Uint8Array.of(1) });
  it.deliver();
  expect(it.answer(1)).toMatchObject({ ok: true });
  expect(it.events('mount')).toEqual([]);
  const before = it.native.submitted.length;
  it.advance(3_600_000);
  expect(it.native.submitted.slice(before).filter((spec) => COLLECTS.has(spec.kind))).toEqual([]);
  expect(capacity(it)).toMatchObject({ role: 'waiting', reason: expect.stringMatching(/^a list of the collector has been in stat in the kernel for/) as string });
  it.native.onSubmit = holds(50);
  it.native.release(list!);
  it.advance(1_300_000);
  expect(capacity(it)).toMatchObject({ role: 'holder', blocks: 50 });
});

test('while metadata calls are suspended it asks nothing', async () => {
  const it = await started(LIMIT, holds(50));
  it.advance(100);
  it.native.onSubmit = () => null;
  it.lookup(1, ['aa'], { timeoutMs: 250 });
  it.advance(250);
  expect(it.events('mount')).toMatchObject([{ class: 'metadata', state: 'suspended' }]);
  const before = it.native.submitted.length;
  it.advance(600_000);
  expect(it.native.submitted.slice(before).filter((spec) => COLLECTS.has(spec.kind))).toEqual([]);
  expect(capacity(it)).toMatchObject({ role: 'waiting', reason: expect.stringMatching(/^suspended: /) as string });
});

test('a store of a key that is being evicted waits for its turn', async () => {
  const it = await started(LIMIT, holds(110, (spec) => (spec.kind === 'remove' ? null : undefined)));
  it.advance(100);
  const [removal] = it.native.held('remove');
  it.store(1, [0], { hexes: ['0000'] });
  expect(it.native.held('store')).toEqual([]);
  it.native.release(removal!);
  it.deliver();
  expect(it.native.held('store')).toHaveLength(1);
});

test('a key that is being stored or loaded is not evicted', async () => {
  const it = await started(LIMIT, holds(110));
  it.store(1, [0], { hexes: ['0000'] });
  it.load(2, [1], { hexes: ['0001'] });
  it.advance(2_000);
  expect(asked(it, 'remove').map((spec) => (spec as { hex: string }).hex)).not.toEqual(expect.arrayContaining(['0000']));
  expect(asked(it, 'remove').map((spec) => (spec as { hex: string }).hex)).not.toEqual(expect.arrayContaining(['0001']));
  expect(asked(it, 'remove')).toHaveLength(15);
});

// ---- stores that find no room ----

async function withHolder(blocks = 90, options: Partial<ServiceOptions> = {}): Promise<Harness> {
  const it = await started({ ...LIMIT, ...options }, holds(blocks));
  it.advance(2_000);
  return it;
}
const full = (it: Harness): void => {
  it.native.releaseAll('store', { status: 'no_space', errno: 28, phase: 'write' });
  it.deliver();
};

test('a store that finds no room waits for a pass, is tried once more, and finds some', async () => {
  const it = await withHolder();
  it.store(1, [0, 1]);
  full(it);
  expect(it.answers(1)).toEqual([]);
  it.advance(1_000);
  expect(asked(it, 'remove').length).toBeGreaterThan(0);
  expect(asked(it, 'store')).toHaveLength(4);
  it.native.releaseAll('store');
  it.deliver();
  expect(it.answer(1)).toMatchObject({ ok: true, done: 2 });
});

test('one that finds none twice says so, and the next one at once: no pass is urged so soon again', async () => {
  const it = await withHolder();
  it.store(1, [0]);
  full(it);
  it.advance(1_000);
  full(it);
  expect(it.failed(1)).toMatchObject([{ code: 'NO_SPACE', errno: 'ENOSPC', slot: 'free' }]);
  it.store(2, [0]);
  full(it);
  expect(it.failed(2)).toMatchObject([{ code: 'NO_SPACE' }]);
  expect(asked(it, 'store')).toHaveLength(3);
});

test('a deadline that comes first is the end: NO_SPACE, in time, and its slot is free', async () => {
  const it = await withHolder();
  it.native.onSubmit = holds(90, (spec) => (spec.kind === 'list' ? null : undefined));
  it.store(1, [0], { timeoutMs: 500 });
  full(it);
  it.advance(499);
  expect(it.answers(1)).toEqual([]);
  it.advance(1);
  expect(it.failed(1)).toMatchObject([{ code: 'NO_SPACE', slot: 'free' }]);
  it.native.onSubmit = holds(90);
  it.native.releaseAll('list', listed([]));
  it.advance(10_000);
  expect(asked(it, 'store')).toHaveLength(1);
  it.store(2, [0]);
  expect(it.native.held('store')).toHaveLength(1);
});

test('a cancelled store that waited for room is cancelled', async () => {
  const it = await withHolder();
  it.store(1, [0]);
  full(it);
  it.ask({ id: 2, op: 'cancel', task: 1 });
  expect(it.failed(1)).toMatchObject([{ code: 'CANCELLED' }]);
  it.advance(1_000);
  expect(asked(it, 'store')).toHaveLength(1);
});

test('bytes that came in the request are written again for the second try', async () => {
  const it = await withHolder();
  it.store(1, [null], { texts: ['hello'] });
  const first = it.native.held('store')[0]!.spec as { offset: number };
  full(it);
  expect(it.native.readStaging(first.offset, 5).toString()).toBe('hello');
  it.native.writeStaging(first.offset, Buffer.from('other'));
  it.advance(1_000);
  const second = it.native.held('store')[0]!.spec as { offset: number };
  expect(it.native.readStaging(second.offset, 5).toString()).toBe('hello');
});

/** Another sidecar collects; `told` is when it last told that it made room. */
const another = (told: () => string) => holds(90, (spec) => {
  if (spec.kind !== 'lease') return undefined;
  return spec.action === 'look' ? leased(3, 'other 1') : leased(0, undefined, spec.text === 'made' ? told() : '5');
});
const actions = (it: Harness): string[] => asked(it, 'lease').flatMap((spec) => (spec.kind === 'lease' ? [`${spec.action} ${spec.text}`.trim()] : []));

test('where another sidecar collects, a store that finds no room asks it for some, waits, is tried once more, and finds some', async () => {
  let made = '7';
  const it = await started(LIMIT, another(() => made));
  it.advance(100);
  it.store(1, [0, 1], { timeoutMs: 2_000 });
  full(it);
  it.advance(1_000);
  expect(it.answers(1)).toEqual([]);
  expect(actions(it).filter((action) => action === 'tell want')).toHaveLength(1);
  expect(asked(it, 'store')).toHaveLength(2);
  made = '8';
  it.advance(300);
  expect(asked(it, 'store')).toHaveLength(4);
  it.native.releaseAll('store');
  it.deliver();
  expect(it.answer(1)).toMatchObject({ ok: true, done: 2 });
  expect(asked(it, 'remove')).toEqual([]);
  expect(capacity(it)).toMatchObject({ role: 'waiting', lease_number: 3, wants: 1 });
});

test('where the other makes none by its deadline the store is NO_SPACE, in time, and the next one at once', async () => {
  const it = await started(LIMIT, another(() => '7'));
  it.advance(100);
  it.store(1, [0], { timeoutMs: 500 });
  full(it);
  it.advance(499);
  expect(it.answers(1)).toEqual([]);
  it.advance(1);
  expect(it.failed(1)).toMatchObject([{ code: 'NO_SPACE', errno: 'ENOSPC', slot: 'free' }]);
  const before = it.native.submitted.length;
  it.store(2, [0]);
  full(it);
  expect(it.failed(2)).toMatchObject([{ code: 'NO_SPACE' }]);
  it.advance(5_000);
  expect(it.native.submitted.slice(before).map(({ kind }) => kind)).toEqual(['store']);
});

test('while it waits for another to make room, loads have their lanes and nothing of theirs is asked otherwise', async () => {
  const it = await started({ ...LIMIT, lanes: 1 }, another(() => '7'));
  it.advance(100);
  it.native.onSubmit = (spec) => (spec.kind === 'lease' ? null : another(() => '7')(spec));
  it.store(1, [0], { timeoutMs: 60_000 });
  full(it);
  it.advance(5);
  expect(it.native.inKernel('lease')).toHaveLength(1); // it hangs
  it.load(2, [1]);
  it.native.releaseAll('load');
  it.deliver();
  expect(it.answer(2)).toMatchObject({ ok: true });
  it.advance(20_000);
  expect(it.failed(1)).toMatchObject([{ code: 'NO_SPACE' }]);
  expect(it.events('mount')).toEqual([]);
});

// ---- recency ----

test('the times of blocks that were loaded are refreshed after the answer, in one batch, at most hourly', async () => {
  const it = await started(LIMIT, holds(50));
  it.advance(1_000);
  const load = (id: number): void => {
    it.load(id, [0, 1], { hexes: ['0001', '0002'] });
    it.native.releaseAll('load');
    it.deliver();
  };
  load(1);
  it.advance(1_000);
  expect(asked(it, 'touch')).toMatchObject([{ namespace: 'demo', names: ['0001', '0002'], olderUs: TOUCH_EVERY_US }]);
  load(2);
  it.advance(1_000);
  expect(asked(it, 'touch')).toHaveLength(1);
  expect(capacity(it)).toMatchObject({ touched: 2, touches_passed_over: 0 });
  it.advance(TOUCH_EVERY_US / 1000);
  load(3);
  it.advance(1_000);
  expect(asked(it, 'touch')).toHaveLength(2);
});

test('a batch that hangs is given up, and only one is under way at a time', async () => {
  const it = await started(LIMIT, holds(50, (spec) => (spec.kind === 'touch' ? null : undefined)));
  for (let id = 1; id <= 3; id += 1) {
    it.load(id, [0], { hexes: [`000${id}`] });
    it.native.releaseAll('load');
    it.deliver();
  }
  expect(it.native.held('touch')).toHaveLength(1);
  it.advance(4_999);
  expect(it.native.held('touch')).toHaveLength(1);
  it.advance(200);
  expect(it.native.held('touch')).toHaveLength(2);
  expect(it.native.held('touch')[0]).toMatchObject({ abandoned: true });
});

// ---- leaving, moving ----

test('who leaves gives the lease back, and waits a fifth of a second for that at most', async () => {
  const it = await withHolder();
  it.native.onSubmit = holds(90, (spec) => (spec.kind === 'lease' ? null : undefined));
  let done = 0;
  it.service.drain(500, () => (done += 1));
  expect(it.native.held('lease')).toMatchObject([{ spec: { action: 'leave', number: 1 } }]);
  expect(done).toBe(0);
  it.native.releaseAll('lease', leased(1));
  it.deliver();
  expect(done).toBe(1);

  const hung = await withHolder();
  hung.native.onSubmit = () => null;
  let left = 0;
  hung.service.drain(500, () => (left += 1));
  hung.advance(199);
  expect(left).toBe(0);
  hung.advance(1);
  expect(left).toBe(1);
});

test('who leaves at once leaves the lease as it is', async () => {
  const it = await withHolder();
  let done = 0;
  it.service.drain(0, () => (done += 1));
  expect(done).toBe(1);
  expect(asked(it, 'lease').some((spec) => (spec as { action: string }).action === 'leave')).toBe(false);
});
