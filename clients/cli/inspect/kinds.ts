// kinds.ts — what a name in a store is, by where it lies and what it is called: ARCHITECTURE.md, "On disk". Pure.
//
// A leftover is what kvlane made and nobody will use any more once it is old enough: a temporary, a file that waits to be overwritten, a
// damaged file that was set aside. Whatever has not exactly a name of kvlane's is foreign: told, never removed.
import type { ListEntry } from '../../../protocol/messages.ts';
import { ASIDE_FILE, BLOCK_FILE, DRAFT_OF_LEASE_FILE, DRAFT_OF_RECORD_FILE, LEASE_FILE, NAMESPACE_NAME, PROBE_DIRECTORY, PROBE_FILE, RECORD_FILE, SIGN_FILE, TEMPORARY_FILE, WRITER_NAME } from '../../../protocol/store_paths.ts';

/** A draft is a record or a lease that has not got its name yet: small, and never read. */
export type Kind = 'block' | 'temporary' | 'recycled' | 'aside' | 'record' | 'lease' | 'sign' | 'draft' | 'probe' | 'directory' | 'foreign';

export interface Found {
  /** Below the root. */
  path: string;
  kind: Kind;
  entry: ListEntry;
  /** Of a block, of what stands in the place of one, and of what was one: namespace/hex. */
  key?: string;
}

export const LEFTOVER: ReadonlySet<Kind> = new Set(['temporary', 'recycled', 'aside']);

export function found(directory: string, entry: ListEntry): Found {
  const at = { path: `${directory}/${entry.name}`, entry };
  const [top = '', second = '', third] = directory.split('/');
  const isFile = entry.type === 'file';
  const here = (pattern: RegExp, kind: Kind, type: ListEntry['type'] = 'file'): Found => ({ ...at, kind: entry.type === type && pattern.test(entry.name) ? kind : 'foreign' });
  switch (top) {
    case 'blocks': {
      if (second === '') return here(NAMESPACE_NAME, 'directory', 'directory');
      if (third === undefined) return here(/^[0-9a-f]{2}$/, 'directory', 'directory');
      const block = BLOCK_FILE.exec(entry.name)?.[1];
      if (block?.startsWith(third)) return { ...at, kind: isFile ? 'block' : 'foreign', key: `${second}/${block}` };
      const temporary = TEMPORARY_FILE.exec(entry.name)?.[1];
      if (temporary?.startsWith(third)) return { ...at, kind: isFile ? 'temporary' : 'foreign', key: `${second}/${temporary}` };
      return { ...at, kind: 'foreign' };
    }
    case 'recycle':
      return second === '' ? here(WRITER_NAME, 'directory', 'directory') : here(/^[0-9]{1,20}$/, 'recycled');
    case 'aside': {
      const [, namespace, hex] = ASIDE_FILE.exec(entry.name) ?? [];
      return namespace === undefined ? { ...at, kind: 'foreign' } : { ...at, kind: isFile ? 'aside' : 'foreign', key: `${namespace}/${hex}` };
    }
    case 'namespaces':
      return DRAFT_OF_RECORD_FILE.test(entry.name) ? here(DRAFT_OF_RECORD_FILE, 'draft') : here(RECORD_FILE, 'record');
    case 'collector':
      if (SIGN_FILE.test(entry.name)) return here(SIGN_FILE, 'sign');
      return DRAFT_OF_LEASE_FILE.test(entry.name) ? here(DRAFT_OF_LEASE_FILE, 'draft') : here(LEASE_FILE, 'lease');
    case 'probe':
      return second === '' && PROBE_DIRECTORY.test(entry.name) ? here(PROBE_DIRECTORY, 'directory', 'directory') : here(PROBE_FILE, 'probe');
    default:
      return { ...at, kind: 'foreign' };
  }
}

/** Something else than a file in the place of a block: a load of its key is CORRUPT. */
export function isInTheWay({ kind, key, path }: Found): boolean {
  return kind === 'foreign' && key !== undefined && path.endsWith('.kvb');
}

export function standingThere({ entry: { type } }: Found): string {
  return type === 'other' ? 'device, pipe or socket' : type;
}
