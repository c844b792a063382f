// The page of `kvlane report` in a real browser: what is drawn is there to be seen, in its place, and the page asks for nothing.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, onTestFinished, test } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { openPage, type Page } from '../support/browser.ts';
import { HANG_LINES, linesOf } from '../support/records.ts';

/** `kvlane report` of these lines, opened. */
async function opened(lines: readonly string[]): Promise<Page & { url: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'kvlane-report-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const record = join(directory, 'bug.ndjson');
  writeFileSync(record, lines.map((line) => `${line}\n`).join(''));
  const { status, stderr } = spawnSync(process.execPath, [sidecarMain(), 'report', record], { encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, `kvlane report: ${record}.html\n`]);
  const url = pathToFileURL(`${record}.html`).href;
  return Object.assign(await openPage(url), { url });
}

test('a hang is drawn where it was, to be seen; nothing is asked for, and the console is silent', async () => {
  const page = await opened(linesOf(...HANG_LINES));
  expect(await page.is('document.compatMode')).toBe('CSS1Compat');
  expect(await page.is('document.title')).toMatch(/^kvlane: .*bug\.ndjson$/);
  expect(await page.is("[...document.querySelectorAll('h3')].map((one) => one.textContent)")).toEqual(['Mounts', 'Requests by how they ended', 'Latency', 'What the kernel held', 'Lanes that were stuck', 'Requests']);
  expect(await page.is("document.querySelector('ul').textContent")).toContain('kv0 load was suspended at 2.3 s for 6.8 s');

  // The band of the suspension: from 2.3 s to 9.1 s of ten, in the plot, in a colour of its own.
  const bands = (await page.is(`[...document.querySelectorAll('svg[aria-label="state of each mount and class"] rect')].map((bar) => {
    const { left, width, height } = bar.getBoundingClientRect();
    return { kind: bar.getAttribute('class'), left, width, height, fill: getComputedStyle(bar).fill, title: bar.textContent };
  })`)) as { kind: string; left: number; width: number; height: number; fill: string; title: string }[];
  expect(bands.map(({ kind }) => kind)).toEqual(['state ok', 'state suspended', 'state ok']);
  expect(bands.every(({ height }) => height > 5)).toBe(true);
  const [before, band, after] = bands as [typeof bands[0], typeof bands[0], typeof bands[0]];
  expect(band.width / (before.width + band.width + after.width)).toBeCloseTo(0.68, 1);
  expect(band.left).toBeCloseTo(before.left + before.width, 0);
  expect(band.fill).not.toBe(before.fill);
  expect(band.title).toContain('kv0 load: suspended');

  // Whatever is drawn lies in its drawing, has a colour, and the page is no wider than the window.
  const drawn = (await page.is(`[...document.querySelectorAll('svg[role]')].map((svg) => {
    const around = svg.getBoundingClientRect();
    const marks = [...svg.querySelectorAll('rect, circle, path, line, text')];
    const outside = marks.filter((mark) => { const { left, right, top, bottom } = mark.getBoundingClientRect(); return left < around.left - 2 || right > around.right + 2 || top < around.top - 12 || bottom > around.bottom + 2; });
    const unseen = marks.filter((mark) => { const style = getComputedStyle(mark); return style.visibility !== 'visible' || style.display === 'none' || (style.fill === 'none' && style.stroke === 'none'); });
    return { name: svg.getAttribute('aria-label'), marks: marks.length, outside: outside.map((one) => one.outerHTML), unseen: unseen.map((one) => one.outerHTML) };
  })`)) as { name: string; marks: number; outside: string[]; unseen: string[] }[];
  expect(drawn).toHaveLength(6);
  for (const { name, marks, outside, unseen } of drawn) expect({ name, some: marks > 3, outside, unseen }).toEqual({ name, some: true, outside: [], unseen: [] });
  expect(await page.is('document.documentElement.scrollWidth <= innerWidth')).toBe(true);

  expect(await page.is("document.querySelectorAll('details[open] table').length")).toBe(4);
  expect(page.requests).toEqual([page.url]);
  expect(page.complaints).toEqual([]);
  expect((await page.picture()).subarray(1, 4).toString()).toBe('PNG');
});

test('what a client wrote is text in the browser, too: no element comes of it, nothing of it runs, nothing is fetched', async () => {
  const evil = '</text></svg></style><script>window.evil=1</script><img src=x onerror="window.evil=2"><a href="javascript:window.evil=3">"\'&\u0000\u001b\ud800';
  const lines = linesOf(
    [1, 'client', { message: { id: evil, op: evil, mount: evil, keys: [evil] } }],
    [2, 'sidecar', { message: { event: 'mount', mount: evil, class: evil, state: evil, was: evil, reason: evil } }],
    [3, 'sidecar', { message: { event: 'stalled', mount: evil, class: evil, phase: evil, syscall: evil, key: evil, tid: 5, since_us: 1 } }],
    [4, 'log', { message: { level: evil, event: evil, more: evil } }],
    [5, 'sidecar', { message: { id: evil, ok: false, error: { code: evil } } }],
  );
  const page = await opened(lines);
  expect(await page.is('window.evil === undefined')).toBe(true);
  expect(await page.is("document.querySelectorAll('script, img, a, iframe, link, object, [onerror], [href]').length")).toBe(0);
  expect(await page.is("document.querySelectorAll('svg[role]').length")).toBe(6);
  expect(await page.is("document.body.textContent.includes('<script>window.evil=1</script>')")).toBe(true);
  expect(page.requests).toEqual([page.url]);
  expect(page.complaints).toEqual([]);
});
