// key_gate.test.ts — a late store or remove damages nothing.
import { describe, expect, test } from 'vitest';
import { started } from '../support/service_harness.ts';

const held = { holdBreakerClosed: true };

describe('a store that overran', () => {
  test('in its write never appears: it is given up, and the next store of the key goes ahead at once', async () => {
    const { native, store, advance, failed } = await started(held);
    store(1, [0], { timeoutMs: 100, hexes: ['aa'] });
    advance(100);
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', phase: 'write', slot: 'quarantined' }]);
    expect(failed(1)[0]).not.toHaveProperty('outcome');
    expect(failed(1)[0]!.message).toContain('it will not appear');
    store(2, [1], { hexes: ['aa'] });
    expect(native.inKernel('store')).toHaveLength(2);
  });

  test('is told of at once when another task waits for it, and only then', async () => {
    const { native, store, remove, deliver } = await started(held);
    store(1, [0, 1], { hexes: ['aa', 'bb'] });
    expect(native.hurried).toEqual([]);
    const [aa] = native.held('store');
    remove(2, ['cc']);
    expect(native.hurried).toEqual([]);
    remove(3, ['aa']);
    expect(native.hurried).toEqual([aa!.spec.id]);
    native.release(aa!);
    deliver();
    expect(native.inKernel('remove').map((one) => one.spec.kind === 'remove' && one.spec.hex)).toEqual(['cc', 'aa']);
    store(4, [2, 3], { hexes: ['dd', 'dd'] }); // a key twice in one task: the second waits for the first
    expect(native.hurried).toEqual([aa!.spec.id, native.held('store').at(-1)!.spec.id]);
  });

  test('and so is one that waited itself, when yet another waits behind it', async () => {
    const { native, store, deliver } = await started(held);
    store(1, [0], { hexes: ['aa'] });
    store(2, [1, 2], { hexes: ['aa', 'bb'] });
    store(3, [3], { hexes: ['aa'] });
    const [first] = native.held('store');
    expect(native.hurried).toEqual([first!.spec.id, first!.spec.id]);
    native.release(first!);
    deliver();
    const second = native.inKernel('store').find((one) => one.spec.kind === 'store' && one.spec.hex === 'aa')!;
    expect(native.hurried.at(-1)).toBe(second.spec.id);
  });

  test('in its rename is an unknown outcome, and later stores and removes of the key wait behind it', async () => {
    const { native, store, remove, advance, failed, answers, deliver, answer } = await started(held);
    store(1, [0], { timeoutMs: 100, hexes: ['aa'] });
    native.reach(native.held('store')[0]!, 'rename', true);
    advance(100);
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', phase: 'rename', outcome: 'unknown', slot: 'quarantined' }]);

    store(2, [1], { timeoutMs: 300, hexes: ['aa'] });
    remove(3, ['aa'], { timeoutMs: 2000 });
    store(4, [2], { timeoutMs: 2000, hexes: ['bb'] });
    expect(native.held('store').map((one) => one.spec.kind === 'store' && one.spec.hex)).toEqual(['aa', 'bb']);
    advance(299);
    expect(answers(2)).toEqual([]);
    advance(1);
    expect(failed(2)).toMatchObject([{ code: 'KEY_BUSY', phase: 'queue', slot: 'free', message: expect.stringContaining('the rename of an earlier store') }]);

    native.release(native.held('store')[0]!, { status: 'ok' }); // the kernel lets the rename through
    deliver();
    expect(native.inKernel('remove'), 'now the remove goes ahead, after the store').toHaveLength(1);
    native.releaseAll();
    deliver();
    expect(answer(3)).toMatchObject({ ok: true });
  });
});

test('a store that is mounted under two names has one gate for a key', async () => {
  const mounts = ['kv0', 'again'].map((name) => ({ name, root: `/mnt/${name}`, create: false }));
  const { native, store, ask, advance, failed, answer } = await started({ ...held, mounts });
  store(1, [0], { timeoutMs: 100, hexes: ['aa'] });
  native.reach(native.held('store')[0]!, 'rename', true);
  ask({ id: 2, op: 'namespace', mount: 'kv0', name: 'demo', fingerprint: '{}', bump: false, timeoutMs: 100 });
  native.reach(native.held('namespace')[0]!, 'rename', true);
  advance(100);
  store(3, [1], { timeoutMs: 100, hexes: ['aa'], mount: 'again' });
  ask({ id: 4, op: 'namespace', mount: 'again', name: 'demo', fingerprint: '{}', bump: false, timeoutMs: 100 });
  advance(100);
  expect(failed(3)).toMatchObject([{ code: 'KEY_BUSY', phase: 'queue', slot: 'free' }]);
  expect(answer(4)).toMatchObject({ error: { code: 'KEY_BUSY' } });
});

test('a stuck unlink never removes the block that the same sidecar stores again', async () => {
  const { native, store, remove, advance, deliver, failed, answer } = await started(held);
  remove(1, ['aa'], { timeoutMs: 100 });
  native.reach(native.held('remove')[0]!, 'unlink', true);
  advance(100);
  expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED', phase: 'unlink', outcome: 'unknown' }]);
  expect(failed(1)[0]).not.toHaveProperty('slot');
  store(2, [0], { hexes: ['aa'], timeoutMs: 60_000 });
  expect(native.held('store')).toEqual([]);
  advance(30_000);
  native.releaseAll('remove');
  deliver();
  native.releaseAll('store');
  deliver();
  expect(answer(2)).toMatchObject({ ok: true, done: 1 });
});

