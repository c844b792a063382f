// A store of very many blocks within its capacity: what the collector's memory is, how long its pass takes, and what loads notice.
// KVLANE_SCALE_FULL=1 has 200,000 blocks; KVLANE_SCALE_BLOCKS=1000000 a million. As root on a tmpfs of its own; KVLANE_SCALE_DIR=1: where TMPDIR is.
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { keysOf, spreadOf } from '../support/rig.ts';
import { startStore, TIMEOUT_MS } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';
import { costOf, row } from './costs.ts';

const FULL = Boolean(process.env['KVLANE_SCALE_FULL']);
const BLOCKS = Number(process.env['KVLANE_SCALE_BLOCKS'] ?? (FULL ? 200_000 : 20_000));
const FILE_BYTES = 4_096;
/** Promised of a million blocks. */
const MEMORY_KIB_MAX = 200 * 1024;

/** Files that the collector takes for blocks, with room of their own and nothing in them: older ones first. */
const MAKE_BLOCKS = `import os,sys
root, count = sys.argv[1], int(sys.argv[2])
fans = {}
for i in range(count):
 name = '%08x' % (i * 2654435761 % 2**32)
 fan = fans.get(name[:2])
 if fan is None:
  path = os.path.join(root, name[:2]); os.makedirs(path, exist_ok=True)
  fan = fans[name[:2]] = os.open(path, os.O_RDONLY)
 fd = os.open(name + '.kvb', os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fan)
 os.posix_fallocate(fd, 0, ${FILE_BYTES}); os.utime(fd, (10**9 + i, 10**9 + i)); os.close(fd)`;

const residentKib = (pid: number): number => Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

interface Capacity {
  state: string;
  used_bytes: number | null;
  blocks: number;
  passes: number;
  evicted_blocks: number;
  last_pass_ms: number;
}

test(`${BLOCKS} blocks: the collector keeps the oldest in mind and no more, and loads go on`, { timeout: 1_200_000 }, async () => {
  const root = freshDirectory();
  const where = process.env['KVLANE_SCALE_DIR'];
  if (where === undefined && process.geteuid!() === 0) {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=12g,nr_inodes=2m', 'kvlane-test', root]);
    onTestFinished(() => void execFileSync('umount', ['-l', root]));
  }
  const before = await startStore(root);
  const keys = keysOf('real', 64);
  for (const one of await before.put(keys, 5_000)) expect(one.code).toBe('OK');
  const folder = join(root, 'blocks', 'n');
  mkdirSync(folder, { recursive: true });
  execFileSync('python3', ['-ISc', MAKE_BLOCKS, folder, String(BLOCKS)]);
  await before.client.shutdown(300);

  const limit = Math.floor(BLOCKS * FILE_BYTES * 0.99);
  const store = await startStore(root, { args: ['--capacity-bytes', String(limit), '--recycle', 'off'] });
  const pid = store.client.process.child.pid!;
  const capacityOf = async (): Promise<Capacity> => {
    const answer = (await store.client.request('stats', { timeout_ms: TIMEOUT_MS } as never)) as unknown as { stats: { mounts: { capacity: Capacity }[] } };
    return answer.stats.mounts[0]!.capacity;
  };
  const firstKib = residentKib(pid);
  const began = performance.now();
  let scannedMs = 0;
  let peakKib = firstKib;
  const loads: number[] = [];
  for (;;) {
    const loadBegan = performance.now();
    const [one] = await store.get([keys[loads.length % keys.length]!], 5_000);
    expect(one!.code).toBe('OK');
    loads.push(performance.now() - loadBegan);
    peakKib = Math.max(peakKib, residentKib(pid));
    const capacity = await capacityOf();
    if (scannedMs === 0 && capacity.used_bytes !== null) scannedMs = performance.now() - began;
    if (capacity.passes > 0) break;
    await new Promise((go) => setTimeout(go, 20));
  }
  const capacity = await capacityOf();
  const { p50, p99 } = spreadOf(loads);
  row('blocks within a capacity', BLOCKS, costOf(pid), `scanned in ${(scannedMs / 1000).toFixed(1)} s, pass ${(capacity.last_pass_ms / 1000).toFixed(1)} s with ${capacity.evicted_blocks} evicted; resident ${Math.round(firstKib / 1024)} → ${Math.round(peakKib / 1024)} MiB; loads p50 ${p50} ms, p99 ${p99} ms`);
  expect(peakKib - firstKib).toBeLessThan(MEMORY_KIB_MAX);
  expect(capacity.used_bytes!).toBeLessThanOrEqual(limit);
  for (const one of await store.get(keys, 5_000)) expect(one.code).toBe('OK'); // young ones stay
});
