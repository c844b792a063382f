// costs.ts — what a sidecar costs the machine, from /proc, and whether that grows in proportion.
//
// Judged are counts: threads, descriptors, bytes. Time is printed, and judged by bounds that only a wrong order of growth would pass.

import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface Cost {
  threads: number;
  /** Lanes have descriptor tables of their own: all of them, each once. */
  descriptors: number;
  /** Its share of what it has in memory (PSS): shared pages of several sidecars are not counted twice. */
  memoryKib: number;
  cpuMs: number;
}

const TICK_MS = 10; // USER_HZ is 100 on every Linux that we run on

function descriptorsIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // a thread that has left meanwhile
  }
}

/** Of a living process; a dying one is never asked (reading its stat may wait for what it waits for). */
export function costOf(pid: number): Cost {
  const tasks = readdirSync(`/proc/${pid}/task`);
  const tables = new Map<string, number>(); // threads that share a table have the same descriptors in it
  for (const task of tasks) {
    const all = descriptorsIn(`/proc/${pid}/task/${task}/fd`);
    const links = all.map((fd) => {
      try {
        return `${fd} ${readlinkSync(`/proc/${pid}/task/${task}/fd/${fd}`)}`;
      } catch {
        return fd;
      }
    });
    let name = '';
    try {
      name = readFileSync(`/proc/${pid}/task/${task}/comm`, 'utf8');
    } catch {
      continue; // it has left
    }
    tables.set(name.startsWith('kv') ? task : links.join('\n'), all.length); // a lane has a table of its own
  }
  const kib = Number(/^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? NaN);
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /, '').split(' ');
  return { threads: tasks.length, descriptors: [...tables.values()].reduce((sum, one) => sum + one, 0), memoryKib: kib, cpuMs: (Number(stat[11]) + Number(stat[12])) * TICK_MS };
}

export interface Point {
  n: number;
  value: number;
}

export interface Allowed {
  /** For one more of what is counted, at most. */
  perUnit: number;
  /** Noise of the whole: what the value may differ by without any growth. */
  slack: number;
}

/** From one size to the next, one more unit may cost what one cost before, and half as much again. */
const STEEPER_MAX = 1.5;

/** null, or a sentence: it grows faster than in proportion, or by more for each than it may. */
export function complaint(what: string, points: readonly Point[], { perUnit, slack }: Allowed): string | null {
  const [first] = points;
  for (const [i, { n, value }] of points.entries()) {
    if (!first || i === 0) continue;
    if (!Number.isFinite(value)) return `${what} at ${n} is not known`;
    const grown = value - first.value;
    if (grown > perUnit * (n - first.n) + slack) return `${what} grew by ${grown} from ${first.n} to ${n}: more than ${perUnit} for each, and ${slack}`;
    const [before, last] = [points[i - 2], points[i - 1]!];
    if (!before) continue;
    const earlier = Math.max(0, last.value - before.value) / (last.n - before.n);
    const allowed = STEEPER_MAX * earlier * (n - last.n) + slack;
    if (value - last.value > allowed) return `${what} grows faster than in proportion: by ${last.value - before.value} from ${before.n} to ${last.n}, by ${value - last.value} from ${last.n} to ${n}`;
  }
  return null;
}

export function complaints(sizes: readonly number[], costs: readonly Cost[], allowed: Partial<Record<keyof Cost, Allowed>>): string[] {
  const said = (Object.keys(allowed) as (keyof Cost)[]).map((what) => complaint(what, sizes.map((n, i) => ({ n, value: costs[i]![what] })), allowed[what]!));
  return said.filter((one) => one !== null);
}

export function sum(costs: readonly Cost[]): Cost {
  const total: Cost = { threads: 0, descriptors: 0, memoryKib: 0, cpuMs: 0 };
  for (const one of costs) for (const what of Object.keys(total) as (keyof Cost)[]) total[what] += one[what];
  return total;
}

/** One line of the table: `npm run scale` collects those that begin so. */
export function row(what: string, n: number | string, cost: Cost | null, more = ''): void {
  const cells = cost ? [cost.threads, cost.descriptors, (cost.memoryKib / 1024).toFixed(1), cost.cpuMs] : ['', '', '', ''];
  console.log(`SCALE | ${[what, n, ...cells, more].join(' | ')} |`);
}
