// Where the sockets lie, and where they may not. The file systems are this machine's own.
import { chmodSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { findSockets } from '../../clients/cli/attached/find.ts';
import { attachPlaces, publish, socketPaths, SOCKET_NAME, STALE_MAX, tidy, whyNot } from '../../sidecar/attach_place.ts';

const UID = process.geteuid!();
const inMemory = (): string => {
  const path = mkdtempSync('/dev/shm/kvlane-test-');
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
};
const placeIn = (parent: string, name = 'sockets') => ({ directory: join(parent, name), parent });

async function listenAt(path: string): Promise<() => void> {
  const server = createServer(() => {});
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const close = (): void => void server.close();
  onTestFinished(close);
  return close;
}

test('what is named is the only place; else those that a machine may have, each once', () => {
  expect(attachPlaces({ KVLANE_ATTACH_DIR: '/run/x' }, 1000)).toEqual([{ directory: '/run/x', parent: '/run' }]);
  expect(attachPlaces({ KVLANE_ATTACH_DIR: '/run/x' }, 1000, '/run/y')).toEqual([{ directory: '/run/y', parent: '/run' }]);
  const usual = ['/run/user/1000/kvlane', '/dev/shm/kvlane-1000', '/tmp/kvlane-1000'];
  expect(attachPlaces({}, 1000).map((place) => place.directory)).toEqual(usual);
  expect(attachPlaces({ XDG_RUNTIME_DIR: '/run/user/1000' }, 1000).map((place) => place.directory)).toEqual(usual);
  expect(attachPlaces({ XDG_RUNTIME_DIR: '/xdg' }, 1000).map((place) => place.directory)).toEqual(['/xdg/kvlane', ...usual]);
  expect(attachPlaces({ XDG_RUNTIME_DIR: 'relative' }, 1000).map((place) => place.directory)).toEqual(usual);
});

test('a directory is made for its user alone, and used again', async () => {
  const place = placeIn(inMemory());
  expect(await whyNot(place, UID, true)).toBeNull();
  expect(lstatSync(place.directory).mode & 0o777).toBe(0o700);
  expect(await whyNot(place, UID, true)).toBeNull();
  expect(await whyNot(place, UID, false)).toBeNull();
});

test('what is no directory of this user alone, or may be exchanged by others, or is on a disk, is refused in words', async () => {
  const parent = inMemory();
  const place = placeIn(parent);
  expect(await whyNot(place, UID, false)).toContain('ENOENT'); // readers make nothing
  expect(existsSync(place.directory)).toBe(false);
  mkdirSync(place.directory, { mode: 0o700 });
  expect(await whyNot(place, UID + 1, false)).toContain(`belongs to user ${UID}, not to ${UID + 1}`);
  expect(await whyNot(place, null, false)).toBeNull();
  for (const mode of [0o770, 0o701, 0o777]) {
    chmodSync(place.directory, mode);
    expect(await whyNot(place, UID, true)).toContain(`run: chmod 700 ${place.directory}`);
  }
  chmodSync(place.directory, 0o700);
  expect(await whyNot({ directory: 'relative', parent: '.' }, UID, true)).toContain('is not an absolute path');
  chmodSync(parent, 0o777);
  expect(await whyNot(place, UID, true)).toContain('no sticky bit');
  chmodSync(parent, 0o1777);
  expect(await whyNot(place, UID, true)).toBeNull();
  symlinkSync(place.directory, join(parent, 'link'));
  expect(await whyNot(placeIn(parent, 'link'), UID, true)).toContain('is no directory');
  const through = join(parent, 'parent');
  symlinkSync(parent, through);
  expect(await whyNot(placeIn(through), UID, true)).toContain('is a link');
  const disk = placeIn('/proc');
  expect(await whyNot(disk, UID, true)).toContain('not a file system in memory');
  expect(existsSync(disk.directory)).toBe(false);
  expect(await whyNot(placeIn('/nowhere'), UID, true)).toContain('ENOENT');
});

test('a name too long for a socket is said to be, before anything is made', () => {
  expect(socketPaths(`/${'x'.repeat(80)}`, 1, '00000000')).toMatchObject({ final: expect.stringMatching(/1-00000000\.sock$/) });
  expect(socketPaths(`/${'x'.repeat(100)}`, 1, '00000000')).toContain('longer than');
});

test('a socket is seen under its name only when it listens, with mode 0600', async () => {
  const directory = inMemory();
  const paths = socketPaths(directory, 4711, '00c0ffee');
  if (typeof paths === 'string') throw new Error(paths);
  await listenAt(paths.fresh);
  expect((await findSockets({ directory })).found).toEqual([]);
  await publish(paths);
  expect(SOCKET_NAME.test(readdirSync(directory)[0]!)).toBe(true);
  expect(lstatSync(paths.final).mode & 0o777).toBe(0o600);
  expect((await findSockets({ directory })).found).toEqual([{ path: paths.final, pid: 4711 }]);
});

test('tidying removes sockets that refuse, old ones that never came to listen, and nothing else', async () => {
  const directory = inMemory();
  const at = (name: string): string => join(directory, name);
  for (const name of ['1-00000000.sock', '.2-00000000.new', '.3-00000000.new', '4-00000000.sock', 'other']) await listenAt(at(name));
  writeFileSync(at('5-00000000.sock'), '');
  const old = new Date(Date.now() - 120_000);
  utimesSync(at('.2-00000000.new'), old, old);
  const alive = new Set([at('4-00000000.sock')]);
  const asked: string[] = [];
  const refuses = async (path: string): Promise<boolean> => {
    asked.push(path);
    return !alive.has(path);
  };
  expect(await tidy(directory, at('own'), refuses)).toBe(2);
  expect(readdirSync(directory).sort()).toEqual(['.3-00000000.new', '4-00000000.sock', '5-00000000.sock', 'other']);
  expect(asked).not.toContain(at('5-00000000.sock'));
  expect(await tidy(directory, at('4-00000000.sock'), async () => true)).toBe(0); // never one's own
});

test(`tidying looks at ${STALE_MAX} sockets at most`, async () => {
  const directory = inMemory();
  for (let i = 0; i < STALE_MAX + 5; i += 1) await listenAt(join(directory, `${i}-00000000.sock`));
  expect(await tidy(directory, '', async () => true)).toBe(STALE_MAX);
  expect(readdirSync(directory)).toHaveLength(5);
});

test('readers look into no directory that others may have filled, and say so', async () => {
  const parent = inMemory();
  const directory = join(parent, `kvlane-${UID}`);
  mkdirSync(directory, { mode: 0o700 });
  await listenAt(join(directory, '1-00000000.sock'));
  expect((await findSockets({ directory: null }, { KVLANE_ATTACH_DIR: directory })).found).toHaveLength(1);
  chmodSync(directory, 0o755);
  const { found, refused } = await findSockets({ directory: null }, { KVLANE_ATTACH_DIR: directory });
  expect(found).toEqual([]);
  expect(refused).toEqual([expect.stringContaining('others reach into it')]);
  expect((await findSockets({ directory: join(tmpdir(), 'kvlane-nowhere') })).refused).toEqual([expect.stringContaining('ENOENT')]);
});

test('for root, the places of every user are looked into, each only if it is of the user whose number it has', async () => {
  const { places } = await findSockets({ directory: null, allUsers: true }, {}, UID);
  expect(places).toEqual(expect.arrayContaining([`/dev/shm/kvlane-${UID}`]));
  const other = 2_000_000_000 + Math.floor(Math.random() * 1_000_000); // nobody's
  const directory = `/dev/shm/kvlane-${other}`;
  mkdirSync(directory, { mode: 0o700 });
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  await listenAt(join(directory, '1-00000000.sock'));
  const search = await findSockets({ directory: null, allUsers: true }, {}, UID);
  expect(search.places).toContain(directory);
  expect(search.found.map((one) => one.path)).not.toContain(join(directory, '1-00000000.sock'));
  expect(search.refused).toContainEqual(expect.stringContaining(`${directory} belongs to user ${UID}, not to ${other}`));
  expect((await findSockets({ directory: null }, {}, UID)).places).not.toContain(directory);
});
