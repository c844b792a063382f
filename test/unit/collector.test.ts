// One store's collector on a store in memory: what it removes, what it never removes, and when it stops.
import { expect, onTestFinished, test, vi } from 'vitest';
import { COLLECTOR_TIMES, FAILED_REMOVALS_MAX } from '../../sidecar/collector.ts';
import { DEAD_US, HOLD_US } from '../../sidecar/collector_lease.ts';
import { LEFTOVER_AGE_US } from '../../sidecar/leftovers.ts';
import { OLDEST_MAX, Oldest } from '../../sidecar/oldest.ts';
import { PASSED_OVER_MAX } from '../../sidecar/pass.ts';
import { URGED_BYTES_MIN } from '../../sidecar/urging.ts';
import { CollectedStore, Collecting, not, ok, refused } from '../support/collected_store.ts';
import { manualClock } from '../support/manual_clock.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;

function made(limit: number, fill: (store: CollectedStore) => void = () => {}): { store: CollectedStore; one: Collecting } {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  fill(store);
  return { store, one: new Collecting(store, limit, { clock }) };
}

/** Blocks 00, 01, …: each a minute younger than the one before, the youngest a minute old. */
const blocks = (count: number) => (store: CollectedStore): void => {
  for (let i = 0; i < count; i += 1) store.block('n', i.toString(16).padStart(2, '0'), 60 * (count - i));
};

test('a store beyond its limit loses the blocks used longest ago, down to 95 % of it, in that order', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.start();
  one.clock.advance(5_000);
  expect(store.usedBytes()).toBe(38 * MIB);
  expect(store.removed.map(({ path }) => path)).toEqual(Array.from({ length: 12 }, (_, i) => `blocks/n/${i.toString(16).padStart(2, '0')}/${i.toString(16).padStart(2, '0')}.kvb`));
  expect(one.picture()).toMatchObject({ limit_bytes: 40 * MIB, used_bytes: 38 * MIB, blocks: 38, role: 'holder', lease_number: 1, passes: 1, evicted_blocks: 12, evicted_bytes: 12 * MIB, failed_passes: 0, state: 'idle' });
});

test.each([
  [40, 0],
  [39, 3], // down to 37.05
] as const)('at the limit nothing goes, one byte beyond it does: limit %i MiB of 40 used, %i blocks go', (limit, gone) => {
  const { store, one } = made(limit * MIB, blocks(40));
  one.start();
  one.clock.advance(5_000);
  expect(store.removed).toHaveLength(gone);
});

test('a block that was used again meanwhile stays: its file says so', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.before = (ask) => {
    if (ask.kind === 'remove' && ask.block.hex === '03') store.files.get('blocks/n/03/03.kvb')!.modifiedNs += 1n;
  };
  one.start();
  one.clock.advance(5_000);
  expect(store.blocks()).toContain('03');
  expect(one.picture()).toMatchObject({ used_bytes: 38 * MIB, evicted_blocks: 12 });
});

test('what this sidecar loads or stores just now is passed over', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.busy.add('n/00').add('n/01');
  one.start();
  one.clock.advance(5_000);
  expect(store.blocks()).toEqual(expect.arrayContaining(['00', '01']));
  expect(store.usedBytes()).toBe(38 * MIB);
});

test('a block younger than ten seconds by the file system’s clock never goes, whatever the limit', () => {
  const { store, one } = made(MIB, (it) => {
    it.block('n', 'aa', 9.5);
    it.block('n', 'bb', 11);
    it.block('n', 'cc', -9);
    it.block('n', 'dd', -30);
  });
  one.start();
  one.clock.advance(400);
  expect(store.blocks()).toEqual(['aa', 'cc']);
});

test('a block from the future is as old as it is ahead: it does not stay for ever, nor go first for a small skew', () => {
  const { store, one } = made(3 * MIB, (it) => {
    it.block('n', 'aa', -86_400);
    it.block('n', 'bb', 3_600);
    it.block('n', 'cc', -20);
    it.block('n', 'dd', 60);
    it.block('n', 'ee', 15);
  });
  one.start();
  one.clock.advance(5_000);
  expect(store.removed.map(({ path }) => path.slice(-6, -4))).toEqual(['aa', 'bb', 'dd']);
});

