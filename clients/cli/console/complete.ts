// complete.ts — what the tab key offers: requests, their fields, mounts, and keys that were used lately.
import { OPS } from '../../../protocol/messages.ts';
import { scanJson, unquoted } from './json_scan.ts';
import type { Cursor } from './json_scan.ts';
import { fieldsOf, isOp } from './schema.ts';
import type { FieldSpec } from './schema.ts';
import { wordsOf } from './words.ts';

export interface Known {
  mounts: readonly string[];
  /** Whole keys, the latest first. */
  keys: readonly string[];
  /** Ids of requests that are not answered. */
  tasks: readonly (number | string)[];
  /** What the console itself understands. */
  commands: readonly string[];
}

export interface Offer {
  hits: string[];
  /** The end of the line that each of them replaces. */
  word: string;
}

/** More than a screen helps nobody. */
const KEYS_MAX = 40;
/** Named only where they are asked for: keys stand without a name, the console has ids, and nobody types a clock. */
const SELDOM = new Set(['op', 'id', 'deadline_us', 'keys', 'blocks', 'name', 'fingerprint', 'task']);

export function complete(line: string, known: Known): Offer {
  return /^\s*[{[]/.test(line) ? inJson(line, known) : inWords(line, known);
}

function inWords(line: string, known: Known): Offer {
  const words = wordsOf(line);
  const last = words.at(-1);
  const word = last !== undefined && last.end === line.length ? last.text : '';
  const place = words.length - (word === '' ? 0 : 1);
  const starting = (all: readonly string[]): Offer => ({ hits: all.filter((one) => one.startsWith(word)), word });
  if (place === 0) return starting([...OPS.map((op) => `${op} `), ...known.commands]);
  const op = words[0]!.text.toLowerCase();
  if (!isOp(op) || last?.open) return { hits: [], word };
  const fields = fieldsOf(op);
  const [, name, value] = /^([a-z_]+)=(.*)$/.exec(word) ?? [];
  if (name !== undefined) {
    const field = fields.find((one) => one.name === name);
    const hits = field ? valuesOf(field, known, value!).map((one) => `${name}=${one} `) : [];
    return { hits: hits.filter((one) => one.startsWith(word)), word };
  }
  const used = words.map((one) => /^([a-z_]+)=/.exec(one.text)?.[1]);
  const names = fields.map((field) => field.name).filter((one) => !SELDOM.has(one) && !used.includes(one)).map((one) => `${one}=`);
  const takesKeys = fields.some((field) => field.name === 'keys');
  const keys = takesKeys && (op !== 'store' || place % 2 === 1) ? keysFor(known, null, word).map((key) => `${key} `) : [];
  const tasks = op === 'cancel' && place === 1 ? known.tasks.map(String) : [];
  return starting([...keys, ...tasks, ...names]);
}

function inJson(line: string, known: Known): Offer {
  const { cursor, values } = scanJson(line);
  const { word } = cursor;
  const typed = word.startsWith('"') ? word : `"${word}`;
  const text = (path: string): string | null => {
    const at = values.get(path);
    return at === undefined ? null : unquoted(line.slice(at.start, at.end));
  };
  const op = text('op');
  if (cursor.at === 'name') {
    const names = isOp(op) ? fieldsIn(fieldsOf(op), cursor.container).map((field) => field.name) : cursor.container === '' ? ['op', 'id'] : [];
    const left = names.filter((name) => !cursor.taken.includes(name));
    return { hits: left.map((name) => `"${name}":`).filter((hit) => hit.startsWith(typed)), word };
  }
  if (cursor.at !== 'value') return { hits: [], word };
  const field = fieldAt(op, cursor);
  if (field === null) return { hits: [], word };
  if (field.kind === 'array') return { hits: word === '' ? ['['] : [], word };
  if (field.kind === 'object') return { hits: word === '' ? ['{'] : [], word };
  const bare = field.kind === 'boolean' || field.kind === 'integer';
  const namespace = cursor.container === 'keys' ? text('namespace') : null;
  const started = bare ? word : unquoted(typed);
  const hits = field.names === 'key' ? keysFor(known, namespace, started) : valuesOf(field, known, started);
  return { hits: hits.map((one) => (bare ? one : `"${one}"`)).filter((hit) => hit.startsWith(bare ? word : typed)), word };
}

function fieldAt(op: string | null, { container, name }: Cursor): FieldSpec | null {
  if (container === '' && name === 'op') return fieldsOf('ping').find((field) => field.name === 'op')!;
  if (!isOp(op)) return null;
  const fields = fieldsIn(fieldsOf(op), container);
  if (name !== null) return fields.find((field) => field.name === name) ?? null;
  const array = fieldsOf(op).find((field) => field.name === container);
  if (array?.entry == null) return null;
  return array.entry.fields.length > 0 ? { ...array.entry, kind: 'object' } : array.entry;
}

/** '' → the request's own fields, 'blocks[2]' → those of a block. */
function fieldsIn(fields: readonly FieldSpec[], container: string): readonly FieldSpec[] {
  if (container === '') return fields;
  const outer = /^([a-z_]+)\[\d+\]$/.exec(container)?.[1];
  return fields.find((field) => field.name === outer)?.fields ?? [];
}

function valuesOf(field: FieldSpec, known: Known, started: string): readonly string[] {
  const of = field.kind === 'array' ? field.entry! : field;
  switch (of.names) {
    case 'mount':
      return known.mounts;
    case 'key':
      return keysFor(known, null, started);
    case 'namespace':
      return [...new Set(known.keys.map((key) => key.slice(0, key.indexOf('/'))))];
    case 'task':
      return known.tasks.map(String);
    default:
      return of.values;
  }
}

function keysFor(known: Known, namespace: string | null, started: string): string[] {
  const keys = namespace === null ? known.keys : known.keys.filter((key) => key.startsWith(`${namespace}/`)).map((key) => key.slice(namespace.length + 1));
  return keys.filter((key) => key.startsWith(started)).slice(0, KEYS_MAX);
}
