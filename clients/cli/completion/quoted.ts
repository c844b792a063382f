// quoted.ts — a text as one word of a shell, whatever it holds.

/** bash, zsh. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** fish, where a backslash escapes within quotes. */
export function quotedForFish(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

/** As people write it where they may. */
export function asWord(path: string): string {
  return /^[\w@%+=:,./-]+$/.test(path) ? path : quoted(path);
}
