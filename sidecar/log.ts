// log.ts — what happens, one line each on stderr: JSON for machines, readable on a terminal.
//
// A log must never be what stops the sidecar: a full stderr drops lines and counts them, the same
// event over and over is cut to a few lines and a count, and no call throws or waits.
import type { ByteSink } from './byte_sink.ts';
import { uptimeMs } from './clock.ts';
import type { Log } from './service_types.ts';

export type { Log } from './service_types.ts';

export interface StderrLog extends Log {
  /** A line for the person at the terminal, without time and level. */
  say(text: string): void;
  /** Calls `done` once: when all is written or after `flushMs`. */
  flush(flushMs: number, done: () => void): void;
}

export interface LogOptions {
  sink: ByteSink;
  /** Readable lines instead of JSON. */
  terminal: boolean;
  pendingBytesMax?: number;
  /** Measures the windows of the rate limit; monotonic, since a clock set back would silence a key. */
  nowMs?: () => number;
}

type Level = 'info' | 'warn' | 'error';

/** What may wait while stderr is full. A healthy reader never lets more than a few lines wait. */
export const LOG_PENDING_BYTES_MAX = 256 * 1024;
/** One line: a long list in it is of no use to a reader of logs. */
const LINE_CHARS_MAX = 4_096;
/** Of one key (event, mount, class) in one window. */
export const LOG_BURST_MAX = 5;
export const LOG_WINDOW_MS = 10_000;
/** Keys remembered; past it the windows are forgotten, which costs a few more lines. */
const KEYS_MAX = 256;

interface Window {
  openedMs: number;
  lines: number;
  suppressed: number;
  level: Level;
}

export function createLog(options: LogOptions): StderrLog {
  const { sink, terminal } = options;
  const pendingBytesMax = options.pendingBytesMax ?? LOG_PENDING_BYTES_MAX;
  const nowMs = options.nowMs ?? uptimeMs;
  const windows = new Map<string, Window>();
  const flushers = new Set<() => void>();
  let pending = '';
  let pendingBytes = 0;
  let writing = false;
  let dropped = 0;
  let gone = false;
  let sweep: NodeJS.Timeout | null = null;

  function pump(): void {
    if (writing || gone) return;
    if (dropped > 0) {
      const count = dropped;
      dropped = 0;
      pending += format('warn', 'log_dropped', { lines: count, reason: 'stderr is not read fast enough' });
    }
    if (pending === '') {
      for (const done of [...flushers]) done();
      return;
    }
    const text = pending;
    pending = '';
    pendingBytes = 0;
    writing = true;
    sink.write(text, (error) => {
      writing = false;
      if (error) {
        gone = true; // nobody to tell
        pending = '';
      }
      if (gone) for (const done of [...flushers]) done();
      else pump();
    });
  }

  function put(text: string): void {
    if (gone) return;
    const bytes = Buffer.byteLength(text);
    if (pendingBytes + bytes > pendingBytesMax) {
      dropped += 1;
      return;
    }
    pending += text;
    pendingBytes += bytes;
    pump();
  }

  function format(level: Level, event: string, fields: object | undefined): string {
    const time = new Date();
    if (!terminal) {
      const head = { time: time.toISOString(), level, event };
      const line = safeJson({ ...head, ...fields }) ?? JSON.stringify({ ...head, fields: '(not JSON)' });
      if (line.length <= LINE_CHARS_MAX) return `${line}\n`;
      return `${JSON.stringify({ ...head, cut: line.slice(0, LINE_CHARS_MAX) })}\n`;
    }
    const words = Object.entries(fields ?? {})
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${typeof value === 'string' ? printable(value) : (safeJson(value) ?? '(not JSON)')}`);
    const line = [time.toISOString().slice(11, 23), level.padEnd(5), event.replaceAll('_', ' '), ...words].join(' ');
    return `${line.slice(0, LINE_CHARS_MAX)}\n`;
  }

  function write(level: Level, event: string, fields: object | undefined): void {
    const named = (fields ?? {}) as { mount?: unknown; class?: unknown };
    const key = `${event}\n${String(named.mount ?? '')}\n${String(named.class ?? '')}`;
    const now = nowMs();
    let window = windows.get(key);
    if (window !== undefined && now - window.openedMs >= LOG_WINDOW_MS) {
      close(key, window);
      window = undefined;
    }
    if (window === undefined) {
      if (windows.size >= KEYS_MAX) closeAll(true);
      window = { openedMs: now, lines: 0, suppressed: 0, level };
      windows.set(key, window);
    }
    if (window.lines >= LOG_BURST_MAX) {
      window.suppressed += 1;
      // Runs only while a count waits to be said, so that an idle sidecar has no wake-ups.
      sweep ??= setTimeout(sweepNow, LOG_WINDOW_MS).unref();
      return;
    }
    window.lines += 1;
    put(format(level, event, fields));
  }

  function close(key: string, window: Window): void {
    windows.delete(key);
    if (window.suppressed === 0) return;
    const [event = '', mount, laneClass] = key.split('\n');
    put(
      format(window.level, 'suppressed', {
        of: event,
        ...(mount ? { mount } : {}),
        ...(laneClass ? { class: laneClass } : {}),
        lines: window.suppressed,
        window_ms: Math.round(nowMs() - window.openedMs),
      }),
    );
  }

  function closeAll(young: boolean): void {
    const now = nowMs();
    for (const [key, window] of windows) if (young || now - window.openedMs >= LOG_WINDOW_MS) close(key, window);
  }

  function sweepNow(): void {
    sweep = null;
    closeAll(false);
    for (const window of windows.values()) {
      if (window.suppressed === 0) continue;
      sweep = setTimeout(sweepNow, LOG_WINDOW_MS).unref();
      return;
    }
  }

  return {
    info: (event, fields) => write('info', event, fields),
    warn: (event, fields) => write('warn', event, fields),
    error: (event, fields) => write('error', event, fields),
    say: (text) => put(`${text}\n`),
    flush(flushMs, done) {
      closeAll(true);
      if (gone || (!writing && pending === '')) return done();
      const settle = (): void => {
        if (!flushers.delete(settle)) return;
        clearTimeout(timer);
        done();
      };
      const timer = setTimeout(settle, flushMs);
      flushers.add(settle);
    },
  };
}

function printable(text: string): string {
  return text.includes(' ') ? `"${text}"` : text;
}

/** Null where JSON has no word for it. */
function safeJson(value: unknown): string | null {
  try {
    // An error's own fields are not enumerable, and it is what one most wants to read.
    return JSON.stringify(value, (_name, field: unknown) => {
      if (field instanceof Error) return field.stack ?? field.message;
      return typeof field === 'bigint' ? String(field) : field;
    }) ?? null;
  } catch {
    return null;
  }
}
