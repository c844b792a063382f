// kvlane inspect on real stores: whole and damaged ones, hostile names, many blocks; what it says, and that looking changes nothing.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, statSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { terminal } from '../support/console_terminal.ts';
import { inspect, inspecting, timesOf } from '../support/inspect.ts';
import { blockPath, namesIn, startStore, treeOf } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 5_000;
const PAYLOAD_AT = 4_096;
const FORMAT_AT = 8;
const WRITER = 'feedfacefeedface';
/** A name with what a terminal would obey: a cleared screen, a title, a newline. */
const WILD = '00\x1b[2J\x1b]0;pwned\x07\n.kvb';

async function storeWith(...keys: string[]): Promise<string> {
  const root = freshDirectory();
  const store = await startStore(root);
  await store.put(keys, BYTES);
  await store.client.shutdown();
  return root;
}

function rewritten(path: string, change: (file: Buffer) => void): void {
  const file = readFileSync(path);
  change(file);
  writeFileSync(path, file);
}

const KEYS = ['00aa', '00bb', '00cc', '00dd', '00ee', '00f0', '00f1', '00f2', '01aa'].map((hex) => `demo/${hex}`);

/** One of each kind of trouble; `01aa` and `other@3/0101` are sound. */
async function troubled(): Promise<string> {
  const root = await storeWith(...KEYS, 'other@3/0101');
  const path = (hex: string): string => blockPath(root, `demo/${hex}`);
  rewritten(path('00aa'), (file) => void (file[PAYLOAD_AT + 77]! ^= 4));
  truncateSync(path('00bb'), PAYLOAD_AT + 100);
  copyFileSync(path('01aa'), path('00cc'));
  rewritten(path('00dd'), (file) => {
    file.writeUInt32LE(2, FORMAT_AT);
    file.writeUInt32LE(8192, FORMAT_AT + 4); // where a later format's payload may start
  });
  execFileSync('rm', [path('00ee'), path('00f0')]);
  symlinkSync(path('01aa'), path('00ee'));
  execFileSync('mkfifo', [path('00f0')]);
  truncateSync(path('00f1'), 2 ** 40);
  writeFileSync(path('00f2'), '');
  const directory = join(root, 'blocks/demo/00');
  writeFileSync(join(directory, `00ff.${WRITER}-1.tmp`), 'a store that was killed');
  writeFileSync(join(directory, 'notes.tmp~'), 'somebody else');
  writeFileSync(join(directory, WILD), '');
  mkdirSync(join(root, 'aside'), { recursive: true });
  writeFileSync(join(root, 'aside', `demo.00ff.99.${WRITER}-1`), 'damaged');
  mkdirSync(join(root, 'recycle', WRITER), { recursive: true });
  writeFileSync(join(root, 'recycle', WRITER, '7'), 'was a block');
  return root;
}

