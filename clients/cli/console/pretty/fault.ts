// fault.ts — the line that was typed, and a caret under the place that a refusal speaks of.
//
// The sidecar's sentences begin with the path of a field, or say the character: the same words that a client's log has.
import { stripVTControlCharacters } from 'node:util';
import type { Colours } from '../../text/colour.ts';
import { harmless } from '../../text/colour.ts';
import { placeOf, scanJson } from '../json_scan.ts';
import type { Span } from '../json_scan.ts';

const PATH = /^(?:line \d+: )?([a-z][a-z0-9_]*(?:\[\d+\])?(?:\.[a-z][a-z0-9_]*(?:\[\d+\])?)*) (?:must|is|has|goes|cannot|and|with|nests|are|takes)\b/;
const UNKNOWN = /unknown field ("(?:[^"\\]|\\.)*")(?: in ([a-z_]+(?:\[\d+\])?))?/;
const CHARACTER = /not JSON at character (\d+)/;

/** null: it speaks of no place. */
export function placeOfFault(message: string, typed: string, spans: Map<string, Span> | null): Span | null {
  const character = CHARACTER.exec(message);
  if (character) {
    const at = Math.min(Number(character[1]) - 1, typed.length);
    return { start: at, end: at + 1 };
  }
  const find = (path: string): Span | null => {
    const found = spans ? spans.get(path) : placeOf(typed, path);
    return found ?? null;
  };
  const unknown = UNKNOWN.exec(message);
  if (unknown) {
    const name = JSON.parse(unknown[1]!) as string;
    const path = unknown[2] === undefined ? name : `${unknown[2]}.${name}`;
    return spans ? find(path) : (scanJson(typed).names.get(path) ?? find(path));
  }
  if (message.includes('unknown op ')) return find('op');
  const path = PATH.exec(message)?.[1];
  if (path === undefined) return null;
  const found = find(path);
  if (found !== null || !message.includes(' is missing')) return found ?? find(path.replace(/\[\d+\]$/, ''));
  // What is missing is missing before the closing brace of what it should be in.
  const inside = path.includes('.') ? path.slice(0, path.lastIndexOf('.')) : '';
  const around = spans ? { start: typed.length, end: typed.length + 1 } : placeOf(typed, inside);
  return around === null ? null : spans ? around : { start: around.end - 1, end: around.end };
}

/** The line and the caret under it, cut to the width around the place. */
export function underlined(typed: string, place: Span, width: number, { dim, bad }: Colours): string[] {
  const room = Math.max(20, width - 4);
  const line = harmless(typed).length === typed.length ? typed : typed.replace(/[\0-\x1f\x7f-\x9f]/g, '?');
  const length = Math.max(1, place.end - place.start);
  let from = 0;
  if (line.length > room) from = Math.max(0, Math.min(place.start - Math.floor((room - Math.min(length, room)) / 2), line.length - room + 1));
  const shown = `${from > 0 ? '…' : ''}${line.slice(from, from + room)}${from + room < line.length ? '…' : ''}`;
  const before = columnsOf(line.slice(from, place.start)) + (from > 0 ? 1 : 0);
  const caret = '^'.repeat(Math.max(1, Math.min(columnsOf(line.slice(place.start, place.end)) || 1, room - before)));
  return [`  ${dim(shown)}`, `  ${' '.repeat(before)}${bad(caret)}`];
}

/** Wide letters take two columns of a terminal. */
export function columnsOf(text: string): number {
  let columns = 0;
  for (const letter of stripVTControlCharacters(text)) {
    const code = letter.codePointAt(0)!;
    if (/\p{Mark}/u.test(letter)) continue;
    columns += (code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0xa4cf) || (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) || (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) || code >= 0x1f300 ? 2 : 1;
  }
  return columns;
}
