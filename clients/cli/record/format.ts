// format.ts — a record: NDJSON, one entry a line, made by `kvlane record`, read by `kvlane replay` and others.
//
// A file may hold several lives: an engine that starts its sidecar again appends, and so do several engines at once. Each line says of
// which life it is. A last line that was cut, by a full disk or a death, is passed over.

import { constants } from 'node:os';

export const RECORD_FORMAT = 1;

/** The first line of a life. */
export interface RecordHead {
  kvlane_record: number;
  /** The recorder's process. Unique in a file together with `began`. */
  life: number;
  version: string;
  /** Time of day, ISO 8601. */
  began: string;
  /** CLOCK_MONOTONIC then: at_us counts from here, and so do a request's deadline_us and a sidecar's now_us. */
  began_us: number;
  /** What was started. */
  command: string[];
  /** `uname`, in short; and the node that recorded. */
  system: string;
  node: string;
}

export type From = 'client' | 'sidecar' | 'log' | 'recorder';

/** Every other line: one of the fields behind `from` says what it is. */
export interface RecordEntry {
  life: number;
  at_us: number;
  from: From;
  /** A line that is JSON, as it was. */
  message?: Record<string, unknown>;
  /** Any other line that is UTF-8; and JSON that would not come out as it went in. */
  text?: string;
  /** Any other line. */
  base64?: string;
  /** The line had no newline: it was the last of its stream. */
  unterminated?: true;
  /** The line was longer than is kept: so many bytes of it are not here. */
  cut_bytes?: number;
  /** The stream ended. */
  ended?: true;
  /** So many bytes of `of` are not here, because the file took no more. */
  lost?: { of: From; bytes: number };
  /** Of the sidecar's process; null where it was not seen. */
  exit?: { code: number | null; signal: string | null } | null;
  /** The file has reached its limit, and nothing follows. */
  full?: true;
}

export interface Life {
  head: RecordHead;
  entries: RecordEntry[];
}

export class NoRecord extends Error {
  override name = 'NoRecord';
}

/** Takes lines in order. Throws NoRecord where they are none. */
export class LivesReader {
  readonly lives: Life[] = [];
  /** Lines that could not be read, beside the last. */
  damaged = 0;
  linesRead = 0;
  #bad = false;
  readonly #open = new Map<number, Life>();

  line(text: string): void {
    this.linesRead += 1;
    if (text.trim() === '') return;
    if (this.#bad) this.damaged += 1; // another line follows: it was not the last
    this.#bad = false;
    const value = objectOf(text);
    if (value === null) {
      if (this.lives.length === 0) throw new NoRecord(`line ${this.linesRead} is no JSON object: this is no record of kvlane`);
      this.#bad = true;
    } else if (value['kvlane_record'] !== undefined) this.#head(value);
    else this.#entry(value);
  }

  #head(value: Record<string, unknown>): void {
    const where = `line ${this.linesRead}`;
    if (value['kvlane_record'] !== RECORD_FORMAT) throw new NoRecord(`${where}: a record of format ${JSON.stringify(value['kvlane_record'])}, this kvlane reads ${RECORD_FORMAT}`);
    for (const [field, [fits, wanted]] of Object.entries(HEAD)) {
      if (!fits(value[field])) throw new NoRecord(`${where}: "${field}" must be ${wanted}, got ${JSON.stringify(value[field]) ?? 'nothing'}`);
    }
    const life = { head: value as unknown as RecordHead, entries: [] };
    this.lives.push(life);
    this.#open.set(life.head.life, life);
  }

  #entry(value: Record<string, unknown>): void {
    const life = this.#open.get(value['life'] as number);
    if (life === undefined || !isEntry(value)) {
      if (this.lives.length === 0) throw new NoRecord(`line ${this.linesRead}: this is no record of kvlane, which begins with "kvlane_record"`);
      this.damaged += 1;
      return;
    }
    // Another sidecar may write its JSON in another manner; it means the same.
    if (value.from === 'sidecar' && value.message === undefined && value.text !== undefined) {
      const message = objectOf(value.text);
      if (message !== null) value.message = message;
    }
    life.entries.push(value);
  }
}

type Fits = (value: unknown) => boolean;
const isCount: Fits = (value) => Number.isSafeInteger(value) && (value as number) >= 0;
const isText: Fits = (value) => typeof value === 'string';
const isObject: Fits = (value) => typeof value === 'object' && value !== null && !Array.isArray(value);

/** What readers rely on. */
const HEAD: Record<string, [fits: Fits, wanted: string]> = {
  life: [isCount, 'the number of a process'],
  began: [isText, 'a time of day'],
  began_us: [isCount, 'microseconds'],
  command: [(value) => Array.isArray(value) && value.every(isText), 'a list of words'],
};
const ENTRY: Record<string, Fits> = {
  message: isObject,
  text: isText,
  base64: isText,
  cut_bytes: isCount,
  lost: (value) => isObject(value) && isText((value as { of?: unknown }).of) && isCount((value as { bytes?: unknown }).bytes),
  exit: (value) => value === null || (isObject(value) && isExit(value as { code?: unknown; signal?: unknown })),
};

function isExit({ code, signal }: { code?: unknown; signal?: unknown }): boolean {
  return (code === null || isCount(code)) && (signal === null || (isText(signal) && Object.hasOwn(constants.signals, signal as string)));
}

function isEntry(value: object): value is RecordEntry {
  const { at_us: atUs, from } = value as Partial<RecordEntry>;
  return isCount(atUs) && isText(from) && Object.entries(ENTRY).every(([field, fits]) => (value as Record<string, unknown>)[field] === undefined || fits((value as Record<string, unknown>)[field]));
}

export function objectOf(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
