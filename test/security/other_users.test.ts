// Everybody else on the machine: what they can reach of a sidecar that runs as another user, and what lies about of it afterwards.
// Who runs as the same user (or as root) may do everything, as with any process: sidecar/THREATS.md says so, and one test shows it.

import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, openSync, closeSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { socketDirectory } from '../support/attached.ts';
import { keysOf } from '../support/rig.ts';
import { namesIn, startStore, treeOf } from '../support/plain_store.ts';
import { freshDirectory, startSidecar } from '../support/sidecar_process.ts';

const BYTES = 5_000;
const OWNER = 12_345;
const as = (user: number): string[] => ['setpriv', `--reuid=${user}`, `--regid=${user}`, '--clear-groups'];

function why(): string {
  if (process.getuid!() !== 0) return 'only root can start processes of several users';
  for (let at = dirname(sidecarMain()); at !== '/'; at = dirname(at)) if ((statSync(at).mode & 0o005) !== 0o005) return `${at} cannot be read by other users, so a sidecar of theirs cannot start`;
  return '';
}
const reason = why();
if (reason !== '') process.stderr.write(`SKIPPED: other users: ${reason}\n`);

/** A directory of the owner's that everybody may enter: what is in it must protect itself. */
function theirs(): string {
  const path = mkdtempSync(join(tmpdir(), 'kvlane-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  chownSync(path, OWNER, OWNER);
  chmodSync(path, 0o755);
  return path;
}
const tries = (user: number, ...command: string[]): number | null => spawnSync(as(user)[0]!, [...as(user).slice(1), ...command], { stdio: 'ignore', timeout: 10_000 }).status;

describe.skipIf(reason !== '')('another user', () => {
  test('reaches neither the arena nor any descriptor, memory, environment or map of the sidecar', async () => {
    const store = await startStore(theirs(), { wrapper: as(OWNER) });
    const { pid } = store.client.process.child;
    const { path } = store.client.ready.arena;
    const targets = [path, `/proc/${pid}/mem`, `/proc/${pid}/environ`, `/proc/${pid}/maps`];
    for (const target of targets) {
      expect(tries(OWNER, 'dd', `if=${target}`, 'of=/dev/null', 'bs=1', 'count=0'), `${target}, its owner`).toBe(0); // the way there is right
      expect(tries(OWNER + 1, 'dd', `if=${target}`, 'of=/dev/null', 'bs=1', 'count=0'), target).not.toBe(0);
    }
    expect(tries(OWNER + 1, 'dd', 'if=/dev/zero', `of=${path}`, 'bs=1', 'count=1', 'conv=notrunc'), 'writing to the arena').not.toBe(0);
    expect(tries(OWNER + 1, 'kill', '-0', String(pid)), 'a signal').not.toBe(0);
  });

  test('cannot attach to it, and does not get it to use a directory of his', async () => {
    const parent = mkdtempSync('/dev/shm/kvlane-test-');
    onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
    chownSync(parent, OWNER, OWNER);
    chmodSync(parent, 0o755);
    const directory = join(parent, 'sockets');
    await startStore(theirs(), { wrapper: as(OWNER), args: ['--attach-dir', directory] });
    await expect.poll(() => namesIn(directory).filter((name) => name.endsWith('.sock')), { timeout: 10_000 }).toHaveLength(1);
    const [name] = namesIn(directory);
    const connects = (user: number): number | null => tries(user, process.execPath, '-e', 'require("node:net").connect(process.argv[1]).on("data", () => process.exit(0)).on("error", () => process.exit(1))', join(directory, name!));
    expect(connects(OWNER)).toBe(0);
    expect(connects(OWNER + 1)).not.toBe(0);

    const foreign = join(parent, 'foreign');
    mkdirSync(foreign, { mode: 0o700 });
    chownSync(foreign, OWNER + 1, OWNER + 1);
    const wary = await startStore(theirs(), { wrapper: as(OWNER), args: ['--attach-dir', foreign] });
    await expect.poll(() => wary.client.stderr, { timeout: 10_000 }).toContain(`belongs to user ${OWNER + 1}`);
    expect(namesIn(foreign)).toEqual([]);

    chownSync(parent, OWNER + 1, OWNER + 1); // he may exchange what is in it
    const below = await startStore(theirs(), { wrapper: as(OWNER), args: ['--attach-dir', directory] });
    await expect.poll(() => below.client.stderr, { timeout: 10_000 }).toContain(`belongs to user ${OWNER + 1}, who could put`);
  });

  test('reads and writes nothing that the sidecar stored', async () => {
    const store = await startStore(theirs(), { wrapper: as(OWNER) });
    await store.put(['p/00aa'], BYTES);
    for (const target of [store.path('p/00aa'), join(store.root, 'kvlane.json')]) {
      expect(tries(OWNER, 'cat', target)).toBe(0);
      expect(tries(OWNER + 1, 'cat', target), target).not.toBe(0);
      expect(tries(OWNER + 1, 'sh', '-c', 'echo x >> "$1"', 'sh', target), target).not.toBe(0);
    }
    expect(tries(OWNER + 1, 'ls', join(store.root, 'blocks'))).not.toBe(0);
    expect(tries(OWNER + 1, 'touch', join(store.root, 'recycle-me'))).not.toBe(0);
  });
});

test('the same user reaches the arena: he is not kept out', async () => {
  const store = await startStore(freshDirectory());
  const fd = openSync(store.client.ready.arena.path, 'r+');
  closeSync(fd);
});

test('with a umask of 0000, killed in the middle of its stores, it leaves nothing that others may read or write', async () => {
  const root = freshDirectory();
  const open = ['sh', '-c', 'umask 0000; exec "$@"', 'sh'];
  let temporaries = 0;
  for (let round = 0; round < 4; round += 1) {
    const keys = keysOf('k', 64, 64 * round);
    const store = await startStore(root, { wrapper: open });
    await store.put(['k/00ff'], BYTES, { replace: true });
    await store.drop('k/00ff'); // something for recycle/
    await store.put(['k/00fe'], BYTES, { replace: true });
    truncateSync(store.path('k/00fe'), 4500);
    expect((await store.get(['k/00fe'], BYTES))[0]!.code).toBe('CORRUPT');
    await store.aside(round + 1); // and for aside/
    const gone = new Promise((go) => store.client.once('gone', go));
    void store.put(keys, 60_000).catch(() => {});
    const end = performance.now() + 5_000; // a store under way, or all of them over
    while (performance.now() < end && !(readdirSync(root, { recursive: true }) as string[]).some((name) => name.endsWith('.tmp')) && !existsSync(store.path(keys.at(-1)!))) await new Promise((go) => setImmediate(go));
    store.client.kill();
    await gone;
    for (const [path, what] of Object.entries(treeOf(root))) {
      if (path.endsWith('.tmp')) temporaries += 1;
      const { mode } = statSync(join(root, path));
      expect((mode & 0o077).toString(8), `${path}: ${what}`).toBe('0');
      expect(mode & 0o7100 & (statSync(join(root, path)).isDirectory() ? 0o7000 : 0o7100), path).toBe(0); // no setuid, no program
    }
  }
  expect(namesIn(join(root, 'recycle')).length).toBeGreaterThan(0);
  expect(namesIn(join(root, 'aside'))).toHaveLength(4);
  console.log(`leftovers of killed sidecars: ${temporaries} temporaries, ${Object.keys(treeOf(root)).length} names, all of them the owner's alone`);
});

test('command line, environment and log tell nothing of keys and contents', async () => {
  const secret = 'b10c5ec2e7';
  const root = freshDirectory();
  const sidecar = startSidecar({ args: ['--mount', `kv0=${root}`, '--create', '--arena-mib', '8'] });
  await sidecar.ready();
  sidecar.send(
    { id: 1, op: 'store', blocks: [{ key: `s/${secret}`, text: `contents ${secret}` }] },
    { id: 2, op: 'load', blocks: [{ key: `s/${secret}` }], inline: true },
    { id: 3, op: 'load', blocks: [{ key: `s/${secret}00` }], inline: true },
    { id: 4, op: 'namespace', name: 's', fingerprint: { secret } },
  );
  sidecar.write(`{"id":5,"op":"store","blocks":[{"key":"s/${secret}","text":"contents ${secret}"\n`); // a bad line is quoted in its answer, not in the log
  await sidecar.answer(4);
  const { pid } = sidecar.child;
  const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0').filter(Boolean);
  expect(environment.map((one) => one.split('=')[0])).toEqual(['PATH']);
  expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')).toContain(`kv0=${root}`);
  sidecar.end();
  await sidecar.exited;
  expect(sidecar.stderr()).not.toContain(secret);
  expect(sidecar.stderr()).not.toContain('contents');
});

test('it listens on nothing but its socket in a directory of its user’s, connects to nothing, and has no file open outside of its roots', async () => {
  const directory = socketDirectory();
  const store = await startStore(freshDirectory(), { args: ['--attach-dir', directory] });
  await expect.poll(() => namesIn(directory), { timeout: 10_000 }).toHaveLength(1);
  await store.put(keysOf('l', 8), BYTES);
  const { pid } = store.client.process.child;
  const inodes = new Set<string>();
  const strange: string[] = [];
  for (const task of readdirSync(`/proc/${pid}/task`)) { // lanes have tables of their own
    for (const fd of readdirSync(`/proc/${pid}/task/${task}/fd`)) {
      let to = '';
      try {
        to = readlinkSync(`/proc/${pid}/task/${task}/fd/${fd}`);
      } catch {
        continue; // closed meanwhile
      }
      const socket = /^socket:\[(\d+)\]$/.exec(to);
      if (socket) inodes.add(socket[1]!);
      else if (!/^(pipe:|anon_inode:|\/memfd:kvlane-arena|\/dev\/(null|urandom)$)/.test(to) && !to.startsWith(store.root) && !to.startsWith('/proc/')) strange.push(to);
    }
  }
  expect(strange).toEqual([]);
  for (const table of ['tcp', 'tcp6', 'udp', 'udp6', 'raw']) {
    if (!existsSync(`/proc/${pid}/net/${table}`)) continue;
    for (const line of readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1)) expect(inodes.has(line.trim().split(/\s+/)[9] ?? ''), `${table}: ${line}`).toBe(false);
  }
  for (const line of readFileSync(`/proc/${pid}/net/unix`, 'utf8').split('\n').slice(1)) {
    const [, , , , , , inode, path] = line.trim().split(/\s+/);
    // stdin and its kin are unnamed pairs; the socket was bound under another name, which the kernel goes on telling.
    if (inodes.has(inode ?? '') && path !== undefined) expect(dirname(path), 'a socket with a name').toBe(directory);
  }
});
