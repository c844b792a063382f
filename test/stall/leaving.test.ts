// Leaving with IO that is really stuck: asked to, by SIGTERM, by SIGKILL, and because the parent was SIGKILLed. The client sees
// the end at once (EOF on stdout) though the corpse must stay, and once the mount goes on nothing of it is left.
//
// Requests have a minute, so that it is never their deadline that ends something here.

import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Fields } from '../../clients/node/client.ts';
import type { Engine } from '../../native/index.ts';
import { expectGone, expectLeft, familyOf, isGone, statesOf } from '../support/corpse.ts';
import { failuresOf, identified, keysOf, measured, onEachEngine, type Rig, startOn } from '../support/rig.ts';
import { type Lab, type LabOptions, type OpClass, startLab } from '../support/stall.ts';

/** Asserted beyond what the sidecar was granted to finish its work; on a quiet machine it is some ten milliseconds. */
const NOISE_MS = 1_500;
const SHUTDOWN_MS = 250;
/** sidecar/shutdown.ts: what a signal grants. */
const SIGTERM_MS = 100;
const EOF_MS = 10_000;
const LONG_MS = 60_000;
const MANY = 100;
const LAB: LabOptions = { loop: 'ext4', maxHangS: 25 };
const EVERY_BLOCK = '/blocks/*';
/** A shell between us and the sidecar, on our own pipes: it is the sidecar's parent, and dies of its SIGKILL. */
const PARENT = ['sh', '-c', 'exec 3<&0; "$@" <&3 3<&- & wait', 'sh'];

interface Stuck {
  what: string;
  on: 'mnt' | 'blk';
  op: 'load' | 'store';
  count: number;
  hang(lab: Lab): Promise<void>;
  held: OpClass;
}
const STUCK: Stuck[] = [
  { what: 'stuck reads', on: 'mnt', op: 'load', count: 4, held: 'read', hang: (lab) => lab.hang('read', { match: EVERY_BLOCK }) },
  { what: 'stuck writes', on: 'mnt', op: 'store', count: 4, held: 'write', hang: (lab) => lab.hang('write', { match: EVERY_BLOCK }) },
  { what: 'a stuck open', on: 'mnt', op: 'load', count: 1, held: 'open', hang: (lab) => lab.hang('open', { match: EVERY_BLOCK }) },
  { what: 'a stuck rename', on: 'mnt', op: 'store', count: 1, held: 'rename', hang: (lab) => lab.hang('rename', { match: EVERY_BLOCK }) },
  { what: '100 stuck reads', on: 'mnt', op: 'load', count: MANY, held: 'read', hang: (lab) => lab.hang('read', { match: EVERY_BLOCK }) },
  { what: 'reads of a dead disk', on: 'blk', op: 'load', count: 4, held: 'read', hang: (lab) => lab.hang('read') },
  { what: 'writes to a dead disk', on: 'blk', op: 'store', count: 4, held: 'write', hang: (lab) => lab.hang('write') },
];

interface Way {
  how: string;
  grantedMs: number;
  /** Every request is answered first, as SHUTTING_DOWN. Else the client says it for the sidecar, SIDECAR_GONE; one whose parent
   * died has nobody to answer, but may have been faster here, where somebody else holds its stdout. */
  answers: boolean | 'perhaps';
  wrapper?: readonly string[];
  end(rig: Rig): void;
}
const WAYS: Way[] = [
  { how: 'asked to shut down', grantedMs: SHUTDOWN_MS, answers: true, end: (rig) => void rig.client.request('shutdown', { timeout_ms: SHUTDOWN_MS }) },
  { how: 'SIGTERM', grantedMs: SIGTERM_MS, answers: true, end: (rig) => rig.client.kill('SIGTERM') },
  { how: 'SIGKILL', grantedMs: 0, answers: false, end: (rig) => rig.client.kill('SIGKILL') },
  { how: 'its parent SIGKILLed', grantedMs: 0, answers: 'perhaps', wrapper: PARENT, end: (rig) => rig.client.kill('SIGKILL') },
];

