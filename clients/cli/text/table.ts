// table.ts — rows in columns, as wide as what is in them. Colours count nothing.
import { stripVTControlCharacters } from 'node:util';

/** Numbers, and what begins with a digit, to the right; a last column is not padded. */
export function columns(rows: readonly (readonly string[])[], indent = '  '): string[] {
  const widths: number[] = [];
  for (const row of rows) for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, widthOf(cell));
  return rows.map((row) => `${indent}${row.map((cell, i) => padded(cell, widths[i]!, i === row.length - 1)).join('  ')}`.trimEnd());
}

function padded(cell: string, width: number, last: boolean): string {
  const bare = stripVTControlCharacters(cell);
  const room = ' '.repeat(Math.max(0, width - bare.length));
  if (/^-?[0-9][0-9.]*( [a-zA-Zµ]+)*$/.test(bare)) return `${room}${cell}`;
  return last ? cell : `${cell}${room}`;
}

function widthOf(cell: string): number {
  return stripVTControlCharacters(cell).length;
}
