// addon.test.ts — the addon as it is built, called past packed.ts too: what it refuses although nothing of ours would ask for it, and what
// comes back of thousands of blocks. The mount leads nowhere: how an operation ends is not looked at here, only that it does, once.
import { createRequire } from 'node:module';
import { beforeAll, expect, test } from 'vitest';
import type { BlockSpec, Native, NativeEvent, SharedSpec } from '../../native/index.ts';
import { type Addon, unpacked } from '../../native/packed.ts';
import { within } from '../support/sidecar_process.ts';

const BYTES = 4096;
const SHARED: SharedSpec = { kind: 'load', mount: 0, rootGeneration: 0, deadlineUs: 0, namespace: 'demo', durable: false, fileMode: 0o600 };

let native: Native;
let addon: Addon;
let pool = -1;
let nextId = 1;
const ended: number[] = [];
let heard = (): void => {};

beforeAll(() => {
  addon = createRequire(import.meta.url)('../../native/build/Release/kvlane.node') as Addon;
  native = unpacked(addon);
  native.start({ stallUs: 1_000_000, stuckProcessMax: 1 }, (batch: NativeEvent[]) => {
    for (const event of batch) if (event.type === 'done') ended.push(event.id);
    heard();
  });
  native.createArena(16 * BYTES, { hugePages: 'off', bounce: 'none' });
  pool = native.createPool({ laneClass: 'load', lanes: 2, engine: 'threads', forProbes: false });
  expect(native.addMount('/nowhere')).toBe(SHARED.mount);
});

function blocks(count: number): BlockSpec[] {
  return Array.from({ length: count }, (_, i) => ({ id: nextId++, hex: `${i.toString(16)}ff`, region: 0, offset: (i % 16) * BYTES, bytes: BYTES, replace: false }));
}

function row(): number[] {
  return [nextId++, 0, BYTES, BYTES, 0];
}

/** Nothing of what was refused is heard of later: one that follows comes back alone. */
async function comesBack(wanted: readonly BlockSpec[]): Promise<void> {
  const all = new Promise<void>((done) => {
    heard = () => void (ended.length >= wanted.length && done());
    heard();
  });
  await within(all, () => `${wanted.length} completions were wanted, ${ended.length} have come`);
  expect(ended.splice(0).sort((a, b) => a - b)).toEqual(wanted.map((block) => block.id));
}

test.each<[string, unknown, unknown, RegExp]>([
  ['more names than rows', 'aa\nbb', Float64Array.from(row()), /2 names and 5 numbers, 5 for each name/],
  ['more rows than names', 'aa', Float64Array.from([...row(), ...row()]), /1 names and 10 numbers/],
  ['half a row', 'aa', Float64Array.from([...row(), 1]), /1 names and 6 numbers/],
  ['an empty name', 'aa\n', Float64Array.from([...row(), ...row()]), /hex cannot be a file name: $/],
  ['a way up', '..', Float64Array.from(row()), /hex cannot be a file name/],
  ['a way down', 'aa/bb', Float64Array.from(row()), /hex cannot be a file name/],
  ['a name that would be cut', 'aa\0bb', Float64Array.from(row()), /hex cannot be a file name/],
  ['rows that are no numbers', 'aa', row(), /rows must be a Float64Array/],
  ['numbers of another width', 'aa', Int32Array.from(row()), /rows must be a Float64Array/],
  ['names that are no string', ['aa'], Float64Array.from(row()), /hexes must be a string/],
])('%s: refused, and nothing is started', async (_what, hexes, rows, words) => {
  expect(() => addon.submitBlocks(pool, SHARED, hexes as string, rows as Float64Array)).toThrow(words);
  const next = blocks(1);
  native.submitBlocks(pool, SHARED, next);
  await comesBack(next);
});

test.each([NaN, -1, 0.5, 2 ** 53, Infinity, -Infinity])('%s is no id, no offset and no length', (wrong) => {
  for (const field of ['id', 'offset', 'bytes'] as const) {
    expect(() => native.submitBlocks(pool, SHARED, [{ ...blocks(1)[0]!, [field]: wrong }])).toThrow(new RegExp(`${field} must be a whole number from 0 to 2\\^53 - 1`));
  }
});

