// A mount that hangs is refused at once, per class, and is back within a second of the resume: on a kernel that is really stuck.
//
// What is and what is not taken for a hang: breaker_evidence.test.ts. The worst case of a recovery is after some seconds, when
// the three quick probes are stuck and the next is seconds away: so most hangs here are held until then.

import { expect, it } from 'vitest';
import type { LaneClass } from '../../protocol/messages.ts';
import { BACK_MS, backAfter, classOf, eventsOf, expectRefusedAtOnce, expectStory, untilProbesAreStuck, untilSuspended } from '../support/mount_story.ts';
import { type AnyAsked, codesOf, ranOut } from '../support/promptness.ts';
import { failuresOf, keysOf, LANES, measured, onEachEngine, type Rig, withRig } from '../support/rig.ts';
import type { Lab } from '../support/stall.ts';

const TIMEOUT_MS = 300;

const HANGS: { what: string; on: 'mnt' | 'blk'; hang: (lab: Lab) => Promise<void>; classes: LaneClass[] }[] = [
  { what: 'every read', on: 'mnt', hang: (lab) => lab.hang('read'), classes: ['load'] },
  { what: 'every open', on: 'mnt', hang: (lab) => lab.hang('open'), classes: ['load'] },
  { what: 'everything', on: 'mnt', hang: (lab) => lab.hang('all'), classes: ['load', 'store', 'metadata'] },
  { what: 'the disk below ext4', on: 'blk', hang: (lab) => lab.hang(['read', 'write', 'fsync']), classes: ['load', 'store'] },
];

/** Requests of one class that need the mount itself, each for a key of its own. */
function asker(rig: Rig, laneClass: LaneClass, keys: readonly string[]): () => Promise<AnyAsked> {
  let next = 0;
  return async () => {
    const key = keys[next % keys.length]!;
    next += 1;
    if (laneClass === 'metadata') return rig.lookup([key], TIMEOUT_MS);
    const slots = rig.lease(1);
    const asked = await (laneClass === 'load' ? rig.load([key], slots, TIMEOUT_MS) : rig.store([key], slots, TIMEOUT_MS, { replace: true }));
    rig.client.arena.release(slots);
    return asked;
  };
}

