// `kvlane doctor` as it is typed: on real directories, good ones and bad ones. On mounts that hang: test/stall/doctor.test.ts.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { command } from '../../clients/cli/doctor/command.ts';
import { YOUNG_MS } from '../../clients/cli/doctor/survey_watch.ts';
import { STEPS } from '../../clients/cli/doctor/survey_words.ts';
import type { Word } from '../../clients/cli/doctor/survey_words.ts';
import { sidecarMain } from '../../clients/node/process.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

interface Said {
  format: number;
  verdict: string;
  fit: boolean;
  mount: { point: string; type: string; options: string[] } | null;
  findings: { id: string; level: string; what: string; why: string; do: string }[];
  probe: { name: string; calls: number; median_us: number }[];
}

const ROOT = process.getuid?.() === 0;
/** Where nothing hangs it is not the machine that is judged: its disk may be slow, and others may run beside this. */
const WELL_S = '60';
const DOCTOR_MS_MAX = 90_000;
vi.setConfig({ testTimeout: 2 * DOCTOR_MS_MAX });
const OPTIONS = { encoding: 'utf8', timeout: DOCTOR_MS_MAX } as const;
const doctor = (words: string[], env: NodeJS.ProcessEnv = {}, cwd?: string) => spawnSync(process.execPath, [sidecarMain(), 'doctor', ...words], { ...OPTIONS, cwd, env: { ...process.env, ...env } });
function look(directory: string, words: string[] = []): { status: number | null; said: Said; levels: Record<string, string> } {
  const { status, stdout, stderr } = doctor(['--json', '--timeout-s', WELL_S, ...words, directory]);
  expect(stderr).toBe('');
  const said = JSON.parse(stdout) as Said;
  return { status, said, levels: Object.fromEntries(said.findings.map(({ id, level }) => [id, level])) };
}

/** Root in a container may lack what mount and unshare need. */
const MOUNTS = ROOT && mayMount();
function mayMount(): boolean {
  const { status, stderr } = spawnSync('unshare', ['--mount', '--pid', '--fork', '--mount-proc', 'sh', '-c', 'mount -t tmpfs x /tmp'], { encoding: 'utf8' });
  if (status !== 0) console.warn(`not tried: doctor on small file systems of its own: ${stderr.trim() || 'unshare and mount are refused here'}`);
  return status === 0;
}

/** A small file system of this type for one test. */
function mounted(type: string, options: string): string {
  const point = mkdtempSync(join(tmpdir(), 'kvlane-doctor-'));
  execFileSync('mount', ['-t', type, '-o', options, 'kvlane-test', point]);
  onTestFinished(() => {
    execFileSync('umount', ['-l', point]);
    rmSync(point, { recursive: true });
  });
  return point;
}

test('an ordinary directory is fit, every step was made there, and nothing is left behind', () => {
  const folder = freshDirectory();
  const { status, said, levels } = look(folder);
  expect(status).toBe(0);
  expect(said).toMatchObject({ format: 1, verdict: 'fit', fit: true });
  expect(levels).toMatchObject({ 'probe.store': 'note', 'host.kernel': expect.stringMatching(/^(ok|note)$/) as string, 'probe.room': expect.any(String) as string, 'mount.where': expect.any(String) as string });
  for (const name of ['pwritev 4 KiB', 'pwritev 1 MiB', 'preadv 1 MiB', 'fsync', 'renameat2', 'renameat2 exclusive', 'unlinkat', 'getdents64', 'rmdir']) expect(said.probe.map((one) => one.name)).toContain(name);
  expect(said.probe.find((one) => one.name === 'preadv 1 MiB')).toMatchObject({ calls: 8 });
  expect(readdirSync(folder)).toEqual([]);
});

test('a store that is there stays as it is', () => {
  const folder = freshDirectory();
  mkdirSync(join(folder, 'blocks'));
  writeFileSync(join(folder, 'kvlane.json'), '{}');
  expect(look(folder).levels).toMatchObject({ 'probe.store': 'ok' });
  expect(readdirSync(folder).sort()).toEqual(['blocks', 'kvlane.json']);
  expect(readFileSync(join(folder, 'kvlane.json'), 'utf8')).toBe('{}');
});

test('for people it is text, without colours in a pipe', () => {
  const { status, stdout } = doctor(['--timeout-s', WELL_S, freshDirectory()]);
  expect(status).toBe(0);
  expect(stdout).toMatch(/^\S+: fit \(.*\), looked at for \S+ m?s\n\n/);
  expect(stdout).not.toContain('\x1b');
  expect(doctor(['--timeout-s', WELL_S, freshDirectory()], { FORCE_COLOR: '1' }).stdout).toContain('\x1b[');
  expect(doctor(['--no-color', '--timeout-s', WELL_S, freshDirectory()], { FORCE_COLOR: '1' }).stdout).not.toContain('\x1b');
});

