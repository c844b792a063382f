// explain.ts — one key, namespace or file: what it is, what can be seen of it, what that means, and what to do about it.
import { resolve } from 'node:path';
import type { VerifiedBlock } from '../../../protocol/messages.ts';
import { DRAFT_OF_IDENTITY_FILE, isDirectoryPath, NAMESPACE_NAME } from '../../../protocol/store_paths.ts';
import { EXIT_FOUND, EXIT_OK, EXIT_UNSEEN, Wrong } from '../spec.ts';
import { columns } from '../text/table.ts';
import { duration, size } from '../text/units.ts';
import { isKey, type Asked } from './asked.ts';
import { explainNamespace } from './explain_namespace.ts';
import { isInTheWay, standingThere, type Found, type Kind } from './kinds.ts';
import { dated } from './ls.ts';
import type { Out } from './out.ts';
import { json, shown } from './shown.ts';
import type { Store } from './store.ts';
import { inside } from './walk.ts';

interface Meaning {
  is: string;
  so: string;
  exitCode: number;
}

const TOPS = /^(?:blocks|recycle|aside|namespaces|collector|probe)(?:\/|$)|^kvlane\.json(?:$|\.)/;

export async function explain(store: Store, asked: Asked & { action: 'explain' }, out: Out, cwd: string, nowMs: number): Promise<number> {
  const path = pathOf(asked.target, store.directory, cwd);
  const [top = '', namespace, ...deeper] = path.split('/');
  const one = await find(store, path);
  if (top === 'blocks' && namespace !== undefined && deeper.length === 0 && NAMESPACE_NAME.test(namespace) && (one === null || one.kind === 'directory')) return explainNamespace(store, asked.json, namespace, out);
  const block = one?.kind === 'block' ? (await store.verify([one.key!], Math.min(one.entry.bytes, Math.max(4_096, one.entry.allocated_bytes))))[0]! : null;
  const { is, so, exitCode } = one === null ? missing(path, store) : meaning(one, block);
  if (asked.json) {
    await out.line(json({ path, ...(one === null ? {} : { kind: one.kind, key: one.key, entry: one.entry }), ...(block === null ? {} : { block }), is, so }));
  } else {
    await out.line(shown(asked.target));
    const rows = [['what', is], ['file', shown(`${store.directory.replace(/\/$/, '')}/${path}`)], ...(one === null ? [] : seen(one, nowMs)), ...(block === null ? [] : read(block, nowMs)), ['so', so]];
    for (const line of columns(rows.map(([name, value]) => [name!, ` ${value!}`]))) await out.line(line);
  }
  await out.flush();
  return exitCode;
}

/** Below the root; by text alone. */
export function pathOf(target: string, directory: string, cwd: string): string {
  if (isKey(target)) {
    const [namespace = '', hex = ''] = target.split('/');
    return `blocks/${namespace}/${hex.slice(0, 2)}/${hex}.kvb`;
  }
  if (TOPS.test(target)) return target.replace(/\/+$/, '');
  const root = resolve(cwd, directory);
  const path = resolve(cwd, target);
  const below = root === '/' ? path.slice(1) : path.slice(root.length + 1);
  if (below === '' || !`${path}/`.startsWith(root === '/' ? '/' : `${root}/`)) {
    if (NAMESPACE_NAME.test(target)) return `blocks/${target}`;
    throw new Wrong(`'${shown(target)}' is no key (NAMESPACE/HASH), no namespace, and no file below ${shown(root)}`);
  }
  // In the root itself lies nothing that is called like a namespace.
  return below === target && NAMESPACE_NAME.test(target) ? `blocks/${target}` : below;
}

async function find(store: Store, path: string): Promise<Found | null> {
  const slash = path.lastIndexOf('/');
  const directory = path.slice(0, Math.max(0, slash));
  if (!isDirectoryPath(directory)) return null;
  for await (const one of inside(store, directory)) if (one.entry.name === path.slice(slash + 1)) return one;
  return null;
}

function missing(path: string, { mount }: Store): Meaning {
  if (path === 'kvlane.json') return { is: `who this store is: id ${mount.store_id}`, so: 'it was made once, and must stay: without it the directory is no store', exitCode: EXIT_OK };
  if (DRAFT_OF_IDENTITY_FILE.test(path)) return { is: 'who this store is, in the making, or given up by a sidecar that ended', so: 'never read, and not looked for by kvlane; once kvlane.json is there it may go', exitCode: EXIT_OK };
  if (path === 'probe' || path.startsWith('probe/')) return { is: 'what sidecars try out whether a mount answers again', so: 'leave it; it is made again where it is missing', exitCode: EXIT_OK };
  if (path.startsWith('.kvlane-doctor-')) return { is: 'what a kvlane doctor tries, or left where it was killed', so: 'no part of the store; it may go when no doctor runs, on any host', exitCode: EXIT_OK };
  const slash = path.lastIndexOf('/');
  if (isDirectoryPath(path) && (slash < 0 || path.split('/').length <= 3)) return { is: 'a directory of the store, if it is there', so: 'kvlane inspect ls and df say what is in it', exitCode: EXIT_OK };
  if (!isDirectoryPath(path.slice(0, Math.max(0, slash)))) return { is: 'nothing of kvlane', so: 'no part of a store has such a path: kvlane neither reads nor removes it', exitCode: EXIT_FOUND };
  if (path.endsWith('.kvb')) return { is: 'no such block', so: 'a load of it is a miss: it was never stored, was removed, or another host stored it a moment ago and this one does not see it yet', exitCode: EXIT_FOUND };
  return { is: 'no such file', so: 'it may have gone a moment ago', exitCode: EXIT_FOUND };
}

