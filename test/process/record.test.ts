// record.test.ts — a recorder between real pipes: what passes, what is kept, what happens when the file takes nothing; and a replay of it.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { LivesReader } from '../../clients/cli/record/format.ts';
import type { Life } from '../../clients/cli/record/format.ts';
import { nowUs } from '../../clients/node/pending.ts';
import { freshDirectory, isAlive, KNOWN_AT_READY, talkTo, within } from '../support/sidecar_process.ts';
import type { Sidecar } from '../support/sidecar_process.ts';

const kvlane = [process.execPath, sidecarMain()];

function recorder(file: string, words: readonly string[], options: readonly string[] = [], read = true): Sidecar {
  const child = spawn(kvlane[0]!, [kvlane[1]!, 'record', ...options, file, '--', ...words], { stdio: 'pipe', detached: true, env: { PATH: process.env['PATH'] } });
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, 'SIGKILL');
    } catch {
      // it has left
    }
    for (const stream of child.stdio) stream?.destroy();
  });
  return talkTo(child, read);
}
const served = (folder: string, ...words: string[]): string[] => ['serve', '--mount', `kv0=${folder}`, '--create', '--arena-mib', '1', '--slot-bytes', '4096', '--huge-pages', 'off', ...KNOWN_AT_READY, ...words];

function lives(file: string): Life[] {
  const reader = new LivesReader();
  for (const line of readFileSync(file, 'utf8').split('\n')) reader.line(line);
  expect(reader.damaged).toBe(0);
  return reader.lives;
}
const saidBy = (life: Life, from: string): unknown[] => life.entries.filter((entry) => entry.from === from).map((entry) => entry.message ?? entry.text ?? entry.base64);
const replay = (...words: string[]) => spawnSync(kvlane[0]!, [kvlane[1]!, 'replay', ...words], { encoding: 'utf8', timeout: 30_000, env: { PATH: process.env['PATH'] } });

