// kvlane top in a real terminal (a pseudo-terminal, read by xterm's emulation), and through pipes.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { attachable, reader, socketDirectory } from '../support/attached.ts';
import { within, type Sidecar } from '../support/sidecar_process.ts';
import { onTerminal } from '../support/terminal.ts';

/** What a shell's next line needs. */
const RESTORED = { alternate: false, cursorHidden: false, wraps: true };

function printed(...words: string[]) {
  const child = spawn(process.execPath, [sidecarMain(), 'top', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return within(new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => child.once('close', (code) => resolve({ code, stdout, stderr }))), () => `top does not end: ${stdout}${stderr}`);
}

async function busy(sidecar: Sidecar): Promise<void> {
  sidecar.send({ id: 'first', op: 'store', blocks: [{ key: 'a/00', text: 'x'.repeat(4096) }] });
  expect(await sidecar.answer('first')).toMatchObject({ ok: true });
}

test('it shows the sidecars, follows them, fits the terminal, and q gives the terminal back', async () => {
  const directory = socketDirectory();
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100'], { rows: 24, columns: 80 });
  await top.shows('no sidecar of this user runs'); // and it goes on looking
  expect(top.state()).toEqual({ alternate: true, cursorHidden: true, wraps: false });
  const sidecar = await attachable(directory);
  await top.shows(`sidecar ${sidecar.child.pid} of ${process.pid}`);
  await top.shows(/kv0 +store +unknown/);
  await busy(sidecar);
  await top.shows(/kv0 +store +ok/);
  await top.shows(/store +[\d.]+ +0 .* 1$/m); // the request, in the table of requests
  expect(top.screen().at(-1)).toMatch(/^q quit/);

  top.resize(12, 60);
  await expect.poll(() => top.screen().findIndex((line) => line.startsWith('q quit')), { timeout: 10_000 }).toBe(11);
  expect(top.screen().filter((line) => line.startsWith('kvlane top'))).toHaveLength(1);
  top.resize(40, 140);
  await expect.poll(() => top.screen().findIndex((line) => line.startsWith('q quit')), { timeout: 10_000 }).toBe(39);

  top.type(' ');
  await top.shows('paused');
  top.type(' ');
  await expect.poll(() => top.screen().join('\n'), { timeout: 10_000 }).not.toContain('paused');
  sidecar.send({ id: 'bye', op: 'shutdown' });
  await sidecar.exited;
  await top.shows('no sidecar of this user runs');
  top.type('q');
  expect(await top.exitCode).toBe(0);
  expect(top.state()).toEqual(RESTORED);
});

test('nothing flickers: only lines that changed are written, and none is wiped before it is painted', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100'], { rows: 24, columns: 100 });
  const written = (line: number): number => top.raw().split(`\x1b[${line};1H`).length - 1;
  await expect.poll(() => written(2), { timeout: 20_000 }).toBeGreaterThan(10); // the time that it is up
  expect(written(24)).toBe(1);
  expect(top.raw()).not.toContain('\x1b[2J');
  top.type('\x0c');
  await expect.poll(() => written(24), { timeout: 10_000 }).toBe(2);
  top.type('q');
  await top.exitCode;
});

test.each([
  ['ctrl-C', 130, null, '\x03'],
  ['SIGTERM', 143, 'SIGTERM', null],
  ['SIGHUP', 129, 'SIGHUP', null],
] as const)('ended by %s it gives the terminal back, with status %i', async (_how, status, signal, key) => {
  const top = onTerminal(['top', '--attach-dir', socketDirectory(), '--every', '100']);
  await top.shows('q quit');
  if (signal === null) top.type(key);
  else process.kill(await top.pid, signal);
  expect(await top.exitCode).toBe(status);
  expect(top.state()).toEqual(RESTORED);
});

test('stopped with ctrl-Z it gives the terminal back, and paints afresh when it goes on', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100']);
  await top.shows('sidecar');
  top.type('\x1a');
  await expect.poll(() => top.state(), { timeout: 10_000 }).toEqual(RESTORED);
  process.kill(await top.pid, 'SIGCONT');
  await expect.poll(() => top.state().alternate, { timeout: 10_000 }).toBe(true);
  await top.shows('sidecar');
  top.type('q');
  expect(await top.exitCode).toBe(0);
  expect(top.state()).toEqual(RESTORED);
});

