// json_scan.ts — a line of JSON that may be unfinished or wrong: where each value stands, and what the cursor is in the middle of.
//
// Never refuses: what cannot be understood is stepped over. JSON.parse and the sidecar judge; this only knows the places.

export interface Span {
  start: number;
  end: number;
}

export interface Cursor {
  /** Of the object or array that the cursor is in: '' is the outermost. */
  container: string;
  /** 'name': a name is wanted · 'value': a value, of `name` or entry of an array · 'after': a value is complete · 'outside': no object yet. */
  at: 'name' | 'value' | 'after' | 'outside';
  /** Within an object: whose value. */
  name: string | null;
  /** Where the word under the cursor begins, with its quote. */
  start: number;
  /** The word as typed so far, with its quote. */
  word: string;
  /** Names that this object has already. */
  taken: readonly string[];
}

export interface Scan {
  /** Path as messages write it (blocks[3].slot, '' the whole) → where the value stands. */
  values: Map<string, Span>;
  /** The same for names. */
  names: Map<string, Span>;
  cursor: Cursor;
}

interface Open {
  path: string;
  array: boolean;
  index: number;
  name: string | null;
  taken: string[];
  want: 'name' | ':' | 'value' | 'after';
  start: number;
}

export function scanJson(text: string): Scan {
  const values = new Map<string, Span>();
  const names = new Map<string, Span>();
  const stack: Open[] = [];
  let start = text.length;

  const pathHere = (): string => {
    const top = stack.at(-1);
    if (top === undefined) return '';
    if (top.array) return `${top.path}[${top.index}]`;
    return top.path === '' ? (top.name ?? '') : `${top.path}.${top.name ?? ''}`;
  };
  const valueDone = (path: string, from: number, end: number): void => {
    values.set(path, { start: from, end });
    const top = stack.at(-1);
    if (top !== undefined) top.want = 'after';
  };

  for (let at = 0; at < text.length; ) {
    const here = text[at]!;
    start = text.length;
    if (/\s/.test(here)) {
      at += 1;
      continue;
    }
    const top = stack.at(-1);
    if (here === '{' || here === '[') {
      stack.push({ path: pathHere(), array: here === '[', index: 0, name: null, taken: [], want: here === '[' ? 'value' : 'name', start: at });
      at += 1;
    } else if (here === '}' || here === ']') {
      at += 1;
      if (top === undefined) continue;
      stack.pop();
      valueDone(top.path, top.start, at);
    } else if (here === ',') {
      at += 1;
      if (top === undefined) continue;
      top.index += 1;
      top.want = top.array ? 'value' : 'name';
    } else if (here === ':') {
      at += 1;
      if (top !== undefined && !top.array) top.want = 'value';
    } else {
      const end = wordEnd(text, at);
      const whole = end < text.length || isWhole(text.slice(at, end));
      if (!whole || end === text.length) start = at;
      const word = text.slice(at, end);
      if (top !== undefined && !top.array && top.want === 'name') {
        const path = top.path === '' ? unquoted(word) : `${top.path}.${unquoted(word)}`;
        names.set(path, { start: at, end });
        if (whole) {
          top.name = unquoted(word);
          top.taken.push(top.name);
          top.want = ':';
        }
      } else if (whole) valueDone(pathHere(), at, end);
      else values.set(pathHere(), { start: at, end });
      at = end;
    }
  }
  for (const open of stack) values.set(open.path, { start: open.start, end: text.length });
  return { values, names, cursor: cursorAt(text, stack.at(-1), start) };
}

/** The place a message speaks of: the value, or where it is missing. */
export function placeOf(text: string, path: string): Span | null {
  const { values, names } = scanJson(text);
  return values.get(path) ?? names.get(path) ?? null;
}

function cursorAt(text: string, top: Open | undefined, start: number): Cursor {
  const word = text.slice(start);
  if (top === undefined) return { container: '', at: text.trim() === '' ? 'outside' : 'after', name: null, start, word, taken: [] };
  const shared = { container: top.path, name: top.name, start, word, taken: top.taken };
  // The word itself may be what completed the name or value: the cursor is still at its end.
  if (top.want === ':' && word !== '') return { ...shared, at: 'name', taken: top.taken.slice(0, -1) };
  if (top.want === 'after' && word !== '' && !isWhole(word)) return { ...shared, at: 'value' };
  if (top.want === 'after' && word !== '') return { ...shared, at: word.endsWith('"') && word.length > 1 ? 'after' : 'value' };
  return { ...shared, at: top.want === 'name' ? 'name' : top.want === 'value' ? 'value' : 'after' };
}

function wordEnd(text: string, start: number): number {
  if (text[start] !== '"') {
    let at = start + 1;
    while (at < text.length && !/[\s{}[\],:"]/.test(text[at]!)) at += 1;
    return at;
  }
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === '\\') at += 1;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}

/** A string with both quotes, or any other word: more letters could always follow, but it is one already. */
function isWhole(word: string): boolean {
  return word[0] !== '"' || (word.length > 1 && wordEnd(word, 0) === word.length && /(?<!\\)(\\\\)*"$/.test(word));
}

export function unquoted(word: string): string {
  if (word[0] !== '"') return word;
  try {
    return JSON.parse(isWhole(word) ? word : `${word}"`) as string;
  } catch {
    return word.slice(1).replace(/"$/, '');
  }
}
