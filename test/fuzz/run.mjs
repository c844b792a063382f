// run.mjs — `npm run fuzz`: both fuzzers, and each planted fault, which must be found.
//
//   npm run fuzz                 the short form, which npm test runs: some seconds each
//   npm run fuzz -- --full       10^6 runs each; --seed S for others
//   npm run fuzz -- --grow       and what reaches something new is kept in the corpus
//
// The full form says how far it is while it runs, and takes as long as it takes (--minutes M bounds each of the two; what was not reached then
// is a failure, as is a short form that hardly ran). Needs clang's libFuzzer (Debian: clang-14 and libclang-rt-14-dev); as root it is
// installed. The last line is the sum.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build, PLANTED } from './build.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const native = join(here, '../../native/fuzz');
const made = join(here, '../../native/build/fuzz');
const { values: given } = parseArgs({ options: { full: { type: 'boolean' }, grow: { type: 'boolean' }, seed: { type: 'string' }, minutes: { type: 'string' } } });
const seed = given.seed ?? '1';
const RUNS = given.full ? 1_000_000 : 40_000;
const SECONDS = given.full ? 60 * Number(given.minutes ?? 240) : 10; // whichever comes first
const RUNS_MIN = given.full ? 1_000_000 : 500; // fewer are no check, whatever the reason
const PARTS_MIN = 300; // of line reader and decoder; fewer: the coverage does not work
const PLANTED_RUNS = 20_000; // each is found within the first thousand or so
const PLANTED_SECONDS = 60;

let passed = 0;
let failed = 0;
function tell(name, good, note, started) {
  if (good) passed += 1;
  else failed += 1;
  console.log(`${good ? 'ok' : 'FAILED'}: ${name}${note ? `: ${note}` : ''} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
function call(words, options = {}) {
  const { status, stdout, stderr } = spawnSync(words[0], words.slice(1), { encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'], ...options });
  return { status, text: `${stdout}${stderr}` };
}

/** As `call`, but what it says is seen while it runs: a run of hours that is killed has said how far it was. */
function watch(words) {
  return new Promise((resolve) => {
    const child = spawn(words[0], words.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (part) => {
        text += part;
        if (given.full) for (const line of part.split('\n')) if (/so far|pulse|FOUND|FUZZ|ERROR/.test(line)) console.log(`  ${line.trim()}`);
      });
    }
    child.on('error', (error) => resolve({ status: 'not started', text: String(error) }));
    child.on('close', (status, signal) => resolve({ status: status ?? signal, text }));
  });
}

const scratch = [];
function scratchFolder() {
  const folder = mkdtempSync(join(tmpdir(), 'kvlane-fuzz-'));
  scratch.push(folder);
  return folder;
}
process.on('exit', () => scratch.forEach((folder) => rmSync(folder, { recursive: true, force: true })));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(1));

function install() {
  if (call(['sh', '-c', 'command -v clang++-14 && ls /usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a']).status === 0) return;
  if (process.getuid() !== 0) throw new Error('clang++-14 is missing. As root: apt-get install -y --no-install-recommends clang-14 libclang-rt-14-dev');
  console.log('fuzz: apt-get install clang-14 libclang-rt-14-dev');
  const apt = 'apt-get -o DPkg::Lock::Timeout=300';
  const { status, text } = call(['sh', '-c', `${apt} update -qq; DEBIAN_FRONTEND=noninteractive ${apt} install -y --no-install-recommends clang-14 libclang-rt-14-dev`]);
  if (status !== 0) throw new Error(`clang cannot be installed: ${text.slice(-500)}`);
}

async function blocks() {
  let started = performance.now();
  const compiled = call(['make', '--no-print-directory', '-j2', '-C', native]);
  if (compiled.status !== 0) return tell('the block fuzzer compiles', false, compiled.text.slice(-1500), started);
  const work = scratchFolder();
  const corpus = join(native, 'corpus');
  const fuzz = (program, runs, seconds) => {
    const grown = join(work, 'grown');
    mkdirSync(grown, { recursive: true });
    return watch([program, `-runs=${runs}`, `-max_total_time=${seconds}`, '-max_len=2048', `-seed=${seed}`, '-print_final_stats=1', `-artifact_prefix=${work}/`, grown, corpus]);
  };
  started = performance.now();
  const found = await fuzz(join(made, 'block_fuzz'), RUNS, SECONDS);
  const runs = Number(/number_of_executed_units: (\d+)/.exec(found.text)?.[1] ?? 0);
  const cover = [...found.text.matchAll(/cov: (\d+) ft: (\d+)/g)].at(-1);
  const note = found.status === 0 ? `${runs} runs, ${cover?.[1]} places and ${cover?.[2]} features reached, seed ${seed}` : found.text.slice(-3000);
  tell('block header and load: the judge agrees with the format, no byte too far, ok is whole', found.status === 0 && runs >= RUNS_MIN, note, started);
  if (given.grow && found.status === 0) call([join(made, 'block_fuzz'), '-merge=1', '-max_len=1024', corpus, join(work, 'grown')]);
  const plantedNames = readdirSync(made).filter((name) => name.startsWith('planted-'));
  if (plantedNames.length < 3) tell('faults are planted for the block fuzzer', false, plantedNames.join(', ') || 'none', started);
  for (const planted of plantedNames) {
    started = performance.now();
    rmSync(join(work, 'grown'), { recursive: true, force: true });
    const { status, text } = await fuzz(join(made, planted, 'block_fuzz'), PLANTED_RUNS, PLANTED_SECONDS);
    const how = /FUZZ: .*|ERROR: AddressSanitizer: [a-z-]+/.exec(text)?.[0];
    tell(`the block fuzzer finds ${planted}`, status !== 0 && how !== undefined, how ?? text.slice(-300), started);
  }
}

async function lines() {
  const work = scratchFolder(); // what planted faults are found with; what the real one is found with is kept
  const fuzz = (script, runs, seconds, ...more) =>
    watch([process.execPath, '--expose-gc', script, '--runs', String(runs), '--seconds', String(seconds), '--seed', seed, '--corpus', join(here, 'corpus/lines.json'), ...more]);
  let started = performance.now();
  const found = await fuzz(await build(), RUNS, SECONDS, ...(given.grow ? ['--grow'] : []));
  const [, runs, parts] = (/, (\d+) runs in .* (\d+) parts reached/.exec(found.text.trim().split('\n').at(-1)) ?? []).map(Number);
  const good = found.status === 0 && runs >= RUNS_MIN && parts >= PARTS_MIN;
  const note = found.status === 0 ? found.text.trim().split('\n').at(-1) : `exit status ${found.status}: ${found.text.trim().slice(-2500)}`;
  tell('lines: each gets one answer that names the place, whatever the chunks; nothing throws, memory stays', good, note, started);
  for (const name of Object.keys(PLANTED)) {
    started = performance.now();
    const { status, text } = await fuzz(await build(name), PLANTED_RUNS, PLANTED_SECONDS, '--out', work);
    const how = /FOUND: (.*)/.exec(text)?.[1];
    tell(`the line fuzzer finds that ${name}`, status === 1 && how !== undefined, how?.slice(0, 120) ?? text.slice(-300), started);
  }
}

try {
  install();
  await blocks();
  await lines();
} catch (error) {
  tell('fuzz', false, error.stack, performance.now());
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`);
process.exit(failed === 0 ? 0 : 1);