describe('what passes', () => {
  test('every byte goes through, both ways, and the status of what was started comes back', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const data = Buffer.alloc(3_000_000);
    for (let i = 0; i < data.length; i += 1) data[i] = (i * 31 + (i >> 8)) % 256;
    const { stdout, stderr, status } = spawnSync(kvlane[0]!, [kvlane[1]!, 'record', file, '--', 'sh', '-c', 'echo said >&2; cat; exit 7'], { input: data, maxBuffer: 10_000_000, timeout: 20_000 });
    expect(stdout.equals(data)).toBe(true);
    expect(stderr.toString()).toBe('said\n');
    expect(status).toBe(7);
    const [life] = lives(file);
    expect(life!.head.command).toEqual(['sh', '-c', 'echo said >&2; cat; exit 7']);
    expect(saidBy(life!, 'log')).toEqual(['said']);
    expect(life!.entries.at(-1)).toMatchObject({ from: 'sidecar', exit: { code: 7, signal: null } });
    expect(statSync(file).mode & 0o777).toBe(0o600);
  });

  test('what was said last is passed on, however slowly it is taken, after its speaker has left', () => {
    // More than the client's pipe and a piece of ours, so that some is in the speaker's pipe still when it has left.
    const client = `
import os, subprocess, sys, time
mark, *command = sys.argv[1:]
recorder = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
while not os.path.exists(mark):
    time.sleep(0.01)
said = 0
time.sleep(0.4)  # longer than the recorder waits for a pipe in which nothing moves
while piece := recorder.stdout.read1(65536):
    if said == 0:
        time.sleep(1.5)  # longer than it waits for the end of the record
    said += len(piece)
print(said, recorder.wait(10))`;
    const mark = join(freshDirectory(), 'said');
    const speaker = ['python3', '-c', 'import os, sys; os.write(1, b"x" * 180000); open(sys.argv[1], "w")', mark];
    const { stdout, stderr } = spawnSync('python3', ['-c', client, mark, ...kvlane, 'record', join(freshDirectory(), 'r.ndjson'), '--', ...speaker], { encoding: 'utf8', timeout: 20_000 });
    expect(stdout, stderr).toBe('180000 0\n');
  });

  test('a descriptor that was inherited is there: a client brings its arena', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const client = `
import fcntl, json, os, subprocess, sys
arena = os.memfd_create("arena", os.MFD_ALLOW_SEALING)
os.ftruncate(arena, 65536)
fcntl.fcntl(arena, 1033, 2 | 4)  # F_ADD_SEALS: SHRINK, GROW
os.pwrite(arena, b"from the client", 4096)
sidecar = subprocess.Popen(sys.argv[1:] + ["--arena-fd", str(arena)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[arena])
ready = json.loads(sidecar.stdout.readline())
def ask(**request):
    sidecar.stdin.write(json.dumps(request).encode() + b"\\n")
    sidecar.stdin.flush()
    return json.loads(sidecar.stdout.readline())
stored = ask(id=1, op="store", keys=["demo/00"], slots=[1], bytes=15)
loaded = ask(id=2, op="load", keys=["demo/00"], slots=[2], bytes=15)
sidecar.stdin.close()
print(json.dumps([ready["arena"]["owner"], ready["arena"]["slots"], stored["ok"], loaded["ok"], os.pread(arena, 15, 8192).decode(), sidecar.wait(10)]))`;
    const words = ['--mount', `kv0=${freshDirectory()}`, '--create', '--slot-bytes', '4096', ...KNOWN_AT_READY];
    const { stdout, stderr } = spawnSync('python3', ['-c', client, ...kvlane, 'record', file, ...words], { encoding: 'utf8', timeout: 20_000 });
    expect(stdout, stderr).toBe('["client", 16, true, true, "from the client", 0]\n');
    const again = replay(file, '--fast');
    expect(again.status, again.stdout + again.stderr).toBe(0);
    expect(again.stdout).toContain('2 answers as recorded');
  });

  test('what is started reads nothing: the client feels it, and the recorder keeps no more than a pipe does', async () => {
    const run = recorder(join(freshDirectory(), 'r.ndjson'), ['sleep', '20'], ['--test-queue-bytes', '1000000']);
    const piece = Buffer.alloc(64 * 1024, 'x');
    const stdin = run.child.stdin!;
    let given = 0;
    while (stdin.write(piece) && given < 50_000_000) given += piece.length;
    const drained = await Promise.race([new Promise((done) => stdin.once('drain', () => done(true))), new Promise((done) => setTimeout(done, 300, false))]);
    if (drained === true) while (stdin.write(piece) && given < 50_000_000) given += piece.length;
    expect(given).toBeLessThan(5_000_000);
    expect(run.statusKib('VmRSS')!).toBeLessThan(200_000);
    run.child.kill('SIGTERM');
    expect((await run.exited).code).toBe(128 + 15); // of sleep, which knows no better
  });

  test.each<[string, (run: Sidecar, pid: number) => void, number | null]>([
    ['SIGTERM goes on to the sidecar, which leaves', (run) => run.child.kill('SIGTERM'), 0],
    ['the end of stdin too', (run) => run.end(), 0],
    ['a sidecar that was killed is told as such', (_run, pid) => process.kill(pid, 'SIGKILL'), 128 + 9],
  ])('%s', async (_what, end, status) => {
    const file = join(freshDirectory(), 'r.ndjson');
    const run = recorder(file, served(freshDirectory()));
    const { pid } = await run.ready();
    end(run, pid);
    expect((await run.exited).code).toBe(status);
    expect(lives(file)[0]!.entries.at(-1)!.exit).toEqual(status === 137 ? { code: null, signal: 'SIGKILL' } : { code: 0, signal: null });
  });

  test('a recorder that is killed takes its sidecar along', async () => {
    const run = recorder(join(freshDirectory(), 'r.ndjson'), served(freshDirectory()));
    const { pid } = await run.ready();
    run.child.kill('SIGKILL');
    const gone = async (): Promise<void> => {
      while (isAlive(pid)) await new Promise((go) => setTimeout(go, 20));
    };
    await within(gone(), () => 'the sidecar is still there');
  });

  test('the end of stdout is the client\'s at once, the exit when it is; after a signal that is not waited for any longer', async () => {
    const run = recorder(join(freshDirectory(), 'r.ndjson'), ['sh', '-c', 'trap "" TERM; exec >&-; sleep 20; sleep 20']);
    await run.ended;
    expect(isAlive(run.child.pid!)).toBe(true);
    run.child.kill('SIGTERM');
    expect((await run.exited).code).toBe(70);
  });

  test('a client that dies takes the recorder and its sidecar along, and the record is whole', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const client = `
import subprocess, sys, os
sidecar = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(sidecar.stdout.readline().decode(), flush=True)
sidecar.stdin.write(b'{"id":1,"op":"ping"}\\n')
sidecar.stdin.flush()
sidecar.stdout.readline()
os.kill(os.getpid(), 9)`;
    const { stdout, signal } = spawnSync('python3', ['-c', client, ...kvlane, 'record', file, ...served(freshDirectory())], { encoding: 'utf8', timeout: 20_000 });
    expect(signal).toBe('SIGKILL');
    const { pid } = JSON.parse(stdout) as { pid: number };
    const written = async (): Promise<void> => {
      while (isAlive(pid) || !(existsSync(file) && readFileSync(file, 'utf8').includes('"exit"'))) await new Promise((go) => setTimeout(go, 20));
    };
    await within(written(), () => `the end is not in ${readFileSync(file, 'utf8')}`);
    const [life] = lives(file);
    expect(saidBy(life!, 'client')).toContainEqual({ id: 1, op: 'ping' });
    expect(life!.entries.at(-1)).toMatchObject({ exit: { signal: null } });
  });

  test('a FILE that was forgotten is said, and none is made', () => {
    const cwd = freshDirectory();
    const { status, stderr } = spawnSync(kvlane[0]!, [kvlane[1]!, 'record', 'serve', '--mount', 'kv0=/x'], { cwd, encoding: 'utf8', timeout: 20_000 });
    expect({ status, stderr }).toEqual({ status: 2, stderr: 'kvlane record: FILE is wanted before serve: kvlane record bug.ndjson serve …; a file of that name is ./serve\n' });
    expect(readdirSync(cwd)).toEqual([]);
  });

  test('a command that is not there is said, with the status that a shell gives', async () => {
    const run = recorder(join(freshDirectory(), 'r.ndjson'), ['/no/such/program']);
    expect((await run.exited).code).toBe(127);
    expect(run.stderr()).toContain('kvlane record: /no/such/program cannot be started: spawn /no/such/program ENOENT');
  });
});

