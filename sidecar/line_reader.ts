// line_reader.ts — bytes of stdin → lines → values, in order; a line that is none is answered, never dropped.
//
// ndjson parses, but is fed by hand and one whole line at a time, because it
//   - goes deaf when something is piped into it and one line is bad (so: write(), not pipe()),
//   - ends for good at a line that says `null` (so: that line never reaches it),
//   - has no limit of its own, and its cost grows with the square of an unfinished line (so: lines are
//     put together here, and only whole ones handed on),
//   - says neither the number of the line nor what is wrong with it (so: one write, one outcome, and
//     json_fault.ts says where).
// What it delivers is kept in a variable and acted on after write() has returned: an exception out of
// a 'data' listener would come back as an 'error' of the parser, as if the line had been bad.
import { isUtf8 } from 'node:buffer';
import ndjson from 'ndjson';
import { findJsonFault, nestsDeeper } from './json_fault.ts';
import { quoteStart } from './quote.ts';

export interface Refusal {
  code: 'INVALID_REQUEST' | 'LINE_TOO_LONG';
  message: string;
  line: number;
}

export interface LineHandlers {
  /** Any JSON value: decode says whether it is a request. */
  onValue(value: unknown, line: number): void;
  onRefused(refusal: Refusal): void;
}

export interface LineReader {
  feed(chunk: Uint8Array): void;
  /** stdin has ended: what stands after the last newline is refused, since it may be half of something. */
  end(): void;
}

type Outcome = { value: unknown } | { fault: Error };

const NEWLINE = 0x0a;
/** The deepest request is a fingerprint of 16 levels; there is room for it to be refused by name. */
const NESTING_MAX = 32;
const KEPT_BYTES_FIRST = 64 * 1024; // grows by doubling to the limit; most lines never need it

export function createLineReader(handlers: LineHandlers, lineBytesMax: number): LineReader {
  let parser = newParser();
  let outcome: Outcome | null = null;
  let line = 1;
  let kept = Buffer.alloc(0); // the start of a line whose newline has not come yet, copied out of the chunks
  let keptBytes = 0;
  let skipping = false;

  function newParser(): NodeJS.ReadWriteStream {
    const made = ndjson.parse();
    made.on('data', (value: unknown) => {
      outcome = { value };
    });
    made.on('error', (fault: Error) => {
      outcome = { fault };
    });
    return made;
  }

  function refuse(message: string, code: Refusal['code'] = 'INVALID_REQUEST'): void {
    handlers.onRefused({ code, message: `line ${line}: ${message}`, line });
  }

  function keep(part: Buffer): void {
    if (keptBytes + part.length > kept.length) {
      const grown = Buffer.allocUnsafe(Math.min(lineBytesMax + 1, Math.max(KEPT_BYTES_FIRST, 2 * (keptBytes + part.length))));
      kept.copy(grown, 0, 0, keptBytes);
      kept = grown;
    }
    part.copy(kept, keptBytes);
    keptBytes += part.length;
  }

  /** `part`: more bytes of the current line, with its newline if that has come. */
  function take(part: Buffer, complete: boolean): void {
    const lineBytes = keptBytes + part.length - (complete ? 1 : 0);
    if (!skipping && lineBytes > lineBytesMax) {
      refuse(
        `longer than line_bytes_max = ${lineBytesMax} bytes (${lineBytes}${complete ? '' : ' so far, no newline yet'}): ` +
          `'${quoteStart(keptBytes > 0 ? kept.subarray(0, Math.min(keptBytes, 256)).toString() : part.subarray(0, Math.min(lineBytes, 256)).toString())}'; ` +
          'it is skipped up to its newline. Split the blocks over several requests.',
        'LINE_TOO_LONG',
      );
      skipping = true;
      keptBytes = 0;
    }
    if (!complete) {
      if (!skipping) keep(part);
      return;
    }
    if (!skipping) {
      if (keptBytes > 0) {
        keep(part);
        takeLine(kept.subarray(0, keptBytes));
      } else takeLine(part);
    }
    skipping = false;
    keptBytes = 0;
    line += 1;
  }

  /** With its newline. */
  function takeLine(whole: Buffer): void {
    const bytes = whole.subarray(0, -1);
    const word = shortWord(bytes);
    if (word === '') return;
    if (word === 'null') return handlers.onValue(null, line);
    if (!isUtf8(bytes)) return refuse(notUtf8(bytes));
    if (nestsDeeper(bytes, NESTING_MAX)) {
      return refuse(`nests deeper than ${NESTING_MAX} levels, in '${quoteStart(bytes.toString('utf8', 0, 256))}'. No request needs that.`);
    }

    outcome = null;
    parser.write(whole); // in one piece: it looks for the end of the line in all that it has, at every write
    const result = outcome as Outcome | null;
    if (result === null) {
      // The parser never keeps a line to itself; if it does it is not usable any more, and the line still gets its answer.
      parser = newParser();
      return refuse('the parser gave no result; send it again');
    }
    outcome = null;
    if ('value' in result) return handlers.onValue(result.value, line);
    refuse(notJson(bytes.toString('utf8'), result.fault));
  }

  return {
    feed(chunk) {
      const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
      let start = 0;
      for (;;) {
        const newline = bytes.indexOf(NEWLINE, start);
        if (newline < 0) break;
        take(bytes.subarray(start, newline + 1), true);
        start = newline + 1;
      }
      if (start < bytes.length) take(bytes.subarray(start), false);
    },
    end() {
      if (keptBytes === 0) return; // also after a line too long: it has its answer
      const rest = kept.subarray(0, keptBytes);
      keptBytes = 0;
      if (shortWord(rest) === '') return;
      refuse(
        `stdin ended after ${rest.length} bytes without a newline: '${quoteStart(rest.toString('utf8'))}'; ` +
          'it may have been cut, so it was not carried out. End each request with a newline.',
      );
    },
  };
}

/** The line without JSON's white space if that leaves nothing or very little, else something long. */
function shortWord(bytes: Buffer): string {
  let start = 0;
  let end = bytes.length;
  while (start < end && isSpace(bytes[start])) start += 1;
  while (end > start && isSpace(bytes[end - 1])) end -= 1;
  return end - start > 4 ? 'longer' : bytes.toString('latin1', start, end);
}

function isSpace(byte: number | undefined): boolean {
  return byte === 0x20 || byte === 0x09 || byte === 0x0d;
}

function notUtf8(bytes: Buffer): string {
  const decoded = Buffer.from(bytes.toString('utf8')); // what is wrong comes back as U+FFFD, so the first difference is the place
  let at = 0;
  while (at < bytes.length && bytes[at] === decoded[at]) at += 1;
  const found = bytes[at];
  return (
    `not UTF-8 at byte ${at + 1}${found === undefined ? '' : ` (0x${found.toString(16).padStart(2, '0')})`}; ` +
    'write text in UTF-8, other bytes as "base64".'
  );
}

function notJson(text: string, fault: Error): string {
  if (text.startsWith('\ufeff')) return 'starts with a byte order mark; send plain UTF-8 without one.';
  const found = findJsonFault(text);
  if (found === null) return fault.message; // cannot be: JSON.parse and the scanner disagree
  const there = found.at < text.length ? `found '${quoteStart(text.slice(found.at, found.at + 12), 8)}'` : 'the line ends there';
  return (
    `not JSON at character ${found.at + 1}: expected ${found.expected}, ${there}, in '${quoteStart(text)}'. ` +
    'Send one JSON object a line, for example {"id":1,"op":"help"}.'
  );
}
