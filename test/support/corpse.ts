// corpse.ts — what is left of a process, from /proc. A killed sidecar with a call in the kernel is a zombie whose stuck threads
// stay; nobody can reap it before they come back.

import { readdirSync, readFileSync } from 'node:fs';
import { expect } from 'vitest';

const GONE_MS = 15_000;

/** Reaped, or a zombie without threads: that is an init that does not reap, and costs a number. */
export function isGone(pid: number): boolean {
  try {
    return readdirSync(`/proc/${pid}/task`).length === 1 && 'ZX'.includes(stateIn(`/proc/${pid}/stat`));
  } catch {
    return true;
  }
}

/** The states of its threads, as in "Z:1 D:3", for a measured line. */
export function statesOf(pid: number): string {
  const counts = new Map<string, number>();
  try {
    for (const tid of readdirSync(`/proc/${pid}/task`)) {
      const state = stateIn(`/proc/${pid}/task/${tid}/stat`);
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
  } catch {
    // it has left meanwhile
  }
  return [...counts].map(([state, count]) => `${state}:${count}`).join(' ') || 'gone';
}

/** For after a resume: nothing of these processes may stay. Returns the milliseconds this took. */
export async function expectGone(...pids: number[]): Promise<number> {
  const began = performance.now();
  await expect.poll(() => pids.filter((pid) => !isGone(pid)).map((pid) => `${pid} ${statesOf(pid)}`), { timeout: GONE_MS, interval: 5 }).toEqual([]);
  return performance.now() - began;
}

function stateIn(file: string): string {
  return /\) (\w) /.exec(readFileSync(file, 'utf8'))?.[1] ?? '?';
}
