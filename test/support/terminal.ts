// terminal.ts — a person's terminal: a pseudo-terminal of a size, and what is to be seen on it, by xterm's own emulation.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { Writable } from 'node:stream';
import xterm from '@xterm/headless';
import { onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { within, withinLazily } from './sidecar_process.ts';

export interface Seen {
  /** Of the command. */
  pid: Promise<number>;
  /** What is on the screen now, without blanks at the ends of lines. */
  screen(): string[];
  /** Resolves when the screen shows it. */
  shows(text: string | RegExp): Promise<void>;
  type(keys: string): void;
  resize(rows: number, columns: number): void;
  /** As when its window is closed, or the connection to it breaks. */
  goAway(): void;
  /** As the terminal is at the end: the second sheet gone, the cursor there. */
  state(): { alternate: boolean; cursorHidden: boolean; wraps: boolean };
  /** All that was written to it. */
  raw(): string;
  exitCode: Promise<number | null>;
}

export function onTerminal(words: readonly string[], size = { rows: 30, columns: 100 }, env: Record<string, string | undefined> = {}): Seen {
  const { rows, columns } = size;
  const terminal = new xterm.Terminal({ rows, cols: columns, allowProposedApi: true });
  const child = spawn('python3', [join(import.meta.dirname, 'terminal.py'), String(rows), String(columns), process.execPath, sidecarMain(), ...words], {
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', TERM: 'xterm-256color', LANG: 'C.UTF-8', ...env },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  let raw = '';
  const waiting = new Set<() => void>();
  child.stdout.on('data', (chunk: Buffer) => {
    raw += chunk.toString('latin1');
    terminal.write(chunk, () => {
      for (const look of [...waiting]) look();
    });
  });
  child.stdin.on('error', () => {});
  const sizes = child.stdio[3] as Writable;
  sizes.on('error', () => {});
  const screen = (): string[] => {
    const { active } = terminal.buffer;
    return Array.from({ length: terminal.rows }, (_, row) => active.getLine(active.viewportY + row)?.translateToString(true, 0, terminal.cols) ?? '');
  };
  return {
    pid: withinLazily(new Promise<number>((resolve) => child.stderr.once('data', (text: Buffer) => resolve(Number(text.toString().trim())))), () => 'the terminal did not start'),
    screen,
    shows: (text) =>
      within(
        new Promise<void>((done) => {
          const look = (): void => {
            const all = screen().join('\n');
            if (typeof text === 'string' ? !all.includes(text) : !text.test(all)) return;
            waiting.delete(look);
            done();
          };
          waiting.add(look);
          look();
        }),
        () => `the screen does not show ${text}:\n${screen().join('\n')}`,
      ),
    type: (keys) => void child.stdin.write(keys),
    resize(newRows, newColumns) {
      terminal.resize(newColumns, newRows);
      sizes.write(`${newRows} ${newColumns}\n`);
    },
    goAway: () => void child.kill('SIGKILL'),
    state: () => ({
      alternate: terminal.buffer.active.type === 'alternate',
      cursorHidden: raw.lastIndexOf('\x1b[?25l') > raw.lastIndexOf('\x1b[?25h'),
      wraps: terminal.modes.wraparoundMode,
    }),
    raw: () => raw,
    exitCode: withinLazily(new Promise<number | null>((done) => child.once('close', done)), () => `it does not leave:\n${screen().join('\n')}`, 20_000),
  };
}
