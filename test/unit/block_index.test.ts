// block_index.test.ts — what a look-up may know without asking the mount, for how long, and what it must forget.
import { describe, expect, test } from 'vitest';
import { BlockIndex, INDEX_BLOCKS_MAX } from '../../sidecar/block_index.ts';
import type { Mount } from '../../sidecar/mount.ts';
import type { OpSpec } from '../../native/index.ts';
import type { Ending } from '../support/fake_native.ts';
import { identifies, started } from '../support/service_harness.ts';

const AGE_MS = 1000;
const options = { indexMs: AGE_MS } as const;
const lookups = (native: { submitted: { kind: string }[] }): number => native.submitted.filter((spec) => spec.kind === 'lookup').length;
type OnSubmit = (spec: OpSpec) => Ending | null;
/** Every call of these kinds stays in the kernel, every other one is well. */
const holds = (...kinds: string[]): OnSubmit => (spec) => (kinds.includes(spec.kind) ? null : (identifies(spec) ?? {}));
/** Every call is well at once; look-ups find every name, or none. */
const finds = (all: boolean): OnSubmit => (spec) => (spec.kind === 'lookup' ? { found: new Uint8Array(spec.names.length).fill(all ? 2 : 1) } : (identifies(spec) ?? {}));

describe('a look-up', () => {
  test.each(['store', 'load', 'lookup'] as const)('needs no lane for a block that a %s has just shown to be there', async (op) => {
    const { native, deliver, answer, ...ask } = await started(options, finds(true));
    if (op === 'lookup') ask.lookup(1, ['aa']);
    else ask[op](1, [0], { hexes: ['aa'] });
    deliver();
    const before = lookups(native);
    ask.lookup(2, ['aa']);
    expect(answer(2)).toEqual({ id: 2, ok: true, present: [true], prefix: 1, complete: true });
    expect(lookups(native)).toBe(before);
  });

  test('asks the mount each time where the index is off, as it is unless asked for', async () => {
    const { native, deliver, lookup } = await started({}, finds(true));
    for (const id of [1, 2]) {
      lookup(id, ['aa']);
      deliver();
    }
    expect(lookups(native)).toBe(2);
  });

  test('asks again for what was absent', async () => {
    const { native, deliver, lookup, answer } = await started(options, finds(false));
    lookup(1, ['aa']);
    deliver();
    native.onSubmit = finds(true);
    lookup(2, ['aa']);
    deliver();
    expect(answer(2)).toMatchObject({ present: [true] });
  });

  test('asks lanes from the first to the last name that is not known, and for nothing around them', async () => {
    const { native, deliver, load, lookup, answer } = await started(options, finds(false));
    load(1, [0, 1, 2], { hexes: ['aa', 'bb', 'dd'] });
    deliver();
    lookup(2, ['aa', 'cc', 'bb', 'ee', 'dd']);
    deliver();
    expect(native.submitted.at(-1)).toMatchObject({ kind: 'lookup', names: ['cc', 'bb', 'ee'] });
    expect(answer(2)).toMatchObject({ present: [true, false, false, false, true], prefix: 1, complete: true });
  });

  test('cut short by its deadline still says what it knew', async () => {
    const { load, deliver, lookup, answer, advance } = await started(options, holds('lookup'));
    load(1, [0, 1], { hexes: ['aa', 'cc'] });
    deliver();
    lookup(2, ['aa', 'bb', 'cc', 'dd'], { timeoutMs: 50 });
    advance(50);
    expect(answer(2)).toMatchObject({ present: [true, null, true, null], prefix: 1, complete: false });
  });

  test('believes no hit that is older than it may be, counted from the request that learnt it', async () => {
    const { native, deliver, load, lookup, advance } = await started(options, finds(true));
    load(1, [0], { hexes: ['aa'] });
    deliver();
    lookup(2, ['aa']);
    expect(lookups(native)).toBe(0);
    advance(AGE_MS);
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(1);
  });

  test('takes no word from an answer that took half of that to come', async () => {
    const { native, deliver, load, lookup, advance } = await started(options, holds('load'));
    load(1, [0], { hexes: ['aa'], timeoutMs: 10 * AGE_MS });
    advance(AGE_MS / 2 + 1);
    native.releaseAll('load');
    deliver();
    lookup(2, ['aa']);
    expect(lookups(native)).toBe(1);
  });

  test('forgets what this sidecar removes, when the removal begins', async () => {
    const { native, deliver, load, remove, lookup } = await started(options, holds('remove', 'lookup'));
    load(1, [0], { hexes: ['aa'] });
    deliver();
    remove(2, ['aa']);
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(1);
  });

  test('forgets it once more when a removal that was given up in the kernel comes back', async () => {
    const { native, deliver, remove, lookup, advance } = await started(options, holds('remove'));
    remove(1, ['aa'], { timeoutMs: 10 });
    advance(10);
    native.onSubmit = finds(true);
    lookup(2, ['aa']);
    deliver();
    native.releaseAll('remove');
    deliver();
    const before = lookups(native);
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(before + 1);
  });

  test('forgets a damaged block that is moved aside, though a look-up had still seen it', async () => {
    const { native, deliver, load, lookup } = await started(options, (spec) => (spec.kind === 'load' ? { status: 'corrupt', inode: '5' } : spec.kind === 'aside' ? null : finds(true)(spec)));
    load(1, [0], { hexes: ['aa'] });
    deliver();
    lookup(2, ['aa']);
    deliver();
    native.releaseAll('aside');
    deliver();
    const before = lookups(native);
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(before + 1);
  });

  test('learns nothing of one store from what was asked of another', async () => {
    const index = new BlockIndex(AGE_MS * 1000);
    index.somethingElse();
    index.note({ storeId: 'a' } as Mount, 'demo', 'aa', 0, 0, 0);
    expect(index.has({ storeId: 'a' } as Mount, 'demo', 'aa', 0)).toBe(false);
  });

  test('does not learn from what was under way while anything was removed', async () => {
    const { native, deliver, lookup, remove } = await started(options, holds('lookup'));
    lookup(1, ['aa']);
    remove(2, ['aa']);
    deliver();
    native.onSubmit = finds(false);
    native.releaseAll('lookup', { found: new Uint8Array([2]) }); // it had looked before
    deliver();
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(2);
  });

  test.each(['not_found', 'corrupt', 'newer_format'] as const)('forgets what a load calls %s', async (status) => {
    const { native, deliver, load, lookup } = await started(options, finds(true));
    load(1, [0], { hexes: ['aa'] });
    deliver();
    native.onSubmit = () => ({ status });
    load(2, [0], { hexes: ['aa'] });
    deliver();
    native.onSubmit = () => null;
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(1);
  });

  test('asks the mount while its loads are suspended: a hit would be none', async () => {
    const { native, deliver, load, lookup, advance, events } = await started(options, finds(true));
    load(1, [0], { hexes: ['aa'] });
    deliver();
    native.onSubmit = holds('load', 'probe', 'lookup');
    load(2, [1], { hexes: ['bb'], timeoutMs: 250 });
    advance(250);
    expect(events('mount').at(-1)).toMatchObject({ class: 'load', state: 'suspended' });
    lookup(3, ['aa']);
    expect(lookups(native)).toBe(1);
  });

  test('stats count what it knows and what that has spared', async () => {
    const { deliver, load, lookup, ask, answer } = await started(options, finds(true));
    load(1, [0, 1], { hexes: ['aa', 'bb'] });
    deliver();
    lookup(2, ['aa', 'bb', 'cc']);
    ask({ id: 3, op: 'stats' });
    expect(answer(3)).toMatchObject({ stats: { index: { ms: AGE_MS, blocks: 2, hits: 2 } } });
  });
});