test.each([-7_200, 7_200, 315_360_000])('a host whose clock is %i s off removes nothing that one with the right clock would keep', (skewS) => {
  const { store, one } = made(40 * MIB);
  const now = store.nowNs;
  store.nowNs = () => now() + BigInt(skewS) * 1_000_000_000n;
  blocks(50)(store);
  one.start();
  one.clock.advance(5_000);
  expect(store.removed).toHaveLength(12);
  expect(store.blocks()[0]).toBe('0c');
});

test.each(['blocks', 'blocks/n', 'blocks/n/07'])('a listing of %s that fails ends the pass: nothing is removed in it', (path) => {
  const { store, one } = made(40 * MIB, blocks(50));
  store.unlistable.set(path, not('io_error', 'EIO'));
  one.start();
  one.clock.advance(50_000);
  expect(store.removed).toEqual([]);
  expect(one.picture()).toMatchObject({ passes: 0, failed_passes: 1, used_bytes: null, reason: `${path} cannot be listed: EIO` });
  expect(one.said.at(-1)).toMatchObject({ event: 'collecting failed' });
});

test('after a failure it comes again, later each time and at last every ten minutes, and goes on when it can', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  store.unlistable.set('blocks', not('io_error', 'EIO'));
  one.start();
  one.clock.advance(60_000 * 3 + 10_000);
  expect(one.picture()).toMatchObject({ failed_passes: 3 }); // at 0, 1 and 3 minutes
  one.clock.advance(3_600_000);
  expect(one.picture()['failed_passes']).toBeLessThan(11);
  store.unlistable.clear();
  one.clock.advance(600_000);
  expect(store.usedBytes()).toBe(38 * MIB);
});

test('removals that fail are passed over, and sixteen of them end the pass', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.hold.add('remove');
  one.start();
  for (let i = 0; i < FAILED_REMOVALS_MAX; i += 1) {
    one.clock.advance(500);
    expect(one.picture()['state']).toBe('evicting');
    one.let(refused('EIO'));
  }
  expect(one.picture()).toMatchObject({ state: 'idle', failed_passes: 1 });
  expect(store.removed).toEqual([]);
});

test.each(['EACCES', 'EPERM', 'EINVAL'])('blocks that may not be removed (%s) are passed over, however many, told once a pass, and the others go', (error) => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.hold.add('remove');
  one.start();
  const theirs = FAILED_REMOVALS_MAX + 4;
  for (let i = 0; i < theirs; i += 1) {
    one.clock.advance(500);
    one.let(refused(error));
  }
  one.hold.clear();
  one.clock.advance(500);
  if (one.waiting !== null) one.let();
  one.clock.advance(5_000);
  expect(one.picture()).toMatchObject({ used_bytes: 38 * MIB, evicted_blocks: 12, passes: 1, failed_passes: 0, reason: `20 files may not be removed, the first n/00: ${error}` });
  expect(store.blocks().slice(0, theirs)).toEqual(Array.from({ length: theirs }, (_, i) => i.toString(16).padStart(2, '0')));
  expect(one.said.filter(({ event }) => event === 'not evicted')).toEqual([{ event: 'not evicted', fields: { files: theirs, first: `n/00: ${error}` } }]);
});

test('a block that is gone when it is to be removed makes the store smaller, and was not evicted', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.before = (ask) => {
    if (ask.kind === 'remove' && ask.block.hex <= '03') store.files.delete(`blocks/n/${ask.block.hex}/${ask.block.hex}.kvb`);
  };
  one.start();
  one.clock.advance(5_000);
  expect(store.removed).toHaveLength(8);
  expect(one.picture()).toMatchObject({ used_bytes: 38 * MIB, blocks: 38, evicted_blocks: 8, failed_passes: 0 });
  expect(one.said.at(-1)).toMatchObject({ event: 'collected', fields: { evicted_blocks: 8, evicted_bytes: 8 * MIB } });
});

test('what kvlane did not name, or lies where kvlane would not look, is neither counted nor removed', () => {
  const theirs = ['blocks/.n.old/00/00aa.kvb', 'blocks/n/00/ffaa.kvb', 'blocks/n/00/0.kvb', 'blocks/n/00/00AA.kvb', `blocks/n/00/00${'a'.repeat(127)}.kvb`, 'blocks/n/000/000a.kvb', 'blocks/a b/00/00aa.kvb', 'blocks/n/00/00aa.kvb.bak'];
  const { store, one } = made(2 * MIB, (it) => {
    for (const path of theirs) it.file(path, 100_000, 100 * MIB);
    it.block('n', '00ab', 50);
    it.block('n', 'ffab', 60);
  });
  one.start();
  one.clock.advance(5_000);
  expect(one.picture()).toMatchObject({ used_bytes: 2 * MIB, blocks: 2, passes: 1 });
  expect(store.removed).toEqual([]);
});

