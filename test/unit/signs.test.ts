// Stores that find no room on a sidecar that does not collect: it asks the one that does, and hears of it, or goes without in time.
import { expect, test } from 'vitest';
import { HOLD_US, LEASE_EVERY_US } from '../../sidecar/collector_lease.ts';
import { ANSWER_EVERY_US, Hearing, LISTEN_EVERY_US, SIGN_TIMES, type SignAsk, Wanting, WANT_US } from '../../sidecar/signs.ts';
import { URGED_BYTES_MIN } from '../../sidecar/urging.ts';
import { CollectedStore, Collecting, not, ok } from '../support/collected_store.ts';
import { manualClock, type ManualClock } from '../support/manual_clock.ts';

const MIB = 1 << 20;
const GIB = 1 << 30;
/** Two looks of the holder apart from each other, a scan and some removals, and a look of the one that waits. */
const SOON_MS = (LISTEN_EVERY_US + ANSWER_EVERY_US) / 1000 + 500;

interface World {
  store: CollectedStore;
  wall: ManualClock;
  all: Collecting[];
  add(name: string, limit?: number): Collecting;
  pass(ms: number, stepMs?: number): void;
}

/** Sidecars whose clocks go together; the first one collects. */
function world(blocks: number, limit = GIB): World {
  const wall = manualClock();
  const store = new CollectedStore(wall);
  for (let i = 0; i < blocks; i += 1) store.block('n', i.toString(16).padStart(3, '0'), 10_000 - i);
  const all: Collecting[] = [];
  return {
    store, wall, all,
    add(name, own = limit) {
      const one = new Collecting(store, own, { name });
      one.clock.jump(wall.nowUs() / 1000);
      all.push(one.start());
      return one;
    },
    pass(ms, stepMs = 10) {
      for (let left = ms; left > 0; left -= stepMs) {
        const step = Math.min(stepMs, left);
        wall.advance(step);
        for (const one of all) one.clock.advance(step);
      }
    },
  };
}

function two(blocks = 900, limit = GIB): World & { holder: Collecting; other: Collecting } {
  const it = world(blocks, limit);
  const holder = it.add('holder');
  it.pass(5_000);
  const other = it.add('other');
  it.pass(5_000);
  return { ...it, holder, other };
}

interface Urged {
  waits: boolean;
  heard: boolean[];
  waiter: (madeRoom: boolean, nowUs: number) => void;
}

function urge(one: Collecting): Urged {
  const urged: Urged = { waits: false, heard: [], waiter: (madeRoom) => void urged.heard.push(madeRoom) };
  one.turn((nowUs) => (urged.waits = one.collector.urge(urged.waiter, nowUs)));
  return urged;
}
/** It renews its lease, and none of its calls on signs succeeds. */
function deafen(one: Collecting, store: CollectedStore): void {
  const carriedOut = store.do.bind(store);
  store.do = (ask, by, atUs) => (ask.kind === 'sign' && by === one.name ? not('io_error', 'want cannot be opened') : carriedOut(ask, by, atUs));
}

function hear(store: CollectedStore): void {
  store.do = CollectedStore.prototype.do.bind(store);
}

const signs = (one: Collecting): string[] => one.asked.flatMap((ask) => (ask.kind === 'sign' ? [`${ask.action} ${ask.sign}`] : []));

test('a store that finds no room on a sidecar that does not collect hears of what the other one made, and the other one made it', () => {
  const { store, holder, other, pass } = two();
  const { waits, heard } = urge(other);
  expect(waits).toBe(true);
  pass(SOON_MS);
  expect(heard).toEqual([true]);
  expect(store.removed).toHaveLength(URGED_BYTES_MIN / MIB);
  expect(new Set(store.removed.map(({ by }) => by))).toEqual(new Set(['holder']));
  expect(holder.picture()).toMatchObject({ role: 'holder', urged: 1, wants: 0 });
  expect(other.picture()).toMatchObject({ role: 'waiting', wants: 1, evicted_blocks: 0 });
  pass(300_000, 100);
  expect(store.removed).toHaveLength(URGED_BYTES_MIN / MIB); // heard once
});

test('of several sidecars that find none at the same time all hear of the one pass', () => {
  const { store, holder, other, add, pass } = two();
  const third = add('third');
  pass(2_000);
  const urged = [urge(other), urge(other), urge(third), urge(holder)];
  pass(SOON_MS);
  expect(urged.map(({ heard }) => heard)).toEqual([[true], [true], [true], [true]]);
  expect(holder.picture()).toMatchObject({ urged: 1 });
  expect(store.removed).toHaveLength(URGED_BYTES_MIN / MIB);
});

