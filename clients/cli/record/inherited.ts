// inherited.ts — the descriptors that were handed to this process beside 0, 1 and 2, such as a client's arena: to be handed on.
//
// Nothing says which they are: node marks all close-on-exec at its start. So: what node itself has open by then is left out, which are
// nameless files of the kernel and its own pipes, which do not block.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

const O_NONBLOCK = 0o4000;
/** The highest number that is looked at: each below it makes the table of the child longer. */
const FD_MAX = 4096;

export interface Descriptor {
  fd: number;
  target: string;
  flags: number;
}

export function inheritedFds(): number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .flatMap((fd) => {
      try {
        const target = readlinkSync(`/proc/self/fd/${fd}`);
        const flags = Number.parseInt(/^flags:\s+([0-7]+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '0', 8);
        return [{ fd, target, flags }];
      } catch {
        return []; // the one that listed the folder
      }
    })
    .filter(isInherited)
    .map(({ fd }) => fd)
    .sort((a, b) => a - b);
}

export function isInherited({ fd, target, flags }: Descriptor): boolean {
  if (fd <= 2 || fd > FD_MAX) return false;
  if (target.startsWith('anon_inode:')) return false;
  return !(target.startsWith('pipe:') && (flags & O_NONBLOCK) !== 0);
}

/** For spawn: 0, 1 and 2 as pipes, the others where they are. */
export function stdioWith(fds: readonly number[]): ('pipe' | 'ignore' | number)[] {
  const stdio: ('pipe' | 'ignore' | number)[] = ['pipe', 'pipe', 'pipe'];
  for (const fd of fds) {
    while (stdio.length < fd) stdio.push('ignore'); // beyond 2 that means: not there
    stdio[fd] = fd;
  }
  return stdio;
}
