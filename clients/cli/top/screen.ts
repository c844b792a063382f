// screen.ts — a terminal as a sheet of lines: only those that changed are written, so nothing flickers, and whatever ends the process,
// the terminal is as it was.
//
// Plain ANSI that every terminal since the VT100 knows, beside three that others ignore: the second sheet, the switched-off
// line wrap, and the pause between the parts of one picture.
import type { ReadStream, WriteStream } from 'node:tty';
import type { Row, Style } from './paint.ts';

const ESC = '\x1b[';
const ENTER = `${ESC}?1049h${ESC}?25l${ESC}?7l`;
/** To the last line first: where there is no second sheet (a VT100, the Linux console, GNU screen as it comes) the picture stays, and what follows stands below it. */
const leave = (rows: number): string => `${ESC}0m${ESC}?7h${ESC}?25h${ESC}${rows};1H\n${ESC}?1049l`;
const CODES: Record<Style, string> = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33' };
const SMALLEST = { rows: 24, columns: 80 };

export interface Keys {
  /** One key, as the terminal sends it. */
  pressed(key: string): void;
  resized(): void;
}

export class Screen {
  #out: WriteStream;
  #in: ReadStream | null;
  #shown: string[] = [];
  #on = false;
  #colour: boolean;

  constructor(out: WriteStream, input: ReadStream | null, colour: boolean) {
    this.#out = out;
    this.#in = input;
    this.#colour = colour;
  }

  get rows(): number {
    return this.#out.rows || SMALLEST.rows;
  }

  get columns(): number {
    return this.#out.columns || SMALLEST.columns;
  }

  open(keys: Keys): void {
    process.on('exit', () => this.leave()); // also after an exception that nobody caught
    this.#out.on('resize', () => {
      this.forget();
      keys.resized();
    });
    this.#in?.setEncoding('latin1').on('data', (text: string) => {
      // Several keys may come at once; an arrow is three characters.
      for (const [key] of text.matchAll(/\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|[\s\S]/g)) keys.pressed(key);
    });
    this.enter();
  }

  enter(): void {
    if (this.#on) return;
    this.#on = true;
    this.#shown = [];
    this.#in?.setRawMode(true);
    this.#write(ENTER);
  }

  /** What is there may not be what was painted: all lines are painted again. */
  forget(): void {
    this.#shown = [];
  }

  /** Whatever the terminal shows now: it may have been somebody else's, without our having left it. */
  again(): void {
    this.leave();
    this.enter();
  }

  leave(): void {
    if (!this.#on) return;
    this.#on = false;
    try {
      this.#in?.setRawMode(false);
      this.#write(leave(this.rows));
    } catch {
      // The terminal is gone.
    }
  }

  /** As many of the rows as fit. */
  show(rows: readonly Row[]): void {
    if (!this.#on) return;
    const lines = Array.from({ length: this.rows }, (_, index) => ansi(rows[index] ?? [], this.columns, this.#colour));
    const changed = lines.flatMap((line, index) => (line === this.#shown[index] ? [] : [`${ESC}${index + 1};1H${line}${ESC}K`]));
    if (changed.length === 0) return;
    this.#shown = lines;
    this.#write(`${ESC}?2026h${changed.join('')}${ESC}?2026l`);
  }

  #write(text: string): void {
    this.#out.write(text); // to a terminal Node writes at once, so that nothing is left behind at the end
  }
}

/** Cut to the width; wide characters may take more, and are cut by the terminal. */
export function ansi(row: Row, columns: number, colour: boolean): string {
  let left = columns;
  let line = '';
  for (const { text, style } of row) {
    if (left <= 0) break;
    if (text === '') continue;
    const part = text.slice(0, left);
    left -= part.length;
    line += style === undefined || !colour ? part : `${ESC}${CODES[style]}m${part}${ESC}0m`;
  }
  return line;
}

export function plain(row: Row): string {
  return row.map(({ text }) => text).join('').trimEnd();
}
