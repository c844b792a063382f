// df.ts — what a store takes, by namespace, and what of it nobody will read again.
import { columns } from '../text/table.ts';
import { count, size } from '../text/units.ts';
import type { Asked } from './asked.ts';
import type { Found, Kind } from './kinds.ts';
import type { Out } from './out.ts';
import { json, shown } from './shown.ts';
import { Unanswered, type Store } from './store.ts';
import { OpenNames } from './open_names.ts';
import { besides, inNamespace, namespaces, ofTheStore } from './walk.ts';

/** Rows of their own; the others are added up in one. */
export const NAMESPACES_MAX = 10_000;

interface Sum {
  files: number;
  bytes: number;
  allocated_bytes: number;
}
const none = (): Sum => ({ files: 0, bytes: 0, allocated_bytes: 0 });
const LEFT: [Kind, string][] = [['temporary', 'temporaries of stores that ended, or are under way'], ['recycled', 'waiting to be overwritten'], ['aside', 'damaged, set aside'], ['record', 'records of namespaces and generations'], ['lease', 'leases of who removes blocks for room'], ['sign', 'signs that a store wants room, and that it is to try again'], ['draft', 'records and leases in the making, or given up'], ['probe', 'what probes read and write'], ['foreign', 'not made by kvlane']];

export async function df(store: Store, asked: Asked & { action: 'df' }, out: Out, namespacesMax = NAMESPACES_MAX): Promise<number> {
  const blocks = new Map<string, Sum>();
  const others = none();
  let more = 0;
  const kinds = new Map<Kind, Sum>(LEFT.map(([kind]) => [kind, none()]));
  const total = none();
  const take = (one: Found, of: Sum): void => {
    add(one, total);
    add(one, one.kind === 'block' ? of : kinds.get(one.kind)!);
  };
  const names = new OpenNames(store, (text) => out.note(text));
  const look = async (): Promise<void> => {
    for await (const namespace of namespaces(names)) {
      if (namespace.kind !== 'directory') {
        take(namespace, others);
        continue;
      }
      let sum = none();
      if (blocks.size < namespacesMax) blocks.set(namespace.entry.name, sum);
      else {
        sum = others;
        more += 1;
      }
      for await (const one of inNamespace(names, namespace.entry.name)) take(one, sum);
    }
    for await (const one of besides(names)) take(one, others);
    for await (const one of ofTheStore(names)) take(one, others);
  };
  let broken: Unanswered | null = null;
  await look().catch((error: unknown) => {
    if (!(error instanceof Unanswered)) throw error;
    broken = error; // what is known is told first
  });
  const complete = broken === null && names.shut === 0;
  if (asked.json) {
    await out.line(json({ store_id: store.mount.store_id, fs_type: store.mount.fs_type, complete, shut: names.shut, namespaces: Object.fromEntries(blocks), ...(more > 0 ? { other_namespaces: { namespaces: more, ...others } } : {}), ...Object.fromEntries(kinds), total }));
  } else {
    const rows = [...blocks].sort(([, a], [, b]) => b.allocated_bytes - a.allocated_bytes).map(([name, sum]) => cells(sum, name));
    if (more > 0) rows.push(cells(others, `${more} more namespaces`));
    for (const [kind, says] of LEFT) if (kinds.get(kind)!.files > 0) rows.push(cells(kinds.get(kind)!, says));
    rows.push(cells(total, `${complete ? 'in all' : `as far as was looked${names.shut === 0 ? '' : `, without ${count(names.shut, 'directory', 'directories')}`}`}, on ${store.mount.fs_type ?? 'an unknown file system'} at ${shown(store.directory)}`));
    for (const line of columns([['FILES', 'BYTES', 'ON DISK', ''], ...rows], '')) await out.line(line);
  }
  await out.flush();
  if (broken === null) return names.exitCode;
  throw broken;
}

function add({ entry }: Found, sum: Sum): void {
  sum.files += 1;
  if (entry.type !== 'file') return;
  sum.bytes += entry.bytes;
  sum.allocated_bytes += entry.allocated_bytes;
}

function cells(sum: Sum, name: string): string[] {
  return [String(sum.files), size(sum.bytes), size(sum.allocated_bytes), name];
}
