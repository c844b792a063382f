// build.mjs — makes what runs: dist/kvlane.cjs, the script that it starts, and V8's code for that; beside it the script of the
// other commands, dist/kvlane-tools.cjs, and their manual pages, dist/man/. `npm run build` comes here.
//
//   node sidecar/build.mjs [FOLDER]        into dist/, or into FOLDER
//
// The script is not minified and keeps its names, so that a stack trace can be read as it is. The code is taken from
// a sidecar that has started and served every kind of request once: what V8 compiled for that is in it, and
// nothing is compiled again at the next start.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
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

/** Whole, or not there at all, also after a loss of power: V8 believes in code whatever it is. */
function put(file, content, mode = 0o644) {
  writeFileSync(`${file}.new`, content, { flush: true });
  chmodSync(`${file}.new`, mode);
  renameSync(`${file}.new`, file);
}

/** commander loads node's child_process, a millisecond, for commands that are programs of their own; we have none. */
const WITHOUT_COMMANDS_OF_OTHERS = {
  name: 'without-commands-of-others',
  resolveId: (wanted, importer) => (wanted === 'node:child_process' && importer?.includes('/node_modules/commander/') ? '\0nothing' : null),
  load: (id) => (id === '\0nothing' ? 'module.exports = {};' : null),
};

/** One file of this source and all it imports. */
async function bundled(input, plugins) {
  const build = await rolldown({ input, platform: 'node', logLevel: 'warn', plugins });
  try {
    const { output } = await build.generate({
      format: 'cjs',
      codeSplitting: false,
      strictExecutionOrder: true, // what main.ts imports late is also run late
    });
    if (output.length !== 1) throw new Error(`wanted one file, got ${output.map((part) => part.fileName).join(', ')}`);
    return output[0].code;
  } finally {
    await build.close();
  }
}

/** The sidecar's script, with a first line that says which it is. */
async function bundle() {
  const code = await bundled(join(here, 'main.ts'), [WITHOUT_COMMANDS_OF_OTHERS]);
  // ASCII alone needs no decoding, and a string with one wider character would take twice the memory.
  const ascii = code.replace(/[^\0-\x7f]/g, (wide) => `\\u${wide.charCodeAt(0).toString(16).padStart(4, '0')}`);
  if (/String\.raw/.test(ascii)) throw new Error('String.raw would show the escapes');
  const script = `(function (require, __dirname) {${ascii}})\n`;
  return `// ${createHash('sha256').update(script).digest('hex').slice(0, 32)}\n${script}`;
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

/** The manual pages, by the command itself: what is written is what it says of itself. */
function pages(folder) {
  rmSync(folder, { recursive: true, force: true }); // of commands that are no more
  const { status, stderr } = spawnSync(process.execPath, [launcher, 'man', '--all', folder], { cwd: '/', encoding: 'utf8', timeout: REHEARSAL_MS_MAX });
  if (status !== 0) throw new Error(`the manual pages could not be made: ${stderr}`);
}

/** Runs the built sidecar once; returns the code that V8 made for it. */
async function rehearse(launcher) {
  const store = mkdtempSync(join(tmpdir(), 'kvlane-build-'));
  const words = ['--require', join(here, 'keep_code.cjs'), launcher, 'serve', '--mount', `kv0=${store}`, '--create', '--arena-mib', '4', '--slot-bytes', '65536', '--test-start-wait-ms', '10000'];
  const code = join(store, 'code');
  const env = { PATH: process.env['PATH'] ?? '/usr/bin:/bin', KVLANE_NATIVE: addon, KVLANE_KEEP_CODE: code };
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
    sidecar.kill('SIGUSR2');
    await kept;
    if (!existsSync(code)) throw new Error(`the sidecar left no compiled code, and logged:\n${log}`);
    return readFileSync(code);
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
const kept = join(out, 'kvlane.code');
const script = await bundle();
rmSync(kept, { force: true }); // of the script before this one
put(join(out, 'kvlane.bundle.cjs'), script);
put(join(out, 'kvlane-tools.cjs'), await bundled(join(here, '..', 'clients', 'cli', 'main.ts'), []));
put(launcher, readFileSync(join(here, 'launch.cjs')), 0o755);
pages(join(out, 'man'));
try {
  const code = await rehearse(launcher);
  // Which script, and by which node: launch.cjs compares, in so many bytes.
  const label = `${script.slice(0, script.indexOf('\n'))} ${process.version} ${process.arch}`.padEnd(64);
  if (label.length !== 64) throw new Error(`'${label}' is longer than launch.cjs reads`);
  put(kept, Buffer.concat([Buffer.from(label, 'latin1'), code]));
} catch (error) {
  // In a sandbox that forbids what lanes need, say. What was built is whole all the same.
  console.error(`kvlane: the sidecar cannot be run here, and so its script will be compiled at each start: ${error.message}`);
}