test('while the mount is suspended nothing is asked, and the pass at hand is over', () => {
  const { one } = made(40 * MIB, blocks(50));
  one.hold.add('list');
  one.start();
  one.clock.advance(1);
  expect(one.asks('list')).toHaveLength(1);
  one.hindrance = 'suspended: 3 stats in flight';
  one.let();
  const asked = one.asked.length;
  one.clock.advance(1_800_000);
  expect(one.asked).toHaveLength(asked);
  expect(one.picture()).toMatchObject({ role: 'waiting', failed_passes: 1, reason: 'suspended: 3 stats in flight' });
  one.hindrance = '';
  one.hold.clear();
  one.clock.advance(1_200_000);
  expect(one.picture()).toMatchObject({ role: 'holder', used_bytes: 38 * MIB });
});

test('a removal may not begin after the lease’s end, however late the lane is', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.hold.add('remove');
  one.start();
  one.clock.advance(1_000);
  expect(one.waiting!.ask.kind).toBe('remove');
  expect(one.waiting!.deadlineUs).toBeLessThanOrEqual(one.clock.nowUs() + HOLD_US);
  one.clock.jump(HOLD_US / 1000); // stopped, and continued
  one.let();
  expect(store.removed).toEqual([]);
  expect(one.asks('remove')).toHaveLength(1);
});

test('while renewals fail it goes on for the minute that it has, and no removal may begin after that', () => {
  const { one } = made(40 * MIB, blocks(150));
  one.hold.add('remove').add('lease');
  const startedUs = one.clock.nowUs();
  one.start();
  one.let();
  one.let(); // taken
  const deadlines: number[] = [];
  for (let tenth = 0; tenth < 800; tenth += 1) {
    one.clock.advance(100);
    if (one.waiting === null) continue;
    if (one.waiting.ask.kind === 'lease') one.let(not('io_error', 'EIO'));
    else if (one.waiting.ask.kind === 'remove' && tenth % 10 === 0) {
      deadlines.push(one.waiting.deadlineUs);
      one.let({ ...ok(''), kept: true });
    }
  }
  expect(deadlines.length).toBeGreaterThan(50);
  expect(Math.max(...deadlines)).toBe(startedUs + HOLD_US);
  expect(one.picture()).toMatchObject({ role: 'waiting', failed_passes: 1, reason: 'the lease cannot be had: EIO' });
});

test('who was stopped for longer than its lease asks for the lease before anything else when it goes on', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.hold.add('list');
  one.start();
  one.clock.advance(1_000);
  store.lease.set(2, { content: 'other 1', modifiedNs: 0n });
  one.clock.jump(3 * DEAD_US / 1000);
  one.hold.clear();
  const asked = one.asked.length;
  one.let();
  one.clock.advance(30_000);
  expect(one.asked[asked]).toMatchObject({ kind: 'lease', step: { action: 'renew', number: 1 } });
  expect(one.picture()).toMatchObject({ role: 'waiting' });
  expect(store.removed).toEqual([]);
});

test('a fence that came up ends the holding at once', () => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.before = (ask) => {
    if (ask.kind === 'remove' && store.removed.length === 4) store.lease.set(2, { content: 'other 1', modifiedNs: 0n });
  };
  one.start();
  one.clock.advance(5_000);
  expect(store.removed).toHaveLength(4);
  expect(one.picture()).toMatchObject({ role: 'waiting', failed_passes: 1, reason: expect.stringContaining('another sidecar has the lease') as string });
});

test('one that leaves in order gives the lease back, and the next has it at its next look', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  const one = new Collecting(store, GIB, { clock }).start();
  clock.advance(1_000);
  const two = new Collecting(store, GIB, { clock, name: 'two' }).start();
  clock.advance(30_000);
  expect(two.picture()).toMatchObject({ role: 'waiting', reason: 'another sidecar collects' });
  let left = 0;
  one.turn((nowUs) => one.collector.leave(nowUs, () => (left += 1)));
  clock.advance(11_000);
  expect(left).toBe(1);
  expect(two.picture()).toMatchObject({ role: 'holder', lease_number: 2 });
});

