// json_fault.ts — where a line stops being JSON, and what would be right there.
//
// JSON.parse's own words differ between Node versions and often carry no position, and the text of
// ndjson's error only repeats the line. This is not a parser: it runs after JSON.parse refused, once
// over the text and without recursion, so that a hostile line of a million brackets costs what any
// other line of its length costs.

export interface JsonFault {
  /** Counted in characters from 0; the length of the text when it ends too early. */
  at: number;
  expected: string;
}

type Want = 'value' | 'value or ]' | 'name' | 'name or }' | ':' | 'next' | 'end';

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y;
const WORD = /true|false|null/y;
const FOREIGN_WORD = /True|False|None|NaN|-?Infinity|undefined/y;

/** Null when the text is JSON after all. */
export function findJsonFault(text: string): JsonFault | null {
  const open: ('{' | '[')[] = [];
  let want: Want = 'value';
  let at = 0;
  const match = (pattern: RegExp): number => {
    pattern.lastIndex = at;
    return pattern.test(text) ? pattern.lastIndex - at : 0;
  };
  const afterValue = (): Want => (open.length === 0 ? 'end' : 'next');

  for (;;) {
    while (isSpace(text.charCodeAt(at))) at += 1;
    const here = text[at];
    if (want === 'end') return here === undefined ? null : { at, expected: 'the end of the line (one object a line)' };
    if (here === undefined) return { at, expected: endedBefore(want, open.at(-1)) };

    if (want === ':') {
      if (here !== ':') return { at, expected: 'a colon after the name' };
      at += 1;
      want = 'value';
    } else if (want === 'next') {
      const inObject = open.at(-1) === '{';
      if (here === ',') want = inObject ? 'name' : 'value';
      else if (here === (inObject ? '}' : ']')) {
        open.pop();
        want = afterValue();
      } else return { at, expected: inObject ? 'a comma or } after the value' : 'a comma or ] after the value' };
      at += 1;
    } else if (want === 'name' || want === 'name or }') {
      if (here === '}' && want === 'name or }') {
        open.pop();
        at += 1;
        want = afterValue();
      } else if (here === '"') {
        const string = scanString(text, at);
        if (typeof string !== 'number') return string;
        at = string;
        want = ':';
      } else if (here === '}') return { at, expected: 'no comma before }' };
      else return { at, expected: 'a name in double quotes' };
    } else if (here === '{' || here === '[') {
      open.push(here);
      at += 1;
      want = here === '{' ? 'name or }' : 'value or ]';
    } else if (here === ']' && want === 'value or ]') {
      open.pop();
      at += 1;
      want = afterValue();
    } else if (here === ']' && open.at(-1) === '[') return { at, expected: 'no comma before ]' };
    else if (here === '"') {
      const string = scanString(text, at);
      if (typeof string !== 'number') return string;
      at = string;
      want = afterValue();
    } else {
      const length = match(WORD) || match(NUMBER);
      if (length === 0) {
        if (here === "'") return { at, expected: 'a string in double quotes' };
        if (match(FOREIGN_WORD) > 0) return { at, expected: 'true, false or null (JSON knows no other words)' };
        return { at, expected: 'a value' };
      }
      at += length;
      want = afterValue();
    }
  }
}

/** The place after the closing quote, or what is wrong. A loop: a regular expression would keep a state a character. */
function scanString(text: string, start: number): number | JsonFault {
  for (let at = start + 1; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === 0x22) return at + 1;
    if (code < 0x20) return { at, expected: 'no control character in a string (write it as \\u0000)' };
    if (code !== 0x5c) continue;
    ESCAPE.lastIndex = at;
    if (!ESCAPE.test(text)) return { at, expected: 'an escape that JSON knows (\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0000)' };
    at = ESCAPE.lastIndex - 1;
  }
  return { at: text.length, expected: 'the closing double quote of a string' };
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0a || code === 0x0d;
}

/**
 * Whether brackets nest deeper than `depthMax`; looks at nothing else. JSON.parse takes a third of a second
 * for a line of half a million brackets, this two milliseconds, and no deadline is answered meanwhile.
 */
export function nestsDeeper(bytes: Buffer, depthMax: number): boolean {
  if (!opensMoreOften(bytes, depthMax)) return false; // a line in columns has four brackets among its thousands of bytes
  let depth = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at += 1) {
    const byte = bytes[at];
    if (byte === 0x22) inString = !inString;
    else if (inString) {
      if (byte === 0x5c) at += 1;
    } else if (byte === 0x7b || byte === 0x5b) {
      depth += 1;
      if (depth > depthMax) return true;
    } else if (byte === 0x7d || byte === 0x5d) depth -= 1;
  }
  return false;
}

/** Whether there are more than `count` opening brackets; those within strings count too. */
function opensMoreOften(bytes: Buffer, count: number): boolean {
  let left = count;
  for (const bracket of [0x7b, 0x5b]) {
    for (let at = bytes.indexOf(bracket); at >= 0; at = bytes.indexOf(bracket, at + 1)) {
      left -= 1;
      if (left < 0) return true;
    }
  }
  return false;
}

function endedBefore(want: Want, open: '{' | '[' | undefined): string {
  if (want === ':') return 'a colon and a value';
  if (want === 'next') return open === '{' ? 'a comma or }' : 'a comma or ]';
  if (want === 'name' || want === 'name or }') return 'a name in double quotes or }';
  return 'a value';
}
