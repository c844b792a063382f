// Garbage while the mount hangs: whoever floods the sidecar with nonsense, or never reads what it says, takes no deadline from
// anybody and no memory beyond a bound.

import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { expect, it } from 'vitest';
import { failuresOf, keysOf, measured, onEachEngine, withRig } from '../support/rig.ts';
import { startSidecar, within } from '../support/sidecar_process.ts';
import { withLab } from '../support/stall.ts';

const TIMEOUT_MS = 1_000;
const LINES = 100_000;
/** A deadline is told late only by what one turn of the loop takes; the rest is a busy machine. */
const LATE_MS = 500;
const RESIDENT_MIB_MAX = 300;
const BLOCKS = { match: '/blocks/*' };

/** One line each, in turn; the last two are requests. */
const NONSENSE = ['null', '{"op":"ping"}', '[[[[', 'x'.repeat(300), '{"id":-1,"op":"load"}', '{"id":null,"op":"lookup","keys":["../../00"]}', '\u0000\ufffd', '{"id":"p","op":"pong"}', '{"id":"p","op":"ping"}'];

onEachEngine('garbage', (engine) => {
  it('100,000 lines of it at once while reads hang: every one is answered, and the loads are still told at their deadline', () =>
    withRig({ engine, breakerHeldClosed: true, stuckMax: 64 }, async (rig) => {
      const keys = keysOf('g', 16);
      await rig.fill(keys);
      await rig.lab.hang('read', BLOCKS);
      const before = rig.process().residentMib;
      const slots = rig.lease(16);
      const loads = keys.map((key, i) => rig.load([key], [slots[i]!], TIMEOUT_MS));
      await rig.lab.waitStuck('read');

      const from = rig.heard.length;
      const began = performance.now();
      const stdin = rig.client.process.child.stdin as Writable;
      stdin.write(Array.from({ length: LINES }, (_, i) => `${NONSENSE[i % NONSENSE.length]}\n`).join(''));
      let peak = 0;
      const asked = await Promise.all(loads);
      const answers = (): number => rig.heard.slice(from).filter(({ message }) => message['id'] === null || message['id'] === 'p').length;
      await rig.until('every line is answered', () => {
        peak = Math.max(peak, rig.process().residentMib);
        return answers() >= LINES;
      }, 40_000);
      const tookMs = performance.now() - began;
      expect(answers()).toBe(LINES);
      const waited = asked.map(({ answer }) => [...failuresOf(answer).values()][0]?.waited_ms ?? NaN);
      measured(`${engine}: ${LINES} lines of garbage in ${Math.round(tookMs)} ms; the loads waited ${Math.min(...waited)} to ${Math.max(...waited)} ms for ${TIMEOUT_MS}; resident ${before} → ${peak} MiB`);
      for (const { answer } of asked) expect([...failuresOf(answer).values()].map((entry) => entry.code)).toEqual(['DEADLINE_EXCEEDED']);
      expect(Math.min(...asked.map((one) => one.overshootMs))).toBeGreaterThanOrEqual(0);
      expect(Math.max(...waited)).toBeLessThan(TIMEOUT_MS + LATE_MS);
      expect(peak).toBeLessThan(RESIDENT_MIB_MAX);
      rig.client.arena.release(slots);
      await rig.heal();
      for (const key of keys) expect(await rig.loads(key)).toBe(true);
    }));

  it('a reader that never reads while reads hang: the sidecar leaves, in bounded memory, and its corpse holds no pipe', () =>
    withLab({ maxHangS: 25 }, async (lab) => {
      const args = ['--mount', `kv0=${lab.mnt}`, '--create', '--arena-mib', '8', '--engine', engine];
      const filler = startSidecar({ args });
      await expect.poll(async () => {
        filler.send({ id: 1, op: 'store', timeout_ms: 20_000, blocks: [{ key: 'g/00aa', text: 'x'.repeat(1000) }] });
        return (await filler.message((message) => message['id'] === 1 && message === filler.messages.at(-1), 'the store'))['ok'] as boolean;
      }, { timeout: 10_000 }).toBe(true); // the mount may not have been identified at first
      filler.end();
      await filler.exited;

      await lab.hang('read', BLOCKS);
      const sidecar = startSidecar({ args, read: false });
      const stdin = sidecar.child.stdin as Writable;
      stdin.setMaxListeners(0);
      let id = 0;
      await expect.poll(async () => {
        sidecar.send({ id: `load ${(id += 1)}`, op: 'load', timeout_ms: 60_000, blocks: [{ key: 'g/00aa' }], inline: true });
        return (await lab.status()).held.read;
      }, { timeout: 10_000 }).toBeGreaterThan(0);
      const pings = Array.from({ length: 5_000 }, (_, i) => `{"id":${i},"op":"ping"}\n`).join('');
      let peakKib = 0;
      const leaves = (): boolean => sidecar.stderr().includes('stdout is read too slowly') || stdin.destroyed;
      const drained = (): Promise<unknown> => Promise.race([once(stdin, 'drain'), once(stdin, 'close')]).catch(() => undefined); // EPIPE: it has left
      for (let turn = 0; turn < 1_000 && !leaves(); turn += 1) {
        if (!stdin.write(pings)) await within(drained(), () => 'stdin is not read, and the sidecar does not leave');
        peakKib = Math.max(peakKib, sidecar.statusKib('VmHWM') ?? 0);
      }
      sidecar.child.stdout?.resume(); // what is in the pipe, then its end
      await sidecar.ended;
      measured(`${engine}: left a reader that does not read with a read in the kernel; peak ${Math.round(peakKib / 1024)} MiB`);
      expect(sidecar.stderr()).toContain('stdout is read too slowly');
      expect(peakKib).toBeLessThan(RESIDENT_MIB_MAX * 1024);
      await lab.resume();
      expect(await sidecar.exited).toEqual({ code: 74, signal: null });
    }));
});
