// main.ts — `npm run sim`: many seeds and what they reached, or one seed and its story.
//
//   npm run sim -- --seeds 100000 [--from 1]      all must hold; fails also where something was never reached; --jobs N: so many processes
//   npm run sim -- --seed 4711 [--steps 90]       one of them: its story, shortened if it breaks
//   npm run sim -- --seed 4711 --whole            not shortened
//   npm run sim -- --plants [NAME] [--seeds 300]  bugs put in on purpose: each must be found within so many seeds
//   npm run sim -- --hash --seeds 20              a hash of every story: the same on every machine, every time
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { ALL_FROM_SEEDS, WANTED } from './coverage.ts';
import { PLANTS, type Plant } from './plants.ts';
import { run, STEPS, type Plan } from './run.ts';
import { RULES, type Rule } from './rules.ts';
import { shrink } from './shrink.ts';
import type { Seen } from './story.ts';

/** Enough to see what they have in common. */
const BAD_MAX = 20;
/** Of a story's line; the last one is shown whole. */
const LINE_MAX = 400;

const words = process.argv.slice(2);
const has = (name: string): boolean => words.includes(`--${name}`);
function number(name: string, otherwise: number): number {
  const at = words.indexOf(`--${name}`);
  if (at < 0) return otherwise;
  const value = Number(words[at + 1]);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${name} wants a number, got ${words[at + 1]}`);
  return value;
}

process.exitCode = await (has('plants') ? plants() : has('hash') ? hashes() : has('seed') ? oneSeed() : manySeeds());

function named(): Plan['tampered'] {
  const at = words.indexOf('--plant');
  if (at < 0) return undefined;
  const plant = PLANTS[words[at + 1] ?? ''];
  if (plant === undefined) throw new Error(`--plant wants one of ${Object.keys(PLANTS).join(', ')}`);
  plant.plant?.();
  return plant.tampered;
}

function planOf(seed: number): Plan {
  const tampered = named();
  return { seed, steps: number('steps', STEPS), ...(tampered === undefined ? {} : { tampered }) };
}

/** What else was said of this run. */
function howElse(): string {
  return ['--steps', '--plant'].filter((name) => words.includes(name)).map((name) => ` ${name} ${words[words.indexOf(name) + 1]}`).join('');
}

async function tellWhy(plan: Plan): Promise<void> {
  const first = await run(plan);
  const { plan: least, outcome, runs } = await shrink(plan, first);
  const left = least.steps! - (least.skip?.size ?? 0);
  const { lines } = outcome;
  lines!.forEach((line, at) => console.log(line.length > LINE_MAX && at < lines!.length - 1 ? `${line.slice(0, LINE_MAX)}…` : line));
  console.log(`\nseed ${plan.seed} breaks "${outcome.broken!.rule}": ${RULES[outcome.broken!.rule]}.`);
  console.log(`Above are ${left} of its ${plan.steps ?? STEPS} steps, those without which it does not break (${runs} runs to find them). The whole: npm run sim -- --seed ${plan.seed}${howElse()} --whole`);
}

async function oneSeed(): Promise<number> {
  const plan = planOf(number('seed', 1));
  const outcome = await run({ ...plan, told: true });
  if (outcome.broken !== null && !has('whole')) await tellWhy(plan);
  else for (const line of outcome.lines!) console.log(line);
  if (outcome.broken === null) console.log(`\nseed ${plan.seed}: every promise was kept (${outcome.events} events, ${outcome.answers} answers)`);
  return outcome.broken === null ? 0 : 1;
}

/** What a share of the seeds showed. */
interface Share {
  seen: Record<string, number>;
  bad: { seed: number; rule: Rule; at: number }[];
  events: number;
  answers: number;
  cpuS: number;
}

async function share(from: number, count: number): Promise<Share> {
  const seen: Seen = new Map();
  const all: Share = { seen: {}, bad: [], events: 0, answers: 0, cpuS: 0 };
  for (let seed = from; seed < from + count && all.bad.length < BAD_MAX; seed += 1) {
    const outcome = await run({ ...planOf(seed), seen });
    all.events += outcome.events;
    all.answers += outcome.answers;
    if (outcome.broken !== null) all.bad.push({ seed, rule: outcome.broken.rule, at: outcome.at });
  }
  for (const [what, counts] of seen) for (const [which, times] of counts) all.seen[`${what} ${which}`.trim()] = times;
  const { user, system } = process.cpuUsage();
  all.cpuS = (user + system) / 1e6;
  return all;
}

/** The same in another process: seeds know nothing of each other. */
function shareElsewhere(from: number, count: number): Promise<Share> {
  const rest = words.filter((_, at) => !['--seeds', '--from', '--jobs'].includes(words[at]!) && !['--seeds', '--from', '--jobs'].includes(words[at - 1] ?? ''));
  return new Promise((resolve, reject) => {
    execFile(process.execPath, [fileURLToPath(import.meta.url), ...rest, '--share', '--from', String(from), '--seeds', String(count)], { maxBuffer: 1 << 28 }, (error, stdout) => {
      if (error === null) resolve(JSON.parse(stdout) as Share);
      else reject(error as Error);
    });
  });
}

async function manySeeds(): Promise<number> {
  const count = number('seeds', 3_000);
  const from = number('from', 1);
  if (has('share')) {
    console.log(JSON.stringify(await share(from, count)));
    return 0;
  }
  const began = process.hrtime.bigint();
  const jobs = Math.max(1, Math.min(number('jobs', availableParallelism()), Math.floor(count / 100)));
  const each = Math.ceil(count / jobs);
  const shares = jobs === 1 ? [await share(from, count)] : await Promise.all(Array.from({ length: jobs }, (_, job) => shareElsewhere(from + job * each, Math.min(each, count - job * each))));
  const seen = new Map<string, number>();
  for (const one of shares) for (const [what, times] of Object.entries(one.seen)) seen.set(what, (seen.get(what) ?? 0) + times);
  const bad = shares.flatMap((one) => one.bad);
  const sum = (what: 'events' | 'answers' | 'cpuS'): number => shares.reduce((all, one) => all + one[what], 0);
  const seconds = Number(process.hrtime.bigint() - began) / 1e9;
  for (const [what, times] of [...seen].sort()) console.log(`${String(times).padStart(10)}  ${what}`);
  const missing = WANTED.filter((what) => !seen.has(what));
  console.log(`\n${count} seeds of ${number('steps', STEPS)} steps: ${sum('events')} events, ${sum('answers')} answers in ${seconds.toFixed(1)} s (${sum('cpuS').toFixed(1)} s of CPU in ${jobs} processes): ${(count / seconds).toFixed(0)} seeds/s`);
  console.log(`${WANTED.length - missing.length} of ${WANTED.length} states, transitions, codes and faults were reached`);
  for (const what of missing) console.log(`  never: ${what}`);
  if (bad.length > 0) {
    for (const { seed, rule, at } of bad) console.log(`BROKEN  seed ${seed}, step ${at}: ${rule}    npm run sim -- --seed ${seed}${howElse()}`);
    console.log('');
    await tellWhy(planOf(bad[0]!.seed));
    return 1;
  }
  if (missing.length > 0 && count >= ALL_FROM_SEEDS) return 1;
  return 0;
}

async function plants(): Promise<number> {
  const asked = number('seeds', 300);
  const only = words[words.indexOf('--plants') + 1];
  let missed = 0;
  for (const [name, plant] of Object.entries(PLANTS) as [string, Plant][]) {
    if (only !== undefined && !only.startsWith('--') && only !== name) continue;
    const within = Math.max(asked, plant.seeds ?? 0);
    let found = '';
    for (let seed = 1; seed <= within && found === ''; seed += 1) {
      const undo = plant.plant?.(); // anew for each, so that the seed alone finds it too
      const { broken } = await run({ seed, ...(plant.tampered === undefined ? {} : { tampered: plant.tampered }) });
      undo?.();
      if (broken !== null) found = plant.breaks.includes(broken.rule) ? `found by seed ${seed} (${broken.rule})` : `seed ${seed} broke "${broken.rule}", which does not name it: ${broken.message}`;
    }
    if (!found.startsWith('found')) missed += 1;
    console.log(`${found.startsWith('found') ? 'ok    ' : 'MISSED'}  ${name}: ${plant.says}: ${found === '' ? `not found within ${within} seeds` : found}`);
  }
  console.log(missed === 0 ? 'every planted bug was found' : `${missed} planted bugs were missed`);
  return missed === 0 ? 0 : 1;
}

async function hashes(): Promise<number> {
  const from = number('from', 1);
  const hash = createHash('sha256');
  for (let seed = from; seed < from + number('seeds', 20); seed += 1) {
    const { lines } = await run({ ...planOf(seed), told: true });
    for (const line of lines!) hash.update(`${line}\n`);
  }
  console.log(hash.digest('hex'));
  return 0;
}
