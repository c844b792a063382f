// page.ts — lives → one HTML page that needs nothing else: no script, no font, no picture from elsewhere. It is well-formed XML besides, which
// is how a test reads it.
import { count, duration } from '../text/units.ts';
import type { Life } from '../record/format.ts';
import { DRAWN_MAX, held, kindOf, lanes, latencies, requests, states, traffic, worthwhile } from './plots.ts';
import { STYLE } from './style.ts';
import { ENDS, storyOf, word, type Asked, type Story } from './story.ts';
import { Axis, escaped } from './svg.ts';

const ROWS_MAX = 50;
const LOG_MAX = 200;
const ms = (us: number): string => duration(us / 1000);

export function pageOf(name: string, lives: readonly Life[], damaged: number): string {
  const parts = lives.map((life, index) => partOf(life, lives.length > 1 ? `Life ${index + 1} of ${lives.length}` : 'The conversation'));
  const warning = damaged === 0 ? '' : `<p class="bad">${count(damaged, 'line')} of the file could not be read, and ${damaged === 1 ? 'is' : 'are'} left out.</p>`;
  return `<!DOCTYPE html>
<html lang="en" xmlns="http://www.w3.org/1999/xhtml">
<head><meta charset="utf-8"/><meta name="viewport" content="width=device-width"/><meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"/><title>kvlane: ${escaped(name)}</title><style>${STYLE}</style></head>
<body><h1>kvlane <span>${escaped(name)}</span></h1>${warning}${parts.join('')}</body>
</html>
`;
}

function partOf(life: Life, title: string): string {
  const story = storyOf(life);
  const axis = new Axis(story.durationUs);
  const ops = [...new Set(story.asked.map((one) => one.op))];
  const { head } = life;
  const sections = [
    `<h2>${title}</h2>`,
    `<p>${escaped(head.began)}, ${ms(story.durationUs)}: <code>${escaped(head.command.join(' '))}</code><br/>kvlane ${escaped(word(head.version))}, ${escaped(word(head.system))}, node ${escaped(word(head.node))}</p>`,
    summary(story),
    section('Mounts', story.bands.size === 0 ? '<p>No mount changed its state.</p>' : states(story, axis), legend(['state ok', 'ok'], ['state suspended', 'suspended: refused at once'], ['state probing', 'probing'], ['state unknown', 'nothing asked yet'])),
    section('Requests by how they ended', traffic(story, axis), legend(...ENDS.map((end): [string, string] => [`end ${end}`, end]))),
    section('Latency', latencies(story, axis, ops), legend(...ops.map((op): [string, string] => [kindOf(op), `${op}: median and slowest`]))),
    section('What the kernel held', story.stuck.length === 0 && story.quarantined.length === 0 ? '<p>Nothing was stuck.</p>' : held(story, axis), legend(['line stuck', 'stuck calls'], ['line quarantined', 'quarantined slots'])),
    story.stuck.length === 0 ? '' : section('Lanes that were stuck', lanes(story, axis), legend(['call load', 'load'], ['call store', 'store'], ['call metadata', 'metadata'])),
    section(story.asked.length > DRAWN_MAX ? `Requests: ${DRAWN_MAX} of ${story.asked.length}, those that ended badly and the slowest` : 'Requests', requests(story, axis), ''),
    tables(story),
  ];
  return `<section>${sections.join('\n')}</section>`;
}

function section(title: string, drawn: string, below: string): string {
  return `<h3>${escaped(title)}</h3>${drawn}${drawn.startsWith('<p>') ? '' : below}`;
}

function legend(...entries: [kind: string, text: string][]): string {
  return `<p class="legend">${entries.map(([kind, text]) => `<span><svg width="14" height="10"><rect class="${kind}" width="14" height="10"/></svg> ${escaped(text)}</span>`).join(' ')}</p>`;
}

/** What one wants to know first: was anything suspended, for how long, and what became of the requests. */
function summary(story: Story): string {
  const lines: string[] = [];
  const { ready } = story;
  if (ready === null) lines.push('It never became ready, or the record begins later.');
  for (const [name, bands] of story.bands) {
    for (const { state, reason, fromUs, toUs } of bands) if (state === 'suspended') lines.push(`<b class="bad">${escaped(name)}</b> was suspended at ${ms(fromUs)} for ${ms(toUs - fromUs)}: ${escaped(reason)}`);
  }
  if (story.stuck.length > 0) {
    const longest = story.stuck.reduce((a, b) => (b.toUs - b.fromUs > a.toUs - a.fromUs ? b : a));
    lines.push(`${count(story.stuck.length, 'call')} sat in the kernel too long, the longest for ${ms(longest.toUs - longest.fromUs)}${longest.over ? '' : ' and longer'} (${escaped(longest.syscall)} in ${escaped(longest.phase)} of ${escaped(longest.key || longest.mount)}).`);
  }
  const ends = ENDS.flatMap((end) => {
    const n = story.asked.filter((one) => one.end === end).length;
    return n === 0 ? [] : [`${n} ${end}`];
  });
  lines.push(`${count(story.asked.length, 'request')}${ends.length === 0 ? '' : `: ${ends.join(', ')}`}.`);
  for (const { atUs, text } of story.notes) lines.push(`At ${ms(atUs)}: ${escaped(text)}.`);
  return `<ul>${lines.map((line) => `<li>${line}</li>`).join('')}</ul>`;
}

function tables(story: Story): string {
  const changes = [...story.bands].flatMap(([name, bands]) => bands.slice(1).map((band) => ({ name, ...band }))).sort((a, b) => a.fromUs - b.fromUs);
  const slowest = worthwhile(story.asked).slice(0, ROWS_MAX);
  const told = story.log.filter(({ level }) => level !== 'info').slice(0, LOG_MAX);
  return [
    table('Changes of state', ['at', 'mount and class', 'became', 'for', 'because'], changes.slice(0, ROWS_MAX).map((one) => [ms(one.fromUs), one.name, one.state, ms(one.toUs - one.fromUs), one.reason]), changes.length),
    table('Stuck calls', ['since', 'for', 'lane', 'mount', 'class', 'phase', 'system call', 'key'], story.stuck.slice(0, ROWS_MAX).map((one) => [ms(one.fromUs), `${ms(one.toUs - one.fromUs)}${one.over ? '' : '…'}`, String(one.tid), one.mount, one.class, one.phase, one.syscall, one.key]), story.stuck.length),
    table('Requests that ended badly, and the slowest', ['asked', 'took', 'request', 'ended', 'blocks', 'codes'], slowest.map((one) => [ms(one.fromUs), ms(one.toUs - one.fromUs), `${one.op} ${one.id}`, one.end, String(one.blocks), codesOf(one)]), story.asked.length),
    table('Its log, from warnings on', ['at', 'level', 'says'], told.map((one) => [ms(one.atUs), one.level, one.text]), story.log.filter(({ level }) => level !== 'info').length),
  ].join('\n');
}

function codesOf({ codes }: Asked): string {
  return Object.entries(codes).map(([code, n]) => `${n} ${code}`).join(', ');
}

function table(title: string, heads: string[], rows: string[][], all: number): string {
  if (rows.length === 0) return '';
  const cells = (tag: string, texts: string[]): string => `<tr>${texts.map((text) => `<${tag}>${escaped(text)}</${tag}>`).join('')}</tr>`;
  const more = all > rows.length ? ` <span>(${rows.length} of ${all})</span>` : '';
  return `<details open="open"><summary>${escaped(title)}${more}</summary><table><thead>${cells('th', heads)}</thead><tbody>${rows.map((row) => cells('td', row)).join('')}</tbody></table></details>`;
}

