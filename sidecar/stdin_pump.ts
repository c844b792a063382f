// stdin_pump.ts — hands stdin on in small pieces, so that no flood of lines holds the loop.
//
// stdin is never paused for back-pressure: a paused pipe hides its end, and refusing work is done by
// answering. It rests for exactly one turn of the loop after TURN_MS of work, whatever else is going on,
// so that timers, completions and signals get their turn within a flood; meanwhile the kernel's pipe holds
// the sender back and our memory stays bounded.
import type { Readable } from 'node:stream';

/** Adds to how late a deadline can be answered within a flood. */
const TURN_MS = 3;
/** A few dozen short lines, or a piece of a long one: the unit between two looks at the clock. */
const PIECE_BYTES = 4 * 1024;

export interface StdinHandlers {
  take(bytes: Buffer): void;
  /** Once: the end, or an error that amounts to it. */
  ended(fault: Error | null): void;
}

export function pumpStdin(stream: Readable, handlers: StdinHandlers): void {
  let rest: Buffer | null = null;
  let spentMs = 0;
  let over = false;

  function work(chunk: Buffer): void {
    let start = 0;
    while (start < chunk.length) {
      const before = performance.now();
      handlers.take(chunk.subarray(start, start + PIECE_BYTES));
      start += PIECE_BYTES;
      spentMs += performance.now() - before;
      if (spentMs < TURN_MS) continue;
      rest = start < chunk.length ? chunk.subarray(start) : null;
      stream.pause();
      setImmediate(goOn);
      return;
    }
  }

  function goOn(): void {
    spentMs = 0;
    const chunk = rest;
    rest = null;
    if (chunk !== null) work(chunk);
    if (rest === null && spentMs < TURN_MS) stream.resume();
  }

  function end(fault: Error | null): void {
    if (over) return;
    over = true;
    if (rest !== null) handlers.take(rest); // an error does not wait for the turn to come
    rest = null;
    handlers.ended(fault);
  }

  stream.on('data', work);
  stream.on('end', () => end(null));
  stream.on('close', () => end(null));
  stream.on('error', end);
}
