// target.ts — what must hold for any bytes on stdin: line reader and decoder against a reader of our own that is short and slow.
//
// Nothing throws; every line that is not blank gets one answer, in order, with its number; where the bytes are cut into chunks
// changes nothing; what is accepted is a request within its bounds; what is refused is told in a short line that a
// terminal may show. Whoever breaks one of these gets a Fault, which says which.
import { isUtf8 } from 'node:buffer';
import { decode, type DecodeContext } from '../../protocol/decode.ts';
import { LIMITS } from '../../protocol/messages.ts';
import type { Request } from '../../protocol/request.ts';
import { createLineReader, type Refusal } from '../../sidecar/line_reader.ts';
import type { Random } from './random.ts';

export class Fault extends Error {}

type Seen = { value: unknown; line: number } | Refusal;

const CONTEXT: DecodeContext = { slots: 64, slotBytes: 65_536, mounts: ['kv0', 'kv1'], line: 1, nowUs: 1_000_000 };
const DEPTH_MAX = 32; // of the line reader
const MESSAGE_CHARS_MAX = 900; // a list of field names, a quote, an example
const CONTROL = /[\u0000-\u001f\u007f-\u009f]/;
const KEY = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[0-9]{1,10})?\/[0-9a-f]{2,128}$/;

/** `damaged`: this one field of this line is wrong, and the refusal must name it. */
export interface Input {
  bytes: Buffer;
  damaged?: { line: number; field: string };
}

export function judge(input: Input, random: Random): void {
  const lineBytesMax = [64, 1_000, 65_536][random(3)]!;
  const whole = read([input.bytes], lineBytesMax);
  const cut = read(chunks(input.bytes, random), lineBytesMax);
  same(whole, cut, 'the chunks make a difference');
  same(whole, reference(input.bytes, lineBytesMax), 'a line got another answer than it should');
  for (const seen of whole) {
    if ('code' in seen) told(seen.message, `line ${seen.line}: `);
    else decided(seen.value, seen.line, input);
  }
}

function read(pieces: Buffer[], lineBytesMax: number): Seen[] {
  const seen: Seen[] = [];
  const reader = createLineReader({ onValue: (value, line) => void seen.push({ value, line }), onRefused: (refusal) => void seen.push(refusal) }, lineBytesMax);
  for (const piece of pieces) {
    const lent = Buffer.from(piece); // stdin's buffers are used again
    reader.feed(lent);
    lent.fill(0x7b);
  }
  reader.end();
  return seen;
}

function chunks(bytes: Buffer, random: Random): Buffer[] {
  const pieces: Buffer[] = [];
  const longest = [1, 3, 17, 400][random(4)]!;
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random(longest);
    pieces.push(bytes.subarray(at, at + length));
    at += length;
  }
  return pieces;
}

function reference(bytes: Buffer, lineBytesMax: number): Seen[] {
  const seen: Seen[] = [];
  const refused = (code: Refusal['code'], line: number): void => void seen.push({ code, line, message: '' });
  let line = 1;
  for (let at = 0; at < bytes.length; line += 1) {
    const newline = bytes.indexOf(0x0a, at);
    const part = bytes.subarray(at, newline < 0 ? bytes.length : newline);
    at = newline < 0 ? bytes.length : newline + 1;
    const blank = /^[ \t\r]*$/.test(part.toString('latin1'));
    if (part.length > lineBytesMax) refused('LINE_TOO_LONG', line);
    else if (blank) continue;
    else if (newline < 0 || !isUtf8(part)) refused('INVALID_REQUEST', line);
    else {
      let value: unknown;
      try {
        value = JSON.parse(part.toString('utf8'));
      } catch {
        refused('INVALID_REQUEST', line);
        continue;
      }
      if (depthOf(value) > DEPTH_MAX) refused('INVALID_REQUEST', line);
      else seen.push({ value, line });
    }
  }
  return seen;
}

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

