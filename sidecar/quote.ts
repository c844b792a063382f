// quote.ts — the start of something that was received, fit for an error message: cut, and harmless to a terminal.

/** 60 characters say which line it was and cannot flood a log. */
export const QUOTED_CHARS_MAX = 60;

export function quoteStart(text: string, charsMax = QUOTED_CHARS_MAX): string {
  let start = text.slice(0, charsMax);
  if (/[\ud800-\udbff]$/.test(start)) start = start.slice(0, -1); // never half a character
  // eslint-disable-next-line no-control-regex -- escape sequences are what must not get through
  const harmless = start.replace(/[\u0000-\u001f\u007f-\u009f\ufffd]/g, '?');
  return text.length > charsMax ? `${harmless}…` : harmless;
}
