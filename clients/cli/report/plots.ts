// plots.ts — a story → its drawings. What is many is put together by columns of the plot, so that a record of a million requests makes a page
// of the same size as one of a thousand; what is drawn one by one says of how many.
import { duration } from '../text/units.ts';
import { bar, drawing, escaped, label, LEFT, PLOT, round, steps, type Axis } from './svg.ts';
import { ENDS, stuckSteps, type Asked, type End, type Story } from './story.ts';

/** Columns in which requests are counted. */
const COLUMNS = 240;
/** Drawn one by one: the slowest, and those that ended badly. */
export const DRAWN_MAX = 400;
/** Classes of the style sheet. */
const STATES = new Set(['ok', 'suspended', 'probing', 'unknown']);
/** Lanes of their own row. */
const LANES_MAX = 80;
const ms = (us: number): string => duration(us / 1000);

/** State of every mount and class that ever changed. */
export function states(story: Story, axis: Axis): string {
  const ROW = 20;
  const rows = [...story.bands].sort(([a], [b]) => (a < b ? -1 : 1));
  const inside = rows.map(([name, bands], i) => {
    const y = i * ROW;
    return label(name, y + 14) + bands.map(({ state, reason, fromUs, toUs }) => bar(axis, fromUs, toUs, y + 3, ROW - 6, `state ${STATES.has(state) ? state : 'unknown'}`, `${name}: ${state} from ${ms(fromUs)} for ${ms(toUs - fromUs)}${reason === '' ? '' : `\n${reason}`}`)).join('');
  });
  return drawing('state of each mount and class', axis, rows.length * ROW, inside.join(''));
}

/** Requests by how they ended, stacked, one bar a column. */
export function traffic(story: Story, axis: Axis): string {
  const HEIGHT = 120;
  const counts = Array.from({ length: COLUMNS }, () => new Map<End, number>());
  for (const { toUs, end } of story.asked) {
    const column = counts[columnOf(toUs, axis)]!;
    column.set(end, (column.get(end) ?? 0) + 1);
  }
  const most = Math.max(1, ...counts.map((column) => [...column.values()].reduce((sum, n) => sum + n, 0)));
  const wide = axis.durationUs / COLUMNS;
  const inside = counts.map((column, i) => {
    let y = HEIGHT;
    return ENDS.filter((end) => column.has(end)).map((end) => {
      const n = column.get(end)!;
      const height = (HEIGHT * n) / most;
      y -= height;
      return bar(axis, i * wide, (i + 1) * wide, y, height, `end ${end}`, `${n} ${end}, from ${ms(i * wide)} to ${ms((i + 1) * wide)}`);
    }).join('');
  });
  return drawing('requests by how they ended', axis, HEIGHT, label(`${most} in ${ms(wide)}`, 12) + inside.join(''));
}

/** For each op and column the median and the slowest, on a scale of powers of ten. */
export function latencies(story: Story, axis: Axis, ops: readonly string[]): string {
  const HEIGHT = 220;
  const FLOOR_US = 10;
  const answered = story.asked.filter((one) => one.end !== 'unanswered');
  const ceiling = 10 ** Math.ceil(Math.log10(answered.reduce((most, { fromUs, toUs }) => Math.max(most, toUs - fromUs), 1_000)));
  const y = (us: number): number => round(HEIGHT - (HEIGHT * Math.log(Math.max(us, FLOOR_US) / FLOOR_US)) / Math.log(ceiling / FLOOR_US));
  let inside = '';
  for (let us = FLOOR_US; us <= ceiling; us *= 10) inside += `<line class="grid" x1="${LEFT}" x2="${LEFT + PLOT}" y1="${y(us)}" y2="${y(us)}"/>${label(ms(us), y(us) + (us === ceiling ? 10 : 4))}`;
  for (const op of ops) {
    const columns = Array.from({ length: COLUMNS }, (): number[] => []);
    for (const one of answered) if (one.op === op) columns[columnOf(one.toUs, axis)]!.push(one.toUs - one.fromUs);
    columns.forEach((times, i) => {
      if (times.length === 0) return;
      times.sort((a, b) => a - b);
      const median = times[times.length >> 1]!;
      const slowest = times.at(-1)!;
      const x = round(LEFT + ((i + 0.5) * PLOT) / COLUMNS);
      const title = `<title>${escaped(op)}: median ${ms(median)}, slowest ${ms(slowest)} of ${times.length}</title>`;
      const kind = kindOf(op);
      inside += `<g class="${kind}"><line x1="${x}" x2="${x}" y1="${y(median)}" y2="${y(slowest)}"/><circle cx="${x}" cy="${y(median)}" r="2.2"/><circle class="slowest" cx="${x}" cy="${y(slowest)}" r="1.6"/>${title}</g>`;
    });
  }
  return drawing('latency of requests', axis, HEIGHT, inside);
}

