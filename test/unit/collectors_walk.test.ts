// Several collectors on one store, at random: stopped, hung, fenced, restarted, with calls that land late.
//
// What must hold whatever happens: at each removal nobody has a higher number than the one who removes, the store is never
// brought below the goal, and the one that is left takes over.
import { expect, test } from 'vitest';
import { Random } from '../sim/random.ts';
import { GOAL_OF_LIMIT } from '../../sidecar/collector.ts';
import { DEAD_US } from '../../sidecar/collector_lease.ts';
import { CollectedStore, Collecting, not } from '../support/collected_store.ts';
import { manualClock } from '../support/manual_clock.ts';

const MIB = 1 << 20;
const LIMIT = 40 * MIB;

test.each(Array.from({ length: 40 }, (_, seed) => seed))('seed %i', (seed) => {
  const random = new Random(seed, 0);
  const wall = manualClock();
  const store = new CollectedStore(wall);
  let made = 0;
  const collectors: Collecting[] = [];
  const numbers = new Map<string, number>();
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
    }
  };
  add();
  add();
  let stored = 0;
  for (let turn = 0; turn < 120; turn += 1) {
    const one = random.pick(collectors);
    switch (random.pick(['pass', 'pass', 'pass', 'store', 'store', 'stop', 'go', 'hang', 'free', 'die', 'suspend'] as const)) {
      case 'pass':
        pass(random.pick([500, 5_000, 40_000]));
        break;
      case 'store':
        for (let i = 0; i < 10; i += 1) store.block('n', (stored += 1).toString(16).padStart(4, '0'), 12 + (stored % 50));
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
        one.hold = new Set(random.pick([['list'], ['remove'], ['lease']] as const));
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
}, 60_000);
