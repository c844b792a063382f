// looks.ts — what a tool sees of a sidecar that has one mount, made up.
import type { Look } from '../../clients/cli/attached/look.ts';
import type { CapacityFigures, ClassFigures } from '../../clients/cli/attached/shapes.ts';
import { BOUNDS_MS } from '../../sidecar/histogram.ts';

export interface Told {
  pid?: number;
  name?: string;
  uptimeMs?: number;
  /** Requests and operations, all ok, 1.5 ms each. */
  loads?: number;
  loadedBytes?: number;
  suspendedMs?: number;
  reason?: string;
  quarantined?: number;
  capacity?: CapacityFigures;
  stuck?: { tid: number; forMs: number; key?: string; slot?: number; syscall?: string }[];
}

export function lookOf(told: Told = {}): Extract<Look, { up: true }> {
  const { pid = 7, name = 'kv0', uptimeMs = 60_000, loads = 0, loadedBytes = 0, suspendedMs, quarantined = 0, stuck = [] } = told;
  const histogram = (count: number) => ({ counts: [...BOUNDS_MS.map((bound) => (bound === 2 ? count : 0)), 0], sum_ms: 1.5 * count });
  const figures = (count: number, bytes: number): ClassFigures => ({
    state: 'ok', engine: 'threads', queued: 0, running: 0, lanes: 4, lanes_stuck: 0, lanes_stuck_max: 64, oldest_in_kernel_ms: 0, operations_abandoned: 0, operations_done: count,
    operations_failed: 0, operations_late: 0, done_bytes: bytes, kernel_time: histogram(count), suspended_times: 0, probes: 0, probes_stuck: 0,
  });
  const load = figures(loads, loadedBytes);
  if (suspendedMs !== undefined) Object.assign(load, { state: 'suspended', suspended_for_ms: suspendedMs, suspended_times: 1, lanes_stuck: stuck.length, reason: told.reason ?? '3 reads in flight, none completed for 1000 ms' });
  const state = suspendedMs === undefined ? 'ok' : 'suspended';
  return {
    found: { path: `/run/kvlane/${pid}-00000000.sock`, pid },
    up: true,
    tookMs: 1,
    more: 0,
    hello: { protocol: 1, version: '0.1.0', pid, parent_pid: 6, engine: 'threads', timeout_ms: 2000, stall_ms: 1000, now_us: 1, arena: {}, mounts: [{}], limits: {} } as never,
    stuck: stuck.map(({ tid, forMs, key, slot, syscall }) => ({ mount: name, class: 'load', kind: 'load', phase: 'read', tid, syscall: syscall ?? 'preadv', since_us: 1, for_ms: forMs, settled: true, ...(key === undefined ? {} : { key }), ...(slot === undefined ? {} : { slot }) })),
    stats: {
      uptime_ms: uptimeMs,
      outstanding: 0,
      ops: { load: { requests: loads, ok: loads, not_ok: 0, p50_ms: 1.5, p99_ms: 1.5, max_ms: 1.5, histogram: histogram(loads) } },
      refused: {},
      blocks_done: loads,
      blocks_failed: {},
      loaded_bytes: loadedBytes,
      stored_bytes: 0,
      histogram_bounds_ms: [...BOUNDS_MS],
      late_completions: 0,
      arena: { bytes: 2 ** 27, backing: 'hugetlb', page_bytes: 2 ** 21, huge_bytes: 2 ** 27 },
      slots: { free: 128 - quarantined, in_flight: 0, quarantined },
      staging: { areas: 64, in_flight: 0, quarantined: 0 },
      keys_gated: 0,
      keys_bad: 0,
      files_set_aside: 0,
      mounts: [{ name, root: '/mnt/cache', device: '254:1', state, fs_type: 'ext4', blocks_loaded: loads, blocks_stored: 0, blocks_kept: 0, blocks_removed: 0, loaded_bytes: loadedBytes, stored_bytes: 0, classes: { load: state, store: 'ok', metadata: 'ok' }, ...(told.capacity === undefined ? {} : { capacity: told.capacity }) }],
      devices: [{ device: '254:1', mounts: [name], classes: { load, store: figures(0, 0), metadata: figures(0, 0) } }],
      process: { cpu_percent: 1, resident_bytes: 50 * 2 ** 20, cpu_user_ms: 100, cpu_system_ms: 10, resident_peak_bytes: 60 * 2 ** 20 },
      attached: { readers: 1, attached: 1, turned_away: 0, questions: 2 },
    },
  };
}
