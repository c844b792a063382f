// kernel.ts — where in the kernel a stuck thread sits, as far as this user may know: its stack for root, else the function it sleeps in.
//
// Only files that hold nothing of the other process are read: stat, status and cmdline of a dying sidecar can hold the reader himself.
import { promises as fs } from 'node:fs';

/** Threads in one look: the oldest. */
export const STACKS_MAX = 16;
const FRAMES_MAX = 6;
const READ_MS_MAX = 200;

export interface KernelPlace {
  /** Innermost first; one name where only that is known. */
  frames: string[];
}

/** By thread id. `pidNamespace` is the sidecar's: one in another has other numbers here, perhaps somebody else's: then nothing is said. */
export async function kernelPlaces(pid: number, pidNamespace: string | undefined, tids: readonly number[]): Promise<Map<number, KernelPlace>> {
  const places = new Map<number, KernelPlace>();
  if (pidNamespace === undefined || pidNamespace !== (await fs.readlink('/proc/self/ns/pid').catch(() => null))) return places;
  await Promise.all(
    tids.slice(0, STACKS_MAX).map(async (tid) => {
      const frames = framesOf(await text(`/proc/${pid}/task/${tid}/stack`));
      if (frames.length > 0) return void places.set(tid, { frames });
      const sleepsIn = (await text(`/proc/${pid}/task/${tid}/wchan`)).trim();
      if (/^[a-z_]\w*$/i.test(sleepsIn)) places.set(tid, { frames: [sleepsIn] });
    }),
  );
  return places;
}

/** Lines as "[<0>] fuse_file_read_iter+0x12/0x30 [fuse]". */
export function framesOf(stack: string): string[] {
  return stack
    .split('\n')
    .flatMap((line) => /^\[<\w+>\] (\w[\w.]*)\+0x/.exec(line)?.[1] ?? [])
    .slice(0, FRAMES_MAX);
}

async function text(path: string): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<string>((resolve) => (timer = setTimeout(resolve, READ_MS_MAX, '')));
  const read = fs.readFile(path, 'latin1').catch(() => '');
  try {
    return await Promise.race([read, late]);
  } finally {
    clearTimeout(timer);
  }
}
