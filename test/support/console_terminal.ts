// console_terminal.ts — kvlane at a terminal. `script` makes a pseudo-terminal: what runs sees a tty on 0, 1 and 2, and what we read is
// the screen, with the echo of what was typed and what moves the cursor.
import { spawn } from 'node:child_process';
import { onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory, within, withinLazily } from './sidecar_process.ts';

export function terminal(words: string[], { pipe = '', home = freshDirectory(), columns = 100 } = {}) {
  const command = [process.execPath, sidecarMain(), ...words].map((word) => `'${word}'`).join(' ');
  // `script` runs the command with $SHELL, or sh. A shell that stays beside the sidecar (dash does, bash does not) is in the terminal's
  // foreground too: ^C kills it, and `script` tells its end, 130, in place of ours. So: always sh, which becomes the sidecar.
  const child = spawn('script', ['-qefc', `stty columns ${columns}; ${pipe === '' ? 'exec ' : ''}${command} ${pipe}`, '/dev/null'], { stdio: 'pipe', detached: true, env: { PATH: process.env['PATH'], HOME: home, TERM: 'xterm', NO_COLOR: '1', SHELL: '/bin/sh', ...(process.env['KVLANE_NATIVE'] ? { KVLANE_NATIVE: process.env['KVLANE_NATIVE'] } : {}) } });
  onTestFinished(() => void child.kill('SIGKILL'));
  let screen = '';
  const waiting = new Set<() => void>();
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    screen += text;
    for (const look of [...waiting]) look();
  });
  child.stdin.on('error', () => {});
  return {
    screen: () => screen,
    type: (text: string) => void child.stdin.write(text),
    shows: (text: string | RegExp) =>
      within(
        new Promise<void>((done) => {
          const look = (): void => {
            if (typeof text === 'string' ? !screen.includes(text) : !text.test(screen)) return;
            waiting.delete(look);
            done();
          };
          waiting.add(look);
          look();
        }),
        () => `the screen does not show ${text}:\n${screen}`,
      ),
    exitCode: withinLazily(new Promise<number | null>((done) => child.once('exit', done)), () => `it does not leave:\n${screen}`, 25_000),
  };
}
