// walk.ts — every name in a store, one after the other: nothing is collected, so a million blocks take no more memory than a page of names.
import type { Store } from './store.ts';
import { found, type Found } from './kinds.ts';

export type Lists = Pick<Store, 'list'>;

/** What lies in one directory. */
export async function* inside(store: Lists, directory: string): AsyncGenerator<Found> {
  for await (const entry of store.list(directory)) yield found(directory, entry);
}

/** The directories of a namespace that hold its blocks; with a prefix only those that may have such. In order. */
export async function fanOut(store: Lists, namespace: string, prefix = ''): Promise<{ directories: string[]; others: Found[] }> {
  if (prefix.length >= 2) return { directories: [`blocks/${namespace}/${prefix.slice(0, 2)}`], others: [] };
  const directories: string[] = [];
  const others: Found[] = []; // a directory of a namespace has 256 names; whoever puts in more is told of some
  for await (const one of inside(store, `blocks/${namespace}`)) {
    if (one.kind !== 'directory') {
      if (prefix === '' && others.length < OTHERS_MAX) others.push(one);
    } else if (one.entry.name.startsWith(prefix)) directories.push(one.path);
  }
  return { directories: directories.sort(), others };
}
const OTHERS_MAX = 1_000;

export async function* inNamespace(store: Lists, namespace: string, prefix = ''): AsyncGenerator<Found> {
  const { directories, others } = await fanOut(store, namespace, prefix);
  yield* others;
  for (const directory of directories) {
    for await (const one of inside(store, directory)) {
      // What is no block and no temporary of this prefix is told only where all of the namespace is.
      const hex = one.key?.slice(namespace.length + 1);
      if (hex === undefined ? prefix === '' : hex.startsWith(prefix)) yield one;
    }
  }
}

/** Every namespace that has a directory, and what else is beside them. */
export async function* namespaces(store: Lists): AsyncGenerator<Found> {
  yield* inside(store, 'blocks');
}

/** Files waiting to be overwritten, of every writer, and damaged ones that were set aside. */
export async function* besides(store: Lists): AsyncGenerator<Found> {
  yield* twoDeep(store, 'recycle');
  yield* inside(store, 'aside');
}

async function* twoDeep(store: Lists, directory: string): AsyncGenerator<Found> {
  for await (const one of inside(store, directory)) {
    if (one.kind === 'directory') yield* inside(store, one.path);
    else yield one;
  }
}

/** What is not of blocks, but small and of the store itself. */
export async function* ofTheStore(store: Lists): AsyncGenerator<Found> {
  yield* inside(store, 'namespaces');
  yield* inside(store, 'collector');
  yield* twoDeep(store, 'probe');
}

/** All that kvlane may have left behind: temporaries too, for which every directory of blocks is looked through. */
export async function* leftovers(store: Lists, of: (one: Found) => boolean): AsyncGenerator<Found> {
  for await (const one of besides(store)) if (of(one)) yield one;
  for await (const namespace of namespaces(store)) {
    if (namespace.kind !== 'directory') continue;
    for await (const one of inNamespace(store, namespace.entry.name)) if (of(one)) yield one;
  }
}
