// history.ts — what was typed in earlier sessions. The home directory may lie on a mount that hangs, and a console must start and
// leave all the same: the file is read and written by small programs, each waited for so long and no longer.
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { smallProgram } from '../small_program.ts';

/** Lines kept and offered. */
export const HISTORY_LINES_MAX = 1000;
/** A file on a disk that answers is read in a few milliseconds; a busy machine takes longer to start the program that does it. */
const READ_MS_MAX = 1_000;
const WRITE_MS_MAX = 2_000;
/** A line with a large text is of no use in a history. */
const LINE_CHARS_MAX = 4096;

export function historyFile(env: NodeJS.ProcessEnv): string {
  const state = env['XDG_STATE_HOME'];
  return join(state?.startsWith('/') ? state : join(env['HOME'] ?? homedir(), '.local', 'state'), 'kvlane', 'history');
}

/** The latest first, as readline wants them; empty where the file cannot be read in time. */
export async function readHistory(file: string): Promise<string[]> {
  const text = await smallProgram(['tail', '-n', String(HISTORY_LINES_MAX), '--', file], '', READ_MS_MAX);
  return [...new Set(text.split('\n').filter((line) => line !== '').reverse())];
}

/** Adds these lines, the oldest first, and forgets the oldest of all. Silent where it cannot: nobody asked for a file. */
export async function appendHistory(file: string, lines: readonly string[]): Promise<void> {
  const kept = lines.filter((line) => line.length <= LINE_CHARS_MAX);
  if (kept.length === 0) return;
  const script = 'umask 077; mkdir -p -- "$2" && cat >>"$1" && [ "$(wc -l <"$1")" -gt "$3" ] && tail -n "$4" -- "$1" >"$1.$$" && mv -- "$1.$$" "$1"; exit 0';
  await smallProgram(['sh', '-c', script, 'sh', file, dirname(file), String(2 * HISTORY_LINES_MAX), String(HISTORY_LINES_MAX)], `${kept.join('\n')}\n`, WRITE_MS_MAX);
}
