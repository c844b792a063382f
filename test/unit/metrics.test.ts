// What is told to Prometheus, and that everything in monitoring/ speaks of it: names that exist, expressions that parse.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parser } from '@prometheus-io/lezer-promql';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { addressOf } from '../../clients/cli/metrics/endpoint.ts';
import { BREAKER_VALUES, FAMILIES, UP } from '../../clients/cli/metrics/families.ts';
import { expositionOf } from '../../clients/cli/metrics/text.ts';
import { BOUNDS_MS, Histogram } from '../../sidecar/histogram.ts';
import { lookOf } from '../support/looks.ts';

const REPOSITORY = join(import.meta.dirname, '../..');
const text = (path: string): string => readFileSync(join(REPOSITORY, path), 'utf8');
const TYPES = new Map<string, { type: string; labels: readonly string[] }>([UP, ...FAMILIES].map((family) => [family.name, { type: family.type, labels: 'labels' in family ? family.labels : [] }]));

const CAPACITY = { role: 'holder', limit_bytes: 100, used_bytes: 90, passes: 3, failed_passes: 1, last_pass_ms: 1500, evicted_blocks: 7, evicted_bytes: 70, urged: 2, wants: 6, touched: 5, orphans_removed: 4 } as const;

/** Lines of the exposition that are no comments: name{labels} value. */
function samples(exposition: string): { name: string; labels: Record<string, string>; value: number }[] {
  return exposition
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const found = /^([a-z_]+)\{(.*)\} (\S+)$/.exec(line)!;
      return { name: found[1]!, labels: Object.fromEntries([...found[2]!.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, value]) => [label!, value!])), value: Number(found[3]) };
    });
}

