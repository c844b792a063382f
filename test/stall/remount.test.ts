// A mount that goes away, or is replaced, with nothing hung. No call shows it, since lanes work below roots that they have open;
// what is asked from a second after it must all the same go to what is mounted now, and never to the disk underneath.

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { treeOf } from '../support/mount_point.ts';
import { mountOf, onStage, type Stage } from '../support/mount_stage.ts';
import { BACK_MS, eventsOf } from '../support/mount_story.ts';
import { codesOf } from '../support/promptness.ts';
import { keysOf, measured, onEachEngine, type Rig } from '../support/rig.ts';

const CALM_MS = 10_000;
/** Nothing hangs here, and a call that a busy machine holds up for a moment must not suspend anything. */
const NO_STALL_MS = 5_000;
/** Half a second to the next look, and the rest for a busy machine. */
const NOTICED_MS = BACK_MS;

/** What is promised: from here on everything goes to what is mounted now. Before it a lane that is new may, and one that is not may not yet. */
const PROMISED_MS = 1_000;

/** One block, under a name that was never used. */
async function storesOne(rig: Rig, key: string): Promise<string> {
  const slots = rig.lease(1);
  const asked = await rig.store([key], slots, CALM_MS);
  rig.client.arena.release(slots);
  return codesOf(asked)[0]!;
}

/** A client that does not stop for a remount: stores until `seen` says that it was noticed; the milliseconds that took. */
async function storesUntil(rig: Rig, what: string, space: string, seen: (code: string, key: string) => boolean | Promise<boolean>): Promise<number> {
  const beganMs = performance.now();
  for (let i = 0; ; i += 1) {
    const [key] = keysOf(space, 1, i);
    const code = await storesOne(rig, key!);
    const tookMs = performance.now() - beganMs;
    if (await seen(code, key!)) {
      measured(`${rig.engine}: ${what}: noticed after ${tookMs.toFixed(0)} ms`);
      return tookMs;
    }
    expect(tookMs, `${what}: not noticed; the last store was ${code}`).toBeLessThan(8_000);
    await new Promise((go) => setTimeout(go, 10));
  }
}

const names = async (tree: string, word: string): Promise<number> => (await treeOf(tree)).split('\n').filter((line) => line.includes(`/${word}/`) && line.includes('.kvb ')).length;

onEachEngine('remount', (engine) => {
  /** From `first` to `second`, which holds a copy: hits, and every later store in the second one only. */
  async function replaced(stage: Stage, first: { mnt: string; back: string }, second: { mnt: string; back: string }): Promise<Rig> {
    const { point } = stage;
    point.litter();
    const before = await point.underneath();
    await point.mount(first.mnt);
    const rig = await stage.start(engine, point.dir, { stallMs: NO_STALL_MS });
    const keys = keysOf('s', 4);
    await rig.fill(keys);
    execFileSync('cp', ['-a', `${first.back}/.`, second.back]);
    const from = rig.heard.length;
    // Stopped meanwhile, so that it cannot look just when nothing is mounted: then it would say so, rightly.
    rig.client.kill('SIGSTOP');
    await point.unmountLazily();
    await point.mount(second.mnt);
    rig.client.kill('SIGCONT');
    const mountedMs = performance.now();
    const arrived = async (): Promise<boolean> => (await names(second.back, 'between')) > 0 && performance.now() - mountedMs > PROMISED_MS;
    expect(await storesUntil(rig, 'another mount in its place', 'between', arrived)).toBeLessThan(NOTICED_MS);
    const old = await treeOf(first.back);
    for (const key of keysOf('after', 16)) expect(await storesOne(rig, key)).toBe('OK');
    for (const key of keys) expect(await rig.loads(key)).toBe(true);
    expect(await names(second.back, 'after')).toBe(16);
    expect(await treeOf(first.back), 'what is not mounted there any more').toBe(old);
    expect(eventsOf(rig, { from }).filter((event) => event.state !== 'ok'), 'it was never refused').toEqual([]);
    expect(await point.underneath()).toBe(before);
    return rig;
  }

  it('of the same device, with nothing hung: hits go on, and stores go to what is mounted now', () =>
    onStage(async (stage) => {
      const [lab] = stage.labs;
      const [a, b] = ['a', 'b'].map((name) => ({ mnt: path.join(lab!.mnt, name), back: path.join(lab!.back, name) }));
      for (const { back } of [a!, b!]) mkdirSync(back);
      await replaced(stage, a!, b!);
    }));

  it('of another device, with nothing hung: the same, and it is said which device it is', () =>
    onStage(async (stage) => {
      const [lab, other] = stage.labs;
      const rig = await replaced(stage, lab!, other!);
      const { device } = rig.client.ready.mounts[0]!;
      await rig.until('it is on the other device', async () => (await mountOf(rig)).device !== device);
      const devices = async (): Promise<string[]> => ((await rig.stats()).whole['devices'] as { device: string }[]).map((one) => one.device);
      await rig.until('the lanes of the former device have closed its root and left', async () => !(await devices()).includes(device!));
      expect(await devices()).toEqual([(await mountOf(rig)).device]);
    }, 2));

  it('gone with nothing hung: WRONG_STORE within a second for whoever goes on, no byte underneath, and back when it is mounted again', () =>
    onStage(async (stage) => {
      const { point } = stage;
      const [lab] = stage.labs;
      point.litter();
      const before = await point.underneath();
      await point.mount(lab!.mnt);
      const rig = await stage.start(engine, point.dir, { stallMs: NO_STALL_MS });
      const keys = keysOf('s', 4);
      await rig.fill(keys);
      await point.unmountLazily();
      expect(await storesUntil(rig, 'a bare directory', 'between', (code) => code === 'WRONG_STORE')).toBeLessThan(NOTICED_MS);
      for (const key of keysOf('after', 16)) expect(await storesOne(rig, key)).toBe('WRONG_STORE');
      expect(await names(lab!.back, 'after')).toBe(0);
      expect(await point.underneath()).toBe(before);
      await point.mount(lab!.mnt);
      expect(await storesUntil(rig, 'mounted again', 'again', (code) => code === 'OK')).toBeLessThan(NOTICED_MS);
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
      expect(await point.underneath()).toBe(before);
    }));
});
