// Four projects, by what they need: unit (nothing), golden and process (the built sidecar), stall (a mount to hang).
// Tests that start sidecars run one file at a time: they watch clocks, and two cores are shared with what they start.
import { defineConfig } from 'vitest/config';

const shared = {
  pool: 'forks' as const, // an own process a file: a crash in native code takes one file down, not the run
  exclude: ['dist/**', 'node_modules/**'],
};
const starting = { ...shared, fileParallelism: false, testTimeout: 30_000, hookTimeout: 30_000, teardownTimeout: 5_000 };

export default defineConfig({
  test: {
    projects: [
      { test: { ...shared, name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 10_000 } },
      { test: { ...starting, name: 'golden', include: ['test/golden.test.ts'] } },
      { test: { ...starting, name: 'process', include: ['test/process/**/*.test.ts'] } },
      { test: { ...starting, name: 'stall', include: ['test/lab.test.ts', 'test/stall/**/*.test.ts'], testTimeout: 60_000, hookTimeout: 60_000 } },
    ],
  },
});
