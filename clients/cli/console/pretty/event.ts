// event.ts — what the sidecar says unasked, a line each, with the time of day; and its log.
import type { Event, MountInfo, ReadyEvent } from '../../../../protocol/messages.ts';
import { harmless } from '../../text/colour.ts';
import type { Colours } from '../../text/colour.ts';
import { columns } from '../../text/table.ts';
import { count, duration, size } from '../../text/units.ts';
import { slotsText } from './answer.ts';
import { stateWord } from './tree.ts';

export function readyLines(ready: ReadyEvent, c: Colours): string[] {
  const { arena } = ready;
  return [
    `${c.bold(`kvlane ${ready.version}`)} is ready: process ${ready.pid}, engine ${ready.engine}, ${count(arena.slots, 'slot')} of ${size(arena.slot_bytes)}, answers within ${duration(ready.timeout_ms)}`,
    ...columns(ready.mounts.map((mount) => [c.key(mount.name), harmless(mount.root), standing(mount, c)])),
    c.dim('Type a request, in words or as JSON: tab completes, help lists them, ctrl-D leaves.'),
  ];
}

// The state of a mount that nobody has used yet is `unknown`, which reads like a fault.
function standing(mount: MountInfo, c: Colours): string {
  if (mount.store_id === undefined || mount.reason) return c.warn(harmless(mount.reason || mount.code || mount.state));
  const words = `${mount.created ? 'a new store' : 'a store'}${mount.fs_type ? ` on ${mount.fs_type}` : ''}${mount.direct === false ? ', without O_DIRECT' : ''}`;
  return mount.state === 'ok' || mount.state === 'unknown' ? words : `${words}, ${stateWord(mount.state, c)}`;
}

export function eventLine(event: Event, c: Colours): string {
  switch (event.event) {
    case 'ready':
      return 'ready';
    case 'mount': {
      const said = `${event.mount}, ${event.class}: ${event.was} → ${event.state}`;
      return `${event.state === 'ok' ? c.good(said) : c.bad(said)}${event.reason ? `: ${harmless(event.reason)}` : ''}`;
    }
    case 'stalled':
    case 'recovered': {
      const what = `${event.phase} (${harmless(event.syscall)}) of ${harmless(event.key ?? event.kind ?? event.class)} on ${event.mount}, thread ${event.tid}`;
      return event.event === 'stalled' ? c.bad(`stuck for ${duration(event.for_ms)}: ${what}`) : c.good(`returned after ${duration(event.for_ms)}: ${what}`);
    }
    case 'slots_freed':
      return c.good(`${slotsText(event.slots)} ${event.slots.length === 1 ? 'is' : 'are'} free again`);
    default:
      return harmless(JSON.stringify(event)); // of a newer sidecar
  }
}

/** Said as events already. */
const SAID = new Set(['mount', 'stalled', 'recovered']);

/** A line of the sidecar's log, which is JSON; another program's word is passed on. null: of no interest here. */
export function logLine(text: string, c: Colours): string | null {
  let fields: Record<string, unknown>;
  try {
    fields = JSON.parse(text) as Record<string, unknown>;
    if (typeof fields !== 'object' || fields === null || typeof fields['event'] !== 'string') throw new Error('no line of ours');
  } catch {
    return c.dim(harmless(text));
  }
  const { time: _time, level, event, ...rest } = fields;
  if (level === 'info' || SAID.has(event as string)) return null;
  const words = Object.entries(rest).map(([name, value]) => `${name}=${typeof value === 'string' ? (/[\s"]/.test(value) ? JSON.stringify(value) : value) : JSON.stringify(value)}`);
  const line = harmless([`log: ${(event as string).replaceAll('_', ' ')}`, ...words].join(' '));
  return level === 'error' ? c.bad(line) : level === 'warn' ? c.warn(line) : c.dim(line);
}

/** 09:41:02, of here. */
export function timeOfDay(date: Date): string {
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((part) => String(part).padStart(2, '0')).join(':');
}
