// What is stuck, on request and as events, beside what the kernel itself says of the thread that is named.

import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { expect, it } from 'vitest';
import { type Asked, keysOf, onEachEngine, withRig } from '../support/rig.ts';

const TIMEOUT_MS = 300;
const STALL_MS = 50;

interface Stuck {
  mount: string;
  class: string;
  phase: string;
  key?: string;
  slot?: number;
  task?: number;
  tid: number;
  syscall: string;
  since_us: number;
  for_ms: number;
  settled: boolean;
}

onEachEngine('what is stuck', (engine) => {
  it('is listed with mount, operation, key, slot, thread, system call and time, and told when it begins and when it is over', () =>
    withRig({ engine, stallMs: STALL_MS, breakerHeldClosed: true }, async (rig) => {
      const [key] = keysOf('stuck', 1) as [string];
      await rig.fill([key]);
      const list = async (): Promise<Stuck[]> => ((await rig.client.request('stuck', { timeout_ms: 5_000 } as never)) as unknown as { stuck: Stuck[] }).stuck;
      const told = (event: string): Stuck[] => rig.heard.map(({ message }) => message).filter((message) => message['event'] === event) as unknown as Stuck[];
      expect(await list()).toEqual([]);

      await rig.lab.hang('read', { match: '/blocks/*' });
      const slots = rig.lease(1);
      const pending: Promise<Asked<'load'>> = rig.load([key], slots, 20 * TIMEOUT_MS);
      await rig.lab.waitStuck('read', 1);
      await rig.until('it is reported', () => told('stalled').length === 1);
      const [seen] = (await list()) as [Stuck];
      expect(seen).toMatchObject({ mount: 'kv0', class: 'load', phase: 'read', key, slot: slots[0], settled: false });
      expect(seen.syscall).toBe(engine === 'threads' ? 'preadv' : 'io_getevents');
      expect(seen.for_ms).toBeGreaterThanOrEqual(STALL_MS);
      expect(told('stalled')[0]).toMatchObject({ mount: 'kv0', class: 'load', phase: 'read', key, slot: slots[0], tid: seen.tid });

      // The thread is one of the sidecar's lanes, and it holds no pipe of the sidecar's: a corpse must not keep them open.
      const task = `/proc/${rig.client.process.child.pid}/task/${seen.tid}`;
      expect(readFileSync(`${task}/comm`, 'utf8').trim()).toMatch(/^kv-load-\d+$/);
      expect(readdirSync(`${task}/fd`).filter((fd) => readlinkSync(`${task}/fd/${fd}`).startsWith('pipe:'))).toEqual([]);

      await rig.client.request('cancel', { task: seen.task } as never);
      await pending;
      const [settled] = (await list()) as [Stuck];
      expect(settled).toMatchObject({ key, tid: seen.tid, settled: true });
      expect(settled.for_ms).toBeGreaterThanOrEqual(seen.for_ms);

      await rig.heal();
      await rig.until('its end is told', () => told('recovered').length === 1);
      expect(told('recovered')[0]).toMatchObject({ key, tid: seen.tid });
      expect(await list()).toEqual([]);
      expect(told('stalled')).toHaveLength(1);
      rig.client.arena.release(slots);
    }));
});
