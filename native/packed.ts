// packed.ts — how many blocks, and many completions, cross between JavaScript and C++ at once.
//
// A value costs its crossing: a name or a number that C++ asks of an object takes some hundred nanoseconds, so
// that a block of ten fields would cost more here than its file calls do. So blocks go over as one string and one
// row of numbers each, and completions come back as rows, except the few that have something to say in
// words; and what giving an operation up found is one number. On this side of the door everything is objects
// again. The layouts' other half: from_js.cc, to_js.cc.
import type { Abandoned, BlockSpec, Native, NativeEvent, NativeStatus, Phase, SharedSpec } from './index.ts';

/** Counts the changes of what crosses packed; as packed_layout in to_js.h. Script and addon may come from two builds. */
export const LAYOUT = 4;

/** What the addon itself offers. */
export interface Addon extends Omit<Native, 'start' | 'collect' | 'submitBlocks' | 'abandon'> {
  readonly layout: number;
  /** Its enumerations, by number. */
  readonly words: { statuses: NativeStatus[]; states: Abandoned['state'][]; phases: Phase[] };
  /** A number among the events stands for so many rows. */
  start(options: { stallUs: number; stuckProcessMax: number; unchecked?: boolean }, onEvents: (events: (NativeEvent | number)[], rows: Float64Array | null) => void): void;
  collect(): [events: (NativeEvent | number)[], rows: Float64Array | null];
  /** hexes: one a line. */
  submitBlocks(pool: number, shared: SharedSpec, hexes: string, rows: Float64Array): void;
  /** sinceUs * 64 + code, where code = phase * 4 + state; an object where that is not all, or too much. A thousand tasks may be given up at once. */
  abandon(id: number): number | { code: number; sinceUs: number; found?: Uint8Array };
}

const BLOCK_COLUMNS = 5; // id, region, offset, bytes, replace
const DONE_COLUMNS = 5; // id, code, errno, kernelUs, storedBytes
// code: status, phase << 8, and these
const KERNEL_US_KNOWN = 1 << 16;
const UNCACHED = 2 << 16;
const KEPT = 4 << 16;
const LATE = 8 << 16;

/** Throws for an addon of another build. */
export function unpacked(addon: Addon): Native {
  if (addon.layout !== LAYOUT) throw new Error(`it is of another build than this script: its layout is ${addon.layout ?? 'not known'}, wanted is ${LAYOUT}`);
  return {
    ...addon,
    start: (options, onEvents) => addon.start(options, (events, rows) => onEvents(unpackEvents(addon.words, events, rows))),
    collect: () => unpackEvents(addon.words, ...addon.collect()),
    abandon: (id) => unpackAbandoned(addon.words, addon.abandon(id)),
    submitBlocks: (pool, shared, blocks) => addon.submitBlocks(pool, shared, packHexes(blocks), packRows(blocks)),
  };
}

function unpackAbandoned(words: Addon['words'], packed: ReturnType<Addon['abandon']>): Abandoned {
  if (typeof packed === 'number') {
    const code = packed % 64;
    return { state: words.states[code & 3]!, phase: words.phases[code >> 2]!, sinceUs: (packed - code) / 64 };
  }
  const { code, sinceUs, found } = packed;
  return { state: words.states[code & 3]!, phase: words.phases[code >> 2]!, sinceUs, ...(found === undefined ? {} : { found }) };
}

function packHexes(blocks: readonly BlockSpec[]): string {
  if (blocks.length === 1) return blocks[0]!.hex;
  const hexes = new Array<string>(blocks.length);
  for (let i = 0; i < hexes.length; i += 1) hexes[i] = blocks[i]!.hex;
  return hexes.join('\n');
}

function packRows(blocks: readonly BlockSpec[]): Float64Array {
  const rows = new Float64Array(BLOCK_COLUMNS * blocks.length);
  let at = 0;
  for (const { id, region, offset, bytes, replace } of blocks) {
    rows[at] = id;
    rows[at + 1] = region;
    rows[at + 2] = offset;
    rows[at + 3] = bytes;
    rows[at + 4] = replace ? 1 : 0;
    at += BLOCK_COLUMNS;
  }
  return rows;
}

export function unpackEvents(words: Addon['words'], events: readonly (NativeEvent | number)[], rows: Float64Array | null): NativeEvent[] {
  if (rows === null) return events as NativeEvent[];
  const batch: NativeEvent[] = [];
  let at = 0;
  for (const event of events) {
    if (typeof event !== 'number') {
      batch.push(event);
      continue;
    }
    for (const end = at + DONE_COLUMNS * event; at < end; at += DONE_COLUMNS) {
      const code = rows[at + 1]!;
      batch.push({
        type: 'done',
        id: rows[at]!,
        status: words.statuses[code & 0xff]!,
        errno: rows[at + 2]!,
        phase: words.phases[(code >> 8) & 0xff]!,
        kernelUs: rows[at + 3]!,
        kernelUsKnown: (code & KERNEL_US_KNOWN) !== 0,
        uncached: (code & UNCACHED) !== 0,
        kept: (code & KEPT) !== 0,
        storedBytes: rows[at + 4]!,
        inode: '',
        text: '',
        late: (code & LATE) !== 0,
      });
    }
  }
  return batch;
}