describe('a store with one of each kind of trouble', () => {
  test('every look says what is there, harmlessly, and changes nothing: no byte, no name, no time', async () => {
    const root = await troubled();
    for (const directory of ['recycle', join('recycle', WRITER)]) utimesSync(join(root, directory), 1, 1);
    const before = timesOf(root);
    const contents = treeOf(root);

    const verified = await inspect('verify', root);
    expect(verified.status, verified.stderr).toBe(1);
    const findings = verified.stdout.trimEnd().split('\n');
    const finding = (hex: string): string => findings.find((line) => line.includes(`demo/${hex}`)) ?? '';
    expect(finding('00aa')).toMatch(/^corrupt +demo\/00aa +the payload does not fit its checksum$/);
    expect(finding('00bb')).toMatch(/^corrupt /);
    expect(finding('00cc')).toMatch(/^corrupt .*it holds the block of another key$/);
    expect(finding('00dd')).toMatch(/^newer format /);
    expect(finding('00ee')).toMatch(/^no file .* a link stands in the place of the block$/);
    expect(finding('00f0')).toMatch(/^no file .* a device, pipe or socket stands in the place of the block$/);
    expect(finding('00f1')).toMatch(/^corrupt .*its length is not what its header says$/);
    expect(finding('00f2')).toMatch(/^corrupt .*the file is empty$/);
    expect(finding('01aa')).toBe('');
    expect(findings.at(-1)).toMatch(/^2 blocks sound, 7 damaged, 1 of a newer format, 2 names not made by kvlane, /);

    const listed = await inspect('ls', root, 'demo', '--long');
    expect(listed.stdout).toMatch(/^ +1 TiB .* block +demo\/00f1$/m);
    expect(listed.stdout).toMatch(new RegExp(`temporary  blocks/demo/00/00ff.${WRITER}-1.tmp$`, 'm'));
    expect((await inspect('ls', root)).stdout.split('\n').sort()).toEqual(['', 'demo', 'other@3']);
    expect((await inspect('ls', root, '--leftovers')).stdout.trim().split('\n').sort()).toEqual([`aside/demo.00ff.99.${WRITER}-1`, `blocks/demo/00/00ff.${WRITER}-1.tmp`, `recycle/${WRITER}/7`]);
    expect((await inspect('df', root)).stdout).toMatch(/ 7 +1 TiB .* demo$/m);
    const summed = JSON.parse((await inspect('df', root, '--json')).stdout) as Record<string, any>;
    expect(summed).toMatchObject({ namespaces: { demo: { files: 7 }, 'other@3': { files: 1 } }, temporary: { files: 1 }, recycled: { files: 1 }, aside: { files: 1 }, foreign: { files: 4 } });
    for (const said of [verified, listed, await inspect('ls', root, 'demo', '--json'), await inspect('explain', root, `blocks/demo/00/${WILD}`)]) {
      expect(`${said.stdout}${said.stderr}`.replaceAll('\n', ''), 'nothing a terminal would obey').not.toMatch(/[\0-\x1f\x7f-\x9f]/);
    }

    expect((await inspect('rm', root, 'demo/00aa', 'demo/01aa', '--dry-run')).stdout).toBe('would remove demo/00aa\nwould remove demo/01aa\n');
    expect((await inspect('rm', root, '--leftovers', '--older-than', '0s', '--dry-run')).stdout.trim().split('\n')).toHaveLength(3);
    expect(timesOf(root)).toEqual(before);
    expect(treeOf(root)).toEqual(contents);
  }, 120_000);

  test('explain says of each what it is, what that means and what to do', async () => {
    const root = await troubled();
    const told = async (target: string): Promise<string> => {
      const { stdout, stderr, status } = await inspect('explain', root, target);
      return `${status}: ${stdout}${stderr}`;
    };
    expect(await told('demo/01aa')).toMatch(/^0: demo\/01aa\n {2}what +a block\n[^]*payload +4\.9 KiB\n {2}stored +\S+ \([^)]+ ago\)\n {2}writer +[0-9a-f]{16}\n[^]*so +sound: header, key, length and checksum fit/);
    expect(await told('demo/00aa')).toMatch(/^1: [^]*what +a damaged block[^]*found +the payload does not fit its checksum[^]*kvlane inspect rm DIR KEY/);
    expect(await told('demo/00dd')).toMatch(/^0: [^]*a block of a newer format/);
    expect(await told('demo/00ee')).toMatch(/^1: [^]*no block: a link in the place of one/);
    expect(await told('demo/00f1')).toMatch(/^1: [^]*size +1 TiB, .* on the disk \(the rest are holes\)/);
    expect(await told('demo/0a0a')).toMatch(/^1: [^]*no such block/);
    expect(await told(`${root}/blocks/demo/00/00ff.${WRITER}-1.tmp`)).toMatch(/^0: [^]*key +demo\/00ff[^]*inspect rm DIR --leftovers/);
    expect(await told('recycle/feedfacefeedface/7')).toMatch(/^0: [^]*it belongs to that sidecar alone/);
    expect(await told('demo')).toMatch(/^0: demo\n {2}what +a namespace\n {2}record +none: [^]*holds +7 blocks, 1 TiB[^]*5 names that are no block\n[^]*kvlane inspect rm DIR --namespace demo/);
    expect(await told('blocks/other@3')).toMatch(/^0: other@3\n {2}what +generation 3 of the namespace other\n[^]*holds +1 block, /);
    expect(await told('nobody')).toMatch(/^1: [^]*no such namespace/);
    mkdirSync(join(root, 'collector'));
    writeFileSync(join(root, 'collector/8'), 'somebody');
    expect(await told('collector/8')).toMatch(/^0: [^]*which sidecar may remove blocks for room/);
    expect(await told('probe/block')).toMatch(/^0: [^]*to find out whether the mount answers/);
    expect(await told('kvlane.json')).toMatch(/^0: [^]*who this store is: id [0-9a-f]{32}/);
    expect(await told('/etc/passwd')).toMatch(/^2: kvlane inspect: '\/etc\/passwd' is no key/);
  }, 120_000);

  test('leftovers go when they are old enough, and nothing else does', async () => {
    const root = await troubled();
    const before = treeOf(root);
    const young = await inspect('rm', root, '--leftovers', '--yes');
    expect([young.status, young.stderr]).toEqual([0, expect.stringMatching(/3 files changed within the last 1 h: left alone[^]*nothing was left behind that is old enough/)]);
    expect(treeOf(root)).toEqual(before);
    const piped = await inspect('rm', root, '--leftovers', '--older-than', '0s');
    expect([piped.status, piped.stderr]).toEqual([2, expect.stringContaining('Nobody can be asked here: say --yes')]);
    expect(treeOf(root)).toEqual(before);
    const swept = await inspect('rm', root, '--leftovers', '--older-than', '0s', '--yes');
    expect([swept.status, swept.stdout]).toEqual([0, 'removed 3 files\n']);
    const gone = Object.keys(before).filter((path) => !(path in treeOf(root)));
    expect(gone).toEqual([`aside/demo.00ff.99.${WRITER}-1`, `blocks/demo/00/00ff.${WRITER}-1.tmp`, `recycle/${WRITER}/7`]);
  }, 120_000);

  test('a namespace goes with all its blocks; links, pipes and what is foreign stay, and so does what a link leads to', async () => {
    const root = await troubled();
    const { status, stdout, stderr } = await inspect('rm', root, '--namespace', 'demo', '--yes');
    expect([status, stdout, stderr]).toEqual([0, expect.stringMatching(/^removed 7 blocks of demo;/), '']);
    expect(namesIn(join(root, 'blocks/demo/00'))).toEqual([WILD, '00ee.kvb', '00f0.kvb', `00ff.${WRITER}-1.tmp`, 'notes.tmp~'].sort());
    expect(existsSync(blockPath(root, 'other@3/0101'))).toBe(true);
    expect((await inspect('rm', root, 'other@3/0101')).stdout).toBe('removed 1 block\n');
    expect(existsSync(blockPath(root, 'other@3/0101'))).toBe(false);
    expect(namesIn(join(root, 'recycle')), 'nothing is kept to be overwritten').toEqual([WRITER]);
  }, 120_000);
});

