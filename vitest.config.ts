// Projects by what they need: unit and sim (nothing), golden, process and security (the built sidecar), browser (that and a browser), scale and
// stall (a mount to hang).
// Tests that start sidecars run one file at a time: they watch clocks, and two cores are shared with what they start.
import { defineConfig } from 'vitest/config';

const shared = {
  pool: 'forks' as const, // an own process a file: a crash in native code takes one file down, not the run
  exclude: ['dist/**', 'node_modules/**'],
};
const retry = process.env['KVLANE_SECOND_ATTEMPT'] === undefined ? 0 : 1; // see test/parts.sh
const starting = { ...shared, retry, fileParallelism: false, testTimeout: 30_000, hookTimeout: 30_000, teardownTimeout: 5_000 };

export default defineConfig({
  test: {
    projects: [
      { test: { ...shared, name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 10_000 } },
      { test: { ...starting, retry: 0, name: 'sim', include: ['test/sim/**/*.test.ts'], testTimeout: 300_000 } },
      { test: { ...starting, name: 'golden', include: ['test/golden.test.ts'] } },
      { test: { ...starting, name: 'process', include: ['test/process/**/*.test.ts'] } },
      { test: { ...starting, name: 'security', include: ['test/security/**/*.test.ts'] } },
      { test: { ...starting, name: 'browser', include: ['test/browser/**/*.test.ts'], testTimeout: 180_000, hookTimeout: 60_000 } },
      { test: { ...starting, name: 'scale', include: ['test/scale/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 } },
      { test: { ...starting, name: 'stall', include: ['test/lab.test.ts', 'test/stall/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 } },
    ],
  },
});
