// task_context.ts — what the tasks of every op share, and how a native status reads on the wire.
import type { Native, NativeStatus } from '../native/index.ts';
import type { Code } from '../protocol/messages.ts';
import type { BlockIndex } from './block_index.ts';
import type { Capacity } from './capacity.ts';
import type { Damage } from './damage.ts';
import type { Lanes } from './lanes.ts';
import type { Slots } from './slots.ts';
import type { Staging } from './staging.ts';
import type { Stats } from './stats.ts';
import type { TaskTable } from './task_table.ts';

export interface TaskContext {
  native: Native;
  lanes: Lanes;
  tasks: TaskTable;
  slots: Slots;
  slotBytes: number;
  staging: Staging;
  damage: Damage;
  capacity: Capacity;
  index: BlockIndex;
  stats: Stats;
  nowUs(): number;
}

export const CODE_OF: Record<Exclude<NativeStatus, 'ok'>, Code> = {
  not_found: 'NOT_FOUND',
  corrupt: 'CORRUPT',
  length_mismatch: 'LENGTH_MISMATCH',
  newer_format: 'NOT_FOUND',
  io_error: 'IO_ERROR',
  no_space: 'NO_SPACE',
  wrong_store: 'WRONG_STORE',
  expired: 'DEADLINE_EXCEEDED',
  saturated: 'SATURATED',
  fenced: 'KEY_BUSY', // only who asks with a fence hears of it
};

export function ms(us: number): number {
  return Math.round(us / 1000);
}
