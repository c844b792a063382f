// shown.ts — names out of a store, fit for a terminal and for one line: whoever may write to the store chose them.
//
// Escapes and newlines are made visible, and so is what turns the direction of text; a backslash is doubled, so that two names never
// look alike.

const WILD = /[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function shown(name: string): string {
  return name.replaceAll('\\', '\\\\').replace(WILD, (wild) => {
    const code = wild.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** The same as JSON: one line, and what JSON would leave as it is but a terminal not. */
export function json(value: unknown): string {
  return JSON.stringify(value).replace(WILD, (wild) => `\\u${wild.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
