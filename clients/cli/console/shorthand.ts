// shorthand.ts — `load demo/00ff timeout_ms=250` → the request it means, and which word each part of it came from.
//
// Only for hands: what goes to the sidecar is the protocol, and the console shows it.
import { OPS } from '../../../protocol/messages.ts';
import type { Op } from '../../../protocol/messages.ts';
import { nearest } from '../../../protocol/nearest.ts';
import type { Span } from './json_scan.ts';
import { fieldsOf, isOp } from './schema.ts';
import type { FieldSpec } from './schema.ts';
import { wordsOf } from './words.ts';
import type { Word } from './words.ts';

export interface Meant {
  ok: true;
  op: Op;
  /** Without an id. */
  fields: Record<string, unknown>;
  /** Path as messages write it → where it was typed. */
  spans: Map<string, Span>;
}
export interface Misread {
  ok: false;
  at: Span;
  message: string;
}

/** What stands without a name behind each op, for help. */
export const USAGE: Record<Op, string> = {
  store: 'store KEY TEXT [KEY TEXT…], or store KEY… slots=[N…] bytes=N',
  load: 'load KEY…, or load KEY… slots=[N…] bytes=N',
  lookup: 'lookup KEY…',
  remove: 'remove KEY…',
  namespace: 'namespace NAME FINGERPRINT [bump=true]',
  list: 'list PATH',
  verify: 'verify KEY…',
  sweep: 'sweep PATH inode=N changed_ns=N',
  cancel: 'cancel TASK',
  stats: 'stats',
  stuck: 'stuck',
  ping: 'ping',
  help: 'help',
  shutdown: 'shutdown [timeout_ms=N]',
};

class Misreading {
  readonly at: Span;
  readonly message: string;
  constructor(at: Span, message: string) {
    this.at = at;
    this.message = message;
  }
}

export function readShorthand(line: string): Meant | Misread {
  try {
    return read(line);
  } catch (error) {
    if (error instanceof Misreading) return { ok: false, at: error.at, message: error.message };
    throw error;
  }
}

function read(line: string): Meant {
  const [first, ...words] = wordsOf(line);
  if (first === undefined) throw new Misreading({ start: 0, end: line.length }, 'nothing to do');
  const op = first.text.toLowerCase();
  if (!isOp(op)) {
    const near = nearest(op, OPS);
    throw new Misreading(first, near ? `no such request; did you mean ${near}?` : `no such request; there are ${OPS.join(', ')}`);
  }
  const known = fieldsOf(op).filter((field) => field.name !== 'op');
  const meant: Meant = { ok: true, op, fields: {}, spans: new Map([['op', first]]) };
  const bare: Word[] = [];
  for (const word of words) {
    if (word.open) throw new Misreading({ start: word.start, end: word.end }, 'a quote or bracket is not closed');
    const named = /^([a-z_]+)=/.exec(word.text);
    const field = named && known.find((one) => one.name === named[1]);
    if (!named || (!field && bare.length > 0 && op === 'store')) bare.push(word); // text may hold an equals sign
    else if (!field) {
      const near = nearest(named[1]!, known.map((one) => one.name));
      throw new Misreading({ start: word.start, end: word.start + named[1]!.length }, `${op} has no field ${named[1]}${near ? `; did you mean ${near}?` : `; it takes ${known.map((one) => one.name).join(', ')}`}`);
    } else {
      const at = { start: word.start + named[0].length, end: word.end };
      put(meant, field.name, valueOf(word.text.slice(named[0].length), field, at), at);
    }
  }
  place(meant, bare, { start: line.trimEnd().length, end: line.trimEnd().length });
  return meant;
}

