// The parts a collector is made of: who holds the lease, the oldest of many, what was used, what was left, the walk.
import { expect, test } from 'vitest';
import { CollectorLease, DEAD_US, HOLD_US, LEASE_TIMES, LEASE_NUMBER_MAX, LEFT } from '../../sidecar/collector_lease.ts';
import { LEFTOVER_AGE_US, Leftovers } from '../../sidecar/leftovers.ts';
import { Oldest, type Candidate } from '../../sidecar/oldest.ts';
import { StoreScan } from '../../sidecar/store_scan.ts';
import { TOUCH_BATCH_MAX, TOUCH_EVERY_US, TOUCH_QUEUE_MAX, TOUCHED_MAX, Touches } from '../../sidecar/touches.ts';

const SECOND = 1_000_000;

// ---- the lease ----

const lease = (): CollectorLease => new CollectorLease('me', LEASE_TIMES);

test('where no lease was ever taken, the first is taken at once', () => {
  const one = lease();
  expect(one.next()).toEqual({ action: 'look' });
  expect(one.looked(0, '', 1, 2)).toBe(true);
  expect(one.next()).toMatchObject({ action: 'take', number: 1 });
  one.granted(one.next(), 10 * SECOND);
  expect(one.fence).toBe('collector/2');
  expect(one.holds(10 * SECOND)).toBe(true);
});

test('it holds for a minute from the start of its last renewal, and not a microsecond longer', () => {
  const one = lease();
  one.looked(0, '', 1, 2);
  one.granted(one.next(), 100);
  expect(one.holds(100 + HOLD_US - 1)).toBe(true);
  expect(one.holds(100 + HOLD_US)).toBe(false);
  const renewal = one.next();
  expect(renewal).toMatchObject({ action: 'renew', number: 1 });
  one.granted(renewal, 50 * SECOND);
  expect(one.endUs).toBe(50 * SECOND + HOLD_US);
});

test('each renewal writes something else, or nobody would see that its holder lives', () => {
  const one = lease();
  one.looked(0, '', 1, 2);
  one.granted(one.next(), 100);
  const texts = [one.next(), one.next(), one.next()].map((step) => (step as { text: string }).text);
  expect(new Set(texts).size).toBe(3);
});

test('a holder whose content did not change for two minutes of our time is dead, and not a moment before', () => {
  const one = lease();
  expect(one.looked(7, 'other 1', 0, 5)).toBe(false);
  expect(one.looked(7, 'other 1', 5 + DEAD_US - 1, 5 + DEAD_US)).toBe(false);
  expect(one.looked(7, 'other 1', 5 + DEAD_US, 6 + DEAD_US)).toBe(true);
  expect(one.next()).toMatchObject({ action: 'take', number: 8 });
});

test('the last number that is taken has a fence that native can read', () => {
  const one = new CollectorLease('one', LEASE_TIMES);
  expect(one.looked(LEASE_NUMBER_MAX, LEFT, 1, 2)).toBe(false);
  expect(one.next()).toEqual({ action: 'look' });
  expect(one.looked(LEASE_NUMBER_MAX - 1, LEFT, 3, 4)).toBe(true);
  const step = one.next();
  expect(step).toMatchObject({ action: 'take', number: LEASE_NUMBER_MAX });
  one.granted(step, 5);
  expect(one.fence).toBe('collector/999999999999999');
});

test('a lease of which only the time changes has a holder, whose disk is full', () => {
  const one = new CollectorLease('one', LEASE_TIMES);
  expect(one.looked(7, '', 0, 5, '1000')).toBe(false);
  expect(one.looked(7, '', 5 + DEAD_US, 6 + DEAD_US, '2000')).toBe(false);
  expect(one.looked(7, '', 6 + 2 * DEAD_US, 7 + 2 * DEAD_US, '2000')).toBe(true);
});

test('content that changed, or another number, begins anew', () => {
  const one = lease();
  one.looked(7, 'other 1', 0, 5);
  expect(one.looked(7, 'other 2', DEAD_US, DEAD_US + 5)).toBe(false);
  expect(one.looked(8, 'other 2', 2 * DEAD_US, 2 * DEAD_US + 5)).toBe(false);
  expect(one.looked(8, 'other 2', 3 * DEAD_US, 3 * DEAD_US + 5)).toBe(false); // from the answer to the look's start it was 5 us less
  expect(one.looked(8, 'other 2', 3 * DEAD_US + 5, 3 * DEAD_US + 6)).toBe(true);
});

test('a lease that was given back is taken at once', () => {
  const one = lease();
  expect(one.looked(7, LEFT, 1, 2)).toBe(true);
  expect(one.next()).toMatchObject({ action: 'take', number: 8 });
});

test('who was fenced, or does not know what became of taking it, looks first', () => {
  const one = lease();
  one.looked(0, '', 1, 2);
  one.unanswered();
  expect(one.next()).toEqual({ action: 'look' });
  one.looked(0, '', 3, 4);
  one.granted(one.next(), 5);
  one.fenced();
  expect(one.holds(6)).toBe(false);
  expect(one.next()).toEqual({ action: 'look' });
});

