// editor.ts — the line one types in, at the bottom of a terminal, and everything else above it.
//
// node:readline edits; what is added here is that lines can be printed while somebody types, without tearing what stands there.
import { clearScreenDown, createInterface, cursorTo, moveCursor } from 'node:readline';
import type { Interface } from 'node:readline';
import { HISTORY_LINES_MAX } from './history.ts';

export interface EditorEvents {
  line(text: string): void;
  /** ctrl-C; whether there was something in the line, which is cleared. */
  interrupt(hadText: boolean): void;
  /** ctrl-D in an empty line. */
  end(): void;
  /** The terminal is gone, and with it whoever reads. */
  hangUp(): void;
}

export interface Editor {
  prompt(text: string): void;
  /** Above the line that is being typed. */
  print(lines: readonly string[]): void;
  /** The next line is the answer to this, and not for the history. */
  ask(question: string): Promise<string | null>;
  /** What was typed in this session, the oldest first. */
  typed(): readonly string[];
  close(): void;
}

export interface EditorOptions {
  history: string[];
  complete: (line: string) => { hits: string[]; word: string };
  events: EditorEvents;
}

/** What readline keeps to itself: how many rows below its first the cursor was when it drew the line. */
type Drawn = Interface & { prevRows?: number; history?: string[]; closed?: boolean };

export function createEditor({ history, complete, events }: EditorOptions): Editor {
  const output = process.stdout;
  const rl = createInterface({
    input: process.stdin,
    output,
    terminal: true,
    prompt: '',
    history,
    historySize: HISTORY_LINES_MAX,
    removeHistoryDuplicates: true,
    completer: (line: string): [string[], string] => {
      const { hits, word } = complete(line);
      return [hits, word];
    },
  }) as Drawn;
  const typed: string[] = [];
  let asking: ((answer: string | null) => void) | null = null;
  let shown = '';
  let closed = false;

  const draw = (): void => {
    if (!closed) rl.prompt(true);
  };
  rl.on('line', (text) => {
    if (asking !== null) {
      const answer = asking;
      asking = null;
      const kept = rl.history;
      if (kept?.[0] === text) kept.shift();
      rl.setPrompt(shown);
      return answer(text);
    }
    if (text.trim() !== '') typed.push(text);
    events.line(text);
    draw();
  });
  rl.on('SIGINT', () => {
    const hadText = rl.line !== '';
    output.write('^C\n');
    (rl as unknown as { line: string }).line = '';
    (rl as unknown as { cursor: number }).cursor = 0;
    rl.prevRows = 0;
    if (asking !== null) {
      const answer = asking;
      asking = null;
      rl.setPrompt(shown);
      answer(null);
    } else events.interrupt(hadText);
    draw();
  });
  // Of a terminal that is gone: what readline puts back at its end (setRawMode EIO), and what is written.
  const hangUp = (): void => {
    closed = true;
    events.hangUp();
  };
  rl.on('error' as 'close', hangUp);
  output.on('error', hangUp);
  process.stderr.on('error', hangUp);
  rl.on('close', () => {
    if (closed) return;
    closed = true;
    asking?.(null);
    output.write('\n');
    events.end();
  });

  return {
    prompt(text) {
      if (text === shown && !closed) return;
      shown = text;
      if (asking !== null || closed) return;
      rl.setPrompt(text);
      draw();
    },
    print(lines) {
      const text = lines.map((line) => `${line}\n`).join('');
      if (closed) return void output.write(text);
      moveCursor(output, 0, -rl.getCursorPos().rows);
      cursorTo(output, 0);
      clearScreenDown(output);
      output.write(text);
      rl.prevRows = 0; // it stands on a row of its own again
      draw();
    },
    ask(question) {
      if (closed) return Promise.resolve(null);
      return new Promise((done) => {
        asking = done;
        rl.setPrompt(question);
        draw();
      });
    },
    typed: () => typed,
    close() {
      if (closed) return;
      closed = true;
      moveCursor(output, 0, -rl.getCursorPos().rows);
      cursorTo(output, 0);
      clearScreenDown(output);
      rl.close();
    },
  };
}