/** The words without a name. `after`: the end of the line, where something may be missing. */
function place(meant: Meant, bare: Word[], after: Span): void {
  const { op, fields, spans } = meant;
  const slots = fields['slots'] !== undefined;
  switch (op) {
    case 'store': {
      if (slots) return columns(meant, bare, after);
      if (bare.length === 0 && (fields['blocks'] ?? fields['keys']) !== undefined) return;
      if (bare.length === 0) throw new Misreading(after, `a key and a text are missing: ${USAGE.store}`);
      if (bare.length % 2 === 1) throw new Misreading(after, `the text of ${bare.at(-1)!.text} is missing; quote one that holds blanks: "like this"`);
      const blocks: object[] = [];
      for (let i = 0; i < bare.length; i += 2) {
        const [key, text] = [bare[i]!, bare[i + 1]!];
        spans.set(`blocks[${i / 2}].key`, key);
        spans.set(`blocks[${i / 2}].text`, text);
        blocks.push({ key: textOf(key), text: textOf(text) });
      }
      fields['blocks'] = blocks;
      return;
    }
    case 'load':
      if (bare.length === 0 && fields['blocks'] !== undefined) return;
      columns(meant, bare, after);
      if (!slots) fields['inline'] ??= true;
      return;
    case 'lookup':
    case 'remove':
    case 'verify':
      return columns(meant, bare, after);
    case 'namespace': {
      const [name, fingerprint, more] = bare;
      if (name !== undefined) put(meant, 'name', textOf(name), name);
      if (fingerprint !== undefined) put(meant, 'fingerprint', valueOf(fingerprint.text, fieldsOf(op).find((field) => field.name === 'fingerprint')!, fingerprint), fingerprint);
      if (fields['name'] === undefined) throw new Misreading(after, `a name is missing: ${USAGE.namespace}`);
      if (fields['fingerprint'] === undefined) throw new Misreading(after, `a fingerprint is missing, for example {"model":"tiny","dtype":"f16"}`);
      return tooMany(meant, more);
    }
    case 'cancel': {
      const [task, more] = bare;
      if (task !== undefined) put(meant, 'task', /^\d+$/.test(task.text) ? Number(task.text) : textOf(task), task);
      if (fields['task'] === undefined) throw new Misreading(after, 'which task? give the number of a request that is not answered yet');
      return tooMany(meant, more);
    }
    case 'list':
    case 'sweep': {
      const [path, more] = bare;
      if (path !== undefined) put(meant, 'path', textOf(path), path);
      if (fields['path'] === undefined) throw new Misreading(after, `a path is missing: ${USAGE[op]}`);
      return tooMany(meant, more);
    }
    default:
      return tooMany(meant, bare[0]);
  }
}

function columns(meant: Meant, bare: Word[], after: Span): void {
  const { fields, spans, op } = meant;
  if (bare.length === 0) {
    if (fields['keys'] !== undefined) return;
    throw new Misreading(after, `a key is missing: ${USAGE[op]}`);
  }
  if (fields['keys'] !== undefined) throw new Misreading(bare[0]!, 'keys= and keys without a name: one of them is enough');
  for (const [i, word] of bare.entries()) spans.set(`keys[${i}]`, word);
  spans.set('keys', { start: bare[0]!.start, end: bare.at(-1)!.end });
  fields['keys'] = bare.map(textOf);
}

function tooMany(meant: Meant, word: Word | undefined): void {
  if (word !== undefined) throw new Misreading(word, `${meant.op} does not know what to do with this: ${USAGE[meant.op]}`);
}

function put(meant: Meant, name: string, value: unknown, at: Span): void {
  if (meant.fields[name] !== undefined) throw new Misreading(at, `${name} is there twice`);
  meant.fields[name] = value;
  meant.spans.set(name, { start: at.start, end: at.end });
}

function textOf(word: Word): string {
  return unquote(word.text, word);
}

function unquote(text: string, at: Span): string {
  if (!text.startsWith('"')) return text;
  try {
    return JSON.parse(text) as string;
  } catch {
    throw new Misreading({ start: at.start, end: at.end }, 'not a string as JSON writes it: "…" with \\" and \\\\ inside');
  }
}

/** What was typed after the `=`: JSON where it is, otherwise what the field's type makes of it. */
function valueOf(text: string, field: FieldSpec, at: Span): unknown {
  switch (field.kind) {
    case 'string':
      return unquote(text, at);
    case 'integer':
      if (text.startsWith('[')) return json(text, at);
      return /^-?\d+$/.test(text) ? Number(text) : unquote(text, at); // the sidecar says what would be right
    case 'boolean':
      return text === 'true' || (text === 'false' ? false : text);
    case 'array':
      if (text.startsWith('[')) return json(text, at);
      return text.split(',').map((one) => (field.entry!.kind === 'integer' && /^\d+$/.test(one) ? Number(one) : one));
    case 'object':
      return json(text, at);
  }
}

function json(text: string, at: Span): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Misreading({ start: at.start, end: at.end }, `not JSON, such as ${text.startsWith('[') ? '[0,1] or ["demo/00ff"]' : '{"model":"tiny","dtype":"f16"}'}`);
  }
}