/** Of refusals only which line and which code: the text may say how much had come by then. */
function same(a: Seen[], b: Seen[], what: string): void {
  const brief = (seen: Seen[]): string => JSON.stringify(seen.map((one) => ('code' in one ? [one.line, one.code] : [one.line, 'value', one.value])));
  if (brief(a) !== brief(b)) throw new Fault(`${what}:\n  ${brief(a).slice(0, 600)}\n  ${brief(b).slice(0, 600)}`);
}

function told(message: string, start: string): void {
  if (!message.startsWith(start) || message.length <= start.length) throw new Fault(`a refusal does not say where: ${message}`);
  if (message.length > MESSAGE_CHARS_MAX) throw new Fault(`a refusal of ${message.length} characters: ${message.slice(0, 200)}`);
  if (CONTROL.test(message)) throw new Fault(`a refusal that moves a terminal: ${JSON.stringify(message)}`);
}

function decided(value: unknown, line: number, input: Input): void {
  const decoded = decode(value, { ...CONTEXT, line });
  const damaged = input.damaged?.line === line ? input.damaged.field : null;
  if (decoded.ok) {
    if (damaged !== null) throw new Fault(`a request with a bad ${damaged} was accepted: ${JSON.stringify(value).slice(0, 300)}`);
    return within(decoded.request, line);
  }
  told(decoded.message, '');
  if (!/[a-z]/.test(decoded.message)) throw new Fault(`a refusal says nothing: ${decoded.message}`);
  if (damaged !== null && !names(decoded.message, damaged)) throw new Fault(`the refusal of a bad ${damaged} does not name it: ${decoded.message}`);
  const id = typeof value === 'object' && value !== null && Object.hasOwn(value, 'id') ? (value as { id: unknown }).id : null;
  if (decoded.id !== null && decoded.id !== id) throw new Fault(`an id that was not sent: ${String(decoded.id)}`);
}

/** As a word: "invalid" says nothing of "id". */
function names(message: string, field: string): boolean {
  for (let at = message.indexOf(field); at >= 0; at = message.indexOf(field, at + 1)) {
    if (!/[a-z_]/.test(message[at - 1] ?? ' ') && !/[a-z_]/.test(message[at + field.length] ?? ' ')) return true;
  }
  return false;
}

function within(request: Request, line: number): void {
  const fail = (what: string): never => {
    throw new Fault(`${what}: ${JSON.stringify(request).slice(0, 300)}`);
  };
  if (request.line !== line) fail('another line');
  const idFits = typeof request.id === 'number' ? Number.isSafeInteger(request.id) && request.id >= 0 : Buffer.byteLength(request.id) <= LIMITS.id_bytes_max;
  if (!idFits) fail('an id out of bounds');
  if (!('mount' in request)) return;
  if (!CONTEXT.mounts.includes(request.mount)) fail('an unknown mount');
  if (!('blocks' in request)) return;
  const { namespaces, hexes } = request.blocks;
  if (namespaces.length !== hexes.length || hexes.length < 1 || hexes.length > LIMITS.blocks_max) fail('too many blocks, or none');
  hexes.forEach((hex, i) => {
    if (!KEY.test(`${namespaces[i]}/${hex}`)) fail('a key that is none');
  });
  if (!('slots' in request.blocks)) return;
  const { slots, bytes } = request.blocks;
  if (slots.length !== hexes.length || bytes.length !== hexes.length) fail('columns of different lengths');
  const used = slots.filter((slot): slot is number => slot !== null);
  if (new Set(used).size !== used.length) fail('a slot twice');
  if (used.some((slot) => !Number.isInteger(slot) || slot < 0 || slot >= CONTEXT.slots)) fail('a slot out of bounds');
  if (bytes.some((length) => length !== null && !(Number.isInteger(length) && length >= 0 && length <= CONTEXT.slotBytes))) fail('a length out of bounds');
}