/** root may look everywhere: in its place somebody looks who owns the store and nothing else. */
const NOBODY = process.getuid!() === 0 ? 65_534 : undefined;
const nobodyIsKeptOut = NOBODY !== undefined && spawnSync(process.execPath, [sidecarMain(), '--version'], { uid: NOBODY, cwd: '/' }).status !== 0;

test.skipIf(nobodyIsKeptOut)('where one directory may not be looked into and another not written, the rest is looked at and removed', async () => {
  const root = await troubled();
  const shut = join(root, 'blocks/demo/01');
  const kept = join(root, 'aside');
  if (NOBODY !== undefined) execFileSync('chown', ['-Rh', `${NOBODY}:${NOBODY}`, root]);
  chmodSync(shut, 0);
  chmodSync(kept, 0o555);
  onTestFinished(() => [shut, kept].forEach((path) => chmodSync(path, 0o755)));
  const look = (...words: string[]) => inspecting(words, { uid: NOBODY }).exited;

  const summed = await look('df', root);
  expect(summed, summed.stderr).toMatchObject({ status: 3, stdout: expect.stringMatching(/ demo\n[^]*as far as was looked, without 1 directory, on /), stderr: expect.stringMatching(/^kvlane inspect: listing blocks\/demo\/01: IO_ERROR: .*EACCES.*: passed over\n$/) });
  const verified = await look('verify', root, 'other@3');
  expect(verified, verified.stderr).toMatchObject({ status: 0, stdout: expect.stringMatching(/^1 block sound/) });
  expect(await look('verify', root)).toMatchObject({ status: 1, stdout: expect.stringMatching(/^1 block sound, 7 damaged, .*1 directory not looked into, /m) });
  expect(await look('verify', root, 'demo', 'nope')).toMatchObject({ status: 2, stdout: '', stderr: expect.stringContaining('there is no namespace nope') });
  expect(await look('rm', root, 'demo/00f2', 'demo/00ee', 'demo/0a0a', '--yes')).toMatchObject({
    status: 1,
    stdout: 'removed 1 block\n',
    stderr: 'kvlane inspect: demo/00ee: a link stands in the place of the block: left alone\nkvlane inspect: demo/0a0a: there is no such block\n',
  });
  expect(await look('rm', root, '--leftovers', '--older-than', '0s', '--yes')).toMatchObject({
    status: 1,
    stdout: 'removed 2 files\n',
    stderr: expect.stringMatching(/removing aside\/demo\.00ff\.99\.feedfacefeedface-1: IO_ERROR: .*EACCES[^]*1 file could not be removed\n$/),
  });
}, 120_000);

