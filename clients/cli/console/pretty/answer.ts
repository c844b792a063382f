// answer.ts — an answer as a person wants to read it: what became of it, how long it took, and of each block what went wrong.
import { CODE_TABLE } from '../../../../protocol/messages.ts';
import type { Code, ErrorBody, FailedEntry, InlineBlock, StuckEntry } from '../../../../protocol/messages.ts';
import { harmless } from '../../text/colour.ts';
import type { Colours } from '../../text/colour.ts';
import { columns } from '../../text/table.ts';
import { count, duration, ranges, size } from '../../text/units.ts';
import type { Asked } from '../asked.ts';
import { keysOf } from '../recent_keys.ts';
import { USAGE } from '../shorthand.ts';
import { placeOfFault, underlined } from './fault.ts';
import { tree } from './tree.ts';

export interface Page {
  c: Colours;
  width: number;
  /** CLOCK_MONOTONIC, of both. */
  nowUs: number;
}

type Message = Record<string, unknown>;
/** Of one list; then the number of those that are left. */
const ROWS_MAX = 40;
const TEXT_SHOWN = 200;

/** `tookMs` null: nobody here asked for it. */
export function answerLines(message: Message, asked: Asked | null, tookMs: number | null, page: Page): string[] {
  const { c } = page;
  const time = tookMs === null ? '' : c.dim(` (${duration(tookMs)})`);
  const head = `${c.bold(`#${harmless(String(message['id'] ?? '?'))}`)} `;
  const error = message['error'] as ErrorBody | undefined;
  if (error !== undefined) return [...refusal(error, message, asked, page, `${head}`, time)];
  const [first = '', ...others] = body(message, asked, page);
  return [`${head}${first}${time}`, ...others];
}

function body(message: Message, asked: Asked | null, page: Page): string[] {
  const { c } = page;
  const keys = asked?.request ? keysOf(asked.request) : [];
  if (typeof message['done'] === 'number') return blocks(message, asked, keys, page);
  if (Array.isArray(message['present'])) return present(message['present'] as (boolean | null)[], keys, page);
  if (Array.isArray(message['stuck'])) return stuck(message['stuck'] as StuckEntry[], page);
  if (message['stats'] !== undefined) return [c.good('ok'), ...tree(message['stats'], c, page.nowUs)];
  if (message['help'] !== undefined) return help(message['help'] as Message, page);
  if (message['key_namespace'] !== undefined) return namespace(message, page);
  if (typeof message['state'] === 'string') return [message['state'] === 'cancelled' ? c.good('cancelled') : harmless(message['state'].replaceAll('_', ' '))];
  if (message['now_us'] !== undefined) return [c.good('pong')];
  const { id: _id, ok, ...rest } = message;
  return [ok === true ? c.good('ok') : c.bad('not ok'), ...tree(rest, c, page.nowUs)];
}

const VERBS: Record<string, string> = { store: 'stored', load: 'loaded', remove: 'removed' };

function blocks(message: Message, asked: Asked | null, keys: readonly string[], page: Page): string[] {
  const { c } = page;
  const failed = (message['failed'] ?? []) as FailedEntry[];
  const done = message['done'] as number;
  const verb = VERBS[asked?.op ?? ''] ?? 'done';
  const kept = message['kept'] as number | undefined;
  const all = keys.length > 0 && failed.length > 0 ? ` of ${keys.length}` : '';
  const said = `${verb} ${done}${all} ${keys.length === 1 || (all === '' && done === 1) ? 'block' : 'blocks'}${kept ? `, ${kept} of them ${kept === 1 ? 'was' : 'were'} there already` : ''}`;
  const inline = ((message['blocks'] ?? []) as InlineBlock[]).map((block) => [c.key(keyOf(keys, block.block)), size(block.bytes), contents(block, c)]);
  return [message['ok'] === true ? c.good(said) : c.bad(said), ...columns(inline), ...failures(failed, keys, page)];
}

function contents(block: InlineBlock, c: Colours): string {
  const text = block.text === undefined ? `base64 ${block.base64 ?? ''}` : JSON.stringify(block.text);
  return harmless(text.length > TEXT_SHOWN ? `${text.slice(0, TEXT_SHOWN)}${c.dim('…')}` : text);
}

function failures(failed: readonly FailedEntry[], keys: readonly string[], { c }: Page): string[] {
  const rows: string[][] = [];
  for (const entry of failed.slice(0, ROWS_MAX)) {
    const which = entry.block === undefined ? (entry.blocks ?? []) : [[entry.block, entry.block]];
    const [first = 0, last = first] = which[0] ?? [];
    const single = which.length === 1 && first === last;
    const label = single ? c.key(keyOf(keys, first)) : `blocks ${which.map(([a, b]) => (a === b ? `${a}` : `${a}-${b}`)).join(', ')}`;
    const details = [
      entry.errno,
      entry.phase === undefined ? undefined : `in ${entry.phase}${entry.waited_ms === undefined ? '' : ` after ${duration(entry.waited_ms)}`}`,
      entry.outcome === 'unknown' ? c.warn('outcome unknown') : undefined,
      entry.slot === 'quarantined' ? c.warn('slot quarantined') : undefined,
      entry.stored_bytes === undefined ? undefined : `it has ${size(entry.stored_bytes)}`,
      entry.message === undefined ? undefined : harmless(entry.message),
    ].filter((one) => one !== undefined);
    rows.push([label, c.bad(entry.code), details.join(', ')]);
  }
  const codes = [...new Set(failed.map((entry) => entry.code))];
  const more = failed.length > ROWS_MAX ? [`  and ${failed.length - ROWS_MAX} more`] : [];
  return [...columns(rows), ...more, ...codes.flatMap((code) => advice(code, c, codes.length > 1))];
}

