// A person at a terminal. `script` makes a pseudo-terminal: what the sidecar sees is a tty on 0, 1 and 2,
// and what we read is the screen, with the echo of what was typed.
import { spawn } from 'node:child_process';
import { expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory, within } from '../support/sidecar_process.ts';

function terminal(...words: string[]) {
  const command = [process.execPath, sidecarMain(), 'serve', ...words].map((word) => `'${word}'`).join(' ');
  // `script` runs the command with $SHELL, or sh. A shell that stays beside the sidecar (dash does, bash does not) is in the terminal's
  // foreground too: ^C kills it, and `script` tells its end, 130, in place of ours. So: always sh, which becomes the sidecar.
  const child = spawn('script', ['-qefc', `exec ${command}`, '/dev/null'], { stdio: 'pipe', detached: true, env: { ...process.env, SHELL: '/bin/sh' } });
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
    exitCode: within(new Promise<number | null>((done) => child.once('exit', done)), () => `it does not leave:\n${screen}`, 25_000),
  };
}

test('on a terminal it says what to type, and what it says works when typed', async () => {
  const tty = terminal('--mount', `kv0=${freshDirectory()}`, '--create');
  await tty.shows('kvlane is ready. One JSON object a line; try:');
  await tty.shows('shutdown');
  const lines = [...tty.screen().matchAll(/^ {2}(\{"id":\d+,.*\})( {2,}.*)?\r$/gm)].map((match) => match[1]!);
  expect(lines).toHaveLength(5);
  tty.type(`${lines[0]}\n`);
  await tty.shows(/\{"id":1,"ok":true,"done":1/);
  tty.type(`${lines[1]}\n`);
  await tty.shows('"text":"hello"}]}');
  tty.type(`${lines[2]}\n`);
  await tty.shows('"present":[true,false]');
  tty.type(`${lines[3]}\n`);
  await tty.shows('"stuck":[]');
  tty.type(`${lines[4]}\n`);
  await tty.shows('"help":{');
  tty.type('\u0004');
  expect(await tty.exitCode).toBe(0);
});

test('a bad line gets an answer that says what would be right, and the session goes on', async () => {
  const tty = terminal('--mount', `kv0=${freshDirectory()}`, '--create');
  await tty.shows('kvlane is ready');
  tty.type("{id:1, op:'ping'}\n");
  await tty.shows('expected a name in double quotes');
  tty.type('{"id":1,"op":"pong"}\n');
  await tty.shows('did you mean');
  tty.type('{"id":2,"op":"ping"}\n');
  await tty.shows(/\{"id":2,"ok":true,"now_us":\d+\}/);
  tty.type('\u0003');
  expect(await tty.exitCode).toBe(0);
});

test('a store that is missing is offered to be made', async () => {
  const tty = terminal('--mount', `kv0=${freshDirectory()}`);
  await tty.shows(/kv0: there is no store in .*Make one\? \[y\/N\]/);
  tty.type('y\n');
  await tty.shows(/kv0.*(made|created|ok)/i);
  tty.type('{"id":1,"op":"store","blocks":[{"key":"demo/00ff","text":"hello"}],"timeout_ms":5000}\n');
  await tty.shows(/\{"id":1,"ok":true,"done":1/);
  tty.type('\u0004');
  expect(await tty.exitCode).toBe(0);
});

test('a no leaves the directory alone, and requests say what is wrong', async () => {
  const tty = terminal('--mount', `kv0=${freshDirectory()}`);
  await tty.shows('Make one? [y/N]');
  tty.type('n\n');
  await tty.shows('left as it is');
  tty.type('{"id":1,"op":"lookup","keys":["demo/00ff"]}\n');
  await tty.shows('WRONG_STORE');
  tty.type('\u0004');
  expect(await tty.exitCode).toBe(0);
});
