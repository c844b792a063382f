// Looking at a running sidecar through its socket: what may be seen, and that nobody who looks costs anything.
import { chmodSync, existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, readlinkSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { attachable, reader, socketDirectory } from '../support/attached.ts';
import { freshDirectory, startSidecar, type Sidecar } from '../support/sidecar_process.ts';

/** READERS_MAX, ARRIVALS_MAX in sidecar/attach_door.ts; QUESTION_BYTES_MAX, FAULTS_MAX in attach.ts. */
const READERS_MAX = 16;
const ARRIVALS_MAX = 64;
const QUESTION_BYTES_MAX = 4096;
const FAULTS_MAX = 16;

/** Beyond what readers may keep of it: 16 chunks of 64 KiB, and as many answers, and what a collector of garbage leaves for later. */
const GROWTH_KIB_MAX = 48 * 1024; // what V8 lets lie about; two million lines are 48 MiB

/** PAUSE_MS_MIN in sidecar/attach.ts. */
const PAUSE_MS = 5;

/** In a second, now and then: V8 tidies up when it pleases. What beats would have no such second. */
const WAKINGS_MAX = 8;

async function pingMs(sidecar: Sidecar, times: number): Promise<number[]> {
  const took: number[] = [];
  for (let i = 0; i < times; i += 1) {
    const id = `ping-${Math.random()}`;
    const began = performance.now();
    sidecar.send({ id, op: 'ping' });
    await sidecar.answer(id);
    took.push(performance.now() - began);
  }
  return took.sort((a, b) => a - b);
}

test('whoever is attached is greeted with what `ready` says, and may ask what there is to see', async () => {
  const sidecar = await attachable(socketDirectory());
  const ready = await sidecar.ready();
  const look = reader(sidecar.socket);
  const hello = await look.line((line) => line['event'] === 'attached', 'the greeting');
  expect(hello).toMatchObject({ pid: sidecar.child.pid, parent_pid: process.pid, pid_namespace: readlinkSync('/proc/self/ns/pid'), protocol: ready.protocol, version: ready.version, arena: ready.arena, mounts: [{ name: 'kv0' }] });
  expect(await look.ask({ op: 'stats' })).toMatchObject({ ok: true, stats: { slots: { quarantined: 0 }, attached: { readers: 1, attached: 1 } } });
  expect(await look.ask({ op: 'stuck' })).toMatchObject({ ok: true, stuck: [] });
  expect(await look.ask({ op: 'stuck', over_ms: 0 })).toMatchObject({ ok: true, stuck: expect.any(Array) }); // it may be tidying up by itself
  expect(await look.ask({ op: 'ping' })).toMatchObject({ ok: true, now_us: expect.any(Number) });
  expect(await look.ask({ op: 'help' })).toMatchObject({ ok: true, help: { attached: expect.stringContaining('watch') } });
});

const CLIENTS = [
  { op: 'store', blocks: [{ key: 'a/00', text: 'x' }] },
  { op: 'load', inline: true, blocks: [{ key: 'a/00' }] },
  { op: 'lookup', keys: ['a/00'] },
  { op: 'remove', keys: ['a/00'] },
  { op: 'namespace', name: 'a', fingerprint: {} },
  { op: 'cancel', task: 1 },
  { op: 'shutdown' },
];

test('whoever is attached may ask for nothing that is the client’s', async () => {
  const sidecar = await attachable(socketDirectory());
  const look = reader(sidecar.socket);
  for (const question of CLIENTS) expect(await look.ask(question), question.op).toMatchObject({ ok: false, error: { code: 'INVALID_REQUEST', message: expect.stringContaining(`${question.op} is for the client`) as string } });
  sidecar.send({ id: 1, op: 'stats' });
  const { stats } = await sidecar.answer(1);
  expect(Object.keys(stats.ops)).toEqual(['stats']); // what the client asked for, and nobody else counts
});

test('the directory is 0700 and the socket 0600, whatever the umask; it goes when the sidecar leaves', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  expect(lstatSync(directory).mode & 0o777).toBe(0o700);
  expect(lstatSync(sidecar.socket).mode & 0o777).toBe(0o600);
  sidecar.send({ id: 1, op: 'shutdown' });
  await sidecar.exited;
  expect(readdirSync(directory)).toEqual([]);
});

