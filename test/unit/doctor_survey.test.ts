// The process that reports, when the one that touches the mount does not do what it should: it says so, and waits for nobody.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { hasLooked } from '../../clients/cli/doctor/probe.ts';
import { survey } from '../../clients/cli/doctor/survey.ts';
import type { Survey } from '../../clients/cli/doctor/survey.ts';
import type { Word } from '../../clients/cli/doctor/survey_words.ts';

const folder = mkdtempSync(join(tmpdir(), 'kvlane-survey-'));
afterAll(() => rmSync(folder, { recursive: true }));
const STAYS = 'setInterval(() => {}, 1000);';
const says = (...words: (Word | string)[]): string => words.map((word) => `console.log(${JSON.stringify(typeof word === 'string' ? word : JSON.stringify(word))});`).join('\n');
const root: Word = { said: 'step', end: { step: 'root', status: 'ok', errno: 0, phase: 'stat', facts: {} } };
const cleaned: Word = { said: 'step', end: { step: 'clean', status: 'ok', errno: 0, phase: 'unlink', facts: {} } };

let number = 0;
async function by(script: string, startMs = 5_000, restMs?: number): Promise<Survey> {
  number += 1;
  const file = join(folder, `${number}.cjs`);
  writeFileSync(file, script);
  const result = await survey('/mnt/cache', 1, file, startMs, restMs);
  onTestFinished(() => {
    try {
      process.kill(result.pid, 'SIGKILL');
    } catch {
      // it has gone
    }
  });
  return result;
}

test('one that says nothing is not waited for', async () => {
  const result = await by(STAYS, 100);
  expect(result).toMatchObject({ trouble: { code: 'MUTE', text: expect.stringContaining(`(${result.pid}) says nothing more`) as string }, left: false });
});

test('one that falls silent in the middle has perhaps left something', async () => {
  expect(await by(`${says({ said: 'ready' }, root)}${STAYS}`, 5_000, 100)).toMatchObject({ trouble: { code: 'MUTE' }, ends: [{ step: 'root' }], left: true });
});

test('one that ends too soon is told with its last words', async () => {
  expect(await by(`${says({ said: 'ready' })} console.error('no memory'); process.exitCode = 9;`)).toMatchObject({ trouble: { code: 'ENDED', text: 'the process that touches the mount ended with status 9: no memory' } });
  expect(await by("process.kill(process.pid, 'SIGKILL');")).toMatchObject({ trouble: { code: 'ENDED', text: expect.stringContaining('SIGKILL') as string } });
});

test('one that ends in the middle has perhaps left something; not so when it had removed it', async () => {
  const kill = "process.kill(process.pid, 'SIGKILL');";
  expect(await by(`${says({ said: 'ready' }, root)}${kill}`)).toMatchObject({ trouble: { code: 'ENDED' }, left: true });
  expect(await by(`${says({ said: 'ready' }, root, cleaned)}${kill}`)).toMatchObject({ trouble: { code: 'ENDED' }, left: false });
});

test('one that is idle leaves the question open', async () => {
  const result = await by(`${says({ said: 'ready' }, root, { said: 'trouble', code: 'IDLE', text: 'too busy' })}${STAYS}`);
  expect(result).toMatchObject({ trouble: { code: 'IDLE', text: 'too busy' }, hung: null, left: true });
  expect(hasLooked(result)).toBe(false);
});

test('one that hung stays told so, also when the call comes back at that moment', async () => {
  const hung: Word = { said: 'hung', hung: { step: 'write', syscall: 'pwritev', tid: 1, forMs: 1500 } };
  expect(await by(says({ said: 'ready' }, root, hung, cleaned, { said: 'done', left: false }))).toMatchObject({ hung: { step: 'write' }, trouble: null, left: true });
});

test('one that talks nonsense is told with what it said', async () => {
  expect(await by(`${says({ said: 'ready' }, 'nonsense')}${STAYS}`)).toMatchObject({ trouble: { code: 'GARBLED', text: 'the process that touches the mount said "nonsense"' } });
});

test('one that hangs is left behind with what it could say', async () => {
  const result = await by(`${says({ said: 'ready' }, root, { said: 'hung', hung: { step: 'make', syscall: 'mkdirat', tid: 1, forMs: 1500 } })}${STAYS}`);
  expect(result).toMatchObject({ trouble: null, hung: { step: 'make', syscall: 'mkdirat', forMs: 1500 }, left: true });
  expect(() => process.kill(result.pid, 0)).not.toThrow();
});

test('one that is done has told all', async () => {
  expect(await by(says({ said: 'ready' }, root, { said: 'aio', engine: 'threads', notices: ['EAGAIN'] }, { said: 'done', left: false }))).toMatchObject({ trouble: null, hung: null, left: false, aio: { works: false, notices: ['EAGAIN'] }, ends: [{ step: 'root' }] });
});
