// operation.ts — one thing a lane was or will be asked to do, as the policy sees it.
//
// It outlives its task: when the task is answered while the call is in the kernel, the operation stays
// (`abandoned`) with its memory and its gate until the lane brings it back.
//   made ─► gated ─► submitted ─► finished
//                    submitted ─► abandoned ─► finished
import type { NativeEvent, OpSpec } from '../native/index.ts';
import type { Code } from '../protocol/messages.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import type { MemoryBook } from './slots.ts';

export type Done = Extract<NativeEvent, { type: 'done' }>;
/** survey is of `kvlane doctor`, which has a lane of its own. */
export type Kind = Exclude<OpSpec['kind'], 'survey'>;

export interface Owner {
  /** It ended while its owner still waited for it. */
  completed(operation: Operation, done: Done, nowUs: number): void;
  /** It was taken out of the queue because its class was suspended: no lane ever had it, and its memory is free. */
  dropped(operation: Operation, code: Code, reason: string): void;
  /** It came back after its owner had given it up. */
  returned?(operation: Operation, done: Done): void;
}

/** What is asked of the kinds that keep a store in order, and of a remove with conditions, besides namespace, hex and names; as in OpSpec. */
export type Asked =
  | { path: string; cookie: string; entriesMax: number }
  | { path: string; inode: string; changedNs: string; fence: string }
  | { inode?: string; modifiedNs?: string; recycles?: boolean; fence?: string }
  | { olderUs: number }
  | { action: 'look' | 'take' | 'renew' | 'leave' | 'listen' | 'tell'; number: number; text: string };

const NO_NAMES: readonly string[] = [];

export class Operation {
  id = 0;
  kind: Kind;
  mount: Mount;
  /** null for identify, which runs before the device is known. */
  group: LaneGroup | null;
  pool: number;
  owner: Owner;
  /** The block it stands for in its task; what it means is the owner's. */
  index: number;
  deadlineUs: number;
  state: 'made' | 'gated' | 'submitted' | 'abandoned' | 'finished' = 'made';
  /** A call of it that began by then is no evidence against its mount: others answered meanwhile, or it was there when the breaker closed. */
  excusedUs = -1;
  submittedUs = 0;
  /** Handed over and not come back; also when it was abandoned in the kernel. */
  inHand = false;
  /** When the call it is stuck in began, and which; known once it was abandoned. */
  sinceUs = 0;
  phase: Done['phase'] = 'queue';

  namespace = '';
  hex = '';
  names: readonly string[] = NO_NAMES;
  region: 0 | 1 = 0;
  offset = 0;
  bytes = 0;
  memory: MemoryBook | null = null;
  area = -1;
  /** '' when it changes no name. */
  gateKey = '';
  holdsGate = false;
  replace = false;
  inode = '';
  text = '';
  olderUs = 0; // tidy
  flag = false; // identify: create; namespace: bump
  /** Of list, remove_file, touch, lease and remove. Goes over by submit(); submitBlocks() knows nothing of it. */
  asked: Asked | null = null;

  constructor(kind: Kind, mount: Mount, group: LaneGroup | null, pool: number, owner: Owner, index: number, deadlineUs: number) {
    this.kind = kind;
    this.mount = mount;
    this.group = group;
    this.pool = pool;
    this.owner = owner;
    this.index = index;
    this.deadlineUs = deadlineUs;
  }
}

/** What the gate and the lists of stuck and damaged keys call a block. By store, since one store may be mounted under two names. */
export function gateKeyOf(mount: Mount, namespace: string, hex: string): string {
  return `${mount.storeId}:${namespace}/${hex}`;
}

export function keyOf(operation: Operation): string {
  if (operation.asked !== null && 'path' in operation.asked) return operation.asked.path;
  return operation.hex === '' ? operation.namespace : `${operation.namespace}/${operation.hex}`;
}
