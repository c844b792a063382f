// Several collectors on one store, at random: stopped, hung, fenced, restarted, with calls that land late.
//
// What must hold whatever happens: at each removal nobody has a higher number than the one who removes, the store is never
// brought below the goal, nor for stores that find no room below half of the limit; each of those hears once, in a bounded time of its own sidecar's
// that runs and is asked; and the one that is left takes over.
import { expect, test } from 'vitest';
import { Random } from '../sim/random.ts';
import { DEAD_US } from '../../sidecar/collector_lease.ts';
import { GOAL_OF_LIMIT } from '../../sidecar/pass.ts';
import { WANT_US } from '../../sidecar/signs.ts';
import { URGED_FLOOR_OF_LIMIT } from '../../sidecar/urging.ts';
import { CollectedStore, Collecting, not } from '../support/collected_store.ts';
import { manualClock } from '../support/manual_clock.ts';

const MIB = 1 << 20;
const LIMIT = 40 * MIB;
/** Of all walks: stores that waited for another's pass, and what they heard. */
const ofOthers = { madeRoom: 0, none: 0 };

test.each(Array.from({ length: 40 }, (_, seed) => seed))('seed %i', (seed) => {
  const random = new Random(seed, 0);
  const wall = manualClock();
  const store = new CollectedStore(wall);
  let made = 0;
  const collectors: Collecting[] = [];
  const numbers = new Map<string, number>();
  const urged: { by: Collecting; heard: number; ranUs: number }[] = [];
  const add = (): void => {
    made += 1;
    const name = `writer${made}`;
    const one = new Collecting(store, LIMIT, { name, tookUs: random.pick([50, 1_000, 200_000]) });
    one.before = (ask) => {
      if (ask.kind === 'lease' && ask.step.action !== 'look') numbers.set(name, ask.step.number);
    };
    collectors.push(one.start());
  };
  // All monotonic clocks go with the wall's, but for those that are stopped: they jump when they go on.
  const stopped = new Map<Collecting, number>();
  const pass = (ms: number): void => {
    for (let left = ms; left > 0; left -= 500) {
      const step = Math.min(500, left);
      wall.advance(step);
      for (const one of collectors) {
        if (stopped.has(one)) stopped.set(one, stopped.get(one)! + step);
        else one.clock.advance(step);
      }
      for (const one of urged) {
        // A pass of one's own is waited for as long as it takes; somebody else's no longer than this, but for the calls in between.
        const runs = !stopped.has(one.by) && one.by.waiting === null && one.by.picture()['role'] === 'waiting';
        one.ranUs = runs ? one.ranUs + step * 1000 : 0;
        if (one.heard === 0 && collectors.includes(one.by)) expect(one.ranUs).toBeLessThanOrEqual(WANT_US + 2_000_000);
      }
    }
  };
  add();
  add();
  let stored = 0;
  for (let turn = 0; turn < 120; turn += 1) {
    const one = random.pick(collectors);
    switch (random.pick(['pass', 'pass', 'pass', 'store', 'store', 'want', 'want', 'stop', 'go', 'hang', 'free', 'die', 'suspend', 'meddle'] as const)) {
      case 'pass':
        pass(random.pick([500, 5_000, 40_000]));
        break;
      case 'store':
        for (let i = 0; i < 10; i += 1) store.block('n', (stored += 1).toString(16).padStart(4, '0'), 12 + (stored % 50));
        break;
      case 'want': {
        if (stopped.has(one)) break;
        const mine = { by: one, heard: 0, ranUs: 0 };
        one.turn((nowUs) => {
          const waits = one.collector.urge((madeRoom, atUs) => {
            mine.heard += 1;
            if (one.picture()['role'] === 'waiting') ofOthers[madeRoom ? 'madeRoom' : 'none'] += 1;
            if (madeRoom) one.collector.retried(random.oneIn(2), atUs);
          }, nowUs);
          if (waits) urged.push(mine);
        });
        break;
      }
      case 'meddle':
        for (const sign of ['want', 'made']) {
          if (random.oneIn(2)) store.signs.set(sign, store.nowNs());
          else if (random.oneIn(2)) store.signs.delete(sign);
        }
        break;
      case 'stop':
        if (!stopped.has(one)) stopped.set(one, 0);
        break;
      case 'go': {
        const slept = stopped.get(one);
        stopped.delete(one);
        if (slept !== undefined) one.clock.jump(slept);
        break;
      }
      case 'hang':
        one.hold = new Set(random.pick([['list'], ['remove'], ['lease'], ['sign']] as const));
        break;
      case 'free':
        one.hold.clear();
        if (one.waiting !== null && !stopped.has(one)) one.let(random.oneIn(4) ? not('io_error', 'EIO') : undefined);
        break;
      case 'die':
        if (collectors.length > 1) {
          collectors.splice(collectors.indexOf(one), 1);
          stopped.delete(one);
        }
        add();
        break;
      case 'suspend':
        one.hindrance = one.hindrance === '' ? 'suspended' : '';
        break;
    }
    const before = store.removed.length;
    const used = store.usedBytes();
    pass(100);
    for (const { by } of store.removed.slice(before)) expect(numbers.get(by)).toBe(Math.max(...store.lease.keys()));
    if (used > LIMIT) expect(store.usedBytes()).toBeGreaterThan(LIMIT * GOAL_OF_LIMIT - 2 * MIB);
    if (store.usedBytes() < used) expect(store.usedBytes()).toBeGreaterThanOrEqual(LIMIT * URGED_FLOOR_OF_LIMIT);
    for (const { heard } of urged) expect(heard).toBeLessThanOrEqual(1);
  }
  // One is left, and nothing is in its way: it takes over.
  const [last, ...others] = collectors;
  for (const other of others) collectors.splice(collectors.indexOf(other), 1);
  const slept = stopped.get(last!);
  stopped.clear();
  if (slept !== undefined) last!.clock.jump(slept);
  last!.hindrance = '';
  last!.hold.clear();
  if (last!.waiting !== null && last!.deadlines.size() === 0) last!.let();
  for (let i = 0; i < 60; i += 1) store.block('last', i.toString(16).padStart(2, '0'), 600);
  pass(2 * (DEAD_US / 1000) + 700_000);
  expect(last!.picture()).toMatchObject({ role: 'holder' });
  expect(store.usedBytes()).toBeLessThanOrEqual(LIMIT);
  for (const { by, heard } of urged) if (by === last) expect(heard).toBe(1);
}, 60_000);

test('in those walks others made room, and did not', () => {
  expect(ofOthers.madeRoom).toBeGreaterThan(5);
  expect(ofOthers.none).toBeGreaterThan(10);
});