const MEANS: Record<Exclude<Kind, 'block' | 'foreign'>, [is: string, so: string]> = {
  temporary: ['a store that is under way, or one whose sidecar ended before it was through', 'never read. After an hour without a change: kvlane inspect rm DIR --leftovers'],
  recycled: ['the file of a removed or replaced block, kept by one sidecar to be overwritten', 'it belongs to that sidecar alone. What one leaves that has ended is unlinked by the next sidecars, or by: kvlane inspect rm DIR --leftovers'],
  aside: ['a damaged block, moved out of the way by a load that found it', 'its key is free and will be stored again. Keep it while you look for the cause (disk, network, memory); then: kvlane inspect rm DIR --leftovers'],
  record: ['what a namespace holds (its fingerprint), or, with an @, that a generation of it is taken', 'leave it: without it a generation might be given out twice'],
  lease: ['which sidecar may remove blocks for room: the highest number counts', 'leave it: while it is gone, two may remove at once, and a number might be given out twice'],
  sign: ['empty: its time says when a store found no room, or when such stores are to try again', 'leave it: without it a store that finds no room can ask nobody for some'],
  probe: ['what a sidecar reads, or writes and removes again, to find out whether the mount answers', 'leave it: it is small, and is made again'],
  draft: ['a record or a lease in the making, or given up by a sidecar that ended', 'never read, and small: leave it'],
  directory: ['a directory of the store', 'kvlane inspect ls and df say what is in it'],
};

function meaning(one: Found, block: VerifiedBlock | null): Meaning {
  if (block !== null) return BLOCK[block.finding];
  if (isInTheWay(one)) return { is: `no block: a ${standingThere(one)} in the place of one`, so: 'loads of this key are CORRUPT and do not follow it; a store replaces what can be replaced. kvlane did not make it and does not remove it', exitCode: EXIT_FOUND };
  if (one.kind === 'foreign') return { is: 'not made by kvlane', so: 'never read, never removed by kvlane; look at who put it there', exitCode: EXIT_FOUND };
  const [is, so] = MEANS[one.kind as keyof typeof MEANS];
  return { is, so, exitCode: EXIT_OK };
}

const BLOCK: Record<VerifiedBlock['finding'], Meaning> = {
  sound: { is: 'a block', so: 'sound: header, key, length and checksum fit; a load of its length is a hit', exitCode: EXIT_OK },
  corrupt: { is: 'a damaged block', so: 'a load is a miss (CORRUPT), and moves it aside if it contradicts itself; the next store of the key mends it. To have it gone now: kvlane inspect rm DIR KEY', exitCode: EXIT_FOUND },
  newer_format: { is: 'a block of a newer format than this kvlane knows', so: 'a load is a miss, and leaves it alone; whoever stored it can read it', exitCode: EXIT_OK },
  not_found: { is: 'a block that went while it was looked at', so: 'a load is a miss', exitCode: EXIT_FOUND },
  unknown: { is: 'a block that could not be read to its end', so: 'a load is a miss while that lasts; is the mount in order?', exitCode: EXIT_UNSEEN },
};

function seen({ entry, key }: Found, nowMs: number): string[][] {
  return [
    ...(key === undefined ? [] : [['key', key]]),
    ['size', `${size(entry.bytes)}, ${size(entry.allocated_bytes)} on the disk${entry.bytes > entry.allocated_bytes + 4_096 ? ' (the rest are holes)' : ''}`],
    ['written', when(entry.modified_ms, nowMs)],
    ['changed', when(entry.changed_ms, nowMs)],
    ['inode', entry.inode],
  ];
}

function read(block: VerifiedBlock, nowMs: number): string[][] {
  const why = [block.code ?? '', block.errno ?? '', block.message ?? ''].filter((word) => word !== '').join(': ');
  return [
    ...(block.stored_bytes === undefined ? [] : [['payload', size(block.stored_bytes)]]),
    ...(block.created_ms === undefined ? [] : [['stored', when(block.created_ms, nowMs)]]),
    ...(block.writer === undefined ? [] : [['writer', shown(block.writer)]]),
    ...(why === '' ? [] : [['found', shown(why)]]),
  ];
}

function when(ms: number, nowMs: number): string {
  const agoMs = nowMs - ms;
  return `${dated(ms)} (${agoMs < 0 ? `${duration(-agoMs)} in the future by this machine's clock` : `${duration(agoMs)} ago`})`;
}
