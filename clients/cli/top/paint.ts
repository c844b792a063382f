// paint.ts — what is known of the sidecars → lines; plain text with marks for colour, which the screen may leave out.
import type { MountState, StuckEntry } from '../../../protocol/messages.ts';
import type { Line } from '../attached/connection.ts';
import type { Look } from '../attached/look.ts';
import { duration, rate, size } from '../text/units.ts';
import { viewOf, type View } from './model.ts';
import type { Watched } from './watcher.ts';

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow';
export interface Span {
  text: string;
  style?: Style;
}
export type Row = Span[];
type Up = Extract<Look, { up: true }>;

/** Lanes listed of one sidecar. */
const CALLS_MAX = 20;
const EVENTS_SHOWN = 5;
const BAR_CHARS = 16;

const span = (text: string, style?: Style): Span => (style === undefined ? { text } : { text, style });
const STATE_STYLES: Record<MountState, Style> = { ok: 'green', unknown: 'dim', probing: 'yellow', suspended: 'red' };

/** For this width, of 80 columns at least. */
export function rowsOf(watched: readonly Watched[], columns: number): Row[] {
  return watched.flatMap((one, index) => [...(index === 0 ? [] : [[]]), ...rowsOfOne(one, Math.min(NAME_CHARS_MAX, Math.max(NAME_CHARS_MIN, columns - 72)))]);
}

function rowsOfOne({ found, look, before, places, events }: Watched, nameChars: number): Row[] {
  if (look === null) return [[span(`sidecar ${found.pid}`, 'bold'), span('  asked, no answer yet', 'dim')]];
  if (!look.up) return [[span(`sidecar ${found.pid}`, 'bold'), span(`  ${TROUBLES[look.trouble]}`, 'red')], [span(` ${look.reason}`, 'dim')]];
  const view = viewOf(look, before);
  return [headOf(look, view), slotsOf(look), ...classRows(look, view, nameChars), ...opRows(view, nameChars), ...callRows(look, places), ...eventRows(events)];
}

const TROUBLES = {
  dead: 'has gone',
  mute: 'does not answer: it is stopped, or cannot run',
  shut: 'hung up: it has all the readers that it takes, or is just leaving',
  denied: 'may not be looked at by this user',
  odd: 'is no sidecar of this version',
} as const;

function headOf({ hello, stats }: Up, view: View): Row {
  const { process } = stats;
  return [
    span(`sidecar ${hello.pid}`, 'bold'),
    span(hello.parent_pid === undefined ? '' : ` of ${hello.parent_pid}`),
    span(`  up ${duration(stats.uptime_ms)}`),
    span(`  CPU ${view.cpu_percent === null ? '?' : `${view.cpu_percent.toFixed(1)} %`}`),
    span(`  memory ${process?.resident_bytes == null ? '?' : size(process.resident_bytes)}`),
    span(`  unanswered ${stats.outstanding}`),
    span(`  arena ${size(stats.arena.bytes)} ${stats.arena.backing}`),
    span(`  ${hello.engine ?? ''}  ${hello.version}`, 'dim'),
  ];
}

function slotsOf({ stats }: Up): Row {
  const { free, in_flight: inFlight, quarantined } = stats.slots;
  const all = Math.max(1, free + inFlight + quarantined);
  // At least one character for what there is at all.
  const chars = (count: number): number => (count === 0 ? 0 : Math.max(1, Math.round((BAR_CHARS * count) / all)));
  const held = Math.min(BAR_CHARS, chars(quarantined));
  const busy = Math.min(BAR_CHARS - held, chars(inFlight));
  return [
    span(' slots ['),
    span('!'.repeat(held), 'red'),
    span('#'.repeat(busy), 'green'),
    span('.'.repeat(BAR_CHARS - held - busy), 'dim'),
    span(`] free ${free}  in flight ${inFlight}  `),
    span(`quarantined ${quarantined}`, ...(quarantined > 0 ? (['red'] as const) : [])),
    span(`  back late ${stats.late_completions}`),
  ];
}

const NAME_CHARS_MIN = 8;
const NAME_CHARS_MAX = 24;