test.each(['leave', 'stop'] as const)('a pass in the midst of which its sidecar is done (%s) is no failure, and no warning', (how) => {
  const { store, one } = made(40 * MIB, blocks(50));
  one.hold.add('remove');
  one.start();
  for (let i = 0; i < 3; i += 1) {
    one.clock.advance(500);
    one.let();
  }
  one.clock.advance(500);
  expect(one.picture()).toMatchObject({ state: 'evicting' });
  one.turn((nowUs) => (how === 'leave' ? one.collector.leave(nowUs, () => {}) : one.collector.stop(nowUs)));
  one.let();
  one.clock.advance(600_000);
  expect(one.picture()).toMatchObject({ passes: 0, failed_passes: 0 });
  expect(one.said.map(({ event }) => event)).toEqual(['collects', 'collected']);
  expect(one.asks('remove')).toHaveLength(4);
  expect(store.removed.length).toBeGreaterThanOrEqual(3);
});

test('one that does not hold the lease leaves without a word', () => {
  const { one, store } = made(GIB);
  store.lease.set(3, { content: 'other 1', modifiedNs: 0n });
  one.start();
  one.clock.advance(100);
  const asked = one.asked.length;
  let left = 0;
  one.turn((nowUs) => one.collector.leave(nowUs, () => (left += 1)));
  expect(left).toBe(1);
  expect(one.asked).toHaveLength(asked);
});

test('one that left without the lease takes none, though the answer to its last look would let it', () => {
  const { one, store } = made(GIB);
  store.lease.set(3, { content: 'other 1', modifiedNs: 0n });
  one.hold.add('lease');
  one.start();
  let left = 0;
  one.turn((nowUs) => one.collector.leave(nowUs, () => (left += 1)));
  store.lease.set(3, { content: 'left', modifiedNs: 0n });
  one.hold.clear();
  one.let();
  one.clock.advance(300_000);
  expect(left).toBe(1);
  expect([...store.lease.keys()]).toEqual([3]);
});

test('blocks that occupy nothing, and those of which it is not told what they are, stay', () => {
  const { one, store } = made(4 * MIB, (all) => {
    for (let i = 0; i < 20; i += 1) all.block('stubs', `0${i % 10}${i}0`, 9_000, 0);
    const odd = all.file('blocks/odd/ab/ab01.kvb', 9_000, MIB);
    all.files.get(odd)!.inode = '0';
    const ancient = all.file('blocks/odd/ab/ab02.kvb', 9_000, MIB);
    all.files.get(ancient)!.modifiedNs = 0n;
    for (let i = 0; i < 5; i += 1) all.block('real', `aa0${i}`, 100 + i);
  });
  one.start();
  one.clock.advance(60_000);
  expect(store.removed.length).toBeGreaterThan(0);
  for (const { path } of store.removed) expect(path).toContain('/real/');
});

test('after each call it rests as long as the call took: never more than half of its lane', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  blocks(50)(store);
  const one = new Collecting(store, 40 * MIB, { clock, tookUs: 20_000 });
  const begun: number[] = [];
  one.before = (ask) => {
    if (ask.kind !== 'lease') begun.push(clock.nowUs());
  };
  one.start();
  clock.advance(9_000);
  expect(begun.length).toBeGreaterThan(50);
  for (let i = 1; i < begun.length; i += 1) expect(begun[i]! - begun[i - 1]!).toBeGreaterThanOrEqual(40_000);
});

test('at most two thousand removals a second, however fast the disk is', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  for (let i = 0; i < 3_000; i += 1) store.block('n', i.toString(16).padStart(4, '0'), 10_000 - i);
  const one = new Collecting(store, 100 * MIB, { clock, tookUs: 1 });
  one.start();
  clock.advance(20_000);
  const from = store.removed[0]!.atUs;
  const to = store.removed[2_000]!.atUs;
  expect(to - from).toBeGreaterThanOrEqual(1_000_000);
});

