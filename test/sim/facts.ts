// facts.ts — whether what an answer says is true: held against the disk, and against what the lanes came back with.
//
// A code is a statement, too. NOT_FOUND without a lane that found nothing is a lie, and so is SATURATED while lanes are free.
import type { LaneClass, NativeStatus } from '../../native/index.ts';
import type { Code, FailedEntry } from '../../protocol/messages.ts';
import { STAGING_AREAS } from '../../sidecar/staging.ts';
import { CLASS_OF, type Asked } from './asked.ts';
import type { Store, Version } from './disk.ts';
import type { Seated } from './lanes.ts';
import type { SimNative } from './native.ts';
import { Broken, type Story } from './story.ts';

export interface FactsHost {
  nowUs(): number;
  /** How old a hit of a look-up may be. */
  indexUs: number;
  native: SimNative;
  stores: Map<string, Store>;
  story: Story;
  mounts: string[];
  /** Unanswered requests. */
  asked: Map<unknown, Asked>;
  leaving(): boolean;
  /** Said to be suspended, now or at some moment since then. */
  wasSuspended(mount: string, laneClass: LaneClass, sinceUs: number): boolean;
  /** All lanes of the class were stuck on one of the devices, now or at some moment since then. */
  wasWithoutLanes(laneClass: LaneClass, sinceUs: number): boolean;
  /** Nothing was ever slow, stuck or short that could delay such a request. */
  isWell(asked: Asked): boolean;
}

const OF_STATUS: Partial<Record<Code, readonly NativeStatus[]>> = {
  NOT_FOUND: ['not_found', 'newer_format'], CORRUPT: ['corrupt'], LENGTH_MISMATCH: ['length_mismatch'], IO_ERROR: ['io_error'], NO_SPACE: ['no_space'],
  WRONG_STORE: ['wrong_store'], DEADLINE_EXCEEDED: ['expired'], SATURATED: ['saturated'],
};
const ENDINGS = new Set<Code>(['DEADLINE_EXCEEDED', 'CANCELLED', 'SHUTTING_DOWN']);
const ENDED_KEPT = 200;
const AREAS_FOR_STORES = STAGING_AREAS / 2;
/** A request that nothing delays is done in this time, behind everything that a run ever puts before it. */
const AMPLE_US = 10_000_000;

export class Facts {
  /** What lanes came back with, by key. */
  #ended = new Map<string, Seated[]>();
  /** When a block was last said to be removed, by store and key. */
  #goneUs = new Map<string, number>();
  #host: FactsHost;

  constructor(host: FactsHost) {
    this.#host = host;
  }

  /** An operation ended, in time or late. */
  ended(one: Seated): void {
    const key = one.spec.kind === 'namespace' ? one.spec.namespace : one.key;
    let all = this.#ended.get(key);
    if (all === undefined) this.#ended.set(key, (all = []));
    all.push(one);
    if (all.length > 2 * ENDED_KEPT) all.splice(0, ENDED_KEPT);
  }

