// block_index.ts — blocks that were there a moment ago, so that asking for them again takes no lane.
//
// It may be wrong about a block that another process removed since: such a hit costs its load a NOT_FOUND, and --index-ms
// bounds the age of what it says. It never says "absent". What this process removes is forgotten first, and what was under way
// meanwhile is not believed. It keeps fingerprints, not names: memory is three tables of a fixed size, whatever is stored.
import type { Mount } from './mount.ts';

/** In both tables together, at 16 bytes each, and a table more that waits for its turn: 6 MiB, for about a terabyte of blocks of 4 MiB. */
export const INDEX_BLOCKS_MAX = 262_144;
const TABLE_BLOCKS = INDEX_BLOCKS_MAX / 2;
/** Half full at most: a look takes two steps on average. */
const TABLE_PLACES = 2 * TABLE_BLOCKS;

// The second word of a place that was never used, and of one whose block was forgotten; fingerprints have neither.
const EMPTY = 0;
const FORGOTTEN = 1;
const SEED = 0x811c9dc5;
const PRIME = 0x01000193;
const OTHER_SEED = 0x9e3779b9;
const OTHER_PRIME = 0x85ebca6b;

export class BlockIndex {
  /** Removals that began or ended. What was asked before one of them proves nothing after it. */
  removals = 0;
  /** Look-ups of a block that needed no lane. */
  hits = 0;
  /** Half of the age that is allowed: the other half is for the answer of the lane to come. */
  #halfUs: number;
  #young: Table | null = null;
  #youngUs = 0;
  #old: Table | null = null;
  /** When the first block of the old table has been there for half the age. */
  #oldUntilUs = 0;
  /** Memory of the one that went. */
  #spare: Table | null = null;
  // The fingerprint of the block that is looked at, and of the namespace that it has in common with the one before.
  #first = 0;
  #second = 0;
  #storeId: string | null = null;
  #namespace = '';
  #prefixFirst = 0;
  #prefixSecond = 0;

  /** How old what it says may be; 0: off. */
  constructor(ageUs: number) {
    this.#halfUs = ageUs / 2;
  }

  /** A hit of a mount whose loads are refused would be no hit. */
  believes(mount: Mount): boolean {
    return this.#halfUs > 0 && mount.storeId !== null && mount.device !== null && !mount.device.groups.load.breaker.isOpen();
  }

  has(mount: Mount, namespace: string, hex: string, nowUs: number): boolean {
    if (this.#young === null) return false;
    this.#age(nowUs);
    this.#look(mount, namespace, hex);
    const there = this.#young.has(this.#first, this.#second) || (this.#old !== null && this.#old.has(this.#first, this.#second));
    if (there) this.hits += 1;
    return there;
  }

  /** It was there: stored, loaded or seen, at some time since `askedUs`, when there had been `removals`. */
  note(mount: Mount, namespace: string, hex: string, removals: number, askedUs: number, nowUs: number): void {
    if (this.#halfUs === 0 || removals !== this.removals || nowUs - askedUs > this.#halfUs) return;
    if (this.#young === null) {
      this.#young = new Table();
      this.#youngUs = nowUs;
    } else this.#age(nowUs);
    this.#look(mount, namespace, hex);
    this.#young.add(this.#first, this.#second);
  }

  /** It is not there, or may soon not be. */
  forget(mount: Mount, namespace: string, hex: string): void {
    if (this.#young === null) return;
    this.#look(mount, namespace, hex);
    this.#young.drop(this.#first, this.#second);
    this.#old?.drop(this.#first, this.#second);
  }

  /** A removal begins or ended: call it at both. */
  removing(mount: Mount, namespace: string, hex: string): void {
    this.removals += 1;
    this.forget(mount, namespace, hex);
  }

  /** A mount turned out to be another store: what was under way may speak of the former. */
  somethingElse(): void {
    this.removals += 1;
  }

  picture(): { ms: number; blocks: number; hits: number } {
    return { ms: (2 * this.#halfUs) / 1000, blocks: (this.#young?.blocks ?? 0) + (this.#old?.blocks ?? 0), hits: this.hits };
  }

  // A table is filled for a quarter of the age and looked at for a half: nothing is kept of a block beside its place, and the oldest go together.
  #age(nowUs: number): void {
    if (this.#old !== null && nowUs >= this.#oldUntilUs) this.#letOldGo();
    if (nowUs - this.#youngUs < this.#halfUs / 2 && this.#young!.used < TABLE_BLOCKS) return;
    if (this.#old !== null) this.#letOldGo();
    this.#old = this.#young;
    this.#oldUntilUs = this.#youngUs + this.#halfUs;
    if (nowUs >= this.#oldUntilUs) this.#letOldGo();
    this.#young = this.#spare ?? new Table();
    this.#spare = null;
    this.#young.clear();
    this.#youngUs = nowUs;
  }

  #letOldGo(): void {
    this.#spare = this.#old;
    this.#old = null;
  }

  #look(mount: Mount, namespace: string, hex: string): void {
    if (mount.storeId !== this.#storeId || namespace !== this.#namespace) {
      this.#storeId = mount.storeId;
      this.#namespace = namespace;
      this.#first = SEED;
      this.#second = OTHER_SEED;
      this.#mix(`${mount.storeId}/${namespace}/`);
      this.#prefixFirst = this.#first;
      this.#prefixSecond = this.#second;
    }
    this.#first = this.#prefixFirst;
    this.#second = this.#prefixSecond;
    this.#mix(hex);
    this.#second = (this.#second | (FORGOTTEN + 1)) >>> 0;
  }

  // Two sums of 32 bits over the letters, neither of which follows from the other. A block of the same fingerprint is a false hit.
  #mix(text: string): void {
    let first = this.#first;
    let second = this.#second;
    for (let at = 0; at < text.length; at += 1) {
      const letter = text.charCodeAt(at);
      first = Math.imul(first ^ letter, PRIME);
      second = Math.imul(second, OTHER_PRIME) + letter;
      second ^= second >>> 15;
    }
    this.#first = (first ^ (first >>> 16)) >>> 0;
    this.#second = second >>> 0;
  }
}

/** Fingerprints in open addressing. A block that was forgotten leaves its place taken until the table goes. */
class Table {
  #words = new Uint32Array(2 * TABLE_PLACES);
  /** Places taken. */
  used = 0;
  blocks = 0;

  clear(): void {
    if (this.used > 0) this.#words.fill(EMPTY);
    this.used = this.blocks = 0;
  }

  has(first: number, second: number): boolean {
    return this.#words[2 * this.#place(first, second) + 1] !== EMPTY;
  }

  add(first: number, second: number): void {
    const place = 2 * this.#place(first, second);
    if (this.#words[place + 1] !== EMPTY) return;
    this.#words[place] = first;
    this.#words[place + 1] = second;
    this.used += 1;
    this.blocks += 1;
  }

  drop(first: number, second: number): void {
    const place = 2 * this.#place(first, second);
    if (this.#words[place + 1] === EMPTY) return;
    this.#words[place + 1] = FORGOTTEN;
    this.blocks -= 1;
  }

  /** Where it is, or the empty place where it would go. */
  #place(first: number, second: number): number {
    const words = this.#words;
    let place = (first ^ Math.imul(second, OTHER_PRIME)) & (TABLE_PLACES - 1);
    while (words[2 * place + 1] !== EMPTY && (words[2 * place] !== first || words[2 * place + 1] !== second)) place = (place + 1) & (TABLE_PLACES - 1);
    return place;
  }
}