describe('what is told', () => {
  test.each([...TYPES])('%s is named and described as Prometheus has it', (name, { type, labels }) => {
    const { help } = [UP, ...FAMILIES].find((family) => family.name === name)!;
    expect(name).toMatch(/^(kvlane|process|target)_[a-z_]+$/);
    expect(name.endsWith('_total'), 'a counter, and only that, ends in _total').toBe(type === 'counter');
    expect(name).not.toMatch(/_(ms|us|kib|mib|percent)\b/); // base units
    expect(help).toMatch(/^[A-Z0-9].*\.$/);
    for (const label of labels) expect(label).toMatch(/^[a-z_]+$/);
    if (type === 'histogram') expect(name).toMatch(/_seconds$/);
  });

  test('every value has the labels that it should have, is a number, and is told once', async () => {
    const exposition = await expositionOf([lookOf({ capacity: CAPACITY, loads: 3, suspendedMs: 12_000, stuck: [{ tid: 1, forMs: 13_000 }, { tid: 2, forMs: 1_500 }], quarantined: 2 })]);
    const seen = new Set<string>();
    for (const { name, labels, value } of samples(exposition)) {
      const family = TYPES.get(name) ?? TYPES.get(name.replace(/_(bucket|sum|count)$/, ''))!;
      expect(family, name).toBeDefined();
      const { le, ...others } = labels;
      expect(Object.keys(others).sort(), name).toEqual(['pid', ...family.labels].sort());
      expect(le !== undefined).toBe(name.endsWith('_bucket'));
      expect(Number.isFinite(value), name).toBe(true);
      const series = JSON.stringify([name, labels]);
      expect(seen.has(series), series).toBe(false);
      seen.add(series);
    }
    for (const name of TYPES.keys()) expect(exposition, name).toContain(`# TYPE ${name} `);
    expect(exposition).toContain('kvlane_breaker{pid="7",mount="kv0",class="load"} 2');
    expect(exposition).toContain('kvlane_stuck{pid="7",mount="kv0",class="load"} 2');
    expect(exposition).toContain('kvlane_stuck_oldest_seconds{pid="7",mount="kv0",class="load"} 13');
    expect(exposition).toContain('kvlane_suspended_seconds{pid="7",device="254:1",class="load"} 12');
    expect(exposition).toContain('kvlane_lanes{pid="7",device="254:1",class="load",state="stuck"} 2');
    expect(exposition).toContain('kvlane_quarantined_slots{pid="7"} 2');
  });

  test('what keeps a store within its limit is told where there is one, and nothing where there is none', async () => {
    expect(samples(await expositionOf([lookOf()])).filter(({ name }) => /capacity|collector|evicted/.test(name))).toEqual([]);
    const exposition = await expositionOf([lookOf({ capacity: CAPACITY })]);
    expect(exposition).toContain('kvlane_capacity_limit_bytes{pid="7",mount="kv0"} 100');
    expect(exposition).toContain('kvlane_collector{pid="7",mount="kv0"} 1');
    expect(exposition).toContain('kvlane_collector_last_pass_seconds{pid="7",mount="kv0"} 1.5');
    expect(exposition).toContain('kvlane_evicted_blocks_total{pid="7",mount="kv0"} 7');
    expect(samples(await expositionOf([lookOf({ capacity: { role: 'off', limit_bytes: null, used_bytes: null } })])).filter(({ name }) => name.startsWith('kvlane_capacity'))).toEqual([]);
  });

  test('buckets add up, to +Inf, and are those of the vLLM connector with finer ones below', async () => {
    const buckets = samples(await expositionOf([lookOf({ loads: 5 })])).filter(({ name, labels }) => name === 'kvlane_request_duration_seconds_bucket' && labels['op'] === 'load');
    expect(buckets.map(({ labels }) => labels['le'])).toEqual([...BOUNDS_MS.map((bound) => String(bound / 1000)), '+Inf']);
    expect(buckets.map(({ value }) => value)).toEqual([...BOUNDS_MS.map((bound) => (bound >= 2 ? 5 : 0)), 5]);
    const theirs = /BUCKETS_S[^=]*= \(([^)]*)\)/.exec(text('clients/python/src/kvlane/vllm/stats.py'))![1]!.split(',').flatMap((word) => (word.trim() === '' ? [] : Number(word)));
    expect(BOUNDS_MS.map((bound) => bound / 1000).slice(-theirs.length)).toEqual(theirs);
  });

  test('what the vLLM connector tells too has its name, its labels and its values', () => {
    const stats = text('clients/python/src/kvlane/vllm/stats.py');
    const names = (table: string): string[] => [...new RegExp(`${table}[^{]*\\{([^}]*)\\}`, 's').exec(stats)![1]!.matchAll(/"(\w+)":/g)].map(([, name]) => name!);
    const both = [...names('GAUGES').map((name) => `kvlane_${name}`), ...names('COUNTERS').map((name) => `kvlane_${name}_total`)].filter((name) => TYPES.has(name));
    expect(both).toEqual(expect.arrayContaining(['kvlane_stuck', 'kvlane_quarantined_slots', 'kvlane_free_slots', 'kvlane_breaker', 'kvlane_sidecar_up', 'kvlane_loaded_bytes_total', 'kvlane_stored_bytes_total']));
    expect(TYPES.get('kvlane_breaker')!.labels).toContain('class');
    const values = /BREAKER_OK, BREAKER_PROBING, BREAKER_SUSPENDED, BREAKER_UNKNOWN = ([0-9, ]+)/.exec(stats)![1]!.split(',').map(Number);
    expect(values).toEqual([BREAKER_VALUES.ok, BREAKER_VALUES.probing, BREAKER_VALUES.suspended, BREAKER_VALUES.unknown]);
  });

  test('a sidecar that is silent is told as down, a dead socket not at all', async () => {
    const down = (pid: number, trouble: 'mute' | 'dead') => ({ found: { path: `/x/${pid}-0.sock`, pid }, up: false as const, trouble, reason: 'no' });
    const all = samples(await expositionOf([lookOf(), down(8, 'mute'), down(9, 'dead')]));
    expect(all.filter(({ name }) => name === UP.name).map(({ labels, value }) => [labels['pid'], value])).toEqual([['7', 1], ['8', 0]]);
    expect(all.some(({ labels }) => labels['pid'] === '8' || labels['pid'] === '9' ? false : true)).toBe(true);
    expect(all.filter(({ labels }) => labels['pid'] === '8')).toHaveLength(1);
  });

  test('the same pid in two pid namespaces makes two series, not one twice', async () => {
    const twin = { ...lookOf(), found: { path: '/x/7-11111111.sock', pid: 7 } };
    const up = samples(await expositionOf([lookOf(), twin])).filter(({ name }) => name === UP.name);
    expect(up.map(({ labels }) => labels['pid'])).toEqual(['7-00000000', '7-11111111']);
  });

  test('text from elsewhere cannot leave its quotes', async () => {
    const exposition = await expositionOf([lookOf({ name: 'a"} 1\nevil{x="\\' })]);
    expect(exposition).toContain('mount="a\\"} 1\\nevil{x=\\"\\\\"');
    expect(exposition.split('\n').some((line) => line.startsWith('evil'))).toBe(false);
  });
});

