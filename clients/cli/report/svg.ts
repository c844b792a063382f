// svg.ts — drawings over one axis of time: bands, bars, steps and dots, as text. Each has a title, which a browser shows under the mouse.
import type { Step } from './story.ts';

export const WIDTH = 1180;
export const LEFT = 150;
const RIGHT = 12;
export const PLOT = WIDTH - LEFT - RIGHT;
const AXIS = 22;

/** What stands in a page cannot leave its place; what XML does not allow at all is a question mark. */
export function escaped(text: string): string {
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '?')
    .replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);
}

export class Axis {
  readonly durationUs: number;

  constructor(durationUs: number) {
    this.durationUs = durationUs;
  }

  x(us: number): number {
    return round(LEFT + (PLOT * Math.min(Math.max(us, 0), this.durationUs)) / this.durationUs);
  }

  /** At most twelve, at 1, 2 or 5 times a power of ten. */
  ticks(): { us: number; label: string }[] {
    const raw = this.durationUs / 12;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 5, 10].find((factor) => power * factor >= raw)!;
    return Array.from({ length: Math.floor(this.durationUs / step) + 1 }, (_, i) => ({ us: i * step, label: labelOf(i * step, step) }));
  }

  /** Lines through the whole drawing, and the times below it. */
  drawn(height: number): string {
    return this.ticks()
      .map(({ us, label }) => `<line class="grid" x1="${this.x(us)}" x2="${this.x(us)}" y1="0" y2="${height}"/><text class="tick" x="${this.x(us)}" y="${height + 15}">${label}</text>`)
      .join('');
  }
}

export function drawing(name: string, axis: Axis, height: number, inside: string): string {
  return `<svg role="img" aria-label="${escaped(name)}" viewBox="0 0 ${WIDTH} ${height + AXIS}" width="${WIDTH}" height="${height + AXIS}">${axis.drawn(height)}${inside}</svg>`;
}

export function label(text: string, y: number): string {
  return `<text class="label" x="${LEFT - 8}" y="${y}">${escaped(text.length > 22 ? `${text.slice(0, 21)}…` : text)}<title>${escaped(text)}</title></text>`;
}

export function bar(axis: Axis, fromUs: number, toUs: number, y: number, height: number, kind: string, title: string): string {
  const x = axis.x(fromUs);
  return `<rect class="${kind}" x="${x}" y="${round(y)}" width="${Math.max(1, round(axis.x(toUs) - x))}" height="${round(height)}"><title>${escaped(title)}</title></rect>`;
}

/** A line that holds its value until the next. */
export function steps(axis: Axis, values: readonly Step[], top: number, height: number, max: number, kind: string): string {
  const y = (value: number): number => round(top + height - (height * value) / Math.max(1, max));
  let path = `M${LEFT} ${y(0)}`;
  for (const { atUs, value } of values) path += `H${axis.x(atUs)}V${y(value)}`;
  return `<path class="${kind}" d="${path}H${LEFT + PLOT}"/>`;
}

export function round(value: number): number {
  return Math.round(value * 10) / 10;
}

function labelOf(us: number, step: number): string {
  if (step >= 60_000_000) return `${round(us / 60_000_000)} min`;
  if (step >= 100_000) return `${round(us / 1_000_000)} s`;
  return us === 0 ? '0 ms' : `${round(us / 1000)} ms`;
}
