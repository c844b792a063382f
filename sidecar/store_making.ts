// store_making.ts — when a missing store may be made: not on a disk that came to light because its mount went away.
//
// `--create` is about what lies behind the root now, and the first question carries it out. Where that one is not answered,
// because the mount hangs, a later one may find something else: the empty directory underneath, after a lazy unmount. So later
// ones only look, and what they found missing is made if the kernel's list of mounts is still the one of the start. The whole
// list: which of its entries a path leads to cannot be told from outside where a link is in it.
import type { MountTable } from './mount_table.ts';
import type { Log } from './service_types.ts';

export class StoreMaking {
  #table: MountTable;
  #log: Log;
  #root: string;
  #wanted = false;
  #next = false;
  /** The list of mounts when it was asked for. */
  #then: string | null = null;

  constructor(table: MountTable, log: Log, root: string) {
    this.#table = table;
    this.#log = log;
    this.#root = root;
  }

  /** By --create at the start, or by a person who said yes. */
  want(): void {
    this.#wanted = this.#next = true;
    this.#then = null;
    this.#table.read((text) => (this.#then = text));
  }

  /** Whether the next question may make one. */
  take(): boolean {
    const may = this.#next;
    this.#next = false;
    return may;
  }

  /** A question that only looked found none. True: the next one may make it, or finds out that none may be made. */
  missing(): boolean {
    if (!this.#wanted || this.#then === null) return false;
    this.#table.read((now) => {
      if (now === null) {
        this.#then = null; // no comparison: never again
        return;
      }
      if (now === this.#then) {
        this.#next = this.#wanted;
        return;
      }
      if (this.#wanted) this.#log.warn('no store is made', { root: this.#root, reason: 'mounts have changed since --create was said; it may be a disk under a mount that went away' });
      this.#wanted = false;
    });
    return true;
  }
}