test('a histogram counts each time once, bounds included', () => {
  const histogram = new Histogram();
  for (const us of [0, 100, 101, 2000, 10_000_000, 10_000_001]) histogram.record(us);
  const { counts, sum_ms: sumMs } = histogram.picture();
  expect(counts).toHaveLength(BOUNDS_MS.length + 1);
  expect(counts[0]).toBe(2);
  expect(counts[1]).toBe(1);
  expect(counts[BOUNDS_MS.indexOf(2)]).toBe(1);
  expect(counts.slice(-2)).toEqual([1, 1]);
  expect(sumMs).toBe(20_002.202);
});

describe('an address to listen on', () => {
  test.each([['9464', '127.0.0.1', 9464], ['127.0.0.1:0', '127.0.0.1', 0], ['localhost:80', 'localhost', 80], ['[::1]:9464', '::1', 9464]])('%s', (word, host, port) => expect(addressOf(word)).toEqual({ host, port }));
  test.each(['0.0.0.0:9464', '[::]:9464', '192.168.1.1:80', 'example.org:80', '127.0.0.1', '127.0.0.1:65536', '127.0.0.1.example.org:80', ''])('%s is refused', (word) => expect(() => addressOf(word)).toThrow(/wanted|Only this machine/));
});

// ---- monitoring/ ----

/** Names of series in an expression; throws where it is none. */
function namesIn(expression: string): string[] {
  // Grafana's own words, as numbers and times of the kind that it puts there.
  const plain = expression.replaceAll('$__rate_interval', '1m').replaceAll('$__range', '1h');
  const names: string[] = [];
  parser.parse(plain).iterate({
    enter(node) {
      if (node.type.isError) throw new Error(`no PromQL at character ${node.from + 1}: ${plain}`);
      if (node.name === 'Identifier' && node.node.parent?.name === 'VectorSelector') names.push(plain.slice(node.from, node.to));
    },
  });
  return names;
}

