// build.test.ts — what is built: one script, its compiled code, and traces that can be read.
import { spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Script } from 'node:vm';
import { expect, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const SCRIPT = 'kvlane.bundle.cjs';
const CODE = 'kvlane.code';
const built = dirname(sidecarMain());
const addon = join(built, '..', 'native', 'build', 'Release', 'kvlane.node');

/** A copy of the build that finds the addon of this checkout. */
function copyOf(files: readonly string[]): string {
  const folder = freshDirectory();
  for (const file of files) copyFileSync(join(built, file), join(folder, file));
  return folder;
}

function pinged(folder: string, native = addon): { stdout: string; stderr: string; status: number | null } {
  const words = [join(folder, 'kvlane.cjs'), 'serve', '--mount', `kv0=${freshDirectory()}`, '--create', '--arena-mib', '1'];
  const input = `${JSON.stringify({ id: 1, op: 'ping' })}\n`;
  return spawnSync(process.execPath, words, { input, encoding: 'utf8', timeout: 10_000, env: { PATH: process.env['PATH'], KVLANE_NATIVE: native } });
}

test('the code beside the script is what this node takes', () => {
  const script = new Script(readFileSync(join(built, SCRIPT), 'utf8'), { filename: join(built, SCRIPT), cachedData: readFileSync(join(built, CODE)) });
  expect(script.cachedDataRejected).toBe(false);
});

test.each([
  ['no code', () => copyOf(['kvlane.cjs', SCRIPT])],
  ['code of another script', () => other('of another script')],
  ['code that was cut', () => other('cut')],
])('with %s it is compiled at the start, and serves', (_what, make) => {
  const { stdout, stderr, status } = pinged(make());
  expect(stdout, stderr).toContain('"id":1,"ok":true');
  expect(status).toBe(0);
});

function other(how: 'of another script' | 'cut'): string {
  const folder = copyOf(['kvlane.cjs', SCRIPT]);
  const code = how === 'cut' ? readFileSync(join(built, CODE)).subarray(0, 1000) : new Script('(function () {})').createCachedData();
  writeFileSync(join(folder, CODE), code);
  return folder;
}

test('an error says where it came from, in the names of the sources', () => {
  const folder = copyOf(['kvlane.cjs', SCRIPT, CODE]);
  const broken = join(folder, 'broken.cjs');
  writeFileSync(
    broken,
    `module.exports = {
      words: {}, hardExit: (code) => process.reallyExit(code), start() { throw new Error('made for this test'); },
      createArena: (bytes) => ({ fd: 0, bytes, pageBytes: 4096, backing: 'shmem' }),
    };`,
  );
  const { stderr, status } = pinged(folder, broken);
  expect(stderr).toMatch(/made for this test[^]* at startNative [^]*kvlane\.bundle\.cjs:\d+:\d+[^]* at serve /);
  expect(status).toBe(70);
});
