// Many of everything: stuck lanes, blocks in a store, mounts, sidecars, requests. What it costs is measured at growing sizes, printed as a
// table, and must grow no faster than in proportion (costs.ts). KVLANE_SCALE_FULL=1 (npm run scale) has the large sizes.

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Client, type Fields } from '../../clients/node/client.ts';
import { keysOf, onEachEngine, patternOf, withRig } from '../support/rig.ts';
import { PlainStore, startStore } from '../support/plain_store.ts';
import { freshDirectory, KNOWN_AT_READY } from '../support/sidecar_process.ts';
import { complaint, complaints, costOf, row, sum, type Cost } from './costs.ts';

const FULL = Boolean(process.env['KVLANE_SCALE_FULL']);
const LONG_MS = FULL ? 600_000 : 60_000;
const KIB = 1024;
/** In the half second and the look-ups before it. One thread that spins takes 500; seen are 0 to 20. */
const IDLE_CPU_MS_MAX = 150;
const pidOf = (store: { client: Client }): number => store.client.process.child.pid!;
const msSince = (began: number): number => performance.now() - began;

// ---- stuck lanes ----

onEachEngine('stuck operations', (engine) => {
  const sizes = FULL ? [250, 500, 1_000] : [60, 120, 240];
  test(`${sizes.at(-1)} of them: a thread and some pages each, and no processor time while they are stuck`, { timeout: LONG_MS }, () =>
    withRig({ engine, breakerHeldClosed: true, stallMs: 20, stuckMax: 1_000, slots: 1_100, slotBytes: 4_096, args: ['--lanes', '64'] }, async (rig) => {
      const keys = keysOf('s', sizes.at(-1)!);
      await rig.fill(keys);
      const pid = pidOf(rig);
      const costs: Cost[] = [costOf(pid)];
      row(`stuck, ${engine}`, 0, costs[0]!);
      await rig.lab.hang('read', { match: '/blocks/*' });
      const asked: Promise<unknown>[] = [];
      for (const [i, n] of sizes.entries()) {
        for (const key of keys.slice(sizes[i - 1] ?? 0, n)) {
          const [slot] = rig.lease(1);
          asked.push(rig.load([key], [slot!], LONG_MS).then(() => rig.client.arena.release([slot!])));
        }
        await rig.lab.waitStuck('read', n, 30_000);
        const before = costOf(pid);
        const began = performance.now();
        const present = await rig.lookup(keys.slice(0, 32), 10_000); // another class, beside them
        const lookedUpMs = msSince(began);
        expect(present.answer).toMatchObject({ ok: true });
        await new Promise((go) => setTimeout(go, 500)); // how much it does while nothing is asked
        costs.push(costOf(pid));
        const idleCpuMs = costs.at(-1)!.cpuMs - before.cpuMs;
        row(`stuck, ${engine}`, n, costs.at(-1)!, `32 look-ups ${lookedUpMs.toFixed(1)} ms; ${idleCpuMs} ms of processor in 0.5 s of being stuck`);
        expect(idleCpuMs).toBeLessThan(IDLE_CPU_MS_MAX);
      }
      // An aio lane has many of them: how many lanes there are is between one and --lanes in each class.
      const found = complaints([0, ...sizes], costs, { threads: { perUnit: 1.2, slack: engine === 'aio' ? 3 * 64 : 16 }, descriptors: { perUnit: 4, slack: 64 }, memoryKib: { perUnit: 96, slack: 24 * KIB } });
      expect(found).toEqual([]);
      await rig.heal();
      await Promise.all(asked);
      await rig.until('the extra lanes have left', async () => (await rig.stats()).lanes <= 3 * 64);
      const healed = costOf(pid);
      row(`stuck, ${engine}`, 'healed', healed);
      expect(healed.threads).toBeLessThan(costs[0]!.threads + 3 * 64 + 16);
    }));
});

// ---- blocks in one store ----

/** Files that a look-up takes for blocks, as fast as they can be made: sparse, with nothing in them. */
const MAKE_BLOCKS = `import os,sys
root, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
fans = {}
for i in range(first, end):
 name = '%08x' % (i * 2654435761 % 2**32)
 fan = fans.get(name[:2])
 if fan is None:
  path = os.path.join(root, name[:2]); os.makedirs(path, exist_ok=True)
  fan = fans[name[:2]] = os.open(path, os.O_RDONLY)
 fd = os.open(name + '.kvb', os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fan)
 os.ftruncate(fd, 8192); os.close(fd)`;
const nameOf = (i: number): string => Number((BigInt(i) * 2654435761n) % 2n ** 32n).toString(16).padStart(8, '0');

