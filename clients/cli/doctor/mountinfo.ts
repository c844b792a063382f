// mountinfo.ts — /proc/self/mountinfo as text → mounts; which of them a path lies on. Pure: no file is touched, least of all the path.

export interface MountEntry {
  /** As statx tells it for a file on it. */
  id: number;
  /** major:minor; the same for every mount of one file system, bind mounts too. */
  device: string;
  /** Which directory of the file system is mounted; not / for a bind mount of a part. */
  root: string;
  point: string;
  type: string;
  source: string;
  /** Of this mount (ro, noatime) and of its file system (hard, timeo=600), by name; true where there is no value. */
  options: ReadonlyMap<string, string | true>;
}

/** Lines that are not of this form are left out: the kernel writes none. */
export function parseMountinfo(text: string): MountEntry[] {
  return text.split('\n').flatMap((line) => {
    const words = line.split(' ');
    const dash = words.indexOf('-', 6); // after it: type, source, options of the file system; before it any number of tags
    if (dash < 0 || words.length < dash + 3) return [];
    const [id, , device, root, point, own] = words as [string, string, string, string, string, string];
    return [{
      id: Number(id),
      device,
      root: plain(root),
      point: plain(point),
      type: words[dash + 1]!,
      source: plain(words[dash + 2]!),
      options: optionsOf([...own.split(','), ...(words[dash + 3] ?? '').split(',')]),
    }];
  });
}

/** The mount with the longest name above the path; of several on one directory the last, which hides the others. */
export function mountOf(path: string, mounts: readonly MountEntry[]): MountEntry | null {
  let best: MountEntry | null = null;
  for (const mount of mounts) {
    if (isBelow(path, mount.point) && (best === null || mount.point.length >= best.point.length)) best = mount;
  }
  return best;
}

export function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`);
}

function optionsOf(words: readonly string[]): Map<string, string | true> {
  const options = new Map<string, string | true>();
  for (const word of words) {
    const equals = word.indexOf('=');
    if (word !== '') options.set(equals < 0 ? word : word.slice(0, equals), equals < 0 ? true : plain(word.slice(equals + 1)));
  }
  // `rw` of the mount and `ro` of its file system, or the other way round: one of them suffices to refuse a write.
  if (options.has('ro')) options.delete('rw');
  return options;
}

/** Blanks, tabs, line breaks, # and backslashes are written in octal. */
function plain(word: string): string {
  return word.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(parseInt(octal, 8)));
}
