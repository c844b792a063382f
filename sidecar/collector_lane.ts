// collector_lane.ts — the one thread that a mount's collector has, and its calls as operations with a deadline.
//
// A pool of its own with one lane that nobody replaces: a file system that hangs costs this thread, and no load, store or
// look-up waits behind a listing. A call that is given up in the kernel keeps the lane until it comes back, and nothing else is
// asked meanwhile. Removals go through the gates of their keys like any other, so they never race a store of ours.
import type { Native, NativeStatus } from '../native/index.ts';
import type { BlockIndex } from './block_index.ts';
import type { LeaseStep } from './collector_lease.ts';
import type { Damage } from './damage.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import { errnoName } from './errno.ts';
import type { Lanes } from './lanes.ts';
import type { Leftover } from './leftovers.ts';
import type { Mount } from './mount.ts';
import type { Candidate } from './oldest.ts';
import { gateKeyOf, Operation, type Asked, type Done, type Owner } from './operation.ts';
import type { SignAsk } from './signs.ts';
import { SCAN_ENTRIES_MAX } from './store_scan.ts';

/** Which keys are being loaded is looked up so often: at each removal it would be a walk through all operations. */
export const LOADING_AGE_US = 100_000;

export type Ask =
  | { kind: 'lease'; step: LeaseStep | { action: 'leave'; number: number; text: string } }
  | SignAsk
  | { kind: 'list'; path: string; cookie: string }
  /** recycles: its file may be kept for stores to come; else its room is wanted now. */
  | { kind: 'remove'; block: Candidate; recycles: boolean; fence: string }
  | { kind: 'remove_file'; leftover: Leftover; fence: string };

export interface AskAnswer {
  /** stuck: given up at its deadline, inside the kernel. */
  status: NativeStatus | 'stuck';
  text: string;
  kept: boolean;
  /** The errno's name; empty: none. */
  error: string;
  /** In words, for whatever is not ok. */
  why: string;
}

/** The collector's way to its store. */
export interface CollectorLane {
  /** Why it may not be asked now (a suspension, a call that is stuck); empty: it may. */
  obstacle(): string;
  /** Ends in one answered(), never from inside. */
  ask(ask: Ask, deadlineUs: number, nowUs: number): void;
  /** This sidecar is loading or storing it just now. */
  isBusy(namespace: string, hex: string, nowUs: number): boolean;
}

export interface LaneDeps {
  native: Native;
  lanes: Lanes;
  deadlines: Deadlines;
  index: BlockIndex;
  damage: Damage;
  nowUs(): number;
}

export class OwnLane implements CollectorLane, Owner, Alarm {
  atUs = 0;
  heapIndex = -1;
  readonly device: string;
  readonly storeId: string;
  #mount: Mount;
  #deps: LaneDeps;
  #pool: number;
  #operation: Operation | null = null;
  #stuck: Operation | null = null;
  #loading = new Set<string>();
  #loadingUs = -Infinity;
  #answered: (answer: AskAnswer, nowUs: number) => void = () => {};

