// sidecar/THREATS.md says what is defended: each row of its tables names exactly one test, and that test exists under that name.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const REPOSITORY = join(import.meta.dirname, '../..');
const PAGE = readFileSync(join(REPOSITORY, 'sidecar/THREATS.md'), 'utf8');

interface Row {
  threat: string;
  file: string;
  name: string;
}

/** Rows of the tables whose last column is headed "test"; a row that does not name one test in the one way is a complaint. */
function read(page: string): { rows: Row[]; complaints: string[] } {
  const rows: Row[] = [];
  const complaints: string[] = [];
  let within = false;
  for (const line of page.split('\n')) {
    if (!line.startsWith('|')) within = false;
    else if (/\| test \|$/.test(line)) within = true;
    else if (within && !/^\|( --- \|)+$/.test(line)) {
      const cells = line.slice(1, -1).split(' | ').map((cell) => cell.trim());
      const found = /^`([^`]+)` › (.+)$/.exec(cells[2] ?? '');
      if (cells.length !== 3 || !found || found[2]!.includes('›')) complaints.push(`this row does not name one test: ${line}`);
      else rows.push({ threat: cells[0]!, file: found[1]!, name: found[2]! });
    }
  }
  return { rows, complaints };
}

/** The names of the tests in a file, as they are written there: one with places to fill in counts as written. */
function testsIn(file: string): Set<string> {
  return testsOf(readFileSync(join(REPOSITORY, file), 'utf8'), file);
}

/** What is commented out, marked to be skipped always, or still to be written is none. */
function testsOf(source: string, file: string): Set<string> {
  const text = source
    .replace(/^describe[\s\S]*?=> \{$/gm, '')
    .replace(/^\s*(?:\/\/|\/\*|\*).*$/gm, '')
    .replace(/\b(?:test|it)\.(?:skip|todo|fails)\s*\([^\n]*/g, '');
  if (file.endsWith('.py')) return new Set([...text.matchAll(/^(?:async )?def (test_\w+)\(/gm)].map((one) => one[1]!));
  if (file.endsWith('.cc')) return new Set([...text.matchAll(/^TEST\("((?:[^"\\]|\\.)*)"\)/gm)].map((one) => one[1]!));
  return new Set([...text.matchAll(/(?<!until)\(\s*(['`])((?:(?!\1)[^\\\n]|\\.)+)\1\s*,\s*(?:\{[^\n]*?\},\s*)?(?:async\s*)?\(/g)].map((one) => one[2]!));
}

function complaintsAbout(page: string): string[] {
  const { rows, complaints } = read(page);
  const names = new Map<string, Set<string>>();
  for (const { threat, file, name } of rows) {
    try {
      if (!names.has(file)) names.set(file, testsIn(file));
      if (!names.get(file)!.has(name)) complaints.push(`${file} has no test named "${name}" (for: ${threat})`);
    } catch (error) {
      complaints.push(`${file}: ${(error as Error).message}`);
    }
  }
  const seen = new Map<string, string>();
  for (const { threat, file, name } of rows) {
    if (seen.has(`${file} ${name}`)) complaints.push(`"${name}" stands for two threats: ${seen.get(`${file} ${name}`)} and ${threat}`);
    seen.set(`${file} ${name}`, threat);
  }
  return complaints;
}

test('each row of the threat page names one test, and it exists', () => {
  expect(complaintsAbout(PAGE)).toEqual([]);
  expect(read(PAGE).rows.length).toBeGreaterThan(40);
});

test('a row without a test, with two, with one that is not there, or with another row’s is found', () => {
  const [first] = read(PAGE).rows as [Row, ...Row[]];
  const table = (...cells: string[]): string => `| threat | what holds | test |\n| --- | --- | --- |\n${cells.map((cell) => `| a | b | ${cell} |`).join('\n')}\n`;
  const good = `\`${first.file}\` › ${first.name}`;
  expect(complaintsAbout(table(good))).toEqual([]);
  for (const bad of ['', 'see the tests', `${good}, \`${first.file}\` › another`, `${good} and more`, '`test/security/nowhere.test.ts` › a name']) expect(complaintsAbout(table(bad)), bad).toHaveLength(1);
  expect(complaintsAbout(table(good, good))).toHaveLength(1);
});

test('a test that was renamed, commented out or switched off is one that is not there', () => {
  const one = "test('a name', async () => {\n});\n";
  expect([...testsOf(one, 'a.test.ts')]).toEqual(['a name']);
  for (const changed of [one.replace('a name', 'another'), `// ${one}`, `  /* ${one} */`, one.replace('test(', 'test.skip('), one.replace('test(', 'test.todo(')]) expect([...testsOf(changed, 'a.test.ts')], changed).not.toContain('a name');
  expect([...testsOf('TEST("a name") {\n', 'a.cc'), ...testsOf('def test_name():\n', 'a.py')]).toEqual(['a name', 'test_name']);
  expect([...testsOf('// TEST("a name") {\n', 'a.cc'), ...testsOf('# def test_name():\n', 'a.py')]).toEqual([]);
});

test('every test of this folder stands in a row', () => {
  const named = new Set(read(PAGE).rows.map(({ file, name }) => `${file} ${name}`));
  const missing: string[] = [];
  for (const file of readdirSync(import.meta.dirname)) {
    if (!file.endsWith('.test.ts') || file === 'threats.test.ts') continue;
    for (const name of testsIn(`test/security/${file}`)) if (!named.has(`test/security/${file} ${name}`)) missing.push(`${file}: ${name}`);
  }
  expect(missing).toEqual([]);
});
