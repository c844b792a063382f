// completion.test.ts — what a real bash offers, and what the other shells say to their scripts where they are installed.
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const kvlane = (...words: string[]) => spawnSync(process.execPath, [sidecarMain(), ...words], { encoding: 'utf8', timeout: 20_000 });
const scripts = new Map<string, string>();
function script(shell: string): string {
  if (!scripts.has(shell)) scripts.set(shell, kvlane('completion', shell).stdout);
  return scripts.get(shell)!;
}

/** The words as bash cuts them: at blanks and at `=`. */
function offered(words: string[], cwd = '/'): string[] {
  const asked = `
    ${script('bash')}
    COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=${words.length - 1}
    _kvlane 2>&1; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const said = spawnSync('bash', ['--norc', '-c', asked], { encoding: 'utf8', cwd, timeout: 20_000 });
  expect(said.stderr).toBe('');
  return said.stdout.trim().split('\n').filter((word) => word !== '').sort();
}

test('bash offers commands, options, choices and names of commands', () => {
  expect(offered(['kvlane', ''])).toEqual(expect.arrayContaining(['serve', 'help', '--version']) as string[]);
  expect(offered(['kvlane', 'com'])).toEqual(['completion']);
  expect(offered(['kvlane', 'serve', '--st'])).toEqual(['--stall-ms', '--stuck-max', '--stuck-process-max']);
  expect(offered(['kvlane', 'serve', '--engine', ''])).toEqual(['aio', 'threads']);
  expect(offered(['kvlane', 'completion', 'f'])).toEqual(['fish']);
  expect(offered(['kvlane', 'help', 'ser'])).toEqual(['serve']);
  expect(offered(['kvlane', 'serve', '--lanes', ''])).toEqual([]);
});

test('bash offers a name for a mount, and directories after it', () => {
  const folder = freshDirectory();
  mkdirSync(join(folder, 'one two'));
  mkdirSync(join(folder, 'three'));
  writeFileSync(join(folder, 'file'), '');
  expect(offered(['kvlane', 'serve', '--mount', ''])).toEqual(['kv0=']);
  expect(offered(['kvlane', 'serve', '--mount', 'kv0', '='], folder)).toEqual(['one two', 'three']);
  expect(offered(['kvlane', 'serve', '--mount', 'kv0', '=', 't'], folder)).toEqual(['three']);
  expect(offered(['kvlane', 'man', '--all', ''], folder)).toEqual(['one two', 'three']);
});

test('inspect is offered its actions and its options with their choices; its directory, like that of doctor, may hang, so the shell is not sent to look', () => {
  const folder = freshDirectory();
  mkdirSync(join(folder, 'store'));
  writeFileSync(join(folder, 'file'), '');
  expect(offered(['kvlane', 'inspect', ''])).toEqual(['df', 'explain', 'ls', 'rm', 'verify']);
  expect(offered(['kvlane', 'inspect', 'ls', ''], folder)).toEqual([]);
  expect(offered(['kvlane', 'doctor', ''], folder)).toEqual([]);
  expect(offered(['kvlane', 'inspect', 'ls', 'store', '--so'])).toEqual(['--sort']);
  expect(offered(['kvlane', 'inspect', 'ls', 'store', '--sort', ''])).toEqual(['age', 'name', 'size']);
});

test('behind the file of a record bash completes another command line', () => {
  const folder = freshDirectory();
  writeFileSync(join(folder, 'old.ndjson'), '');
  expect(offered(['kvlane', 'record', 'o'], folder)).toEqual(['old.ndjson']);
  expect(offered(['kvlane', 'record', '--max-mib', '5', 'o'], folder)).toEqual(['old.ndjson']);
  for (const words of [['--', 'bas'], ['bas']]) expect(offered(['kvlane', 'record', 'r.ndjson', ...words], folder)).toContain('bash');
});

test.each(['bash', 'zsh', 'fish'])('%s takes its script, where it is installed', (shell) => {
  const file = join(freshDirectory(), 'script');
  writeFileSync(file, script(shell));
  const { error, status, stderr } = spawnSync(shell, ['-n', file], { encoding: 'utf8', timeout: 20_000 });
  if ((error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT') return expect(shell).not.toBe('bash');
  expect(stderr).toBe('');
  expect(status).toBe(0);
});

test('there is a script for zsh and fish, and none for others', () => {
  expect(script('zsh')).toMatch(/^#compdef kvlane\n/);
  expect(script('fish')).toContain("complete -c kvlane -n '__fish_seen_subcommand_from serve' -l engine -x -a 'threads aio'");
  const other = kvlane('completion', 'tcsh');
  expect(other).toMatchObject({ status: 2, stdout: '', stderr: "kvlane completion: there is a script for bash, zsh, fish, none for 'tcsh'\n" });
});
