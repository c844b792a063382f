// tree.ts — any JSON as indented lines, with units: a field that ends in _ms, _us or _bytes is said as people say it.
import type { Colours } from '../../text/colour.ts';
import { harmless } from '../../text/colour.ts';
import { columns } from '../../text/table.ts';
import { duration, size } from '../../text/units.ts';

/** `nowUs`: what since_us and the like are counted from. */
export function tree(value: unknown, c: Colours, nowUs: number | null, indent = '  '): string[] {
  if (Array.isArray(value)) return value.flatMap((entry) => entryLines(entry, c, nowUs, indent));
  if (typeof value !== 'object' || value === null) return [`${indent}${scalar('', value, c, nowUs)}`];
  return Object.entries(value).flatMap(([name, inside]) => {
    const label = harmless(name);
    if (typeof inside !== 'object' || inside === null) return [`${indent}${c.dim(`${bare(label)}:`)} ${scalar(label, inside, c, nowUs)}`];
    const empty = Object.keys(inside).length === 0;
    if (empty) return [`${indent}${c.dim(`${bare(label)}:`)} none`];
    const rows = rowsOf(inside, c, nowUs);
    if (rows !== null) return [`${indent}${c.dim(`${bare(label)}:`)}`, ...columns(rows, `${indent}  `)];
    const flat = flatly(inside, c, nowUs);
    if (flat !== null && indent.length + label.length + flat.length < 110) return [`${indent}${c.dim(`${bare(label)}:`)} ${flat}`];
    return [`${indent}${c.dim(`${bare(label)}:`)}`, ...tree(inside, c, nowUs, `${indent}  `)];
  });
}

function entryLines(entry: unknown, c: Colours, nowUs: number | null, indent: string): string[] {
  const [first = '', ...others] = tree(entry, c, nowUs, '');
  return [`${indent}- ${first}`, ...others.map((line) => `${indent}  ${line}`)];
}

/** Things of one kind, such as the classes of a device: a table with a row each. */
function rowsOf(value: object, c: Colours, nowUs: number | null): string[][] | null {
  const entries = Object.entries(value) as [string, Record<string, unknown>][];
  if (Array.isArray(value) || entries.length < 2) return null;
  if (entries.some(([, one]) => typeof one !== 'object' || one === null || Array.isArray(one) || Object.values(one).some((inside) => typeof inside === 'object' && inside !== null))) return null;
  const names = [...new Set(entries.flatMap(([, one]) => Object.keys(one)))];
  if (names.length < 2 || names.length > 16) return null;
  const shown = names.filter((name) => name !== 'reason'); // a sentence each: below
  const rows = entries.map(([name, one]) => [harmless(name), ...shown.map((field) => (one[field] === undefined ? '' : scalar(field, one[field], c, nowUs)))]);
  const reasons = entries.filter(([, one]) => one['reason'] !== undefined).map(([name, one]) => [harmless(name), harmless(String(one['reason']))]);
  const heads = ['', ...shown.map((name) => bare(harmless(name)))];
  const wide = heads.reduce((sum, head) => sum + head.length + 2, 0) > TABLE_CHARS_MAX;
  const table = [heads.map(c.dim), ...rows];
  return [...(wide ? turned(table) : table), ...reasons];
}

/** What does not fit a line so stands the other way. */
const TABLE_CHARS_MAX = 80;

function turned(rows: readonly string[][]): string[][] {
  return rows[0]!.map((_, column) => rows.map((row) => row[column]!));
}

/** A few plain fields fit one line. */
function flatly(value: object, c: Colours, nowUs: number | null): string | null {
  const entries = Object.entries(value);
  if (Array.isArray(value)) return value.length <= 16 && value.every((one) => typeof one !== 'object' || one === null) ? value.map((one) => scalar('', one, c, nowUs)).join(', ') : null;
  if (entries.length > 7 || entries.some(([, inside]) => typeof inside === 'object' && inside !== null)) return null;
  return entries.map(([name, inside]) => `${c.dim(bare(harmless(name)))} ${scalar(name, inside, c, nowUs)}`).join(', ');
}

/** The unit is said with the value. */
function bare(name: string): string {
  return name.replace(/_(ms|us|bytes)(?=_ago$|$)/, '').replaceAll('_', ' ');
}

export function scalar(name: string, value: unknown, c: Colours, nowUs: number | null): string {
  if (typeof value === 'number') {
    if (/_ms(_ago)?$/.test(name)) return duration(value);
    if (name.endsWith('_us')) return nowUs === null ? `${value} us` : value <= nowUs ? `${duration((nowUs - value) / 1000)} ago` : `in ${duration((value - nowUs) / 1000)}`;
    if (name === 'bytes' || name.endsWith('_bytes')) return size(value);
    return String(value);
  }
  if (value === null) return c.dim('not known');
  if (typeof value === 'boolean') return value ? 'yes' : 'no';
  if (name === 'state' || name === 'load' || name === 'store' || name === 'metadata') return stateWord(String(value), c);
  return harmless(String(value));
}

export function stateWord(state: string, c: Colours): string {
  return state === 'ok' ? c.good(state) : state === 'suspended' ? c.bad(state) : state === 'probing' ? c.warn(state) : harmless(state);
}
