// mount_table.ts — notices that something else is mounted at a root, without touching the root.
//
// Three probes that are stuck in a mount which was then lazily unmounted may stay stuck for ever, and
// no fourth may be sent. The kernel's own list of mounts is memory, not a file on any of them, so it
// answers while they hang: when the entry behind a root changes, its stuck probes belong to the past
// and fresh ones may go out. It is read only while something is being probed.
import { readFile } from 'node:fs';

/** A remount is noticed in a fifth of a second, which leaves the probes their share of the promised one. */
export const MOUNT_TABLE_LOOK_US = 200_000;

/** Who waits for one read. It takes a millisecond; should all of libuv's threads be stuck, it must not gather more. */
const WAITING_MAX = 64;

export interface MountTable {
  /** The text of mountinfo, or null. Never more than one read under way: a call meanwhile shares its answer. */
  read(take: (text: string | null) => void): void;
}

export function procMountTable(path = '/proc/self/mountinfo'): MountTable {
  let waiting: ((text: string | null) => void)[] = [];
  return {
    read(take) {
      if (waiting.length >= WAITING_MAX) return;
      waiting.push(take);
      if (waiting.length > 1) return;
      readFile(path, 'utf8', (error, text) => {
        const all = waiting;
        waiting = [];
        for (const one of all) one(error === null ? text : null);
      });
    },
  };
}

/** Which mount a path lies on, as "id major:minor point"; '' when the table names none. */
export function mountBehind(text: string, root: string): string {
  let best = '';
  let bestLength = -1;
  for (const line of text.split('\n')) {
    const [id, , device, , point] = line.split(' ');
    if (id === undefined || device === undefined || point === undefined) continue;
    const path = unescape(point);
    const holds = path === '/' || root === path || root.startsWith(`${path}/`);
    // Of two mounts on one point the later one covers the other.
    if (holds && path.length >= bestLength) {
      best = `${id} ${device} ${path}`;
      bestLength = path.length;
    }
  }
  return best;
}

// The kernel writes space, tab, newline and backslash as \040 \011 \012 \134.
function unescape(point: string): string {
  return point.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