test('a store that grows is looked at again half way to its limit, one that does not every ten minutes', () => {
  const { store, one } = made(GIB, blocks(50));
  one.start();
  one.clock.advance(61_000);
  const lists = () => one.asks('list').filter((ask) => ask.kind === 'list' && ask.path === 'blocks' && ask.cookie === '').length;
  expect(lists()).toBe(2); // nothing to compare with after the first
  one.clock.advance(599_000);
  expect(lists()).toBe(2);
  for (let i = 0; i < 900; i += 1) store.block('grown', i.toString(16).padStart(3, '0'), 20);
  one.clock.advance(4_000);
  expect(lists()).toBe(3);
  one.clock.advance(62_000);
  expect(lists()).toBe(4);
});

test('one that grows slowly is looked at when half of what is left may have been filled', () => {
  const { store, one } = made(100 * MIB, blocks(50));
  one.start();
  one.clock.advance(30_000);
  for (let i = 0; i < 7; i += 1) store.block('grown', `0${i}`, 20, MIB + i);
  one.clock.advance(31_000);
  expect(one.picture()).toMatchObject({ passes: 2, used_bytes: 57 * MIB + 21 });
  one.clock.advance(180_000); // 43 MiB at 7 a minute: 184 s
  expect(one.picture()).toMatchObject({ passes: 2 });
  one.clock.advance(8_000);
  expect(one.picture()).toMatchObject({ passes: 3 });
});

test('what this sidecar stores itself brings the next pass early', () => {
  const { store, one } = made(60 * MIB, blocks(50));
  one.start();
  one.clock.advance(121_000);
  expect(one.picture()).toMatchObject({ used_bytes: 50 * MIB, passes: 2 });
  for (let i = 0; i < 11; i += 1) {
    store.block('new', `${i}a`, 30);
    one.turn((nowUs) => one.collector.stored(MIB, nowUs));
  }
  one.clock.advance(1_000);
  expect(store.usedBytes()).toBe(57 * MIB);
});

test('a share of the file system is known with the first lease, and follows its size', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  store.totalBytes = 80 * MIB;
  blocks(50)(store);
  const one = new Collecting(store, (total) => (total === null ? null : total / 2), { clock });
  expect(one.picture()).toMatchObject({ limit_bytes: null, used_bytes: null });
  one.start();
  clock.advance(5_000);
  expect(one.picture()).toMatchObject({ limit_bytes: 40 * MIB, used_bytes: 38 * MIB });
});

test('a file system that is smaller for a while, as one of several machines is away, costs no block; one that stays so does', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  store.totalBytes = 120 * MIB;
  blocks(50)(store);
  const one = new Collecting(store, (total) => (total === null ? null : total / 2), { clock }).start();
  clock.advance(60_000);
  store.totalBytes = 60 * MIB;
  clock.advance(3_500_000);
  expect(store.removed).toEqual([]);
  store.totalBytes = 120 * MIB;
  clock.advance(100_000);
  store.totalBytes = 60 * MIB;
  clock.advance(3_500_000);
  expect(store.removed).toEqual([]);
  clock.advance(900_000);
  expect(one.picture()).toMatchObject({ limit_bytes: 30 * MIB, used_bytes: 28 * MIB });
});

test('a file system that claims to be smaller than what lies in it has no size of which a share could be taken', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  store.totalBytes = 50 * MIB - 1;
  blocks(50)(store);
  const one = new Collecting(store, (total) => (total === null ? null : total / 2), { clock }).start();
  clock.advance(100_000);
  expect(store.removed).toEqual([]);
  expect(one.picture()).toMatchObject({ failed_passes: expect.any(Number) as number, reason: expect.stringContaining('--capacity-bytes') as string });
  store.totalBytes = 50 * MIB;
  clock.advance(900_000);
  expect(one.picture()).toMatchObject({ used_bytes: 23 * MIB });
});

test('where the size of the file system is not told, a share removes nothing', () => {
  const clock = manualClock();
  const store = new CollectedStore(clock);
  store.totalBytes = 0;
  blocks(50)(store);
  const one = new Collecting(store, (total) => (total === null ? null : total / 2), { clock }).start();
  clock.advance(100_000);
  expect(store.removed).toEqual([]);
  expect(one.picture()).toMatchObject({ limit_bytes: null, reason: expect.stringContaining('how large') as string });
});

// ---- what becomes of the files ----

