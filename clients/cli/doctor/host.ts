// host.ts — what this machine and this process mean for a cache. Pure: facts in, findings out.
import { size } from '../text/units.ts';
import { found } from './findings.ts';
import type { Finding } from './findings.ts';
import type { HostFacts } from './host_facts.ts';

/** serve's own --arena-mib where nothing else is said. */
export const ARENA_BYTES = 64 * 1024 * 1024;
/** A sidecar with its arena, and room for what it hands to the kernel. */
export const MEMORY_BYTES_MIN = 256 * 1024 * 1024;
/** A sidecar has some dozen descriptors of its own, two for each mount, and one for each reader; lanes have tables of their own. */
export const OPEN_FILES_MIN = 256;
/** One lane of the engine aio asks for so many of fs.aio-max-nr; a device has 24 lanes and at most 64 more in place of stuck ones. */
export const AIO_EVENTS_OF_A_DEVICE = 8 * (24 + 64);

const HUGE_BYTES_MIN = 1024 * 1024;
const HUGE_BYTES_USUAL = 2 * 1024 * 1024;

/** Read in user space, without a system call. */
const FAST_CLOCKS = new Set(['tsc', 'kvm-clock', 'hyperv_clocksource_tsc_page', 'arch_sys_counter', 'riscv_clocksource', 'timebase']);
/** They reap whatever is orphaned in their pid namespace. */
const INITS = new Set(['systemd', 'init', 'tini', 'docker-init', 'dumb-init', 'catatonit', 'runit', 's6-svscan', 'pause', 'openrc-init']);
const AN_INIT = 'docker run --init, podman run --init, or tini as the entry point; in Kubernetes shareProcessNamespace: true';

/** `noOpenat2`: it was tried here, and is not known. */
export function hostFindings(facts: HostFacts, noOpenat2 = false): Finding[] {
  return [kernel(facts, noOpenat2), clock(facts), openFiles(facts), lockedMemory(facts), aio(facts), hugePages(facts), firstProcess(facts), memory(facts)].flat();
}

function kernel({ release }: HostFacts, noOpenat2: boolean): Finding {
  const [major = 0, minor = 0] = release.split('.').map((part) => parseInt(part, 10));
  const at = major * 1000 + minor;
  if (at < 5006 && noOpenat2) return found('host.kernel', 'bad', `Linux ${release}`, 'lanes open files with openat2, which came with 5.6', 'run Linux 5.6 or later');
  if (at < 6001) return found('host.kernel', 'note', `Linux ${release}`, 'before 6.1 a file system does not say how O_DIRECT must be aligned: it is tried out');
  return found('host.kernel', 'ok', `Linux ${release}`);
}

function clock({ clockSource }: HostFacts): Finding {
  if (clockSource === null) return found('host.clock', 'note', 'the kernel does not say which clock it reads', 'deadlines are read off it some times for each block');
  if (FAST_CLOCKS.has(clockSource)) return found('host.clock', 'ok', `clock source ${clockSource}`);
  return found('host.clock', 'warn', `clock source ${clockSource}`, 'each look at the clock is a system call, or a slow read of a device; a block takes some ten of them',
    'cat /sys/devices/system/clocksource/clocksource0/available_clocksource; boot with tsc=reliable if the processor has a constant tsc');
}

function openFiles({ openFilesMax }: HostFacts): Finding[] {
  if (openFilesMax === null) return [];
  if (openFilesMax >= OPEN_FILES_MIN) return [found('host.open-files', 'ok', `${openFilesMax === Infinity ? 'any number of' : openFilesMax} open files (RLIMIT_NOFILE)`)];
  return [found('host.open-files', 'warn', `${openFilesMax} open files (RLIMIT_NOFILE)`, `a sidecar with many mounts and readers wants up to ${OPEN_FILES_MIN}`, 'ulimit -n 1024 before the engine; in a container --ulimit nofile=1024')];
}

function lockedMemory({ lockedBytesMax }: HostFacts): Finding[] {
  if (lockedBytesMax === null) return [];
  const what = `${lockedBytesMax === Infinity ? 'any amount of' : size(lockedBytesMax)} locked memory (RLIMIT_MEMLOCK)`;
  if (lockedBytesMax >= ARENA_BYTES) return [found('host.locked-memory', 'ok', what)];
  return [found('host.locked-memory', 'note', what, `kvlane locks nothing; a network card's driver that registers the arena (${size(ARENA_BYTES)} unless told otherwise) does`, 'if one does: ulimit -l unlimited before the engine; in a container --ulimit memlock=-1')];
}

