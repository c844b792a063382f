// rm.ts — blocks by key, the blocks of a namespace, or what was left behind; asked first where more than one block goes.
//
// Only what is exactly kvlane's goes, and a leftover only if it is still the file that was listed (inode and time of its last change). Age
// is by this machine's clock against the file system's: what is dated in the future is left, and said.
import { EXIT_FOUND, EXIT_OK, Wrong } from '../spec.ts';
import type { SweepState } from '../../../protocol/messages.ts';
import { isLeftoverPath } from '../../../protocol/store_paths.ts';
import { count, duration, size } from '../text/units.ts';
import type { Asked } from './asked.ts';
import { isInTheWay, LEFTOVER, standingThere, type Found } from './kinds.ts';
import { OpenNames } from './open_names.ts';
import type { Out } from './out.ts';
import { shown } from './shown.ts';
import { Unanswered, type Store } from './store.ts';
import { fanOut, inNamespace, inside, leftovers, type Lists } from './walk.ts';

/** In one request: one deadline fits them. */
const REMOVED_AT_ONCE = 256;
/** Names may be passed over while others go, so a directory is looked through again; not for ever, since others may store meanwhile. */
const PASSES_MAX = 4;

export interface Person {
  /** null: there is nobody to ask. */
  ask: ((question: string) => Promise<boolean>) | null;
  nowMs(): number;
}

type Rm = Asked & { action: 'rm' };

export async function rm(store: Store, asked: Rm, out: Out, person: Person): Promise<number> {
  if ('keys' in asked.what) return removeKeys(store, asked, asked.what.keys, out, person);
  if ('namespace' in asked.what) return removeNamespace(store, asked, asked.what.namespace, out, person);
  return removeLeftovers(store, asked, asked.what.olderMs, out, person);
}

async function removeKeys(store: Store, asked: Rm, keys: readonly string[], out: Out, person: Person): Promise<number> {
  const names = new OpenNames(store, (text) => out.note(text));
  const present = await store.present(keys);
  const inPlace = await standing(names, keys.filter((_, i) => present[i] === false));
  const there = keys.filter((key, i) => present[i] !== false || inPlace.get(key)?.kind === 'block');
  const goes = new Set(there);
  const left = keys.filter((key) => !goes.has(key));
  for (const key of left) {
    const other = inPlace.get(key);
    out.note(`${key}: ${other === undefined ? 'there is no such block' : `a ${standingThere(other)} stands in the place of the block: left alone`}`);
  }
  if (asked.dryRun) {
    for (const key of there) await out.line(`would remove ${key}`);
    await out.flush();
    return left.length === 0 ? EXIT_OK : EXIT_FOUND;
  }
  if (there.length > 1 && !(await sure(asked, person, `Remove ${count(there.length, 'block')} of ${shown(store.directory)}?`))) return said(out, 'nothing was removed');
  const failed = await removed(store, there, out);
  await out.line(`removed ${count(there.length - failed, 'block')}`);
  await out.flush();
  return failed + left.length === 0 ? EXIT_OK : EXIT_FOUND;
}

/** What lies where a look-up saw no block: a link or the like, or a file that is too short to be one and may go as one. */
async function standing(names: Lists, keys: readonly string[]): Promise<Map<string, Found>> {
  const wanted = new Set(keys);
  const inPlace = new Map<string, Found>();
  const directories = new Set(keys.map((key) => `blocks/${key.split('/')[0]}/${key.split('/')[1]!.slice(0, 2)}`));
  for (const directory of directories) {
    for await (const one of inside(names, directory)) if (wanted.has(one.key ?? '') && (one.kind === 'block' || isInTheWay(one))) inPlace.set(one.key!, one);
  }
  return inPlace;
}

async function removeNamespace(store: Store, asked: Rm, namespace: string, out: Out, person: Person): Promise<number> {
  let blocks = 0;
  let bytes = 0;
  const names = new OpenNames(store, (text) => out.note(text));
  for await (const one of inNamespace(names, namespace)) {
    if (one.kind !== 'block') continue;
    blocks += 1;
    bytes += one.entry.bytes;
    if (asked.dryRun) await out.line(`would remove ${one.key}`);
  }
  await out.flush();
  if (blocks === 0) return said(out, `there is no block of ${namespace} in ${shown(store.directory)}`, names.shut > 0 ? names.exitCode : EXIT_FOUND);
  if (asked.dryRun) return said(out, `${count(blocks, 'block')}, ${size(bytes)}`, names.exitCode);
  if (blocks > 1 && !(await sure(asked, person, `Remove all ${blocks} blocks (${size(bytes)}) of ${namespace} in ${shown(store.directory)}?`))) return said(out, 'nothing was removed');
  let gone = 0;
  let failed = 0;
  try {
    for (let pass = 1; pass <= PASSES_MAX; pass += 1) {
      const before = gone;
      failed = 0;
      for (const directory of (await fanOut(names, namespace)).directories) {
        let keys: string[] = [];
        const some = async (): Promise<void> => {
          const kept = keys.length === 0 ? 0 : await removed(store, keys, out);
          gone += keys.length - kept;
          failed += kept;
          keys = [];
        };
        for await (const one of inside(names, directory)) {
          if (one.kind === 'block') keys.push(one.key!);
          if (keys.length === REMOVED_AT_ONCE) await some();
        }
        await some();
      }
      if (gone === before || failed > 0) break;
    }
  } finally {
    await out.line(`removed ${count(gone, 'block')} of ${namespace}; its record stays, so that no generation is given out twice`);
    await out.flush();
  }
  return failed === 0 ? names.exitCode : EXIT_FOUND;
}