describe('a file that takes nothing', () => {
  /** The answers to so many pings, which have to come. */
  async function conversation(run: Sidecar, pings: number): Promise<void> {
    await run.ready();
    for (let id = 1; id <= pings; id += 1) {
      run.send({ id, op: 'ping' });
      await run.answer(id);
    }
  }

  test('a full disk is said aloud, and the conversation goes on', async () => {
    const run = recorder('/dev/full', served(freshDirectory()));
    await conversation(run, 50);
    run.end();
    expect((await run.exited).code).toBe(0);
    expect(run.stderr()).toMatch(/no space left \(ENOSPC\): what is said from now on may be missing[^]*the record in \/dev\/full is not whole/);
  });

  test('one that cannot be opened is said aloud, and the conversation goes on', async () => {
    const run = recorder('/no/such/folder/r.ndjson', served(freshDirectory()));
    await conversation(run, 5);
    run.end();
    expect((await run.exited).code).toBe(0);
    expect(run.stderr()).toMatch(/kvlane record: \/no\/such\/folder\/r\.ndjson cannot be written: ENOENT.*; the conversation goes on, and is not recorded/);
  });

  test('one that hangs: nothing waits for it, what waits is bounded, and what was lost is in the file once it answers', async () => {
    const folder = freshDirectory();
    const fifo = join(folder, 'fifo');
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0); // opening it waits for a reader
    const run = recorder(fifo, served(freshDirectory()), ['--test-queue-bytes', '20000']);
    await conversation(run, 600);
    expect(run.stderr()).toContain(`${fifo} takes no more (its disk is full, slow, or does not answer)`);
    const copy = join(folder, 'copy.ndjson');
    const reader = spawn('sh', ['-c', `cat ${fifo} >${copy}`]);
    onTestFinished(() => void reader.kill('SIGKILL'));
    const flows = async (): Promise<void> => {
      for (let id = 1000; !(existsSync(copy) && readFileSync(copy, 'utf8').includes('"lost"')); id += 1) {
        run.send({ id, op: 'ping' });
        await run.answer(id);
      }
    };
    await within(flows(), () => `nothing came: ${existsSync(copy) ? readFileSync(copy, 'utf8').slice(-500) : 'no file'}`);
    run.end();
    expect((await run.exited).code).toBe(0);
    await within(new Promise((done) => (reader.exitCode === null ? reader.once('exit', done) : done(null))), () => 'the reader goes on');
    const [life] = lives(copy);
    expect(life!.entries.filter((entry) => entry.lost !== undefined).map((entry) => entry.lost!.of)).toEqual(expect.arrayContaining(['client', 'sidecar']) as string[]);
    expect(life!.entries.at(-1)).toMatchObject({ exit: { code: 0 } });
  });

  test('one that hangs to the end: the recorder leaves in time, and says what is missing', async () => {
    const fifo = join(freshDirectory(), 'fifo');
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0);
    const run = recorder(fifo, served(freshDirectory()));
    await conversation(run, 3);
    const began = performance.now();
    run.end();
    expect((await run.exited).code).toBe(0);
    expect(performance.now() - began).toBeLessThan(9_000); // it is waited for one second
    expect(run.stderr()).toContain(`the record in ${fifo} is not whole`);
  });

  test('one whose process is killed: that is said, and the conversation goes on', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const run = recorder(file, served(freshDirectory()));
    await conversation(run, 3);
    const [sidecar, writer] = readFileSync(`/proc/${run.child.pid}/task/${run.child.pid}/children`, 'utf8').split(' ').map(Number);
    expect(sidecar).toBe((await run.ready()).pid);
    process.kill(writer!, 'SIGKILL');
    await within(
      (async () => {
        while (!run.stderr().includes('cannot be written')) await new Promise((go) => setTimeout(go, 20));
      })(),
      () => run.stderr(),
    );
    run.send({ id: 4, op: 'ping' });
    await run.answer(4);
    run.end();
    expect((await run.exited).code).toBe(0);
    expect(run.stderr()).toMatch(/cannot be written: the process that writes ended with SIGKILL; the conversation goes on, and is not recorded[^]*is not whole/);
  });

  test('--max-mib is where it ends, and the conversation goes on', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const data = Buffer.from(`${'y'.repeat(999)}\n`.repeat(3000));
    const { stdout, stderr } = spawnSync(kvlane[0]!, [kvlane[1]!, 'record', '--max-mib', '1', file, '--', 'cat'], { input: data, maxBuffer: 10_000_000, timeout: 20_000 });
    expect(stdout.length).toBe(data.length);
    expect(stderr.toString()).toContain('has reached 1048576 bytes (--max-mib): nothing more is recorded');
    expect(statSync(file).size).toBeLessThan(1_100_000);
    expect(lives(file)[0]!.entries.at(-1)).toMatchObject({ full: true });
  });
});

