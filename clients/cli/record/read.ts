// read.ts — a record from its file. Lines are cut here and not by node:readline, which would gather one without an end for good.
import { createReadStream } from 'node:fs';
import { StringDecoder } from 'node:string_decoder';
import { Wrong } from '../spec.ts';
import { LINE_BYTES_MAX } from './entries.ts';
import { LivesReader, NoRecord } from './format.ts';
import type { Life } from './format.ts';

/** A line of which every byte had to be escaped, in six characters, and what stands around it. */
const LINE_CHARS_MAX = 6 * LINE_BYTES_MAX + 4096;

/** All of it, in memory: some four times the size of the file. `-` is stdin. */
export async function readRecord(file: string): Promise<{ lives: Life[]; damaged: number }> {
  const reader = new LivesReader();
  const decoder = new StringDecoder('utf8');
  let pieces: string[] = [];
  let chars = 0;
  const take = (text: string): void => {
    const lines = text.split('\n');
    for (const [i, piece] of lines.entries()) {
      pieces.push(piece);
      chars += piece.length;
      if (chars > LINE_CHARS_MAX) throw new NoRecord(`line ${reader.linesRead + 1} has more than ${LINE_CHARS_MAX} characters: this is no record of kvlane`);
      if (i === lines.length - 1) return;
      reader.line(pieces.join(''));
      pieces = [];
      chars = 0;
    }
  };
  try {
    for await (const chunk of file === '-' ? process.stdin : createReadStream(file)) take(decoder.write(chunk as Buffer));
    reader.line(`${pieces.join('')}${decoder.end()}`);
  } catch (error) {
    if (error instanceof NoRecord) throw new Wrong(`${file}, ${error.message}`);
    throw new Wrong(`${file} cannot be read: ${(error as Error).message}`);
  }
  if (reader.lives.length === 0) throw new Wrong(`${file} is empty: a record begins with a line that has "kvlane_record"`);
  return { lives: reader.lives, damaged: reader.damaged };
}
