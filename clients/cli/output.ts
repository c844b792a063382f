// output.ts — text to stdout and stderr, and the moment when it is out: process.exit() loses what a pipe has not taken.
//
// process.stdout is made when it is first looked at, and not before: `record` has the descriptor for itself.
import { isatty } from 'node:tty';

/** Whoever reads us has gone (`| head`): an end like any other, and the status that a shell gives SIGPIPE. */
const EXIT_READER_GONE = 141;
let watched = false;

export function print(text: string): Promise<void> {
  if (!watched) process.stdout.on('error', () => process.exit(EXIT_READER_GONE));
  watched = true;
  return new Promise((done) => void process.stdout.write(text, () => done()));
}

export function printError(text: string): Promise<void> {
  return new Promise((done) => void process.stderr.write(text, () => done()));
}

/** Of the terminal; undefined where there is none. */
export function terminalColumns(): number | undefined {
  return isatty(1) ? process.stdout.columns : undefined;
}
