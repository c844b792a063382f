// The way out: its order, its bounds, its statuses.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createLeave } from '../../sidecar/shutdown.ts';

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

/** Every step waits until the test lets it go; the order of what happened is kept. */
function leaving() {
  const happened: string[] = [];
  const steps: Record<string, () => void> = {};
  const step = (name: string) => (ms: number, done: () => void) => {
    happened.push(`${name} ${ms}`);
    steps[name] = done;
  };
  const log = {
    info: (event: string) => void happened.push(event),
    warn: () => {},
    error: (event: string) => void happened.push(event),
    say: () => {},
    flush: (_ms: number, done: () => void) => done(),
  };
  const leave = createLeave({
    service: () => ({ drain: step('drain'), outstanding: () => 3 }),
    writer: { flush: step('flush') },
    log,
    native: { hardExit: ((code: number) => void happened.push(`exit ${code}`)) as (code: number) => never },
  });
  return { leave, happened, steps };
}

test('asked to leave, tasks drain, the last answers are written, then the process ends', () => {
  const { leave, happened, steps } = leaving();
  leave('shutdown_request', { drainMs: 800 });
  steps['drain']!();
  steps['flush']!();
  expect(happened).toEqual(['leaving', 'drain 800', 'flush 1000', 'exit 0']);
});

test('whoever looks in is shut out first of all, once', () => {
  const happened: string[] = [];
  const log = { info: () => {}, warn: () => {}, error: () => {}, say: () => {}, flush: (_ms: number, done: () => void) => done() };
  const leave = createLeave({ service: () => null, writer: { flush: (_ms, done) => done() }, log, native: { hardExit: ((code: number) => void happened.push(`exit ${code}`)) as (code: number) => never }, leaving: () => void happened.push('shut') });
  leave('signal');
  leave('signal');
  expect(happened.filter((one) => one === 'shut')).toHaveLength(1);
  expect(happened[0]).toBe('shut');
});

test('a drain that never comes back does not keep the process', () => {
  const { leave, happened } = leaving();
  leave('signal', { signal: 'SIGTERM' });
  vi.advanceTimersByTime(1_000);
  expect(happened).toEqual(['leaving', 'drain 100', 'exit 0']);
});

test('a parent that is gone is not waited for', () => {
  const { leave, happened, steps } = leaving();
  leave('parent_gone');
  steps['drain']!();
  steps['flush']!();
  expect(happened).toEqual(['leaving', 'drain 0', 'flush 0', 'exit 0']);
});

test('a second signal, or a reader that goes meanwhile, cuts a patient way short; a second patient way does not', () => {
  const { leave, happened } = leaving();
  leave('stdin_end');
  leave('shutdown_request', { drainMs: 5 });
  leave('stdin_end');
  expect(happened).toEqual(['leaving', 'drain 30000']);
  leave('stdout_gone', { why: 'EPIPE' });
  leave('stdout_gone', { why: 'EPIPE' });
  expect(happened.slice(2)).toEqual(['leaving_at_once', 'exit 0']); // it was asked to leave, so that is the status
});

test('each ending has its status', () => {
  for (const [reason, status] of [['stdin_end', 0], ['signal', 0], ['stdout_gone', 74], ['fatal_error', 70]] as const) {
    const { leave, happened, steps } = leaving();
    leave(reason);
    steps['drain']!();
    steps['flush']!();
    expect(happened.at(-1)).toBe(`exit ${status}`);
  }
});

test('an error on the way out of an error ends it there', () => {
  const { leave, happened } = leaving();
  leave('fatal_error', { error: new Error('first') });
  leave('fatal_error', { error: new Error('second') });
  expect(happened.slice(2)[0]).toBe('exit 70');
});

test('without a service yet there is nothing to drain', () => {
  const exits: number[] = [];
  const leave = createLeave({
    service: () => null,
    writer: { flush: (_ms, done) => done() },
    log: { info: () => {}, warn: () => {}, error: () => {}, say: () => {}, flush: (_ms, done) => done() },
    native: { hardExit: ((code: number) => void exits.push(code)) as (code: number) => never },
  });
  leave('signal');
  expect(exits).toEqual([0]);
});
