// held_sink.ts — a pipe whose reader reads when the test says.
import type { ByteSink } from '../../sidecar/byte_sink.ts';

export interface HeldSink extends ByteSink {
  writes: string[];
  /** Ends the write in flight; without one it does nothing. */
  release(error?: Error): void;
  /** From now on every write ends at once. */
  open(): void;
}

export function heldSink(): HeldSink {
  let held: ((error?: Error | null) => void) | null = null;
  let opened = false;
  const sink: HeldSink = {
    writes: [],
    write(text, done) {
      if (held !== null) throw new Error('a second write while one is in flight');
      sink.writes.push(text);
      if (opened) return done();
      held = done;
    },
    release(error) {
      const done = held;
      held = null;
      done?.(error ?? null);
    },
    open() {
      opened = true;
      sink.release();
    },
  };
  return sink;
}
