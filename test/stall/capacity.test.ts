// A collector whose listing or unlink hangs: it has one thread, which waits; loads, stores and look-ups go on as if nothing were,
// and when the kernel gives it back it goes on itself.
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, it } from 'vitest';
import { keysOf, measured, onEachEngine, patternOf, type Rig, spreadOf, withRig } from '../support/rig.ts';

const BYTES = 16_384;
/** With its header, in whole pages. */
const FILE_BYTES = 20_480;
const LIMIT = 40;
const KEYS = keysOf('c', 60);
const options = { slotBytes: BYTES, slots: 64, args: ['--capacity-bytes', `kv0=${LIMIT * 2 ** 20}`, '--test-collector-haste', '100'] } as const;

interface Capacity {
  role: string;
  state: string;
  reason?: string;
  passes: number;
  used_bytes: number | null;
  evicted_blocks: number;
}

async function capacityOf(rig: Rig): Promise<Capacity> {
  return ((await rig.stats()).whole['mounts'] as { capacity: Capacity }[])[0]!.capacity;
}

const until = (rig: Rig, what: string, true_: (capacity: Capacity) => boolean): Promise<void> => rig.until(what, async () => true_(await capacityOf(rig)));

/** Each load takes its usual time: none waits behind the collector. */
async function loadsAll(rig: Rig, keys: readonly string[], what: string): Promise<void> {
  const took: number[] = [];
  for (const key of keys) {
    const [slot] = rig.lease(1);
    const asked = await rig.load([key], [slot!], 2_000);
    expect(asked.answer, `${what}: ${key}`).toMatchObject({ ok: true });
    expect(rig.client.readSlot(slot!, BYTES).equals(patternOf(key, BYTES))).toBe(true);
    rig.client.arena.release([slot!]);
    took.push(asked.tookMs);
  }
  const { p50, p99 } = spreadOf(took);
  measured(`${what}: loads p50 ${p50} ms, p99 ${p99} ms`);
}

onEachEngine('a collector on a mount that hangs', (engine) => {
  it('a listing that hangs costs its thread and nothing else, and the collector goes on when it is back', () =>
    withRig({ engine, ...options }, async (rig) => {
      await rig.fill(KEYS);
      await until(rig, 'it collects', ({ role, passes }) => role === 'holder' && passes > 0);
      await loadsAll(rig, KEYS, `${engine}: before`);
      const threads = rig.process().threads;
      await rig.lab.hang('read', { match: '/blocks' });
      await rig.lab.waitStuck('read', 1, 20_000);
      await until(rig, 'it is given up', ({ reason = '' }) => /^a list of the collector has been in \w+ in the kernel/.test(reason));
      await loadsAll(rig, KEYS, `${engine}: beside a listing that hangs`);
      await rig.fill(keysOf('c', 20, 60)); // not into a directory whose listing hangs: the kernel has it locked
      expect((await rig.lookup(KEYS, 2_000)).answer).toMatchObject({ ok: true, prefix: KEYS.length });
      const { states, whole } = await rig.stats();
      expect(states.every((state) => state === 'ok' || state === 'unknown')).toBe(true);
      expect(rig.process().threads).toBeLessThanOrEqual(threads + 3 * 4 + 1);
      expect((await capacityOf(rig)).role).toBe('waiting');
      const { passes } = ((whole['mounts'] as { capacity: Capacity }[])[0]!).capacity;
      await rig.heal();
      await until(rig, 'it goes on', (capacity) => capacity.role === 'holder' && capacity.passes > passes);
    }));

  it('an unlink that hangs keeps its key and its directory, and no other mount', () => {
    const other = mkdtempSync(path.join(tmpdir(), 'kvlane-test-'));
    return withRig({ engine, ...options, mounts: { kv1: other }, args: ['--capacity-bytes', `kv0=${2 ** 20}`, '--test-collector-haste', '100', '--recycle', 'off'] }, async (rig) => {
      const on = async (mount: string, op: 'load' | 'store', key: string, timeoutMs = 5_000) => {
        const slots = rig.lease(1);
        if (op === 'store') rig.client.writeSlot(slots[0]!, patternOf(key, BYTES));
        const asked = await rig.ask(op, { mount, keys: [key], slots, bytes: BYTES, timeout_ms: timeoutMs } as never);
        if (op === 'load' && asked.answer.ok) expect(rig.client.readSlot(slots[0]!, BYTES).equals(patternOf(key, BYTES))).toBe(true);
        rig.client.arena.release(slots);
        return asked;
      };
      await until(rig, 'it collects', ({ role }) => role === 'holder');
      const keys = keysOf('e', 20);
      for (const key of keys) expect((await on('kv1', 'store', key)).answer).toMatchObject({ ok: true });
      await rig.lab.hang('unlink', { match: '/blocks/*' });
      const many = keysOf('u', 70); // 1.4 MiB, with room for 1
      for (const key of many) expect((await on('kv0', 'store', key)).answer).toMatchObject({ ok: true });
      await rig.lab.waitStuck('unlink', 1, 20_000);
      await until(rig, 'it is given up', ({ reason = '' }) => /^a remove of the collector has been in unlink in the kernel/.test(reason));
      for (const key of keys) expect((await on('kv1', 'load', key)).answer).toMatchObject({ ok: true });
      expect((await capacityOf(rig)).role).toBe('waiting');
      await rig.heal();
      await until(rig, 'it is within its limit', ({ role, used_bytes }) => role === 'holder' && used_bytes !== null && used_bytes <= 2 ** 20);
      let there = 0;
      for (const key of many) {
        const { answer } = await on('kv0', 'load', key);
        if (answer.ok) there += 1;
        else expect(answer).toMatchObject({ failed: [{ code: 'NOT_FOUND' }] });
      }
      expect(there * FILE_BYTES).toBeLessThanOrEqual(2 ** 20);
      expect(there).toBeGreaterThan(40);
      expect(readdirSync(path.join(rig.lab.back, 'collector')).length).toBeGreaterThan(0);
    }).finally(() => rmSync(other, { recursive: true, force: true }));
  });
});
