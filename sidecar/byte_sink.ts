// byte_sink.ts — where text goes that leaves the process, one write at a time and never in the way of the loop.
//
// A pipe or socket is written by libuv without blocking. A terminal or a file is not: Node writes those
// synchronously, and a terminal stopped with ctrl-S, or a log file on the very mount that hangs, would stop
// the loop with every deadline in it. Those go through a thread of libuv's pool, at most one at a time, and so
// do the first lines on any stdout: a pipe is non-blocking only once its stream is made, which is after `ready`.
import { write, writeSync } from 'node:fs';
import type { Writable } from 'node:stream';

export interface ByteSink {
  /** Not called again before `done`. An error is final: the reader at the other end is gone. */
  write(text: string, done: (error?: Error | null) => void): void;
}

/** For a pipe or a socket. Errors also come without a write (a listener keeps them from ending the process). */
export function streamSink(stream: Writable, onError: (error: Error) => void): ByteSink {
  stream.on('error', onError);
  return { write: (text, done) => void stream.write(text, 'utf8', done) };
}

/**
 * The same, past the stream while the pipe has room: what a stream does around one short write costs more than the write. The descriptor must be
 * non-blocking, which opening the stream makes it.
 */
export function pipeSink(fd: number, stream: Writable, onError: (error: Error) => void): ByteSink {
  stream.on('error', onError);
  return {
    write(text, done) {
      let written = 0;
      try {
        written = writeSync(fd, text);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return done(error as Error);
      }
      if (written === Buffer.byteLength(text)) return done();
      stream.write(Buffer.from(text).subarray(written), done);
    },
  };
}

const FULL_RETRY_MS_FIRST = 10; // a descriptor that somebody made non-blocking says EAGAIN instead of waiting
const FULL_RETRY_MS_MAX = 2_000;

/** For a terminal or a file, and for stderr whatever it is (its pipe is shared: it must not be made non-blocking for others). */
export function pooledSink(fd: number): ByteSink {
  return {
    write(text, done) {
      const bytes = Buffer.from(text, 'utf8');
      let written = 0;
      let retryMs = FULL_RETRY_MS_FIRST;
      const next = (): void => {
        write(fd, bytes, written, bytes.length - written, null, (error, count) => {
          if (error?.code === 'EAGAIN') {
            setTimeout(next, retryMs).unref();
            retryMs = Math.min(2 * retryMs, FULL_RETRY_MS_MAX);
            return;
          }
          if (error) return done(error);
          written += count;
          retryMs = FULL_RETRY_MS_FIRST;
          if (written < bytes.length) next();
          else done();
        });
      };
      next();
    },
  };
}
