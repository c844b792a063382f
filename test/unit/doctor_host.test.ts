// What `kvlane doctor` makes of the machine and of its own process.
import { expect, test } from 'vitest';
import { AIO_EVENTS_OF_A_DEVICE, ARENA_BYTES, hostFindings, MEMORY_BYTES_MIN, OPEN_FILES_MIN } from '../../clients/cli/doctor/host.ts';
import { limitOf, readHostFacts } from '../../clients/cli/doctor/host_facts.ts';
import type { HostFacts, Readers } from '../../clients/cli/doctor/host_facts.ts';
import type { Level } from '../../clients/cli/doctor/findings.ts';

const GOOD: HostFacts = {
  release: '6.18.44',
  clockSource: 'tsc',
  openFilesMax: Infinity,
  lockedBytesMax: Infinity,
  aio: { used: 0, max: 65_536 },
  hugePools: [{ pageBytes: 2 * 1024 * 1024, pages: 32, free: 32 }],
  sharedHugePages: 'never',
  first: { name: 'systemd', ourselves: false, namespaceOfMachine: true },
  memory: null,
  fuseTimeoutS: null,
};
const level = (id: string, facts: Partial<HostFacts>): Level | undefined => hostFindings({ ...GOOD, ...facts }).find((finding) => finding.id === `host.${id}`)?.level;

test('a good host has nothing to be told', () => {
  for (const finding of hostFindings(GOOD)) expect(finding.level, finding.id).toBe('ok');
});

test.each<[string, Partial<HostFacts>, Level | undefined]>([
  ['kernel', { release: '4.18.0-553.el8' }, 'note'],
  ['kernel', { release: '5.6.0' }, 'note'],
  ['kernel', { release: '6.0.19' }, 'note'],
  ['kernel', { release: '6.1.0' }, 'ok'],
  ['kernel', { release: '10.0' }, 'ok'],
  ['clock', { clockSource: 'hpet' }, 'warn'],
  ['clock', { clockSource: 'kvm-clock' }, 'ok'],
  ['clock', { clockSource: null }, 'note'],
  ['open-files', { openFilesMax: OPEN_FILES_MIN }, 'ok'],
  ['open-files', { openFilesMax: OPEN_FILES_MIN - 1 }, 'warn'],
  ['open-files', { openFilesMax: null }, undefined],
  ['locked-memory', { lockedBytesMax: ARENA_BYTES }, 'ok'],
  ['locked-memory', { lockedBytesMax: ARENA_BYTES - 1 }, 'note'],
  ['aio', { aio: null }, 'note'],
  ['aio', { aio: { used: 65_536 - AIO_EVENTS_OF_A_DEVICE, max: 65_536 } }, 'ok'],
  ['aio', { aio: { used: 65_537 - AIO_EVENTS_OF_A_DEVICE, max: 65_536 } }, 'note'],
  ['aio', { aio: { used: 70_000, max: 65_536 } }, 'note'],
  ['huge-pages', { hugePools: [{ pageBytes: 2 * 1024 * 1024, pages: 32, free: 31 }] }, 'note'],
  ['huge-pages', { hugePools: [], sharedHugePages: 'advise' }, 'ok'],
  ['huge-pages', { hugePools: [], sharedHugePages: 'deny' }, 'note'],
  ['huge-pages', { hugePools: [], sharedHugePages: null }, 'note'],
  ['memory', { memory: { limitBytes: 8 * MEMORY_BYTES_MIN, usedBytes: 7 * MEMORY_BYTES_MIN } }, 'ok'],
  ['memory', { memory: { limitBytes: 8 * MEMORY_BYTES_MIN, usedBytes: 7 * MEMORY_BYTES_MIN + 1 } }, 'warn'],
  ['first-process', { first: { name: 'python3', ourselves: false, namespaceOfMachine: false } }, 'warn'],
  ['first-process', { first: { name: 'tini', ourselves: false, namespaceOfMachine: false } }, 'ok'],
  ['first-process', { first: { name: 'pause', ourselves: false, namespaceOfMachine: false } }, 'ok'],
  ['first-process', { first: { name: null, ourselves: false, namespaceOfMachine: null } }, 'note'],
  ['first-process', { first: { name: 'node', ourselves: true, namespaceOfMachine: false } }, 'warn'],
])('%s of %j is %s', (id, facts, expected) => expect(level(id, facts)).toBe(expected));

test('a kernel is too old only where openat2 was tried, and is not there', () => {
  const tried = (release: string): string | undefined => hostFindings({ ...GOOD, release }, true).find(({ id }) => id === 'host.kernel')?.level;
  expect([tried('5.5.19-generic'), tried('5.6.0'), tried('6.1.0')]).toEqual(['bad', 'note', 'ok']);
});

