// A real sidecar over bare lines: ready, blocks as text, the log, what a shell makes of it, options that are refused.
import { execFileSync, spawnSync } from 'node:child_process';
import { openSync, readFileSync, writeFileSync, closeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { LIMITS, PROTOCOL, VERSION } from '../../protocol/messages.ts';
import { freshDirectory, startSidecar } from '../support/sidecar_process.ts';

const kvlane = (...words: string[]) => spawnSync(process.execPath, [sidecarMain(), ...words], { encoding: 'utf8', timeout: 10_000 });

test('ready is the first line, quickly, and says what a client must know', async () => {
  const before = performance.now();
  const sidecar = startSidecar();
  const ready = await sidecar.ready();
  const tookMs = performance.now() - before;
  console.log(`ready after ${tookMs.toFixed(0)} ms (aim: 150)`);
  expect(tookMs).toBeLessThan(2_000);
  expect(sidecar.messages[0]).toBe(ready);
  expect(ready).toMatchObject({
    protocol: PROTOCOL,
    version: VERSION,
    pid: sidecar.child.pid,
    engine: 'threads',
    timeout_ms: 2000,
    stall_ms: 1000,
    arena: { owner: 'sidecar', path: expect.stringContaining(`/proc/${sidecar.child.pid}/fd/`) as string, bytes: 8 * 1024 * 1024, slot_bytes: 1024 * 1024, slots: 8 },
    mounts: [{ name: 'kv0', device: expect.any(String) as string, created: true }],
    limits: { line_bytes_max: LIMITS.line_bytes_max },
  });
  const nowUs = Number(process.hrtime.bigint() / 1000n); // the same clock, in another process
  expect(nowUs - ready.now_us).toBeGreaterThanOrEqual(0);
  expect(nowUs - ready.now_us).toBeLessThan(2_000_000);
});

test('text is stored, found and loaded over bare lines', async () => {
  const sidecar = startSidecar();
  sidecar.send({ id: 1, op: 'store', blocks: [{ key: 'demo/00ff', text: 'hello' }] });
  expect(await sidecar.answer(1)).toMatchObject({ ok: true, done: 1 });
  sidecar.send(
    { id: 2, op: 'load', blocks: [{ key: 'demo/00ff' }], inline: true },
    { id: 3, op: 'lookup', keys: ['demo/00ff', 'demo/0100'] },
  );
  expect(await sidecar.answer(2)).toMatchObject({ ok: true, blocks: [{ block: 0, bytes: 5, text: 'hello' }] });
  expect(await sidecar.answer(3)).toMatchObject({ ok: true, present: [true, false], prefix: 1, complete: true });
});

test('stats carry what the process costs, sampled beside the requests', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  for (let id = 1; ; id += 1) {
    sidecar.send({ id, op: 'stats' });
    const { stats } = await sidecar.answer(id);
    const text = JSON.stringify(stats);
    expect(text).toContain('"resident_bytes"');
    if (/"resident_bytes":[1-9]/.test(text)) break; // null until pidusage's first sample
  }
});

test('requests from a file and answers to a file, as in a script', () => {
  const folder = freshDirectory();
  const requests = join(folder, 'requests.ndjson');
  const answers = join(folder, 'answers.ndjson');
  writeFileSync(requests, '{"id":1,"op":"store","blocks":[{"key":"demo/00","text":"x"}]}\n{"id":2,"op":"ping"}\n');
  const stdin = openSync(requests, 'r');
  const stdout = openSync(answers, 'w');
  const mount = freshDirectory();
  const result = spawnSync(process.execPath, [sidecarMain(), 'serve', '--mount', `kv0=${mount}`, '--create'], { stdio: [stdin, stdout, 'pipe'], timeout: 10_000 });
  closeSync(stdin);
  closeSync(stdout);
  expect(result.status).toBe(0);
  const messages = readFileSync(answers, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as { event?: string; id?: number; ok?: boolean });
  expect(messages[0]?.event).toBe('ready');
  // On a busy machine the mount is known a moment after ready, and events say so.
  expect(messages.filter(({ id }) => id !== undefined).map(({ id, ok }) => [id, ok]).sort()).toEqual([[1, true], [2, true]]);
});

test('a shell pipe works: every answer comes before the end', () => {
  const mount = freshDirectory();
  const out = execFileSync('sh', ['-c', `printf '%s\\n' '{"id":1,"op":"ping"}' '{"id":2,"op":"ping"}' | "$0" "$1" serve --mount kv0="$2" --create 2>/dev/null | cat`, process.execPath, sidecarMain(), mount], { encoding: 'utf8', timeout: 10_000 });
  expect(out.trimEnd().split('\n').map((line) => (JSON.parse(line) as { id?: number }).id).filter((id) => id !== undefined)).toEqual([1, 2]);
});

test('the log is JSON on a pipe, and nothing but the protocol is on stdout', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  sidecar.end();
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
  const lines = sidecar.stderr().trimEnd().split('\n').map((line) => JSON.parse(line) as { event: string; level: string });
  expect(lines.at(-1)).toMatchObject({ level: 'info', event: 'leaving', reason: 'stdin_end', outstanding: 0 });
});

test('bad options are one sentence on stderr and status 2, with nothing on stdout', () => {
  for (const [words, sentence] of [
    [['serve'], '--mount is missing'],
    [['serve', '--mount', 'kv0=/tmp', '--slot-bytes', '7'], '--slot-bytes'],
    [['serve', '--mount', 'kv0=/tmp', '--arena-fd', '63'], '--arena-fd 63 cannot be used'],
  ] as const) {
    const { status, stdout, stderr } = kvlane(...words);
    expect(stderr).toContain(sentence);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  }
});

test('an inherited descriptor that is no sealed memory is refused with the reason', () => {
  const fd = openSync('/dev/null', 'r+');
  const result = spawnSync(process.execPath, [sidecarMain(), 'serve', '--mount', 'kv0=/tmp', '--arena-fd', '3'], { stdio: ['ignore', 'pipe', 'pipe', fd], encoding: 'utf8', timeout: 10_000 });
  closeSync(fd);
  expect(result.status).toBe(2);
  expect(result.stderr).toMatch(/^kvlane: --arena-fd 3 cannot be used: .+\n$/);
  expect(result.stdout).toBe('');
});

test('help and version come on stdout with status 0', () => {
  expect(kvlane('--version')).toMatchObject({ status: 0, stdout: `${VERSION}\n`, stderr: '' });
  const help = kvlane('serve', '--help');
  expect(help).toMatchObject({ status: 0, stderr: '' });
  expect(help.stdout).toContain('Exit status:');
});
