// line_writer.ts — messages → stdout, one JSON object a line; nothing else in this process writes there.
//
// One write is in flight at a time and everything said in one turn of the loop goes into it. The
// outbox is bounded twice, in bytes and in time: a reader that does not read is taken for gone, since
// Node would otherwise keep its answers in memory for ever (48 MiB in a moment).
import type { ByteSink } from './byte_sink.ts';

export interface LineWriter {
  send(message: object): void;
  /** Calls `done` once: when all is written, when the reader is gone, or after `flushMs`. */
  flush(flushMs: number, done: () => void): void;
  outboxBytes(): number;
  /** The stream itself reported an error. */
  fail(why: string): void;
}

export interface LineWriterOptions {
  sink: ByteSink;
  /** The reader is gone or as good as gone; called once. */
  onGone(why: string): void;
  outboxBytesMax?: number;
  undrainedMs?: number;
}

/** The answers to 100,000 lines sent at once fit twice; more unread answers belong to no one who reads. */
export const OUTBOX_BYTES_MAX = 16 * 1024 * 1024;
/** A client that is stopped in a debugger has the pipe's 64 KiB besides. */
export const UNDRAINED_MS = 30_000;
/** Small enough that a slow reader's progress shows within the time above. */
const WRITE_BYTES_MAX = 256 * 1024;
/** A reader that is always a little behind must not leave a longer and longer row of written entries. */
const COMPACT_FROM = 1024;
/** The time above is counted in looks: a process that was stopped and continued counts one look, not the hours between. */
const LOOKS = 6;

export function createLineWriter(options: LineWriterOptions): LineWriter {
  const { sink } = options;
  const outboxBytesMax = options.outboxBytesMax ?? OUTBOX_BYTES_MAX;
  const lookEveryMs = (options.undrainedMs ?? UNDRAINED_MS) / LOOKS;
  let outbox: { text: string; bytes: number }[] = [];
  let first = 0; // of the outbox; what stands before it is written
  let bytes = 0; // waiting and in flight
  let inFlight = 0;
  let scheduled = false;
  let gone = false;
  let looks = 0;
  let lookTimer: NodeJS.Timeout | null = null;
  const flushers = new Set<() => void>();

  function giveUp(why: string): void {
    if (gone) return;
    gone = true;
    outbox = [];
    bytes = 0;
    settleFlushers();
    options.onGone(why);
  }

  function settleFlushers(): void {
    for (const done of [...flushers]) done();
  }

  function pump(): void {
    scheduled = false;
    if (gone || inFlight > 0) return;
    if (first === outbox.length) {
      outbox = [];
      first = 0;
      settleFlushers();
      return;
    }
    let text = '';
    do {
      const entry = outbox[first]!;
      outbox[first] = EMPTY; // its text is on its way; do not hold it twice
      text += entry.text;
      inFlight += entry.bytes;
      first += 1;
    } while (first < outbox.length && inFlight + outbox[first]!.bytes <= WRITE_BYTES_MAX);
    if (first > COMPACT_FROM && 2 * first > outbox.length) {
      outbox = outbox.slice(first);
      first = 0;
    }
    sink.write(text, (error) => {
      if (error) return giveUp(`stdout: ${error.message}`);
      bytes -= inFlight;
      inFlight = 0;
      looks = 0;
      pump();
    });
    watch();
  }

  function watch(): void {
    if (lookTimer !== null) return;
    lookTimer = setInterval(() => {
      if (gone || bytes === 0) {
        clearInterval(lookTimer!);
        lookTimer = null;
        return;
      }
      looks += 1;
      if (looks > LOOKS) giveUp(`nobody has read stdout for ${(lookEveryMs * LOOKS) / 1000} s; ${bytes} bytes are waiting`);
    }, lookEveryMs).unref();
  }

  return {
    send(message) {
      if (gone) return;
      const text = `${JSON.stringify(message)}\n`;
      const entry = { text, bytes: Buffer.byteLength(text) };
      bytes += entry.bytes;
      if (bytes > outboxBytesMax) return giveUp(`stdout is read too slowly: ${bytes} bytes are waiting, limit ${outboxBytesMax}`);
      outbox.push(entry);
      if (scheduled || inFlight > 0) return;
      scheduled = true;
      process.nextTick(pump);
    },
    flush(flushMs, done) {
      if (gone || bytes === 0) return done();
      const settle = (): void => {
        if (!flushers.delete(settle)) return;
        clearTimeout(timer);
        done();
      };
      const timer = setTimeout(settle, flushMs);
      flushers.add(settle);
    },
    outboxBytes: () => bytes,
    fail: giveUp,
  };
}

const EMPTY = { text: '', bytes: 0 };
