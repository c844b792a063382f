// A person at a terminal: the console, and what is left of it where one end is a pipe.
import { spawn, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { terminal } from '../support/console_terminal.ts';
import { freshDirectory, isAlive, within } from '../support/sidecar_process.ts';

const KNOWN = ['--test-start-wait-ms', '10000'];
const made = (): string[] => ['--mount', `kv0=${freshDirectory()}`, '--create', ...KNOWN];

describe('the console, which serve is at a terminal', () => {
  test.each(['serve', 'console'])('%s: requests in words and as JSON are answered in words, with the time they took', async (name) => {
    const tty = terminal([name, ...made()]);
    await tty.shows(/kvlane 0\.1\.0 is ready: process \d+, engine threads, 64 slots of 1 MiB, answers within 2 s/);
    await tty.shows('tab completes');
    tty.type('store demo/00ff hello\r');
    await tty.shows(/#1 stored 1 block \([\d.]+ ms\)/);
    tty.type('{"op":"load","keys":["demo/00ff"],"inline":true}\r');
    await tty.shows(/#2 loaded 1 block [^]*demo\/00ff {2}5 bytes {2}"hello"/);
    tty.type('lookup demo/00ff demo/0100\r');
    await tty.shows(/#3 1 of 2 blocks is there [^]*demo\/00ff {2}present[^]*demo\/0100 {2}absent/);
    tty.type('stuck\r');
    await tty.shows('#4 nothing is stuck');
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });

  test('a refusal has a caret under the place that it speaks of, in words, in JSON and where it is no JSON', async () => {
    const tty = terminal(['console', ...made()]);
    await tty.shows('tab completes');
    tty.type('load demo/00ff demo/00XY\r');
    await tty.shows(/ {2}load demo\/00ff demo\/00XY\r\n {17}\^{9}\r\n#1 INVALID_REQUEST .*keys\[1\] must be/);
    tty.type('{"op":"load","blocks":[{"key":"demo/00ff","slot":99,"bytes":1}]}\r');
    await tty.shows(/\r\n {51}\^\^\r\n#2 INVALID_REQUEST .*blocks\[0\]\.slot must be an integer from 0 to 63, got 99/);
    tty.type("{id:1, op:'ping'}\r");
    await tty.shows(/ {2}\{id:1, op:'ping'\}\r\n {3}\^\r\nINVALID_REQUEST .*expected a name in double quotes/);
    tty.type('{"id":7,"op":"pong"}\r');
    await tty.shows(/\r\n {15}\^{6}\r\n#7 UNKNOWN_OP .*did you mean/);
    tty.type('{"id":8,"op":"ping"}\r');
    await tty.shows(/#8 pong/);
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });

  test('tab completes a request, a field, a mount and a key that was used before', async () => {
    const tty = terminal(['console', ...made()]);
    await tty.shows('tab completes');
    tty.type('store demo/00ff hello\r');
    await tty.shows('#1 stored');
    // A tab that is not the last of what comes at once is a pasted one.
    for (const [typed, shown] of [['rem\t', 'remove '], ['de\t', 'remove demo/00ff '], ['time\t', 'timeout_ms='], ['5000 mount=\t', '5000 mount=kv0 '], ['\r', '#2 removed 1 block']] as const) {
      tty.type(typed);
      await tty.shows(shown);
    }
    for (const [typed, shown] of [['{"op":"look\t', '{"op":"lookup"'], [',"ke\t', ',"keys":'], ['["dem\t', '["demo/00ff"'], [']}\r', '#3 0 of 1 block are there']] as const) {
      tty.type(typed);
      await tty.shows(shown);
    }
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });

  test('ctrl-C clears a line, then leaves; what was typed comes back in the next session', async () => {
    const home = freshDirectory();
    const first = terminal(['console', ...made()], { home });
    await first.shows('tab completes');
    first.type('ping\r');
    await first.shows('#1 pong');
    first.type('half a line\u0003');
    await first.shows('^C');
    first.type('stuck\r');
    await first.shows('#2 nothing is stuck');
    first.type('\u0003');
    expect(await first.exitCode).toBe(0);

    const second = terminal(['console', ...made()], { home });
    await second.shows('tab completes');
    second.type('\u001b[A\u001b[A\r'); // up, up: what came before the last one
    await second.shows('#1 pong');
    second.type('\u0004');
    expect(await second.exitCode).toBe(0);
    expect(readFileSync(join(home, '.local/state/kvlane/history'), 'utf8')).toBe('ping\nstuck\nping\n');
    expect(statSync(join(home, '.local/state/kvlane/history')).mode & 0o777).toBe(0o600);
  });

  test('a history that cannot be read or written delays nothing and is not missed', async () => {
    const home = freshDirectory();
    mkdirSync(join(home, '.local/state/kvlane'), { recursive: true });
    expect(spawnSync('mkfifo', [join(home, '.local/state/kvlane/history')]).status).toBe(0); // opening it waits for the other end, for good
    const tty = terminal(['console', ...made()], { home });
    await tty.shows('tab completes');
    tty.type('ping\r');
    await tty.shows('#1 pong');
    tty.type('.quit\r');
    expect(await tty.exitCode).toBe(0);
  });

  test('a store that is missing is offered to be made, and a yes is enough', async () => {
    const tty = terminal(['console', '--mount', `kv0=${freshDirectory()}`, ...KNOWN]);
    await tty.shows(/kv0: there is no store in .*Make one\? \[y\/N\]/);
    tty.type('y\r');
    await tty.shows(/kv0: a store is made in /);
    await tty.shows(/kv0, store: suspended → ok/);
    tty.type('store demo/00ff hello timeout_ms=5000\r');
    await tty.shows('#1 stored 1 block');
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });

  test('a no leaves the directory alone, and requests say what is wrong', async () => {
    const folder = freshDirectory();
    const tty = terminal(['console', '--mount', `kv0=${folder}`, ...KNOWN]);
    await tty.shows('Make one? [y/N]');
    tty.type('n\r');
    await tty.shows('left as it is');
    tty.type('lookup demo/00ff\r');
    await tty.shows('WRONG_STORE');
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
    expect(readdirSync(folder)).toEqual([]);
  });

  test('.wire shows the lines of the protocol beside the words, and .raw nothing else', async () => {
    const tty = terminal(['console', ...made()]);
    await tty.shows('tab completes');
    tty.type('.wire\rlookup demo/00ff\r');
    await tty.shows('→ {"id":1,"op":"lookup","keys":["demo/00ff"]}');
    await tty.shows('← {"id":1,"ok":true,"present":[false]');
    await tty.shows('#1 0 of 1 block are there');
    tty.type('.wire\r.raw\rping\r');
    await tty.shows(/\{"id":2,"ok":true,"now_us":\d+\}/);
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
    expect(tty.screen()).not.toContain('#2');
  });

  test('with --record what was said is in a file, and can be replayed', async () => {
    const file = join(freshDirectory(), 'typed.ndjson');
    const tty = terminal(['console', '--record', file, ...made()]);
    await tty.shows('tab completes');
    tty.type('store demo/00ff hello\r');
    await tty.shows('#1 stored 1 block');
    tty.type('load demo/00ff demo/0100\r');
    await tty.shows('#2 loaded 1 of 2 blocks');
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
    const again = spawnSync(process.execPath, [sidecarMain(), 'replay', file, '--fast'], { encoding: 'utf8', timeout: 20_000 });
    expect(again.stdout + again.stderr).toMatch(/^2 answers as recorded/);
    expect(again.status).toBe(0);
  });

  test('it attaches to a sidecar that runs, and shows what its socket says', async () => {
    const path = join(freshDirectory(), 'sidecar.sock');
    const heard: string[] = [];
    let reader: Socket | null = null;
    const server = createServer((socket) => {
      reader = socket;
      const arena = { slots: 8, slot_bytes: 4096 };
      const mounts = [{ name: 'kv0', root: '/mnt', state: 'ok', store_id: 'x', fs_type: 'ext4' }];
      socket.write(`${JSON.stringify({ event: 'attached', version: '0.1.0', pid: 4711, engine: 'threads', timeout_ms: 2000, arena, mounts })}\n`);
      createInterface({ input: socket }).on('line', (line) => {
        heard.push(line);
        const { id, op } = JSON.parse(line) as { id: unknown; op: string };
        socket.write(`${JSON.stringify(op === 'ping' || op === 'watch' ? { id, ok: true, now_us: 5 } : { id, ok: false, error: { code: 'INVALID_REQUEST', message: 'only what looks' } })}\n`);
      });
    }).listen(path);
    onTestFinished(() => void server.close());
    const tty = terminal(['console', '--attach', path]);
    await tty.shows('is ready: process 4711, engine threads, 8 slots of 4 KiB');
    tty.type('ping\r');
    await tty.shows('#1 pong');
    reader!.write(`${JSON.stringify({ event: 'mount', mount: 'kv0', class: 'load', state: 'suspended', was: 'ok', reason: 'it hangs' })}\n`);
    await tty.shows('kvlane (kv0 load suspended)>');
    tty.type('lookup demo/00\r');
    await tty.shows(/#2 INVALID_REQUEST .*only what looks/);
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
    expect(heard).toEqual(['{"id":"console","op":"watch"}', '{"id":1,"op":"ping"}', '{"id":2,"op":"lookup","keys":["demo/00"]}']);

    const plain = spawn(process.execPath, [sidecarMain(), 'console', '--attach', path], { stdio: 'pipe' });
    let said = '';
    plain.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    plain.stdin.end('{"id":1,"op":"ping"}\n');
    expect(await within(new Promise((done) => plain.once('close', done)), () => `it does not leave: ${said}`)).toBe(0);
    expect(said.trimEnd().split('\n').at(-1)).toBe('{"id":1,"ok":true,"now_us":5}');
  });

  test('a socket where nobody answers is not waited for', async () => {
    const path = join(freshDirectory(), 'mute.sock');
    const server = createServer(() => {}).listen(path); // accepts, and that is all: a sidecar that was stopped
    onTestFinished(() => void server.close());
    const tty = terminal(['console', '--attach', path]);
    await tty.shows(/nothing came from it within 2000 ms: the sidecar is stopped, busy or dead/);
    expect(await tty.exitCode).toBe(1);
    const gone = terminal(['console', '--attach', `${path}.not`]);
    await gone.shows('ENOENT');
    expect(await gone.exitCode).toBe(1);
  });

  test('a sidecar that is killed under it is said, with its signal, and is the exit status', async () => {
    const tty = terminal(['console', ...made()]);
    await tty.shows('tab completes');
    tty.type('half a line');
    await tty.shows('half a line');
    process.kill(Number(/ready: process (\d+)/.exec(tty.screen())![1]), 'SIGKILL');
    expect(await tty.exitCode).toBe(128 + 9);
    expect(tty.screen()).toMatch(/the sidecar is gone: [^]*kvlane console: the sidecar was killed by SIGKILL/);
  });

  test('a terminal that goes away takes the console along, without a crash, and the sidecar; what was typed is kept', async () => {
    const home = freshDirectory();
    const person = `
import os, pty, sys, json, re
pid, fd = pty.fork()
if pid == 0:
    os.dup2(os.open(sys.argv[1] + '/stderr', os.O_CREAT | os.O_WRONLY), 2)
    os.execve(sys.argv[2], sys.argv[2:], {'PATH': os.environ['PATH'], 'HOME': sys.argv[1], 'TERM': 'xterm'})
screen = b''
def shows(text):
    global screen
    while text not in screen:
        screen += os.read(fd, 65536)
shows(b'tab completes')
os.write(fd, b'ping\\r')
shows(b'pong')
os.close(fd)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), int(re.search(rb'process (\\d+)', screen).group(1))]))`;
    const { stdout, stderr } = spawnSync('python3', ['-c', person, home, process.execPath, sidecarMain(), 'console', ...made()], { encoding: 'utf8', timeout: 25_000, env: { PATH: process.env['PATH'] } });
    const [status, pid] = JSON.parse(stdout || JSON.stringify([stderr, 0])) as [number, number];
    expect(status, readFileSync(join(home, 'stderr'), 'utf8')).toBe(-1); // SIGHUP
    expect(readFileSync(join(home, 'stderr'), 'utf8')).not.toMatch(/^ {4}at |Assertion/m);
    expect(readFileSync(join(home, '.local/state/kvlane/history'), 'utf8')).toBe('ping\n');
    await within(
      (async () => {
        while (isAlive(pid)) await new Promise((go) => setTimeout(go, 20));
      })(),
      () => 'the sidecar is still there',
    );
  });

  test('a sidecar that is stopped under it is cancelled, then left', async () => {
    const tty = terminal(['console', ...made()]);
    await tty.shows('tab completes');
    const pid = Number(/ready: process (\d+)/.exec(tty.screen())![1]);
    process.kill(pid, 'SIGSTOP');
    onTestFinished(() => {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // it has left
      }
    });
    tty.type('ping\r');
    await tty.shows('kvlane (1 waiting)>');
    tty.type('\u0003');
    await tty.shows('kvlane (2 waiting)>');
    tty.type('\u0003');
    await tty.shows('the sidecar does not leave; it is killed');
    expect(await tty.exitCode).toBe(70);
  });

  test.each(['--record', '--attach'])('%s without a path behind it is said', (option) => {
    const { status, stderr } = spawnSync(process.execPath, [sidecarMain(), 'console', option, '--mount', 'kv0=/x'], { encoding: 'utf8', timeout: 20_000 });
    expect({ status, stderr }).toEqual({ status: 2, stderr: `kvlane console: ${option} wants a path behind it, got the option --mount\n` });
  });

  test('options that are wrong are refused as serve refuses them, and --help is the help of serve', () => {
    const wrong = spawnSync(process.execPath, [sidecarMain(), 'console', '--mount'], { encoding: 'utf8', timeout: 20_000 });
    expect(wrong).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining("'--mount <NAME=DIR>' argument missing") as string });
    const help = spawnSync(process.execPath, [sidecarMain(), 'console', '--help'], { encoding: 'utf8', timeout: 20_000 });
    expect(help).toMatchObject({ status: 0, stdout: expect.stringMatching(/Usage: kvlane console[^]*--stall-ms[^]*--no-history/) as string });
  });
});

describe('plain lines, where stdout or stdin is no terminal', () => {
  test.each(['serve', 'console'])('%s on pipes is the protocol and nothing else', (name) => {
    const { stdout, status } = spawnSync(process.execPath, [sidecarMain(), name, ...made()], { input: '{"id":1,"op":"ping"}\nping\n', encoding: 'utf8', timeout: 20_000 });
    const lines = stdout.trimEnd().split('\n').map((line) => JSON.parse(line) as Record<string, unknown>);
    expect(lines.map((line) => line['event'] ?? line['id'])).toEqual(['ready', 1, null]);
    expect(status).toBe(0);
  });

  test('serve needs nothing of what the other commands are made of', () => {
    const folder = freshDirectory();
    const built = dirname(sidecarMain());
    for (const file of ['kvlane.cjs', 'kvlane.bundle.cjs', 'kvlane.code']) copyFileSync(join(built, file), join(folder, file));
    const env = { PATH: process.env['PATH'], KVLANE_NATIVE: process.env['KVLANE_NATIVE'] ?? join(built, '../native/build/Release/kvlane.node') };
    const { stdout, status } = spawnSync(process.execPath, [join(folder, 'kvlane.cjs'), 'serve', ...made()], { input: '{"id":1,"op":"ping"}\n', encoding: 'utf8', timeout: 20_000, env });
    expect(stdout).toContain('{"id":1,"ok":true');
    expect(status).toBe(0);
    expect(spawnSync(process.execPath, [join(folder, 'kvlane.cjs'), 'help'], { encoding: 'utf8', timeout: 20_000, env }).stderr).toContain("Cannot find module './kvlane-tools.cjs'");
  });

  test('with stdout in a pipe it says on stderr what to type, and what it says works when typed', async () => {
    const tty = terminal(['serve', ...made()], { pipe: '| cat' });
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

  test('a store that is missing is offered to be made', async () => {
    const tty = terminal(['serve', '--mount', `kv0=${freshDirectory()}`, ...KNOWN], { pipe: '| cat' });
    await tty.shows(/kv0: there is no store in .*Make one\? \[y\/N\]/);
    tty.type('y\n');
    await tty.shows(/kv0.*(made|created|ok)/i);
    tty.type('{"id":1,"op":"store","blocks":[{"key":"demo/00ff","text":"hello"}],"timeout_ms":5000}\n');
    await tty.shows(/\{"id":1,"ok":true,"done":1/);
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });

  test('a no leaves the directory alone, and requests say what is wrong', async () => {
    const tty = terminal(['serve', '--mount', `kv0=${freshDirectory()}`, ...KNOWN], { pipe: '| cat' });
    await tty.shows('Make one? [y/N]');
    tty.type('n\n');
    await tty.shows('left as it is');
    tty.type('{"id":1,"op":"lookup","keys":["demo/00ff"]}\n');
    await tty.shows('WRONG_STORE');
    tty.type('\u0004');
    expect(await tty.exitCode).toBe(0);
  });
});
