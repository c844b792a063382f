// units.ts — quantities as people say them: 1.3 ms, 64 MiB, 12 s ago.

/** 0.42 ms · 3.1 ms · 250 ms · 1.84 s · 75 s · 4 min 10 s · 3 h 2 min · 2 d 4 h */
export function duration(ms: number): string {
  if (ms < 0) return `-${duration(-ms)}`;
  if (ms < 1000) return `${trimmed(ms, ms < 1 ? 2 : ms < 100 ? 1 : 0)} ms`;
  const s = ms / 1000;
  if (s < 100) return `${trimmed(s, s < 10 ? 2 : 1)} s`;
  const whole = Math.round(s);
  if (whole < 3600) return pair(whole, 60, 'min', 's');
  const minutes = Math.round(s / 60);
  if (minutes < 24 * 60) return pair(minutes, 60, 'h', 'min');
  return pair(Math.round(s / 3600), 24, 'd', 'h');
}

/** 812 bytes · 64 KiB · 1.5 MiB */
export function size(bytes: number): string {
  if (Math.abs(bytes) < 1024) return `${bytes} ${bytes === 1 ? 'byte' : 'bytes'}`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes / 1024;
  let unit = 0;
  for (; Math.abs(value) >= 1023.95 && unit < units.length - 1; unit += 1) value /= 1024;
  return `${trimmed(value, 1)} ${units[unit]}`;
}

/** For events in a second: 0.3 · 99.9 · 1235 · 250k */
export function rate(perSecond: number): string {
  if (perSecond >= 100_000) return `${Math.round(perSecond / 1000)}k`;
  return perSecond >= 100 || perSecond === 0 ? String(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function count(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`;
}

/** 1, 2, 3, 7 → 1-3, 7 */
export function ranges(numbers: readonly number[]): string {
  const sorted = [...new Set(numbers)].sort((a, b) => a - b);
  const parts: string[] = [];
  for (let i = 0; i < sorted.length; ) {
    let end = i;
    while (sorted[end + 1] === sorted[end]! + 1) end += 1;
    parts.push(end === i ? `${sorted[i]}` : `${sorted[i]}-${sorted[end]}`);
    i = end + 1;
  }
  return parts.join(', ');
}

function trimmed(value: number, digits: number): string {
  return value.toFixed(digits).replace(/\.0+$|(\.\d*?)0+$/, '$1');
}

function pair(value: number, base: number, big: string, small: string): string {
  const rest = value % base;
  return `${Math.floor(value / base)} ${big}${rest === 0 ? '' : ` ${rest} ${small}`}`;
}
