// once.ts — one picture for pipes: as text, and as JSON with the numbers of the text and those behind them.
import { viewOf } from './model.ts';
import { rowsOf } from './paint.ts';
import { plain } from './screen.ts';
import type { Watched } from './watcher.ts';

/** Wide enough for names; nobody cuts it. */
const COLUMNS = 98;

export function asText(watched: readonly Watched[]): string {
  return `${rowsOf(watched, COLUMNS).map(plain).join('\n')}\n`;
}

export function asJson(watched: readonly Watched[]): string {
  const sidecars = watched.map(({ found, look, before, places }) => {
    if (look === null || !look.up) return { pid: found.pid, socket: found.path, answers: false, trouble: look?.trouble ?? 'mute', reason: look?.reason ?? 'no answer yet' };
    const { hello, stats, stuck, more } = look;
    const view = viewOf(look, before);
    return {
      pid: hello.pid,
      socket: found.path,
      answers: true,
      version: hello.version,
      engine: hello.engine,
      uptime_ms: stats.uptime_ms,
      interval_ms: Math.round(view.seconds * 1000),
      cpu_percent: view.cpu_percent,
      resident_bytes: stats.process?.resident_bytes ?? null,
      slots: stats.slots,
      outstanding: stats.outstanding,
      requests: view.ops,
      classes: view.classes.map(({ figures, ...row }) => {
        const { kernel_time: _time, ...rest } = figures;
        return { ...row, ...rest };
      }),
      mounts: stats.mounts,
      calls: stuck.map((call) => ({ ...call, late: call.settled || call.for_ms >= hello.stall_ms, kernel: places.get(call.tid)?.frames ?? [] })),
      calls_not_listed: more,
    };
  });
  return `${JSON.stringify({ at: new Date().toISOString(), sidecars }, (_key, value: unknown) => (value === Infinity ? 'above' : value), 2)}\n`;
}
