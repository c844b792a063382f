// small_program.ts — what a program of the system says, when it may be about a file on a mount that hangs: the program hangs then, and we do not.
import { spawn } from 'node:child_process';

/** A history of 1,000 lines of 4,096 characters fits. */
const CHARS_MAX = 8 * 1024 * 1024;

/** What a program says, or what it said until its time was over, or until it was enough; it is killed then and not waited for. */
export function smallProgram([command = '', ...words]: string[], input: string, timeoutMs: number): Promise<string> {
  return new Promise((done) => {
    const child = spawn(command, words, { cwd: '/', stdio: ['pipe', 'pipe', 'ignore'], env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', LC_ALL: 'C' } });
    let said = '';
    let over = false;
    const end = (): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      child.stdin.destroy();
      child.stdout.destroy();
      child.unref();
      done(said);
    };
    const stop = (): void => {
      child.kill('SIGKILL');
      end();
    };
    const timer = setTimeout(stop, timeoutMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.length > CHARS_MAX) stop();
    });
    child.on('error', end);
    child.on('close', end);
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}
