// clock.ts — CLOCK_MONOTONIC and the one timer, both from native.
//
// Node's own timers count in milliseconds and may fire a little early; a deadline must not be
// answered early, and must not disagree with the clock that the lanes and the client read.
import type { Native } from '../native/index.ts';
import type { Clock } from './service_types.ts';

export type { Clock } from './service_types.ts';

/** For windows and budgets, not for deadlines. Not `performance`: at its first use node loads ten modules for it, two milliseconds and half a MiB. */
export const uptimeMs = (): number => process.uptime() * 1000;

export function nativeClock(native: Pick<Native, 'nowUs' | 'armTimer'>): Clock {
  return { nowUs: () => native.nowUs(), arm: (atUs) => native.armTimer(atUs) };
}
