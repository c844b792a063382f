// writer.ts — the process that writes the file: the only one of a recording that may hang with it, or wait for a full disk.
//
// Frames come on stdin; what happens to the file goes back on stdout, a word a line. It reads no more while it cannot write, and the
// recorder's bounded queue fills: that is how a lost part comes to be, and it is counted there.
import { openSync, writeSync } from 'node:fs';
import { Entries } from './entries.ts';
import { FrameReader } from './frames.ts';

/** What it says of the file. */
export type Word = { full: string } | { again: true } | { failed: string } | { limit: number };

const RETRY_MS = 500;
/** After the end of the conversation a full disk is not waited for any longer. */
const RETRIES_AT_END = 2;

export function runWriter(file: string, life: number, bytesMax: number): Promise<number> {
  return new Promise((done) => {
    const say = (word: Word): void => void process.stdout.write(`${JSON.stringify(word)}\n`);
    let fd: number;
    try {
      fd = openSync(file, 'a', 0o600);
    } catch (error) {
      say({ failed: (error as Error).message });
      return process.stdout.write('', () => done(1));
    }
    const frames = new FrameReader();
    const entries = new Entries(life);
    let waiting = Buffer.alloc(0);
    let written = 0;
    let full = false;
    let over = false;
    let ended = false;
    let retries = 0;

    const leave = (status: number): void => void process.stdout.write('', () => done(status));

    const flush = (): void => {
      try {
        while (waiting.length > 0) {
          const count = writeSync(fd, waiting);
          waiting = waiting.subarray(count);
          written += count;
        }
      } catch (error) {
        const code = (error as NodeJS.ErrnoException).code ?? '';
        if (code !== 'ENOSPC' && code !== 'EDQUOT') {
          say({ failed: (error as Error).message });
          return leave(1);
        }
        if (!full) say({ full: code });
        full = true;
        if (ended && (retries += 1) > RETRIES_AT_END) return leave(1);
        process.stdin.pause();
        return void setTimeout(flush, RETRY_MS);
      }
      if (full) say({ again: true });
      full = false;
      if (ended) return leave(0);
      process.stdin.resume();
    };

    process.stdin.on('data', (chunk: Buffer) => {
      let said = '';
      frames.feed(chunk, (frame) => (said += entries.take(frame)));
      if (said === '' || over) return;
      const bytes = Buffer.from(said);
      if (written + waiting.length + bytes.length > bytesMax) {
        over = true;
        say({ limit: bytesMax });
        waiting = Buffer.concat([waiting, Buffer.from(`${JSON.stringify({ life, at_us: lastTime(said), from: 'recorder', full: true })}\n`)]);
      } else waiting = waiting.length === 0 ? bytes : Buffer.concat([waiting, bytes]);
      if (!full) flush();
    });
    process.stdin.on('end', () => {
      ended = true;
      if (!full) flush();
    });
    // The recorder's death is the end of stdin; these are for its group and not for us, who have something to finish.
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  });
}

function lastTime(said: string): number {
  return (JSON.parse(said.slice(0, said.indexOf('\n'))) as { at_us: number }).at_us;
}
