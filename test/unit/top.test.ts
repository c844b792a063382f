// What `kvlane top` makes of looks at sidecars: numbers, rows, and the place in the kernel.
import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';
import { describe, expect, onTestFinished, test } from 'vitest';
import { framesOf, kernelPlaces } from '../../clients/cli/top/kernel.ts';
import { quantileMs, viewOf } from '../../clients/cli/top/model.ts';
import { rowsOf } from '../../clients/cli/top/paint.ts';
import { ansi, plain } from '../../clients/cli/top/screen.ts';
import type { Watched } from '../../clients/cli/top/watcher.ts';
import { lookOf } from '../support/looks.ts';

const watched = (look: Watched['look'], more: Partial<Watched> = {}): Watched => ({ found: { path: '/x/7-0.sock', pid: 7 }, look, before: null, places: new Map(), events: [], ...more });
const textOf = (...all: Watched[]): string => rowsOf(all, 100).map(plain).join('\n');

describe('a quantile of a histogram', () => {
  const bounds = [1, 2, 5];
  test('lies within its bucket, evenly spread', () => {
    expect(quantileMs(bounds, [0, 10, 0, 0], 0.5)).toBe(1.5);
    expect(quantileMs(bounds, [10, 0, 0, 0], 0.5)).toBe(0.5);
    expect(quantileMs(bounds, [50, 0, 50, 0], 0.99)).toBeCloseTo(4.94);
  });
  test('of nothing is none, and above all bounds it is more than can be said', () => {
    expect(quantileMs(bounds, [0, 0, 0, 0], 0.5)).toBeNull();
    expect(quantileMs(bounds, [0, 0, 0, 3], 0.5)).toBe(Infinity);
  });
});

test('rates are those between two looks, and since the start where there was none before, or another life', () => {
  const before = lookOf({ uptimeMs: 10_000, loads: 100, loadedBytes: 1000 });
  const now = lookOf({ uptimeMs: 12_000, loads: 300, loadedBytes: 5000 });
  expect(viewOf(now, before)).toMatchObject({ seconds: 2, ops: [{ op: 'load', per_second: 100 }], classes: [{ class: 'load', per_second: 100, bytes_per_second: 2000 }, {}, {}] });
  expect(viewOf(now, null)).toMatchObject({ seconds: 12, ops: [{ per_second: 25 }] });
  expect(viewOf(now, lookOf({ uptimeMs: 99_000, loads: 1 }))).toMatchObject({ seconds: 12 });
  expect(viewOf(now, lookOf({ uptimeMs: 10_000, loads: 100, pid: 8 }))).toMatchObject({ seconds: 12 });
});

test('a hang is seen at a glance: the state with its reason, the lane with its call, where it sits in the kernel, the slot that waits', () => {
  const look = lookOf({ suspendedMs: 12_000, stuck: [{ tid: 4720, forMs: 13_000, key: 'llama/9f3c', slot: 17 }], quarantined: 1 });
  const text = textOf(watched(look, { places: new Map([[4720, { frames: ['request_wait_answer', 'fuse_simple_request'] }]]) }));
  expect(text).toMatch(/kv0 +load +suspended/);
  expect(text).toContain('for 12 s: 3 reads in flight, none completed for 1000 ms');
  expect(text).toMatch(/4720 +13 s +kv0 +load +load +read +preadv +llama\/9f3c {2}slot 17 {2}given up/);
  expect(text).toContain('in the kernel: request_wait_answer < fuse_simple_request');
  expect(text).toContain('quarantined 1');
});

test('a store with a limit says how full it is, or who keeps it there', () => {
  const limit = { limit_bytes: 100 * 2 ** 30, used_bytes: 90 * 2 ** 30, evicted_blocks: 12 };
  expect(textOf(watched(lookOf({ capacity: { role: 'holder', ...limit } })))).toMatch(/kv0 +holds 90\S* GiB of 100\S* GiB, 12 blocks evicted here/);
  expect(textOf(watched(lookOf({ capacity: { role: 'waiting', ...limit, reason: 'another sidecar collects' } })))).toMatch(/kv0 +may hold 100\S* GiB; another sidecar collects/);
  expect(textOf(watched(lookOf()))).not.toContain('hold');
});

test('who does not answer is said to, with the reason', () => {
  expect(textOf(watched({ found: { path: '/x', pid: 7 }, up: false, trouble: 'mute', reason: 'its greeting did not come within 1000 ms' }))).toMatch(/sidecar 7 {2}does not answer.*\n.*1000 ms/);
  expect(textOf(watched(null))).toContain('no answer yet');
});

test('a row is cut to the width, colours not counted', () => {
  const row = [{ text: 'abc', style: 'red' as const }, { text: '' }, { text: 'defgh' }];
  expect(ansi(row, 5, true)).toBe('\x1b[31mabc\x1b[0mde');
  expect(ansi(row, 5, false)).toBe('abcde');
  expect(ansi(row, 2, false)).toBe('ab');
});

test('in 80 columns everything but the ends of reasons and keys is there', () => {
  const rows = rowsOf([watched(lookOf({ suspendedMs: 12_000 }))], 80).map(plain);
  for (const row of rows.filter((one) => !one.includes('reads in flight') && !one.startsWith('sidecar'))) expect(row.length, row).toBeLessThanOrEqual(80);
});

test('the frames of a kernel stack are its names, innermost first', () => {
  expect(framesOf('[<0>] request_wait_answer+0x12a/0x1f0 [fuse]\n[<0>] __fuse_simple_request+0x8c/0x1b0 [fuse]\n[<0>] entry_SYSCALL_64_after_hwframe+0x6e\n')).toEqual(['request_wait_answer', '__fuse_simple_request', 'entry_SYSCALL_64_after_hwframe']);
  expect(framesOf('')).toEqual([]);
});

test('the place in the kernel is told of a sidecar in the pid namespace of who looks, and of no other', async () => {
  const child = spawn('cat', { stdio: ['pipe', 'pipe', 'ignore'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  const pid = child.pid!;
  child.stdin.write('x');
  await new Promise((resolve) => child.stdout.once('data', resolve)); // it runs, and reads again
  const known = (): boolean => {
    try {
      return framesOf(readFileSync(`/proc/${pid}/task/${pid}/stack`, 'latin1')).length > 0;
    } catch {
      return false; // not root
    }
  };
  const own = readlinkSync('/proc/self/ns/pid');
  if (known()) expect((await kernelPlaces(pid, own, [pid])).get(pid)?.frames.length).toBeGreaterThan(0);
  expect([...(await kernelPlaces(pid, 'pid:[1]', [pid]))]).toEqual([]);
  expect([...(await kernelPlaces(pid, undefined, [pid]))]).toEqual([]);
});
