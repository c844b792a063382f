// node_client.test.ts — the Node client against a peer that does what the test says: late, dead, mute, garbled.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, onTestFinished, test } from 'vitest';
import { Client, nowUs, StartError, type SpawnOptions } from '../../clients/node/index.ts';

const FAKE = join(import.meta.dirname, '../support/fake_sidecar.mjs');
const WAIT_MS = 5000;
const directory = mkdtempSync(join(tmpdir(), 'kvlane-fake-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const fake = (mode: string, startMs = WAIT_MS): SpawnOptions => ({ mounts: { kv0: '/nowhere' }, main: FAKE, args: [mode, directory], startMs });

async function start(mode = 'answers', startMs = WAIT_MS): Promise<Client> {
  const client = await Client.spawn(fake(mode, startMs));
  onTestFinished(async () => {
    client.kill();
    await client.process.waitExit(WAIT_MS);
    client.release();
  });
  return client;
}
const load = (mount: string, slots: number[], timeoutMs = 50): { mount: string; keys: string[]; slots: number[]; bytes: number; timeout_ms: number } => ({
  mount, keys: slots.map((slot) => `a/0${slot}`), slots, bytes: 8, timeout_ms: timeoutMs,
});

test('a request is sent with an absolute deadline and answered', async () => {
  const client = await start();
  const before = nowUs();
  const answer = (await client.request('load', load('echo', [1], 250))) as unknown as { got: Record<string, number> };
  expect(answer.got['timeout_ms']).toBeUndefined();
  expect(answer.got['deadline_us']! - before).toBeGreaterThanOrEqual(250_000);
  expect(client.outstanding).toBe(0);
});

test('without an answer the client has the last word, not before deadline and grace', async () => {
  const client = await start();
  const [slot] = client.arena.lease(1)!;
  const before = nowUs();
  const answer = await client.request('load', load('late', [slot!]));
  expect(nowUs() - before).toBeGreaterThanOrEqual(70_000);
  expect(answer).toMatchObject({ ok: false, source: 'client', error: { code: 'DEADLINE_EXCEEDED' } });

  client.arena.release([slot!]);
  expect(client.arena.lease(4), 'its slot is still the sidecar\'s').toBeNull();
  expect(() => client.request('ping', { id: 1 }), 'and so is its id').toThrow('id 1 is not answered yet');

  const late = new Promise((settle) => client.once('late', settle));
  client.kill('SIGUSR2');
  expect(await late).toMatchObject({ id: 1, ok: true });
  expect(client.arena.lease(4)).toEqual([0, 1, 2, 3]);
});

test('a quarantined slot is not leased again before slots_freed', async () => {
  const client = await start();
  const slots = client.arena.lease(2)!;
  expect(await client.request('load', load('quarantines', slots))).toMatchObject({ ok: false, done: 0 });
  client.arena.release(slots);
  expect(client.arena.quarantined).toEqual([0, 1]);
  expect(client.arena.lease(3)).toBeNull();
  const freed = client.nextEvent('slots_freed', WAIT_MS);
  client.kill('SIGUSR2');
  expect(await freed).toEqual({ event: 'slots_freed', slots: [0, 1] });
  expect(client.arena.lease(4)).toEqual([0, 1, 2, 3]);
});

test('slots are written and read in place, and only inside themselves', async () => {
  const client = await start();
  client.writeSlot(2, Buffer.from('hello'), 10);
  expect(client.readSlot(2, 5, 10).toString()).toBe('hello');
  expect(client.readSlot(1, 4096).every((byte) => byte === 0)).toBe(true);
  expect(() => client.writeSlot(4, Buffer.from('x'))).toThrow('slot must be an integer from 0 to 3, got 4');
  expect(() => client.writeSlot(3, Buffer.alloc(2), 4095)).toThrow('2 bytes at 4095 do not fit a slot of 4096');
});

test.each(['dies', 'garbage'])('a sidecar that answers with "%s" leaves no request without an answer', async (mount) => {
  const client = await start();
  const answers = await Promise.all([client.request('load', load('late', [0], 4000)), client.request('load', load(mount, [1], 4000))]);
  for (const answer of answers) expect(answer).toMatchObject({ ok: false, source: 'client', error: { code: 'SIDECAR_GONE' } });
  expect(await client.request('ping')).toMatchObject({ source: 'client', error: { code: 'SIDECAR_GONE' } });
});

test('a stopped sidecar costs the deadline and no more, and gives the rest when it goes on', async () => {
  const client = await start();
  client.kill('SIGSTOP');
  expect(await client.request('stuck')).toMatchObject({ source: 'client', error: { code: 'DEADLINE_EXCEEDED' } });
  const late = new Promise((settle) => client.once('late', settle));
  client.kill('SIGCONT');
  expect(await late).toEqual({ id: 1, ok: true, stuck: [] });
});

test.each([
  ['dies', /^the sidecar did not become ready: .*status 3|^the sidecar did not become ready: its stdout ended/],
  ['mute', /^the sidecar was not ready within 300 ms; its stderr ends with:\nfake: here$/],
  ['old', /^client speaks protocol 1, sidecar speaks 0 \(client 0\.1\.0, sidecar 0\.0\.0\); install matching versions$/],
  ['skewed', /^the sidecar's clock says 5 us and ours \d+ us: /],
])('a sidecar that is %s is a StartError that says so', async (mode, said) => {
  const failed = await Client.spawn(fake(mode, mode === 'mute' ? 300 : WAIT_MS)).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(StartError);
  expect((failed as Error).message).toMatch(said);
});

test('a wrapper that is not there is a StartError as well', async () => {
  const failed = await Client.spawn({ ...fake('answers'), wrapper: ['/nowhere/setpriv'] }).catch((error: unknown) => error);
  expect(failed).toBeInstanceOf(StartError);
  expect((failed as Error).message).toMatch(/^the sidecar did not become ready: it could not be started: .*ENOENT/);
});

test('shutdown is asked for, then made', async () => {
  const polite = await start();
  expect(await polite.shutdown()).toEqual({ exit: { code: 0, signal: null }, abandoned: false });
  const stubborn = await start('stays');
  expect(await stubborn.shutdown(50)).toEqual({ exit: { code: null, signal: 'SIGKILL' }, abandoned: false });
});