test('stopped and continued by somebody else it takes the terminal afresh', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100']);
  await top.shows('sidecar');
  const taken = (): number => top.raw().split('\x1b[?1049h').length - 1;
  expect(taken()).toBe(1);
  process.kill(await top.pid, 'SIGSTOP');
  process.kill(await top.pid, 'SIGCONT');
  await expect.poll(taken, { timeout: 10_000 }).toBe(2);
  await top.shows('sidecar');
  top.type('q');
  expect(await top.exitCode).toBe(0);
  expect(top.state()).toEqual(RESTORED);
});

test.each([
  ['vt100', true],
  [undefined, false],
] as const)('on a terminal that calls itself %j it paints, with colours: %j', async (TERM, coloured) => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100'], { rows: 24, columns: 80 }, { TERM });
  await top.shows(/kv0 +load +(unknown|ok)/);
  expect(/\x1b\[\d+m./.test(top.raw())).toBe(coloured);
  top.type('q');
  expect(await top.exitCode).toBe(0);
  expect(top.state()).toEqual(RESTORED);
  expect(top.raw()).toContain('\x1b[24;1H\r\n\x1b[?1049l'); // without a second sheet the prompt comes below the picture
});

test('a dumb terminal gets one picture as text', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory], { rows: 24, columns: 80 }, { TERM: 'dumb' });
  expect(await top.exitCode).toBe(0);
  expect(top.raw()).toMatch(/kv0 +load/);
  expect(top.raw()).not.toContain('\x1b');
});

test('a terminal of one line and one column, or of very many, is painted on', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100'], { rows: 24, columns: 80 });
  await top.shows('sidecar');
  for (const [rows, columns] of [[1, 1], [2, 200], [300, 3]] as const) top.resize(rows, columns);
  await expect.poll(() => top.raw(), { timeout: 10_000 }).toContain('\x1b[300;1H');
  top.resize(30, 100);
  await top.shows(/kv0 +load/);
  top.type('q');
  expect(await top.exitCode).toBe(0);
});

test('when its terminal goes away it leaves', async () => {
  const directory = socketDirectory();
  await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100']);
  await top.shows('sidecar');
  const pid = await top.pid;
  top.goAway();
  await expect.poll(() => existsSync(`/proc/${pid}/exe`), { timeout: 10_000, interval: 5 }).toBe(false);
});

test('a sidecar that is stopped is shown as silent, and delays none of the others', async () => {
  const directory = socketDirectory();
  const well = await attachable(directory);
  const stopped = await attachable(directory);
  const top = onTerminal(['top', '--attach-dir', directory, '--every', '100']);
  await top.shows(`sidecar ${stopped.child.pid} of`);
  stopped.child.kill('SIGSTOP');
  await top.shows(new RegExp(`sidecar ${stopped.child.pid} +does not answer`));
  await top.shows('1 silent');
  await busy(well);
  await top.shows(/kv0 +store +ok/);
  stopped.child.kill('SIGCONT');
  await top.shows(`sidecar ${stopped.child.pid} of`);
  top.type('q');
  expect(await top.exitCode).toBe(0);
});

test('a sidecar that has no room for another reader is said to', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  await Promise.all(Array.from({ length: 16 }, () => reader(sidecar.socket).ask({ op: 'ping' })));
  const { stdout } = await printed('--once', '--attach-dir', directory);
  expect(stdout).toContain('all the readers that it takes');
});

test('--once and pipes get plain text, --json the numbers behind it', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  await busy(sidecar);
  for (const words of [['--once'], []]) {
    const { code, stdout } = await printed(...words, '--attach-dir', directory);
    expect(code).toBe(0);
    expect(stdout).toMatch(/kv0 +store +ok/);
    expect(stdout).not.toContain('\x1b');
  }
  const { code, stdout } = await printed('--json', '--attach-dir', directory);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    sidecars: [{ pid: sidecar.child.pid, answers: true, slots: { free: 8 }, requests: [{ op: 'store', total: 1 }], classes: [{ class: 'load' }, { class: 'store', state: 'ok', operations_done: 1, done_bytes: 4096 }, { class: 'metadata' }], calls: expect.any(Array) }],
  });
});

test('without a sidecar: status 1, where it looked on stderr, and JSON that is JSON', async () => {
  const directory = socketDirectory();
  const { code, stdout, stderr } = await printed('--once', '--attach-dir', directory);
  expect([code, stdout]).toEqual([1, '']);
  expect(stderr).toContain(directory);
  const json = await printed('--json', '--attach-dir', directory);
  expect(json.code).toBe(1);
  expect(JSON.parse(json.stdout)).toMatchObject({ sidecars: [] });
});
