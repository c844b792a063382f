// suspension.test.ts — a sick mount is refused at once, a healthy one never, and it comes back.
import { describe, expect, test } from 'vitest';
import type { OpSpec } from '../../native/index.ts';
import type { Ending } from '../support/fake_native.ts';
import { mountBehind, mountLines } from '../../sidecar/mount_table.ts';
import { harness, identifies, identity, started, STORE_ID } from '../support/service_harness.ts';

const MIB = 1 << 20;

describe('evidence', () => {
  test('a deadline overrun with nothing completed since: the second load is refused at once, with the reason', async () => {
    const { load, advance, answer, events } = await started();
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    expect(events('mount')).toMatchObject([{ mount: 'kv0', class: 'load', state: 'suspended', was: 'unknown', reason: expect.stringContaining('250 ms in read') }]);
    load(2, [1], { hexes: ['bb'] });
    expect(answer(2)).toMatchObject({ ok: false, error: { code: 'MOUNT_SUSPENDED', message: expect.stringContaining('suspended for load') } });
  });

  test('calls in flight of which none completed for stall_ms, before any deadline', async () => {
    const { native, load, advance, deliver, events, sent } = await started();
    load(1, [0, 1, 2], { timeoutMs: 10_000, hexes: ['aa', 'bb', 'cc'] });
    advance(1000);
    for (const one of native.held('load')) native.stall(one);
    deliver();
    expect(events('mount')).toMatchObject([{ state: 'suspended', reason: '3 loads in flight, none completed for 1000 ms (the oldest is in read)' }]);
    expect(sent.filter((message) => 'id' in message), 'what is in the kernel may still come back').toEqual([]);
  });

  test('an inline load that learns its length while its class is suspended hands no second load to a lane', async () => {
    const { native, load, advance, deliver, failed, events } = await started();
    load(1, [null], { timeoutMs: 10_000, bytes: null });
    load(2, [0], { timeoutMs: 250, hexes: ['bb'] });
    advance(250);
    expect(events('mount')).toMatchObject([{ class: 'load', state: 'suspended' }]);
    native.release(native.held('load')[0]!, { status: 'length_mismatch', storedBytes: 5 });
    deliver();
    expect(failed(1)).toMatchObject([{ code: 'MOUNT_SUSPENDED', slot: 'free', message: expect.stringContaining('before its 5 bytes could be read') }]);
    expect(native.held('load')).toHaveLength(1);
  });

  test('what is still queued is answered at once, slots free; what a lane has goes on to its deadline', async () => {
    const { native, load, advance, deliver, failed, answers } = await started({ lanes: 1 });
    load(1, [0], { timeoutMs: 10_000, hexes: ['aa'] });
    load(2, [1, 2], { timeoutMs: 10_000, hexes: ['bb', 'cc'] });
    native.pools.forEach((pool) => (pool.limit = 0));
    advance(1000);
    native.stall(native.held('load')[0]!);
    deliver();
    expect(failed(2)).toMatchObject([{ blocks: [[0, 1]], code: 'MOUNT_SUSPENDED', phase: 'queue', slot: 'free', waited_ms: 1000 }]);
    expect(answers(1)).toEqual([]);
    advance(9000);
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }]);
  });

  test('what a lane takes up in the very instant of the suspension is in the kernel like the rest: it may still come back well', async () => {
    const { native, load, advance, deliver, failed, answers, events } = await started({ lanes: 1 });
    load(1, [0, 1, 2], { timeoutMs: 10_000, hexes: ['aa', 'bb', 'cc'] });
    native.pools.forEach((pool) => (pool.limit = 0));
    const [stuck, next] = native.held('load');
    const withdraw = native.withdraw.bind(native);
    native.withdraw = (id) => {
      if (next!.state === 'queued') {
        next!.state = 'running';
        native.reach(next!, 'read');
      }
      return withdraw(id);
    };
    advance(1000);
    native.stall(stuck!);
    deliver();
    expect(events('mount')).toMatchObject([{ state: 'suspended' }]);
    native.release(next!);
    deliver();
    expect(answers(1), 'the first block is still in the kernel').toEqual([]);
    advance(9000);
    expect(answers(1)).toMatchObject([{ done: 1 }]);
    expect(failed(1)).toMatchObject([{ block: 0, code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }, { block: 2, code: 'MOUNT_SUSPENDED', phase: 'queue', slot: 'free' }]);
    native.release(stuck!);
    deliver();
    expect(events('slots_freed')).toMatchObject([{ slots: [0] }]);
  });

  test('completions from a cache are no evidence of health', async () => {
    const { native, lookup, advance, deliver, events } = await started();
    lookup(1, ['aa'], { timeoutMs: 60_000 });
    for (let id = 2; id < 12; id += 1) {
      advance(99);
      lookup(id, ['bb']);
      native.release(native.held('lookup')[1]!, { uncached: false, found: Uint8Array.of(2), kernelUs: 5 });
      deliver();
    }
    expect(events('mount')).toEqual([]);
    advance(10);
    native.stall(native.held('lookup')[0]!);
    deliver();
    expect(events('mount')).toMatchObject([{ class: 'metadata', state: 'suspended' }]);
  });

  test('suspends stores alone when only stores are stuck', async () => {
    const { store, load, advance, native, deliver, answer, events } = await started();
    store(1, [0], { timeoutMs: 300 });
    advance(300);
    expect(events('mount').map((event) => event.class)).toEqual(['store']);
    load(2, [1]);
    native.releaseAll('load');
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
  });

  test('a slow mount (50 MB/s, blocks of 8 MiB, a burst on every lane) does not trip it', async () => {
    const { native, load, advance, deliver, events, answer } = await started({ slots: 64, slotBytes: 8 * MIB, lanes: 8, timeoutMs: 20_000 });
    for (let round = 0; round < 4; round += 1) {
      const slots = Array.from({ length: 32 }, (_, i) => i);
      load(round, slots, { bytes: 8 * MIB });
      for (let waves = 0; waves < 4; waves += 1) {
        // fair sharing: eight at a time, all of them done after 8 × 8 MiB / 50 MB/s
        advance(1000);
        for (const one of native.inKernel('load')) if (!one.stalled) native.stall(one);
        deliver();
        advance(342);
        native.releaseAll('load');
        deliver();
      }
      expect(answer(round)).toMatchObject({ ok: true, done: 32 });
    }
    expect(events('mount')).toEqual([]);
  });

  test('a stop of the whole process blames no mount, though deadlines passed meanwhile', async () => {
    const { clock, native, load, advance, deliver, failed, events, answer } = await started();
    load(1, [0], { timeoutMs: 2000 });
    advance(100);
    clock.jump(10_000); // SIGSTOP … SIGCONT: the lanes were stopped too
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', waited_ms: 10_100 }]);
    expect(events('mount')).toEqual([]);
    native.releaseAll('load');
    deliver();
    load(2, [1]);
    native.releaseAll('load');
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
  });

  test('nor does one that falls into a turn, when no alarm was overdue at its beginning', async () => {
    const { clock, native, load, advance, failed, events } = await started();
    load(1, [0], { timeoutMs: 2000 });
    advance(100);
    native.onSubmit = () => {
      clock.jump(10_000);
      return null;
    };
    load(2, [1], { timeoutMs: 60_000 });
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', waited_ms: 10_100 }]);
    expect(events('mount')).toEqual([]);
  });

  test('held closed by the test flag, it only counts', async () => {
    const { load, advance, ask, answer, events } = await started({ holdBreakerClosed: true });
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    expect(events('mount')).toEqual([]);
    ask({ id: 2, op: 'stats' });
    expect(answer(2)).toMatchObject({ stats: { devices: [{ classes: { load: { held_closed_times: 1 } } }] } });
  });
});