test('a pass that was under way, urged or not, is theirs too', () => {
  const { store, holder, other, pass } = two();
  holder.hold.add('list');
  urge(holder);
  pass(100);
  const { heard } = urge(other);
  pass(2_000);
  expect(heard).toEqual([]);
  holder.hold.clear();
  holder.let();
  pass(2 * SOON_MS + 4_000); // it rests as long as its listing took
  expect(heard).toEqual([true]);
  expect(holder.picture()).toMatchObject({ urged: 1 });
  expect(store.removed).toHaveLength(URGED_BYTES_MIN / MIB);
});

test('however many ask and however often, there is one pass a minute, and none goes below half of the limit', () => {
  const { store, holder, other, add, pass } = two(900, GIB);
  const others = [other, add('third'), add('fourth')];
  pass(1_000);
  let least = Infinity;
  for (let turn = 0; turn < 360; turn += 1) {
    for (const one of others) urge(one);
    pass(5_000, 100);
    least = Math.min(least, store.usedBytes());
    expect(holder.picture()['urged']).toBeLessThanOrEqual(1 + Math.ceil(((turn + 1) * 5) / 60));
  }
  expect(least).toBe(GIB / 2);
  expect(new Set(store.removed.map(({ by }) => by))).toEqual(new Set(['holder']));
});

test('a sidecar whose stores find no room all the same asks less and less often, and at once is the answer between', () => {
  const { other, pass } = two();
  const at: number[] = [];
  for (let second = 0; second < 2_000; second += 1) {
    if (urge(other).waits) {
      at.push(second);
      pass(1_900, 100);
      other.turn((nowUs) => other.collector.retried(false, nowUs));
      pass(100, 100);
      second += 1;
    } else pass(1_000, 100);
  }
  const gaps = at.slice(1).map((second, i) => Math.round((second - at[i]!) / 60));
  expect(gaps.slice(0, 4)).toEqual([2, 4, 8, 10]);
});

test('a holder that may remove nothing says so soon, by what the next try of the store finds', () => {
  const { store, other, pass } = two(400); // within half
  const { heard } = urge(other);
  pass(SOON_MS);
  expect(heard).toEqual([true]);
  expect(store.removed).toEqual([]);
});

test('a holder that hears nobody is waited for ten seconds and not longer, and then asked less and less often', () => {
  const { store, holder, other, pass } = two();
  deafen(holder, store);
  const at: number[] = [];
  while (at.length < 4) {
    const nowMs = other.clock.nowUs() / 1000;
    const { waits, heard } = urge(other);
    if (waits) {
      at.push(nowMs);
      pass((WANT_US - ANSWER_EVERY_US) / 1000, 100);
      expect(heard).toEqual([]);
      pass((3 * ANSWER_EVERY_US) / 1000, 100);
      expect(heard).toEqual([false]);
    } else pass(5_000, 100);
  }
  expect(at.slice(1).map((ms, i) => Math.round((ms - at[i]!) / 60_000))).toEqual([1, 2, 4]);
  expect(holder.picture()['reason']).toBe('of stores on other sidecars that find no room nothing is heard: want cannot be opened');
  hear(store);
  pass(2_000);
  expect(holder.picture()).not.toHaveProperty('reason');
});

test('stores whose deadlines are shorter than an answer takes make no want rarer: there is room for the next', () => {
  const { other, pass } = two();
  for (let minute = 0; minute < 4; minute += 1) {
    const { waits, waiter } = urge(other);
    expect(waits).toBe(true);
    pass(300);
    other.turn(() => other.collector.gaveUp(waiter));
    pass(60_000, 100);
  }
});

test('one that takes the lease over begins a pass for its own stores, however rarely the one before answered', () => {
  const { store, all, holder, other, pass } = two();
  deafen(holder, store);
  for (let asked = 0; asked < 4; ) {
    asked += Number(urge(other).waits);
    pass(12_000, 100);
  }
  expect(urge(other).waits).toBe(false);
  holder.turn((nowUs) => holder.collector.leave(nowUs, () => {}));
  pass(10);
  all.splice(all.indexOf(holder), 1);
  pass(72_000, 100);
  expect(other.picture()).toMatchObject({ role: 'holder' });
  const { heard } = urge(other);
  pass(1_000);
  expect(heard).toEqual([true]);
});