onEachEngine('leaving', (engine) => {
  let lab: Lab;
  beforeAll(async () => void (lab = await startLab(LAB)));
  afterAll(() => lab.down());
  let made = 0;
  const freshKeys = (count: number): string[] => keysOf('leave', count, (made += count) - count);

  for (const stuck of STUCK) {
    for (const way of WAYS) {
      it(`${stuck.what}, ${way.how}: its stdout ends at once, and nothing is left after the resume`, async () => {
        const rig = await startHere(lab, engine, stuck, way);
        const { pid } = rig.client.ready;
        try {
          const keys = freshKeys(stuck.count);
          if (stuck.op === 'load') await rig.fill(keys);
          await stuck.hang(lab);
          const slots = rig.lease(keys.length);
          const asked = keys.map((key, i) => (stuck.op === 'load' ? rig.load([key], [slots[i]!], LONG_MS) : rig.store([key], [slots[i]!], LONG_MS)));
          await lab.waitStuck(stuck.held);
          await rig.until(`${stuck.count} calls are stuck`, async () => (await callsOf(rig)) >= stuck.count);

          const family = familyOf(pid);
          const ended = stdoutEnd(rig);
          ended.catch(() => {}); // awaited below
          const beganMs = performance.now();
          way.end(rig);
          const answered = Promise.all(asked);
          const endMs = (await ended) - beganMs;
          const answers = (await answered).map(({ answer }) => answer);
          const answeredMs = performance.now() - beganMs;
          const stays = family.some((one) => !isGone(one));
          await expectLeft(...family);
          const corpse = statesOf(...family);
          expect((await lab.status()).held[stuck.held], 'the stall was over too early').toBeGreaterThanOrEqual(1);

          await lab.resume();
          const goneMs = await expectGone(...family);
          measured(`${engine}, ${stuck.what}, ${way.how}: EOF ${endMs.toFixed(0)} ms, all ${asked.length} answered ${answeredMs.toFixed(0)} ms (granted ${way.grantedMs}); left behind: ${corpse}; gone ${goneMs.toFixed(0)} ms after the resume`);
          expect(stays, 'with a call in the kernel it cannot be gone').toBe(true);
          expect(endMs).toBeLessThan(way.grantedMs + NOISE_MS);
          for (const answer of answers) {
            const isClients = 'source' in answer;
            if (isClients) expect(answer).toMatchObject({ ok: false, source: 'client', error: { code: 'SIDECAR_GONE' } });
            else expect(answer).toMatchObject({ ok: false, failed: [{ code: 'SHUTTING_DOWN', slot: 'quarantined' }] });
            if (way.answers !== 'perhaps') expect(isClients, 'who answered').toBe(!way.answers);
          }
        } finally {
          await lab.resume();
          rig.client.kill();
          rig.client.release();
        }
      });
    }
  }

  it('asked to shut down while a store hangs: the block is not half there, and the next sidecar stores and loads it', async () => {
    const first = await startHere(lab, engine, STUCK[1]!, WAYS[0]!);
    const [key = ''] = freshKeys(1);
    try {
      await lab.hang('write', { match: EVERY_BLOCK });
      const slots = first.lease(1);
      const asked = first.store([key], slots, LONG_MS);
      await lab.waitStuck('write');
      const family = familyOf(first.client.ready.pid);
      await first.client.shutdown(SHUTDOWN_MS);
      expect(failuresOf((await asked).answer).get(0)).toMatchObject({ code: 'SHUTTING_DOWN' });
      expect(family.every(isGone), 'the client went on without what is stuck').toBe(false);

      const second = await startHere(lab, engine, STUCK[1]!, WAYS[0]!); // on a mount that hangs for writes
      try {
        expect((await second.lookup([key], 5_000)).answer).toMatchObject({ present: [false] });
        await lab.resume();
        await expectGone(...family);
        expect((await second.lookup([key], 5_000)).answer).toMatchObject({ present: [false] });
        await second.fill([key]);
        expect(await second.loads(key)).toBe(true);
      } finally {
        await second.client.shutdown(SHUTDOWN_MS);
      }
    } finally {
      await lab.resume();
      first.client.kill();
      first.client.release();
    }
  });
});

async function startHere(lab: Lab, engine: Engine, stuck: Stuck, way: Way): Promise<Rig> {
  const { wrapper } = way;
  const rig = await startOn(lab, { engine, on: stuck.on, breakerHeldClosed: true, stallMs: 50, stuckMax: 2 * MANY, slots: 2 * MANY, args: ['--lanes', '16'], ...(wrapper ? { wrapper } : {}) });
  await identified(rig);
  return rig;
}

/** What the sidecar itself says is in the kernel. */
async function callsOf(rig: Rig): Promise<number> {
  const answer = await rig.client.request('stuck', { timeout_ms: 5_000 } as Fields<'stuck'>);
  return 'stuck' in answer ? answer.stuck.length : 0;
}

/** When stdout ended. Not the client's word `gone`: that also comes of an exit. */
function stdoutEnd(rig: Rig): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no EOF in ${EOF_MS} ms; the sidecar: ${statesOf(rig.client.ready.pid)}; stderr: ${rig.client.stderr}`)), EOF_MS);
    rig.client.process.child.stdout.once('end', () => {
      clearTimeout(timer);
      resolve(performance.now());
    });
  });
}
