// terminal.ts — is there a person at it? Asked at the start, so without node:tty where the answer is no: it brings node:net along, which
// takes three milliseconds to load, and is of no use before `ready` is out.
import { fstatSync } from 'node:fs';
import { late } from './late.ts';

/** Linux: of /dev/null and its like, which are character devices too. */
const MEMORY_DEVICES = 1;

export function isTerminal(fd: number): boolean {
  const found = fstatSync(fd);
  return found.isCharacterDevice() && found.rdev >> 8 !== MEMORY_DEVICES && late('node:tty').isatty(fd);
}
