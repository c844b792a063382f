// kvlane metrics, as a user starts it: printed, in a file, over HTTP; and what comes of a sidecar that does not answer.
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { attachable, socketDirectory } from '../support/attached.ts';
import { freshDirectory, within, withinLazily } from '../support/sidecar_process.ts';

function metrics(...words: string[]) {
  const child = spawn(process.execPath, [sidecarMain(), 'metrics', ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return {
    child,
    stdout: () => stdout,
    stderr: () => stderr,
    exitCode: withinLazily(new Promise<number | null>((resolve) => child.once('close', resolve)), () => `metrics does not end: ${stderr}`),
  };
}

const value = (text: string, series: string): number => {
  const line = text.split('\n').find((one) => one.startsWith(`${series} `));
  expect(line, `${series} in:\n${text.slice(0, 2000)}`).toBeDefined();
  return Number(line!.split(' ').at(-1));
};

test('what a sidecar did is in its metrics', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  const pid = sidecar.child.pid;
  sidecar.send({ id: 1, op: 'store', blocks: [{ key: 'a/00', text: 'x'.repeat(1000) }] });
  expect(await sidecar.answer(1)).toMatchObject({ ok: true });
  sidecar.send({ id: 2, op: 'load', inline: true, blocks: [{ key: 'a/01' }] });
  await sidecar.answer(2);
  const told = metrics('--attach-dir', directory);
  expect(await told.exitCode).toBe(0);
  const text = told.stdout();
  expect(value(text, `kvlane_sidecar_up{pid="${pid}"}`)).toBe(1);
  expect(value(text, `kvlane_stored_bytes_total{pid="${pid}",mount="kv0"}`)).toBe(1000);
  expect(value(text, `kvlane_requests_total{pid="${pid}",op="store",outcome="ok"}`)).toBe(1);
  expect(value(text, `kvlane_requests_total{pid="${pid}",op="load",outcome="not_ok"}`)).toBe(1);
  expect(value(text, `kvlane_failed_blocks_total{pid="${pid}",code="NOT_FOUND"}`)).toBe(1);
  expect(value(text, `kvlane_request_duration_seconds_count{pid="${pid}",op="store"}`)).toBe(1);
  expect(value(text, `kvlane_breaker{pid="${pid}",mount="kv0",class="store"}`)).toBe(0);
  expect(value(text, `kvlane_operation_bytes_total{pid="${pid}",device="${(await sidecar.ready()).mounts[0]!.device}",class="store"}`)).toBe(1000);
});

test('without a sidecar it says where it looked, with status 1', async () => {
  const directory = socketDirectory();
  const none = metrics('--attach-dir', directory);
  expect(await none.exitCode).toBe(1);
  expect(none.stdout()).toBe('');
  expect(none.stderr()).toContain(directory);
  const sidecar = await attachable(directory);
  const other = metrics('--attach-dir', directory, '--pid', '1');
  expect(await other.exitCode).toBe(1);
  expect(other.stderr()).toContain(`There is: ${sidecar.child.pid}`);
});

test('one that is stopped is told as down within its bounds, beside those that are not', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  const stopped = await attachable(directory);
  stopped.child.kill('SIGSTOP');
  const began = performance.now();
  const told = metrics('--attach-dir', directory);
  expect(await told.exitCode).toBe(0);
  expect(performance.now() - began).toBeLessThan(8_000);
  expect(value(told.stdout(), `kvlane_sidecar_up{pid="${stopped.child.pid}"}`)).toBe(0);
  expect(value(told.stdout(), `kvlane_sidecar_up{pid="${sidecar.child.pid}"}`)).toBe(1);
});