test('a holder waits twice as long before it takes over as one may go on', () => {
  expect(DEAD_US).toBeGreaterThanOrEqual(2 * HOLD_US);
});

// ---- the oldest ----

const candidate = (rankUs: number): Candidate => ({ namespace: 'n', hex: String(rankUs), modifiedNs: '', inode: '', allocatedBytes: 1, rankUs });
const drained = (oldest: Oldest): number[] => {
  const ranks: number[] = [];
  while (!oldest.turnOver(3));
  for (let next = oldest.next(); next !== null; next = oldest.next()) ranks.push(next.rankUs);
  return ranks;
};

test.each([0, 1, 2, 15, 16, 17, 1000])('of %i blocks the sixteen oldest are kept, and come oldest first', (count) => {
  const oldest = new Oldest(16);
  const ranks = Array.from({ length: count }, (_, i) => (i * 7919) % 1009);
  for (const rank of ranks) oldest.offer(candidate(rank));
  expect(oldest.size).toBe(Math.min(16, count));
  expect(drained(oldest)).toEqual(ranks.sort((a, b) => a - b).slice(0, 16));
});

test('once they are given out nothing is added', () => {
  const oldest = new Oldest(2);
  oldest.offer(candidate(1));
  expect(() => oldest.next()).toThrow('turned over');
  expect(oldest.turnOver(1)).toBe(true);
  oldest.next();
  expect(() => oldest.offer(candidate(0))).toThrow('given out');
});

test('they are turned over in pieces, of as many steps as are asked for', () => {
  const oldest = new Oldest(65_536);
  for (let i = 0; i < 65_536; i += 1) oldest.offer(candidate((i * 7919) % 65_537));
  for (let piece = 0; piece < 31; piece += 1) expect(oldest.turnOver(1_024)).toBe(false);
  expect(() => oldest.next()).toThrow('turned over');
  expect(oldest.turnOver(1_024)).toBe(true);
  expect(oldest.next()).toMatchObject({ rankUs: 0 });
});

// ---- touches ----

test('a block that is loaded again and again is refreshed once an hour', () => {
  const touches = new Touches();
  touches.loaded('n', 'aa', 0);
  touches.loaded('n', 'aa', TOUCH_EVERY_US - 1);
  expect(touches.take()).toEqual({ namespace: 'n', hexes: ['aa'] });
  expect(touches.take()).toBeNull();
  touches.loaded('n', 'aa', TOUCH_EVERY_US - 1);
  expect(touches.queued).toBe(0);
  touches.loaded('n', 'aa', TOUCH_EVERY_US);
  expect(touches.queued).toBe(1);
});

test('what does not fit into the queue is counted, and comes again with its next load', () => {
  const touches = new Touches();
  for (let i = 0; i < TOUCH_QUEUE_MAX; i += 1) touches.loaded('n', String(i), 0);
  expect(touches).toMatchObject({ queued: TOUCH_QUEUE_MAX, passedOver: 0 });
  touches.loaded('n', 'more', 0);
  expect(touches).toMatchObject({ queued: TOUCH_QUEUE_MAX, passedOver: 1 });
  touches.take();
  touches.loaded('n', 'more', 0);
  expect(touches.queued).toBe(TOUCH_QUEUE_MAX - TOUCH_BATCH_MAX + 1);
});

test('batches are of one namespace, bounded, and each namespace has its turn', () => {
  const touches = new Touches();
  for (let i = 0; i < TOUCH_BATCH_MAX + 1; i += 1) touches.loaded('many', String(i), 0);
  touches.loaded('few', 'aa', 0);
  expect(touches.take()).toMatchObject({ namespace: 'many', hexes: { length: TOUCH_BATCH_MAX } });
  expect(touches.take()).toMatchObject({ namespace: 'few' });
  expect(touches.take()).toMatchObject({ namespace: 'many', hexes: { length: 1 } });
  expect(touches.queued).toBe(0);
});

test('the memory of what was touched is bounded: the one that was longest ago is forgotten', () => {
  const touches = new Touches();
  for (let i = 0; i <= TOUCHED_MAX; i += 1) {
    touches.loaded('n', String(i), 0);
    if (touches.queued === TOUCH_QUEUE_MAX) while (touches.take() !== null);
  }
  while (touches.take() !== null);
  touches.loaded('n', '1', 1);
  expect(touches.queued).toBe(0);
  touches.loaded('n', '0', 1);
  expect(touches.queued).toBe(1);
});

test('a batch that was not carried out is asked for by the next loads', () => {
  const touches = new Touches();
  touches.loaded('n', 'aa', 0);
  touches.failed(touches.take()!);
  touches.loaded('n', 'aa', 1);
  expect(touches.queued).toBe(1);
});

// ---- leftovers ----

