// lines.ts — the fuzzer of stdin: line reader and decoder.
//
//   node build/lines.mjs --runs N [--seconds S] [--seed S] [--corpus FILE [--grow]] [--out FOLDER]
//   node build/lines.mjs --replay FILE          one input again, which a failure has written
//
// Exit status 0: nothing found. 1: found; the input lies in a file (in FOLDER, else where temporary files go) that the last line names.
// A line now and then says how far it is, so that one that is killed leaves a trace.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startCoverage } from './coverage.ts';
import { mutate, REQUEST_LINES } from './mutate.ts';
import { pick, seeded } from './random.ts';
import { judge, type Input } from './target.ts';

const BATCH = 256;
const BATCH_MAX = 4096; // where nothing new comes any more, a look is not worth its time
const TELL_MS = 10_000;
const LOOK_AT_MEMORY_RUNS = 20_000;
const MEMORY_BYTES_MAX = 96 * 1024 * 1024; // more than at the first look: a reader keeps no line, a decoder nothing at all
const ATTRIBUTE_SHARE_MAX = 0.2; // of the time: the rest is for runs
const GROWN_INPUT_BYTES_MAX = 300; // only small ones are worth a place in the tree

const { values: given } = parseArgs({
  options: { runs: { type: 'string' }, seconds: { type: 'string' }, seed: { type: 'string' }, corpus: { type: 'string' }, grow: { type: 'boolean' }, out: { type: 'string' }, replay: { type: 'string' } },
});
const runsMax = Number(given.runs ?? 100_000);
const endMs = performance.now() + 1000 * Number(given.seconds ?? 3600);
const seed = Number(given.seed ?? 1);

interface Kept { bytes: Buffer; damaged?: Input['damaged']; seed: number }

function failed(kept: Kept, error: unknown): never {
  const file = join(given.out ?? tmpdir(), `kvlane-fuzz-${process.pid}.json`);
  writeFileSync(file, JSON.stringify({ seed: kept.seed, base64: kept.bytes.toString('base64'), damaged: kept.damaged }));
  console.log(`input: ${JSON.stringify(kept.bytes.toString('latin1').slice(0, 400))}`);
  console.log(`FOUND: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`.slice(0, 2000));
  console.log(`again: node test/fuzz/build/lines.mjs --replay ${file}`);
  process.exit(1);
}

function run(kept: Kept): void {
  const input: Input = kept.damaged === undefined ? { bytes: kept.bytes } : { bytes: kept.bytes, damaged: kept.damaged };
  try {
    judge(input, seeded(kept.seed));
  } catch (error) {
    failed(kept, error);
  }
}

if (given.replay !== undefined) {
  const { base64, damaged, seed: at } = JSON.parse(readFileSync(given.replay, 'utf8')) as { base64: string; damaged?: Input['damaged']; seed: number };
  run({ bytes: Buffer.from(base64, 'base64'), damaged, seed: at });
  console.log('nothing found');
  process.exit(0);
}

const random = seeded(seed);
const corpus: Buffer[] = [Buffer.from(`${REQUEST_LINES.join('\n')}\n`), ...REQUEST_LINES.map((line) => Buffer.from(`${line}\n`))];
const ofTree = given.corpus !== undefined && existsSync(given.corpus) ? (JSON.parse(readFileSync(given.corpus, 'utf8')) as string[]) : [];
corpus.push(...ofTree.map((text) => Buffer.from(text, 'latin1')));
const coverage = startCoverage();
let runs = 0;
for (const bytes of corpus) run({ bytes, seed: runs++ });
coverage.keep(coverage.fresh());

async function memory(): Promise<number> {
  for (let time = 0; time < 2; time += 1) {
    await setImmediate();
    (globalThis as { gc?: () => void }).gc?.();
  }
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
/** Which of a batch reached something new: halves, then halves of those, until all that is new has its input. */
function attribute(batch: Kept[], wanted: Set<string>): void {
  batch.forEach(run);
  const fresh = coverage.fresh().filter((part) => wanted.has(part));
  if (fresh.length === 0) return;
  if (batch.length > 1) {
    attribute(batch.slice(0, batch.length >> 1), wanted);
    if (wanted.size > 0) attribute(batch.slice(batch.length >> 1), wanted);
    return;
  }
  coverage.keep(fresh);
  for (const part of fresh) wanted.delete(part);
  corpus.push(batch[0]!.bytes);
}

let memoryFirst = 0;
let looked = 0;
let attributingMs = 0;
const grown = corpus.length;
const startMs = performance.now();
let told = startMs;
let batchSize = BATCH;
const soFar = (): string => `seed ${seed}, ${runs} runs in ${((performance.now() - startMs) / 1000).toFixed(1)} s, ${coverage.parts()} parts reached, ${corpus.length - grown} inputs kept`;
while (runs < runsMax && performance.now() < endMs) {
  if (performance.now() > told + TELL_MS) {
    told = performance.now();
    console.log(`lines: so far: ${soFar()}`);
  }
  const batch: Kept[] = [];
  for (let i = 0; i < batchSize && runs < runsMax; i += 1) {
    const { bytes, damaged } = mutate(pick(corpus, random), pick(corpus, random), random);
    const kept: Kept = { bytes, damaged, seed: runs++ };
    run(kept);
    batch.push(kept);
  }
  const fresh = coverage.fresh();
  if (fresh.length > 0) {
    const begun = performance.now();
    if (attributingMs < ATTRIBUTE_SHARE_MAX * (begun - startMs) + 1000) attribute(batch, new Set(fresh));
    attributingMs += performance.now() - begun;
    coverage.keep(fresh); // also what did not come again: it hung on what ran before
  }
  await setImmediate(); // what Node's streams keep for the next tick would hold every run in memory
  batchSize = fresh.length > 0 ? BATCH : Math.min(2 * batchSize, BATCH_MAX);
  if (runs >= looked + LOOK_AT_MEMORY_RUNS) {
    looked = runs;
    const now = await memory();
    memoryFirst ||= now;
    if (now > memoryFirst + MEMORY_BYTES_MAX) failed(batch.at(-1)!, `memory grew from ${memoryFirst} to ${now} bytes`);
  }
}
console.log(`lines: ${soFar()}, nothing found`);
if (given.grow && given.corpus !== undefined) {
  const small = corpus.slice(grown).filter((bytes) => bytes.length <= GROWN_INPUT_BYTES_MAX).map((bytes) => bytes.toString('latin1'));
  writeFileSync(given.corpus, `${JSON.stringify([...new Set([...ofTree, ...small])], null, 0).replaceAll('","', '",\n"')}\n`);
}
