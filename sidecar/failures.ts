// failures.ts — what became of the blocks that failed, as entries of an answer.
//
// Blocks that failed in the same way share one entry, so that 4,096 misses are one line of 100 bytes.
import type { Code, FailedEntry, Phase, Range, SlotWord } from '../protocol/messages.ts';
import { errnoName } from './errno.ts';

export interface Failure {
  block: number;
  code: Code;
  phase: Phase;
  /** null: the request has no slots. */
  slot: SlotWord | null;
  waitedUs: number;
  errno: number;
  /** A store whose name may still change, or has changed: nobody knows. */
  outcomeUnknown: boolean;
  /** LENGTH_MISMATCH: how long the block is that is there. */
  storedBytes: number;
  /** How long the call it was in had lasted; 0 when it was in none. */
  heldUs: number;
  /** The lane's own words, or why it was not started. */
  detail: string;
}

/** Entries that explain themselves in words; with thousands of unlike failures the rest are codes only, so that the line fits. */
const MESSAGES_MAX = 256;

/** Codes whose details are a few fixed sentences: one empty file among many flipped bits is said to be empty. */
const TOLD_APART: ReadonlySet<Code> = new Set(['CORRUPT', 'IO_ERROR', 'NO_SPACE']);

export interface Asked {
  op: 'load' | 'store' | 'remove';
  mount: string;
  key(block: number): string;
  slot(block: number): number | null;
}

export function failedEntries(failures: Failure[], asked: Asked): FailedEntry[] {
  if (failures.length === 1) return [entryOf(failures, asked, true)]; // a thousand small requests may end in the same instant
  const groups = new Map<string, Failure[]>();
  for (const failure of failures) {
    const { code, phase, slot, errno, outcomeUnknown, storedBytes } = failure;
    const like = `${code} ${phase} ${slot} ${errno} ${outcomeUnknown} ${storedBytes} ${TOLD_APART.has(code) ? failure.detail : ''}`;
    const group = groups.get(like);
    if (group === undefined) groups.set(like, [failure]);
    else group.push(failure);
  }
  const entries: FailedEntry[] = [];
  for (const group of groups.values()) entries.push(entryOf(group, asked, entries.length < MESSAGES_MAX));
  return entries;
}

function entryOf(group: Failure[], asked: Asked, inWords: boolean): FailedEntry {
  const first = group[0]!;
  let waitedUs = 0;
  for (const failure of group) waitedUs = Math.max(waitedUs, failure.waitedUs);
  const entry: FailedEntry = group.length === 1 ? { block: first.block, code: first.code } : { blocks: rangesOf(group), code: first.code };
  entry.phase = first.phase;
  entry.waited_ms = Math.round(waitedUs / 1000);
  if (first.slot !== null) entry.slot = first.slot;
  if (first.errno !== 0) entry.errno = errnoName(first.errno);
  if (first.outcomeUnknown) entry.outcome = 'unknown';
  if (first.code === 'LENGTH_MISMATCH') entry.stored_bytes = first.storedBytes;
  // A plain miss is no event: thousands of them a second need no sentence.
  if (inWords && (first.code !== 'NOT_FOUND' || first.detail !== '')) entry.message = words(group, entry.waited_ms, asked);
  return entry;
}

function rangesOf(group: Failure[]): Range[] {
  const blocks = group.map((failure) => failure.block).sort((a, b) => a - b);
  const ranges: Range[] = [];
  for (const block of blocks) {
    const last = ranges.at(-1);
    if (last !== undefined && last[1] === block - 1) last[1] = block;
    else ranges.push([block, block]);
  }
  return ranges;
}

function words(group: Failure[], waitedMs: number, asked: Asked): string {
  const first = group[0]!;
  const slot = group.length === 1 ? asked.slot(first.block) : null;
  const what = `${asked.op} of ${group.length === 1 ? asked.key(first.block) : `${group.length} blocks`} on mount ${asked.mount}`;
  const held = first.heldUs > 0 ? ` for ${Math.round(first.heldUs / 1000)} ms` : '';
  const memory = first.slot === 'quarantined' ? `; ${slot === null ? 'the memory' : `slot ${slot}`} is quarantined until the kernel gives it back` : '';
  const because = first.detail === '' ? '' : `: ${first.detail}`;
  switch (first.code) {
    case 'DEADLINE_EXCEEDED':
    case 'CANCELLED':
    case 'SHUTTING_DOWN': {
      const end = first.code === 'DEADLINE_EXCEEDED' ? `reached its deadline after ${waitedMs} ms` : first.code === 'CANCELLED' ? `was cancelled after ${waitedMs} ms` : `was ended by the shutdown after ${waitedMs} ms`;
      const where = first.phase === 'queue' ? (first.detail === '' ? ', before a lane had taken it up' : '') : `, in ${first.phase}${held}`;
      const outcome = first.outcomeUnknown ? '; the name may change late, then the whole block is there or gone' : asked.op === 'store' ? '; it will not appear' : '';
      return `${what} ${end}${where}${because}${memory}${outcome}`;
    }
    case 'NOT_FOUND':
      return `${what}: there is no such block${because}`;
    case 'LENGTH_MISMATCH':
      return `${what}: the block there is ${first.storedBytes} bytes long; it is left alone`;
    case 'IO_ERROR':
    case 'NO_SPACE':
      return `${what} failed in ${first.phase} with ${first.errno === 0 ? first.code : errnoName(first.errno)}${because}`;
    default:
      return `${what}: ${first.detail === '' ? first.code : first.detail}${memory}`;
  }
}
