// corpse.ts — what is left of a process, from /proc. A killed sidecar with a call in the kernel is a zombie whose stuck threads
// stay; nobody can reap it before they come back. With transfers of native AIO in flight it is the process that keeps its address
// space (keeper.h) which stays, an orphan in exit_aio.
//
// Surprising: a look at it may hang. Reading stat, status or cmdline holds the other's memory for a moment, and whoever holds it last
// waits for its IO. So each is read only of a task without memory, which the link to its program tells without holding anything.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { expect } from 'vitest';

const GONE_MS = 15_000;

/** Reaped, or a zombie without threads: that is an init that does not reap, and costs a number. */
export function isGone(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).length === 1 && 'ZX'.includes(stateOf(`/proc/${pid}`));
  } catch {
    return true;
  }
}

/** A process and its children, to be asked while it lives. */
export function familyOf(pid: number): number[] {
  const children = readdirSync(`/proc/${pid}/task`).flatMap((tid) => readIf(`/proc/${pid}/task/${tid}/children`).split(' '));
  return [pid, ...children.filter((child) => child !== '').map(Number)];
}

/** Nothing stays that could leave: they have given their memory back, or keep that of a corpse. */
export async function expectLeft(...pids: number[]): Promise<void> {
  const staying = (): string[] => pids.filter((pid) => hasMemory(`/proc/${pid}`) && readIf(`/proc/${pid}/comm`) !== 'kv-keeper\n').map((pid) => `${pid} ${statesOf(pid)}`);
  await expect.poll(staying, { timeout: GONE_MS, interval: 5 }).toEqual([]);
}

/** The states of their threads, as in "Z:1 D:3", for a measured line; M of one that still has its memory. */
export function statesOf(...pids: number[]): string {
  const counts = new Map<string, number>();
  for (const pid of pids) {
    try {
      for (const tid of readdirSync(`/proc/${pid}/task`)) {
        const state = stateOf(`/proc/${pid}/task/${tid}`);
        counts.set(state, (counts.get(state) ?? 0) + 1);
      }
    } catch {
      // it has left meanwhile
    }
  }
  return [...counts].map(([state, count]) => `${state}:${count}`).join(' ') || 'gone';
}

/** For after a resume: nothing of these processes may stay. Returns the milliseconds this took. */
export async function expectGone(...pids: number[]): Promise<number> {
  const began = performance.now();
  await expect.poll(() => pids.filter((pid) => !isGone(pid)).map((pid) => `${pid} ${statesOf(pid)}`), { timeout: GONE_MS, interval: 5 }).toEqual([]);
  return performance.now() - began;
}

function readIf(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}

function hasMemory(task: string): boolean {
  try {
    readlinkSync(`${task}/exe`);
    return true;
  } catch {
    return false;
  }
}

function stateOf(task: string): string {
  return hasMemory(task) ? 'M' : (/\) (\w) /.exec(readFileSync(`${task}/stat`, 'utf8'))?.[1] ?? '?');
}