/** How many calls are stuck, and how many slots wait for the kernel. */
export function held(story: Story, axis: Axis): string {
  const HEIGHT = 70;
  const stuck = stuckSteps(story.stuck);
  const max = [...stuck, ...story.quarantined].reduce((most, { value }) => Math.max(most, value), 1);
  return drawing('stuck calls and quarantined slots', axis, HEIGHT, label(String(max), 10) + label('0', HEIGHT) + steps(axis, stuck, 0, HEIGHT, max, 'line stuck') + steps(axis, story.quarantined, 0, HEIGHT, max, 'line quarantined'));
}

/** A row for each lane that was ever stuck, a bar for each of its calls. */
export function lanes(story: Story, axis: Axis): string {
  const ROW = 16;
  const tids = [...new Set(story.stuck.map((call) => call.tid))].slice(0, LANES_MAX);
  const inside = tids.map((tid, i) => {
    const calls = story.stuck.filter((call) => call.tid === tid);
    const bars = calls.map((call) => bar(axis, call.fromUs, call.toUs, i * ROW + 2, ROW - 4, `call ${kindOf(call.class)}${call.over ? '' : ' open'}`, `lane ${tid}: ${call.class} on ${call.mount}, ${call.syscall} in ${call.phase} for ${ms(call.toUs - call.fromUs)}${call.over ? '' : ' and longer'}\n${call.key}`));
    return label(`${calls[0]!.mount} ${calls[0]!.class} ${tid}`, i * ROW + 12) + bars.join('');
  });
  return drawing('lanes and their stuck calls', axis, Math.max(1, tids.length) * ROW, inside.join(''));
}

/** One by one, packed into as few rows as it takes. */
export function requests(story: Story, axis: Axis): string {
  const ROW = 7;
  const shown = worthwhile(story.asked).sort((a, b) => a.fromUs - b.fromUs);
  const free: number[] = []; // until when each row is taken
  const inside = shown.map((one) => {
    let row = free.findIndex((until) => until <= one.fromUs);
    if (row < 0) row = free.length;
    free[row] = Math.max(one.toUs, one.fromUs + (2 * axis.durationUs) / PLOT);
    return bar(axis, one.fromUs, one.toUs, row * ROW + 1, ROW - 2, `end ${one.end}`, titleOf(one));
  });
  return drawing('requests one by one', axis, Math.max(1, free.length) * ROW, inside.join(''));
}

export function worthwhile(asked: readonly Asked[]): Asked[] {
  const rank = (one: Asked): number => (one.end === 'ok' || one.end === 'miss' ? 0 : 1e12) + (one.toUs - one.fromUs);
  return [...asked].sort((a, b) => rank(b) - rank(a)).slice(0, DRAWN_MAX);
}

export function titleOf({ id, op, mount, blocks, fromUs, toUs, end, codes }: Asked): string {
  const failed = Object.entries(codes).map(([code, n]) => `${n} ${code}`).join(', ');
  return `${op} ${id}${mount === '' ? '' : ` on ${mount}`}, ${blocks} blocks: ${end} after ${ms(toUs - fromUs)}, asked at ${ms(fromUs)}${failed === '' ? '' : `\n${failed}`}`;
}

/** A class of the style sheet; what is not one of ours is drawn as other. */
export function kindOf(op: string): string {
  return ['load', 'store', 'lookup', 'remove', 'metadata'].includes(op) ? op : 'other';
}

function columnOf(us: number, axis: Axis): number {
  return Math.min(COLUMNS - 1, Math.floor((us * COLUMNS) / axis.durationUs));
}
