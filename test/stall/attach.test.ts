// Who looks in while a mount hangs: the tools name what is stuck, where in the kernel and for how long, and the socket of a sidecar
// that was killed in the middle of it does not accept for a dead one.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { reader, socketDirectory } from '../support/attached.ts';
import { expectGone, expectLeft, familyOf } from '../support/corpse.ts';
import { ENGINES, keysOf, measured, type Rig, withRig } from '../support/rig.ts';
import { within } from '../support/sidecar_process.ts';
import { onTerminal } from '../support/terminal.ts';

const TIMEOUT_MS = 300;
const STALL_MS = 50;
const LONG_MS = 60_000;
/** To hear from the kernel that nobody listens. */
const REFUSED_MS_MAX = 1_000;

function run(...words: string[]): Promise<string> {
  const child = spawn(process.execPath, [sidecarMain(), ...words], { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (part: string) => (text += part));
  child.stderr.resume();
  return within(new Promise<string>((resolve) => child.once('close', () => resolve(text))), () => `${words[0]} does not end: ${text}`);
}

async function socketOf(rig: Rig, directory: string): Promise<string> {
  const own = (): string | undefined => (existsSync(directory) ? readdirSync(directory).find((name) => name.endsWith('.sock')) : undefined);
  await rig.until('its socket is there', () => own() !== undefined);
  return join(directory, own()!);
}

it.each(ENGINES)('a hang is seen by whoever looks in: the state, the call, its thread, where it sits, the slot that waits (%s)', async (engine) => {
  const directory = socketDirectory();
  await withRig({ engine, stallMs: STALL_MS, args: ['--attach-dir', directory] }, async (rig) => {
    const [key] = keysOf('look', 1) as [string];
    await rig.fill([key]);
    const look = reader(await socketOf(rig, directory));
    expect(await look.ask({ op: 'watch' })).toMatchObject({ ok: true });
    const top = onTerminal(['top', '--attach-dir', directory, '--every', '100'], { rows: 40, columns: 120 });
    await top.shows(/kv0 +store +ok/);

    await rig.lab.hang('read'); // probes too
    const slots = rig.lease(1);
    const { answer } = await rig.load([key], slots, TIMEOUT_MS);
    expect(answer).toMatchObject({ ok: false, failed: [{ code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }] });
    expect(await look.line((line) => line['event'] === 'stalled', 'the stall')).toMatchObject({ mount: 'kv0', class: 'load', key });
    expect(await look.line((line) => line['event'] === 'mount', 'the suspension')).toMatchObject({ mount: 'kv0', class: 'load', state: 'suspended' });
    await top.shows(/kv0 +load +suspended/);
    await top.shows(key);
    await top.shows('quarantined 1');

    const { sidecars } = JSON.parse(await run('top', '--json', '--attach-dir', directory)) as { sidecars: [{ calls: { key?: string; kernel: string[] }[]; classes: object[] }] };
    const call = sidecars[0].calls.find((one) => one.key === key)!;
    expect(call).toMatchObject({ mount: 'kv0', class: 'load', phase: 'read', late: true, settled: true, slot: slots[0], syscall: expect.stringMatching(/^(preadv|io_getevents)$/), tid: expect.any(Number) });
    measured(`${engine}: in the kernel at ${call.kernel.join(' < ') || 'a place that this user may not know'}`);
    expect(sidecars[0].classes[0]).toMatchObject({ class: 'load', state: 'suspended', lanes_stuck: expect.any(Number), suspended_times: 1 });

    const text = await run('metrics', '--attach-dir', directory);
    const { pid } = rig.client.ready;
    expect(text).toContain(`kvlane_breaker{pid="${pid}",mount="kv0",class="load"} 2\n`);
    expect(text).toMatch(new RegExp(`^kvlane_stuck\\{pid="${pid}",mount="kv0",class="load"\\} [1-9]`, 'm'));
    expect(text).toContain(`kvlane_quarantined_slots{pid="${pid}"} 1\n`);
    expect(text).toContain(`kvlane_failed_blocks_total{pid="${pid}",code="DEADLINE_EXCEEDED"} 1\n`);

    await rig.heal();
    await rig.recovered();
    rig.client.arena.release(slots);
    expect(await look.line((line) => line['event'] === 'mount' && line['state'] === 'ok', 'the end of it')).toMatchObject({ mount: 'kv0', class: 'load' });
    await top.shows(/kv0 +load +ok/);
    await top.shows('quarantined 0');
    top.type('q');
    expect(await top.exitCode).toBe(0);
  });
});

it.each(ENGINES)('a killed sidecar with calls stuck in the kernel leaves a socket that refuses at once (%s)', async (engine) => {
  const directory = socketDirectory();
  await withRig({ engine, stallMs: STALL_MS, breakerHeldClosed: true, args: ['--attach-dir', directory] }, async (rig) => {
    const keys = keysOf('corpse', 4);
    await rig.fill(keys);
    const socket = await socketOf(rig, directory);
    const look = reader(socket);
    await look.ask({ op: 'ping' });
    await rig.lab.hang('read', { match: '/blocks/*' });
    const slots = rig.lease(keys.length);
    const asked = keys.map((key, i) => rig.load([key], [slots[i]!], LONG_MS));
    await rig.lab.waitStuck('read');
    await rig.until('they are listed', async () => (await look.ask({ op: 'stuck', over_ms: 0 }))['stuck'].length === keys.length);

    const family = familyOf(rig.client.ready.pid);
    rig.client.kill();
    await look.ended; // whoever was attached hears of it, too
    await expectLeft(...family);
    const began = performance.now();
    const refusal = await within(
      new Promise<string | undefined>((resolve) => {
        const late = connect(socket);
        late.once('connect', () => resolve('it accepted'));
        late.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
      }),
      () => 'it neither accepted nor refused',
    );
    expect(refusal).toBe('ECONNREFUSED');
    expect(performance.now() - began).toBeLessThan(REFUSED_MS_MAX);
    expect((await rig.lab.status()).held.read, 'the stall was over too early').toBeGreaterThanOrEqual(1);
    expect(JSON.parse(await run('top', '--json', '--attach-dir', directory))).toMatchObject({ sidecars: [] });
    await Promise.all(asked);
    await rig.lab.resume();
    await expectGone(...family);
  });
});
