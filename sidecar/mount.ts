// mount.ts — one named root directory, and whether it is the store it should be.
import type { LaneClass } from '../native/index.ts';
import type { Code, MountState } from '../protocol/messages.ts';
import type { Device } from './devices.ts';

/** unheard: it has not answered since the start. wrong: another store, none, or not readable. */
export type Standing = 'unheard' | 'right' | 'wrong';

export class Mount {
  readonly index: number;
  readonly name: string;
  readonly root: string;
  readonly nativeId: number;
  standing: Standing = 'unheard';
  /** Why it is not right, and what to do, as a sentence. */
  reason = '';
  code: Code = 'MOUNT_SUSPENDED';
  /** Of IO_ERROR; 0 otherwise. */
  errno = 0;
  storeId: string | null = null;
  /** When it was learnt; 0: not yet. */
  learntUs = 0;
  /** Something else was mounted while it was learnt: what is there now is right, whichever it is. */
  unsure = false;
  device: Device | null = null;
  fsType = '';
  direct = false;
  created = false;
  /** Lanes whose root was opened under a smaller one open it again and compare the store id. */
  rootGeneration = 1;
  /** Since the start, of requests that name it; told as they are. */
  readonly traffic = { blocks_loaded: 0, blocks_stored: 0, blocks_kept: 0, blocks_removed: 0, loaded_bytes: 0, stored_bytes: 0 };
  /** What was last said about each class, in `ready` or in an event. */
  readonly said: Record<LaneClass, MountState> = { load: 'unknown', store: 'unknown', metadata: 'unknown' };

  constructor(index: number, name: string, root: string, nativeId: number) {
    this.index = index;
    this.name = name;
    this.root = root;
    this.nativeId = nativeId;
  }

  state(laneClass: LaneClass): MountState {
    if (this.standing !== 'right' || this.device === null) return 'suspended';
    return this.device.groups[laneClass].state();
  }
}