describe('coming back', () => {
  async function hung() {
    const made = await started();
    made.load(1, [0], { timeoutMs: 250, hexes: ['aa'] });
    made.advance(250);
    return made;
  }

  test('a probe is sent at once, joined by another with a growing pause until there are three, then by one every ten seconds, and never more than sixteen', async () => {
    const { native, advance } = await hung();
    const sentAt = () => native.inKernel('probe').map((one) => (one.sinceUs - 1_000_250_000) / 1000);
    expect(sentAt()).toEqual([0]);
    advance(11_000);
    expect(sentAt()).toEqual([0, 250, 750]);
    expect(native.inKernel('probe').every((one) => one.abandoned)).toBe(true);
    expect(native.held('probe')[0]!.spec).toMatchObject({ probeClass: 'load', deadlineUs: 0 });
    advance(20_000);
    expect(sentAt()).toEqual([0, 250, 750, 11_750, 21_750]);
    advance(1_000_000);
    expect(sentAt()).toHaveLength(16);
  });

  test('three probes whose answers are lost for good: a later one finds that the mount answers', async () => {
    const { native, advance, load, deliver, answer } = await hung();
    advance(10_000);
    expect(native.inKernel('probe')).toHaveLength(3);
    native.onSubmit = () => ({}); // new calls answer, none of the old ones ever does
    advance(10_000);
    load(2, [1], { hexes: ['bb'] });
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
    expect(native.inKernel('probe')).toHaveLength(3);
  });

  test('the same for the questions that identify a mount', async () => {
    const { harness } = await import('../support/service_harness.ts');
    const { native, service, advance, load } = harness({}, () => null);
    void service.start();
    advance(10_000);
    expect(native.inKernel('identify')).toHaveLength(3);
    native.onSubmit = identifies;
    advance(10_000);
    load(2, [1]);
    expect(native.inKernel('load')).toHaveLength(1);
  });

  test('within a second of the resume a load is started again, and every lane verifies the root first', async () => {
    const { native, advance, deliver, load, events, answer } = await hung();
    const generation = native.submitted.find((spec) => spec.kind === 'load')!.rootGeneration;
    advance(60_000);
    native.onSubmit = () => ({}); // the mount answers again
    native.releaseAll();
    deliver();
    advance(100);
    expect(events('mount').map(({ state, was }) => [was, state])).toEqual([
      ['unknown', 'suspended'],
      ['suspended', 'probing'],
      ['probing', 'ok'],
    ]);
    load(2, [1], { hexes: ['bb'] });
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
    expect(native.submitted.at(-1)!.rootGeneration).toBeGreaterThan(generation);
    advance(10_000);
    expect(native.submitted.at(-1)!.kind, 'no probe after it closed').toBe('load');
  });

  test('a probe that is itself stuck for ever does not delay it', async () => {
    const { native, advance, deliver, events } = await hung();
    advance(100);
    native.onSubmit = (spec) => (spec.kind === 'probe' ? {} : null); // new calls answer, the stuck one stays
    advance(1000);
    deliver();
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
    expect(native.inKernel('probe')).toHaveLength(1);
  });

  test('a call that was stuck all along does not suspend the mount again', async () => {
    const { native, advance, deliver, events } = await hung();
    native.onSubmit = (spec) => (spec.kind === 'probe' ? {} : null);
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
    native.stall(native.inKernel('load')[0]!);
    deliver();
    advance(60_000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
  });

  test('but one that came out of that call and is stuck in its next one does', async () => {
    const { native, clock, advance, deliver, load, events } = await started();
    load(1, [0], { timeoutMs: 60_000, hexes: ['aa'] });
    load(2, [1], { timeoutMs: 100, hexes: ['bb'] });
    advance(100);
    expect(events('mount').at(-1)).toMatchObject({ class: 'load', state: 'suspended' });
    native.onSubmit = (spec) => (spec.kind === 'probe' ? {} : null);
    native.releaseAll('probe', {});
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
    const goesOn = native.inKernel('load').find((one) => !one.abandoned)!;
    native.onSubmit = () => null;
    goesOn.sinceUs = clock.nowUs();
    native.stall(goesOn);
    deliver();
    advance(999);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
    advance(1);
    expect(events('mount').at(-1)).toMatchObject({ class: 'load', state: 'suspended' });
  });

  test('a mount whose device is gone answers with errors: it stays suspended, and says so', async () => {
    const { native, advance, deliver, load, answer } = await hung();
    native.onSubmit = (spec) => (spec.kind === 'probe' ? { status: 'io_error', errno: 107, phase: 'open' } : null);
    native.releaseAll('probe', { status: 'io_error', errno: 107 });
    deliver();
    advance(5000);
    load(2, [1]);
    expect(answer(2)).toMatchObject({ error: { code: 'MOUNT_SUSPENDED', message: expect.stringContaining('ENOTCONN') } });
    native.onSubmit = (spec) => (spec.kind === 'probe' ? { status: 'no_space', errno: 28 } : null);
    advance(400);
    load(3, [1]);
    expect(native.inKernel('load').length, 'a full disk answers').toBe(2);
  });
});

describe('mounts', () => {
  const two = [
    { name: 'kv0', root: '/mnt/kv0', create: false },
    { name: 'kv1', root: '/mnt/kv1', create: false },
  ];
  const byMount = (devices: string[]) => (spec: OpSpec): Ending | null =>
    spec.kind === 'identify' ? { text: JSON.stringify({ store_id: `${spec.mount}`.repeat(32), device: devices[spec.mount], fs_type: 'fuse', direct: true, created: false }) } : null;

  test('with equal st_dev share lanes, breakers and caps, and both are told', async () => {
    const { load, advance, answer, events } = await started({ mounts: two }, byMount(['254:1', '254:1']));
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    expect(events('mount').map((event) => event.mount)).toEqual(['kv0', 'kv1']);
    load(2, [1], { mount: 'kv1' });
    expect(answer(2)).toMatchObject({ error: { code: 'MOUNT_SUSPENDED' } });
  });

  test('on different devices do not notice each other', async () => {
    const { native, load, advance, deliver, answer, events } = await started({ mounts: two }, byMount(['254:1', '254:2']));
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    expect(events('mount').map((event) => event.mount)).toEqual(['kv0']);
    load(2, [1], { mount: 'kv1' });
    native.release(native.inKernel('load')[1]!);
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
  });

  test('one that does not answer at the start is suspended after 80 ms, and comes back by itself', async () => {
    const { harness } = await import('../support/service_harness.ts');
    const { native, service, advance, deliver, load, answer, events } = harness({}, () => null);
    const start = service.start();
    advance(79.9);
    advance(0.1);
    expect(await start).toMatchObject([{ name: 'kv0', device: null, state: 'suspended', reason: expect.stringContaining('has not answered') }]);
    load(1, [0]);
    expect(answer(1)).toMatchObject({ error: { code: 'MOUNT_SUSPENDED' } });
    advance(3_000_000);
    expect(native.inKernel('identify')).toHaveLength(16);
    native.onSubmit = identifies;
    native.releaseAll();
    deliver();
    expect(events('mount').map(({ class: laneClass, was, state }) => [laneClass, was, state])).toEqual([
      ['load', 'suspended', 'ok'],
      ['store', 'suspended', 'ok'],
      ['metadata', 'suspended', 'ok'],
    ]);
    load(2, [0]);
    expect(native.inKernel('load')).toHaveLength(1);
  });

  test('one without a store is WRONG_STORE and says how to make one; made later, it is used', async () => {
    let made = false;
    const { native, ready, load, advance, answer, events, service } = await started({}, (spec) => (spec.kind !== 'identify' ? null : made || spec.create ? identifies(spec) : { status: 'not_found', errno: 2, text: 'no kvlane.json' }));
    expect(ready).toMatchObject([{ state: 'suspended', code: 'WRONG_STORE', reason: expect.stringContaining('--create') }]);
    expect(events('mount'), 'ready says it').toEqual([]);
    load(1, [0]);
    expect(answer(1)).toMatchObject({ error: { code: 'WRONG_STORE', message: expect.stringContaining('no kvlane.json') } });
    service.createStore!('kv0');
    advance(1);
    expect(native.submitted.at(-1)).toMatchObject({ kind: 'identify', create: true });
    load(2, [0]);
    expect(native.inKernel('load')).toHaveLength(1);
    made = true;
  });

  test('one that is another store after a hang is WRONG_STORE until the right one is back, on whatever device', async () => {
    const { native, load, advance, deliver, answer, events } = await started();
    expect(native.identities).toEqual(['0123456789abcdef0123456789abcdef']);
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    // a lazy unmount: the path leads to the directory underneath
    native.onSubmit = (spec) => (spec.kind === 'probe' || spec.kind === 'identify' ? { status: 'wrong_store', text: 'no kvlane.json' } : null);
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'suspended', code: 'WRONG_STORE' });
    load(2, [1]);
    expect(answer(2)).toMatchObject({ error: { code: 'WRONG_STORE', message: expect.stringContaining('mount it again') } });
    expect(native.submitted.filter((spec) => spec.kind === 'identify' && spec.create)).toEqual([]);
    // mounted again, elsewhere
    native.onSubmit = (spec) => (spec.kind === 'identify' ? { text: JSON.stringify({ store_id: '0123456789abcdef0123456789abcdef', device: '254:9', fs_type: 'fuse', direct: true, created: false }) } : {});
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok', reason: expect.stringContaining('now on device 254:9 (it was 254:1)') });
    load(3, [1]);
    deliver();
    expect(answer(3)).toMatchObject({ ok: true });
  });

  test('one that was lazily unmounted with three probes stuck in it is back within a second of the remount', async () => {
    const { native, load, advance, deliver, answer, events, mountTable } = await started();
    mountTable.text = '20 1 254:0 / / rw - ext4 /dev/root rw\n31 20 0:45 / /mnt/kv0 rw - fuse lab rw\n';
    load(1, [0], { timeoutMs: 250 });
    advance(250);
    advance(10_000);
    expect(native.inKernel('probe')).toHaveLength(3);
    mountTable.text = '20 1 254:0 / / rw - ext4 /dev/root rw\n'; // umount --lazy: the stuck ones stay stuck
    native.onSubmit = () => ({ status: 'wrong_store' });
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ code: 'WRONG_STORE' });
    mountTable.text = '20 1 254:0 / / rw - ext4 /dev/root rw\n40 20 0:46 / /mnt/kv0 rw - fuse lab rw\n';
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('0:46') : {});
    advance(1000);
    load(2, [1]);
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
  });

  const ROOT_LINE = '20 1 254:0 / / rw - ext4 /dev/root rw\n';

  test('one that is remounted without a hang: what is asked after the look goes to lanes that open the root again', async () => {
    const { native, load, advance, mountTable, events } = await started();
    mountTable.text = `${ROOT_LINE}31 20 254:1 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    load(1, [0], { timeoutMs: 60_000 });
    advance(1000);
    load(2, [1], { timeoutMs: 60_000 });
    const before = native.submitted.at(-1)!.rootGeneration;
    advance(5000);
    load(3, [2], { timeoutMs: 60_000 });
    expect(native.submitted.at(-1)!.rootGeneration, 'the list is the same').toBe(before);
    mountTable.text = `${ROOT_LINE}40 20 254:1 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    advance(600);
    load(4, [3], { timeoutMs: 60_000, hexes: ['ee'] });
    expect(native.submitted.at(-1)!.rootGeneration).toBeGreaterThan(before);
    expect(native.held('load'), 'what was submitted goes on').toHaveLength(4);
    expect(events('mount')).toEqual([]);
  });

  test('also on another device, and where the path is a link and the list does not tell', async () => {
    const { native, load, advance, answer, ask, mountTable } = await started();
    load(1, [0], { timeoutMs: 60_000 });
    advance(1000);
    native.onSubmit = () => identity('254:9');
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /elsewhere rw - ext4 /dev/kv rw\n`;
    advance(600);
    ask({ id: 2, op: 'stats' });
    expect(answer(2)).toMatchObject({ stats: { mounts: [{ device: '254:9', state: 'ok' }] } });
    load(3, [1], { hexes: ['bb'] });
    advance(1);
    expect(answer(3)).toMatchObject({ ok: true });
  });

  test.each(['before', 'after'])('one that is replaced while it is identified, and says what it was %s the first list is read, is the store that is there now, on its device', async (when) => {
    const { native, service, advance, deliver, ask, answer, mountTable } = harness({}, () => null);
    const ready = service.start();
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    const answers = (): void => {
      native.release(native.inKernel('identify')[0]!, identity('254:1', 'f'.repeat(32)));
      service.onNative(native.takeEvents());
    };
    if (when === 'before') answers();
    deliver();
    if (when === 'after') answers();
    deliver();
    await ready;
    native.onSubmit = () => identity('254:9');
    native.releaseAll('identify', identity('254:9'));
    advance(200);
    ask({ id: 1, op: 'stats' });
    expect(answer(1)).toMatchObject({ stats: { mounts: [{ device: '254:9', store_id: STORE_ID, state: 'ok' }] } });
    expect(native.submitted.filter((spec) => spec.kind === 'identify')).toHaveLength(2);
  });

  test('what was asked of the store that it was taken for, and no lane has taken up, is refused once it is known to be another', async () => {
    const { native, service, deliver, load, answer, answers, mountTable } = harness({ lanes: 1 }, () => null);
    const ready = service.start();
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    native.release(native.inKernel('identify')[0]!, identity('254:1', 'f'.repeat(32)));
    service.onNative(native.takeEvents());
    await ready;
    load(1, [0], { hexes: ['aa'] });
    load(2, [1], { hexes: ['bb'] });
    deliver();
    native.releaseAll('identify', identity('254:9'));
    deliver();
    expect(answer(2)).toMatchObject({ failed: [{ code: 'WRONG_STORE', slot: 'free', message: expect.stringContaining(`${'f'.repeat(32)}, but /mnt/kv0 is store ${STORE_ID}`) }] });
    expect(answers(1), 'a lane has it, and finds out by itself').toEqual([]);
  });

  test('one that is replaced while the lane that first looks hangs in it is the store that is there now, and no other from then on', async () => {
    const line = (id: number, device: string) => `${ROOT_LINE}${id} 20 ${device} / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    const { native, service, advance, deliver, load, answer, ask, mountTable } = harness({}, () => null);
    const ready = service.start();
    mountTable.text = line(31, '254:1');
    deliver();
    advance(20);
    mountTable.text = line(32, '254:9');
    native.release(native.inKernel('identify')[0]!, identity('254:1', 'f'.repeat(32))); // it had been opened before
    deliver();
    await ready;
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('254:9') : {});
    native.releaseAll('identify', identity('254:9'));
    advance(300);
    expect(native.identities).toEqual([STORE_ID]);
    ask({ id: 1, op: 'stats' });
    expect(answer(1)).toMatchObject({ stats: { mounts: [{ device: '254:9', store_id: STORE_ID }] } });
    load(2, [0]);
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('254:3', 'f'.repeat(32)) : null);
    mountTable.text = line(33, '254:3');
    load(3, [1], { timeoutMs: 60_000 });
    advance(1000);
    load(4, [2]);
    expect(answer(4), 'what is mounted there later').toMatchObject({ error: { code: 'WRONG_STORE' } });
  });

  test('one that is unmounted after it was identified is WRONG_STORE, also before any request had the list read again', async () => {
    const line = (id: number, device: string) => `${ROOT_LINE}${id} 20 ${device} / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    const { native, service, advance, deliver, load, answer, mountTable } = harness({}, () => null);
    const ready = service.start();
    mountTable.text = line(31, '254:1');
    deliver();
    native.release(native.inKernel('identify')[0]!, identity('254:1'));
    deliver();
    await ready;
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('254:9', 'f'.repeat(32)) : null);
    mountTable.text = line(32, '254:9');
    advance(60_000);
    load(1, [0], { timeoutMs: 60_000 });
    advance(1000);
    load(2, [1]);
    expect(answer(2)).toMatchObject({ error: { code: 'WRONG_STORE' } });
    expect(native.identities).toEqual([STORE_ID]);
  });

  test('one whose device the list numbers in another way than stat does is asked once more, and not again', async () => {
    const { native, service, advance, deliver, mountTable } = harness({}, () => null);
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('0:45') : {});
    const ready = service.start();
    mountTable.text = `${ROOT_LINE}31 20 0:44 / /mnt/kv0 rw - btrfs /dev/kv rw\n`;
    deliver();
    await ready;
    advance(10_000);
    expect(native.submitted.filter((spec) => spec.kind === 'identify')).toHaveLength(2);
  });

  test('what waits for a lane when its mount goes to another device is taken along, in its order, and done there', async () => {
    const { native, load, store, remove, advance, answer, failed, deliver, events, mountTable } = await started({ lanes: 1 });
    load(1, [0], { timeoutMs: 2000 });
    for (const [id, hex] of [[2, 'bb'], [3, 'cc'], [4, 'dd']] as const) load(id, [id], { timeoutMs: 60_000, hexes: [hex] });
    remove(5, ['ee'], { timeoutMs: 60_000 });
    native.reach(native.inKernel('remove')[0]!, 'unlink', true);
    store(6, [5], { timeoutMs: 60_000, hexes: ['ee'] }); // behind the remove's gate
    advance(1000);
    native.onSubmit = (spec) => (spec.kind === 'load' || spec.kind === 'store' ? {} : identity('254:9'));
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    advance(600);
    const taken = native.submitted.filter((spec) => spec.kind === 'load').slice(-3);
    expect(taken.map((spec) => (spec.kind === 'load' ? spec.hex : '')), 'again, under new numbers').toEqual(['bb', 'cc', 'dd']);
    for (const id of [2, 3, 4]) expect(answer(id)).toMatchObject({ ok: true });
    advance(1000);
    expect(failed(1), 'the one that a lane of the former device has').toMatchObject([{ code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }]);
    native.release(native.inKernel('remove')[0]!);
    deliver();
    expect(answer(6)).toMatchObject({ ok: true });
    expect(events('mount').filter(({ state }) => state === 'suspended'), 'the former device is suspended, and that is no word about this mount').toEqual([]);
  });

  test('what waits when its mount goes to a device that is suspended is answered so, after the event that says it', async () => {
    const root = (device: string, name: string, id: number) => `${id} 20 ${device} / /mnt/${name} rw - ext4 /dev/kv rw\n`;
    const mounts = ['kv0', 'kv1'].map((name) => ({ name, root: `/mnt/${name}`, create: false }));
    const { native, load, advance, failed, sent, mountTable } = await started({ lanes: 1, mounts }, (spec) => (spec.kind === 'identify' ? identity(spec.mount === 0 ? '254:1' : '254:9') : null));
    mountTable.text = root('254:1', 'kv0', 31) + root('254:9', 'kv1', 32);
    load(1, [0], { timeoutMs: 250, mount: 'kv1' });
    advance(1000);
    load(2, [1], { timeoutMs: 60_000, hexes: ['aa'] });
    load(3, [2], { timeoutMs: 60_000, hexes: ['bb'] });
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('254:9') : null);
    mountTable.text = root('254:9', 'kv0', 41) + root('254:9', 'kv1', 32);
    advance(600);
    expect(failed(3)).toMatchObject([{ code: 'MOUNT_SUSPENDED', phase: 'queue', slot: 'free', message: expect.stringContaining('lies on device 254:9 now') }]);
    const event = sent.findIndex((message) => 'event' in message && message.event === 'mount' && message.mount === 'kv0' && message.class === 'load' && message.state === 'suspended');
    expect(event).toBeGreaterThanOrEqual(0);
    expect(sent.findIndex((message) => 'id' in message && message.id === 3)).toBeGreaterThan(event);
  });

  test('the device it lay on before is closed when nothing waits there any more, and listed until its last call is back', async () => {
    const { native, load, advance, answer, failed, ask, deliver, mountTable } = await started({ lanes: 2 });
    load(1, [0], { timeoutMs: 5000 });
    load(2, [1], { timeoutMs: 5000, hexes: ['bb'] });
    advance(1000);
    native.onSubmit = (spec) => (spec.kind === 'load' && spec.hex === 'bb' ? null : identity('254:9'));
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    advance(600);
    const devices = (id: string) => {
      ask({ id, op: 'stats' });
      return (answer(id) as unknown as { stats: { devices: { device: string; mounts: string[]; classes: { load: { operations_abandoned: number } } }[] } }).stats.devices;
    };
    expect(devices('before').map(({ device, mounts }) => [device, mounts])).toEqual([['254:1', []], ['254:9', ['kv0']]]);
    expect(native.pools.filter((pool) => pool.closed), 'somebody waits for two loads').toEqual([]);
    native.release(native.inKernel('load')[0]!);
    deliver();
    expect(answer(1), 'what was submitted goes on').toMatchObject({ ok: true });
    advance(5000);
    expect(failed(2)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }]);
    expect(native.pools.filter((pool) => pool.closed)).toHaveLength(6);
    expect(devices('stuck')[0]).toMatchObject({ device: '254:1', classes: { load: { operations_abandoned: 1 } } });
    load(3, [2], { hexes: ['cc'] });
    deliver();
    expect(answer(3), 'the new one has lanes of its own').toMatchObject({ ok: true });
    native.releaseAll('load');
    deliver();
    expect(devices('after').map(({ device }) => device)).toEqual(['254:9']);
    advance(60_000);
    expect(native.inKernel()).toEqual([]);
    // Back on the first one: it is made anew.
    native.onSubmit = () => identity('254:1');
    mountTable.text = ROOT_LINE;
    load(4, [3], { hexes: ['dd'] });
    advance(1000);
    expect(devices('back').map(({ device }) => device)).toEqual(['254:1']);
    load(5, [3], { hexes: ['ee'] });
    deliver();
    expect(answer(5)).toMatchObject({ ok: true });
  });

  test('a suspended device that no mount lies on any more is not probed, and probed again when one comes back', async () => {
    const { native, load, advance, events, mountTable, clock } = await started();
    load(1, [0], { timeoutMs: 250 });
    advance(3000);
    native.onSubmit = (spec) => (spec.kind === 'identify' ? identity('254:9') : null);
    mountTable.text = `${ROOT_LINE}31 20 254:9 / /mnt/kv0 rw - ext4 /dev/kv rw\n`;
    advance(1000);
    expect(events('mount').at(-1)).toMatchObject({ state: 'ok' });
    const probes = native.inKernel('probe').length;
    advance(1000);
    expect(clock.armedUs(), 'nothing is asked').toBe(0);
    expect(native.inKernel('probe')).toHaveLength(probes);
  });

  test('one that was unmounted without a hang is WRONG_STORE after the look', async () => {
    const { native, load, advance, answer, mountTable } = await started();
    load(1, [0], { timeoutMs: 60_000 });
    advance(1000);
    native.onSubmit = () => ({ status: 'not_found', errno: 2 });
    mountTable.text = ROOT_LINE;
    advance(600);
    load(2, [1], { hexes: ['bb'] });
    expect(answer(2)).toMatchObject({ error: { code: 'WRONG_STORE' } });
  });

  test('the list of mounts is read twice a second while there is work, once when work begins, and never by an idle sidecar', async () => {
    const { native, load, advance, deliver, mountTable } = await started();
    advance(1000);
    const first = mountTable.reads;
    advance(60_000);
    expect(mountTable.reads).toBe(first);
    load(1, [0], { timeoutMs: 60_000 });
    expect(mountTable.reads, 'when it begins').toBe(first + 1);
    advance(10_000);
    expect(mountTable.reads).toBe(first + 21);
    native.releaseAll();
    deliver();
    load(2, [0]);
    native.releaseAll();
    deliver();
    advance(60_000);
    expect(mountTable.reads, 'once more for what came after the last look').toBe(first + 22);
  });

  test('the mount behind a path is the nearest one above it, the later one where two lie on one point', () => {
    const table = ['1 0 8:1 / / rw', '2 1 0:5 / /mnt rw', '3 1 0:6 / /mnt/a\\040b rw', '4 3 0:7 / /mnt/a\\040b rw', '5 1 0:8 / /mnt/kv rw'].join('\n');
    expect(['/srv', '/mnt/a b/store', '/mnt/kv0', '/mnt/kv'].map((root) => mountBehind(mountLines(table), root).split(' ')[0])).toEqual(['1', '4', '2', '5']);
  });

  test('a lane that finds another store suspends the mount though no breaker tripped', async () => {
    const { native, load, deliver, failed, answer, advance } = await started();
    load(1, [0]);
    native.onSubmit = () => null;
    native.releaseAll('load', { status: 'wrong_store', phase: 'open' });
    deliver();
    expect(failed(1)).toMatchObject([{ code: 'WRONG_STORE', slot: 'free' }]);
    load(2, [0]);
    expect(answer(2)).toMatchObject({ error: { code: 'WRONG_STORE' } });
    native.onSubmit = identifies;
    native.releaseAll('identify', { text: '{"store_id":"ffff","device":"254:1"}' });
    deliver();
    load(3, [0]);
    expect(answer(3)).toMatchObject({ error: { code: 'WRONG_STORE', message: expect.stringContaining('holds store ffff') } });
    advance(1000);
    load(4, [0]);
    expect(native.inKernel('load')).toHaveLength(1);
  });
});

describe('caps', () => {
  const caps = { lanes: 2, stuckMax: 4, holdBreakerClosed: true };
  const names = (id: number, count: number) => Array.from({ length: count }, (_, i) => `${id.toString(16).padStart(2, '0')}${i.toString(16).padStart(2, '0')}`);

  test('at the cap, with no live lane left, a request is SATURATED at once and the queue is told', async () => {
    const { native, load, advance, answer, failed } = await started(caps);
    for (let id = 0; id < 3; id += 1) {
      load(id, [2 * id, 2 * id + 1], { timeoutMs: 100, hexes: names(id, 2) });
      if (id === 2) load(9, [10], { timeoutMs: 5000, hexes: ['eeee'] });
      advance(100);
    }
    expect(native.inKernel('load')).toHaveLength(6);
    expect(failed(9)).toMatchObject([{ code: 'SATURATED', phase: 'queue', slot: 'free' }]);
    load(10, [20], { hexes: ['dddd'] });
    expect(answer(10)).toMatchObject({ error: { code: 'SATURATED', message: expect.stringContaining('--stuck-max') } });
  });

  test('probes have a reserve of their own: they take no lane from the cap of the process, and are sent when it is used up', async () => {
    const mounts = ['kv0', 'kv1'].map((name) => ({ name, root: `/mnt/${name}`, create: false }));
    const { native, load, store, advance, answer, failed } = await started({ mounts, lanes: 1, stuckProcessMax: 2 }, (spec) => (spec.kind === 'identify' ? identity(`254:${spec.mount}`) : null));
    load(1, [0], { timeoutMs: 250 });
    advance(3000);
    expect(native.inKernel('probe'), 'of the one that is suspended').toHaveLength(3);
    for (let id = 2; id < 5; id += 1) {
      load(id, [id], { mount: 'kv1', timeoutMs: 15, hexes: [`0${id}`] }); // too short to be evidence
      advance(15);
      expect(failed(id), 'a lane took it: its first one, and two beyond').toMatchObject([{ code: 'DEADLINE_EXCEEDED', phase: 'read' }]);
    }
    load(5, [5], { mount: 'kv1', timeoutMs: 250, hexes: ['05'] });
    expect(answer(5), 'at once, not at its deadline').toMatchObject({ error: { code: 'SATURATED' } });
    store(6, [6], { timeoutMs: 250 });
    advance(3000);
    expect(native.inKernel('probe')).toHaveLength(6);
  });

  test('a lane that comes back makes room again', async () => {
    const { native, load, advance, deliver, answer } = await started(caps);
    for (let id = 0; id < 3; id += 1) {
      load(id, [2 * id, 2 * id + 1], { timeoutMs: 100, hexes: names(id, 2) });
      advance(100);
    }
    native.release(native.inKernel('load')[0]!);
    deliver();
    load(10, [20], { hexes: ['dddd'] });
    native.release(native.inKernel('load').find((one) => !one.abandoned)!);
    deliver();
    expect(answer(10)).toMatchObject({ ok: true });
  });

  test('stores may have half of it, and loads still have their lanes when stores took theirs', async () => {
    const { native, store, load, advance, deliver, answer } = await started(caps);
    for (let id = 0; id < 2; id += 1) {
      store(id, [2 * id, 2 * id + 1], { timeoutMs: 100, hexes: names(id, 2) });
      advance(100);
    }
    store(5, [20], { hexes: ['dddd'] });
    expect(answer(5)).toMatchObject({ error: { code: 'SATURATED' } });
    expect(native.inKernel('store')).toHaveLength(4);
    load(6, [21, 22], { hexes: ['dd', 'ee'] });
    native.releaseAll('load');
    deliver();
    expect(answer(6)).toMatchObject({ ok: true, done: 2 });
  });
});
