// model.ts — two looks at a sidecar → what happened between them: rates, and quantiles of that time alone.
import type { Look } from '../attached/look.ts';
import type { ClassFigures, HistogramFigures } from '../attached/shapes.ts';

type Up = Extract<Look, { up: true }>;

export const CLASSES = ['load', 'store', 'metadata'] as const;

export interface OpRow {
  op: string;
  per_second: number;
  not_ok_per_second: number;
  p50_ms: number | null;
  p99_ms: number | null;
  total: number;
}

export interface ClassRow {
  mounts: string[];
  device: string;
  class: (typeof CLASSES)[number];
  figures: ClassFigures;
  per_second: number;
  bytes_per_second: number;
  p50_ms: number | null;
  p99_ms: number | null;
}

export interface View {
  seconds: number;
  ops: OpRow[];
  classes: ClassRow[];
  /** Per cent of one processor, over the time between the looks. */
  cpu_percent: number | null;
}

/** `before` null, or of another life: since the start. */
export function viewOf(now: Up, before: Up | null): View {
  const earlier = before !== null && before.hello.pid === now.hello.pid && before.stats.uptime_ms < now.stats.uptime_ms ? before : null;
  const ms = now.stats.uptime_ms - (earlier?.stats.uptime_ms ?? 0);
  const seconds = Math.max(ms, 1) / 1000;
  const bounds = now.stats.histogram_bounds_ms;
  const ops = Object.entries(now.stats.ops).map(([op, figures]): OpRow => {
    const was = earlier?.stats.ops[op];
    const counts = difference(figures.histogram, was?.histogram);
    return {
      op,
      per_second: (figures.ok + figures.not_ok - ((was?.ok ?? 0) + (was?.not_ok ?? 0))) / seconds,
      not_ok_per_second: (figures.not_ok - (was?.not_ok ?? 0)) / seconds,
      p50_ms: quantileMs(bounds, counts, 0.5),
      p99_ms: quantileMs(bounds, counts, 0.99),
      total: figures.requests,
    };
  });
  const classes = now.stats.devices.flatMap(({ device, mounts, classes: all }) =>
    CLASSES.map((name): ClassRow => {
      const figures = all[name];
      const was = earlier?.stats.devices.find((one) => one.device === device)?.classes[name];
      const counts = difference(figures.kernel_time, was?.kernel_time);
      return {
        mounts,
        device,
        class: name,
        figures,
        per_second: (figures.operations_done + figures.operations_failed - ((was?.operations_done ?? 0) + (was?.operations_failed ?? 0))) / seconds,
        bytes_per_second: (figures.done_bytes - (was?.done_bytes ?? 0)) / seconds,
        p50_ms: quantileMs(bounds, counts, 0.5),
        p99_ms: quantileMs(bounds, counts, 0.99),
      };
    }),
  );
  const cpuMs = (up: Up | null): number => (up?.stats.process == null ? 0 : up.stats.process.cpu_user_ms + up.stats.process.cpu_system_ms);
  return { seconds, ops, classes, cpu_percent: now.stats.process === null ? null : Math.max(0, (100 * (cpuMs(now) - cpuMs(earlier))) / (seconds * 1000)) };
}

function difference(now: HistogramFigures, was: HistogramFigures | undefined): number[] {
  return now.counts.map((count, index) => Math.max(0, count - (was?.counts[index] ?? 0)));
}

/** As Prometheus' histogram_quantile: evenly spread within a bucket. null: nothing happened; Infinity: above all bounds. */
export function quantileMs(boundsMs: readonly number[], counts: readonly number[], quantile: number): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  const wanted = quantile * total;
  let below = 0;
  for (let index = 0; index < boundsMs.length; index += 1) {
    const inside = counts[index] ?? 0;
    if (inside > 0 && below + inside >= wanted) {
      const from = index === 0 ? 0 : boundsMs[index - 1]!;
      return from + ((boundsMs[index]! - from) * (wanted - below)) / inside;
    }
    below += inside;
  }
  return Infinity;
}
