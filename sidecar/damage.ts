// damage.ts — block files that do not hold what they should, and how their keys become usable again.
//
// A file whose own header and checksum contradict each other is moved aside, after the answer, through
// the gate of its key, and only if the name still holds the inode that was read. One that must not be
// touched (foreign, another key) is remembered: the next store of the key may replace it, though the
// client said `keep`; without that the key would be a miss for ever.
import type { BlockIndex } from './block_index.ts';
import type { Deadlines, Alarm } from './deadlines.ts';
import type { Lanes } from './lanes.ts';
import type { Mount } from './mount.ts';
import { Operation, gateKeyOf, type Done, type Owner } from './operation.ts';
import type { Log } from './service_types.ts';

/** Keys remembered as bad; the oldest is forgotten, and learnt again by its next load. */
export const BAD_KEYS_MAX = 4096;
/** On their way aside at once; beyond it a store replaces the file instead. */
const ASIDE_MAX = 64;
/** Nobody waits for it; after this its lane is given up like any other. */
const ASIDE_TIMEOUT_US = 5_000_000;

export class Damage implements Owner {
  #bad = new Set<string>();
  #aside = new Map<Operation, Alarm>();
  #lanes: Lanes;
  #deadlines: Deadlines;
  #index: BlockIndex;
  #log: Log;
  setAside = 0;

  constructor(lanes: Lanes, deadlines: Deadlines, index: BlockIndex, log: Log) {
    this.#lanes = lanes;
    this.#deadlines = deadlines;
    this.#index = index;
    this.#log = log;
  }

  /** A load found the block corrupt; `inode` is empty when the file must not be touched. */
  met(mount: Mount, namespace: string, hex: string, inode: string, nowUs: number): void {
    const key = gateKeyOf(mount, namespace, hex);
    const group = mount.device?.groups.metadata;
    this.#log.warn('damaged block', { mount: mount.name, key: `${namespace}/${hex}`, inode });
    if (inode === '' || inode === '0' || group === undefined || group.breaker.isOpen() || mount.standing !== 'right' || this.#aside.size >= ASIDE_MAX) {
      this.#remember(key);
      return;
    }
    const operation = new Operation('aside', mount, group, group.pool, this, 0, nowUs + ASIDE_TIMEOUT_US);
    operation.namespace = namespace;
    operation.hex = hex;
    operation.inode = inode;
    operation.gateKey = key;
    const alarm: Alarm = {
      atUs: 0,
      heapIndex: -1,
      ring: (ringUs) => {
        this.#lanes.settle(operation, ringUs);
        this.#failed(operation);
      },
    };
    this.#aside.set(operation, alarm);
    this.#deadlines.set(alarm, operation.deadlineUs);
    this.#index.removing(mount, namespace, hex);
    this.#lanes.submit(operation, nowUs);
  }

  isBad(key: string): boolean {
    return this.#bad.size > 0 && this.#bad.has(key); // mostly none: spares a hash a block
  }

  replaced(key: string): void {
    if (this.#bad.size > 0) this.#bad.delete(key);
  }

  badKeys(): number {
    return this.#bad.size;
  }

  completed(operation: Operation, done: Done): void {
    this.#isGone(operation);
    if (done.status !== 'ok' && done.status !== 'not_found') {
      this.#failed(operation);
      return;
    }
    this.#end(operation);
    if (done.status === 'ok') this.setAside += 1;
  }

  returned(operation: Operation): void {
    this.#isGone(operation);
  }

  dropped(operation: Operation): void {
    this.#failed(operation);
  }

  #isGone({ mount, namespace, hex }: Operation): void {
    this.#index.removing(mount, namespace, hex);
  }

  #failed(operation: Operation): void {
    this.#end(operation);
    this.#remember(operation.gateKey);
  }

  #end(operation: Operation): void {
    const alarm = this.#aside.get(operation);
    if (alarm !== undefined) this.#deadlines.clear(alarm);
    this.#aside.delete(operation);
  }

  #remember(key: string): void {
    this.#bad.delete(key);
    this.#bad.add(key);
    if (this.#bad.size > BAD_KEYS_MAX) this.#bad.delete(this.#bad.values().next().value!);
  }
}