test('what killed sidecars left is removed by the next, and nothing else is', async () => {
  const directory = socketDirectory();
  const killed = await attachable(directory);
  killed.child.kill('SIGKILL');
  await killed.exited;
  expect(existsSync(killed.socket)).toBe(true);
  const stopped = await attachable(directory);
  await expect.poll(() => existsSync(killed.socket), { timeout: 10_000, interval: 5 }).toBe(false);
  const second = await attachable(directory);
  await reader(second.socket).ask({ op: 'ping' });
  stopped.child.kill('SIGSTOP');
  second.child.kill('SIGKILL');
  await second.exited;
  writeFileSync(join(directory, 'note'), '');
  writeFileSync(join(directory, '1-00000000.sock'), ''); // no socket
  symlinkSync('/nowhere', join(directory, '2-00000000.sock'));
  await attachable(directory);
  await expect.poll(() => existsSync(second.socket), { timeout: 10_000, interval: 5 }).toBe(false);
  stopped.child.kill('SIGCONT');
  expect(await reader(stopped.socket).ask({ op: 'ping' })).toMatchObject({ ok: true });
  expect(readdirSync(directory)).toEqual(expect.arrayContaining(['note', '1-00000000.sock', '2-00000000.sock']));
});

test('--no-attach: there is no socket', async () => {
  const directory = socketDirectory();
  const off = startSidecar({ args: ['--mount', `kv0=${freshDirectory()}`, '--create', '--no-attach', '--attach-dir', directory] });
  await off.ready();
  await attachable(directory); // started later, and attachable
  expect(readdirSync(directory).filter((name) => name.startsWith(`${off.child.pid}-`))).toEqual([]);
});

test.each([
  ['open to others', 'so that others reach into it', (path: string) => { mkdirSync(path); chmodSync(path, 0o755); }],
  ['a link', 'is no directory', (path: string) => symlinkSync(freshDirectory(), path)],
  ['a file', 'is no directory', (path: string) => writeFileSync(path, '')],
  ['on a disk', 'is not a file system in memory', null],
])('a directory that is %s is not used; the sidecar says why, and serves', async (_what, why, make) => {
  const directory = make === null ? '/proc/sockets' : socketDirectory();
  make?.(directory);
  const sidecar = startSidecar({ args: ['--mount', `kv0=${freshDirectory()}`, '--create', '--attach-dir', directory] });
  await sidecar.ready();
  await expect.poll(() => sidecar.stderr(), { timeout: 10_000, interval: 5 }).toContain('not_attachable');
  expect(sidecar.stderr()).toContain(why);
  expect(await pingMs(sidecar, 1)).toHaveLength(1);
  if (make === null) expect(existsSync(directory)).toBe(false);
});

test('readers who send garbage, half a line, a line without an end or two million lines, or never read, neither delay nor grow the sidecar', async () => {
  const sidecar = await attachable(socketDirectory());
  await pingMs(sidecar, 200);
  const before = sidecar.statusKib('VmRSS')!;
  const calm = (await pingMs(sidecar, 200))[100]!;
  const garbage = reader(sidecar.socket);
  const half = reader(sidecar.socket);
  const endless = reader(sidecar.socket);
  const mute = Array.from({ length: 4 }, () => reader(sidecar.socket, { reads: false }));
  const many = Array.from({ length: 4 }, () => reader(sidecar.socket));
  await Promise.all([garbage, half, endless, ...many].map((one) => one.line((line) => line['event'] === 'attached', 'the greeting')));
  garbage.send('\x00\xff{"id":1,"op"\n'.repeat(1000));
  half.send('{"id":1,"op":"sta');
  endless.send('x'.repeat(QUESTION_BYTES_MAX + 1));
  const lines = '{"id":1,"op":"stats"}\n'.repeat(50_000);
  for (const one of [...mute, ...many]) for (let i = 0; i < 5; i += 1) one.send(lines); // two million together; our own memory holds what is not taken
  const watching = reader(sidecar.socket);
  const questions = async (): Promise<number> => (await watching.ask({ op: 'stats' }))['stats'].attached.questions;
  const began = performance.now(); // before they are counted
  const asked = await questions();
  const busy = await pingMs(sidecar, 400);
  console.info(`a ping takes ${calm.toFixed(2)} ms at the median, beside these readers ${busy[200]!.toFixed(2)}, at most ${busy.at(-1)!.toFixed(2)}; grown by ${sidecar.statusKib('VmRSS')! - before} KiB`);
  const answered = (await questions()) - asked - 1;
  expect(answered).toBeLessThanOrEqual((performance.now() - began) / PAUSE_MS + 1); // a rest after each, whatever the machine's speed
  await endless.ended;
  expect(endless.lines.at(-1)).toMatchObject({ error: { code: 'LINE_TOO_LONG' } });
  await garbage.ended;
  expect(garbage.lines.filter((line) => 'error' in line)).toHaveLength(FAULTS_MAX);
  expect(many.every((one) => one.lines.length > 1)).toBe(true); // each has its turn
  expect(sidecar.statusKib('VmRSS')! - before).toBeLessThan(GROWTH_KIB_MAX);
  half.send('ts"}\n');
  expect(await half.line((line) => 'stats' in line, 'the answer to the line that was in two halves')).toMatchObject({ id: 1, ok: true });
});