  constructor(mount: Mount, deps: LaneDeps) {
    this.#mount = mount;
    this.#deps = deps;
    this.device = mount.device!.label;
    this.storeId = mount.storeId!;
    this.#pool = deps.native.createPool({ laneClass: 'metadata', lanes: 1, engine: 'threads', forProbes: false });
    deps.native.setStuckLimit(this.#pool, 0);
  }

  /** Who hears the answers. */
  to(answered: (answer: AskAnswer, nowUs: number) => void): void {
    this.#answered = answered;
  }

  obstacle(): string {
    const { standing, reason, device } = this.#mount;
    if (this.#stuck !== null) return `a ${this.#stuck.kind} of the collector has been in ${this.#stuck.phase} in the kernel for ${Math.round((this.#deps.nowUs() - this.#stuck.sinceUs) / 1000)} ms`;
    if (standing !== 'right') return reason === '' ? 'the mount has not answered' : reason;
    const { breaker } = device!.groups.metadata;
    return breaker.isOpen() ? `suspended: ${breaker.reason}` : '';
  }

  isBusy(namespace: string, hex: string, nowUs: number): boolean {
    const key = gateKeyOf(this.#mount, namespace, hex);
    const { lanes } = this.#deps;
    if (lanes.gate.holder(key) !== null) return true;
    if (nowUs - this.#loadingUs >= LOADING_AGE_US) {
      this.#loadingUs = nowUs;
      this.#loading = lanes.keysOfLoads();
    }
    return this.#loading.has(key);
  }

  ask(ask: Ask, deadlineUs: number, nowUs: number): void {
    const { lanes, deadlines, index } = this.#deps;
    const operation = new Operation(ask.kind === 'sign' ? 'lease' : ask.kind, this.#mount, null, this.#pool, this, 0, deadlineUs);
    operation.asked = askedOf(ask);
    if (ask.kind === 'remove') {
      operation.namespace = ask.block.namespace;
      operation.hex = ask.block.hex;
      operation.gateKey = gateKeyOf(this.#mount, operation.namespace, operation.hex);
      index.removing(this.#mount, operation.namespace, operation.hex);
    }
    this.#operation = operation;
    deadlines.set(this, deadlineUs);
    lanes.submit(operation, nowUs);
  }

  /** The store is another one now, or lies elsewhere: what is in the kernel comes back to nobody. */
  close(nowUs: number): void {
    this.#answered = () => {};
    this.#deps.deadlines.clear(this);
    const operation = this.#operation;
    this.#operation = null;
    if (operation !== null) this.#deps.lanes.settle(operation, nowUs);
    this.#deps.native.closePool(this.#pool);
  }

  ring(nowUs: number): void {
    const operation = this.#operation!;
    this.#operation = null;
    const settled = this.#deps.lanes.settle(operation, nowUs);
    if (settled.quarantined) this.#stuck = operation;
    const status = settled.quarantined ? 'stuck' : 'expired';
    this.#answered({ status, text: '', kept: false, error: '', why: settled.quarantined ? `it was in ${settled.phase} in the kernel for ${Math.round((nowUs - settled.sinceUs) / 1000)} ms` : 'its time was over before it began' }, nowUs);
  }

  completed(operation: Operation, done: Done, nowUs: number): void {
    this.#operation = null;
    this.#deps.deadlines.clear(this);
    this.#removed(operation, done);
    const error = done.errno === 0 ? '' : errnoName(done.errno);
    const why = done.status === 'ok' ? '' : [error === '' ? done.status : error, done.text].filter((word) => word !== '').join(': ');
    this.#answered({ status: done.status, text: done.text, kept: done.kept, error, why }, nowUs);
  }

  returned(operation: Operation, done: Done): void {
    this.#removed(operation, done);
    if (this.#stuck === operation) this.#stuck = null;
  }

  /** Not of any class, so none that is suspended takes it out. */
  dropped(): void {}

  #removed(operation: Operation, done: Done): void {
    if (operation.kind !== 'remove') return;
    this.#deps.index.removing(this.#mount, operation.namespace, operation.hex);
    if (done.status === 'ok' && !done.kept) this.#deps.damage.replaced(operation.gateKey);
  }

}

function askedOf(ask: Ask): Asked {
  switch (ask.kind) {
    case 'lease':
      return ask.step.action === 'look' ? { action: 'look', number: 0, text: '' } : ask.step;
    case 'sign':
      return { action: ask.action, number: 0, text: ask.sign };
    case 'list':
      return { path: ask.path, cookie: ask.cookie, entriesMax: SCAN_ENTRIES_MAX };
    case 'remove':
      return { inode: ask.block.inode, modifiedNs: ask.block.modifiedNs, recycles: ask.recycles, fence: ask.fence };
    case 'remove_file':
      return { ...ask.leftover, fence: ask.fence };
  }
}