test('the files of what goes for the limit may be kept to be overwritten, and not while stores wait for room', () => {
  const { one } = made(40 * MIB, blocks(50));
  one.start();
  one.clock.advance(5_000);
  expect(one.asks('remove').map((ask) => ask.recycles)).toEqual(Array(12).fill(true));
  urge(one);
  one.clock.advance(5_000);
  expect(one.asks('remove').slice(12).map((ask) => ask.recycles)).toContain(false);
  expect(one.asks('remove').slice(12).map((ask) => ask.recycles)).not.toContain(true);
});

// ---- stores that find no room ----

const urge = (one: Collecting): { waits: boolean; heard: boolean[] } => {
  const heard: boolean[] = [];
  let waits = false;
  one.turn((nowUs) => (waits = one.collector.urge((madeRoom) => void heard.push(madeRoom), nowUs)));
  return { waits, heard };
};

test('a store that finds no room has a pass begin at once, and hears of its end', () => {
  const { store, one } = made(300 * MIB, blocks(200));
  one.start();
  one.clock.advance(5_000);
  expect(store.removed).toEqual([]);
  const { waits, heard } = urge(one);
  expect(waits).toBe(true);
  one.clock.advance(5_000);
  expect(heard).toEqual([true]);
  expect(one.picture()).toMatchObject({ urged: 1 });
});

test('a store that waits when its mount turns out to be another store hears of no room, though the pass had made some', () => {
  const { store, one } = made(300 * MIB, blocks(200));
  one.start();
  one.clock.advance(5_000);
  one.hold.add('remove');
  const { heard } = urge(one);
  for (let i = 0; i < 3; i += 1) {
    one.clock.advance(1_000);
    one.let();
  }
  one.clock.advance(1_000);
  expect(store.removed.length).toBeGreaterThan(0);
  one.turn((nowUs) => one.collector.stop(nowUs));
  expect(heard).toEqual([false]);
});

test('the last store that waited ends a drain in the midst of a pass, and the lease is given back once', () => {
  const { store, one } = made(GIB, (it) => {
    for (let i = 0; i < 1_000; i += 1) it.block('n', i.toString(16).padStart(3, '0'), 10_000 - i);
  });
  one.start();
  one.clock.advance(10_000);
  let left = 0;
  const answered = (_madeRoom: boolean, nowUs: number): void => one.collector.leave(nowUs, () => (left += 1));
  one.turn((nowUs) => void one.collector.urge(answered, nowUs));
  one.clock.advance(60_000);
  expect(left).toBe(1);
  expect(store.lease.get(1)?.content).toBe('left');
  expect(one.asks('lease').filter((ask) => ask.kind === 'lease' && ask.step.action === 'leave')).toHaveLength(1);
});

test('one urged pass removes a 64th of the limit, or 64 MiB where that is less', () => {
  const { store, one } = made(GIB, (it) => {
    for (let i = 0; i < 1_000; i += 1) it.block('n', i.toString(16).padStart(3, '0'), 10_000 - i);
  });
  one.start();
  one.clock.advance(10_000);
  urge(one);
  one.clock.advance(10_000);
  expect(store.removed).toHaveLength(URGED_BYTES_MIN / MIB);
});

test.each([
  [160, 1, 20], // no 16 blocks' worth, nor 64 MiB: 20 MiB are the eighth
  [512, 1, 64],
  [513, 1, 64],
  [511, 1, 64], // 63.9 MiB are not enough yet
  [40, 2, 3], // of 2 MiB each: 5 MiB
] as const)('with a limit of %i MiB and blocks of %i one urged pass removes %i: an eighth of the limit at most', (limit, size, gone) => {
  const { store, one } = made(limit * MIB, (it) => {
    for (let i = 0; i < limit / size - 1; i += 1) it.block('n', i.toString(16).padStart(3, '0'), 10_000 - i, size * MIB);
  });
  one.start();
  one.clock.advance(10_000);
  urge(one);
  one.clock.advance(10_000);
  expect(store.removed).toHaveLength(gone);
});

test('a disk that others fill is never drained below half of the limit, however often stores find no room', () => {
  const { store, one } = made(200 * MIB, blocks(150));
  one.start();
  for (let minute = 0; minute < 240; minute += 1) {
    const { waits } = urge(one);
    one.clock.advance(30_000);
    if (waits) one.turn((nowUs) => one.collector.retried(false, nowUs));
    one.clock.advance(30_000);
  }
  expect(store.usedBytes()).toBe(100 * MIB);
});