test('a store that another sidecar uses is looked at beside it, and what is removed is gone for it too', async () => {
  const root = freshDirectory();
  const store = await startStore(root);
  await store.put(KEYS, BYTES);
  expect((await inspect('verify', root)).stdout).toMatch(/^9 blocks sound, 0 damaged/);
  expect((await inspect('rm', root, KEYS[0]!)).status).toBe(0);
  expect((await store.get([KEYS[0]!], BYTES))[0]!.code).toBe('NOT_FOUND');
  expect((await store.put([KEYS[0]!], BYTES))[0]!.code).toBe('OK');
}, 60_000);

test('where there is no store it says so, names what is there, and makes nothing', async () => {
  const root = freshDirectory();
  const empty = await inspect('df', root);
  expect([empty.status, empty.stderr]).toEqual([2, expect.stringMatching(/is no store that can be looked at: .*kvlane\.json is missing[^]*is it mounted\?/)]);
  writeFileSync(join(root, WILD), '');
  mkdirSync(join(root, 'inner'));
  const other = await inspect('ls', root);
  expect(other.status).toBe(2);
  expect(other.stderr).toContain('inner/');
  expect(other.stderr).toContain('is the store one of these directories?');
  expect(other.stderr.replaceAll('\n', '')).not.toMatch(/[\0-\x1f\x7f-\x9f]/);
  writeFileSync(join(root, 'kvlane.json'), '{"format":99}');
  expect(await inspect('verify', root)).toMatchObject({ status: 2, stderr: expect.stringContaining('does not describe a store of format 1') });
  expect(namesIn(root)).toEqual([WILD, 'inner', 'kvlane.json'].sort());
  expect(await inspect('ls', join(root, 'nowhere'))).toMatchObject({ status: 2, stderr: expect.stringContaining('there is no directory') });
}, 60_000);