function classRows({ stats, hello }: Up, view: View, nameChars: number): Row[] {
  const rows: Row[] = [[span(` ${'MOUNT'.padEnd(nameChars)} ${'CLASS'.padEnd(8)} ${'STATE'.padEnd(10)}${cells(['IO/s', 'BYTES/s', 'p50', 'p99'])} ${'BUSY'.padStart(5)} STUCK QUEUE`, 'dim')]];
  for (const row of view.classes) {
    const { figures } = row;
    const known = stats.mounts.filter((mount) => mount.device === row.device);
    const state = known[0]?.classes[row.class] ?? figures.state;
    const busy = Math.min(figures.running, figures.lanes - figures.lanes_stuck);
    rows.push([
      span(` ${cut(row.mounts.join(','), nameChars).padEnd(nameChars)} ${row.class.padEnd(8)} `),
      span(state.padEnd(10), STATE_STYLES[state]),
      span(cells([rate(row.per_second), size(Math.round(row.bytes_per_second)), time(row.p50_ms), time(row.p99_ms)])),
      span(` ${`${busy}/${figures.lanes}`.padStart(5)} `),
      span(String(figures.lanes_stuck).padStart(5), ...(figures.lanes_stuck > 0 ? (['red'] as const) : [])),
      span(` ${String(figures.queued).padStart(5)}`),
    ]);
    if (figures.reason !== undefined) rows.push([span(` ${' '.repeat(nameChars)} for ${duration(figures.suspended_for_ms ?? 0)}: ${figures.reason}`, 'red')]);
  }
  for (const mount of stats.mounts) {
    if (mount.reason === undefined) continue;
    rows.push([span(` ${cut(mount.name, nameChars).padEnd(nameChars)} `), span(`${mount.code ?? 'refused'}: ${mount.reason}`, 'red')]);
  }
  for (const { name, capacity } of stats.mounts) {
    if (capacity === undefined) continue;
    const known = (bytes: number | null): string => (bytes === null ? '?' : size(bytes));
    const said = capacity.role === 'holder' ? `holds ${known(capacity.used_bytes)} of ${known(capacity.limit_bytes)}, ${capacity.evicted_blocks ?? 0} blocks evicted here` : `may hold ${known(capacity.limit_bytes)}`;
    rows.push([span(` ${cut(name, nameChars).padEnd(nameChars)} ${said}`), span(capacity.reason === undefined ? '' : `; ${capacity.reason}`, 'dim')]);
  }
  if (hello.mounts.length === 0) rows.push([span(' no mounts', 'dim')]);
  return rows;
}

function opRows(view: View, nameChars: number): Row[] {
  if (view.ops.length === 0) return [];
  const rows: Row[] = [[span(` ${'REQUEST'.padEnd(nameChars + 20)}${cells(['per s', 'not ok/s', 'p50', 'p99'])}  TOTAL`, 'dim')]];
  for (const { op, per_second, not_ok_per_second, p50_ms, p99_ms, total } of view.ops) {
    rows.push([span(` ${cut(op, nameChars + 20).padEnd(nameChars + 20)}${cells([rate(per_second), rate(not_ok_per_second), time(p50_ms), time(p99_ms)])}  ${total}`)]);
  }
  return rows;
}

function callRows({ stuck, more, hello }: Up, places: Watched['places']): Row[] {
  if (stuck.length === 0) return [[span(' no lane is in a call', 'dim')]];
  const late = (call: StuckEntry): boolean => call.settled || call.for_ms >= hello.stall_ms;
  const rows: Row[] = [[span(` ${'LANE'.padEnd(8)} ${'FOR'.padStart(11)}  ${'MOUNT'.padEnd(8)} ${'CLASS'.padEnd(8)} ${'DOES'.padEnd(9)} ${'PHASE'.padEnd(7)} ${'CALL'.padEnd(10)} KEY`, 'dim')]];
  for (const call of stuck.slice(0, CALLS_MAX)) {
    const stands = `${call.key ?? ''}${call.slot === undefined ? '' : `  slot ${call.slot}`}${call.settled ? '  given up' : ''}`;
    rows.push([
      span(` ${String(call.tid).padEnd(8)} `),
      span(duration(call.for_ms).padStart(11), ...(late(call) ? (['red'] as const) : [])),
      span(`  ${cut(call.mount, 8).padEnd(8)} ${call.class.padEnd(8)} ${cut(call.kind ?? '', 9).padEnd(9)} ${call.phase.padEnd(7)} ${cut(call.syscall, 10).padEnd(10)} ${stands}`),
    ]);
    const frames = places.get(call.tid)?.frames ?? [];
    if (late(call) && frames.length > 0) rows.push([span(` ${' '.repeat(22)}in the kernel: ${frames.join(' < ')}`, 'dim')]);
  }
  const left = stuck.length - CALLS_MAX + more;
  if (left > 0) rows.push([span(` and ${left} more`, 'dim')]);
  return rows;
}

function eventRows(events: Watched['events']): Row[] {
  return events.slice(-EVENTS_SHOWN).map(({ at, event }) => [span(` ${at.toTimeString().slice(0, 8)}  ${eventText(event)}`, 'dim')]);
}

function eventText(event: Line): string {
  const text = (name: string): string => String(event[name] ?? '');
  if (event['event'] === 'mount') return `${text('mount')} ${text('class')}: ${text('was')} -> ${text('state')}${text('reason') === '' ? '' : `, ${text('reason')}`}`;
  if (event['event'] === 'missed') return `${text('events')} events were too many to be read`;
  return `${text('event')}: ${text('mount')} ${text('class')} ${text('phase')} ${text('key')} after ${duration(Number(event['for_ms'] ?? 0))}`;
}

const time = (ms: number | null): string => (ms === null ? '-' : ms === Infinity ? '> 10 s' : duration(ms));
const CELLS = [6, 11, 8, 8];
const cells = (words: string[]): string => words.map((word, index) => word.padStart(CELLS[index]!)).join('');
const cut = (text: string, chars: number): string => (text.length > chars ? `${text.slice(0, chars - 1)}~` : text);
