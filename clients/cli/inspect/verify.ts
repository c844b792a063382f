// verify.ts — a scrub: every block is read and checked, damage is told, nothing is changed.
//
// Some blocks at a time, so that a rate can be kept and a mount that stops answering costs those few. Of what was not read to its end, one
// more try is made; the rest is counted, and the exit status says so.
import { setTimeout as pause } from 'node:timers/promises';
import type { VerifiedBlock } from '../../../protocol/messages.ts';
import { EXIT_FOUND, EXIT_OK, EXIT_UNSEEN, Wrong } from '../spec.ts';
import { count, duration, size } from '../text/units.ts';
import type { Asked } from './asked.ts';
import { isInTheWay, standingThere, type Found } from './kinds.ts';
import type { Out } from './out.ts';
import type { Progress } from './progress.ts';
import { json, shown } from './shown.ts';
import { Unanswered, type Store } from './store.ts';
import { OpenNames } from './open_names.ts';
import { fanOut, inside, namespaces } from './walk.ts';

/** In one request: enough to keep all lanes busy, few enough that one deadline fits them. */
export const BATCH_BLOCKS_MAX = 64;
export const BATCH_BYTES_MAX = 64 * 1024 * 1024;
const TRIES = 2;

export interface Tally {
  sound: number;
  damaged: number;
  newer: number;
  /** Removed or replaced while it was looked for. */
  gone: number;
  /** Not read to the end. */
  unseen: number;
  foreign: number;
  bytes: number;
}

export interface Watch {
  nowMs(): number;
  rest(ms: number): Promise<unknown>;
}
const REAL: Watch = { nowMs: () => performance.now(), rest: (ms) => pause(ms) };

