// build.mjs — makes what runs: dist/kvlane.cjs, the script that it starts, and V8's code for that; `npm run build` comes here.
//
//   node sidecar/build.mjs [FOLDER]        into dist/, or into FOLDER
//
// The script is not minified and keeps its names, so that a stack trace can be read as it is. The code is taken from
// a sidecar that has started and served every kind of request once: what V8 compiled for that is in it, and
// nothing is compiled again at the next start.
import { spawn } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const here = dirname(fileURLToPath(import.meta.url));
const out = resolve(process.argv[2] ?? join(here, '..', 'dist'));
const addon = process.env['KVLANE_NATIVE'] ?? join(here, '..', 'native', 'build', 'Release', 'kvlane.node');
/** A sidecar is ready in a tenth of a second; on a machine with other things to do it may take long. */
const REHEARSAL_MS_MAX = 60_000;

async function bundle(file) {
  const build = await rolldown({ input: join(here, 'main.ts'), platform: 'node', external: /^node:/, logLevel: 'warn' });
  try {
    const { output } = await build.generate({
      format: 'cjs',
      codeSplitting: false,
      strictExecutionOrder: true, // what main.ts imports late is also run late
    });
    if (output.length !== 1) throw new Error(`wanted one file, got ${output.map((part) => part.fileName).join(', ')}`);
    // ASCII alone needs no decoding, and a string with one wider character would take twice the memory.
    const ascii = output[0].code.replace(/[^\0-\x7f]/g, (wide) => `\\u${wide.charCodeAt(0).toString(16).padStart(4, '0')}`);
    if (/String\.raw/.test(ascii)) throw new Error('String.raw would show the escapes');
    writeFileSync(`${file}.new`, `(function (require, __filename) {${ascii}})\n`);
    renameSync(`${file}.new`, file);
  } finally {
    await build.close();
  }
}

const HEXES = Array.from({ length: 40 }, (_, i) => (0x1000 + i).toString(16));
const SLOTS = HEXES.map((_, i) => i);
/** Every kind of request, several times, so that what the first of them compiles is there for all. */
const REHEARSAL = [
  { op: 'namespace', name: 'demo', fingerprint: { model: 'none' } },
  { op: 'store', namespace: 'demo', keys: HEXES, slots: SLOTS, bytes: 4096 },
  { op: 'load', namespace: 'demo', keys: HEXES, slots: SLOTS, bytes: 4096 },
  { op: 'load', namespace: 'demo', keys: HEXES, slots: SLOTS, bytes: 8192 },
  { op: 'load', blocks: [{ key: 'demo/ffff', slot: 0, bytes: 4096 }] },
  { op: 'lookup', namespace: 'demo', keys: [...HEXES, 'ffff'] },
  { op: 'store', blocks: [{ key: 'demo/ff', text: 'hello' }], timeout_ms: 1000 },
  { op: 'load', blocks: [{ key: 'demo/ff' }], inline: true },
  { op: 'remove', namespace: 'demo', keys: HEXES },
  { op: 'ping' },
  { op: 'stats' },
  { op: 'stuck' },
  { op: 'cancel', task: 0 },
];

/** Runs the built sidecar once, and keeps the code that V8 made for it. */
async function rehearse(launcher, code) {
  const store = mkdtempSync(join(tmpdir(), 'kvlane-build-'));
  const words = ['--require', join(here, 'keep_code.cjs'), launcher, 'serve', '--mount', `kv0=${store}`, '--create', '--arena-mib', '4', '--slot-bytes', '65536', '--test-start-wait-ms', '10000'];
  const env = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', KVLANE_NATIVE: addon, KVLANE_KEEP_CODE: `${code}.new` };
  const sidecar = spawn(process.execPath, words, { cwd: '/', env, stdio: 'pipe' });
  let log = '';
  sidecar.stderr.setEncoding('utf8').on('data', (text) => (log += text));
  const over = setTimeout(() => sidecar.kill('SIGKILL'), REHEARSAL_MS_MAX);
  try {
    const lines = createInterface({ input: sidecar.stdout })[Symbol.asyncIterator]();
    const next = async (what) => {
      const { value, done } = await lines.next();
      if (done) throw new Error(`the sidecar ended before ${what}, and logged:\n${log}`);
      return JSON.parse(value);
    };
    await next('it was ready');
    for (const [id, request] of REHEARSAL.entries()) {
      sidecar.stdin.write(`${JSON.stringify({ id, ...request })}\n`);
      while ((await next(`it answered ${request.op}`)).id !== id) continue;
    }
    const kept = new Promise((done) => sidecar.once('exit', done));
    sidecar.stdin.end();
    await kept;
    if (!existsSync(`${code}.new`)) throw new Error('the sidecar left no compiled code');
    chmodSync(`${code}.new`, 0o644); // the sidecar's umask is 0
    renameSync(`${code}.new`, code);
  } finally {
    clearTimeout(over);
    sidecar.kill('SIGKILL');
    rmSync(store, { recursive: true, force: true });
  }
}

if (!existsSync(addon)) {
  console.error(`kvlane: cannot build the sidecar: ${addon} is not there; run: npm run build:native`);
  process.exit(1);
}
mkdirSync(out, { recursive: true });
const launcher = join(out, 'kvlane.cjs');
await bundle(join(out, 'kvlane.bundle.cjs'));
copyFileSync(join(here, 'launch.cjs'), `${launcher}.new`);
chmodSync(`${launcher}.new`, 0o755);
renameSync(`${launcher}.new`, launcher);
rmSync(join(out, 'kvlane.code'), { force: true }); // of the script before this one: it would be refused
try {
  await rehearse(launcher, join(out, 'kvlane.code'));
} catch (error) {
  // In a sandbox that forbids what lanes need, say. What was built is whole all the same.
  console.error(`kvlane: the sidecar cannot be run here, and so its script will be compiled at each start: ${error.message}`);
}