test('--file: a file that is whole at every moment and follows, until it is ended', async () => {
  const directory = socketDirectory();
  const sidecar = await attachable(directory);
  const folder = freshDirectory();
  const file = join(folder, 'kvlane.prom');
  const kept = metrics('--attach-dir', directory, '--file', file, '--every', '1');
  await expect.poll(() => existsSync(file), { timeout: 10_000, interval: 10 }).toBe(true);
  sidecar.send({ id: 1, op: 'store', blocks: [{ key: 'a/00', text: 'x' }] });
  await sidecar.answer(1);
  const series = `kvlane_stored_bytes_total{pid="${sidecar.child.pid}",mount="kv0"} 1`;
  await expect.poll(() => readFileSync(file, 'utf8').split('\n').includes(series), { timeout: 10_000, interval: 10 }).toBe(true);
  expect(readdirSync(folder).filter((name) => name.endsWith('.prom'))).toEqual(['kvlane.prom']);
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 }); // a beat may fall into it
  await expect.poll(() => kept.stderr(), { timeout: 10_000, interval: 10 }).toContain(`${file} cannot be written`); // and it goes on
  mkdirSync(folder);
  await expect.poll(() => existsSync(file), { timeout: 10_000, interval: 10 }).toBe(true);
  kept.child.kill('SIGTERM');
  expect(await kept.exitCode).toBe(0);

  const once = metrics('--attach-dir', directory, '--file', join(folder, 'once.prom'), '--every', '0');
  expect(await once.exitCode).toBe(0);
  expect(readdirSync(folder).sort()).toEqual(['kvlane.prom', 'once.prom']);
  const nowhere = metrics('--attach-dir', directory, '--file', '/nowhere/kvlane.prom', '--every', '0');
  expect(await nowhere.exitCode).toBe(2);
  expect(nowhere.stderr()).toContain('/nowhere/kvlane.prom cannot be written');
});

interface Got {
  status: number;
  type: string | undefined;
  text: string;
}

function get(url: string, options: { method?: string; host?: string } = {}): Promise<Got> {
  const got = new Promise<Got>((resolve, reject) => {
    const asked = request(url, { method: options.method ?? 'GET', headers: options.host === undefined ? {} : { host: options.host } }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => (text += part)).on('end', () => resolve({ status: response.statusCode!, type: response.headers['content-type'], text }));
    });
    asked.on('error', reject).end();
  });
  return within(got, () => `${url} gives no answer`);
}

test('--listen: all sidecars at /metrics, on loopback, also while one is stopped, and nothing else', async () => {
  const directory = socketDirectory();
  const served = metrics('--attach-dir', directory, '--listen', '127.0.0.1:0');
  await expect.poll(() => served.stderr(), { timeout: 10_000, interval: 5 }).toContain('/metrics');
  const url = /http:\/\/127\.0\.0\.1:\d+\/metrics/.exec(served.stderr())![0];
  expect(await get(url)).toMatchObject({ status: 200, type: 'text/plain; version=0.0.4; charset=utf-8' });
  const first = await attachable(directory);
  const second = await attachable(directory);
  const both = await get(url);
  for (const { child } of [first, second]) expect(value(both.text, `kvlane_sidecar_up{pid="${child.pid}"}`)).toBe(1);
  second.child.kill('SIGSTOP');
  const beside = await Promise.all(Array.from({ length: 20 }, () => get(url)));
  for (const { status, text } of beside) {
    expect(status).toBe(200);
    expect(value(text, `kvlane_sidecar_up{pid="${first.child.pid}"}`)).toBe(1);
    expect(value(text, `kvlane_sidecar_up{pid="${second.child.pid}"}`)).toBe(0);
  }
  expect(await get(url.replace('/metrics', '/'))).toMatchObject({ status: 404 });
  expect(await get(url, { method: 'POST' })).toMatchObject({ status: 405 });
  expect(await get(url, { host: 'evil.example' })).toMatchObject({ status: 403 }); // a name that somebody made lead here
  served.child.kill('SIGTERM');
  expect(await served.exitCode).toBe(0);
});

test('what would be served to other machines is refused', async () => {
  const refused = metrics('--listen', '0.0.0.0:9464');
  expect(await refused.exitCode).toBe(2);
  expect(refused.stderr()).toContain('Only this machine may ask');
});