onEachEngine('breaker', (engine) => {
  for (const { what, on, hang, classes } of HANGS) {
    it(`refuses the second request at once while ${what} hangs, and is back within a second of the resume`, () =>
      withRig({ engine, on, ...(on === 'blk' ? { lab: { loop: 'ext4' } } : {}) }, async (rig) => {
        const keys = keysOf('b', 48);
        await rig.fill(keys);
        const from = rig.heard.length;
        const ask = Object.fromEntries(classes.map((laneClass) => [laneClass, asker(rig, laneClass, keys)]));
        await hang(rig.lab);
        const before = await Promise.all(classes.map((laneClass) => untilSuspended(`${engine}: ${what} hangs, ${laneClass}`, ask[laneClass]!)));
        expect(before[0], 'no load came before: the first one is evidence enough').toBe(1);
        for (const laneClass of classes) await expectRefusedAtOnce(`${engine}: ${what} hangs, ${laneClass}`, ask[laneClass]!);
        for (const laneClass of classes) await untilProbesAreStuck(rig, laneClass);

        const resumedMs = performance.now();
        await rig.lab.resume();
        const back = await Promise.all(classes.map((laneClass) => backAfter(rig, `${what} hung, ${laneClass}`, resumedMs, ask[laneClass]!)));
        for (const ms of back) expect(ms).toBeLessThan(BACK_MS);
        for (const laneClass of classes) expectStory(rig, laneClass, { from });
        await rig.heal();
        for (const key of keys.slice(40)) expect(await rig.loads(key)).toBe(true);
      }));
  }

  it('says what happens in order: suspended before the first refusal, in use again before the first success', () =>
    withRig({ engine }, async (rig) => {
      const [key, other] = keysOf('b', 2);
      await rig.fill([key!, other!]);
      const from = rig.heard.length;
      await rig.lab.hang('read');
      const load = asker(rig, 'load', [key!, other!]);
      await load();
      await load();
      const resumedMs = performance.now();
      await rig.lab.resume();
      await backAfter(rig, 'one read hung', resumedMs, load);
      const order: string[] = [];
      for (const { message } of rig.heard.slice(from)) {
        const code = (message['error'] as { code: string } | undefined)?.code ?? (message['failed'] as { code: string }[] | undefined)?.[0]?.code;
        const said = message['event'] === 'mount' ? String(message['state']) : message['done'] === 1 ? 'loaded' : code;
        if (said !== undefined && said !== order.at(-1)) order.push(said);
      }
      // Between the suspension and its end a load may be refused before or after the first good probe.
      expect(order.filter((word) => word !== 'MOUNT_SUSPENDED')).toEqual(['DEADLINE_EXCEEDED', 'suspended', 'probing', 'ok', 'loaded']);
      expect(order.indexOf('MOUNT_SUSPENDED')).toBe(order.indexOf('suspended') + 1);
      expect(eventsOf(rig, { from })[0]!.reason).toMatch(/ms in read/);
      expect(eventsOf(rig, { from }).every((event) => event.mount === 'kv0' && event.class === 'load')).toBe(true);
    }));

  it('does not wait for a deadline: calls that hang for stall_ms suspend the class, and what waits for a lane is told', () =>
    withRig({ engine, stallMs: 500 }, async (rig) => {
      const keys = keysOf('b', 12);
      await rig.fill(keys);
      await rig.lab.hang('read', { match: '/blocks/*' });
      await rig.lab.hang('open', { match: '/probe/*' });
      const began = performance.now();
      const slots = rig.lease(12);
      const pending = keys.map((key, i) => rig.load([key], [slots[i]!], 8_000));
      await rig.until('the class is suspended', () => eventsOf(rig, { laneClass: 'load' }).length > 0);
      const openedMs = performance.now() - began;
      const [event] = eventsOf(rig, { laneClass: 'load' });
      measured(`${engine}: opened ${openedMs.toFixed(0)} ms after the first of 12 loads (stall_ms 500): ${event!.reason}`);
      expect(openedMs).toBeGreaterThan(450);
      expect(openedMs).toBeLessThan(3_000);
      expect(event!.reason).toMatch(/in flight, none completed for/);
      await rig.lab.resume();
      const codes = (await Promise.all(pending)).map((asked) => ({ code: codesOf(asked)[0], entry: failuresOf(asked.answer).get(0) }));
      rig.client.arena.release(slots);
      for (const { code, entry } of codes) {
        if (entry) expect(entry).toMatchObject({ code: 'MOUNT_SUSPENDED', phase: 'queue', slot: 'free' }); // told where it waited
        else expect(code).toBe('OK');
      }
      expect((await rig.stats()).slots.quarantined).toBe(0);
      expect(codes.filter(({ code }) => code === 'OK').length).toBeGreaterThanOrEqual(LANES); // those in the kernel waited for it
      await rig.recovered();
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  for (const held of [1, 2, 3]) {
    it(`recovers while ${held} of three probes ${held === 1 ? 'is' : 'are'} stuck for good`, () =>
      withRig({ engine }, async (rig) => {
        const keys = keysOf('b', 16);
        await rig.fill(keys);
        await rig.lab.hang('open', { match: '/probe/*', count: held }); // stay
        await rig.lab.hang('read', { match: '/probe/*' });
        await rig.lab.hang('read', { match: '/blocks/*' });
        const load = asker(rig, 'load', keys);
        await Promise.all([load(), load(), load(), load()]);
        await untilProbesAreStuck(rig, 'load');
        expect((await rig.lab.status()).held.open).toBe(held);
        const resumedMs = performance.now();
        await rig.lab.resume('read');
        expect(await backAfter(rig, `${held} of 3 probes stay stuck`, resumedMs, load)).toBeLessThan(BACK_MS);
        expect((await rig.lab.status()).held.open).toBe(held);
        for (const key of keys) expect(await rig.loads(key)).toBe(true);
      }));
  }

  it('is probed by three though the process may have a single lane beyond its first ones, and the cap is left to work', () =>
    withRig({ engine, args: ['--lanes', '1', '--stuck-process-max', '1'] }, async (rig) => {
      const keys = keysOf('b', 16);
      await rig.fill(keys);
      await rig.lab.hang('read');
      await rig.lab.hang('open', { match: '/probe/*' }); // holds the whole lane, with any engine
      const load = asker(rig, 'load', keys);
      await untilSuspended('--stuck-process-max 1', load);
      await untilProbesAreStuck(rig, 'load');
      const resumedMs = performance.now();
      await rig.lab.resume();
      expect(await backAfter(rig, 'one extra lane in the process', resumedMs, load)).toBeLessThan(BACK_MS);
    }));

  it('recovers for stores while one of three probes is stuck for good', () =>
    withRig({ engine }, async (rig) => {
      await rig.fill(keysOf('b', 16));
      await rig.lab.hang('open', { match: '/probe/*', count: 1 }); // stays, and holds its directory
      await rig.lab.hang('write', { match: '/probe/*' });
      await rig.lab.hang('write', { match: '/blocks/*' });
      const store = asker(rig, 'store', keysOf('b2', 64));
      expect(ranOut(await store())).toBe(true);
      await untilProbesAreStuck(rig, 'store');
      const resumedMs = performance.now();
      await rig.lab.resume('write');
      expect(await backAfter(rig, 'stores, 1 of 3 probes stays stuck', resumedMs, store)).toBeLessThan(BACK_MS);
      expect((await rig.lab.status()).held.open).toBe(1);
      for (let more = 0; more < 8; more += 1) expect(codesOf(await store())).toEqual(['OK']);
    }));

  it('recovers while one read of the file that identifies the store stays stuck', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('b', 16);
      await rig.fill(keys);
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
      await rig.lab.hang('read', { match: '/kvlane.json', count: 1 }); // stays: the first probe is in it
      await rig.lab.hang('open', { match: '/probe/*' });
      await rig.lab.hang('open', { match: '/blocks/*' });
      const load = asker(rig, 'load', keys);
      await load();
      await rig.lab.waitStuck('read');
      await untilProbesAreStuck(rig, 'load');
      const resumedMs = performance.now();
      await rig.lab.resume('open');
      expect(await backAfter(rig, 'a read of kvlane.json stays stuck', resumedMs, load)).toBeLessThan(BACK_MS);
      expect((await rig.lab.status()).held.read).toBe(1);
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('stays suspended while the mount comes back with errors, and opens when it answers well', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('b', 8);
      await rig.fill(keys);
      await rig.lab.hang('read', { match: '/probe/*' });
      await rig.lab.hang('read', { match: '/blocks/*' });
      const load = asker(rig, 'load', keys);
      await load();
      await untilProbesAreStuck(rig, 'load', 1);
      await rig.lab.fail('open', 'EIO', { match: '/probe/*' });
      await rig.lab.resume('read', { errno: 'EIO' });
      const from = (await classOf(rig, 'load')).probes;
      await rig.until('two more probes have failed', async () => (await classOf(rig, 'load')).probes >= from + 2);
      expect(codesOf(await load())).toEqual(['MOUNT_SUSPENDED']);
      const resumedMs = performance.now();
      await rig.lab.resume();
      expect(await backAfter(rig, 'it answered with EIO', resumedMs, load)).toBeLessThan(BACK_MS);
    }));

  it('recovers from five hangs in a row, and neither lanes nor threads grow', () =>
    withRig({ engine }, async (rig) => {
      const keys = keysOf('b', 64);
      await rig.fill(keys);
      const load = asker(rig, 'load', keys);
      const store = asker(rig, 'store', keysOf('b2', 64));
      const look = asker(rig, 'metadata', keys);
      const seen: string[] = [];
      const threads: number[] = [];
      for (let round = 0; round < 5; round += 1) {
        const from = rig.heard.length;
        await rig.lab.hang('all');
        const others = [load(), load(), store()]; // several stuck ones of a class
        await Promise.all([load, store, look].map((ask) => untilSuspended(`${engine}: round ${round + 1}`, ask)));
        for (const asked of await Promise.all(others)) expect(codesOf(asked)[0]).toBeOneOf(['DEADLINE_EXCEEDED', 'MOUNT_SUSPENDED']);
        const resumedMs = performance.now();
        await rig.lab.resume();
        for (const ask of [load, store, look]) expect(await backAfter(rig, `round ${round + 1}`, resumedMs, ask)).toBeLessThan(BACK_MS);
        for (const laneClass of ['load', 'store', 'metadata'] as const) expectStory(rig, laneClass, { from });
        await rig.heal();
        await rig.until('the lanes beyond the first ones are gone', async () => (await rig.stats()).lanes <= 3 * LANES);
        threads.push(rig.process().threads);
        seen.push(`${(await rig.stats()).lanes} lanes ${threads.at(-1)} threads`);
      }
      expect(new Set((await rig.stats()).engines)).toEqual(new Set([engine])); // no silent fallback
      measured(`${engine}: after each of five hangs: ${seen.join('; ')}`);
      expect(Math.max(...threads.slice(1))).toBeLessThanOrEqual(threads[0]! + 3 * LANES - 3); // lanes are made on demand up to LANES
      expect(threads[4]!).toBeLessThanOrEqual(Math.max(...threads.slice(1, 4)) + 2);
    }));
});
