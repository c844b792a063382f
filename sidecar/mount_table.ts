// mount_table.ts — notices that something else is mounted at a root, without touching the root.
//
// Lanes keep the root open that they once verified, and probes that are stuck in a mount which was then
// lazily unmounted may stay stuck for ever. The kernel's own list of mounts is memory, not a file on any
// of them, so it answers while they hang. Almost: its options column asks each file system, and one that
// looks them up on its device (btrfs) could hold the reader. So it is not read on the main thread, and
// never twice at a time: at worst one of libuv's four threads is lost to it, and log and stdout take one each.
import { readFile } from 'node:fs';

/** While something is probed. A remount is noticed in a fifth of a second, which leaves the probes their share of the promised one. */
export const LOOK_PROBING_US = 200_000;
/** While there is work. After a remount there are hits within a second; half of it is for opening the root again. */
export const LOOK_WORKING_US = 500_000;

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

export interface MountLine {
  /** "id major:minor point"; ids are not used twice while a mount lives. */
  what: string;
  point: string;
}

export function mountLines(text: string): MountLine[] {
  const lines: MountLine[] = [];
  for (const line of text.split('\n')) {
    const [id, , device, , escaped] = line.split(' ', 5);
    if (id === undefined || device === undefined || escaped === undefined) continue;
    const point = unescape(escaped);
    lines.push({ what: `${id} ${device} ${point}`, point });
  }
  return lines;
}

/** Which mount a path lies on, as far as its text tells (there may be links in it); '' when the list names none. */
export function mountBehind(lines: readonly MountLine[], root: string): string {
  let best: MountLine = { what: '', point: '' };
  for (const line of lines) {
    const { point } = line;
    const holds = point === '/' || root === point || root.startsWith(`${point}/`);
    // Of two mounts on one point the later one covers the other.
    if (holds && point.length >= best.point.length) best = line;
  }
  return best.what;
}

// The kernel writes space, tab, newline and backslash as \040 \011 \012 \134.
function unescape(point: string): string {
  return point.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
