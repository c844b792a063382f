// rm.ts — blocks by key, the blocks of a namespace, or what was left behind; asked first where more than one block goes.
//
// Only what is exactly kvlane's goes, and a leftover only if it is still the file that was listed (inode and time of its last change). Age
// is by this machine's clock against the file system's: what is dated in the future is left, and said.
import { EXIT_FOUND, EXIT_OK, Wrong } from '../spec.ts';
import { isLeftoverPath } from '../../../protocol/store_paths.ts';
import { count, duration, size } from '../text/units.ts';
import type { Asked } from './asked.ts';
import { LEFTOVER, type Found } from './kinds.ts';
import type { Out } from './out.ts';
import { shown } from './shown.ts';
import type { Store } from './store.ts';
import { fanOut, inNamespace, inside, leftovers } from './walk.ts';

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
  const present = await store.present(keys);
  const there = keys.filter((_, i) => present[i] !== false);
  for (const [i, key] of keys.entries()) if (present[i] === false) out.note(`${key}: there is no such block`);
  if (asked.dryRun) {
    for (const key of there) await out.line(`would remove ${key}`);
    await out.flush();
    return EXIT_OK;
  }
  if (there.length > 1 && !(await sure(asked, person, `Remove ${count(there.length, 'block')} of ${shown(store.directory)}?`))) return said(out, 'nothing was removed');
  const failed = await removed(store, there, out);
  await out.line(`removed ${count(there.length - failed, 'block')}`);
  await out.flush();
  return failed === 0 ? EXIT_OK : EXIT_FOUND;
}

async function removeNamespace(store: Store, asked: Rm, namespace: string, out: Out, person: Person): Promise<number> {
  let blocks = 0;
  let bytes = 0;
  for await (const one of inNamespace(store, namespace)) {
    if (one.kind !== 'block') continue;
    blocks += 1;
    bytes += one.entry.bytes;
    if (asked.dryRun) await out.line(`would remove ${one.key}`);
  }
  await out.flush();
  if (blocks === 0) return said(out, `there is no block of ${namespace} in ${shown(store.directory)}`);
  if (asked.dryRun) return said(out, `${count(blocks, 'block')}, ${size(bytes)}`);
  if (blocks > 1 && !(await sure(asked, person, `Remove all ${blocks} blocks (${size(bytes)}) of ${namespace} in ${shown(store.directory)}?`))) return said(out, 'nothing was removed');
  let gone = 0;
  let failed = 0;
  try {
    for (let pass = 1; pass <= PASSES_MAX; pass += 1) {
      const before = gone;
      failed = 0;
      for (const directory of (await fanOut(store, namespace)).directories) {
        let keys: string[] = [];
        const some = async (): Promise<void> => {
          const kept = keys.length === 0 ? 0 : await removed(store, keys, out);
          gone += keys.length - kept;
          failed += kept;
          keys = [];
        };
        for await (const one of inside(store, directory)) {
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
  return failed === 0 ? EXIT_OK : EXIT_FOUND;
}

async function removeLeftovers(store: Store, asked: Rm, olderMs: number, out: Out, person: Person): Promise<number> {
  const nowMs = person.nowMs();
  const goes = ({ kind, path, entry }: Found): boolean => LEFTOVER.has(kind) && isLeftoverPath(path) && entry.changed_ms <= nowMs - olderMs;
  const tally = { files: 0, bytes: 0, young: 0, future: 0 };
  for await (const one of leftovers(store, ({ kind }) => LEFTOVER.has(kind))) {
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
  if (asked.dryRun) return said(out, `${count(tally.files, 'file')}, ${size(tally.bytes)}`);
  const left = tally.future > 0 ? EXIT_FOUND : EXIT_OK;
  if (tally.files === 0) {
    out.note('nothing was left behind that is old enough');
    return left;
  }
  if (!(await sure(asked, person, `Remove ${count(tally.files, 'file')} that stores and sidecars left behind (${size(tally.bytes)})?`))) return said(out, 'nothing was removed');
  let removedFiles = 0;
  let changed = 0;
  try {
    for await (const one of leftovers(store, goes)) {
      const state = await store.sweep(one.path, one.entry);
      if (state === 'removed') removedFiles += 1;
      if (state === 'changed') changed += 1;
    }
  } finally {
    // Also where the mount stopped answering.
    if (changed > 0) out.note(`${count(changed, 'file')} changed meanwhile: left alone`);
    await out.line(`removed ${count(removedFiles, 'file')}`);
    await out.flush();
  }
  return left;
}
const FUTURE_NAMED_MAX = 8;

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

function said(out: Out, text: string): number {
  out.note(text);
  return EXIT_OK;
}