test('a want that was told before it took the lease is not gone on with when it has lost that', () => {
  const { store, all, holder, other, pass } = two();
  deafen(holder, store);
  const first = urge(other);
  pass(1_000);
  expect(signs(other)).toContain('tell want');
  store.lease.set(1, { content: 'left', modifiedNs: store.nowNs() });
  all.splice(all.indexOf(holder), 1);
  pass(LEASE_EVERY_US / 1000 + 1_000, 100);
  expect(other.picture()).toMatchObject({ role: 'holder' });
  expect(first.heard).toEqual([true]);
  pass(61_000, 100);
  store.lease.set(3, { content: 'third 1', modifiedNs: store.nowNs() });
  pass(LEASE_EVERY_US / 1000 + 100, 100);
  expect(other.picture()).toMatchObject({ role: 'waiting' });
  const before = signs(other).length;
  urge(other);
  pass(500);
  expect(signs(other).slice(before, before + 2)).toEqual(['listen made', 'tell want']);
});

test('a want that is seen while the lease is given back lets its stores try again', () => {
  const { store, holder, other, pass } = two();
  holder.hold.add('sign');
  while (holder.waiting === null) pass(10);
  store.signs.set('want', store.nowNs());
  let left = false;
  holder.turn((nowUs) => holder.collector.leave(nowUs, () => (left = true)));
  expect(left).toBe(false);
  holder.hold.clear();
  holder.let();
  pass(10);
  expect(left).toBe(true);
  expect(signs(holder).at(-1)).toBe('tell made');
  expect(store.lease.get(1)?.content).toBe('left');
  expect(other.picture()).toMatchObject({ role: 'waiting' });
});

test('of many sidecars that find no room all the time none waits without an answer', () => {
  const { store, holder, other, add, pass } = two(900, GIB);
  const others = [other, add('third'), add('fourth')];
  pass(1_000);
  const waited: Urged[] = [];
  for (let turn = 0; turn < 450; turn += 1) {
    const urged = others.flatMap((one, i) => (turn % 3 === i ? [{ one, ...urge(one) }] : []));
    pass(SOON_MS + 2_300, 100); // a store's deadline of four seconds
    for (const { one, waits, heard, waiter } of urged) {
      if (!waits) continue;
      waited.push({ waits, heard, waiter });
      one.turn((nowUs) => (heard.length === 0 ? one.collector.gaveUp(waiter) : one.collector.retried(false, nowUs)));
    }
  }
  expect(waited.length).toBeGreaterThan(9);
  expect(waited.filter(({ heard }) => heard[0] !== true)).toEqual([]);
  expect(holder.picture()['urged']).toBeLessThanOrEqual(31);
  expect(store.usedBytes()).toBeGreaterThanOrEqual(GIB / 2);
});

test('whoever tells a want each second gets a pass a minute, and none below half of the limit', () => {
  const { store, holder, pass } = two(900, GIB);
  for (let second = 0; second < 1_800; second += 1) {
    store.signs.set('want', store.nowNs());
    pass(1_000, 100);
    expect(holder.picture()['urged']).toBeLessThanOrEqual(1 + Math.ceil((second + 1) / 60));
  }
  expect(store.usedBytes()).toBe(GIB / 2);
});

test('after a suspension a want is told anew, however long ago the last one was', () => {
  const { store, holder, other, pass } = two();
  deafen(holder, store);
  const first = urge(other);
  pass(2_000);
  expect(signs(other)).toContain('tell want');
  other.hindrance = 'suspended';
  pass(62_000, 100);
  expect(first.heard).toEqual([false]);
  other.hindrance = '';
  const before = signs(other).length;
  const { heard } = urge(other);
  pass(1_000);
  expect(signs(other).slice(before, before + 2)).toEqual(['listen made', 'tell want']);
  expect(heard).toEqual([]);
});

test('a holder that leaves in the midst of a pass lets those try again who asked for it', () => {
  const { store, all, holder, other, pass } = two();
  const { heard } = urge(other);
  while (store.removed.length < 20) pass(1);
  let left = false;
  holder.turn((nowUs) => holder.collector.leave(nowUs, () => (left = true)));
  pass(10);
  expect(left).toBe(true);
  expect(signs(holder).at(-1)).toBe('tell made');
  all.splice(all.indexOf(holder), 1);
  pass(2 * (ANSWER_EVERY_US / 1000));
  expect(heard).toEqual([true]);
});

test('a store that was answered meanwhile is waited for no longer, and nothing is asked for it any more', () => {
  const { other, holder, pass } = two();
  holder.hindrance = 'suspended';
  const { waiter, heard } = urge(other);
  pass(1_000);
  other.turn(() => other.collector.gaveUp(waiter));
  pass(ANSWER_EVERY_US / 1000);
  const asked = signs(other).length;
  pass(5_000);
  expect(signs(other)).toHaveLength(asked);
  expect(heard).toEqual([]);
});