test.each([
  ['at the floor', 2 * OLDEST_MAX - 1, false],
  ['all busy', 1_024, true],
] as const)('of 65,536 candidates that may not go no turn of the loop passes over more than 64: %s', (_what, limit, busy) => {
  const { store, one } = made(limit, () => {});
  const hexes = Array.from({ length: OLDEST_MAX }, (_, i) => i.toString(16).padStart(4, '0'));
  // One listing, and no file behind it: only what is asked of the candidates counts here.
  const lines = hexes.map((hex, i) => `f 1 1 ${store.nowNs() - BigInt(1_000_000 - i) * 1_000_000_000n} 1 1 ${hex}.kvb`);
  const of = new Map<string, string[]>();
  for (const [i, hex] of hexes.entries()) of.set(hex.slice(0, 2), [...(of.get(hex.slice(0, 2)) ?? []), lines[i]!]);
  store.unlistable.set('blocks', ok('-\nd 1 1 1 1 1 n')).set('blocks/n', ok(['-', ...[...of.keys()].map((shard) => `d 1 1 1 1 1 ${shard}`)].join('\n')));
  for (const [shard, some] of of) store.unlistable.set(`blocks/n/${shard}`, ok(['-', ...some].join('\n')));
  if (busy) for (const hex of hexes) one.busy.add(`n/${hex}`);
  const popped = vi.spyOn(Oldest.prototype, 'next');
  onTestFinished(() => popped.mockRestore());
  let most = 0;
  const ring = one.collector.ring.bind(one.collector);
  one.collector.ring = (nowUs) => {
    popped.mockClear();
    ring(nowUs);
    most = Math.max(most, popped.mock.calls.length);
  };
  one.start();
  one.clock.advance(1);
  if (!busy) urge(one);
  one.clock.advance(5_000);
  expect(one.picture()).toMatchObject({ blocks: OLDEST_MAX, urged: busy ? 0 : 1, passes: 1, failed_passes: 0 });
  expect(store.removed).toEqual([]);
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThanOrEqual(PASSED_OVER_MAX);
});

test('passes are urged once a minute; while no room is found all the same, less and less often', () => {
  const { one } = made(10 * GIB, (it) => {
    for (let i = 0; i < 2_000; i += 1) it.block('n', i.toString(16).padStart(3, '0'), 10_000 - i, 4 * MIB);
  });
  one.start();
  one.clock.advance(20_000);
  const at: number[] = [];
  for (let second = 0; second < 3_600; second += 1) {
    if (urge(one).waits) {
      at.push(second);
      one.clock.advance(900);
      one.turn((nowUs) => one.collector.retried(false, nowUs));
      one.turn((nowUs) => one.collector.retried(false, nowUs)); // another store that waited for the same pass
      one.clock.advance(100);
    } else one.clock.advance(1_000);
  }
  const gaps = at.slice(1).map((second, i) => Math.round((second - at[i]!) / 60));
  expect(gaps.slice(0, 5)).toEqual([2, 4, 8, 10, 10]);
});

test('after a store that found room passes may be urged every minute again', () => {
  const { one } = made(10 * GIB, (it) => {
    for (let i = 0; i < 2_000; i += 1) it.block('n', i.toString(16).padStart(3, '0'), 10_000 - i, 4 * MIB);
  });
  one.start();
  one.clock.advance(20_000);
  urge(one);
  one.clock.advance(5_000);
  one.turn((nowUs) => one.collector.retried(false, nowUs));
  one.clock.advance(120_000);
  expect(urge(one).waits).toBe(true);
  one.clock.advance(5_000);
  one.turn((nowUs) => one.collector.retried(true, nowUs));
  one.clock.advance(236_000); // from the doubled time that was set before
  urge(one);
  one.clock.advance(61_000);
  expect(urge(one).waits).toBe(true);
});

test('stores that find no room while a pass is urged wait for the same one', () => {
  const { one } = made(300 * MIB, blocks(200));
  one.hold.add('list');
  one.start();
  one.clock.advance(1_000);
  const first = urge(one);
  const second = urge(one);
  expect([first.waits, second.waits]).toEqual([true, true]);
  one.hold.clear();
  one.let();
  one.clock.advance(5_000);
  expect([first.heard, second.heard]).toEqual([[true], [true]]);
  expect(one.picture()).toMatchObject({ urged: 1, passes: 1 });
});

