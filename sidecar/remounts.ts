// remounts.ts — looks whether the list of mounts changed, while that could matter to anybody.
//
// Lanes work below roots that they opened once, so an unmount or a remount of a healthy mount shows in
// none of their calls. While there is work, and a little faster while something is probed, the list is
// compared with the last one; an idle sidecar does not look, and its first request makes it look at once.
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Mount } from './mount.ts';
import { LOOK_PROBING_US, LOOK_WORKING_US, mountBehind, mountLines, type MountTable } from './mount_table.ts';

export interface RemountsContext {
  table: MountTable;
  deadlines: Deadlines;
  mounts(): Mount[];
  /** Somebody asks this mount, or its device, again and again. */
  probed(mount: Mount): boolean;
  /** Tasks not answered, and all there ever were. */
  work(): { outstanding: number; added: number };
  /** The first list: the device it shows behind the root's path, '' if none. */
  listed(mount: Mount, device: string, nowUs: number): void;
  /** The list changed since `sinceUs`; `moved`: also the entry that the root's path seems to lie on. */
  changed(mount: Mount, moved: boolean, sinceUs: number, nowUs: number): void;
  /** Runs what a read brought as a turn of its own. */
  turn(work: (nowUs: number) => void): void;
}

export class Remounts implements Alarm {
  atUs = 0;
  heapIndex = -1;
  #context: RemountsContext;
  #behind = new Map<Mount, string>();
  #text: string | null = null;
  #reading = false;
  /** When the last read began. */
  #readUs = 0;
  /** A read has to begin then or later. */
  #wantedUs = 0;
  #lookedUs = -LOOK_WORKING_US;
  #addedThen = 0;
  /** Lists that were read to their end. */
  reads = 0;

  constructor(context: RemountsContext) {
    this.#context = context;
  }

  endTurn(nowUs: number): void {
    const { deadlines, mounts, probed, work } = this.#context;
    const { outstanding, added } = work();
    const probing = mounts().some((mount) => probed(mount));
    const lasting = probing || outstanding > 0;
    if (!lasting && added === this.#addedThen) {
      deadlines.clear(this);
      return;
    }
    const paceUs = probing ? LOOK_PROBING_US : LOOK_WORKING_US;
    let dueUs = this.#lookedUs + paceUs;
    if (nowUs >= dueUs) {
      this.#addedThen = added;
      this.#lookedUs = nowUs;
      this.#look(nowUs);
      if (!lasting) return;
      dueUs = nowUs + paceUs;
    }
    if (this.heapIndex < 0 || this.atUs !== dueUs) deadlines.set(this, dueUs);
  }

  ring(): void {
    // The end of this turn looks.
  }

  /** It was learnt which store a mount is. Was it replaced meanwhile? A later look could not tell. */
  lookNow(nowUs: number): void {
    this.#wantedUs = nowUs;
    this.#lookedUs = nowUs;
    this.#look(nowUs);
  }

  #look(beganUs: number): void {
    if (this.#reading) return;
    this.#reading = true;
    this.#context.table.read((text) => {
      this.#reading = false;
      const sinceUs = this.#readUs;
      const before = this.#text;
      this.#readUs = beganUs; // also when it failed: what it did not show is not known
      if (beganUs < this.#wantedUs) this.#look(this.#wantedUs);
      if (text !== null) this.reads += 1;
      if (text === null || text === before) return;
      this.#text = text;
      this.#context.turn((nowUs) => {
        const lines = mountLines(text);
        for (const mount of this.#context.mounts()) {
          const behind = mountBehind(lines, mount.root);
          const moved = this.#behind.get(mount) !== behind;
          this.#behind.set(mount, behind);
          if (before === null) this.#context.listed(mount, behind.split(' ')[1] ?? '', nowUs);
          else this.#context.changed(mount, moved, sinceUs, nowUs);
        }
      });
    });
  }
}
