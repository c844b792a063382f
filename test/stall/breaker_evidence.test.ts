// What suspends a mount and what does not: one bad file, cached names, a frozen disk, a slow one, a stopped sidecar, errors.

import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { BACK_MS, backAfter, classOf, eventsOf, expectRefusedAtOnce, expectStory, untilSuspended } from '../support/mount_story.ts';
import { type AnyAsked, codesOf, opsOf, ranOut, tally } from '../support/promptness.ts';
import { failuresOf, keysOf, measured, onEachEngine, type Rig, spreadOf, withRig } from '../support/rig.ts';

const TIMEOUT_MS = 300;
const MIB = 2 ** 20;

const fileOf = (key: string): string => `*/${key.split('/')[1]}.kvb`;

/** Asks in turn until the signal: `workers` at a time, each for as long as `go` says. */
async function keepAsking(workers: number, go: () => boolean, ask: (worker: number, turn: number) => Promise<AnyAsked>): Promise<AnyAsked[]> {
  const all: AnyAsked[] = [];
  const work = async (worker: number): Promise<void> => {
    for (let turn = 0; go(); turn += 1) all.push(await ask(worker, turn));
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  return all;
}
const forMs = (ms: number): (() => boolean) => {
  const end = performance.now() + ms;
  return () => performance.now() < end;
};
async function loadOne(rig: Rig, key: string, timeoutMs: number): Promise<AnyAsked> {
  const slots = rig.lease(1);
  const asked = await rig.load([key], slots, timeoutMs);
  rig.client.arena.release(slots);
  return asked;
}
async function storeOne(rig: Rig, key: string, timeoutMs: number): Promise<AnyAsked> {
  const slots = rig.lease(1);
  const asked = await rig.store([key], slots, timeoutMs, { replace: true });
  rig.client.arena.release(slots);
  return asked;
}
/** Every lane of the class has opened the root: a fresh one reads the store's identity first, and that no cache answers. */
async function warmLookups(rig: Rig, keys: readonly string[]): Promise<void> {
  await rig.until('four lanes for look-ups', async () => {
    await Promise.all(Array.from({ length: 24 }, () => rig.lookup(keys, 5_000)));
    return (await classOf(rig, 'metadata')).lanes === 4;
  });
  for (let round = 0; round < 4; round += 1) await Promise.all(Array.from({ length: 24 }, () => rig.lookup(keys, 5_000)));
}
const suspensionsOf = (rig: Rig): string[] => eventsOf(rig).flatMap((event) => (event.state === 'suspended' ? [`${event.class}: ${event.reason}`] : []));

onEachEngine('evidence', (engine) => {
  it('one stuck file is refused alone, for as long as it is stuck, while other loads complete', () =>
    withRig({ engine, stallMs: 500 }, async (rig) => {
      const [bad, ...good] = keysOf('e', 20);
      await rig.fill([bad!, ...good]);
      await rig.lab.hang('read', { match: fileOf(bad!) });
      let stuck = true;
      const traffic = keepAsking(2, () => stuck, async (worker, turn) => loadOne(rig, good[(worker * 7 + turn) % good.length]!, 2_000));
      try {
        const first = await loadOne(rig, bad!, TIMEOUT_MS);
        expect(codesOf(first)).toEqual(['DEADLINE_EXCEEDED']);
        await expectRefusedAtOnce(`${engine}: the one stuck key`, () => loadOne(rig, bad!, TIMEOUT_MS), 'KEY_BUSY');
        await rig.until('it is long past stall_ms', async () => (((await rig.client.request('stuck')) as { stuck?: { for_ms: number }[] }).stuck ?? []).some((call) => call.for_ms > 2_500));
        expect(codesOf(await loadOne(rig, bad!, TIMEOUT_MS))).toEqual(['KEY_BUSY']);
      } finally {
        stuck = false;
      }
      const others = await traffic;
      measured(`${engine}: beside one stuck file: ${tally(others)}, ${JSON.stringify(spreadOf(others.map((asked) => asked.tookMs)))}`);
      expect(new Set(others.flatMap(codesOf))).toEqual(new Set(['OK']));
      expect(suspensionsOf(rig)).toEqual([]);
      await rig.heal();
      expect(await rig.loads(bad!)).toBe(true);
    }));

  it('one stuck file on a quiet mount: the probes find the mount well, and the same call never suspends it again', () =>
    withRig({ engine, stallMs: 300 }, async (rig) => {
      const [bad, ...good] = keysOf('e', 8);
      await rig.fill([bad!, ...good]);
      await rig.lab.hang('read', { match: fileOf(bad!) });
      await loadOne(rig, bad!, TIMEOUT_MS);
      const resumedMs = performance.now();
      await backAfter(rig, 'a quiet mount with one stuck file', resumedMs, () => loadOne(rig, good[0]!, TIMEOUT_MS));
      const before = suspensionsOf(rig).length;
      await rig.until('it is long past stall_ms', async () => (((await rig.client.request('stuck')) as { stuck?: { for_ms: number }[] }).stuck ?? []).some((call) => call.for_ms > 1_500));
      expect(suspensionsOf(rig).length).toBe(before);
      expect(codesOf(await loadOne(rig, bad!, TIMEOUT_MS))).toEqual(['KEY_BUSY']);
      for (const key of good) expect(await rig.loads(key)).toBe(true);
      await rig.heal();
      expect(await rig.loads(bad!)).toBe(true);
    }));

  it('opens for loads although look-ups of cached names go on being answered', () =>
    withRig({ engine, on: 'blk', lab: { loop: 'ext4' } }, async (rig) => {
      const keys = keysOf('e', 24);
      await rig.fill(keys);
      await warmLookups(rig, keys); // and the names are in the cache
      await rig.lab.hang(['read', 'write', 'fsync']);
      let hung = true;
      const traffic = keepAsking(1, () => hung, async () => opsOf([await rig.lookup(keys, 1_000)])[0]!);
      try {
        expect(ranOut(await loadOne(rig, keys[0]!, TIMEOUT_MS))).toBe(true);
        await expectRefusedAtOnce(`${engine}: cached names answer, loads hang`, () => loadOne(rig, keys[1]!, TIMEOUT_MS));
      } finally {
        hung = false;
      }
      const lookups = await traffic;
      measured(`${engine}: look-ups of cached names beside it: ${tally(lookups)}`);
      expect(lookups.filter((asked) => codesOf(asked)[0] === 'OK').length).toBeGreaterThan(10);
      expect(eventsOf(rig).map((event) => event.class), 'nothing was stored or looked up past the cache').toEqual(['load']);
      const resumedMs = performance.now();
      await rig.lab.resume();
      expect(await backAfter(rig, 'loads beside cached names', resumedMs, () => loadOne(rig, keys[2]!, TIMEOUT_MS))).toBeLessThan(BACK_MS);
    }));

  it('opens for look-ups although those of cached names go on being answered', () =>
    withRig({ engine, on: 'blk', lab: { loop: 'ext4' } }, async (rig) => {
      const keys = keysOf('e', 24);
      await rig.fill(keys);
      const absent = keys.map((key) => `${key}ff`); // in the same directories, never asked for
      await warmLookups(rig, keys);
      // The journal is written back, then directory blocks can leave the cache; the names that were looked up stay.
      await rig.lab.freeze();
      await rig.lab.thaw();
      execFileSync('blockdev', ['--flushbufs', rig.lab.device!], { timeout: 10_000 });
      await rig.lab.hang(['read', 'write', 'fsync']);
      let hung = true;
      const traffic = keepAsking(1, () => hung, async () => opsOf([await rig.lookup(keys, 1_000)])[0]!);
      let lookups: AnyAsked[];
      try {
        const first = opsOf([await rig.lookup([absent[0]!], TIMEOUT_MS)])[0]!;
        expect(ranOut(first), JSON.stringify(first.answer)).toBe(true);
        await expectRefusedAtOnce(`${engine}: cached names answer, other look-ups hang`, async () => opsOf([await rig.lookup([absent[1]!], TIMEOUT_MS)])[0]!);
      } finally {
        hung = false;
        lookups = await traffic;
      }
      const answered = lookups.filter((asked) => codesOf(asked)[0] === 'OK').length;
      measured(`${engine}: ${answered} look-ups of cached names were answered before it opened`);
      expect(answered).toBeGreaterThan(3);
      const resumedMs = performance.now();
      await rig.lab.resume();
      expect(await backAfter(rig, 'look-ups', resumedMs, async () => opsOf([await rig.lookup([absent[2]!, keys[3]!], TIMEOUT_MS)])[0]!)).toBeLessThan(BACK_MS);
      expectStory(rig, 'metadata');
    }));

  it('opens for stores alone on a frozen ext4, and loads go on', () =>
    withRig({ engine, on: 'blk', lab: { loop: 'ext4' } }, async (rig) => {
      const keys = keysOf('e', 24);
      await rig.fill(keys);
      const fresh = keysOf('e2', 20); // a store that is stuck keeps its key busy
      await rig.lab.freeze();
      let frozen = true;
      const traffic = keepAsking(2, () => frozen, (worker, turn) => loadOne(rig, keys[(worker * 5 + turn) % keys.length]!, 2_000));
      try {
        await untilSuspended(`${engine}: frozen, stores`, () => storeOne(rig, fresh.pop()!, TIMEOUT_MS));
        await expectRefusedAtOnce(`${engine}: frozen, stores`, () => storeOne(rig, 'e2/00fe', TIMEOUT_MS));
        await rig.until('the probes of stores are stuck', async () => (await classOf(rig, 'store')).probes_stuck === 3);
      } finally {
        frozen = false;
      }
      const loads = await traffic;
      measured(`${engine}: loads on the frozen ext4: ${tally(loads)}, ${JSON.stringify(spreadOf(loads.map((asked) => asked.tookMs)))}`);
      expect(new Set(loads.flatMap(codesOf))).toEqual(new Set(['OK']));
      const resumedMs = performance.now();
      await rig.lab.thaw();
      expect(await backAfter(rig, 'thawed, stores', resumedMs, () => storeOne(rig, 'e2/00fd', TIMEOUT_MS))).toBeLessThan(BACK_MS);
      expect(eventsOf(rig).map((event) => event.class)).toEqual(['store', 'store', 'store']);
      expectStory(rig, 'store');
    }));

  it('a slow mount is no hung one: 50 MB/s and 8 MiB blocks, four lanes busy, deadlines that some miss', () =>
    withRig({ engine, slotBytes: 8 * MIB, slots: 24 }, async (rig) => {
      const keys = keysOf('e', 12);
      for (const key of keys) await rig.fill([key]);
      const others = keysOf('e2', 12);
      await rig.lab.throttle(50_000_000);
      // Alone one takes 168 ms, four at a time 671 ms each, six wait for a lane as well. No history to begin with.
      for (const [what, ask, some] of [['loads', loadOne, keys], ['stores', storeOne, others]] as const) {
        const alone = await keepAsking(1, forMs(600), (_, turn) => ask(rig, some[turn % some.length]!, 2_000));
        const all = await keepAsking(6, forMs(4_000), (worker, turn) => ask(rig, some[(worker * 2 + (turn % 2)) % some.length]!, [600, 900, 3_000][(worker + turn) % 3]!));
        measured(`${engine}: ${what} of 8 MiB at 50 MB/s: alone ${spreadOf(alone.map((asked) => asked.tookMs)).p50} ms; six at a time ${tally(all)}, ${JSON.stringify(spreadOf(all.map((asked) => asked.tookMs)))}`);
        expect(all.some(ranOut), 'the deadline is tight enough').toBe(true);
        expect(all.some((asked) => codesOf(asked)[0] === 'OK')).toBe(true);
        expect(suspensionsOf(rig)).toEqual([]);
      }
      await rig.heal();
      for (const key of keys.slice(0, 3)) expect(await rig.loads(key)).toBe(true);
    }));

  it('a sidecar that was stopped for three seconds does not blame the mount', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('e', 24);
      await rig.fill(keys);
      await rig.lab.delay('read', 20); // so that calls are in the kernel at any time
      const busy = forMs(5_500);
      const traffic = keepAsking(6, busy, (worker, turn) => loadOne(rig, keys[(worker * 4 + turn) % keys.length]!, 1_000));
      const stores = keepAsking(2, busy, (worker, turn) => storeOne(rig, `e2/0${worker}${10 + (turn % 50)}`, 1_000));
      await new Promise((go) => setTimeout(go, 700));
      rig.client.kill('SIGSTOP');
      await new Promise((go) => setTimeout(go, 3_000)); // the stop itself is what is tested
      rig.client.kill('SIGCONT');
      const all = [...(await traffic), ...(await stores)];
      measured(`${engine}: around a stop of 3 s: ${tally(all)}`);
      expect(suspensionsOf(rig)).toEqual([]);
      await rig.heal();
      for (const key of keys.slice(0, 4)) expect(await rig.loads(key)).toBe(true);
    }));

  for (const [errno, phase] of [['EIO', 'read'], ['ESTALE', 'open']] as const) {
    it(`errors are answers: ${errno} of every ${phase} is IO_ERROR and suspends nothing`, () =>
      withRig({ engine, stallMs: 300 }, async (rig) => {
        const keys = keysOf('e', 16);
        await rig.fill(keys);
        await rig.lab.fail(phase, errno, { match: '/blocks/*' });
        const all = await keepAsking(4, forMs(1_000), (worker, turn) => loadOne(rig, keys[(worker * 4 + turn) % keys.length]!, TIMEOUT_MS));
        measured(`${engine}: ${errno}: ${tally(all)}`);
        expect(new Set(all.flatMap(codesOf))).toEqual(new Set(['IO_ERROR']));
        expect(failuresOf(all[0]!.answer).get(0)).toMatchObject({ errno, phase, slot: 'free' });
        expect(suspensionsOf(rig)).toEqual([]);
        await rig.lab.resume();
        for (const key of keys) expect(await rig.loads(key)).toBe(true);
      }));
  }

  it('errors are answers: a mount that is dead for good says so at once', () =>
    withRig({ engine, stallMs: 300 }, async (rig) => {
      const keys = keysOf('e', 8);
      await rig.fill(keys);
      await rig.lab.hang('read');
      const hung = loadOne(rig, keys[0]!, 5_000);
      await rig.lab.waitStuck('read');
      await rig.lab.abort();
      const first = await hung;
      measured(`${engine}: the mount was aborted under a load: ${tally([first])} ${failuresOf(first.answer).get(0)?.errno}`);
      expect(codesOf(first)).toEqual(['IO_ERROR']);
      const after = await keepAsking(1, forMs(600), (_, turn) => loadOne(rig, keys[turn % keys.length]!, TIMEOUT_MS));
      measured(`${engine}: and after it: ${tally(after)} ${failuresOf(after.at(-1)!.answer).get(0)?.errno}`);
      for (const asked of after) expect(codesOf(asked)[0]).toBeOneOf(['IO_ERROR', 'MOUNT_SUSPENDED']);
      expect(spreadOf(after.map((asked) => asked.tookMs)).p50).toBeLessThan(100);
    }));
});