test('a link to a directory is followed, and so is what it lies on', () => {
  const folder = freshDirectory();
  const link = join(freshDirectory(), 'link');
  symlinkSync(folder, link);
  const { status, said } = look(link);
  expect(status).toBe(0);
  expect(said.findings.find(({ id }) => id === 'mount.where')!.what).toMatch(new RegExp(`^${folder} lies on `));
  expect(readdirSync(folder)).toEqual([]);
});

test('what is missing, or no directory, is not fit, and says what to do', () => {
  const folder = freshDirectory();
  writeFileSync(join(folder, 'file'), '');
  symlinkSync('nowhere', join(folder, 'dangling'));
  for (const [name, todo] of [['missing', /mkdir/], ['dangling', /mkdir/], ['file', /give the directory/]] as const) {
    const { status, said } = look(join(folder, name));
    expect(status).toBe(1);
    expect(said.verdict).toBe('not_fit');
    expect(said.findings[0]).toMatchObject({ id: 'probe.root', level: 'bad', what: `there is no directory ${join(folder, name)}`, do: expect.stringMatching(todo) as string });
  }
});

test('a name with blanks, quotes and what a terminal obeys is no trouble', () => {
  const folder = join(freshDirectory(), "it's a \x1b[2J \"store\"");
  mkdirSync(folder);
  const { status, stdout } = doctor(['--timeout-s', WELL_S, folder]);
  expect(status).toBe(0);
  expect(stdout).not.toContain('\x1b');
  expect(readdirSync(folder)).toEqual([]);
});

test('the time is bounded at both ends, and a directory is wanted', () => {
  const folder = freshDirectory();
  const parse = command.options.find(({ flags }) => flags.startsWith('--timeout-s'))!.parse!;
  expect([parse('1', undefined), parse('60', undefined)]).toEqual([1, 60]);
  for (const seconds of ['0', '61', '5s', '-1', '']) {
    const { status, stderr } = doctor(['--timeout-s', seconds, folder]);
    expect(status).toBe(2);
    expect(stderr).toContain('A whole number from 1 to 60 is wanted.');
  }
  expect(doctor([])).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining("missing required argument 'DIR'") as string });
  expect(doctor([folder, 'more']).status).toBe(2);
  expect(doctor([''], {}, folder)).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(/^kvlane doctor: the directory is missing/) as string });
});

test('.. behind a link is of what the link leads to', () => {
  const folder = freshDirectory();
  mkdirSync(join(folder, 'inner'));
  const elsewhere = freshDirectory();
  symlinkSync(join(folder, 'inner'), join(elsewhere, 'link'));
  const { status, said } = look(`${elsewhere}/link/..`);
  expect(status).toBe(0);
  expect(said.findings.find(({ id }) => id === 'mount.where')!.what).toMatch(new RegExp(`^${folder} lies on `));
});

test('a working directory that was removed matters to a relative word alone', () => {
  const folder = freshDirectory();
  const inGone = (...words: string[]) => spawnSync('sh', ['-c', 'd=$(mktemp -d) && cd "$d" && rmdir "$d" && exec "$0" "$@"', process.execPath, sidecarMain(), ...words], OPTIONS);
  const relative = /'x' is relative to the working directory, which cannot be told \(ENOENT/;
  expect(inGone('doctor', 'x')).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(relative) as string });
  expect(inGone('doctor', '--timeout-s', WELL_S, folder).status).toBe(0);
  expect(inGone('inspect', 'ls', 'x')).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(relative) as string });
  const absolute = inGone('inspect', 'ls', folder);
  expect(absolute.status).toBe(2);
  expect(absolute.stderr).not.toMatch(/uv_cwd|relative/);
});

