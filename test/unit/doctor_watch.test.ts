// When does a call hang? What the process that touches the mount makes of its looks at the lane, after the time is over.
import { expect, test } from 'vitest';
import { LOOK_MS, Watch, YOUNG_MS } from '../../clients/cli/doctor/survey_watch.ts';
import type { Call, Verdict } from '../../clients/cli/doctor/survey_watch.ts';

const MS_MAX = 500;
const LOOKS = MS_MAX / LOOK_MS;
const call = (ageMs: number, sinceUs = 1, syscall = 'unlinkat'): Call => ({ tid: 7, syscall, sinceUs, forUs: ageMs * 1000 });
const looksAt = (...calls: (Call | undefined)[]): Verdict[] => {
  const watch = new Watch(MS_MAX);
  return calls.map((one) => watch.look(one));
};

test('a call hangs when it has had its second and is there at two looks', () => {
  expect(looksAt(call(YOUNG_MS - 1), call(YOUNG_MS - 1), call(YOUNG_MS))).toEqual(['wait', 'wait', 'hung']);
  expect(looksAt(call(60_000))).toEqual(['wait']);
  expect(looksAt(call(60_000), call(60_100))).toEqual(['wait', 'hung']);
});

test('after a stop a call looks old, and is gone at the next look: nothing hangs', () => {
  expect(looksAt(call(2_500), undefined, call(2_500, 2), call(1, 3))).toEqual(['wait', 'wait', 'wait', 'wait']);
  expect(looksAt(call(2_500), { ...call(2_500), tid: 8 })).toEqual(['wait', 'wait']);
});

test('calls that keep coming back never hang; at the bound it is slow', () => {
  const verdicts = looksAt(...Array.from({ length: LOOKS }, (_, i) => call(350, i)));
  expect(verdicts).toEqual([...Array.from({ length: LOOKS - 1 }, () => 'wait'), 'slow']);
});

test('without a call nothing hangs, however long it takes', () => {
  const none = Array.from({ length: LOOKS }, () => undefined);
  expect(looksAt(...none).at(-1)).toBe('idle');
  expect(looksAt(...none.map(() => call(9_000, 1, 'none'))).at(-1)).toBe('idle');
  expect(looksAt(...none.slice(1), call(1)).at(-1)).toBe('slow');
});
