// packed.test.ts — what crosses to C++ in rows comes out as the objects it stands for, in order.
import { expect, test } from 'vitest';
import type { BlockSpec, NativeEvent, SharedSpec } from '../../native/index.ts';
import { type Addon, LAYOUT, unpacked, unpackEvents } from '../../native/packed.ts';

const words: Addon['words'] = { statuses: ['ok', 'not_found', 'corrupt'], states: ['queued', 'running', 'committing', 'done'], phases: ['queue', 'open', 'stat', 'header', 'read'] };
const KNOWN = 1;
const UNCACHED = 2;
const KEPT = 4;
const LATE = 8;

function rowOf(id: number, status: number, phase: number, flags: number, errno = 0, kernelUs = 0, storedBytes = 0): number[] {
  return [id, status | (phase << 8) | (flags << 16), errno, kernelUs, storedBytes];
}

test('blocks go over as one string of names and one row of numbers each', () => {
  const seen: unknown[] = [];
  const addon = { layout: LAYOUT, words, submitBlocks: (...given: unknown[]) => void seen.push(...given) } as unknown as Addon;
  const shared: SharedSpec = { kind: 'store', mount: 0, rootGeneration: 3, deadlineUs: 5, namespace: 'demo@1', durable: false, fileMode: 0o600 };
  const blocks: BlockSpec[] = [
    { id: 7, hex: 'aa', region: 0, offset: 4096, bytes: 10, replace: false },
    { id: 9, hex: 'bb00', region: 1, offset: 2 ** 40, bytes: 4096, replace: true },
  ];
  unpacked(addon).submitBlocks(2, shared, blocks);
  expect(seen).toEqual([2, shared, 'aa\nbb00', Float64Array.from([7, 0, 4096, 10, 0, 9, 1, 2 ** 40, 4096, 1])]);
});

test('completions in rows and events in words come out in the order they happened', () => {
  const rows = Float64Array.from([...rowOf(1, 0, 4, KNOWN | UNCACHED, 0, 250, 0), ...rowOf(2 ** 40, 1, 1, KNOWN | LATE, 2, 3, 0), ...rowOf(3, 0, 4, KEPT, 0, 0, 8192)]);
  const notice: NativeEvent = { type: 'notice', text: 'between' };
  const timer: NativeEvent = { type: 'timer' };
  const batch = unpackEvents(words, [2, notice, 1, timer], rows);
  const plain = { type: 'done', errno: 0, inode: '', text: '', late: false, kept: false, uncached: false, kernelUsKnown: true, storedBytes: 0 };
  expect(batch).toEqual([
    { ...plain, id: 1, status: 'ok', phase: 'read', kernelUs: 250, uncached: true },
    { ...plain, id: 2 ** 40, status: 'not_found', phase: 'open', errno: 2, kernelUs: 3, late: true },
    notice,
    { ...plain, id: 3, status: 'ok', phase: 'read', kernelUs: 0, kernelUsKnown: false, kept: true, storedBytes: 8192 },
    timer,
  ]);
});

test('what giving up found is read out of one number, or of an object where that is not all, or too much', () => {
  const sinceUs = 4 * 365 * 86_400 * 1_000_000 + 7;
  const answers = [0, sinceUs * 64 + 4 * 4 + 1, { code: 2 * 4 + 2, sinceUs, found: Uint8Array.of(2, 1, 0) }, { code: 4 * 4 + 1, sinceUs: 2 ** 48 + 1 }];
  const native = unpacked({ layout: LAYOUT, words, abandon: (id: number) => answers[id] } as unknown as Addon);
  expect(native.abandon(0)).toEqual({ state: 'queued', phase: 'queue', sinceUs: 0 });
  expect(native.abandon(1)).toEqual({ state: 'running', phase: 'read', sinceUs });
  expect(native.abandon(2)).toEqual({ state: 'committing', phase: 'stat', sinceUs, found: Uint8Array.of(2, 1, 0) });
  expect(native.abandon(3)).toEqual({ state: 'running', phase: 'read', sinceUs: 2 ** 48 + 1 });
});

test('a batch without rows is passed on as it is', () => {
  const events: NativeEvent[] = [{ type: 'timer' }];
  expect(unpackEvents(words, events, null)).toBe(events);
});

test.each([[LAYOUT + 1], [undefined]])('an addon with layout %s is of another build, and refused', (layout) => {
  expect(() => unpacked({ layout, words } as unknown as Addon)).toThrow(new RegExp(`another build than this script: its layout is (${LAYOUT + 1}|not known), wanted is ${LAYOUT}`));
});
