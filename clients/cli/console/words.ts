// words.ts — a line without braces cut into words: blanks part them, but not within "quotes", {braces} or [brackets].

export interface Word {
  text: string;
  start: number;
  end: number;
  /** A quote or bracket was not closed. */
  open: boolean;
}

const CLOSES: Record<string, string> = { '{': '}', '[': ']' };

export function wordsOf(line: string): Word[] {
  const words: Word[] = [];
  let at = 0;
  for (;;) {
    while (/\s/.test(line[at] ?? '')) at += 1;
    if (at >= line.length) return words;
    const start = at;
    const open: string[] = [];
    let quoted = false;
    for (; at < line.length; at += 1) {
      const here = line[at]!;
      if (quoted) {
        if (here === '\\') at += 1;
        else if (here === '"') quoted = false;
      } else if (here === '"') quoted = true;
      else if (CLOSES[here] !== undefined) open.push(CLOSES[here]);
      else if (here === open.at(-1)) open.pop();
      else if (open.length === 0 && /\s/.test(here)) break;
    }
    at = Math.min(at, line.length);
    words.push({ text: line.slice(start, at), start, end: at, open: quoted || open.length > 0 });
  }
}