test('a long pass tells early that it makes room, and then no more often than anybody listens', () => {
  const { store, holder, other, pass } = two(900, GIB);
  for (let i = 0; i < 3_000; i += 1) store.block('m', i.toString(16).padStart(4, '0'), 20_000 - i);
  const { heard } = urge(other);
  const began = store.removed.length;
  while (heard.length === 0) pass(10);
  expect(heard).toEqual([true]);
  expect(store.removed.length - began).toBeGreaterThanOrEqual(URGED_BYTES_MIN / MIB);
  expect(store.usedBytes()).toBeGreaterThan(GIB);
  const from = holder.clock.nowUs();
  while (store.usedBytes() > GIB) pass(10);
  pass(1_000);
  const told = signs(holder).filter((sign) => sign === 'tell made').length;
  expect(told).toBeLessThanOrEqual(2 + Math.ceil((holder.clock.nowUs() - from) / ANSWER_EVERY_US));
  expect(store.signs.get('made')).toBeGreaterThan(0n);
});

test('who holds the lease listens once a second, who does not listens to nothing while none of its stores waits', () => {
  const { holder, other, pass } = two();
  pass(2_000);
  const before = signs(holder).length;
  pass(60_000);
  const heard = signs(holder).slice(before);
  expect(new Set(heard)).toEqual(new Set(['listen want']));
  expect(heard.length).toBeGreaterThan(55);
  expect(heard.length).toBeLessThanOrEqual(60);
  expect(signs(other)).toEqual([]);
});

test('where the one that collects knows no signs the store is told at once', () => {
  const it = world(900);
  it.store.signless = true;
  it.add('old');
  it.pass(5_000);
  const other = it.add('other');
  it.pass(5_000);
  const { heard } = urge(other);
  it.pass(50);
  expect(heard).toEqual([false]);
  expect(signs(other)).toEqual(['listen made']);
});

test.each(['listen made', 'tell want'])('where a sign cannot be had the store is told at once: %s', (failing) => {
  const { store, other, pass } = two();
  const carriedOut = store.do.bind(store);
  store.do = (ask, by, atUs) => (ask.kind === 'sign' && `${ask.action} ${ask.sign}` === failing ? not('no_space', 'ENOSPC') : carriedOut(ask, by, atUs));
  const { heard } = urge(other);
  pass(50);
  expect(heard).toEqual([false]);
  pass(5_000);
  expect(store.removed).toEqual([]);
});

test('where nobody has renewed the lease for as long as one may hold it, nobody is asked', () => {
  const { store, all, holder, other, pass } = two();
  all.splice(all.indexOf(holder), 1); // killed
  pass(HOLD_US / 1000 + LEASE_EVERY_US / 1000, 100);
  const { heard } = urge(other);
  pass(100);
  expect(heard).toEqual([false]);
  expect(signs(other)).toEqual([]);
  expect(store.removed).toEqual([]);
});

test('where the one that collected has left, the one whose store finds no room takes over at once and makes some itself', () => {
  const { store, all, holder, other, pass } = two();
  holder.turn((nowUs) => holder.collector.leave(nowUs, () => {}));
  pass(10);
  all.splice(all.indexOf(holder), 1);
  const { heard } = urge(other);
  pass(500);
  expect(heard).toEqual([true]);
  expect(new Set(store.removed.map(({ by }) => by))).toEqual(new Set(['other']));
});

test('a want that was told before it collected is not heard: the one who told it may be long gone', () => {
  const it = world(900);
  it.store.signs.set('want', it.store.nowNs()).set('made', 1n);
  const holder = it.add('holder');
  it.pass(10_000);
  expect(holder.picture()).toMatchObject({ role: 'holder', urged: 0 });
  it.store.signs.set('want', it.store.nowNs());
  it.pass(2_000);
  expect(holder.picture()).toMatchObject({ urged: 1 });
});

test('nor one that was told while another collected in between', () => {
  const { store, add, pass } = world(900);
  const holder = add('holder');
  pass(5_000);
  store.lease.set(2, { content: 'third 1', modifiedNs: store.nowNs() });
  pass(12_000); // it renews, and is fenced
  expect(holder.picture()).toMatchObject({ role: 'waiting' });
  store.signs.set('want', store.nowNs());
  store.lease.set(2, { content: 'left', modifiedNs: store.nowNs() });
  pass(30_000);
  expect(holder.picture()).toMatchObject({ role: 'holder', lease_number: 3, urged: 0 });
  expect(store.removed).toEqual([]);
});

