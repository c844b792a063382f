// usage.ts — what this process costs, for the `stats` answer.
//
// pidusage needs two shells at its first call and libuv's pool at each, and where the pool is stuck it
// never answers. So it is loaded late, asked beside the request and never on its way, given up after
// a while, and what it said last is kept. getrusage(2) needs nothing and is always fresh.
import { uptimeMs } from './clock.ts';
import type { Log, Usage } from './service_types.ts';

/** Younger figures are not asked for again; CPU is a difference of 10 ms ticks and needs some time between. */
const SAMPLE_AGE_MS_MIN = 1_000;
const SAMPLE_TIMEOUT_MS = 2_000;
/** After a call that never came back: a stuck pool stays stuck for a while. */
const RETRY_MS = 30_000;
/** Well after `ready`, when the first requests are through. */
export const FIRST_SAMPLE_MS = 500;

type Sample = { cpu: number; memory: number };
export type Sampler = (pid: number) => Promise<Sample>;

export interface ProcessUsage extends Usage {
  /** Asks for new figures if the last are old; returns at once. */
  refresh(): void;
}

export function createUsage(log: Log, sampler: Sampler = pidusageSample, nowMs: () => number = uptimeMs): ProcessUsage {
  let sample: (Sample & { atMs: number }) | null = null;
  let asking = false;
  let notBeforeMs = 0;

  function refresh(): void {
    const now = nowMs();
    if (asking || now < notBeforeMs) return;
    asking = true;
    const timer = setTimeout(() => end(`no answer within ${SAMPLE_TIMEOUT_MS} ms`), SAMPLE_TIMEOUT_MS).unref();
    const end = (fault: unknown): void => {
      if (!asking) return;
      asking = false;
      clearTimeout(timer);
      if (fault === null) return;
      notBeforeMs = nowMs() + RETRY_MS;
      log.warn('usage_not_sampled', { error: fault, next: 'stats go on without cpu_percent and resident_bytes' });
    };
    sampler(process.pid).then(
      ({ cpu, memory }) => {
        sample = { cpu, memory, atMs: nowMs() };
        notBeforeMs = sample.atMs + SAMPLE_AGE_MS_MIN;
        end(null);
      },
      (error: unknown) => end(error),
    );
  }

  return {
    refresh,
    latest() {
      refresh();
      const own = process.resourceUsage();
      return {
        cpu_percent: sample === null ? null : Math.round(sample.cpu * 10) / 10,
        resident_bytes: sample?.memory ?? null,
        sampled_ms_ago: sample === null ? null : Math.round(nowMs() - sample.atMs),
        cpu_user_ms: Math.round(own.userCPUTime / 1000),
        cpu_system_ms: Math.round(own.systemCPUTime / 1000),
        resident_peak_bytes: own.maxRSS * 1024,
      };
    },
  };
}

async function pidusageSample(pid: number): Promise<Sample> {
  process.env['PIDUSAGE_SILENT'] = '1'; // without getconf it would print; its guesses (100 Hz, 4 KiB) are right nearly everywhere
  const { default: pidusage } = await import('pidusage');
  return pidusage(pid);
}