test('blocks in one store: looking up costs what it cost with few, and nothing is kept of them', { timeout: LONG_MS }, async () => {
  const most = Number(process.env['KVLANE_SCALE_BLOCKS'] ?? (FULL ? 100_000 : 8_000));
  const sizes = [most / 100, most / 10, most];
  const store = await startStore(freshDirectory());
  const folder = join(store.root, 'blocks', 'n');
  mkdirSync(folder, { recursive: true });
  const perKeyUs: number[] = [];
  const costs: Cost[] = [];
  for (const [i, n] of sizes.entries()) {
    execFileSync('python3', ['-ISc', MAKE_BLOCKS, folder, String(sizes[i - 1] ?? 0), String(n)]);
    const count = Math.min(4096, n);
    const present = Array.from({ length: count }, (_, k) => `n/${nameOf(Math.floor((k * n) / count))}`);
    const absent = present.map((key) => `${key}00`);
    let best = Infinity;
    for (let turn = 0; turn < 3; turn += 1) {
      const began = performance.now();
      expect(await store.has(present)).toEqual(present.map(() => true));
      expect(await store.has(absent)).toEqual(absent.map(() => false));
      best = Math.min(best, (msSince(began) * 1000) / (2 * count));
    }
    perKeyUs.push(best);
    costs.push(costOf(pidOf(store)));
    row('blocks in a store', n, costs.at(-1)!, `${best.toFixed(1)} us a look-up, best of 3`);
  }
  expect(complaints(sizes, costs, { threads: { perUnit: 0, slack: 12 }, descriptors: { perUnit: 0, slack: 40 }, memoryKib: { perUnit: 0, slack: 64 * KIB } })).toEqual([]);
  expect(perKeyUs.at(-1)!).toBeLessThan(20 * perKeyUs[0]! + 200); // a hundred times the blocks
  for (const one of await store.put(keysOf('real', 16), 5_000)) expect(one.code).toBe('OK');
  for (const one of await store.get(keysOf('real', 16), 5_000)) expect(one.code).toBe('OK');
});

// ---- mounts ----

test('mounts, each a device of its own: lanes are made on demand, and cost the same each', { timeout: LONG_MS }, async () => {
  const sizes = FULL ? [4, 16, 64] : [2, 8, 24];
  const costs: Cost[] = [];
  for (const n of sizes) {
    const roots = Array.from({ length: n }, () => freshDirectory());
    for (const root of roots) execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'kvlane-test', root]);
    onTestFinished(() => roots.forEach((root) => void execFileSync('umount', ['-l', root]))); // before the directories are removed
    const began = performance.now();
    const client = await Client.spawn({ mounts: Object.fromEntries(roots.map((root, i) => [`m${i}`, root])), create: true, args: [...KNOWN_AT_READY, '--arena-mib', '8', '--slot-bytes', '65536'], startMs: 30_000 });
    const readyMs = msSince(began);
    expect(client.ready.mounts).toHaveLength(n);
    const idle = costOf(client.process.child.pid!);
    for (let i = 0; i < n; i += 1) {
      for (const [op, more] of [['store', {}], ['load', {}]] as const) {
        if (op === 'store') client.writeSlot(i % 64, patternOf(`m/00${i}`, 5_000));
        const answer = await client.request(op, { mount: `m${i}`, namespace: 'm', keys: ['00aa'], slots: [i % 64], bytes: 5_000, timeout_ms: 20_000, ...more } as unknown as Fields<'load'>);
        expect(answer, `${op} on m${i}`).toMatchObject({ ok: true });
      }
      expect(client.readSlot(i % 64, 5_000)).toEqual(patternOf(`m/00${i}`, 5_000));
    }
    costs.push(costOf(client.process.child.pid!));
    row('mounts', n, costs.at(-1)!, `ready after ${readyMs.toFixed(0)} ms; ${idle.threads} threads before the first request`);
    await client.shutdown();
  }
  expect(complaints(sizes, costs, { threads: { perUnit: 6, slack: 16 }, descriptors: { perUnit: 24, slack: 64 }, memoryKib: { perUnit: 1024, slack: 32 * KIB } })).toEqual([]);
});

// ---- sidecars ----

test('sidecars on one store: each costs what one costs, and each reads what the others wrote', { timeout: LONG_MS }, async () => {
  const sizes = FULL ? [1, 4, 16] : [1, 2, 4];
  const root = mkdtempSync('/dev/shm/kvlane-test-'); // in memory: what a busy disk takes is not measured
  onTestFinished(() => rmSync(root, { recursive: true, force: true }));
  const stores: PlainStore[] = [];
  const costs: Cost[] = [];
  for (const n of sizes) {
    while (stores.length < n) stores.push(await startStore(root));
    const began = performance.now();
    await Promise.all(stores.map(async (store, i) => {
      for (const one of await store.put(keysOf(`w${i}`, 32), 5_000, { replace: true })) expect(one.code).toBe('OK');
    }));
    await Promise.all(stores.map(async (store, i) => {
      const keys = keysOf(`w${(i + 1) % n}`, 32);
      for (const [k, one] of (await store.get(keys, 5_000)).entries()) expect(one.data).toEqual(patternOf(keys[k]!, 5_000));
    }));
    const tookMs = msSince(began);
    costs.push(sum(stores.map((store) => costOf(pidOf(store)))));
    row('sidecars', n, costs.at(-1)!, `${32 * n} stores and loads in ${tookMs.toFixed(0)} ms`);
  }
  // Pages that they share weigh on the first alone: one more may cost more than its share, never more than a whole one.
  expect(complaints(sizes, costs, { threads: { perUnit: costs[0]!.threads + 4, slack: 8 }, descriptors: { perUnit: costs[0]!.descriptors + 8, slack: 32 }, memoryKib: { perUnit: costs[0]!.memoryKib, slack: 24 * KIB } })).toEqual([]);
});

