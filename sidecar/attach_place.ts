// attach_place.ts — where the sockets of running sidecars lie: a directory of the user's own, in memory.
//
// bind(2) makes an inode, on the thread that calls it, and Node calls it on the main thread. So only a file system that
// cannot hang will do: tmpfs. What a directory lies on is asked in libuv's pool, where a question that is never answered costs a
// thread of four and nothing else. The tools look in the same places in the same order (clients/cli/attached/).
import { chmod, lstat, mkdir, readdir, rename, statfs, unlink, type Stats } from 'node:fs';
import { dirname, join } from 'node:path';

/** As promises. node:fs/promises would be half a mebibyte of code in an idle sidecar. */
function called<T>(start: (done: (error: Error | null, value?: T) => void) => void): Promise<T> {
  return new Promise((resolve, reject) => start((error, value) => (error === null ? resolve(value as T) : reject(error))));
}
const fs = {
  chmod: (path: string, mode: number) => called<void>((done) => chmod(path, mode, done)),
  lstat: (path: string) => called<Stats>((done) => lstat(path, done)),
  mkdir: (path: string, options: { mode: number }) => called<void>((done) => mkdir(path, options, (error) => done(error))),
  readdir: (path: string) => called<string[]>((done) => readdir(path, done)),
  rename: (from: string, to: string) => called<void>((done) => rename(from, to, done)),
  statfs: (path: string) => called<{ type: number }>((done) => statfs(path, done)),
  unlink: (path: string) => called<void>((done) => unlink(path, done)),
};

/** What lies in memory: TMPFS_MAGIC and RAMFS_MAGIC of <linux/magic.h>. */
const IN_MEMORY = new Set([0x01021994, 0x858458f6]);
/** sockaddr_un.sun_path with its final NUL. */
const SOCKET_PATH_BYTES_MAX = 107;

/** PID-RANDOM.sock: two pid namespaces that share the directory may have the same pid. */
export const SOCKET_NAME = /^([0-9]{1,10})-[0-9a-f]{8}\.sock$/;
/** Bound and perhaps not listening yet; renamed when it is. So whoever refuses under the name above is dead. */
const NEW_SOCKET_NAME = /^\.[0-9]{1,10}-[0-9a-f]{8}\.new$/;

export interface Place {
  directory: string;
  /** Made by the sidecar if it is missing; its parent never is. */
  parent: string;
}

/** In the order in which they are tried. `KVLANE_ATTACH_DIR`, or --attach-dir, is the only one where it is given. */
export function attachPlaces(env: Record<string, string | undefined>, uid: number, given?: string): Place[] {
  const only = given ?? env['KVLANE_ATTACH_DIR'];
  if (only !== undefined && only !== '') return [{ directory: only, parent: dirname(only) }];
  const runtime = env['XDG_RUNTIME_DIR'];
  const parents = [...(runtime?.startsWith('/') ? [runtime] : []), `/run/user/${uid}`].map((parent) => ({ directory: join(parent, 'kvlane'), parent }));
  // An engine hands its sidecar little of its environment, and in a container there is neither of the two.
  const shared = ['/dev/shm', '/tmp'].map((parent) => ({ directory: `${parent}/kvlane-${uid}`, parent }));
  const all = [...parents, ...shared];
  return all.filter((place, index) => all.findIndex((one) => one.directory === place.directory) === index);
}

/** What keeps a directory from being used, as a sentence; null: nothing. Makes it if asked to. `uid` null: whoever it belongs to. Never on the main thread. */
export async function whyNot({ directory, parent }: Place, uid: number | null, make: boolean): Promise<string | null> {
  try {
    if (make) {
      if (!directory.startsWith('/')) return `${directory} is not an absolute path, and would be another place for whoever looks for it`;
      const { type } = await fs.statfs(parent);
      if (!IN_MEMORY.has(type)) return `${parent} is not a file system in memory (tmpfs) but of type 0x${type.toString(16)}, which could hang whoever makes a socket there`;
      const above = await fs.lstat(parent);
      if (above.isSymbolicLink()) return `${parent} is a link; name what it leads to`;
      if (uid !== null && above.uid !== uid && above.uid !== 0) return `${parent} belongs to user ${above.uid}, who could put a directory of his in the place of ours`;
      if ((above.mode & 0o022) !== 0 && (above.mode & 0o1000) === 0) return `others may write to ${parent}, which has no sticky bit, and put a directory of theirs in the place of ours`;
      await fs.mkdir(directory, { mode: 0o700 }).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error;
      });
    }
    const found = await fs.lstat(directory);
    if (!found.isDirectory()) return `${directory} is no directory`;
    // Another may be mounted over it.
    if (make && !IN_MEMORY.has((await fs.statfs(directory)).type)) return `${directory} is not a file system in memory (tmpfs)`;
    if (uid !== null && found.uid !== uid) return `${directory} belongs to user ${found.uid}, not to ${uid}`;
    if ((found.mode & 0o077) !== 0) return `${directory} has mode ${(found.mode & 0o777).toString(8).padStart(4, '0')}, so that others reach into it; run: chmod 700 ${directory}`;
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

export interface SocketPaths {
  /** Where it is bound. */
  fresh: string;
  /** What readers look for. */
  final: string;
}

export function socketPaths(directory: string, pid: number, random: string): SocketPaths | string {
  const final = join(directory, `${pid}-${random}.sock`);
  const fresh = join(directory, `.${pid}-${random}.new`);
  if (Buffer.byteLength(final) > SOCKET_PATH_BYTES_MAX) return `${final} is longer than a socket's name may be (${SOCKET_PATH_BYTES_MAX} bytes)`;
  return { fresh, final };
}

/** For others to see: called when it listens. */
export async function publish({ fresh, final }: SocketPaths): Promise<void> {
  await fs.chmod(fresh, 0o600); // the umask is 0 here; the directory keeps others out already
  await fs.rename(fresh, final);
}

/** Of a start that was cut off, older than this. */
const FRESH_AGE_MS_MAX = 60_000;
/** Looked at in one go; a directory with more than this of the dead loses the rest at the next starts. */
export const STALE_MAX = 64;

/**
 * Removes what dead sidecars left. Dead is whose socket refuses: a pid says nothing in another pid namespace, and one that hangs, is
 * stopped or has too many readers does not refuse. `refuses` connects and tells.
 */
export async function tidy(directory: string, own: string, refuses: (path: string) => Promise<boolean>): Promise<number> {
  let removed = 0;
  let looked = 0;
  for (const name of await fs.readdir(directory)) {
    const path = join(directory, name);
    const fresh = NEW_SOCKET_NAME.test(name);
    if (path === own || !(fresh || SOCKET_NAME.test(name))) continue;
    looked += 1;
    if (looked > STALE_MAX) break;
    try {
      const found = await fs.lstat(path);
      if (!found.isSocket() || (fresh && Date.now() - found.mtimeMs < FRESH_AGE_MS_MAX)) continue;
      if (!(await refuses(path))) continue;
      await fs.unlink(path);
      removed += 1;
    } catch {
      // Gone meanwhile, or not ours to remove: somebody else's business.
    }
  }
  return removed;
}