export async function verify(store: Store, asked: Asked & { action: 'verify' }, out: Out, progress: Progress, watch: Watch = REAL, namespacesMax = NAMESPACES_MAX): Promise<number> {
  const tally: Tally = { sound: 0, damaged: 0, newer: 0, gone: 0, unseen: 0, foreign: 0, bytes: 0 };
  const startedMs = watch.nowMs();
  const batchBytesMax = asked.rate === 0 ? BATCH_BYTES_MAX : Math.min(BATCH_BYTES_MAX, Math.max(1, asked.rate / 2));
  let batch: Found[] = [];
  let batchBytes = 0;
  let share = 0;
  const told = (): void => progress.tell({ share, blocks: tally.sound + tally.damaged, bytes: tally.bytes, damaged: tally.damaged }, watch.nowMs());
  const report = async (one: Found, finding: string, message: string): Promise<void> => {
    progress.clear();
    await out.line(asked.json ? json({ key: one.key, path: one.path, finding, message }) : `${finding.replace('_', ' ').padEnd(12)}  ${one.key}  ${shown(message)}`);
    await out.flush();
  };

  const read = async (): Promise<void> => {
    if (batch.length === 0) return;
    const some = batch;
    batch = [];
    batchBytes = 0;
    const blocks = new Map<Found, VerifiedBlock>();
    let over: Unanswered | null = null;
    for (let tries = 1; tries <= TRIES && over === null; tries += 1) {
      const left = some.filter((one) => (blocks.get(one)?.finding ?? 'unknown') === 'unknown');
      if (left.length === 0) break;
      try {
        const answered = await store.verify(left.map((one) => one.key!), weightOf(left));
        for (const [i, one] of left.entries()) blocks.set(one, answered[i]!);
      } catch (error) {
        if (!(error instanceof Unanswered)) throw error;
        over = error;
      }
    }
    for (const one of some) await judge(one, blocks.get(one) ?? { finding: 'unknown', message: over!.code });
    told();
    if (over !== null) throw over;
    const restMs = restOf(asked.rate, tally.bytes, watch.nowMs() - startedMs);
    if (restMs > 0) await watch.rest(restMs);
  };
  const judge = async (one: Found, block: VerifiedBlock): Promise<void> => {
    tally.bytes += block.finding === 'sound' ? one.entry.bytes : weight(one);
    switch (block.finding) {
      case 'sound':
        tally.sound += 1;
        return;
      case 'not_found':
        tally.gone += 1;
        return;
      case 'corrupt':
        tally.damaged += 1;
        return report(one, 'corrupt', block.message ?? '');
      case 'newer_format':
        tally.newer += 1;
        return report(one, 'newer_format', block.message ?? 'a later version of kvlane stored it');
      case 'unknown':
        tally.unseen += 1;
        return report(one, 'not_read', [block.code ?? '', block.errno ?? '', block.message ?? ''].filter((word) => word !== '').join(': '));
    }
  };
  const look = async (one: Found): Promise<void> => {
    if (one.kind === 'block') {
      const bytes = weight(one);
      if (batch.length > 0 && batchBytes + bytes > batchBytesMax) await read();
      batch.push(one);
      batchBytes += bytes;
      if (batch.length === BATCH_BLOCKS_MAX) await read();
    } else if (isInTheWay(one)) {
      tally.damaged += 1;
      await report(one, 'no_file', `a ${standingThere(one)} stands in the place of the block`);
    } else if (one.kind === 'foreign') tally.foreign += 1;
  };

  const names = new OpenNames(store, (text) => {
    progress.clear();
    out.note(text);
  });
  let leftOut = 0;
  let broken: Unanswered | null = null;
  try {
    const wanted = new Set(asked.namespaces);
    const there = new Set<string>();
    for await (const one of namespaces(names)) {
      if (one.kind !== 'directory' || (wanted.size > 0 && !wanted.has(one.entry.name))) continue;
      if (there.size < namespacesMax) there.add(one.entry.name);
      else leftOut += 1;
    }
    const missing = [...wanted].filter((name) => !there.has(name));
    if (missing.length > 0 && names.shut === 0) throw new Wrong(`there is no namespace ${missing.join(', ')} in ${shown(store.directory)}; nothing was verified`);
    for (const [n, name] of [...there].entries()) {
      const { directories, others } = await fanOut(names, name);
      for (const one of others) await look(one);
      for (const [d, directory] of directories.entries()) {
        share = (n + d / directories.length) / there.size;
        for await (const one of inside(names, directory)) await look(one);
        await read();
        told();
      }
    }
  } catch (error) {
    if (!(error instanceof Unanswered)) throw error;
    broken = error; // what is known is told first
  }
  progress.clear();
  const complete = broken === null && tally.unseen === 0 && names.shut === 0 && leftOut === 0;
  const exitCode = tally.damaged > 0 ? EXIT_FOUND : complete ? EXIT_OK : EXIT_UNSEEN;
  await out.line(asked.json ? json({ summary: { ...tally, shut: names.shut, complete, ms: Math.round(watch.nowMs() - startedMs) } }) : summary(tally, names.shut, watch.nowMs() - startedMs, broken !== null));
  await out.flush();
  if (leftOut > 0) out.note(`${count(leftOut, 'namespace')} not verified: one scrub takes ${namespacesMax}; the others by name`);
  if (broken !== null) out.note(broken.message);
  return exitCode;
}
/** Looked through one after the other; a store has a handful. */
export const NAMESPACES_MAX = 100_000;

/** Before the next read, so that no more than this is read a second on average since the start. */
export function restOf(rate: number, bytes: number, elapsedMs: number): number {
  return rate === 0 ? 0 : Math.max(0, (bytes / rate) * 1000 - elapsedMs);
}

/** What a read of it costs at most: a huge file of holes is no block, and seen as that by its first page. */
function weight({ entry }: Found): number {
  return Math.min(entry.bytes, Math.max(4_096, entry.allocated_bytes));
}

function weightOf(some: readonly Found[]): number {
  return some.reduce((sum, one) => sum + weight(one), 0);
}

function summary(tally: Tally, shut: number, ms: number, broken: boolean): string {
  const { sound, damaged, newer, gone, unseen, foreign, bytes } = tally;
  return [
    `${count(sound, 'block')} sound`,
    `${damaged} damaged`,
    ...(newer > 0 ? [`${newer} of a newer format`] : []),
    ...(gone > 0 ? [`${gone} gone meanwhile`] : []),
    ...(unseen > 0 ? [`${unseen} not read`] : []),
    ...(shut > 0 ? [`${count(shut, 'directory', 'directories')} not looked into`] : []),
    ...(foreign > 0 ? [`${count(foreign, 'name')} not made by kvlane`] : []),
    `${size(bytes)} in ${duration(Math.round(ms))}`,
    ...(broken ? ['given up before the end'] : []),
  ].join(', ');
}
