// Each class of operation hung in turn, under every request there is: all of them answered by their deadlines, and when the
// class goes on, so does everything else. The breaker is held closed, so that each request is really tried.
//
// `stuckBy` is what must run out of time; whatever is not in it may, since a directory that one call has locked is closed to
// all others in it. One sidecar lives through all of it: what one hang leaves behind would show in the next.

import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { Engine } from '../../native/index.ts';
import { type AnyAsked, codesOf, expectFreed, expectPrompt, expectSlotsAgree, LATE_MEDIAN_MS, opsOf, ranOut } from '../support/promptness.ts';
import { endRig, keysOf, measured, onEachEngine, type Rig, spreadOf, startRig, withRig } from '../support/rig.ts';
import type { OpClass } from '../support/stall.ts';

const TIMEOUT_MS = 400;
const EACH = 4; // requests of each kind; with 4 lanes each of them has a lane to hang in
type Kind = 'load' | 'store' | 'replace' | 'lookup' | 'remove';

const stuckBy: Record<OpClass | 'all', readonly Kind[]> = {
  open: ['load', 'store', 'replace'],
  lookup: ['load', 'store', 'replace', 'lookup', 'remove'],
  getattr: ['load'],
  read: ['load'],
  write: ['store', 'replace'],
  fsync: ['store', 'replace'],
  rename: ['store', 'replace'],
  mkdir: ['store'],
  unlink: ['remove'],
  close: ['load', 'store', 'replace'],
  all: ['load', 'store', 'replace', 'lookup', 'remove'],
};

/** Every kind of request at once, `each` of each, one block a request. Keys of their own for each round. */
async function everything(rig: Rig, round: string, each: number, hang: () => Promise<void>): Promise<{ byKind: Record<Kind, AnyAsked[]>; all: AnyAsked[]; held: { slots: number[]; answer: object }[] }> {
  const keys = { load: keysOf(`${round}.load`, each), replace: keysOf(`${round}.replace`, each), lookup: keysOf(`${round}.lookup`, each), remove: keysOf(`${round}.remove`, each) };
  await rig.fill(Object.values(keys).flat());
  await hang();
  const slots = rig.lease(3 * each);
  const held: { slots: number[]; answer: object }[] = [];
  const withSlot = async <A extends { answer: object }>(slot: number, asked: Promise<A>): Promise<A> => {
    const done = await asked;
    held.push({ slots: [slot], answer: done.answer });
    return done;
  };
  const each_ = <A>(ask: (i: number) => Promise<A>): Promise<A[]> => Promise.all(Array.from({ length: each }, (_, i) => ask(i)));
  const fresh = keysOf(`${round}.store`, each); // of a namespace that is not there yet: its directories are made
  const [load, store, replace, lookup, remove] = await Promise.all([
    each_((i) => withSlot(slots[i]!, rig.load([keys.load[i]!], [slots[i]!], TIMEOUT_MS))),
    each_((i) => withSlot(slots[each + i]!, rig.store([fresh[i]!], [slots[each + i]!], TIMEOUT_MS))),
    each_((i) => withSlot(slots[2 * each + i]!, rig.store([keys.replace[i]!], [slots[2 * each + i]!], TIMEOUT_MS, { replace: true }))),
    each_((i) => rig.lookup([keys.lookup[i]!], TIMEOUT_MS)),
    each_((i) => rig.remove([keys.remove[i]!], TIMEOUT_MS)),
  ]);
  rig.client.arena.release(slots);
  const byKind = { load: opsOf(load), store: opsOf(store), replace: opsOf(replace), lookup: opsOf(lookup), remove: opsOf(remove) };
  return { byKind, all: Object.values(byKind).flat(), held };
}

onEachEngine('hung operations', (engine: Engine) => {
  let rig: Rig;
  const late: number[] = []; // over all classes
  beforeAll(async () => {
    rig = await startRig({ engine, breakerHeldClosed: true, fsync: true, stuckMax: 128, slots: 128 });
  });
  afterEach(async () => void (await rig.lab.resume())); // a test that failed must not leave the next one hanging
  afterAll(() => endRig(rig));

  for (const [hung, kinds] of Object.entries(stuckBy) as [OpClass | 'all', readonly Kind[]][]) {
    it(`answers everything in time while ${hung} hangs, and goes on when it does`, async () => {
      const from = rig.heard.length;
      const { byKind, all, held } = await everything(rig, hung, EACH, () => rig.lab.hang(hung));
      expect((await rig.lab.status()).held.all).toBeGreaterThan(0); // still: nothing was answered because the mount went on
      const ran = Object.entries(byKind).map(([kind, asked]) => `${kind} ${asked.filter(ranOut).length}/${asked.length}`);
      expectPrompt(rig, `${hung} hangs (out of time: ${ran.join(', ')})`, all);
      late.push(...all.filter(ranOut).map((asked) => asked.overshootMs));
      for (const kind of kinds) expect(byKind[kind].some(ranOut), `a ${kind} while ${hung} hangs: ${JSON.stringify(byKind[kind].map((asked) => asked.answer))}`).toBe(true);
      for (const asked of all) {
        if (!ranOut(asked)) expect(codesOf(asked), `no other failure than time: ${JSON.stringify(asked.answer)}`).toBeOneOf([['OK'], ['KEY_BUSY']]);
      }
      const quarantined = await expectSlotsAgree(rig, hung, held, from);

      const healedMs = await rig.heal();
      expectFreed(rig, hung, quarantined, from);
      measured(`${engine}: ${hung}: ${quarantined.length} slots were quarantined, all free ${healedMs.toFixed(0)} ms after the resume`);
      const again = keysOf(`${hung}.load`, EACH);
      for (const key of again) expect(await rig.loads(key), key).toBe(true);
      await rig.fill(keysOf(`${hung}.again`, EACH));
    });
  }

  it('was prompt over all of them', () => {
    const spread = spreadOf(late);
    measured(`${engine}: all classes together: ${spread.n} requests out of time, overshoot p50 ${spread.p50} p99 ${spread.p99} max ${spread.max} ms`);
    expect(spread.p50).toBeLessThan(LATE_MEDIAN_MS);
  });

  it('with the breaker as it is: everything hangs, everything is answered, everything comes back', () =>
    withRig({ engine, slots: 128 }, async (own) => {
      const { all, held } = await everything(own, 'b', EACH, () => own.lab.hang('all'));
      expectPrompt(own, 'all hangs, breaker not held', all);
      const quarantined = await expectSlotsAgree(own, 'all', held, 0);
      expect(quarantined.length).toBeGreaterThan(0);
      await own.heal();
      await own.recovered();
      for (const key of keysOf('b.load', EACH)) expect(await own.loads(key)).toBe(true);
    }));
});