test('a process that was stopped for longer than its time hangs in nothing, and leaves nothing', async () => {
  const folder = freshDirectory();
  const timeoutMs = 200;
  const child = spawn(process.execPath, [sidecarMain(), 'doctor-survey', folder, '--name', '1-ab', '--timeout-ms', String(timeoutMs)], { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' });
  onTestFinished(() => void child.kill('SIGKILL'));
  const words: Word[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    words.push(JSON.parse(line) as Word);
    if (words.at(-1)!.said !== 'ready') continue;
    child.kill('SIGSTOP');
    await delay(timeoutMs + 2 * YOUNG_MS); // the time itself is what is tested
    child.kill('SIGCONT');
  }
  expect(words.map(({ said }) => said)).not.toContain('hung');
  const steps = words.flatMap((word) => (word.said === 'step' ? [word.end] : []));
  expect(steps.filter(({ status }) => status !== 'ok')).toEqual([]); // the mount is not blamed
  const all = STEPS.length + 1; // and clean: a disk that is very quick
  if (steps.length < all) expect(words).toContainEqual({ said: 'trouble', code: 'STOPPED', text: expect.stringMatching(/^its process was stopped/) as string });
  expect(words.at(-1)).toEqual({ said: 'done', left: false });
  expect(readdirSync(folder)).toEqual([]);
});

test('a native part that cannot be loaded leaves the question open', () => {
  const { status, stdout } = doctor(['--json', freshDirectory()], { KVLANE_NATIVE: '/nowhere/kvlane.node' });
  expect(status).toBe(3);
  const said = JSON.parse(stdout) as Said;
  expect(said).toMatchObject({ verdict: 'unknown', fit: false });
  expect(said.findings.find(({ id }) => id === 'probe.trouble')!.what).toContain('/nowhere/kvlane.node');
});

test('several look at one directory at the same time, and do not meet', async () => {
  const folder = freshDirectory();
  const all = Array.from({ length: 4 }, () => new Promise<number | null>((done) => spawn(process.execPath, [sidecarMain(), 'doctor', '--timeout-s', WELL_S, folder], { stdio: 'ignore' }).once('exit', done)));
  expect(await Promise.all(all)).toEqual([0, 0, 0, 0]);
  expect(readdirSync(folder)).toEqual([]);
});

describe.skipIf(!MOUNTS)('as root', () => {
  test('a tmpfs is fit, with a word on what becomes of it', () => {
    const { status, said, levels } = look(mounted('tmpfs', 'size=64m'));
    expect(status).toBe(0);
    expect(levels).toMatchObject({ 'mount.memory': 'warn', 'probe.room': 'warn' });
    expect(said.mount).toMatchObject({ type: 'tmpfs', options: expect.arrayContaining(['size=65536k']) as string[] });
  });

  test('a file system that is full in the middle of the probe is not fit, and empty again afterwards', () => {
    const point = mounted('tmpfs', 'size=4m');
    const { status, said } = look(point);
    expect(status).toBe(1);
    expect(said.findings[0]).toMatchObject({ id: 'probe.write', level: 'bad', what: expect.stringMatching(/ENOSPC$/) as string });
    expect(readdirSync(point)).toEqual([]);
  });

  test('one without inodes is not fit', () => {
    const point = mounted('tmpfs', 'size=64m,nr_inodes=2');
    const { status, said } = look(point);
    expect(status).toBe(1);
    expect(said.findings[0]).toMatchObject({ id: 'probe.make', level: 'bad', what: expect.stringMatching(/ENOSPC$/) as string });
    expect(readdirSync(point)).toEqual([]);
  });

  test('a read-only mount is not fit', () => {
    const { status, levels } = look(mounted('tmpfs', 'ro,size=64m'));
    expect(status).toBe(1);
    expect(levels).toMatchObject({ 'probe.make': 'bad', 'mount.read-only': 'bad' });
  });

  test("another user's directory is not fit, and it says whose it should be", () => {
    const folder = freshDirectory();
    const words = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath, sidecarMain(), 'doctor', '--json', '--timeout-s', WELL_S, folder];
    execFileSync('chmod', ['0755', folder]);
    const { status, stdout, error } = spawnSync('setpriv', words, { ...OPTIONS, cwd: '/' });
    expect(error).toBeUndefined();
    expect(status).toBe(1);
    expect((JSON.parse(stdout) as Said).findings[0]).toMatchObject({ id: 'probe.make', what: 'no directory can be made: EACCES', do: expect.stringContaining('chown') as string });
  });

  test('in a pid namespace whose first process is no init it says so', () => {
    const said = spawnSync('unshare', ['--pid', '--fork', '--mount-proc', 'sh', '-c', '"$0" "$@"; exit $?', process.execPath, sidecarMain(), 'doctor', '--json', '--timeout-s', WELL_S, freshDirectory()], OPTIONS);
    expect(said.status).toBe(0);
    const finding = (JSON.parse(said.stdout) as Said).findings.find(({ id }) => id === 'host.first-process');
    expect(finding).toMatchObject({ level: 'warn', what: 'process 1 of this container is sh, no init', do: expect.stringContaining('--init') as string });
  });
});
