// kvlane inspect on a mount that hangs: at the start, while it lists, reads and removes. There is a message with what is known and an exit
// status in time, never a hang; and when the mount answers again, the same command goes on.
import { describe, expect, it } from 'vitest';
import { Client, type Fields } from '../../clients/node/client.ts';
import { inspect, inspecting, type Inspected } from '../support/inspect.ts';
import { KNOWN_AT_READY } from '../support/sidecar_process.ts';
import { type Lab, noLab, withLab } from '../support/stall.ts';

const MAX_HANG_S = 40;
const TIMEOUT_MS = 1_500;
const T = ['--timeout-ms', String(TIMEOUT_MS)];
/** A look, as long again, starting, leaving, and a busy machine. */
const ENDS_MS = 2 * TIMEOUT_MS + 12_000;
const KEYS = Array.from({ length: 24 }, (_, i) => `demo/${(i % 3).toString(16).padStart(2, '0')}${i.toString(16).padStart(2, '0')}`);
const BLOCKS = '*.kvb';

async function fill(lab: Lab): Promise<void> {
  const client = await Client.spawn({ mounts: { kv0: lab.mnt }, create: true, args: [...KNOWN_AT_READY, '--slot-bytes', '65536', '--arena-mib', '2'] });
  const answer = await client.request('store', { keys: KEYS, slots: KEYS.map((_, i) => i), bytes: 60_000, timeout_ms: 10_000 } as Fields<'store'>);
  expect(answer.ok).toBe(true);
  await client.shutdown();
}

function gaveUp(ended: Inspected, says: RegExp): void {
  expect(ended, ended.stderr).toMatchObject({ status: 3 });
  expect(ended.stderr).toMatch(says);
  expect(ended.tookMs).toBeLessThan(ENDS_MS);
}

describe.skipIf(noLab('kvlane inspect beside a hang'))('inspect on a mount that hangs', () => {
  it('from the start: it says that nothing was answered, and what is stuck', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('all');
      for (const words of [['ls', lab.mnt], ['verify', lab.mnt], ['rm', lab.mnt, KEYS[0]!]]) gaveUp(await inspect(...words, ...T), /did not answer for 1\.5 s[^]*\n {2}in the kernel for [\d.]+ m?s: identify/);
      await lab.resume();
      await lab.waitFree();
      expect((await inspect('ls', lab.mnt, 'demo', '--sort', 'name')).stdout.trim().split('\n')).toEqual([...KEYS].sort());
    }), 120_000);

  it('while it lists: what was listed stays, then which directory, for how long, in which call', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('all', { match: '/blocks/demo/01*' });
      const ended = await inspect('ls', lab.mnt, 'demo', ...T);
      gaveUp(ended, /listing blocks\/demo(\/01)?: [^]*the mount is waited for, [\d.]+ m?s more[^]*listing blocks\/demo(\/01)?: (DEADLINE_EXCEEDED|MOUNT_SUSPENDED)[^]*\n {2}in the kernel for [\d.]+ m?s: list/);
      for (const key of ended.stdout.split('\n').filter((line) => line !== '')) expect(key).toMatch(/^demo\/00/);
      await lab.resume();
      await lab.waitFree();
      expect(await inspect('df', lab.mnt)).toMatchObject({ status: 0 });
    }), 120_000);

  it('in one block while it verifies: the others are verified, that one is counted as not read', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('read', { match: `*/${KEYS[4]!.slice(5)}.kvb` });
      const ended = await inspect('verify', lab.mnt, ...T);
      expect(ended, ended.stderr).toMatchObject({ status: 3 });
      expect(ended.stdout).toMatch(new RegExp(`^not read +${KEYS[4]} +DEADLINE_EXCEEDED: it reached its deadline after \\d+ ms, in read for \\d+ ms$`, 'm'));
      expect(ended.stdout).toMatch(/^23 blocks sound, 0 damaged, 1 not read, /m);
      await lab.resume();
    }), 120_000);

  it('in all of them while it verifies: a summary of what is known, and why it ended', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('read', { match: BLOCKS });
      await lab.hang('read', { match: '/probe/*' }); // or a probe would find the mount well
      const ended = await inspect('verify', lab.mnt, ...T);
      gaveUp(ended, /reading demo\/\w+ and 7 more: MOUNT_SUSPENDED[^]*\n {2}in the kernel for [\d.]+ m?s: verify of demo\/\w+, read/);
      expect(ended.stdout.match(/^not read /gm)).toHaveLength(8);
      expect(ended.stdout).toMatch(/^0 blocks sound, 0 damaged, 8 not read, .*, given up before the end$/m);
      await lab.resume();
      await lab.waitFree();
      expect(await inspect('verify', lab.mnt)).toMatchObject({ status: 0, stdout: expect.stringMatching(/^24 blocks sound/) });
    }), 120_000);

  it('and answers again in time: the same scrub goes on, and nothing is missing', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('read', { match: BLOCKS });
      const scrub = inspecting(['verify', lab.mnt, '--timeout-ms', '15000']);
      await lab.waitStuck('read', 4);
      await lab.resume();
      expect(await scrub.exited).toMatchObject({ status: 0, stdout: expect.stringMatching(/^24 blocks sound, 0 damaged, /) });
    }), 120_000);

  it('while it removes: what became of the block is said to be unknown', () =>
    withLab({ maxHangS: MAX_HANG_S }, async (lab) => {
      await fill(lab);
      await lab.hang('unlink');
      const ended = await inspect('rm', lab.mnt, KEYS[0]!, ...T);
      expect(ended.status, ended.stderr).toBe(1);
      expect(ended.stderr).toMatch(new RegExp(`${KEYS[0]}: DEADLINE_EXCEEDED: .*the name may change late`));
      expect(ended.stdout).toBe('removed 0 blocks\n');
      expect(ended.tookMs).toBeLessThan(ENDS_MS);
      await lab.resume();
    }), 120_000);
});
