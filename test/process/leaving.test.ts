// Every way in which a real sidecar ends, and the status that says which it was.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory, startSidecar, talkTo, within } from '../support/sidecar_process.ts';

/** R, S, D, Z…, or gone. A container whose first process does not reap keeps the dead as Z. */
function processState(pid: number): string {
  try {
    return /\) (\w) /.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1] ?? 'gone';
  } catch {
    return 'gone';
  }
}

test('the end of stdin: everything asked is answered, then it leaves', async () => {
  const sidecar = startSidecar();
  const blocks = Array.from({ length: 8 }, (_, block) => ({ key: `a/0${block}`, text: 'x'.repeat(1000) }));
  sidecar.send({ id: 1, op: 'store', blocks }, { id: 2, op: 'ping' });
  sidecar.end();
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
  expect(await sidecar.answer(1)).toMatchObject({ ok: true, done: 8 });
  expect(await sidecar.answer(2)).toMatchObject({ ok: true });
});

test('a shutdown request is answered, then it leaves', async () => {
  const sidecar = startSidecar();
  sidecar.send({ id: 1, op: 'shutdown', timeout_ms: 300 });
  expect(await sidecar.answer(1)).toEqual({ id: 1, ok: true });
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
});

test.each(['SIGTERM', 'SIGINT', 'SIGHUP'] as const)('%s: it leaves by itself, with status 0', async (signal) => {
  const sidecar = startSidecar();
  await sidecar.ready();
  sidecar.child.kill(signal);
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
  await sidecar.ended;
  expect(sidecar.stderr()).toContain(`"signal":"${signal}"`);
});

test('SIGKILL: the parent sees the end of stdout at once', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  sidecar.child.kill('SIGKILL');
  await sidecar.ended;
  expect(await sidecar.exited).toEqual({ code: null, signal: 'SIGKILL' });
});

test('the parent is killed while somebody else holds stdin open: the sidecar leaves all the same', async () => {
  // A shell between us: it starts the sidecar on our own pipes, says its pid, and is then killed. stdin is a FIFO that we hold
  // open: an ordinary pipe Node would close as soon as the shell is gone, and its end would be the faster witness.
  const fifo = join(freshDirectory(), 'stdin');
  execFileSync('mkfifo', [fifo]);
  const stdin = openSync(fifo, 'r+');
  onTestFinished(() => closeSync(stdin));
  const parent = spawn(
    'sh',
    ['-c', 'exec 3<&0; "$@" <&3 & echo "{\\"event\\":\\"started\\",\\"pid\\":$!}"; wait', 'sh', process.execPath, sidecarMain(), 'serve', '--mount', `kv0=${freshDirectory()}`, '--create'],
    { stdio: [stdin, 'pipe', 'pipe'], detached: true },
  );
  onTestFinished(() => {
    try {
      process.kill(-parent.pid!, 'SIGKILL'); // the group: the sidecar too, should it still be there
    } catch {
      // all gone, as it should be
    }
  });
  const sidecar = talkTo(parent);
  await sidecar.ready();
  const { pid } = await sidecar.message((message) => message['event'] === 'started', 'the pid');
  writeSync(stdin, '{"id":1,"op":"ping"}\n');
  await sidecar.answer(1);
  parent.kill('SIGKILL');
  await sidecar.exited;
  await sidecar.ended; // the sidecar held stdout, so this is its end; stdin is still open here
  expect(sidecar.stderr()).toContain('"reason":"parent_gone"');
  await expect.poll(() => processState(pid as number), { timeout: 5_000 }).toMatch(/gone|Z/);
});

test('stdout is closed: the next answer shows it, and it leaves with status 74', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  const stdout = sidecar.child.stdout as Readable;
  stdout.destroy();
  await once(stdout, 'close');
  sidecar.send({ id: 1, op: 'ping' });
  expect(await sidecar.exited).toEqual({ code: 74, signal: null });
  expect(sidecar.stderr()).toContain('EPIPE');
});

test.each([
  ['blocks', 0],
  ['does not block', constants.O_NONBLOCK],
])('a full stderr that nobody reads and that %s: answers go on, and it leaves', async (_how, flag) => {
  const path = join(freshDirectory(), 'stderr');
  execFileSync('mkfifo', [path]);
  const filler = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const stderr = openSync(path, constants.O_WRONLY | flag);
  onTestFinished(() => {
    closeSync(filler);
    closeSync(stderr);
  });
  expect(() => {
    for (;;) writeSync(filler, 'x'.repeat(4096));
  }).toThrow('EAGAIN');

  const sidecar = startSidecar({ stdio: ['pipe', 'pipe', stderr] });
  sidecar.send({ id: 1, op: 'store', blocks: [{ key: 'a/00', text: 'x' }] });
  expect(await sidecar.answer(1)).toMatchObject({ ok: true });
  sidecar.end();
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
});

test.each([
  ['blocks', 0],
  ['does not block', constants.O_NONBLOCK],
])('a stdout that was full before it started, and %s: ready and answers come when there is room', async (_how, flag) => {
  const path = join(freshDirectory(), 'stdout');
  execFileSync('mkfifo', [path]);
  const filler = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const stdout = openSync(path, constants.O_WRONLY | flag);
  onTestFinished(() => {
    closeSync(filler);
    closeSync(stdout);
  });
  let filled = 0;
  expect(() => {
    for (;;) filled += writeSync(filler, 'x'.repeat(4096));
  }).toThrow('EAGAIN');

  const store = freshDirectory();
  const sidecar = startSidecar({ args: ['--mount', `kv0=${store}`, '--create'], stdio: ['pipe', stdout, 'pipe'] });
  sidecar.send({ id: 1, op: 'store', blocks: [{ key: 'a/00', text: 'x' }] });
  await expect.poll(() => readdirSync(store, { recursive: true }).join(), { timeout: 10_000 }).toContain('00');
  let read = '';
  await expect
    .poll(
      () => {
        const piece = Buffer.alloc(65536);
        try {
          read += piece.toString('utf8', 0, readSync(filler, piece));
        } catch (error) {
          expect(error).toMatchObject({ code: 'EAGAIN' });
        }
        return read.slice(filled);
      },
      { timeout: 10_000 },
    )
    .toContain('"id":1');
  const lines = read.slice(filled).trim().split('\n').map((line) => JSON.parse(line) as object);
  expect(lines[0]).toMatchObject({ event: 'ready' });
  expect(lines.at(-1)).toMatchObject({ id: 1, ok: true });
  sidecar.end();
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
});

test('a stdout whose reader is gone before ready: it leaves with status 74', async () => {
  const path = join(freshDirectory(), 'stdout');
  execFileSync('mkfifo', [path]);
  const reader = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  const stdout = openSync(path, constants.O_WRONLY);
  closeSync(reader);
  onTestFinished(() => closeSync(stdout));
  const sidecar = startSidecar({ stdio: ['pipe', stdout, 'pipe'] });
  expect(await sidecar.exited).toEqual({ code: 74, signal: null });
  expect(sidecar.stderr()).toContain('EPIPE');
});

test('asked twice, it leaves once', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  sidecar.send({ id: 1, op: 'shutdown' });
  sidecar.end();
  sidecar.child.kill('SIGTERM');
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
});

test('stdin that has ended before it starts: ready, then it leaves', async () => {
  const sidecar = startSidecar();
  const gone = within(sidecar.exited, () => 'it did not leave');
  sidecar.end();
  expect(await gone).toEqual({ code: 0, signal: null });
  await sidecar.ended;
  expect(sidecar.messages[0]).toMatchObject({ event: 'ready' });
});