async function removeLeftovers(store: Store, asked: Rm, olderMs: number, out: Out, person: Person): Promise<number> {
  const nowMs = person.nowMs();
  const goes = ({ kind, path, entry }: Found): boolean => LEFTOVER.has(kind) && isLeftoverPath(path) && entry.changed_ms <= nowMs - olderMs;
  const tally = { files: 0, bytes: 0, young: 0, future: 0 };
  const names = new OpenNames(store, (text) => out.note(text));
  for await (const one of leftovers(names, ({ kind }) => LEFTOVER.has(kind))) {
    if (one.entry.changed_ms > nowMs) {
      tally.future += 1;
      if (tally.future <= FUTURE_NAMED_MAX) out.note(`${shown(one.path)} is dated ${duration(one.entry.changed_ms - nowMs)} in the future by this machine's clock: left alone`);
    } else if (!goes(one)) tally.young += 1;
    else {
      tally.files += 1;
      tally.bytes += one.entry.allocated_bytes;
      if (asked.dryRun) await out.line(`would remove ${shown(one.path)}`);
    }
  }
  await out.flush();
  if (tally.future > 0) out.note(`${count(tally.future, 'file')} dated in the future: are the clocks of this machine and of the file system alike?`);
  if (tally.young > 0) out.note(`${count(tally.young, 'file')} changed within the last ${duration(olderMs)}: left alone`);
  if (asked.dryRun) return said(out, `${count(tally.files, 'file')}, ${size(tally.bytes)}`, names.exitCode);
  if (tally.files === 0) {
    out.note('nothing was left behind that is old enough');
    return tally.future > 0 ? EXIT_FOUND : names.exitCode;
  }
  if (!(await sure(asked, person, `Remove ${count(tally.files, 'file')} that stores and sidecars left behind (${size(tally.bytes)})?`))) return said(out, 'nothing was removed');
  const ended: Record<SweepState, number> = { removed: 0, changed: 0, absent: 0 };
  let failed = 0;
  try {
    for (let pass = 1; pass <= PASSES_MAX; pass += 1) {
      const before = ended.removed;
      ended.changed = 0;
      failed = 0;
      for await (const one of leftovers(names, goes)) {
        try {
          ended[await store.sweep(one.path, one.entry)] += 1;
        } catch (error) {
          if (!(error instanceof Unanswered) || !error.isOfOneName) throw error;
          failed += 1;
          if (pass === 1 && failed <= FAILED_NAMED_MAX) out.note(error.message);
        }
      }
      if (ended.removed === before || ended.removed + ended.changed + ended.absent + failed >= tally.files) break;
    }
  } finally {
    // Also where the mount stopped answering.
    if (failed > 0) out.note(`${count(failed, 'file')} could not be removed`);
    const { changed } = ended;
    if (changed > 0) out.note(`${count(changed, 'file')} changed meanwhile: left alone`);
    await out.line(`removed ${count(ended.removed, 'file')}`);
    await out.flush();
  }
  return failed + tally.future > 0 ? EXIT_FOUND : names.exitCode;
}
const FUTURE_NAMED_MAX = 8;
/** Of files that cannot be removed: a directory that may not be written has many. */
export const FAILED_NAMED_MAX = 8;

/** How many could not be removed. */
async function removed(store: Store, keys: readonly string[], out: Out): Promise<number> {
  let failed = 0;
  for (let from = 0; from < keys.length; from += REMOVED_AT_ONCE) {
    const some = keys.slice(from, from + REMOVED_AT_ONCE);
    const answer = await store.remove(some);
    failed += some.length - answer.done;
    for (const { block, blocks, code, message } of answer.failed) out.note(`${block === undefined ? `${blocks?.length ?? 0} ranges of blocks` : some[block]}: ${code}${message === undefined ? '' : `: ${shown(message)}`}`);
  }
  return failed;
}

async function sure({ yes }: Rm, { ask }: Person, question: string): Promise<boolean> {
  if (yes) return true;
  if (ask === null) throw new Wrong(`${question} Nobody can be asked here: say --yes, or --dry-run to see what would go`);
  return ask(question);
}

function said(out: Out, text: string, exitCode = EXIT_OK): number {
  out.note(text);
  return exitCode;
}
