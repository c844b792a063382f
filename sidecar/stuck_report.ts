// stuck_report.ts — one call in the kernel, as `stuck`, `stalled` and `recovered` tell it.
import type { StuckCall } from '../native/index.ts';
import type { StuckEntry } from '../protocol/messages.ts';
import type { Operation } from './operation.ts';
import { Task } from './task_table.ts';

export function stuckEntry(call: StuckCall, operation: Operation): StuckEntry {
  const entry: StuckEntry = {
    mount: operation.mount.name,
    class: operation.group?.laneClass ?? 'metadata',
    kind: operation.kind,
    phase: call.phase,
    tid: call.tid,
    syscall: call.syscall,
    since_us: call.sinceUs,
    for_ms: Math.round(call.forUs / 1000),
    settled: operation.state === 'abandoned' || operation.state === 'finished',
  };
  if (operation.hex !== '') entry.key = `${operation.namespace}/${operation.hex}`;
  else if (call.hex !== '') entry.key = `${call.namespace}/${call.hex}`;
  if (operation.region === 0 && operation.area >= 0) entry.slot = operation.area;
  if (operation.owner instanceof Task) entry.task = operation.owner.id;
  return entry;
}
