// stdin_pump.ts — hands stdin on in small pieces, so that no flood of lines holds the loop.
//
// stdin is never paused for back-pressure: a paused pipe hides its end, and refusing work is done by
// answering. It rests for exactly one turn of the loop after TURN_MS of work, whatever else is going on,
// so that timers, completions and signals get their turn within a flood; meanwhile the kernel's pipe holds
// the sender back and our memory stays bounded.
import { fstatSync } from 'node:fs';
import type { ConnectOpts, SocketConstructorOpts } from 'node:net';
import type { Readable } from 'node:stream';
import { uptimeMs } from './clock.ts';
import { late } from './late.ts';

/** Adds to how late a deadline can be answered within a flood. */
const TURN_MS = 3;
/** A few dozen short lines, or a piece of a long one: the unit between two looks at the clock. */
const PIECE_BYTES = 4 * 1024;

export interface StdinHandlers {
  take(bytes: Buffer): void;
  /** Once: the end, or an error that amounts to it. */
  ended(fault: Error | null): void;
}

/** Opens the stream; its bytes go to `work` and not to its listeners. Whoever gets them is done with them when `work` returns or the stream goes on. */
export type Source = (work: (chunk: Buffer) => void) => Readable;

/** As much as a pipe holds. */
const READ_BYTES = 64 * 1024;

/**
 * A pipe or socket is read into one buffer, again and again: a stream that makes a chunk of each read, queues and hands it on costs as much as
 * a small request does in all.
 */
export function stdinSource(fd = 0): Source {
  const kind = fstatSync(fd); // Node has done the same at its start
  if (!kind.isFIFO() && !kind.isSocket()) return (work) => process.stdin.on('data', work);
  const callback = (work: (chunk: Buffer) => void) => (count: number, buffer: Uint8Array) => {
    work((buffer as Buffer).subarray(0, count));
    return true;
  };
  return (work) => {
    const onread = { buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback: callback(work) };
    const options: SocketConstructorOpts & ConnectOpts = { fd, readable: true, writable: false, onread };
    return new (late('node:net').Socket)(options);
  };
}

export function pumpStdin(source: Source, handlers: StdinHandlers): void {
  let rest: Buffer | null = null;
  let resting = false;
  let spentMs = 0;
  let over: { fault: Error | null } | null = null;

  function work(chunk: Buffer): void {
    let start = 0;
    while (start < chunk.length) {
      const beforeMs = uptimeMs();
      handlers.take(chunk.subarray(start, start + PIECE_BYTES));
      start += PIECE_BYTES;
      spentMs += uptimeMs() - beforeMs;
      if (spentMs < TURN_MS) continue;
      rest = start < chunk.length ? chunk.subarray(start) : null;
      resting = true;
      stream.pause();
      setImmediate(goOn);
      return;
    }
  }

  function goOn(): void {
    const chunk = rest;
    rest = null;
    resting = false;
    spentMs = 0;
    if (chunk !== null) work(chunk);
    if (resting) return;
    if (over !== null) handlers.ended(over.fault);
    else stream.resume();
  }

  function end(fault: Error | null): void {
    if (over !== null) return;
    over = { fault };
    if (!resting) handlers.ended(fault); // else goOn: the end may come while the last chunk is still being handed on
  }

  const stream = source(work);
  stream.on('end', () => end(null));
  stream.on('close', () => end(null));
  stream.on('error', end);
}
