// sim.test.ts — the CI-sized form of the simulation, and the tests of the simulation itself.
//
// Each runs the command that a person runs, as a process of its own: so the same seed has to tell the same story in two of them.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';

/** What CI has time for; the full form takes as many as one asks. */
const SEEDS = Number(process.env['KVLANE_SIM_SEEDS'] ?? 1_500);
/** Each planted bug has to be found within so many, unless plants.ts says that it takes more. */
const PLANT_SEEDS = 200;

function sim(...words: string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(import.meta.dirname, 'run.mjs'), ...words], { encoding: 'utf8', timeout: 280_000, maxBuffer: 1 << 28 });
  return { status, said: stdout + stderr };
}

test(`${SEEDS} seeds keep every promise, and reach every state, transition and code`, () => {
  const { status, said } = sim('--seeds', String(SEEDS));
  expect(said.slice(-6_000)).not.toContain('BROKEN');
  expect(status, said.slice(-6_000)).toBe(0);
  console.log(said.split('\n').slice(-4).join('\n'));
});

test('a seed tells the same story in every process', () => {
  const [one, other] = [sim('--hash', '--seeds', '12'), sim('--hash', '--seeds', '12')];
  expect(one.said).toMatch(/^[0-9a-f]{64}\n$/);
  expect(other.said).toBe(one.said);
  expect(sim('--hash', '--seeds', '12', '--from', '2').said).not.toBe(one.said);
});

test('every bug that is put in on purpose is found, by the rule that names it', () => {
  const { status, said } = sim('--plants', '--seeds', String(PLANT_SEEDS));
  expect(said).not.toContain('MISSED');
  expect(status, said).toBe(0);
  expect(said.match(/^ok {4}/gm)!.length).toBe(35);
});

test('a seed that breaks a promise ends with a short story, the rule, and what it means', () => {
  const { status, said } = sim('--seed', '1', '--plant', 'no-gate');
  expect(status).toBe(1);
  expect(said).toContain('BROKEN   two writers');
  expect(said).toContain('seed 1 breaks "two writers": one operation at a time may change what a name leads to.');
  const left = Number(/Above are (\d+) of its/.exec(said)![1]);
  expect(left).toBeLessThanOrEqual(5);
  expect(said).toContain('npm run sim -- --seed 1 --plant no-gate --whole');
});

test('one that breaks it only at the end is shortened as well', () => {
  const { status, said } = sim('--seed', '3', '--plant', 'staging-leaks');
  expect(status).toBe(1);
  expect(said).toContain('seed 3 breaks "nothing is left"');
  expect(Number(/Above are (\d+) of its/.exec(said)![1])).toBeLessThanOrEqual(5);
});
