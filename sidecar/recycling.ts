// recycling.ts — how much of removed and replaced blocks is kept to be overwritten, and where.
//
// Lanes do it (native/core/recycling.h); this says on which mounts and within which limits, and has
// what dead sidecars left behind unlinked, also where nothing is recycled any more.
import type { Native, RecycleLimits } from '../native/index.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Lanes } from './lanes.ts';
import type { Mount } from './mount.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import type { Log, Recycle, ServiceOptions } from './service_types.ts';

/** A mount keeps no more files: what a disk takes of 64 KiB blocks while one rests, and a list that is searched in a microsecond. */
export const RECYCLE_FILES_MAX = 1_024;
/** Nor more bytes: a tenth of a second of stores to a fast disk, and nothing to a store that is worth having. */
export const RECYCLE_BYTES_MAX = 256 * 1024 * 1024;
/** A replaced file rests: longer than nearly every load takes from its open to its last byte. */
export const RECYCLE_REST_US = 50_000;
/** A file in another writer's directory that is older is unlinked. A writer that lives and was idle for so long loses what waits,
 * too, and makes new files; hardly a store takes longer. */
export const LEFT_US = 600_000_000;
/** Looked for at the start, and once more when what a sidecar left that ended just before is old enough. */
export const LOOK_AGAIN_US = LEFT_US + 60_000_000;
/** Nobody waits for it. */
const TIDY_TIMEOUT_US = 5_000_000;

/** They overwrite in place, exchange names in one step, and hang as a whole or not at all: a rename that is stuck there delays no other. */
const GAINS = new Set(['ext4', 'xfs', 'tmpfs']);
/**
 * Those and others that live in one kernel, where a write that has returned is over. Elsewhere it may not be: a network file
 * system's server may carry out a repeated old write when the file is another block already. That would be a checksum that does
 * not fit, so a miss, but a block lost for nothing; and a rename that hangs there holds up all others of the mount.
 */
const LOCAL = new Set([...GAINS, 'btrfs', 'f2fs', 'bcachefs', 'zfs', 'overlay']);

/** Why nothing is recycled on it; empty if it may be. */
export function whyNot(recycle: Recycle, fsType: string): string {
  if (recycle === 'off') return '--recycle off';
  if (!LOCAL.has(fsType)) return `${fsType} is not a file system of this machine alone, as far as kvlane knows: a write may arrive there after it was given up`;
  if (recycle === 'auto' && !GAINS.has(fsType)) return `nothing is known to be gained by it on ${fsType}; --recycle on does it all the same`;
  return '';
}

const NONE = { files: 0, bytes: 0, restUs: 0 };
const SOME = { files: RECYCLE_FILES_MAX, bytes: RECYCLE_BYTES_MAX, restUs: RECYCLE_REST_US };

export class Recycling implements Owner {
  #options: Pick<ServiceOptions, 'recycle' | 'tidy' | 'fileMode'>;
  #native: Native;
  #lanes: Lanes;
  #deadlines: Deadlines;
  #log: Log;
  #tidying = new Map<Operation, Alarm>();
  #later = new Map<Mount, Alarm>();
  #whyNot = new Map<Mount, string>();

  constructor(options: Pick<ServiceOptions, 'recycle' | 'tidy' | 'fileMode'>, native: Native, lanes: Lanes, deadlines: Deadlines, log: Log) {
    this.#options = options;
    this.#native = native;
    this.#lanes = lanes;
    this.#deadlines = deadlines;
    this.#log = log;
  }

  /** Its file system is known now; after a remount it may be another. */
  identified(mount: Mount, nowUs: number): void {
    const { recycle, tidy, fileMode } = this.#options;
    const reason = whyNot(recycle, mount.fsType);
    this.#whyNot.set(mount, reason);
    const limits: RecycleLimits = { ...(reason === '' ? SOME : NONE), fileMode };
    this.#native.setRecycling(mount.nativeId, limits);
    if (reason !== '' && recycle === 'on') this.#log.warn('--recycle on has no effect', { mount: mount.name, reason });
    if (!tidy || whyNot('on', mount.fsType) !== '') return;
    // Also where nothing is recycled now: another sidecar may have done so, or this one before it was told otherwise.
    this.#tidy(mount, nowUs);
    this.#tidyLater(mount, nowUs);
  }

  /** For `stats`. */
  picture(mount: Mount): object {
    const { on, ...figures } = this.#native.recycling(mount.nativeId);
    const reason = this.#whyNot.get(mount) ?? 'the mount has not answered yet';
    return { on, ...(on ? {} : { reason: reason || 'the file system refused what it takes (an exclusive rename, a move between directories, or writing to recycle/)' }), ...figures };
  }

  completed(operation: Operation, done: Done): void {
    this.#end(operation);
    if (done.status === 'ok' && done.text !== '' && done.text !== '0') this.#log.info('left files unlinked', { mount: operation.mount.name, files: Number(done.text) });
  }

  dropped(operation: Operation): void {
    this.#end(operation);
  }

  #tidy(mount: Mount, nowUs: number): void {
    const group = mount.device!.groups.metadata;
    if (group.breaker.isOpen()) return; // no lane is risked for it
    const operation = new Operation('tidy', mount, group, group.pool, this, 0, nowUs + TIDY_TIMEOUT_US);
    operation.olderUs = LEFT_US;
    const alarm: Alarm = {
      atUs: 0,
      heapIndex: -1,
      ring: (ringUs) => {
        this.#lanes.settle(operation, ringUs);
        this.#end(operation);
      },
    };
    this.#tidying.set(operation, alarm);
    this.#deadlines.set(alarm, operation.deadlineUs);
    this.#lanes.submit(operation, nowUs);
  }

  #tidyLater(mount: Mount, nowUs: number): void {
    const before = this.#later.get(mount);
    if (before !== undefined) this.#deadlines.clear(before);
    const ring = (ringUs: number): void => {
      this.#later.delete(mount);
      if (mount.standing !== 'right') return;
      if (mount.device!.groups.metadata.breaker.isOpen()) this.#tidyLater(mount, ringUs);
      else this.#tidy(mount, ringUs);
    };
    const alarm: Alarm = { atUs: 0, heapIndex: -1, ring };
    this.#later.set(mount, alarm);
    this.#deadlines.set(alarm, nowUs + LOOK_AGAIN_US);
  }

  #end(operation: Operation): void {
    const alarm = this.#tidying.get(operation);
    if (alarm !== undefined) this.#deadlines.clear(alarm);
    this.#tidying.delete(operation);
  }
}