test('a socket at which nobody asks wakes nobody, nor does a reader who is silent', async () => {
  const sidecar = await attachable(socketDirectory());
  const look = reader(sidecar.socket);
  const sampled = async (): Promise<unknown> => (await look.ask({ op: 'stats' }))['stats'].process.sampled_ms_ago;
  await expect.poll(sampled, { timeout: 10_000, interval: 100 }).not.toBeNull(); // what it does by itself after its start is over
  const woken = (): number =>
    readdirSync(`/proc/${sidecar.child.pid}/task`).reduce((sum, task) => sum + Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(readFileSync(`/proc/${sidecar.child.pid}/task/${task}/status`, 'utf8'))![1]), 0);
  const inOneSecond = async (): Promise<number> => {
    const before = woken();
    await new Promise((resolve) => setTimeout(resolve, 1_000)); // the time in which nothing is to happen
    return woken() - before;
  };
  await expect.poll(inOneSecond, { timeout: 20_000, interval: 1 }).toBeLessThan(WAKINGS_MAX);
});

test('a reader who was slow gets all his answers once he reads, one after the other', async () => {
  const sidecar = await attachable(socketDirectory());
  const ASKED = 150; // more than a socket holds
  const slow = reader(sidecar.socket, { reads: false });
  for (let i = 0; i < ASKED; i += 1) slow.send(`{"id":${i},"op":"stats"}\n`);
  const other = reader(sidecar.socket);
  const questions = async (): Promise<number> => (await other.ask({ op: 'stats' }))['stats'].attached.questions;
  let before = -1;
  await expect.poll(async () => before === (before = (await questions()) - other.lines.length), { timeout: 10_000, interval: 100 }).toBe(true); // it goes no further
  expect(before).toBeLessThan(ASKED);
  let text = '';
  slow.socket.setEncoding('utf8').on('data', (part: string) => (text += part));
  await expect.poll(() => text.split('\n').length - 1, { timeout: 20_000 }).toBe(ASKED + 1);
  expect(text.split('\n').slice(1, -1).map((line) => (JSON.parse(line) as { id: number }).id)).toEqual(Array.from({ length: ASKED }, (_, i) => i));
});

test(`more than ${READERS_MAX} readers at a time are turned away, and there is room again when one has gone`, async () => {
  const sidecar = await attachable(socketDirectory());
  const readers = Array.from({ length: READERS_MAX }, () => reader(sidecar.socket));
  await Promise.all(readers.map((one) => one.ask({ op: 'ping' })));
  const beyond = reader(sidecar.socket);
  await beyond.ended;
  expect(beyond.lines).toEqual([]);
  readers[0]!.socket.destroy();
  await expect.poll(async () => (await readers[1]!.ask({ op: 'stats' }))['stats'].attached.readers, { timeout: 10_000 }).toBe(READERS_MAX - 1);
  expect(await reader(sidecar.socket).ask({ op: 'stats' })).toMatchObject({ stats: { attached: { turned_away: 1 } } });
});

test('readers who come and go in a loop find the door shut for a second, then open', async () => {
  const sidecar = await attachable(socketDirectory());
  const crowd = async (): Promise<string> => {
    const all = Array.from({ length: READERS_MAX }, () => reader(sidecar.socket));
    await Promise.all(all.map((one) => Promise.race([one.line((line) => line['event'] === 'attached', 'the greeting').catch(() => {}), one.ended])));
    for (const one of all) one.socket.destroy();
    return sidecar.stderr();
  };
  await expect.poll(crowd, { timeout: 20_000, interval: 1 }).toContain(`${ARRIVALS_MAX} readers came`); // until as many come in one second
  expect((await pingMs(sidecar, 5)).length).toBe(5);
  const again = async (): Promise<boolean> => {
    const one = reader(sidecar.socket);
    const answered = await Promise.race([one.ask({ op: 'ping' }).then(() => true), one.ended.then(() => false)]);
    one.socket.destroy();
    return answered;
  };
  await expect.poll(again, { timeout: 10_000, interval: 200 }).toBe(true);
});

test('a socket that somebody else listens on is left alone, and one whose sidecar is being made, too', async () => {
  const directory = socketDirectory();
  mkdirSync(directory, { mode: 0o700 });
  const other = join(directory, '7-00000000.sock');
  const server = createServer(() => {}).listen(other);
  onTestFinished(() => void server.close());
  const young = join(directory, '.8-00000000.new');
  const making = createServer(() => {});
  await new Promise<void>((resolve) => making.listen(young, resolve));
  const sidecar = await attachable(directory);
  await reader(sidecar.socket).ask({ op: 'ping' });
  expect(existsSync(other)).toBe(true);
  expect(existsSync(young)).toBe(true);
  making.close();
});
