// quote.ts — the start of something that was received, fit for an error message: cut, and harmless to a terminal.

import { LIMITS } from '../protocol/messages.ts';

export function quoteStart(text: string, charsMax: number = LIMITS.quoted_chars_max): string {
  let start = text.slice(0, charsMax);
  if (/[\ud800-\udbff]$/.test(start)) start = start.slice(0, -1); // never half a character
  // Escape sequences above all.
  const harmless = start.replace(/[\u0000-\u001f\u007f-\u009f\ufffd]/g, '?');
  return text.length > charsMax ? `${harmless}…` : harmless;
}
