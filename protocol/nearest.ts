// nearest.ts — the known word a mistyped one was probably meant to be, and how a bad value is shown.

import { LIMITS } from './messages.ts';

/** null when nothing known is near: a far-fetched guess helps nobody. */
export function nearest(word: string, known: readonly string[]): string | null {
  if (word.length > 64) return null;
  let best: string | null = null;
  let bestDistance = Infinity;
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return bestDistance <= Math.max(1, Math.floor((best?.length ?? 0) / 3)) ? best : null;
}

/** Insertions, deletions, replacements, and two neighbours swapped, each one step. */
function editDistance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const same = a[i - 1] === b[j - 1];
      let steps = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) steps = Math.min(steps, before[j - 2]! + 1);
      next.push(steps);
    }
    [before, row] = [row, next];
  }
  return row[b.length]!;
}

/** A bad value as an error repeats it: short, on one line, whatever it is. */
export function show(value: unknown): string {
  if (typeof value === 'string') {
    const cut = value.length > LIMITS.quoted_chars_max;
    const quoted = JSON.stringify(cut ? value.slice(0, LIMITS.quoted_chars_max) : value);
    // JSON leaves these as they are, and a terminal obeys some of them.
    return quoted.replace(/[\u007f-\u009f]/g, (wild) => `\\u${wild.charCodeAt(0).toString(16).padStart(4, '0')}`) + (cut ? '…' : '');
  }
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : `an array of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}

export function list(words: readonly string[]): string {
  return words.map((word) => show(word)).join(', ');
}