function advice(code: string, c: Colours, named: boolean): string[] {
  const known = CODE_TABLE[code as Code] as (typeof CODE_TABLE)[Code] | undefined;
  return known ? [c.dim(`  ${named ? `${code}: ` : ''}${known.next}`)] : [];
}

function present(answers: readonly (boolean | null)[], keys: readonly string[], { c }: Page): string[] {
  const there = answers.filter((one) => one === true).length;
  const unknown = answers.filter((one) => one === null).length;
  const said = `${there} of ${count(answers.length, 'block')} ${there === 1 ? 'is' : 'are'} there${unknown > 0 ? c.warn(`, ${unknown} not known in time`) : ''}`;
  const rows = answers.slice(0, ROWS_MAX).map((answer, i) => [c.key(keyOf(keys, i)), answer === null ? c.warn('not known') : answer ? c.good('present') : 'absent']);
  return [c.good(said), ...columns(rows), ...(answers.length > ROWS_MAX ? [`  and ${answers.length - ROWS_MAX} more`] : [])];
}

function stuck(calls: readonly StuckEntry[], { c }: Page): string[] {
  if (calls.length === 0) return [c.good('nothing is stuck')];
  const rows = calls.slice(0, ROWS_MAX).map((call) => [
    c.bad(duration(call.for_ms)),
    call.mount,
    call.class,
    `${call.phase} (${harmless(call.syscall)})`,
    `thread ${call.tid}`,
    c.key(harmless(call.key ?? call.kind ?? '')),
    [call.slot === undefined ? '' : `slot ${call.slot}`, call.settled ? 'answered already' : call.task === undefined ? '' : `task ${call.task}`].filter((one) => one !== '').join(', '),
  ]);
  return [c.bad(`${count(calls.length, 'call')} in the kernel, the longest for ${duration(Math.max(...calls.map((call) => call.for_ms)))}`), ...columns(rows)];
}

function namespace(message: Message, { c }: Page): string[] {
  const state = String(message['state']);
  const said = `${harmless(String(message['name']))} ${state}, generation ${String(message['generation'])}; write ${c.key(`${harmless(String(message['key_namespace']))}/…`)} in keys`;
  return [state === 'differs' ? c.warn(said) : c.good(said), ...(state === 'differs' ? ['  stored is:', ...tree(message['fingerprint'], c, null, '    ')] : [])];
}

function help(help: Message, { c }: Page): string[] {
  const ops = (help['ops'] ?? {}) as Record<string, { does: string; type: string }>;
  const rows = Object.entries(ops).map(([op, { does }]) => [c.bold(USAGE[op as keyof typeof USAGE] ?? op), does]);
  const json = Object.values(ops)[0]?.type ?? '';
  return [
    c.good('ok'),
    ...rows.flatMap(([usage, does]) => [`  ${usage}`, `      ${does}`]),
    '',
    `  ${c.dim('as JSON:')} ${json}`,
    `  ${c.dim('times:')} ${String(help['times'] ?? '')}`,
    `  ${c.dim('key:')} ${String(help['key'] ?? '')}`,
    '',
    ...columns([
      [c.bold('.wire'), 'show the lines of the protocol too, or no more'],
      [c.bold('.raw'), 'show nothing but the lines of the protocol, or answers in words again'],
      [c.bold('.quit'), 'leave, as ctrl-D does; ctrl-C clears the line, or cancels what is not answered'],
    ]),
  ];
}

function refusal(error: ErrorBody, message: Message, asked: Asked | null, page: Page, head: string, time: string): string[] {
  const { c } = page;
  // What the caret shows need not be repeated.
  const said = harmless(error.message.replace(/^line \d+: /, '').replace(/^not JSON at character \d+: (.*?), in '.*$/s, 'not JSON: $1'));
  const again = message['duplicate_of'] === undefined ? '' : `; ${String(message['duplicate_of'])} is not answered yet`;
  const place = asked === null ? null : placeOfFault(error.message, asked.typed, asked.spans);
  const under = place === null || asked === null ? [] : underlined(asked.typed, place, page.width, c);
  return [...under, `${message['id'] === null ? '' : head}${c.bad(error.code)}${error.errno === undefined ? '' : ` ${error.errno}`}${time}: ${said}${again}`, ...(error.code === 'INVALID_REQUEST' || error.code === 'UNKNOWN_OP' ? [] : advice(error.code, c, false))];
}

function keyOf(keys: readonly string[], block: number): string {
  return harmless(keys[block] ?? `block ${block}`);
}

/** For events: which slots. */
export function slotsText(slots: readonly number[]): string {
  return `${slots.length === 1 ? 'slot' : 'slots'} ${ranges(slots)}`;
}