test.each(['holder', 'other'] as const)('who may not ask makes no room, and the store is told at once (%s)', (role) => {
  const { store, one } = made(GIB, blocks(200));
  if (role === 'other') store.lease.set(3, { content: 'other 1', modifiedNs: 0n });
  one.start();
  one.clock.advance(5_000);
  one.hindrance = 'suspended';
  const asked = one.asked.length;
  expect(urge(one)).toEqual({ waits: false, heard: [] });
  one.clock.advance(60_000);
  expect(one.asked).toHaveLength(asked);
});

test('a store that is within half of its limit makes no room: what fills the disk is not its blocks', () => {
  const { store, one } = made(GIB, blocks(200));
  one.start();
  one.clock.advance(5_000);
  const { heard } = urge(one);
  one.clock.advance(5_000);
  expect(heard).toEqual([false]);
  expect(store.removed).toEqual([]);
  one.clock.advance(60_000);
  expect(urge(one).waits).toBe(false); // nor is all of it looked at every minute
  one.clock.advance(60_000);
  expect(urge(one).waits).toBe(true);
});

test('a pass that fails tells those that wait for it', () => {
  const { store, one } = made(GIB, blocks(200));
  one.start();
  one.clock.advance(5_000);
  store.unlistable.set('blocks', not('io_error', 'EIO'));
  const { heard } = urge(one);
  one.clock.advance(1_000);
  expect(heard).toEqual([false]);
});

// ---- leftovers ----

test('a temporary of a dead writer goes after an hour of our own time, one that lives stays', () => {
  const { store, one } = made(GIB, (it) => {
    blocks(3)(it);
    it.file('blocks/n/00/00ff.00000000000000aa-1.tmp', 999_999); // its date says nothing
    it.file('blocks/n/00/00ee.00000000000000bb-1.tmp', 0);
  });
  one.start();
  for (let s = 0; s < LEFTOVER_AGE_US / 1_000_000 - 100; s += 100) {
    one.clock.advance(100_000);
    store.files.get('blocks/n/00/00ee.00000000000000bb-1.tmp')!.changedNs += 1n;
  }
  expect(store.removed).toEqual([]);
  for (let s = 0; s < 1_000; s += 100) {
    one.clock.advance(100_000);
    store.files.get('blocks/n/00/00ee.00000000000000bb-1.tmp')!.changedNs += 1n;
  }
  expect(store.removed.map(({ path }) => path)).toEqual(['blocks/n/00/00ff.00000000000000aa-1.tmp']);
  expect(one.picture()).toMatchObject({ orphans_removed: 1 });
});

test('a temporary that native says is of this process stays, and is no failure', () => {
  const { store, one } = made(GIB, (it) => {
    it.file('blocks/n/00/00ff.00000000000000aa-1.tmp', 0);
  });
  one.hold.add('remove_file');
  one.start();
  one.clock.advance(2 * LEFTOVER_AGE_US / 1000);
  expect(one.waiting!.ask.kind).toBe('remove_file');
  one.let(refused('EBUSY'));
  one.clock.advance(1_000);
  expect(one.picture()).toMatchObject({ state: 'idle', failed_passes: 0, orphans_removed: 0 });
  expect(one.said.map(({ event }) => event)).toEqual(['collects']);
  expect(store.removed).toEqual([]);
});

test('a step of the file system’s clock removes no temporary', () => {
  const { store, one } = made(GIB, (it) => {
    it.file('blocks/n/00/00ff.00000000000000aa-1.tmp', 0);
  });
  one.start();
  one.clock.advance(1_000);
  const now = store.nowNs;
  store.nowNs = () => now() + 10n ** 18n;
  one.clock.advance(1_800_000);
  expect(store.removed).toEqual([]);
});

test('its times are in order', () => {
  const { everyUs, holdUs, deadUs, passUs, passMaxUs, urgeUs, urgeMaxUs } = COLLECTOR_TIMES;
  expect(everyUs * 3).toBeLessThan(holdUs);
  expect(holdUs * 2).toBeLessThanOrEqual(deadUs);
  expect(passUs).toBeLessThan(passMaxUs);
  expect(urgeUs).toBeLessThan(urgeMaxUs);
});