  /** The store that the request was for; two where it was learnt meanwhile which one the mount is. */
  #stores(asked: Asked): Store[] {
    return [...new Set([asked.storeId, this.#storeIdNow(asked)])].flatMap((id) => (id === null ? [] : (this.#host.stores.get(id) ?? [])));
  }

  #versions(asked: Asked, key: string, sinceUs = asked.receivedUs): Version[] {
    if (asked.storeId !== null && asked.storeId === this.#storeIdNow(asked)) return this.#host.stores.get(asked.storeId)!.since(key, sinceUs);
    return this.#stores(asked).flatMap((store) => store.since(key, sinceUs));
  }

  /** From when on a look-up may know a block to be there: never from before a removal that this sidecar had answered when it was asked. */
  #knownUs(asked: Asked, key: string): number {
    const goneUs = this.#goneUs.get(`${asked.storeId}:${key}`) ?? 0;
    return Math.max(asked.receivedUs - this.#host.indexUs, goneUs <= asked.receivedUs ? goneUs : 0);
  }

  #storeIdNow(asked: Asked): string | null {
    return this.#host.native.identities[this.#host.mounts.indexOf(asked.mount)] ?? null;
  }

  // ---- codes ----

  /** Of the whole request: nothing of it was started, or it has no blocks. */
  refused(asked: Asked, code: Code): void {
    this.#code(asked, code, asked.keys.length === 1 ? asked.keys[0]! : '', null);
    if (asked.busy && code === 'DEADLINE_EXCEEDED') return;
    if (code === 'SLOT_BUSY' && !asked.busy) throw new Broken('refused for nothing', `${asked.op} ${asked.id} was answered SLOT_BUSY, but every slot of it is the client's`);
  }

  #code(asked: Asked, code: Code, key: string, entry: FailedEntry | null): void {
    const host = this.#host;
    const nowUs = host.nowUs();
    asked.codes.add(code);
    host.story.saw('code', code);
    host.story.saw(code, asked.op);
    const laneClass = CLASS_OF[asked.op];
    const what = `${asked.op} ${asked.id}${key === '' ? '' : ` of ${key}`} was answered ${code}`;
    const nothing = (why: string): Broken => new Broken('refused for nothing', `${what}, ${why}`);
    if (laneClass === undefined) throw nothing('which reaches no mount');
    switch (code) {
      case 'DEADLINE_EXCEEDED':
        if (nowUs < asked.deadlineUs) throw new Broken('not early', `${what} ${asked.deadlineUs - nowUs} us before its deadline`);
        if (asked.deadlineUs - asked.receivedUs >= AMPLE_US && host.isWell(asked)) throw new Broken('hurts nobody else', `${what} after ${(nowUs - asked.receivedUs) / 1000} ms, though nothing was ever wrong with what it needs`);
        return;
      case 'KEY_BUSY':
        if (nowUs >= asked.deadlineUs && asked.op !== 'load') return;
        if (asked.op === 'load' && this.#stuckLoad(key, asked.receivedUs)) return;
        throw nothing(asked.op === 'load' ? 'but no lane that was given up has a load of it' : `${asked.deadlineUs - nowUs} us before its deadline, until which it waits`);
      case 'MOUNT_SUSPENDED':
        if (!host.wasSuspended(asked.mount, laneClass, asked.receivedUs)) throw new Broken('suspended', `${what}, but ${asked.mount} was not said to be suspended for ${laneClass} since it was asked`);
        return;
      case 'CANCELLED':
        if (!asked.cancelled) throw nothing('but no cancel names it');
        return;
      case 'SHUTTING_DOWN':
        if (!host.leaving()) throw nothing('but the sidecar is not leaving');
        return;
      case 'SLOT_BUSY':
        return; // a refusal of the whole
      case 'SATURATED':
        if (this.#noRoom(asked) || host.wasWithoutLanes(laneClass, asked.receivedUs) || this.#cameBack(asked, code, key, entry)) return;
        throw nothing('but there are lanes, staging and threads');
      default:
        // Suspended by its breaker before it was found to be another: no second event says so.
        if (entry === null && (code === 'WRONG_STORE' || code === 'IO_ERROR') && host.wasSuspended(asked.mount, laneClass, asked.receivedUs)) return;
        if (code === 'WRONG_STORE' && asked.storeId !== this.#storeIdNow(asked)) return; // learnt meanwhile: it was asked of another
        if (!this.#cameBack(asked, code, key, entry)) throw new Broken('facts', `${what}, but no lane came back with that since it was asked`);
    }
  }

  #cameBack(asked: Asked, code: Code, key: string, entry: FailedEntry | null): boolean {
    const statuses = OF_STATUS[code];
    if (statuses === undefined) return false;
    const keys = asked.op === 'lookup' ? [''] : asked.op === 'namespace' ? asked.keys : [key];
    const stored = code === 'LENGTH_MISMATCH' ? (entry as { stored_bytes?: number } | null)?.stored_bytes : undefined;
    const mount = this.#host.mounts.indexOf(asked.mount);
    for (const each of keys) {
      const all = this.#ended.get(each) ?? [];
      for (let i = all.length - 1; i >= 0 && all[i]!.endedUs >= asked.receivedUs; i -= 1) {
        const { spec, status, storedBytes } = all[i]!;
        if (spec.kind === asked.op && spec.mount === mount && statuses.includes(status) && (stored === undefined || stored === storedBytes)) return true;
      }
    }
    return false;
  }

  /** Now, or when it was asked. */
  #stuckLoad(key: string, sinceUs: number): boolean {
    if (this.#ended.get(key)?.some((one) => one.abandoned && one.spec.kind === 'load' && one.toldUs >= sinceUs) === true) return true;
    for (const one of this.#host.native.operations.values()) if (one.abandoned && one.spec.kind === 'load' && one.key === key) return true;
    return this.#host.native.isUndelivered((one) => one.abandoned && one.spec.kind === 'load' && one.key === key);
  }

  /** Inline blocks of all that is unanswered or stuck leave too little staging. */
  #noRoom(asked: Asked): boolean {
    const inline = (one: Asked): number => one.slots.filter((slot) => slot === null).length;
    const own = inline(asked);
    if (own === 0) return false;
    let all = own;
    let byStores = own;
    for (const one of this.#host.asked.values()) {
      all += inline(one);
      if (one.op === 'store') byStores += inline(one);
    }
    for (const one of this.#host.native.holdersOfStaging()) {
      all += 1;
      if (one.spec.kind === 'store') byStores += 1;
    }
    return all > STAGING_AREAS || (asked.op === 'store' && byStores > AREAS_FOR_STORES);
  }

  // ---- blocks ----

  /** Returns how many of a store were kept. Calls back for each block that is not done. */
  blocks(asked: Asked, answer: { done: number; kept?: number; failed?: FailedEntry[]; blocks?: { block: number; bytes: number; text?: string }[] }, given: (block: number, word: 'free' | 'quarantined') => void): number {
    const { story } = this.#host;
    const failed = new Array<FailedEntry | null>(asked.keys.length).fill(null);
    for (const entry of answer.failed ?? []) {
      story.saw('phase', entry.phase);
      if (entry.outcome === 'unknown') story.saw('outcome unknown');
      for (const [first, last] of entry.blocks ?? [[entry.block!, entry.block!]]) {
        for (let block = first!; block <= last!; block += 1) {
          if (block >= failed.length || failed[block] !== null) throw new Broken('one answer', `${asked.op} ${asked.id}: block ${block} is named twice, or there is none`);
          failed[block] = entry;
          this.#code(asked, entry.code, asked.keys[block]!, entry);
        }
      }
    }
    let done = 0;
    let kept = 0;
    for (let block = 0; block < failed.length; block += 1) {
      const entry = failed[block]!;
      if (entry !== null) {
        if (asked.op !== 'remove' && entry.slot === undefined) throw new Broken('slots', `${asked.op} ${asked.id}: block ${block} failed and nothing is said about its slot`);
        if (entry.outcome === 'unknown' && !ENDINGS.has(entry.code)) throw new Broken('outcome', `${asked.op} ${asked.id}: the outcome of block ${block} is unknown with ${entry.code}`);
        given(block, entry.slot ?? 'free');
        continue;
      }
      done += 1;
      const key = asked.keys[block]!;
      const versions = this.#versions(asked, key);
      if (asked.op === 'load') this.#loaded(asked, block, versions, answer.blocks);
      else if (asked.op === 'store') kept += this.#stored(asked, block, versions) ? 0 : 1;
      else if (!versions.some((version) => version.state === 'absent')) throw new Broken('facts', `remove ${asked.id} says that ${key} is gone, but it was there all the time`);
      if (asked.op === 'remove') this.#goneUs.set(`${asked.storeId}:${key}`, this.#host.nowUs());
      given(block, 'free');
    }
    if (asked.op === 'store' && answer.kept !== kept) throw new Broken('facts', `store ${asked.id} says that ${answer.kept} blocks were kept, ${kept} were`);
    if (kept > 0) story.saw('kept');
    return done;
  }

  /** Those whose outcome is said to be known did not get there, and never will. */
  notStored(asked: Asked, failed: readonly FailedEntry[] | null, never: Set<string>): void {
    const unknown = new Set<number>();
    const out = new Set<number>();
    for (const entry of failed ?? []) {
      for (const [first, last] of entry.blocks ?? [[entry.block!, entry.block!]]) for (let block = first!; block <= last!; block += 1) (entry.outcome === 'unknown' ? unknown : out).add(block);
    }
    asked.tags.forEach((tag, block) => {
      if (tag === '' || unknown.has(block) || (failed !== null && !out.has(block))) return; // '': from a slot that was not the client's to use
      const versions = this.#versions(asked, asked.keys[block]!);
      if (versions.some((version) => version.tag === tag)) throw new Broken('late store', `store ${asked.id} was answered ${[...asked.codes].join(', ')}, and its block ${asked.keys[block]} is there all the same`);
      never.add(tag);
    });
  }

  /** False: what was there was kept. */
  #stored(asked: Asked, block: number, versions: Version[]): boolean {
    const key = asked.keys[block]!;
    const at = versions.findIndex((version) => version.tag === asked.tags[block]);
    if (at < 0) {
      if (asked.replace) throw new Broken('facts', `store ${asked.id} was to replace ${key}, and says it did, but its bytes were never there`);
      if (!versions.some((version) => version.state !== 'absent')) throw new Broken('facts', `store ${asked.id} says that ${key} is stored, but nothing of the name was there`);
      return false;
    }
    const before = versions[at - 1];
    if (!asked.replace && before !== undefined && before.state !== 'absent' && !this.#stores(asked).some((store) => store.everBad.has(key))) throw new Broken('facts', `store ${asked.id} was to keep what is under ${key}, and replaced ${before.tag}`);
    return true;
  }

  #loaded(asked: Asked, block: number, versions: Version[], inline?: { block: number; bytes: number; text?: string }[]): void {
    const slot = asked.slots[block] ?? null;
    const key = asked.keys[block]!;
    if (slot !== null) {
      const got = this.#host.native.memory[slot]!;
      if (!versions.some((version) => version.state === 'whole' && version.tag === got && version.bytes === asked.bytes[block])) throw new Broken('wrong bytes', `load ${asked.id} of ${key} is ok, but slot ${slot} holds ${JSON.stringify(got)}; the name led to ${versions.map((version) => `${version.state} ${version.tag}`).join(', then ')}`);
      return;
    }
    const found = inline?.find((one) => one.block === block);
    if (found === undefined) throw new Broken('facts', `load ${asked.id} is ok, and the text of block ${block} is missing`);
    if (!versions.some((version) => version.state === 'whole' && version.bytes === found.bytes && version.tag.padEnd(version.bytes, '.').slice(0, version.bytes) === found.text)) throw new Broken('wrong bytes', `load ${asked.id} of ${key} answers with ${JSON.stringify(found).slice(0, 100)}, which the block never was`);
  }

  // ---- the others ----

  lookup(asked: Asked, answer: { present: (boolean | null)[]; prefix: number; complete: boolean }): void {
    let prefix = 0;
    let complete = true;
    answer.present.forEach((present, i) => {
      if (present === null) {
        complete = false;
        return;
      }
      if (present && prefix === i) prefix += 1;
      const key = asked.keys[i]!;
      const isSo = (version: Version): boolean => (version.state !== 'absent') === present;
      if (this.#versions(asked, key).some(isSo)) return;
      if (present && this.#versions(asked, key, this.#knownUs(asked, key)).some(isSo)) this.#host.story.saw('lookup of what was removed elsewhere');
      else throw new Broken('facts', `lookup ${asked.id} says ${present} of ${key}, which was not so at any moment of it${present ? ', nor when the index may have learnt it' : ''}`);
    });
    if (answer.present.length !== asked.keys.length || prefix !== answer.prefix || complete !== answer.complete) throw new Broken('facts', `lookup ${asked.id}: prefix ${answer.prefix} and complete ${answer.complete} do not follow from its list`);
    if (complete && this.#host.nowUs() === asked.receivedUs) this.#host.story.saw('lookup without a lane');
    if (complete) return;
    const late = this.#host.nowUs() >= asked.deadlineUs;
    if (late && asked.deadlineUs - asked.receivedUs >= AMPLE_US && this.#host.isWell(asked)) throw new Broken('hurts nobody else', `lookup ${asked.id} was answered in part after ${(asked.deadlineUs - asked.receivedUs) / 1000} ms, though nothing was ever wrong with what it needs`);
    this.#host.story.saw(late ? 'lookup in part at its deadline' : 'lookup in part for an error');
  }

  namespace(asked: Asked, answer: { state: string; generation: number; key_namespace: string; fingerprint: unknown }): void {
    const name = asked.keys[0]!;
    const { state, generation } = answer;
    this.#host.story.saw('namespace', state);
    const record = this.#stores(asked).map(({ records }) => records.get(name)?.[generation - 1]).find((one) => one !== undefined);
    const why =
      record === undefined ? 'was never written'
      : answer.key_namespace !== `${name}@${generation}` ? `is not what keys of ${answer.key_namespace} belong to`
      : record.fingerprint !== JSON.stringify(answer.fingerprint) ? `holds ${record.fingerprint}, not ${JSON.stringify(answer.fingerprint)}`
      : (state === 'differs') === (record.fingerprint === asked.fingerprint) ? `holds ${record.fingerprint}, and ${asked.fingerprint} was asked`
      : (state === 'created') !== (record.fromUs >= asked.receivedUs) && state === 'created' ? 'was there before'
      : asked.bump && state !== 'created' ? 'is not a new one, though it was to be bumped'
      : '';
    if (why !== '') throw new Broken('facts', `namespace ${asked.id} says ${state}, but generation ${generation} of ${name} ${why}`);
  }
}
