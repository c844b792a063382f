// store_scan.ts — the walk through all blocks of a store: one listing at a time, in bounded memory.
//
// It goes down as it finds directories: the listing of a directory is not asked for further before all that its last
// piece named has been walked, so that a store of any number of namespaces costs three short lists. What is not named exactly as
// kvlane names it, or lies in another directory than kvlane would look in, is somebody else's: neither counted nor removed.
import { listing } from '../native/listing.ts';
import type { Candidate, Oldest } from './oldest.ts';
import type { Leftovers } from './leftovers.ts';
import { BLOCK_FILE, NAMESPACE_NAME, TEMPORARY_FILE } from '../protocol/store_paths.ts';

/** Entries of one listing: a third of a millisecond of the loop to read, and 4,000 listings for a million blocks. */
export const SCAN_ENTRIES_MAX = 256;

const SHARD = /^[0-9a-f]{2}$/;

interface Level {
  path: string;
  /** null: listed to its end. */
  cookie: string | null;
  below: string[];
}

export class StoreScan {
  /** What blocks occupy. */
  usedBytes = 0;
  blocks = 0;
  #levels: Level[] = [{ path: 'blocks', cookie: '', below: [] }];
  #oldest: Oldest;
  #leftovers: Leftovers;

  constructor(oldest: Oldest, leftovers: Leftovers) {
    this.#oldest = oldest;
    this.#leftovers = leftovers;
  }

  /** What to list next; null: all was seen. */
  next(): { path: string; cookie: string } | null {
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      const name = level.below.pop();
      if (name !== undefined) this.#levels.push({ path: `${level.path}/${name}`, cookie: '', below: [] });
      else if (level.cookie !== null) return { path: level.path, cookie: level.cookie };
      else this.#levels.pop();
    }
    return null;
  }

  /** It was removed meanwhile, or there is nothing yet. */
  isGone(): void {
    this.#levels.at(-1)!.cookie = null;
  }

  /** The listing that next() named. `fsNowUs`: by the file system's clock; `nowUs` by ours. False: it cannot be read. */
  listed(text: string, fsNowUs: number, nowUs: number): boolean {
    const { cookie, entries } = listing(text);
    const level = this.#levels.at(-1)!;
    if (cookie !== null && (!/^[0-9]+$/.test(cookie) || cookie === level.cookie)) return false; // from where it is to where it is: without an end
    level.cookie = cookie;
    const depth = this.#levels.length;
    const shard = level.path.slice(-2);
    for (const { type, name, allocatedBytes, modifiedNs, changedNs, inode } of entries) {
      if (depth < 3) {
        if (type === 'd' && (depth === 1 ? NAMESPACE_NAME : SHARD).test(name)) level.below.push(copied(name));
      } else if (type === 'f' && name.startsWith(shard)) {
        if (BLOCK_FILE.test(name)) this.#block(name, allocatedBytes, modifiedNs, inode, fsNowUs);
        else if (TEMPORARY_FILE.test(name) && inode !== '0' && changedNs !== '0') this.#leftovers.saw({ path: copied(`${level.path}/${name}`), inode: copied(inode), changedNs: copied(changedNs) }, nowUs);
      }
    }
    return true;
  }

  #block(name: string, allocatedBytes: number, modifiedNs: string, inode: string, fsNowUs: number): void {
    this.usedBytes += allocatedBytes;
    this.blocks += 1;
    if (allocatedBytes === 0) return; // a stub of a tiered store: its removal frees nothing, and thousands would go for nothing
    if (inode === '0' || modifiedNs === '0') return; // to native 0 is no condition, and a file is removed only by what it is
    // One from the future counts as old as it is ahead: a few seconds of skew are recent, and nothing stays for ever.
    const rankUs = fsNowUs - Math.abs(fsNowUs - Number(modifiedNs) / 1000);
    if (!this.#oldest.wants(rankUs)) return;
    const namespace = this.#levels[1]!.path.slice('blocks/'.length);
    const candidate: Candidate = { namespace, hex: copied(name.slice(0, -'.kvb'.length)), modifiedNs: copied(modifiedNs), inode: copied(inode), allocatedBytes, rankUs };
    this.#oldest.offer(candidate);
  }
}

/** A part of a string keeps the whole alive, and each listing is one of 30 KiB. */
function copied(text: string): string {
  return Buffer.from(text, 'utf8').toString('utf8');
}
