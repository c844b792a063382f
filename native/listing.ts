// listing.ts — what `list` tells of a directory, read.
//
// Numbers of 64 bits stay the digits they came as: inodes and nanoseconds are more than a JavaScript number holds.

/** Entries a call, at most; as list_entries_max in core/block_list.cc. */
export const LIST_ENTRIES_MAX = 4096;

export interface Entry {
  /** f d l: file, directory, link · o: other, or one that could not be looked at (all numbers but its inode are 0) · ?: of whatever type, with a name that is percent-escaped. */
  type: 'f' | 'd' | 'l' | 'o' | '?';
  name: string;
  allocatedBytes: number;
  bytes: number;
  modifiedNs: string;
  changedNs: string;
  inode: string;
}

export interface Listing {
  /** For the next call; null: that was all. */
  cookie: string | null;
  entries: Entry[];
}

const LINE = /^([fdlo?]) (\d+) (\d+) (\d+) (\d+) (\d+) (.+)$/s;

export function listing(text: string): Listing {
  const [next, ...lines] = text.split('\n');
  const entries: Entry[] = [];
  for (const line of lines) {
    const [, type, allocated, bytes, modifiedNs, changedNs, inode, name] = LINE.exec(line) ?? [];
    if (name !== undefined) entries.push({ type: type as Entry['type'], name, allocatedBytes: Number(allocated), bytes: Number(bytes), modifiedNs: modifiedNs!, changedNs: changedNs!, inode: inode! });
  }
  return { cookie: next === '-' ? null : next!, entries };
}
