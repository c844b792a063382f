// The door itself, with a service that is made up: what no real sidecar does on demand.
import { existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { Event } from '../../protocol/messages.ts';
import { createAttach, type Attach } from '../../sidecar/attach.ts';
import { READERS_MAX } from '../../sidecar/attach_door.ts';
import type { Place } from '../../sidecar/attach_place.ts';
import { reader, socketDirectory } from '../support/attached.ts';

interface Door {
  attach: Attach;
  warned: object[];
  path(): Promise<string>;
}

function door(...places: Place[]): Door {
  const warned: object[] = [];
  const look = { stats: () => ({}), stuck: () => ({ stuck: [] }), help: () => ({}), mounts: () => [] };
  const log = { info: () => {}, warn: (event: string, fields?: object) => void warned.push({ event, ...fields }), error: () => {} };
  const attach = createAttach(places, { service: { look }, hello: () => ({ event: 'ready' }), nowUs: () => Math.round(performance.now() * 1000), log });
  onTestFinished(() => attach.close());
  return {
    attach,
    warned,
    async path() {
      await expect.poll(() => attach.path() !== null && existsSync(attach.path()!), { timeout: 10_000, interval: 5 }).toBe(true);
      return attach.path()!;
    },
  };
}

const placeAt = (directory: string): Place => ({ directory, parent: join(directory, '..') });
const stalled = (n: number): Event => ({ event: 'stalled', mount: 'kv0', class: 'load', key: `n/${String(n).padStart(4, '0')}` }) as unknown as Event;

test('thousands of calls that stall at once are one write for each watcher: the first, and how many more', async () => {
  const { attach, path } = door(placeAt(socketDirectory()));
  const [watcher, other] = [reader(await path()), reader(await path())];
  for (const one of [watcher, other]) expect(await one.ask({ op: 'watch' })).toMatchObject({ ok: true });
  let chunks = 0;
  watcher.socket.on('data', () => (chunks += 1));
  const ALL = 4_000;
  for (let i = 0; i < ALL; i += 1) attach.heard(stalled(i));
  for (const one of [watcher, other]) {
    const missed = await one.line((line) => line['event'] === 'missed', 'how many were left out');
    const told = one.lines.filter((line) => line['event'] === 'stalled');
    expect(told.map((line) => line['key'])).toEqual(Array.from({ length: told.length }, (_, i) => `n/${String(i).padStart(4, '0')}`));
    expect(told.length).toBeGreaterThan(500);
    expect(told.length + missed['events']).toBe(ALL);
  }
  expect(chunks).toBeLessThan(20);
  attach.heard(stalled(7777)); // and on it goes
  await watcher.line((line) => line['key'] === 'n/7777', 'the next');
});

test('who does not watch is told of no event, nor who has stopped watching', async () => {
  const { attach, path } = door(placeAt(socketDirectory()));
  const [silent, over] = [reader(await path()), reader(await path())];
  await over.ask({ op: 'watch' });
  expect(await over.ask({ op: 'unwatch' })).toMatchObject({ ok: true });
  await silent.ask({ op: 'ping' });
  attach.heard(stalled(1));
  for (const one of [silent, over]) {
    await one.ask({ op: 'ping' });
    expect(one.lines.filter((line) => line['event'] === 'stalled')).toEqual([]);
  }
});

test('whoever sends all his questions at once has one timer, however many there are', async () => {
  const { path } = door(placeAt(socketDirectory()));
  const many = reader(await path());
  const QUESTIONS = 200;
  const timers = vi.spyOn(globalThis, 'setTimeout');
  onTestFinished(() => timers.mockRestore());
  many.send(Array.from({ length: QUESTIONS }, (_, id) => `{"id":${id},"op":"ping"}\n`).join(''));
  await many.line((line) => line['id'] === QUESTIONS - 1, 'the last answer');
  expect(timers.mock.calls.length).toBeLessThan(3 * QUESTIONS);
});

test('while the door is shut its name is gone, as a name that refuses says that its sidecar is dead; those who are in count when it opens again', async () => {
  const { attach, path } = door(placeAt(socketDirectory()));
  const socket = await path();
  const held = Array.from({ length: READERS_MAX }, () => reader(socket));
  for (const one of held) await one.line((line) => line['event'] === 'attached', 'the greeting');
  while (existsSync(socket)) await reader(socket).ended; // more than ARRIVALS_MAX in a second, soon
  expect(await path()).toBe(socket);
  const late = reader(socket);
  await late.ended;
  expect(late.lines).toEqual([]);
  expect(attach.figures().readers).toBe(READERS_MAX);
});

test('a place where no socket can be made is passed over for the next', async () => {
  const parent = mkdtempSync('/dev/shm/kvlane-test-');
  onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
  const long = join(parent, 'x'.repeat(90));
  const gone = join(parent, 'gone');
  const good = join(parent, 'good');
  const { path, warned } = door(placeAt(long), { directory: join(gone, 'sockets'), parent: gone }, placeAt(good));
  expect(await path()).toMatch(new RegExp(`^${good}/`));
  expect(warned).toEqual([]);
  expect(lstatSync(good).mode & 0o777).toBe(0o700);
});

test('where none can be made anywhere, all reasons are told, once, and nothing is left', async () => {
  const parent = mkdtempSync('/dev/shm/kvlane-test-');
  onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
  mkdirSync(join(parent, 'open'), { mode: 0o700 });
  const { attach, warned } = door(placeAt(join(parent, 'x'.repeat(90))), { directory: '/proc/sockets', parent: '/proc' });
  await expect.poll(() => warned.length, { timeout: 10_000, interval: 5 }).toBe(1);
  expect(warned[0]).toMatchObject({ event: 'not_attachable', reasons: [expect.stringContaining('longer than'), expect.stringContaining('not a file system in memory')] });
  expect(attach.path()).toBeNull();
});

test('when it is closed its socket is gone at once: the process may end the next moment', async () => {
  const directory = socketDirectory();
  const { attach, path } = door(placeAt(directory));
  await path();
  attach.close();
  expect(readdirSync(directory)).toEqual([]);
});