test('stores of one key run one after the other, in the order they came', async () => {
  const { native, store, deliver, answer } = await started();
  for (let id = 1; id <= 3; id += 1) store(id, [id], { hexes: ['aa'], replace: true });
  for (let id = 1; id <= 3; id += 1) {
    expect(native.held('store')).toHaveLength(1);
    expect(native.held('store')[0]!.spec).toMatchObject({ offset: id * 65536 });
    native.releaseAll('store');
    deliver();
    expect(answer(id)).toMatchObject({ ok: true });
  }
});

test('one that waits at the gate can be cancelled, and its slot is free', async () => {
  const { store, ask, failed, native, deliver, answer } = await started();
  store(1, [0], { hexes: ['aa'] });
  store(2, [1], { hexes: ['aa'] });
  ask({ id: 3, op: 'cancel', task: 2 });
  expect(failed(2)).toMatchObject([{ code: 'CANCELLED', phase: 'queue', slot: 'free' }]);
  native.releaseAll('store');
  deliver();
  expect(answer(1)).toMatchObject({ ok: true });
  expect(native.held()).toEqual([]);
});

test('loads of a key do not wait at its gate', async () => {
  const { native, store, load } = await started();
  store(1, [0], { hexes: ['aa'] });
  load(2, [1], { hexes: ['aa'] });
  expect(native.inKernel('load')).toHaveLength(1);
});

describe('damage', () => {
  test('a damaged file is moved aside after the answer, by the inode that was read; a store waits for that', async () => {
    const { native, load, store, deliver, failed, answer } = await started();
    load(1, [0], { hexes: ['aa'] });
    native.releaseAll('load', { status: 'corrupt', inode: '4711', phase: 'header' });
    deliver();
    expect(failed(1)).toMatchObject([{ code: 'CORRUPT', slot: 'free' }]);
    expect(native.held('aside').map((one) => one.spec)).toMatchObject([{ hex: 'aa', inode: '4711' }]);
    store(2, [0], { hexes: ['aa'] });
    expect(native.held('store')).toEqual([]);
    native.releaseAll('aside');
    deliver();
    expect(native.held('store')[0]!.spec).toMatchObject({ replace: false });
    native.releaseAll('store');
    deliver();
    expect(answer(2)).toMatchObject({ ok: true });
  });

  test('a bad file that must not be touched is replaced by the next store, which said keep', async () => {
    const { native, load, store, deliver } = await started();
    load(1, [0], { hexes: ['aa'] });
    native.releaseAll('load', { status: 'corrupt', inode: '', phase: 'header' });
    deliver();
    expect(native.held('aside')).toEqual([]);
    store(2, [0], { hexes: ['aa'] });
    expect(native.held('store')[0]!.spec).toMatchObject({ replace: true });
    native.releaseAll('store');
    deliver();
    store(3, [0], { hexes: ['aa'] });
    expect(native.held('store')[0]!.spec, 'once is enough').toMatchObject({ replace: false });
  });

  test('only a file that was really moved counts as set aside', async () => {
    const { native, load, deliver, ask, answer } = await started();
    load(1, [0, 1], { hexes: ['aa', 'bb'] });
    native.releaseAll('load', { status: 'corrupt', inode: '4711' });
    deliver();
    const [first, second] = native.held('aside');
    native.release(first!);
    native.release(second!, { status: 'not_found' }); // another sidecar has stored a good block there meanwhile
    deliver();
    ask({ id: 2, op: 'stats' });
    expect((answer(2) as { stats?: { files_set_aside?: number } }).stats?.files_set_aside).toBe(1);
  });

  test('an aside that fails or is stuck leaves the key to be replaced', async () => {
    const { native, load, store, deliver, advance } = await started(held);
    load(1, [0], { hexes: ['aa'] });
    native.releaseAll('load', { status: 'corrupt', inode: '1' });
    deliver();
    advance(5000);
    expect(native.held('aside')[0]!.abandoned).toBe(true);
    store(2, [0], { hexes: ['aa'] });
    expect(native.held('store')[0]!.spec).toMatchObject({ replace: true });
  });
});

describe('one bad file', () => {
  test('is refused alone while its load is stuck and the mount answers others', async () => {
    const { native, load, advance, deliver, failed, answer, events, ask } = await started();
    load(1, [0], { hexes: ['bad0'], timeoutMs: 400 });
    advance(100);
    load(2, [1], { hexes: ['aa'] });
    advance(1);
    native.release(native.held('load')[1]!);
    deliver();
    advance(299);
    expect(failed(1)).toMatchObject([{ code: 'DEADLINE_EXCEEDED' }]);
    load(3, [2, 3], { hexes: ['bad0', 'bb'] });
    native.release(native.held('load')[1]!);
    deliver();
    expect(answer(3)).toMatchObject({ ok: false, done: 1 });
    expect(failed(3)).toMatchObject([{ block: 0, code: 'KEY_BUSY', slot: 'free', message: expect.stringContaining('in the kernel for 400 ms') }]);
    advance(10_000);
    expect(events('mount')).toEqual([]);
    native.releaseAll('load');
    deliver();
    load(4, [0], { hexes: ['bad0'] });
    expect(native.inKernel('load')).toHaveLength(1);
    ask({ id: 5, op: 'ping' });
  });

  test('does not suspend a mount on which others complete, however long it stays stuck', async () => {
    const { native, load, advance, deliver, events, answer } = await started();
    load(1, [0], { hexes: ['bad0'], timeoutMs: 60_000 });
    for (let id = 2; id < 100; id += 1) {
      advance(50);
      load(id, [1], { hexes: ['aa'] });
      advance(1);
      for (const one of native.inKernel('load').slice(1)) native.release(one);
      if (id === 21) native.stall(native.inKernel('load')[0]!);
      deliver();
      expect(answer(id)).toMatchObject({ ok: true });
    }
    advance(20_000); // nobody asks any more: still no evidence
    expect(events('mount')).toEqual([]);
  });
});