test('only pages count that the arena takes, and those of 2 MiB are asked for where there are such', () => {
  const pool = (pageBytes: number, free: number): HostFacts['hugePools'][number] => ({ pageBytes, pages: free, free });
  const of = (...hugePools: HostFacts['hugePools']) => hostFindings({ ...GOOD, hugePools }).find(({ id }) => id === 'host.huge-pages')!;
  const KIB = 1024;
  const MIB = 1024 * KIB;
  for (const [pageBytes, expected] of [[512 * KIB, 'note'], [MIB, 'ok'], [ARENA_BYTES, 'ok'], [2 * ARENA_BYTES, 'note']] as const) expect(of(pool(pageBytes, 4096)).level, String(pageBytes)).toBe(expected);
  expect(of(pool(64 * KIB, 0), pool(1024 * MIB, 1)).do).toContain('shmem_enabled');
  expect(of(pool(64 * KIB, 0), pool(MIB, 0), pool(2 * MIB, 0), pool(1024 * MIB, 1)).do).toContain('hugepages-2048kB');
});

test('the command for huge pages asks for what is missing, beside what others have', () => {
  const finding = hostFindings({ ...GOOD, hugePools: [{ pageBytes: 2 * 1024 * 1024, pages: 100, free: 10 }] }).find(({ id }) => id === 'host.huge-pages');
  expect(finding?.do).toBe('echo 122 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages');
});

const LIMITS = `Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 1048576              files
Max locked memory         unlimited            unlimited            bytes
`;

test('limits are the soft ones', () => {
  expect([limitOf(LIMITS, 'Max open files'), limitOf(LIMITS, 'Max locked memory'), limitOf(LIMITS, 'Max nothing'), limitOf(null, 'Max open files')]).toEqual([1024, Infinity, null, null]);
});

function kernelOf(files: Record<string, string>, links: Record<string, string> = {}): Readers {
  return {
    text: (path) => Promise.resolve(files[path] ?? null),
    names: (path) => Promise.resolve([...new Set(Object.keys(files).filter((file) => file.startsWith(`${path}/`)).map((file) => file.slice(path.length + 1).split('/')[0]!))]),
    link: (path) => Promise.resolve(links[path] ?? null),
  };
}

test('facts are read from /proc and /sys, and what is not there is not known', async () => {
  const facts = await readHostFacts(
    kernelOf(
      {
        '/proc/self/limits': LIMITS,
        '/sys/devices/system/clocksource/clocksource0/current_clocksource': 'tsc\n',
        '/proc/sys/fs/aio-nr': '8\n',
        '/proc/sys/fs/aio-max-nr': '65536\n',
        '/sys/kernel/mm/transparent_hugepage/shmem_enabled': 'always within_size [advise] never deny force\n',
        '/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages': '4\n',
        '/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages': '3\n',
        '/proc/1/comm': 'tini\n',
        '/proc/self/cgroup': '0::/a/b\n',
        '/sys/fs/cgroup/a/b/memory.max': 'max\n',
        '/sys/fs/cgroup/a/memory.max': '1000\n',
        '/sys/fs/cgroup/a/memory.current': '400\n',
        '/sys/fs/cgroup/a/memory.stat': 'file 399\n',
        '/sys/fs/cgroup/memory.max': '5000\n',
        '/sys/fs/cgroup/memory.current': '4900\n',
        '/sys/fs/cgroup/memory.stat': 'anon 100\nfile 400\ninactive_file 50\nactive_file 350\n',
        '/proc/sys/fs/fuse/default_request_timeout': '0\n',
      },
      { '/proc/self/ns/pid': 'pid:[4026532000]' },
    ),
    '6.1.0',
    77,
  );
  expect(facts).toEqual({
    release: '6.1.0', clockSource: 'tsc', openFilesMax: 1024, lockedBytesMax: Infinity, aio: { used: 8, max: 65_536 },
    hugePools: [{ pageBytes: 2 * 1024 * 1024, pages: 4, free: 3 }], sharedHugePages: 'advise',
    first: { name: 'tini', ourselves: false, namespaceOfMachine: false }, memory: { limitBytes: 5000, usedBytes: 4850 }, fuseTimeoutS: 0,
  });
  expect(await readHostFacts(kernelOf({}), '6.1.0', 1)).toEqual({
    release: '6.1.0', clockSource: null, openFilesMax: null, lockedBytesMax: null, aio: null, hugePools: [], sharedHugePages: null,
    first: { name: null, ourselves: true, namespaceOfMachine: null }, memory: null, fuseTimeoutS: null,
  });
});

test('control groups of version 1 have their limit in another file, and nearly 2^63 means none', async () => {
  const version1 = (limit: string): Readers =>
    kernelOf({ '/proc/self/cgroup': '5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/x\n', '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': limit, '/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes': '7\n', '/sys/fs/cgroup/memory/docker/abc/memory.stat': 'inactive_file 1\ntotal_inactive_file 3\n' });
  expect((await readHostFacts(version1('1000\n'))).memory).toEqual({ limitBytes: 1000, usedBytes: 4 });
  expect((await readHostFacts(version1('9223372036854771712\n'))).memory).toBeNull();
});