function expectKnown(expression: string): void {
  const names = namesIn(expression);
  expect(names.length, expression).toBeGreaterThan(0);
  for (const name of names) {
    const family = TYPES.get(name) ?? TYPES.get(name.replace(/_(bucket|sum|count)$/, ''));
    expect(family, `${name} in ${expression}`).toBeDefined();
    if (family!.type === 'counter') expect(expression, 'of a counter, its rate').toMatch(new RegExp(`(rate|increase)\\(${name}`));
    if (family!.type === 'histogram') expect(name).toMatch(/_bucket$/);
  }
  // Labels by which is summed, or that are compared, are labels of something in the expression; Prometheus adds job and instance.
  const known = new Set(['pid', 'job', 'instance', 'le', ...names.flatMap((name) => TYPES.get(name.replace(/_(bucket|sum|count)$/, ''))?.labels ?? TYPES.get(name)!.labels)]);
  for (const [, list] of expression.matchAll(/\b(?:by|on) \(([^)]*)\)/g)) for (const label of list!.split(',')) expect(known, expression).toContain(label.trim());
  for (const [, label] of expression.matchAll(/[{,](\w+)(?:=~|!~|!=|=)"/g)) expect(known, expression).toContain(label);
}

test('the parser that the following rely on refuses what is no PromQL', () => {
  expect(() => namesIn('sum by (kvlane_stuck')).toThrow();
  expect(namesIn('sum(rate(a_total{b="c"}[1m])) or vector(0)')).toEqual(['a_total']);
});

interface Rule {
  alert: string;
  expr: string;
  for?: string;
  labels: Record<string, string>;
  annotations: Record<string, string>;
}

describe('monitoring/alerts.yml', () => {
  const file = parse(text('monitoring/alerts.yml')) as { groups: { name: string; rules: Rule[] }[] };
  const rules = file.groups.flatMap((group) => group.rules);

  test('has groups of rules, and nothing that Prometheus does not know', () => {
    expect(Object.keys(file)).toEqual(['groups']);
    expect(new Set(rules.map((rule) => rule.alert)).size).toBe(rules.length);
    for (const rule of rules) for (const key of Object.keys(rule)) expect(['alert', 'expr', 'for', 'labels', 'annotations']).toContain(key);
  });

  test.each(rules.map((rule) => [rule.alert, rule] as const))('%s', (name, rule) => {
    expect(name).toMatch(/^Kvlane[A-Z][A-Za-z]+$/);
    expectKnown(rule.expr);
    expect(['warning', 'critical']).toContain(rule.labels['severity']);
    expect(Object.keys(rule.annotations)).toEqual(['summary', 'description']);
    if (rule.for !== undefined) expect(rule.for).toMatch(/^[0-9]+[smh]$/);
    // A label in the words is one that the expression leaves there.
    const kept = new Set([...rule.expr.matchAll(/\bby \(([^)]*)\)/g)].flatMap(([, list]) => list!.split(',').map((label) => label.trim())));
    for (const [, label] of Object.values(rule.annotations).join(' ').matchAll(/\$labels\.(\w+)/g)) expect(kept, `${label} in the words of ${name}`).toContain(label);
  });
});

interface Panel {
  id: number;
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  targets?: { expr: string; refId: string }[];
  fieldConfig?: { defaults: { mappings?: { options: Record<string, { text: string }> }[] } };
}

describe('monitoring/grafana-dashboard.json', () => {
  const board = JSON.parse(text('monitoring/grafana-dashboard.json')) as { title: string; uid: string; schemaVersion: number; panels: Panel[]; templating: { list: { name: string; definition?: string }[] }; annotations: { list: { expr: string }[] } };

  test('has what Grafana wants of a dashboard that is imported', () => {
    expect(board).toMatchObject({ title: 'kvlane', uid: expect.any(String), schemaVersion: expect.any(Number) });
    expect(new Set(board.panels.map((panel) => panel.id)).size).toBe(board.panels.length);
    for (const panel of board.panels) expect(panel).toMatchObject({ title: expect.any(String), type: expect.stringMatching(/^(row|stat|timeseries|state-timeline)$/), gridPos: { x: expect.any(Number), y: expect.any(Number) } });
  });

  test('no panel lies over another, and none beside the sheet of 24 columns', () => {
    const taken = new Map<string, string>();
    for (const { title, gridPos: { x, y, w, h } } of board.panels) {
      expect(x + w, title).toBeLessThanOrEqual(24);
      for (let column = x; column < x + w; column += 1) {
        for (let row = y; row < y + h; row += 1) {
          expect(taken.get(`${column},${row}`), `under ${title}`).toBeUndefined();
          taken.set(`${column},${row}`, title);
        }
      }
    }
  });

  test.each(board.panels.flatMap((panel) => (panel.targets ?? []).map((target) => [`${panel.title} ${target.refId}`, target.expr] as const)))('%s', (_title, expression) => expectKnown(expression));
  test.each(board.annotations.list.map((one) => one.expr))('annotation %s', (expression) => expectKnown(expression));

  test('its variables are asked of metrics that exist, and those that panels use are defined', () => {
    const names = board.templating.list.map((one) => one.name);
    for (const { definition } of board.templating.list) if (definition !== undefined) expect(TYPES.has(/^label_values\((\w+)/.exec(definition)![1]!), definition).toBe(true);
    for (const [, name] of JSON.stringify(board).matchAll(/\$\{?([a-z]\w*)/g)) expect(names).toContain(name);
  });

  test('a hang is at the top: the state of each mount and class, with a word and a colour for each value', () => {
    const state = board.panels.find((panel) => panel.type === 'state-timeline')!;
    expect(state.gridPos.y).toBeLessThan(8);
    expect(state.targets![0]!.expr).toContain('kvlane_breaker');
    expect(Object.keys(state.fieldConfig!.defaults.mappings![0]!.options).map(Number)).toEqual(Object.values(BREAKER_VALUES));
  });
});