describe('the index itself', () => {
  const mount = (storeId: string): Mount => ({ storeId }) as Mount;
  const A = mount('a'.repeat(32));
  const hexOf = (block: number): string => block.toString(16).padStart(16, '0');

  test('knows one store, namespace and key from another', () => {
    const index = new BlockIndex(AGE_MS * 1000);
    index.note(A, 'llama@1', 'aabb', 0, 0, 0);
    expect(index.has(A, 'llama@1', 'aabb', 0)).toBe(true);
    for (const [store, namespace, hex] of [[mount('b'.repeat(32)), 'llama@1', 'aabb'], [A, 'llama@2', 'aabb'], [A, 'llama@1', 'aabc'], [A, 'llama@1', 'bbaa'], [A, 'llama@1', 'aabb00']] as const) {
      expect(index.has(store, namespace, hex, 0), `${namespace}/${hex}`).toBe(false);
    }
  });

  test('holds as many blocks as its limit says, then lets the oldest go, and is never wrong about one that it did not see', () => {
    const index = new BlockIndex(60_000_000);
    const half = INDEX_BLOCKS_MAX / 2;
    for (let block = 0; block < INDEX_BLOCKS_MAX; block += 1) index.note(A, 'llama', hexOf(block), 0, 0, 0);
    expect(index.picture().blocks).toBe(INDEX_BLOCKS_MAX);
    const known = (from: number, count: number): number => Array.from({ length: count }, (_, i) => index.has(A, 'llama', hexOf(from + i), 0)).filter((one) => one).length;
    expect(known(half, half), 'the younger half').toBe(half);
    expect(known(INDEX_BLOCKS_MAX, half), 'blocks never seen').toBe(0);
    index.note(A, 'llama', hexOf(INDEX_BLOCKS_MAX), 0, 0, 0);
    expect(index.picture().blocks, 'one past it').toBeLessThanOrEqual(half + 1);
    expect(known(half, half + 1)).toBe(half + 1);
  });

  test('knows what was forgotten once it is seen again', () => {
    const index = new BlockIndex(AGE_MS * 1000);
    index.note(A, 'llama', 'aa', 0, 0, 0);
    index.removing(A, 'llama', 'aa');
    expect(index.has(A, 'llama', 'aa', 0)).toBe(false);
    index.note(A, 'llama', 'aa', 0, 0, 0); // asked before the removal
    expect(index.has(A, 'llama', 'aa', 0)).toBe(false);
    index.note(A, 'llama', 'aa', 1, 0, 0);
    expect(index.has(A, 'llama', 'aa', 0)).toBe(true);
  });

  test('keeps no block for longer than half of what its age may be, the rest is for the answer that brought it', () => {
    const ageUs = AGE_MS * 1000;
    const index = new BlockIndex(ageUs);
    for (let nowUs = 0; nowUs < 3 * ageUs; nowUs += ageUs / 10) index.note(A, 'llama', hexOf(nowUs), 0, nowUs, nowUs);
    const nowUs = 3 * ageUs;
    for (let notedUs = 0; notedUs < nowUs; notedUs += ageUs / 10) {
      if (nowUs - notedUs > ageUs / 2) expect(index.has(A, 'llama', hexOf(notedUs), nowUs), `noted ${nowUs - notedUs} us ago`).toBe(false);
      if (nowUs - notedUs < ageUs / 4) expect(index.has(A, 'llama', hexOf(notedUs), nowUs), `noted ${nowUs - notedUs} us ago`).toBe(true);
    }
  });
});
