// remounts.ts — while something is probed, looks whether another mount has come behind a root.
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Mount } from './mount.ts';
import { MOUNT_TABLE_LOOK_US, mountBehind, type MountTable } from './mount_table.ts';

export interface RemountsContext {
  table: MountTable;
  deadlines: Deadlines;
  mounts(): Mount[];
  /** Somebody asks this mount, or its device, again and again. */
  probed(mount: Mount): boolean;
  changed(mount: Mount, nowUs: number): void;
  /** Runs what a read brought as a turn of its own. */
  turn(work: (nowUs: number) => void): void;
}

export class Remounts implements Alarm {
  atUs = 0;
  heapIndex = -1;
  #context: RemountsContext;
  #behind = new Map<Mount, string>();

  constructor(context: RemountsContext) {
    this.#context = context;
  }

  endTurn(nowUs: number): void {
    const probed = this.#context.mounts().some((mount) => this.#context.probed(mount));
    if (probed && this.heapIndex < 0) {
      if (this.#behind.size === 0) this.#look(); // what it was when the trouble began
      this.#context.deadlines.set(this, nowUs + MOUNT_TABLE_LOOK_US);
    } else if (!probed && this.heapIndex >= 0) {
      this.#context.deadlines.clear(this);
      this.#behind.clear();
    }
  }

  ring(): void {
    this.#look(); // set again at the end of the turn, while it is needed
  }

  #look(): void {
    this.#context.table.read((text) => {
      if (text === null) return;
      this.#context.turn((nowUs) => {
        for (const mount of this.#context.mounts()) {
          const behind = mountBehind(text, mount.root);
          const before = this.#behind.get(mount);
          this.#behind.set(mount, behind);
          if (before !== undefined && before !== behind && this.#context.probed(mount)) this.#context.changed(mount, nowUs);
        }
      });
    });
  }
}