test('where find cannot say what is in a directory, as that of busybox, nothing is said of it', async () => {
  const programs = freshDirectory();
  writeFileSync(join(programs, 'find'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const { status, stderr } = await inspecting(['df', freshDirectory()], { path: programs }).exited;
  expect([status, stderr]).toEqual([2, expect.stringMatching(/^kvlane inspect: [^\n]* is no store that can be looked at: [^\n]*kvlane\.json is missing[^\n]*\n$/)]);
}, 60_000);

test('ten thousand blocks: all are listed once, verified, and summed up', async () => {
  const root = freshDirectory();
  const store = await startStore(root, { slots: 512 });
  const keys = Array.from({ length: 10_000 }, (_, i) => `many/${i % 2 === 0 ? 'ab' : (i % 251).toString(16).padStart(2, '0')}${i.toString(16).padStart(8, '0')}`);
  await store.put(keys, 100);
  await store.client.shutdown();
  const listed = (await inspect('ls', root, 'many')).stdout.trim().split('\n');
  expect(listed.length).toBe(10_000);
  expect(new Set(listed)).toEqual(new Set(keys));
  expect((await inspect('ls', root, 'many/ab')).stdout.trim().split('\n').length).toBe(keys.filter((key) => key.startsWith('many/ab')).length);
  expect((await inspect('ls', root, 'many', '--sort', 'name')).stdout.trim().split('\n')).toEqual([...keys].sort());
  expect(await inspect('verify', root)).toMatchObject({ status: 0, stdout: expect.stringMatching(/^10000 blocks sound, 0 damaged, 78\.1 MiB in /) });
  expect((await inspect('df', root)).stdout).toMatch(/^10000 +78\.1 MiB +[\d.]+ [KMG]iB +many$/m);
  const removed = await inspect('rm', root, '--namespace', 'many', '--yes');
  expect(removed.stdout).toMatch(/^removed 10000 blocks of many/);
  expect(await inspect('ls', root, 'many')).toMatchObject({ status: 1, stdout: '' });
}, 180_000);

test('a scrub keeps to its rate', async () => {
  const root = freshDirectory();
  const store = await startStore(root);
  await store.put(Array.from({ length: 32 }, (_, i) => `demo/${i.toString(16).padStart(4, '0')}`), 60_000);
  await store.client.shutdown();
  const bytes = 32 * statSync(blockPath(root, 'demo/0000')).size;
  const slow = await inspect('verify', root, '--rate', '1M', '--json');
  const { summary } = JSON.parse(slow.stdout) as { summary: { sound: number; bytes: number; ms: number } };
  expect(summary).toMatchObject({ sound: 32, bytes });
  expect(summary.ms, 'no faster than asked').toBeGreaterThan((bytes / 2 ** 20) * 1000 - 50);
  expect(summary.ms, 'nor much slower').toBeLessThan(20_000);
}, 60_000);

describe('at a terminal', () => {
  test('more than one block goes only after a yes', async () => {
    const root = await storeWith(...KEYS);
    const no = terminal(['inspect', 'rm', root, '--namespace', 'demo']);
    await no.shows(/Remove all 9 blocks \(.*\) of demo in .*\? \[y\/N\] /);
    no.type('n\r');
    expect(await no.exitCode).toBe(0);
    expect(no.screen()).toContain('nothing was removed');
    expect((await inspect('ls', root, 'demo')).stdout.trim().split('\n')).toHaveLength(9);
    const yes = terminal(['inspect', 'rm', root, KEYS[0]!, KEYS[1]!]);
    await yes.shows('[y/N] ');
    yes.type('y\r');
    expect(await yes.exitCode).toBe(0);
    expect((await inspect('ls', root, 'demo')).stdout.trim().split('\n')).toHaveLength(7);
  }, 60_000);

  test('a scrub shows how far it is, and leaves the result alone on the screen', async () => {
    const root = await storeWith(...KEYS);
    const tty = terminal(['inspect', 'verify', root, '--rate', '50K']);
    await tty.shows(/\[#+-+\] +\d+ % {2}\d+ blocks?, [\d.]+ KiB/);
    expect(await tty.exitCode).toBe(0);
    expect(tty.screen().split('\r\x1b[K').at(-1)).toMatch(/^9 blocks sound, 0 damaged, /);
  }, 60_000);
});
