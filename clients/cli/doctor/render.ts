// render.ts — findings as people read them, worst first, and as a script does.
import { VERSION } from '../../../protocol/messages.ts';
import { columns } from '../text/table.ts';
import { harmlessJson, oneLine } from '../text/colour.ts';
import type { Colours } from '../text/colour.ts';
import { duration } from '../text/units.ts';
import { isFit, worstFirst } from './findings.ts';
import type { Finding, Level } from './findings.ts';
import type { MountEntry } from './mountinfo.ts';
import type { Measure } from './probe.ts';

/** Of --json; counts up when a field changes its meaning or goes. */
export const DOCTOR_FORMAT = 1;

export type Verdict = 'fit' | 'not_fit' | 'unknown';

export interface Report {
  directory: string;
  mount: MountEntry | null;
  findings: readonly Finding[];
  measures: readonly Measure[];
  /** False: the probe could not be made, and this says nothing about the mount. */
  looked: boolean;
  tookMs: number;
}

export function verdictOf({ findings, looked }: Pick<Report, 'findings' | 'looked'>): Verdict {
  return !isFit(findings) ? 'not_fit' : looked ? 'fit' : 'unknown';
}

const SAYS: Record<Verdict, string> = { fit: 'fit', not_fit: 'NOT FIT', unknown: 'could not be told' };

export function asText(report: Report, colours: Colours): string {
  const paint: Record<Level, (text: string) => string> = { bad: colours.bad, warn: colours.warn, note: colours.key, ok: colours.good };
  const verdict = verdictOf(report);
  const counts = (['bad', 'warn', 'note'] as const).flatMap((level) => {
    const n = report.findings.filter((finding) => finding.level === level).length;
    return n === 0 ? [] : [`${n} ${level}`];
  });
  const lines = [`${colours.bold(oneLine(report.directory))}: ${(verdict === 'fit' ? colours.good : colours.bad)(SAYS[verdict])}${counts.length === 0 ? '' : ` (${counts.join(', ')})`}, looked at for ${duration(report.tookMs)}`, ''];
  for (const { level, what, why, do: todo } of worstFirst(report.findings)) {
    lines.push(`${paint[level](level.padEnd(4))}  ${oneLine(what)}`);
    if (level === 'ok') continue; // why it is good is in --json
    if (why !== '') lines.push(`      ${oneLine(why)}`);
    if (todo !== '') lines.push(`      ${colours.bold('do:')} ${oneLine(todo)}`);
  }
  if (report.measures.length > 0) {
    lines.push('', 'the probe, in time for one call:');
    const time = (us: number): string => (us < 1000 ? `${us} µs` : duration(us / 1000));
    lines.push(...columns([['', 'calls', 'least', 'median', 'most'], ...report.measures.map((one) => [one.name, String(one.calls), time(one.leastUs), time(one.medianUs), time(one.mostUs)])]));
  }
  return `${lines.join('\n')}\n`;
}

export function asJson(report: Report): string {
  const { mount } = report;
  return `${harmlessJson(JSON.stringify({
    format: DOCTOR_FORMAT,
    version: VERSION,
    directory: report.directory,
    verdict: verdictOf(report),
    fit: verdictOf(report) === 'fit',
    took_ms: Math.round(report.tookMs),
    mount: mount === null ? null : { point: mount.point, type: mount.type, source: mount.source, device: mount.device, options: [...mount.options].map(([name, value]) => (value === true ? name : `${name}=${value}`)) },
    findings: worstFirst(report.findings),
    probe: report.measures.map((one) => ({ name: one.name, calls: one.calls, least_us: one.leastUs, median_us: one.medianUs, most_us: one.mostUs })),
  }, null, 2))}\n`;
}
