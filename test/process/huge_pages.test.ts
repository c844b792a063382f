// huge_pages.test.ts — what `ready` and the log say of the pages under an arena, and what is refused.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, onTestFinished, test, type TestContext } from 'vitest';
import type { ReadyEvent } from '../../protocol/messages.ts';
import { freshDirectory, startSidecar, type Sidecar } from '../support/sidecar_process.ts';

const POOL = '/sys/kernel/mm/hugepages/hugepages-2048kB';
const SHMEM = '/sys/kernel/mm/transparent_hugepage/shmem_enabled';
const KEEPER = join(import.meta.dirname, '../support/host_pages.sh');
const MIB = 1024 * 1024;

const read = (path: string): string => readFileSync(path, 'utf8').trim();
const free = (): number => Number(read(`${POOL}/free_hugepages`)) - Number(read(`${POOL}/resv_hugepages`));

/** Until the end of the test, or of this process, as test/support/host_pages.sh has it; where that is refused, the test is skipped. */
async function host(context: TestContext, ...settings: string[]): Promise<void> {
  const keeper = spawn('bash', [KEEPER, ...settings], { stdio: ['pipe', 'pipe', 'inherit'] });
  onTestFinished(async () => {
    keeper.stdin.end();
    await once(keeper, 'close');
  });
  const [answer] = (await once(createInterface(keeper.stdout), 'line')) as [string];
  if (answer !== 'ready') context.skip(`SKIPPED: ${answer}`);
}

const start = (...args: string[]): Sidecar => startSidecar({ args: ['--mount', `kv0=${freshDirectory()}`, '--create', '--arena-mib', '8', ...args] });
const arenaOf = async (sidecar: Sidecar): Promise<ReadyEvent['arena']> => (await sidecar.ready()).arena;

test('an arena on small pages is said to be so, once, with the command that would give it huge ones', async (context) => {
  await host(context, 'pool=0', 'shmem=never');
  const sidecar = start('--huge-pages', 'auto');
  const arena = await arenaOf(sidecar);
  expect(arena).toMatchObject({ backing: 'shmem', page_bytes: 4096, huge_bytes: 0, bytes: 8 * MIB });
  expect(arena.advice).toContain(`echo 4 | sudo tee ${POOL}/nr_hugepages`);
  expect(arena.advice).toContain(`echo advise | sudo tee ${SHMEM}`);
  sidecar.send({ id: 1, op: 'stats' }, { id: 2, op: 'stats' });
  expect(await sidecar.answer(2)).toMatchObject({ stats: { arena: { backing: 'shmem', page_bytes: 4096, huge_bytes: 0, bytes: 8 * MIB } } });
  sidecar.end();
  await sidecar.exited;
  expect(sidecar.stderr().split('arena_on_small_pages')).toHaveLength(2);
});

test('who does not want huge pages hears nothing of them', async () => {
  const sidecar = start('--huge-pages', 'off');
  const arena = await arenaOf(sidecar);
  expect(arena).toMatchObject({ backing: 'shmem', page_bytes: 4096, huge_bytes: 0 });
  expect(arena).not.toHaveProperty('advice');
  sidecar.end();
  await sidecar.exited;
  expect(sidecar.stderr()).not.toContain('arena_on_small_pages');
});

test('an arena of our own lies on the hugetlb pool where there is one, and says so', async (context) => {
  await host(context, 'pool=4');
  const sidecar = start('--huge-pages', 'auto');
  const arena = await arenaOf(sidecar);
  expect(arena).toMatchObject({ backing: 'hugetlb', page_bytes: 2 * MIB, huge_bytes: 8 * MIB, bytes: 8 * MIB, slots: 8 });
  expect(arena).not.toHaveProperty('advice');
  expect(free()).toBe(0);
  // The next one takes what is left.
  const second = start('--huge-pages', 'auto');
  expect((await arenaOf(second)).backing).not.toBe('hugetlb');
  sidecar.end();
  await sidecar.exited;
  expect(free()).toBe(4);
});

test.for(['require', 'hugetlb', 'thp'])('--huge-pages %s where there are none: nothing is started, and a sentence says why and what to run', async (how, context) => {
  await host(context, 'pool=0', 'shmem=never');
  const sidecar = start('--huge-pages', how);
  expect(await sidecar.exited).toEqual({ code: 2, signal: null });
  expect(sidecar.stderr()).toContain('huge pages were required, and there are too few');
  expect(sidecar.stderr()).toContain(`echo 4 | sudo tee ${POOL}/nr_hugepages`);
});
