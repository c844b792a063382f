// The table of commands, and what is made of it: parsing, help, pages. What a shell makes of the completion is in test/process/completion.test.ts.
import { expect, test } from 'vitest';
import { COMMANDS } from '../../clients/cli/commands.ts';
import { helpOf, overview, parseWords } from '../../clients/cli/command_line.ts';
import { filled, plain } from '../../clients/cli/man/plain.ts';
import { pageOf, pageOfAll } from '../../clients/cli/man/page.ts';
import { roff } from '../../clients/cli/man/roff.ts';
import { whole } from '../../clients/cli/spec.ts';
import type { CommandSpec } from '../../clients/cli/spec.ts';

const demo: CommandSpec = {
  name: 'demo',
  summary: 'show what a table can say',
  description: 'First paragraph.\n\nSecond one.',
  usage: 'FILE [options] [-- COMMAND…]',
  arguments: [{ name: 'FILE', does: 'what is read', completes: 'file' }],
  options: [
    { flags: '-n, --number <N>', does: 'how many', parse: whole(1, 9), default: 3 },
    { flags: '--how <WAY>', does: 'the way', choices: ['fast', 'slow'] },
    { flags: '--test-only', does: 'for tests', hidden: true },
  ],
  rest: { name: 'COMMAND', does: 'another command line' },
  examples: [{ type: "kvlane demo a.txt -- echo 'it\\'s'", shows: 'Run it:' }],
  exitCodes: [
    [0, 'done'],
    [1, 'not so good'],
  ],
  run: () => 0,
};
const parse = (...words: string[]) => parseWords(words, [...COMMANDS, demo]);
const given = (...words: string[]) => {
  const parsed = parse(...words);
  if (parsed.do !== 'run') throw new Error(parsed.text);
  return parsed.given;
};

test('a command gets its arguments, its options and the command line that follows', () => {
  expect(given('demo', '-n', '5', '--how', 'slow', 'a.txt', '--', 'echo', '-n', '--', 'x')).toMatchObject({ options: { number: 5, how: 'slow' }, words: ['a.txt'], rest: ['echo', '-n', '--', 'x'] });
  expect(given('demo', 'a.txt', '--mount', 'kv0=/x').rest).toEqual(['--mount', 'kv0=/x']);
  expect(given('demo', 'a.txt')).toMatchObject({ options: { number: 3 }, rest: [] });
  expect(given('demo', 'a.txt').typed('number')).toBe(false);
  expect(given('demo', '-n3', 'a.txt').typed('number')).toBe(true);
});

test.each<[string[], RegExp]>([
  [['demo'], /missing required argument 'FILE'/],
  [['demo', '-n', '12', 'f'], /A whole number from 1 to 9 is wanted/],
  [['demo', '--how', 'so', 'f'], /Allowed choices are fast, slow/],
  [['demo', '--numbr', '1', 'f'], /Did you mean --number/],
  [['help', 'serve', 'more'], /help does not know what to do with 'more'; usage: kvlane help \[COMMAND\]/],
  [['serv'], /there is no command 'serv'; did you mean serve\?/],
  [['--verbose'], /there is no command '--verbose'/],
])('%j is refused in words', (words, says) => {
  const parsed = parse(...words);
  expect(parsed).toMatchObject({ do: 'say', exitCode: 2, text: expect.stringMatching(says) as string });
});

test('help and version go to people with status 0, nothing at all with status 2', () => {
  expect(parse()).toMatchObject({ do: 'say', exitCode: 2, text: overview([...COMMANDS, demo]) });
  expect(parse('--help')).toMatchObject({ do: 'say', exitCode: 0 });
  expect(parse('-V')).toEqual({ do: 'say', exitCode: 0, text: '0.1.0\n' });
  const help = parse('demo', '--help');
  expect(help).toMatchObject({ do: 'say', exitCode: 0, text: helpOf(demo) });
  for (const word of ['Usage: kvlane demo FILE', 'Second one.', '-n, --number <N>', 'default: 3', 'Examples:', 'Exit status:', 'not so good']) expect(help).toMatchObject({ text: expect.stringContaining(word) as string });
  expect(helpOf(demo)).not.toContain('test-only');
});

test.each(COMMANDS.map((command) => [command.name, command] as const))('%s says all that a page needs, in the manner of the others', (_name, command) => {
  expect(command.name).toMatch(/^[a-z][a-z-]*$/);
  for (const clause of [command.summary, ...command.options.map((option) => option.does), ...command.exitCodes.map(([, when]) => when)]) expect(clause).toMatch(/^[^A-Z][^]*[^.]$|^[A-Z]{2}/);
  for (const paragraph of command.description.split('\n\n')) expect(paragraph).toMatch(/[.:]$/);
  expect(command.exitCodes.map(([code]) => code)).toEqual(expect.arrayContaining([0, 2]) as number[]);
  expect(command.examples.length).toBeGreaterThan(0);
  for (const { shows } of command.examples) expect(shows).toMatch(/:$/);
  for (const other of command.seeAlso ?? []) expect(COMMANDS.map((one) => one.name)).toContain(other);
  const help = helpOf(command);
  const page = plain(pageOf(command), 100).replace(/\s+/g, ' ');
  for (const option of command.options.filter((one) => !one.hidden)) {
    expect(help).toContain(option.flags);
    expect(page).toContain(option.flags);
  }
  for (const [code] of command.exitCodes) expect(help).toMatch(new RegExp(`^ +${code} `, 'm'));
});

test('no two commands have one name, and the list shows each once', () => {
  const names = COMMANDS.map((command) => command.name);
  expect(new Set(names).size).toBe(names.length);
  for (const command of COMMANDS) expect(overview(COMMANDS).match(new RegExp(`^  ${command.name} `, 'gm')) ?? []).toHaveLength(command.hidden ? 0 : 1);
});

test('a page as text keeps to the width, and literal text as it is', () => {
  const text = plain(pageOf(demo), 60);
  for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(60);
  expect(text).toContain("           $ kvlane demo a.txt -- echo 'it\\'s'\n");
  expect(text).toMatch(/-n, --number <N>\n {14}How many\. Without it: 3\./);
  expect(text).toMatch(/EXIT STATUS\n {7}0 {6}Done\./);
  expect(filled('a verylongwordthatdoesnotfit b', 2, 10)).toEqual(['  a', '  verylongwordthatdoesnotfit', '  b']);
});

test('a page for man escapes what troff would read as its own', () => {
  const page = roff({ ...pageOf(demo), sections: [{ title: 'T', parts: [{ kind: 'literal', text: ".dot\n'quote\nback\\slash – dash" }] }] });
  expect(page).toContain('\n\\&.dot\n\\&\'quote\nback\\eslash \\[u2013] dash\n');
  expect(roff(pageOf(demo))).toContain('\n\\fB\\-n, \\-\\-number <N>\\fR\nHow many.');
  expect(roff(pageOfAll(COMMANDS))).toMatch(/^\.TH KVLANE 1 /);
});