describe('replay', () => {
  /** A conversation with something of everything, recorded. */
  async function recorded(folder: string, file: string): Promise<void> {
    const run = recorder(file, served(folder));
    const { pid } = await run.ready();
    let id = 0;
    const ask = async (request: object): Promise<Record<string, unknown>> => {
      id += 1;
      run.send({ id, ...request });
      return run.answer(id);
    };
    await ask({ op: 'namespace', name: 'demo', fingerprint: { model: 'none' } });
    await ask({ op: 'load', keys: ['demo/00'], inline: true });
    await ask({ op: 'store', blocks: [{ key: 'demo/00', text: 'hello' }, { key: 'demo/01', slot: 3, bytes: 4096 }], deadline_us: nowUs() + 10_000_000 });
    await ask({ op: 'load', keys: ['demo/00', 'demo/02'], inline: true, timeout_ms: 5000 });
    await ask({ op: 'load', keys: ['demo/01'], slots: [4], bytes: 100 });
    await ask({ op: 'lookup', namespace: 'demo', keys: ['00', '01', '02'] });
    await ask({ op: 'remove', keys: ['demo/01'] });
    await ask({ op: 'load', blocks: [{ key: 'demo/00', slot: 999, bytes: 1 }] });
    await ask({ op: 'stats' });
    await ask({ op: 'stuck' });
    run.write('{oops\n\n');
    await run.message((message) => message['line'] === 11, 'the refusal');
    await ask({ op: 'lookup', keys: [`demo/${'f'.repeat(8)}`] });
    expect(pid).toBeGreaterThan(0);
    run.send({ id: 'bye', op: 'shutdown' });
    expect((await run.exited).code).toBe(0);
  }

  test('the same conversation differs in nothing, however fast; blocks that were there before are there again', async () => {
    const folder = freshDirectory();
    const file = join(freshDirectory(), 'r.ndjson');
    await recorded(folder, file);
    const first = replay(file, '--fast');
    expect(first.status, first.stdout + first.stderr).toBe(0);
    expect(first.stdout).toContain('13 answers as recorded');
    // Once more on the same store: now half of it is found there. Both lives are in one file.
    await recorded(folder, file);
    const both = replay(file, '--speed', '20', '--json');
    expect(both.status, both.stdout + both.stderr).toBe(0);
    expect(JSON.parse(both.stdout)).toMatchObject({ alike: true, lives: [{ alike: 13, differ: [], also: [] }, { alike: 13, differ: [], also: [] }] });
    const second = replay(file, '--fast', '--life', '2');
    expect(second.status, second.stdout + second.stderr).toBe(0);
  });

  test('what differs is told, with its line, and is the exit status', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    await recorded(freshDirectory(), file);
    const text = readFileSync(file, 'utf8').replace('"present":[true,true,false],"prefix":2', '"present":[true,false,false],"prefix":1').replace('"text":"hello"}],"failed"', '"text":"jello"}],"failed"');
    writeFileSync(file, text);
    const { status, stdout, stderr } = replay(file, '--fast');
    expect(status, stdout + stderr).toBe(1);
    expect(stdout).toMatch(/2 answers of 13 differ\n[^]*line 4, at .*: load #4 demo\/00 and 1 more\n {4}block 0: .*jello.* → .*hello.*\n {2}line 6, at .*: lookup #6 demo\/00 and 2 more\n {4}prefix: 1 → 2\n {4}present\[1\]: false → true\n/);
  });

  test('on a store of ours it works there, and leaves it where it is', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const folder = freshDirectory();
    await recorded(folder, file);
    const { status, stdout, stderr } = replay(file, '--fast', '--store', `kv0=${folder}`);
    expect(status, stdout + stderr).toBe(1); // demo/00 is there from the first time
    expect(stdout).toMatch(/line 2, at .*: load #2 demo\/00\n {4}ok: false → true/);
    expect(readdirSync(folder)).toContain('kvlane.json');
  });

  // A record is a file that somebody sends.
  const head = { kvlane_record: 1, life: 1, version: '0.1.0', began: 'then', began_us: 5, command: ['kvlane', 'serve'], system: '', node: '' };
  const mount = { name: 'kv0', root: '/mnt', device: null, state: 'unknown' };
  const ready = { event: 'ready', protocol: 1, version: '0.1.0', pid: 1, now_us: 5, engine: 'threads', timeout_ms: 2000, stall_ms: 1000, arena: { owner: 'sidecar', path: '', bytes: 65536, slot_bytes: 4096, slots: 16, page_bytes: 4096, backing: 'shmem' }, mounts: [mount], limits: {} };
  const sidecar = (message: unknown): object => ({ life: 1, at_us: 1000, from: 'sidecar', message });
  const asked = { life: 1, at_us: 1500, from: 'client', message: { id: 1, op: 'load', keys: ['demo/00'] } };
  test.each<[string, unknown[], string]>([
    ['no object', [null], 'line 1 is no JSON object: this is no record of kvlane'],
    ['another format', [{ ...head, kvlane_record: 2 }], 'line 1: a record of format 2, this kvlane reads 1'],
    ['a head without a command', [{ ...head, command: 'serve' }], 'line 1: "command" must be a list of words, got "serve"'],
    ['a life that never began', [head], 'life 1 never became'],
    ['a mount whose name leads elsewhere', [head, sidecar({ ...ready, mounts: [{ ...mount, name: '../../up' }] })], 'life 1, at 1 ms: no sidecar of kvlane says this: mounts[0].name must be a name that has 1 to 64 of A-Z a-z 0-9 . _ - and starts with a letter or digit; got "../../up"'],
    ['a ready without an arena', [head, sidecar({ ...ready, arena: undefined })], 'arena is missing'],
    ['a number that is a word', [head, sidecar({ ...ready, arena: { ...ready.arena, slots: 'many' } })], 'arena.slots must be integer, got "many"'],
    ['an answer of another shape', [head, sidecar(ready), asked, sidecar({ id: 1, ok: false, done: 0, failed: [{ code: 'NOT_FOUND', blocks: [[0]] }, 7] })], 'failed[1] must be object, got 7'],
    ['a refusal that is none', [head, sidecar(ready), asked, sidecar({ id: 1, ok: false, error: null })], 'error must be object, got null'],
  ])('%s is refused in words, and nothing is made of it', (_what, lines, says) => {
    const file = join(freshDirectory(), 'sent.ndjson');
    writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    const before = freshDirectory();
    const { status, stderr, stdout } = spawnSync(kvlane[0]!, [kvlane[1]!, 'replay', file, '--fast'], { encoding: 'utf8', timeout: 30_000, env: { PATH: process.env['PATH'], TMPDIR: before } });
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toContain(says === 'life 1 never became' ? `${file}: the sidecar never became ready, so there is nothing to replay, and its log is empty` : says);
    expect(stderr).toContain(file);
    expect(stderr).not.toMatch(/^ {4}at /m);
    expect(readdirSync(before)).toEqual([]);
  });

  test('a line without an end is not gathered for good', () => {
    const { status, stderr } = replay('/dev/zero');
    expect(status).toBe(2);
    expect(stderr).toMatch(/^kvlane replay: \/dev\/zero, line 1 has more than \d+ characters: this is no record of kvlane\n$/);
  });

  test('interrupted, it takes its stores away', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    await recorded(freshDirectory(), file);
    // What came an hour later is waited for.
    writeFileSync(file, readFileSync(file, 'utf8').replace(/"at_us":(\d+),"from":"client","message":\{"id":12,/, '"at_us":3600000000,"from":"client","message":{"id":12,'));
    const place = freshDirectory();
    const child = spawn(kvlane[0]!, [kvlane[1]!, 'replay', file], { stdio: 'ignore', env: { PATH: process.env['PATH'], TMPDIR: place } });
    onTestFinished(() => void child.kill('SIGKILL'));
    const made = async (): Promise<void> => {
      while (!readdirSync(place).some((name) => existsSync(join(place, name, 'kv0', 'kvlane.json')))) await new Promise((go) => setTimeout(go, 20));
    };
    await within(made(), () => `${readdirSync(place).join(' ')}`);
    child.kill('SIGTERM');
    expect(await within(new Promise((done) => child.once('exit', done)), () => 'it goes on')).toBe(128 + 15);
    expect(readdirSync(place)).toEqual([]);
  });

  test.each<[string, string, RegExp]>([
    ['no file', '/no/such/record', /cannot be read: ENOENT/],
    ['another file', 'package.json', /package\.json, line 1 is no JSON object: this is no record of kvlane/],
    ['an empty file', '/dev/null', /is empty/],
  ])('%s is refused in words', (_what, file, says) => {
    const { status, stderr } = replay(file);
    expect(status).toBe(2);
    expect(stderr).toMatch(says);
  });

  test('it keeps the times of the record, divided by the speed', async () => {
    const file = join(freshDirectory(), 'r.ndjson');
    const run = recorder(file, served(freshDirectory()));
    await run.ready();
    for (const id of [1, 2]) {
      run.send({ id, op: 'ping' });
      await run.answer(id);
    }
    run.end();
    await run.exited;
    // As if the second had come an hour later.
    writeFileSync(file, readFileSync(file, 'utf8').replace(/"at_us":(\d+)(?=,"from":"client","message":\{"id":2,)/, (_all, atUs: string) => `"at_us":${Number(atUs) + 3_600_000_000}`));
    const took = (...words: string[]): number => (JSON.parse(replay(file, '--json', ...words).stdout) as { lives: { took_ms: { replayed: number } }[] }).lives[0]!.took_ms.replayed;
    expect(took('--speed', '3000')).toBeGreaterThan(1200);
    expect(took('--fast')).toBeLessThan(30_000); // and not an hour
  });
});