// ---- requests, and faults planted to be found ----

// Processor time too: waiting for one's turn does not count in it. What one request costs, six times over.
const REQUESTS = { threads: { perUnit: 0, slack: 12 }, descriptors: { perUnit: 0, slack: 40 }, memoryKib: { perUnit: 0, slack: 48 * KIB }, cpuMs: { perUnit: 0.2, slack: 300 } };

/** Asks as often as the sizes say, one line each; what the sidecar costs after each. */
async function asked(sizes: readonly number[], env: Record<string, string> = {}): Promise<Cost[]> {
  const client = await Client.spawn({ mounts: { kv0: freshDirectory() }, create: true, args: [...KNOWN_AT_READY, '--arena-mib', '1', '--slot-bytes', '65536'], env, startMs: 20_000 });
  const costs: Cost[] = [];
  let sent = 0;
  for (const n of sizes) {
    while (sent < n) {
      const some = Math.min(500, n - sent);
      const answers = await Promise.all(Array.from({ length: some }, (_, i) => client.request('lookup', { namespace: 'q', keys: [(sent + i).toString(16).padStart(8, '0')], timeout_ms: 20_000 } as unknown as Fields<'lookup'>)));
      expect(answers.filter((answer) => !answer.ok)).toEqual([]);
      sent += some;
    }
    costs.push(costOf(client.process.child.pid!));
  }
  await client.shutdown();
  return costs;
}

/** The sidecar's own JSON.parse is called once for each line. */
function planted(fault: string): Record<string, string> {
  const file = join(freshDirectory(), 'planted.cjs');
  writeFileSync(file, `const kept = []; const fs = require('node:fs'); const parse = JSON.parse; JSON.parse = function (...words) { ${fault}; return parse.apply(this, words); };`);
  return { NODE_OPTIONS: `--require=${file}` };
}

describe('requests', () => {
  const sizes = FULL ? [20_000, 100_000, 400_000] : [3_000, 6_000, 12_000];
  test('many of them, one after another: nothing of them stays', { timeout: LONG_MS }, async () => {
    const began = performance.now();
    const costs = await asked(sizes);
    sizes.forEach((n, i) => row('requests', n, costs[i]!, i === sizes.length - 1 ? `all in ${(msSince(began) / 1000).toFixed(1)} s` : ''));
    expect(complaints(sizes, costs, REQUESTS)).toEqual([]);
  });

  const few = [2_000, 4_000, 8_000];
  test.each([
    ['memory kept of each request', 'kept.push(Buffer.alloc(16384, 1))', /memoryKib/],
    ['memory kept of each request for all before it', 'kept.push(Buffer.alloc(4 * kept.length, 1))', /memoryKib/],
    ['a look at all requests before it', 'kept.push(0); let sum = 0; for (let i = 0; i < 100 * kept.length; i += 1) sum += i & 7; kept[0] = sum', /cpuMs/],
    ['a descriptor that is not closed', 'if (kept.push(0) % 20 === 0) fs.openSync("/dev/null")', /descriptors/],
  ])('a planted fault is found: %s', { timeout: LONG_MS }, async (_what, fault, words) => {
    const found = complaints(few, await asked(few, planted(fault)), REQUESTS);
    console.log(found.join('; '));
    expect(found.join('; ')).toMatch(words);
  });
});

test('growth is told from noise: in proportion passes, faster does not, and neither does a leak where nothing may grow', () => {
  const at = (of: (n: number) => number) => [100, 200, 400, 800].map((n) => ({ n, value: of(n) }));
  const mild = { perUnit: 1e9, slack: 10 };
  expect(complaint('it', at((n) => 500 + 3 * n), mild)).toBeNull();
  expect(complaint('it', at(() => 500), mild)).toBeNull();
  expect(complaint('it', at((n) => 500 + 4 * Math.sin(n)), mild)).toBeNull();
  expect(complaint('it', at((n) => 500 + n * Math.log2(n)), mild)).toBeNull();
  expect(complaint('it', at((n) => 500 + (n * n) / 100), mild)).toContain('faster than in proportion');
  expect(complaint('it', at((n) => 500 + n ** 1.8), mild)).toContain('faster than in proportion');
  expect(complaint('it', at((n) => 500 + n), { perUnit: 0.5, slack: 10 })).toContain('for each');
  expect(complaint('it', at((n) => (n > 400 ? NaN : 1)), mild)).toContain('not known');
});
