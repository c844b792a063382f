// directory.ts — a directory as it was typed → its whole name, by text alone: whoever types must not hang.
//
// `..` stays: where x is a link, x/.. is not the directory that x is in. The working directory is asked for only where it is needed, as it may be gone.
import { Wrong } from './spec.ts';

/** A name that leads nowhere else, for words that begin with / and need none. */
const NOWHERE = '/proc/self/cwd';

export function wholeName(word: string): string {
  if (word === '') throw new Wrong('the directory is missing: the word for it is empty; the working directory is .');
  const whole = word.startsWith('/') ? word : `${workingDirectory(word)}/${word}`;
  return `/${whole.split('/').filter((part) => part !== '' && part !== '.').join('/')}`;
}

/** For `word`, which is relative to it or needs none. */
export function workingDirectory(word: string): string {
  try {
    return process.cwd();
  } catch (error) {
    if (word === '' || word.startsWith('/')) return NOWHERE;
    throw new Wrong(`'${word}' is relative to the working directory, which cannot be told (${(error as NodeJS.ErrnoException).code ?? 'unknown'}: it was removed, perhaps); give the name from / on`);
  }
}
