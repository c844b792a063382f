// report.ts — what a replay found, for people and for programs.
import { harmless } from '../text/colour.ts';
import type { Colours } from '../text/colour.ts';
import { count, duration } from '../text/units.ts';
import { differences, eventWords, readyDifferences, timeless, unlike } from './compare.ts';
import type { Roots } from './compare.ts';
import type { Played } from './play.ts';
import type { Life } from '../record/format.ts';
import { keysOf } from '../console/recent_keys.ts';

export interface LifeReport {
  life: number;
  began: string;
  requests: number;
  /** Answered in both, and alike. */
  alike: number;
  /** Never answered in the record: nothing to compare. */
  unanswered: number;
  differ: { line: number; at_ms: number; op: string; id: number | string | null; keys: string[]; what: string[] }[];
  /** Of the sidecar as a whole. */
  also: string[];
  notes: string[];
  took_ms: { recorded: number; replayed: number };
  median_ms: { recorded: number; replayed: number };
}

/** Of the client's reading end having gone: the replay reads to the end. */
const EXIT_READER_GONE = 74;
const SHOWN_MAX = 50;
/** More than one reads one by one. */
const MANY = 5;

export function reportOf(life: Life, played: Played, roots: Roots): LifeReport {
  const differ: LifeReport['differ'] = [];
  const also: string[] = [];
  const notes: string[] = [];
  let alike = 0;
  let unanswered = 0;
  for (const line of played.lines) {
    const recorded = played.recorded.get(line);
    const replayed = played.replayed.get(line);
    if (recorded === undefined) {
      if (replayed === undefined) continue; // an empty line
      unanswered += 1;
      continue;
    }
    const what = differences(line.op, recorded.message, replayed?.message ?? null, roots);
    if (what.length === 0) alike += 1;
    else differ.push({ line: line.number, at_ms: line.entry.at_us / 1000, op: line.op, id: line.id, keys: line.request === null ? [] : keysOf(line.request), what });
  }

  const recordedReady = life.entries.find((entry) => entry.message?.['event'] === 'ready')?.message;
  if (recordedReady !== undefined && played.ready !== null) {
    const found = readyDifferences(recordedReady, played.ready);
    also.push(...found.differ.map((one) => `ready, ${one}`));
    notes.push(...found.notes);
  }
  const words = (messages: readonly Record<string, unknown>[], names: ReadonlyMap<string, string>): string[] => messages.map((message) => eventWords(message, names)).filter((one) => one !== null);
  for (const { only, what, times } of unlike(words(played.events.recorded, roots.recorded), words(played.events.replayed, roots.replayed))) {
    also.push(`${what} (${times === 1 ? 'once' : `${times} times`} more ${only === 'recorded' ? 'in the record' : 'now'})`);
  }
  const strays = unlike(played.strays.recorded.map((one) => timeless(JSON.stringify(one), roots.recorded)), played.strays.replayed.map((one) => timeless(JSON.stringify(one), roots.replayed)));
  also.push(...strays.map(({ only, what }) => `answered what nobody asked, ${only === 'recorded' ? 'in the record' : 'now'}: ${what}`));

  const exit = life.entries.find((entry) => entry.exit !== undefined)?.exit;
  if (played.gone !== null) also.push(`the sidecar ended before its time: ${played.gone}`);
  else if (exit != null && exit.signal === null && exit.code !== EXIT_READER_GONE && exit.code !== (played.exit?.code ?? null)) also.push(`exit status: ${exit.code} → ${played.exit === null ? 'it does not leave' : (played.exit.code ?? played.exit.signal)}`);

  for (const { lost } of life.entries.filter((entry) => entry.lost !== undefined)) notes.push(`the record lacks ${lost!.bytes} bytes of what the ${lost!.of} said`);
  if (life.entries.some((entry) => entry.cut_bytes !== undefined)) notes.push('lines of the record were cut');
  if (life.entries.some((entry) => entry.full)) notes.push('the record ends where it reached its limit');
  if (exit === undefined) notes.push('the record has no end: the recorder was killed, or its file took no more');

  const last = life.entries.at(-1)?.at_us ?? 0;
  return {
    life: life.head.life,
    began: life.head.began,
    requests: played.lines.length,
    alike,
    unanswered,
    differ,
    also,
    notes,
    took_ms: { recorded: last / 1000, replayed: played.tookMs },
    median_ms: { recorded: median([...played.recorded.values()].map((one) => one.tookUs)), replayed: median([...played.replayed.values()].map((one) => one.tookUs)) },
  };
}

export function isAlike(report: LifeReport): boolean {
  return report.differ.length === 0 && report.also.length === 0;
}

export function reportLines(report: LifeReport, c: Colours, which: string): string[] {
  const { recorded, replayed } = report.took_ms;
  const found = isAlike(report)
    ? c.good(`${count(report.alike, 'answer')} as recorded`)
    : c.bad(`${count(report.differ.length, 'answer')} of ${report.alike + report.differ.length} ${report.differ.length === 1 ? 'differs' : 'differ'}${report.also.length > 0 ? `, and ${count(report.also.length, 'thing')} besides` : ''}`);
  const lines = [
    `${which}${found}`,
    c.dim(`  ${count(report.requests, 'line')} in ${duration(replayed)} (recorded: ${duration(recorded)}); the median answer took ${duration(report.median_ms.replayed)} (recorded: ${duration(report.median_ms.recorded)})${report.unanswered > 0 ? `; ${report.unanswered} were never answered in the record` : ''}`),
  ];
  if (report.differ.length > MANY) lines.push(...changes(report).map((one) => `  ${harmless(one)}`));
  for (const { line, at_ms: atMs, op, id, keys, what } of report.differ.slice(0, SHOWN_MAX)) {
    const named = keys.length === 0 ? '' : ` ${c.key(harmless(keys[0]!))}${keys.length > 1 ? ` and ${keys.length - 1} more` : ''}`;
    lines.push(`  line ${line}, at ${duration(atMs)}: ${c.bold(harmless(op === '' ? 'no request' : op))}${id === null ? '' : ` #${harmless(String(id))}`}${named}`);
    lines.push(...what.slice(0, 8).map((one) => `    ${harmless(one)}`), ...(what.length > 8 ? [`    and ${what.length - 8} more`] : []));
  }
  if (report.differ.length > SHOWN_MAX) lines.push(`  and ${report.differ.length - SHOWN_MAX} more`);
  lines.push(...report.also.map((one) => `  ${harmless(one)}`), ...report.notes.map((one) => c.dim(`  (${harmless(one)})`)));
  return lines;
}

/** Many differences have few causes: what became what, the most frequent first. */
export function changes(report: LifeReport): string[] {
  const times = new Map<string, number>();
  for (const { what } of report.differ) {
    for (const one of new Set(what.map((clause) => clause.replace(/^(block|present)[ [](\d+)\]?/, '$1')).filter((clause) => !/^(ok|done|prefix|complete|kept):/.test(clause)))) {
      times.set(one, (times.get(one) ?? 0) + 1);
    }
  }
  return [...times]
    .filter(([, n]) => n > 1)
    .sort(([, a], [, b]) => b - a)
    .slice(0, 5)
    .map(([what, n]) => `${n} times ${what}`);
}

function median(us: number[]): number {
  if (us.length === 0) return 0;
  return us.sort((a, b) => a - b)[Math.floor(us.length / 2)]! / 1000;
}
