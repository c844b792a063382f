// What the process costs, for `stats`: sampled beside the requests, never waited for.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createUsage, type Sampler } from '../../sidecar/usage.ts';

const warned: string[] = [];
const log = { info: () => {}, error: () => {}, warn: (event: string) => void warned.push(event) };

beforeEach(() => {
  vi.useFakeTimers();
  warned.length = 0;
});
afterEach(() => vi.useRealTimers());

test('the answer never waits: the first has no sample, a later one has', async () => {
  let give: (sample: { cpu: number; memory: number }) => void = () => {};
  const usage = createUsage(log, () => new Promise((resolve) => (give = resolve)), () => Date.now());
  expect(usage.latest()).toMatchObject({ cpu_percent: null, resident_bytes: null, sampled_ms_ago: null });
  expect(usage.latest().resident_peak_bytes).toBeGreaterThan(1_000_000);
  give({ cpu: 12.345, memory: 4096 });
  await vi.advanceTimersByTimeAsync(300);
  expect(usage.latest()).toMatchObject({ cpu_percent: 12.3, resident_bytes: 4096, sampled_ms_ago: 300 });
});

test('a sample is kept for a while, and asked for again when it is old', async () => {
  let asked = 0;
  const usage = createUsage(log, () => Promise.resolve({ cpu: (asked += 1), memory: 1 }), () => Date.now());
  usage.refresh();
  await vi.advanceTimersByTimeAsync(10);
  for (let turn = 0; turn < 50; turn += 1) usage.latest();
  expect(asked).toBe(1);
  await vi.advanceTimersByTimeAsync(2_000);
  usage.latest();
  expect(asked).toBe(2);
});

test('a sampler that never answers is given up, said once, and left alone for a while', async () => {
  let asked = 0;
  const never: Sampler = () => {
    asked += 1;
    return new Promise(() => {});
  };
  const usage = createUsage(log, never, () => Date.now());
  usage.refresh();
  await vi.advanceTimersByTimeAsync(5_000);
  usage.refresh();
  expect({ asked, warned }).toEqual({ asked: 1, warned: ['usage_not_sampled'] });
  await vi.advanceTimersByTimeAsync(30_000);
  usage.refresh();
  expect(asked).toBe(2);
});

test('pidusage itself answers for this process', async () => {
  vi.useRealTimers();
  const usage = createUsage(log);
  usage.refresh();
  await vi.waitFor(() => expect(usage.latest().resident_bytes).toBeGreaterThan(1_000_000), { timeout: 5_000 });
});
