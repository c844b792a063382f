// ls.ts — names out of a store, one a line: namespaces, the blocks of one, or what was left behind.
import { EXIT_FOUND } from '../spec.ts';
import { count, size } from '../text/units.ts';
import type { Asked } from './asked.ts';
import { LEFTOVER, type Found } from './kinds.ts';
import type { Out } from './out.ts';
import { json, shown } from './shown.ts';
import { Sorted } from './sorted.ts';
import type { Store } from './store.ts';
import { OpenNames } from './open_names.ts';
import { inNamespace, leftovers, namespaces } from './walk.ts';

/** A row of --long; the name comes last, since it may be long. */
const SIZE_WIDE = 10;

export async function ls(store: Store, asked: Asked & { action: 'ls' }, out: Out, sortedMax?: number): Promise<number> {
  const { namespace, long, sort } = asked;
  const names = new OpenNames(store, (text) => out.note(text));
  const source = asked.leftovers ? leftovers(names, ({ kind }) => LEFTOVER.has(kind)) : namespace === null ? namespaces(names) : inNamespace(names, namespace, asked.prefix);
  const wanted = (one: Found): boolean => long || asked.json || asked.leftovers || one.kind === (namespace === null ? 'directory' : 'block');
  const sorted = sort === null ? null : new Sorted(sort, sortedMax);
  let others = 0;
  let any = false;
  for await (const one of source) {
    any = true;
    if (!wanted(one)) others += 1;
    else if (sorted !== null) sorted.add(one);
    else await out.line(row(one, asked));
  }
  for (const one of sorted?.rows() ?? []) await out.line(row(one, asked));
  await out.flush();
  if (sorted !== null && sorted.leftOut > 0) out.note(`${count(sorted.leftOut, 'name')} left out: sorting keeps the first ${sorted.kept} in the order that was asked for; without --sort all are listed`);
  if (others > 0) out.note(`${count(others, 'name')} beside ${others === 1 ? 'it is' : 'them are'} no ${namespace === null ? 'namespace' : 'block'}; --long shows ${others === 1 ? 'it' : 'them'}`);
  if (any || namespace === null || names.shut > 0) return names.exitCode;
  out.note(`there is no block of ${namespace}${asked.prefix === '' ? '' : `/${asked.prefix}…`} in ${shown(store.directory)}`);
  return EXIT_FOUND;
}

function row(one: Found, { json: asJson, long, namespace }: Asked & { action: 'ls' }): string {
  const { kind, entry, path, key } = one;
  const name = namespace !== null && kind === 'block' ? key! : namespace === null && kind === 'directory' ? entry.name : shown(path);
  if (asJson) return json({ kind, ...(key === undefined ? {} : { key }), path, type: entry.type, bytes: entry.bytes, allocated_bytes: entry.allocated_bytes, modified_ms: entry.modified_ms, changed_ms: entry.changed_ms, inode: entry.inode });
  if (!long) return name;
  return `${size(entry.bytes).padStart(SIZE_WIDE)}  ${dated(entry.modified_ms)}  ${(kind === 'directory' ? 'namespace' : kind).padEnd(9)}  ${name}`;
}

/** In UTC, as every host that shares the store sees it. */
export function dated(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) || date.getUTCFullYear() > 9999 || date.getUTCFullYear() < 0 ? '?'.padEnd(20) : date.toISOString().replace(/\.\d+Z$/, 'Z');
}
