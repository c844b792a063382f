// text.ts — looks at sidecars → Prometheus' text exposition. prom-client writes it; the values were counted elsewhere, so what it is
// given are not its own counters but objects that answer as those do.
import { Registry, type Metric } from 'prom-client';
import { basename } from 'node:path';
import type { Look } from '../attached/look.ts';
import { FAMILIES, UP, type Labels, type Sample } from './families.ts';

export const CONTENT_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

interface Value {
  labels: Record<string, string | number>;
  value: number;
  metricName?: string;
}

export async function expositionOf(looks: readonly Look[]): Promise<string> {
  // A dead socket is nobody's: whoever starts next removes it.
  const shown = looks.filter((look) => look.up || look.trouble !== 'dead');
  const pids = new Map<Look, string>(shown.map((look) => [look, pidOf(look, shown)]));
  const registry = new Registry();
  register(registry, UP, shown.map((look) => ({ labels: { pid: pids.get(look)! }, value: look.up ? 1 : 0 })));
  for (const family of FAMILIES) {
    const values = shown.flatMap((look) => (look.up ? family.read(look).flatMap((sample) => valuesOf(family.name, sample, { pid: pids.get(look)! })) : []));
    if (values.length > 0) register(registry, family, values);
  }
  return registry.metrics();
}

/** Two pid namespaces that share the directory may have the same pid; the socket's name tells them apart. */
function pidOf(look: Look, all: readonly Look[]): string {
  const same = all.filter((other) => other.found.pid === look.found.pid);
  return same.length > 1 ? basename(look.found.path, '.sock') : String(look.found.pid);
}

function register(registry: Registry, { name, help, type }: { name: string; help: string; type: string }, values: Value[]): void {
  const metric = { name, help, type, get: () => Promise.resolve({ name, help, type, values, aggregator: 'omit' }) };
  registry.registerMetric(metric as unknown as Metric);
}

function valuesOf(name: string, sample: Sample, own: Labels): Value[] {
  const labels = { ...own, ...sample.labels };
  if ('value' in sample) return [{ labels, value: sample.value }];
  const { counts, sum_ms: sumMs } = sample.histogram;
  let upTo = 0;
  const buckets = counts.map((count, index): Value => {
    upTo += count;
    const boundMs = sample.boundsMs[index];
    return { labels: { ...labels, le: boundMs === undefined ? '+Inf' : String(boundMs / 1000) }, value: upTo, metricName: `${name}_bucket` };
  });
  return [...buckets, { labels, value: sumMs / 1000, metricName: `${name}_sum` }, { labels, value: upTo, metricName: `${name}_count` }];
}