function aio({ aio: numbers }: HostFacts): Finding[] {
  if (numbers === null) return [found('host.aio', 'note', 'this kernel has no native AIO (fs.aio-max-nr is missing)', 'the engine threads, which is used unless told otherwise, needs none', 'leave --engine as it is')];
  const left = Math.max(0, numbers.max - numbers.used);
  const what = `${left} of ${numbers.max} native AIO events are free (fs.aio-nr ${numbers.used})`;
  if (left >= AIO_EVENTS_OF_A_DEVICE) return [found('host.aio', 'ok', what)];
  return [found('host.aio', 'note', what, `with --engine aio a device asks for up to ${AIO_EVENTS_OF_A_DEVICE}, and falls back to threads where it gets none`, `only for --engine aio: sudo sysctl fs.aio-max-nr=${Math.max(1_048_576, numbers.max * 2)}`)];
}

/** As the arena is made (native/core/arena.cc): below 1 MiB transparent ones are better, and rounding up may waste 2 MiB or an eighth. */
function takesPages(pageBytes: number): boolean {
  const waste = Math.ceil(ARENA_BYTES / pageBytes) * pageBytes - ARENA_BYTES;
  return pageBytes >= HUGE_BYTES_MIN && pageBytes <= ARENA_BYTES && waste <= Math.max(HUGE_BYTES_USUAL, ARENA_BYTES / 8);
}

function hugePages({ hugePools, sharedHugePages }: HostFacts): Finding {
  const pools = hugePools.filter((one) => takesPages(one.pageBytes));
  const fitting = pools.find((one) => one.free * one.pageBytes >= ARENA_BYTES);
  if (fitting !== undefined) return found('host.huge-pages', 'ok', `${fitting.free} huge pages of ${size(fitting.pageBytes)} are free`);
  if (sharedHugePages !== null && !['never', 'deny'].includes(sharedHugePages)) return found('host.huge-pages', 'ok', `transparent huge pages for shared memory: ${sharedHugePages}`);
  const pool = pools.find((one) => one.pageBytes === HUGE_BYTES_USUAL) ?? pools[0];
  const what = `no huge pages for an arena of ${size(ARENA_BYTES)}: ${pool === undefined ? 'this kernel has no pool of pages that suit it' : `${pool.free} of ${size(pool.pageBytes)} free`}, transparent ones for shared memory ${sharedHugePages ?? 'not known'}`;
  const todo = pool === undefined ? 'echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled'
    : `echo ${pool.pages - pool.free + Math.ceil(ARENA_BYTES / pool.pageBytes)} | sudo tee /sys/kernel/mm/hugepages/hugepages-${pool.pageBytes / 1024}kB/nr_hugepages`;
  return found('host.huge-pages', 'note', what, 'reads of blocks take a detour through private huge pages, which costs processor time', todo);
}

function firstProcess({ first }: HostFacts): Finding {
  if (first.namespaceOfMachine === true && !first.ourselves) return found('host.first-process', 'ok', `process 1 is the machine's own (${first.name ?? 'unknown'})`);
  const why = 'the first process of a pid namespace cannot leave before its stuck children do, and must reap what is orphaned: an engine in its place hangs at its end while the mount hangs';
  if (first.ourselves) return found('host.first-process', 'warn', 'doctor itself is process 1 of this container: an engine started the same way would be, too', why, AN_INIT);
  if (first.name !== null && INITS.has(first.name)) return found('host.first-process', 'ok', `process 1 of this container is an init (${first.name})`);
  if (first.name === null) return found('host.first-process', 'note', 'process 1 of this pid namespace cannot be seen', why, AN_INIT);
  return found('host.first-process', 'warn', `process 1 of this container is ${first.name}, no init`, why, AN_INIT);
}

function memory({ memory: group }: HostFacts): Finding {
  if (group === null) return found('host.memory', 'ok', 'no memory limit of a control group');
  const left = Math.max(0, group.limitBytes - group.usedBytes);
  const what = `${size(left)} left of the ${size(group.limitBytes)} that the control group allows`;
  if (left >= MEMORY_BYTES_MIN) return found('host.memory', 'ok', what);
  return found('host.memory', 'warn', what, `the arena (${size(ARENA_BYTES)} unless told otherwise) and the sidecar count there; at the limit the kernel kills one of the engine's processes`, 'raise memory.max (docker run --memory), or make the arena smaller: --arena-mib');
}
