// What people use at three in the morning, beside a mount that hangs: the console shows it, the recorder does not care.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { terminal } from '../support/console_terminal.ts';
import { freshDirectory, KNOWN_AT_READY, talkTo } from '../support/sidecar_process.ts';
import { noLab, withLab } from '../support/stall.ts';

const MAX_HANG_S = 25;

describe.skipIf(noLab('the tools beside a hang'))('the tools beside a mount that hangs', () => {
  it('the console says what is stuck and since when, goes on meanwhile, and says when it is over', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      const tty = terminal(['console', '--mount', `kv0=${lab.mnt}`, '--create', '--stall-ms', '200', '--timeout-ms', '800', ...KNOWN_AT_READY]);
      await tty.shows('tab completes');
      // A first list of mounts makes lanes look at the root again, and that look would be what is stuck.
      let id = 0;
      do {
        id += 1;
        tty.type('stats\r');
        await tty.shows(new RegExp(`#${id} ok [^]*resident peak`));
      } while (!/mount list reads: [1-9]/.test(tty.screen()));
      tty.type('store demo/00ff hello timeout_ms=5000\r');
      await tty.shows(`#${id + 1} stored 1 block`);
      await lab.hang('read'); // probes too, or it would be well again while the load is stuck
      tty.type('load demo/00ff\r');
      await tty.shows(/stuck for [\d.]+ m?s: read \(preadv\) of demo\/00ff on kv0, thread \d+/);
      await tty.shows('kvlane (1 waiting');
      tty.type('stuck\r');
      await tty.shows(new RegExp(`#${id + 3} \\d+ calls? in the kernel, the longest for [\\d.]+ m?s`));
      await tty.shows(new RegExp(`#${id + 2} loaded 0 of 1 block [^]*demo/00ff {2}DEADLINE_EXCEEDED {2}in read after [\\d.]+ m?s`));
      await tty.shows(/kv0, load: \w+ → suspended/);
      await tty.shows('kv0 load suspended)> ');
      await lab.resume();
      await tty.shows(/returned after [\d.]+ m?s: read \(preadv\) of demo\/00ff on kv0/);
      await tty.shows(/kv0, load: (suspended|probing) → ok/);
      tty.type('load demo/00ff timeout_ms=5000\r');
      await tty.shows(new RegExp(`#${id + 4} loaded 1 block [^]*"hello"`));
      tty.type('\u0004');
      expect(await tty.exitCode).toBe(0);
    }));

  it('a recorder whose file lies on it passes everything on, and leaves', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      const file = join(lab.mnt, 'bug.ndjson');
      const words = ['record', file, '--', 'serve', '--mount', `kv0=${freshDirectory()}`, '--create', ...KNOWN_AT_READY];
      const child = spawn(process.execPath, [sidecarMain(), ...words], { stdio: 'pipe', detached: true });
      onTestFinished(() => void child.kill('SIGKILL'));
      const run = talkTo(child);
      await run.ready();
      run.send({ id: 0, op: 'ping' });
      await run.answer(0);
      await lab.hang(['open', 'write'], { match: '/bug.ndjson' });
      for (let id = 1; id <= 200; id += 1) {
        run.send({ id, op: 'store', blocks: [{ key: `demo/${id.toString(16).padStart(4, '0')}`, text: 'x'.repeat(2000) }], timeout_ms: 8_000 });
        expect(await run.answer(id)).toMatchObject({ ok: true });
      }
      run.end();
      expect((await run.exited).code).toBe(0);
      expect(run.stderr()).toContain(`the record in ${file} is not whole`);
      await lab.resume();
    }));
});