const leftover = { path: 'blocks/n/aa/aa.f00-1.tmp', inode: '5', changedNs: '17' };

test('a temporary is removed when it was seen unchanged for an hour, in two passes', () => {
  const leftovers = new Leftovers();
  leftovers.passBegins();
  leftovers.saw(leftover, 0);
  expect(leftovers.due(2 * LEFTOVER_AGE_US)).toEqual([]); // one pass, however long it took
  leftovers.passBegins();
  leftovers.saw(leftover, LEFTOVER_AGE_US - 1);
  expect(leftovers.due(LEFTOVER_AGE_US - 1)).toEqual([]);
  leftovers.passBegins();
  leftovers.saw(leftover, LEFTOVER_AGE_US);
  expect(leftovers.due(LEFTOVER_AGE_US)).toEqual([leftover]);
});

test.each([{ inode: '6' }, { changedNs: '18' }])('one that changed begins anew: %j', (change) => {
  const leftovers = new Leftovers();
  leftovers.passBegins();
  leftovers.saw(leftover, 0);
  leftovers.passBegins();
  leftovers.saw({ ...leftover, ...change }, LEFTOVER_AGE_US);
  expect(leftovers.due(LEFTOVER_AGE_US)).toEqual([]);
});

test('one that a pass did not see is forgotten', () => {
  const leftovers = new Leftovers();
  leftovers.passBegins();
  leftovers.saw(leftover, 0);
  leftovers.passBegins();
  expect(leftovers.due(LEFTOVER_AGE_US)).toEqual([]);
  expect(leftovers.size).toBe(0);
});

test('the table is bounded, and what found no room is counted', () => {
  const leftovers = new Leftovers(1, 2);
  leftovers.passBegins();
  for (const path of ['a', 'b', 'c']) leftovers.saw({ ...leftover, path }, 0);
  expect(leftovers).toMatchObject({ size: 2, unremembered: 1 });
});

// ---- the walk ----

test('the walk lists each directory to its end before it goes on, and what vanished is passed over', () => {
  const oldest = new Oldest();
  const leftovers = new Leftovers();
  leftovers.passBegins();
  const scan = new StoreScan(oldest, leftovers);
  const file = (name: string, modifiedNs: number) => `f 8192 5000 ${modifiedNs} 77 12 ${name}`;
  const listings: Record<string, string> = {
    'blocks@': '5\nd 0 0 0 0 1 n1\nf 0 0 0 0 1 stray',
    'blocks@5': '-\nd 0 0 0 0 1 .n2.old\nd 0 0 0 0 1 n2',
    'blocks/n1@': '-\nd 0 0 0 0 1 ab\nd 0 0 0 0 1 xyz',
    'blocks/n1/ab@': `9\n${file('abcd.kvb', 5_000_000)}\n${file('name with space.kvb', 1)}`,
    'blocks/n1/ab@9': `-\n${file('ab01.kvb', 90_000_000)}\n${file('ab.000000000000000f-3.tmp', 1)}\n${file('cd.000000000000000f-3.tmp', 1)}\n${file('cdcd.kvb', 1)}\n? 0 0 0 0 1 a%0Ab.kvb\nl 0 0 0 0 1 abff.kvb`,
  };
  const seen: string[] = [];
  for (let next = scan.next(); next !== null; next = scan.next()) {
    const at = `${next.path}@${next.cookie}`;
    seen.push(at);
    const listing = listings[at];
    if (listing === undefined) scan.isGone();
    else expect(scan.listed(listing, 50_000, 0)).toBe(true);
  }
  expect(seen).toEqual(['blocks@', 'blocks/n1@', 'blocks/n1/ab@', 'blocks/n1/ab@9', 'blocks@5', 'blocks/n2@']);
  expect(scan).toMatchObject({ blocks: 2, usedBytes: 16_384 });
  expect(leftovers.size).toBe(1);
  expect(oldest.turnOver(1)).toBe(true);
  expect(oldest.next()).toEqual({ namespace: 'n1', hex: 'abcd', modifiedNs: '5000000', inode: '12', allocatedBytes: 8192, rankUs: 5_000 });
  expect(oldest.next()).toMatchObject({ hex: 'ab01', rankUs: 10_000 }); // 40 ms ahead is as old as 40 ms
});

test.each(['', 'x', '12a\nf 1 1 1 1 1 a.kvb'])('a listing that cannot be read is none: %j', (text) => {
  expect(new StoreScan(new Oldest(), new Leftovers()).listed(text, 0, 0)).toBe(false);
});

test('a listing that goes on where it began has no end: it cannot be read', () => {
  const scan = new StoreScan(new Oldest(), new Leftovers());
  expect(scan.listed('5\nf 1 1 1 1 1 x', 0, 0)).toBe(true);
  expect(scan.listed('6\nf 1 1 1 1 1 y', 0, 0)).toBe(true);
  expect(scan.listed('6\nf 1 1 1 1 1 z', 0, 0)).toBe(false);
});
