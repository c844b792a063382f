// Log lines: what is in one, how many of a kind, and a stderr that is full or gone.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createLog, LOG_BURST_MAX, LOG_WINDOW_MS } from '../../sidecar/log.ts';
import { heldSink } from '../support/held_sink.ts';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function logging(options: { terminal?: boolean; pendingBytesMax?: number } = {}) {
  const sink = heldSink();
  const log = createLog({ sink, terminal: options.terminal ?? false, nowMs: () => performance.now(), ...options });
  const lines = (): Record<string, unknown>[] =>
    sink.writes.join('').split('\n').filter(Boolean).map((line) => JSON.parse(line) as Record<string, unknown>);
  return { sink, log, lines };
}

test('a line says when, how grave, what, and its fields', () => {
  const { sink, log, lines } = logging();
  sink.open();
  log.warn('mount', { mount: 'kv0', class: 'load', state: 'suspended' });
  expect(lines()).toEqual([{ time: expect.stringMatching(/^\d{4}-.*Z$/) as string, level: 'warn', event: 'mount', mount: 'kv0', class: 'load', state: 'suspended' }]);
});

test('on a terminal it is a line for eyes', () => {
  const { sink, log } = logging({ terminal: true });
  sink.open();
  log.warn('lane_stalled', { mount: 'kv0', for_ms: 1200, why: 'no answer yet', key: undefined });
  expect(sink.writes[0]).toMatch(/^\d\d:\d\d:\d\d\.\d{3} warn {2}lane stalled mount=kv0 for_ms=1200 why="no answer yet"\n$/);
});

test('the same event over and over is cut to a few lines and a count; another mount has its own', () => {
  const { sink, log, lines } = logging();
  sink.open();
  for (let turn = 0; turn < 100; turn += 1) log.info('stalled', { mount: 'kv0', turn });
  log.info('stalled', { mount: 'kv1' });
  expect(lines()).toHaveLength(LOG_BURST_MAX + 1);
  vi.advanceTimersByTime(LOG_WINDOW_MS);
  expect(lines().at(-1)).toMatchObject({ event: 'suppressed', of: 'stalled', mount: 'kv0', lines: 95 });
  log.info('stalled', { mount: 'kv0' });
  expect(lines().at(-1)).toMatchObject({ event: 'stalled', mount: 'kv0' });
  vi.advanceTimersByTime(10 * LOG_WINDOW_MS);
  expect(vi.getTimerCount()).toBe(0); // an idle log has no wake-ups
});

test('a full stderr drops lines and counts them, and memory stays where it was', () => {
  const { sink, log, lines } = logging({ pendingBytesMax: 1000 });
  for (let turn = 0; turn < 10_000; turn += 1) log.info(`event_${turn}`, { turn });
  expect(sink.writes).toHaveLength(1);
  sink.open();
  const dropped = lines().find((line) => line['event'] === 'log_dropped');
  expect(Number(dropped?.['lines']) + lines().length - 1).toBeGreaterThanOrEqual(10_000);
  expect(lines().length).toBeLessThan(30);
});

test('a stderr that is gone is nobody to write to, and nothing throws', () => {
  const { sink, log } = logging();
  log.info('one');
  sink.release(new Error('EPIPE'));
  log.info('two');
  log.flush(50, () => {});
  expect(sink.writes).toHaveLength(1);
});

test('what JSON cannot say does not throw', () => {
  const { sink, log, lines } = logging();
  sink.open();
  const ring: Record<string, unknown> = {};
  ring['ring'] = ring;
  log.error('ring', ring);
  log.error('big', { big: 10n, error: new Error('what happened') });
  expect(lines()[0]).toMatchObject({ event: 'ring', level: 'error', fields: '(not JSON)' });
  expect(JSON.parse(sink.writes[1]!)).toMatchObject({ big: '10', error: expect.stringContaining('what happened') as string });
});

test('a very long line is cut and still JSON', () => {
  const { sink, log, lines } = logging();
  sink.open();
  log.error('long', { text: 'x'.repeat(100_000) });
  expect(sink.writes[0]!.length).toBeLessThan(10_000);
  expect(lines()[0]).toMatchObject({ event: 'long', level: 'error' });
});

test('flush ends when all is written, or at its bound', () => {
  const { sink, log } = logging();
  const done: string[] = [];
  log.info('one');
  log.flush(50, () => void done.push('bounded'));
  vi.advanceTimersByTime(50);
  expect(done).toEqual(['bounded']);
  log.flush(50, () => void done.push('written'));
  sink.release();
  expect(done).toEqual(['bounded', 'written']);
});