test.each<[Partial<BlockSpec>, string]>([
  [{ region: 7 as 0 }, 'a region there is not'],
  [{ offset: 16 * BYTES }, 'memory behind the arena'],
  [{ offset: 15 * BYTES, bytes: BYTES + 1 }, 'memory that ends behind the arena'],
  [{ offset: 2 ** 53 - 1, bytes: 2 ** 53 - 1 }, 'numbers whose sum is no number any more'],
  [{ offset: 512 }, 'an offset between two pages'],
  [{ bytes: 0 }, 'no bytes'],
])('%j is %s, and refused', (wrong, _what) => {
  expect(() => native.submitBlocks(pool, SHARED, [{ ...blocks(1)[0]!, ...wrong }])).toThrow(/not an aligned part/);
});

test('what is no work on blocks does not go this way', () => {
  expect(() => native.submitBlocks(pool, { ...SHARED, kind: 'lookup' as 'load' }, blocks(1))).toThrow(/kind must be load, store or remove/);
  expect(() => native.submitBlocks(pool, { ...SHARED, mount: 9 }, blocks(1))).toThrow(/no such mount/);
  expect(() => native.submitBlocks(99, SHARED, blocks(1))).toThrow(/no such pool/);
});

test('a line break in a name gives no other block its name', () => {
  const [first, second] = blocks(2);
  expect(() => native.submitBlocks(pool, SHARED, [{ ...first!, hex: 'aa\nbb' }, second!])).toThrow(/3 names and 10 numbers/);
});

test('no blocks are no work', () => {
  native.submitBlocks(pool, SHARED, []);
});

test.each([1, 63, 64, 65, 4096])('%i blocks of one task come back once each', async (count) => {
  const all = blocks(count);
  native.submitBlocks(pool, SHARED, all);
  await comesBack(all);
});

test('a wrong block far behind leaves those before it under way, and the others not begun', async () => {
  const all = blocks(130);
  expect(() => native.submitBlocks(pool, SHARED, all.map((block, i) => (i === 100 ? { ...block, bytes: 0 } : block)))).toThrow(/not an aligned part/);
  await comesBack(all.slice(0, 64));
});

test('an id that is under way is refused, and stays under way', async () => {
  const [one, other] = blocks(2);
  native.submitBlocks(pool, SHARED, [one!]);
  expect(() => native.submitBlocks(pool, SHARED, [other!, { ...one!, hex: 'eeee' }])).toThrow(`operation ${one!.id} is outstanding already`);
  await comesBack([one!]);
});

test('what was collected is not told again', async () => {
  const all = blocks(3);
  native.submitBlocks(pool, SHARED, all);
  const wanted = all.map((block) => block.id);
  const collected: number[] = [];
  const endMs = Date.now() + 10_000;
  while (collected.length < wanted.length && Date.now() < endMs) {
    for (const event of native.collect()) if (event.type === 'done') collected.push(event.id);
  }
  expect(collected.sort((a, b) => a - b)).toEqual(wanted);
  native.hurry(wanted[0]!); // long over: nothing
  const last = blocks(1);
  native.submitBlocks(pool, SHARED, last);
  await comesBack(last);
});

test('an operation that nobody knows was finished', () => {
  expect(native.abandon(2 ** 53 - 1)).toEqual({ state: 'done', phase: 'queue', sinceUs: 0 });
  expect(() => native.abandon(NaN)).toThrow(/id must be a whole number/);
});

test('its words are all there, none twice', () => {
  for (const words of Object.values<string[]>(addon.words)) {
    expect(words.every((word) => typeof word === 'string' && word !== '')).toBe(true);
    expect(new Set<string>(words).size).toBe(words.length);
  }
  expect(addon.words.states).toEqual(['queued', 'running', 'committing', 'done']);
});
