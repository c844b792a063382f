// host_facts.ts — what the kernel says of this machine and of this process, from /proc and /sys: nothing of it can hang with a mount.
import { promises as fs } from 'node:fs';
import { release } from 'node:os';

export interface HugePool {
  pageBytes: number;
  pages: number;
  free: number;
}

/** null, or an empty list: the kernel does not say. */
export interface HostFacts {
  release: string;
  clockSource: string | null;
  openFilesMax: number | null;
  /** Infinity: no limit. These two also below. */
  lockedBytesMax: number | null;
  aio: { used: number; max: number } | null;
  hugePools: HugePool[];
  /** The word in brackets of shmem_enabled. */
  sharedHugePages: string | null;
  /** comm of process 1 of this pid namespace; `ourselves`: that is this very process. */
  first: { name: string | null; ourselves: boolean; namespaceOfMachine: boolean | null };
  memory: { limitBytes: number; usedBytes: number } | null;
  /** fs.fuse.default_request_timeout, seconds, 0: none; null: this kernel has no such setting. */
  fuseTimeoutS: number | null;
}

export interface Readers {
  text(path: string): Promise<string | null>;
  names(path: string): Promise<string[]>;
  link(path: string): Promise<string | null>;
}

export const KERNEL: Readers = {
  text: (path) => fs.readFile(path, 'utf8').catch(() => null),
  names: (path) => fs.readdir(path).catch(() => []),
  link: (path) => fs.readlink(path).catch(() => null),
};

const HUGETLB = '/sys/kernel/mm/hugepages';
/** The inode that every kernel gives the first pid namespace (PROC_PID_INIT_INO). */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';

export async function readHostFacts(kernel: Readers = KERNEL, kernelRelease = release(), pid = process.pid): Promise<HostFacts> {
  const [limits, clock, used, max, shared, first, namespace, pools, memory, fuse] = await Promise.all([
    kernel.text('/proc/self/limits'),
    kernel.text('/sys/devices/system/clocksource/clocksource0/current_clocksource'),
    kernel.text('/proc/sys/fs/aio-nr'),
    kernel.text('/proc/sys/fs/aio-max-nr'),
    kernel.text('/sys/kernel/mm/transparent_hugepage/shmem_enabled'),
    kernel.text('/proc/1/comm'),
    kernel.link('/proc/self/ns/pid'),
    hugePools(kernel),
    memoryLimit(kernel),
    kernel.text('/proc/sys/fs/fuse/default_request_timeout'),
  ]);
  return {
    release: kernelRelease,
    clockSource: clock?.trim() || null,
    openFilesMax: limitOf(limits, 'Max open files'),
    lockedBytesMax: limitOf(limits, 'Max locked memory'),
    aio: used === null || max === null ? null : { used: Number(used), max: Number(max) },
    hugePools: pools,
    sharedHugePages: /\[(\w+)\]/.exec(shared ?? '')?.[1] ?? null,
    first: { name: first?.trim() || null, ourselves: pid === 1, namespaceOfMachine: namespace === null ? null : namespace === FIRST_PID_NAMESPACE },
    memory,
    fuseTimeoutS: fuse === null ? null : Number(fuse),
  };
}

/** The soft limit of a line of /proc/self/limits. */
export function limitOf(limits: string | null, name: string): number | null {
  const word = limits?.split('\n').find((line) => line.startsWith(`${name} `))?.slice(name.length).trim().split(/\s+/)[0];
  if (word === undefined) return null;
  return word === 'unlimited' ? Infinity : Number(word);
}

async function hugePools(kernel: Readers): Promise<HugePool[]> {
  const sizes = (await kernel.names(HUGETLB)).flatMap((name) => /^hugepages-(\d+)kB$/.exec(name)?.[1] ?? []);
  const pools = sizes.map(async (kib) => {
    const [pages, free] = await Promise.all(['nr_hugepages', 'free_hugepages'].map((file) => kernel.text(`${HUGETLB}/hugepages-${kib}kB/${file}`)));
    return { pageBytes: Number(kib) * 1024, pages: Number(pages ?? 0), free: Number(free ?? 0) };
  });
  return (await Promise.all(pools)).sort((a, b) => a.pageBytes - b.pageBytes);
}

/** The tightest of the control groups that this process is in, as far as they can be seen from here. */
async function memoryLimit(kernel: Readers): Promise<HostFacts['memory']> {
  const groups = (await kernel.text('/proc/self/cgroup')) ?? '';
  const second = /^0::(\/.*)$/m.exec(groups)?.[1];
  const first = /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(\/.*)$/m.exec(groups)?.[1];
  // What is counted as used holds the page cache, too; what of it nobody has read twice makes room before anybody is killed.
  const [base, path, limitFile, usedFile, cacheWord] =
    first === undefined
      ? (['/sys/fs/cgroup', second ?? '/', 'memory.max', 'memory.current', 'inactive_file'] as const)
      : (['/sys/fs/cgroup/memory', first, 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'] as const);
  const parts = path.split('/').filter((part) => part !== '');
  let tightest: HostFacts['memory'] = null;
  for (let depth = parts.length; depth >= 0; depth -= 1) {
    const group = [base, ...parts.slice(0, depth)].join('/');
    const [limit, used, stat] = await Promise.all([limitFile, usedFile, 'memory.stat'].map((file) => kernel.text(`${group}/${file}`)));
    const limitBytes = Number(limit?.trim() ?? NaN); // "max" is NaN, too
    if (!Number.isFinite(limitBytes) || limitBytes >= 2 ** 60) continue; // version 1 says "none" with nearly 2^63
    const reclaimed = Number(new RegExp(`^${cacheWord} (\\d+)$`, 'm').exec(stat ?? '')?.[1] ?? 0);
    const here = { limitBytes, usedBytes: Math.max(0, Number(used ?? 0) - reclaimed) };
    if (tightest === null || here.limitBytes - here.usedBytes < tightest.limitBytes - tightest.usedBytes) tightest = here;
  }
  return tightest;
}
