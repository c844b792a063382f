// shutdown.ts — the one way out, whoever asks.
//
// Never process.exit(): it joins libuv's pool and hangs while any thread is stuck, on every Node. The
// end is native _exit, after what can still be said has been said, and each step has its bound.
import type { Native } from '../native/index.ts';
import type { LineWriter } from './line_writer.ts';
import type { StderrLog } from './log.ts';
import type { Service } from './service_types.ts';

export type LeaveReason = 'shutdown_request' | 'stdin_end' | 'parent_gone' | 'signal' | 'stdout_gone' | 'fatal_error';

interface Plan {
  /** How long tasks may still run; what is left then is answered SHUTTING_DOWN. */
  drainMs: number;
  /** How long the last answers may wait for the pipe. */
  flushMs: number;
  exitCode: number;
}

export const EXIT_ASKED = 0;
export const EXIT_USAGE = 2;
export const EXIT_FATAL = 70;
export const EXIT_READER_GONE = 74;

/** A `shutdown` request without timeout_ms: the engine leaves in under a second, so do we. */
export const SHUTDOWN_DRAIN_MS = 500;
/** After stdin's end tasks finish by their own deadlines; this only bounds what a day-long timeout_ms could do. */
export const EOF_DRAIN_MS_MAX = 30_000;

const PLANS: Record<LeaveReason, Plan> = {
  shutdown_request: { drainMs: SHUTDOWN_DRAIN_MS, flushMs: 1_000, exitCode: EXIT_ASKED },
  stdin_end: { drainMs: EOF_DRAIN_MS_MAX, flushMs: 5_000, exitCode: EXIT_ASKED },
  signal: { drainMs: 100, flushMs: 300, exitCode: EXIT_ASKED },
  parent_gone: { drainMs: 0, flushMs: 0, exitCode: EXIT_ASKED },
  stdout_gone: { drainMs: 0, flushMs: 0, exitCode: EXIT_READER_GONE },
  fatal_error: { drainMs: 0, flushMs: 300, exitCode: EXIT_FATAL },
};
/** The last log lines. */
const LOG_FLUSH_MS = 50;
/** Beside the bounds above, for the loop itself being late. */
const WATCHDOG_SLACK_MS = 500;

export type Leave = (reason: LeaveReason, detail?: { drainMs?: number; [field: string]: unknown }) => void;

export interface LeaveDeps {
  /** Null until there is one: a signal may come first. */
  service(): Pick<Service, 'drain' | 'outstanding'> | null;
  writer: Pick<LineWriter, 'flush'>;
  log: StderrLog;
  native: Pick<Native, 'hardExit'>;
  /** Called once, first of all; waited for by nobody. */
  leaving?(): void;
}

export function createLeave({ service, writer, log, native, leaving: begun }: LeaveDeps): Leave {
  let leaving: LeaveReason | null = null;
  let atOnce = false;

  return function leave(reason, detail = {}) {
    const plan = PLANS[reason];
    const drainMs = detail.drainMs ?? plan.drainMs;
    if (leaving !== null) {
      // Asked again while leaving: a second signal, a pipe that broke meanwhile, a parent that is gone.
      // The patient ways are cut short; a fault on the way out ends it here.
      if (reason === 'fatal_error' && leaving === 'fatal_error') native.hardExit(EXIT_FATAL);
      const patient = reason === 'stdin_end' || reason === 'shutdown_request';
      if (patient || atOnce) return;
      atOnce = true;
      log.info('leaving_at_once', { reason, after: leaving, ...detail });
      const exitCode = reason === 'fatal_error' ? EXIT_FATAL : PLANS[leaving].exitCode;
      log.flush(LOG_FLUSH_MS, () => native.hardExit(exitCode));
      return;
    }
    leaving = reason;
    begun?.();
    const level = plan.exitCode === EXIT_ASKED ? 'info' : 'error';
    log[level]('leaving', { reason, outstanding: service()?.outstanding() ?? 0, ...detail });

    // Holds the loop open, and ends it should any step not come back.
    setTimeout(() => native.hardExit(plan.exitCode), drainMs + plan.flushMs + LOG_FLUSH_MS + WATCHDOG_SLACK_MS);
    drain(service(), drainMs, () =>
      writer.flush(plan.flushMs, () => log.flush(LOG_FLUSH_MS, () => native.hardExit(plan.exitCode))),
    );
  };

  function drain(from: ReturnType<LeaveDeps['service']>, drainMs: number, done: () => void): void {
    if (from === null) return done();
    try {
      from.drain(drainMs, done);
    } catch (error) {
      log.error('drain_failed', { error });
      done();
    }
  }
}
