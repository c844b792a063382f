// breaker.test.ts — the states of one class, and what counts as evidence.
import { describe, expect, test } from 'vitest';
import { Breaker, GOOD_ANSWERS, PATIENCE_MAX_US } from '../../sidecar/breaker.ts';

const STALL_US = 1_000_000;
const MIB = 1 << 20;

function breaker(state: 'unknown' | 'ok' | 'suspended' | 'probing'): Breaker {
  const made = new Breaker(STALL_US, false);
  if (state !== 'unknown') made.completed(50, 100);
  if (state === 'suspended' || state === 'probing') made.trip('stuck', 1000);
  if (state === 'probing') made.answeredWell(true, false, 2000);
  expect(made.state).toBe(state);
  return made;
}

describe('states', () => {
  const steps = {
    'a completion': (one: Breaker) => one.completed(10, 5000),
    'evidence': (one: Breaker) => one.trip('again', 5000),
    'one good answer': (one: Breaker) => one.answeredWell(true, false, 5000),
    'a bad answer': (one: Breaker) => one.answeredBadly('EIO'),
    'enough good answers': (one: Breaker) => {
      for (let i = 0; i < GOOD_ANSWERS; i += 1) one.answeredWell(true, false, 5000 + i);
    },
  };
  const table: ['unknown' | 'ok' | 'suspended' | 'probing', keyof typeof steps, string][] = [
    ['unknown', 'a completion', 'ok'],
    ['unknown', 'evidence', 'suspended'],
    ['unknown', 'one good answer', 'unknown'],
    ['unknown', 'a bad answer', 'unknown'],
    ['ok', 'a completion', 'ok'],
    ['ok', 'evidence', 'suspended'],
    ['ok', 'enough good answers', 'ok'],
    ['ok', 'a bad answer', 'ok'],
    ['suspended', 'a completion', 'suspended'],
    ['suspended', 'evidence', 'suspended'],
    ['suspended', 'one good answer', 'probing'],
    ['suspended', 'a bad answer', 'suspended'],
    ['suspended', 'enough good answers', 'ok'],
    ['probing', 'a completion', 'probing'],
    ['probing', 'evidence', 'probing'],
    ['probing', 'a bad answer', 'suspended'],
    ['probing', 'enough good answers', 'ok'],
  ];
  test.each(table)('%s, after %s, is %s', (from, step, to) => {
    const one = breaker(from);
    steps[step](one);
    expect(one.state).toBe(to);
  });

  test('late completions alone do not close it: one question must have been asked after it opened', () => {
    const one = breaker('suspended');
    for (let i = 0; i < 100; i += 1) one.answeredWell(false, false, 5000);
    expect(one.state).toBe('probing');
    expect(one.answeredWell(true, false, 5000)).toBe(true);
    expect(one.state).toBe('ok');
  });

  test('late completions alone close it when every probe it may make is stuck', () => {
    const one = breaker('suspended');
    for (let i = 1; i < GOOD_ANSWERS; i += 1) expect(one.answeredWell(false, true, 5000)).toBe(false);
    expect(one.answeredWell(false, true, 5000)).toBe(true);
  });

  test('a bad answer begins the count anew', () => {
    const one = breaker('suspended');
    one.answeredWell(true, false, 1);
    one.answeredWell(true, false, 2);
    one.answeredBadly('EIO');
    one.answeredWell(true, false, 3);
    one.answeredWell(true, false, 4);
    expect(one.state).toBe('probing');
  });

  test('held closed by the test flag it counts what it would have done', () => {
    const one = new Breaker(STALL_US, true);
    expect(one.trip('stuck', 1)).toBe(false);
    expect(one.isOpen()).toBe(false);
    expect(one.heldClosed).toBe(1);
  });
});

describe('patience', () => {
  const patience = (p99Us: number, bytesInFlight: number): number => breaker('ok').patienceUs({ p99Us, bytesInFlight });

  test('is stall_ms, or four times the recent p99, or what 10 MB/s need for what is in flight', () => {
    expect(patience(0, 0)).toBe(STALL_US);
    expect(patience(600_000, 0)).toBe(2_400_000);
    expect(patience(0, 64 * MIB)).toBeGreaterThan(6_000_000);
  });

  test('is never longer than half a minute', () => {
    expect(patience(60_000_000, 0)).toBe(PATIENCE_MAX_US);
  });
});

describe('an overrun deadline', () => {
  const call = { sinceUs: 10_000, heldUs: 250_000, discounted: false, p99Us: 0, bytesInFlight: MIB };

  test('is evidence without history', () => {
    expect(breaker('unknown').overrunCounts(call)).toBe(true);
  });
  test('is none when something of the class completed since the call began', () => {
    const one = breaker('ok');
    one.completed(9000, 11_000);
    expect(one.overrunCounts(call)).toBe(false);
  });
  test('is none when this mount takes that long now and then', () => {
    expect(breaker('ok').overrunCounts({ ...call, p99Us: 100_000 })).toBe(false);
    expect(breaker('ok').overrunCounts({ ...call, p99Us: 60_000 })).toBe(true);
  });
  test('is none when it was so short that it proves nothing', () => {
    expect(breaker('ok').overrunCounts({ ...call, heldUs: 5000 })).toBe(false);
  });
  test('is none at 50 MB/s: eight blocks of 8 MiB need 1.3 s', () => {
    expect(breaker('ok').overrunCounts({ ...call, heldUs: 1_200_000, bytesInFlight: 64 * MIB })).toBe(false);
  });
  test('is none after a pause of the process, unless the call held for stall_ms under our eyes', () => {
    expect(breaker('ok').overrunCounts({ ...call, discounted: true })).toBe(false);
    expect(breaker('ok').overrunCounts({ ...call, discounted: true, heldUs: STALL_US })).toBe(true);
  });
});

test('a call is overtaken by completions that began after it, not by those that were under way', () => {
  const one = breaker('ok');
  one.completed(900, 5000);
  expect(one.overtaken(1000)).toBe(false);
  one.completed(1100, 5100);
  expect(one.overtaken(1000)).toBe(true);
});
