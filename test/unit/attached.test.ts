// What the tools make of whoever is behind a socket: root looks at those of all users, and may find anything.
import { createServer } from 'node:net';
import { join } from 'node:path';
import { mkdirSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { lookAt, type Look } from '../../clients/cli/attached/look.ts';
import { fits, tamed } from '../../clients/cli/attached/tame.ts';
import { SHAPES } from '../../clients/cli/attached/shapes.ts';
import { expositionOf } from '../../clients/cli/metrics/text.ts';
import { rowsOf } from '../../clients/cli/top/paint.ts';
import { asJson } from '../../clients/cli/top/once.ts';
import { plain } from '../../clients/cli/top/screen.ts';
import { socketDirectory } from '../support/attached.ts';
import { lookOf } from '../support/looks.ts';

const BOUNDS = { connectMs: 10_000, answerMs: 10_000 };
const EVIL = 'a\x1b]0;x\x07\x1b[2J\r\n\t\u009b31m\u202eb';
/** What a terminal obeys; newlines are ours. */
const OBEYED = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/;

/** A socket behind which each line is answered with what `says` makes of it. */
async function behind(greeting: string, says: (question: { id: number; op: string }) => string): Promise<{ path: string; pid: number }> {
  const directory = socketDirectory();
  mkdirSync(directory, { mode: 0o700 });
  const path = join(directory, '7-00000000.sock');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.write(`${greeting}\n`);
    socket.setEncoding('utf8').on('data', (text: string) => {
      for (const line of text.split('\n').slice(0, -1)) socket.write(`${says(JSON.parse(line) as { id: number; op: string })}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => void server.close());
  return { path, pid: 7 };
}

function telling(look: Extract<Look, { up: true }>): Promise<{ path: string; pid: number }> {
  return behind(JSON.stringify({ ...look.hello, event: 'attached' }), ({ id, op }) => JSON.stringify({ id, ok: true, ...(op === 'stats' ? { stats: look.stats } : { stuck: look.stuck }) }));
}

async function shown(look: Look): Promise<string> {
  const watched = [{ found: look.found, look, before: null, places: new Map(), events: [] }];
  return `${rowsOf(watched, 100).map(plain).join('\n')}${asJson(watched)}${await expositionOf([look])}`;
}

/** The same with every string in it exchanged, names of fields left alone. */
function spoilt(value: unknown, keep: (text: string) => boolean): unknown {
  if (typeof value === 'string') return keep(value) ? value : EVIL;
  if (Array.isArray(value)) return value.map((one) => spoilt(one, keep));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, inside]) => [name, spoilt(inside, keep)]));
}

test('text that a terminal would obey is in nothing that is shown, wherever it stood', async () => {
  const states = new Set(['ok', 'unknown', 'suspended', 'probing']);
  const honest = lookOf({ suspendedMs: 1, reason: 'r', stuck: [{ tid: 1, forMs: 2000, key: 'k', syscall: 's' }], loads: 3 });
  const evil = spoilt({ ...honest, stats: { ...honest.stats, refused: { [EVIL]: 1 }, ops: { [EVIL]: honest.stats.ops['load'] } } }, (text) => states.has(text)) as typeof honest;
  const look = await lookAt(await telling(evil), BOUNDS);
  expect(look).toMatchObject({ up: true });
  const text = await shown(look);
  expect(text).toContain('[2J');
  expect(text).not.toMatch(OBEYED);
  expect(tamed({ [EVIL]: [EVIL, 1, null] })).not.toHaveProperty([EVIL]);
});

test('a state that is none, a text for a number, a list for an object, less than nothing: it is no sidecar, and trips no tool', async () => {
  const honest = lookOf({ stuck: [{ tid: 1, forMs: 1 }] });
  expect(fits({ hello: honest.hello, stats: honest.stats, stuck: honest.stuck, more: undefined }, SHAPES)).toBe(true);
  const wrongs: ((stats: any, stuck: any) => void)[] = [
    (stats) => (stats.mounts[0].classes.load = EVIL),
    (stats) => (stats.slots.free = -1),
    (stats) => (stats.slots.quarantined = '1'),
    (stats) => (stats.uptime_ms = 1e999),
    (stats) => (stats.devices[0].classes = []),
    (stats) => (stats.devices = {}),
    (stats) => (stats.ops = [1]),
    (stats) => delete stats.histogram_bounds_ms,
    (_stats, stuck) => (stuck[0].tid = 'x'),
    (_stats, stuck) => delete stuck[0].syscall,
  ];
  for (const wrong of wrongs) {
    const look = structuredClone(honest);
    wrong(look.stats, look.stuck);
    const seen = await lookAt(await telling(look), BOUNDS);
    expect(seen, String(wrong)).toMatchObject({ up: false, trouble: 'odd' });
    expect(await shown(seen)).toContain('is no sidecar of this version');
  }
});

test.each([
  ['no JSON', 'hello'],
  ['a list', '[]'],
  ['nested without end', '['.repeat(200_000) + ']'.repeat(200_000)],
  ['a greeting without a version', '{"event":"attached","pid":7}'],
])('a greeting that is %s', async (_what, greeting) => {
  const seen = await lookAt(await behind(greeting, ({ id, op }) => JSON.stringify({ id, ok: true, ...(op === 'stats' ? { stats: lookOf().stats } : { stuck: [] }) })), { connectMs: 10_000, answerMs: 1_000 });
  expect(seen).toMatchObject({ up: false, trouble: expect.stringMatching(/odd|mute/) });
});