test('nor one that is heard by a call that took longer than the lease lasted', () => {
  const { holder, pass } = two();
  holder.hold.add('sign');
  pass(2_000);
  expect(holder.waiting?.ask).toMatchObject({ action: 'listen' });
  pass(HOLD_US / 1000 + 1, 100);
  holder.hold.clear();
  holder.let(ok(JSON.stringify({ number: 0, modified_ns: '7' })));
  expect(holder.picture()).toMatchObject({ urged: 0 });
});

test('during a suspension nothing is asked, here or there, and who waited is told', () => {
  const { store, holder, other, pass } = two();
  pass(2_000);
  holder.hindrance = 'suspended';
  pass(20_000);
  const first = urge(other);
  pass(3_000);
  expect(first.heard).toEqual([]);
  other.hindrance = 'suspended';
  const before = [holder.asked.length, other.asked.length + 1]; // one look may have begun
  pass(60_000, 100);
  expect(first.heard).toEqual([false]);
  expect([holder.asked.length, other.asked.length].every((count, i) => count <= before[i]!)).toBe(true);
  expect(store.removed).toEqual([]);
  holder.hindrance = '';
  pass(30_000, 100); // whoever has had the lease all the time sees that somebody wanted room, and that it is too long ago for a pass
  expect(holder.picture()).toMatchObject({ role: 'holder', urged: 0 });
  expect(signs(holder)).toContain('tell made');
  expect(store.removed).toEqual([]);
});

test('a holder that loses its lease while it is waited for tells its own stores, and those of others go without', () => {
  const { store, holder, other, pass } = two();
  holder.hold.add('remove');
  const own = urge(holder);
  const theirs = urge(other);
  pass(1_500);
  store.lease.set(2, { content: 'third 1', modifiedNs: store.nowNs() });
  holder.let();
  pass(1_000);
  expect(own.heard).toEqual([false]);
  pass(WANT_US / 1000 + 1_000, 100);
  expect(theirs.heard).toEqual([false]);
  expect(store.removed).toEqual([]);
});

test.each([[0, 1], [1, 0]])('a want is heard %s us past ten seconds after the last look: passes %s', (past, passes) => {
  const hearing = new Hearing(SIGN_TIMES);
  const listen: SignAsk = { kind: 'sign', action: 'listen', sign: 'want' };
  hearing.answered(listen, '5', 0);
  expect(hearing.answered(listen, '6', WANT_US + past)).toBe(passes === 1);
  expect(hearing.last() !== null).toBe(passes === 0); // an answer it has all the same
});

test('a sidecar that does not know how large the file system is may ask all the same', () => {
  const it = world(900);
  it.add('holder');
  it.pass(5_000);
  const other = new Collecting(it.store, (totalBytes) => totalBytes, { name: 'other' });
  other.clock.jump(it.wall.nowUs() / 1000);
  it.all.push(other.start());
  it.pass(1_000);
  expect(other.picture()).toMatchObject({ limit_bytes: null });
  const { heard } = urge(other);
  it.pass(SOON_MS);
  expect(heard).toEqual([true]);
});

test('an answer to the half that a sidecar no longer is changes nothing', () => {
  const hearing = new Hearing(SIGN_TIMES);
  const listen: SignAsk = { kind: 'sign', action: 'listen', sign: 'want' };
  expect(hearing.answered(listen, '5', 0)).toBe(false); // the first look only tells how it was
  expect(hearing.answered(listen, null, 1)).toBe(false);
  expect(hearing.answered(listen, '5', 2)).toBe(false);
  expect(hearing.answered(listen, '0', 3)).toBe(false); // it is gone
  expect(hearing.answered(listen, '5', 4)).toBe(false); // and there again
  expect(hearing.answered(listen, '4', 5)).toBe(true); // a clock that was set back
  hearing.begins();
  expect(hearing.answered(listen, '6', 6)).toBe(false);
});

test('a sign that vanishes while it is listened to is no room', () => {
  const wanting = new Wanting(SIGN_TIMES);
  const made: SignAsk = { kind: 'sign', action: 'listen', sign: 'made' };
  expect(wanting.next(0)).toEqual(made);
  expect(wanting.answered(made, '7', 0)).toBeNull();
  expect(wanting.next(0)).toEqual({ kind: 'sign', action: 'tell', sign: 'want' });
  expect(wanting.answered({ kind: 'sign', action: 'tell', sign: 'want' }, '9', 0)).toBeNull();
  expect(wanting.next(ANSWER_EVERY_US - 1)).toBeNull();
  expect(wanting.next(ANSWER_EVERY_US)).toEqual(made);
  expect(wanting.answered(made, '7', ANSWER_EVERY_US)).toBeNull();
  expect(wanting.answered(made, '0', 2 * ANSWER_EVERY_US)).toBe(false);
});
