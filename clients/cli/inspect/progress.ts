// progress.ts — how far a scrub is: a bar that is painted over on a terminal, a plain line now and then elsewhere. On stderr, always.
//
// How much there is to read is not known before all names were; so the share that is done is that of the directories, over which
// hashes spread evenly.
import { duration, size } from '../text/units.ts';

const BAR_WIDE = 24;
/** A terminal, perhaps over ssh: five times a second is alive enough. */
const PAINT_MS_MIN = 200;
/** Into a log. */
const LINE_MS_MIN = 10_000;

export interface Standing {
  /** From 0 to 1. */
  share: number;
  blocks: number;
  bytes: number;
  damaged: number;
}

export class Progress {
  #write: (text: string) => void;
  #columns: number | null;
  #startedMs: number;
  #saidMs: number;
  #painted = false;

  /** `columns`: of the terminal; null: it is none. */
  constructor(write: (text: string) => void, columns: number | null, nowMs: number) {
    this.#write = write;
    this.#columns = columns;
    this.#startedMs = nowMs;
    this.#saidMs = columns === null ? nowMs : -Infinity;
  }

  tell(standing: Standing, nowMs: number): void {
    if (nowMs - this.#saidMs < (this.#columns === null ? LINE_MS_MIN : PAINT_MS_MIN)) return;
    this.#saidMs = nowMs;
    const text = this.#line(standing, nowMs);
    if (this.#columns === null) return this.#write(`kvlane inspect: ${text}\n`);
    const done = Math.round(standing.share * BAR_WIDE);
    this.#write(`\r\x1b[K${`[${'#'.repeat(done)}${'-'.repeat(BAR_WIDE - done)}] ${text}`.slice(0, Math.max(0, this.#columns - 1))}`);
    this.#painted = true;
  }

  /** Before anything else is written to the terminal. */
  clear(): void {
    if (this.#painted) this.#write('\r\x1b[K');
    this.#painted = false;
    this.#saidMs = this.#columns === null ? this.#saidMs : -Infinity;
  }

  #line({ share, blocks, bytes, damaged }: Standing, nowMs: number): string {
    const ms = Math.max(1, nowMs - this.#startedMs);
    const left = share > 0.02 && share < 1 ? `, about ${duration(Math.max(1_000, (ms / share) * (1 - share)))} left` : '';
    return `${String(Math.floor(share * 100)).padStart(3)} %  ${blocks} blocks, ${size(bytes)}, ${size(Math.round((bytes / ms) * 1000))}/s, ${damaged} damaged${left}`;
  }
}
