// A record as a page: what is told of a hang, and that the page holds whatever the record holds.
import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { LivesReader, type Life } from '../../clients/cli/record/format.ts';
import { pageOf } from '../../clients/cli/report/page.ts';
import { DRAWN_MAX } from '../../clients/cli/report/plots.ts';
import { endOf, storyOf, stuckSteps } from '../../clients/cli/report/story.ts';
import { Axis, escaped } from '../../clients/cli/report/svg.ts';
import { HANG_LINES, linesOf, message, SECOND, type Line } from '../support/records.ts';

/** A record of one life, from what was said when. */
function recordOf(...said: Line[]): Life {
  const reader = new LivesReader();
  for (const line of linesOf(...said)) reader.line(line);
  return reader.lives[0]!;
}
const HANG = recordOf(...HANG_LINES);

describe('the story of a hang', () => {
  const story = storyOf(HANG);

  test('requests: from asking to answer, how they ended, what of them failed', () => {
    expect(story.asked.map(({ id, op, blocks, fromUs, toUs, end, codes }) => [id, op, blocks, toUs - fromUs, end, codes])).toEqual([
      ['1', 'load', 2, 2_000, 'ok', {}],
      ['"two"', 'load', 2, 300_000, 'overdue', { DEADLINE_EXCEEDED: 2 }],
      ['3', 'load', 1, 100, 'refused', { MOUNT_SUSPENDED: 1 }],
      ['4', 'ping', 0, 500_000, 'unanswered', {}], // to the end of the record
    ]);
  });

  test('states: from what they were before the first change, without a gap, to the end', () => {
    expect(story.bands.get('kv0 load')).toEqual([
      { state: 'ok', reason: '', fromUs: 0, toUs: 2.3 * SECOND },
      { state: 'suspended', reason: '2 loads in flight, none completed', fromUs: 2.3 * SECOND, toUs: 9.1 * SECOND },
      { state: 'ok', reason: '', fromUs: 9.1 * SECOND, toUs: 10 * SECOND },
    ]);
  });

  test('a stuck call lasts from when it began, not from when it was told', () => {
    expect(story.stuck).toMatchObject([{ tid: 100, syscall: 'preadv', key: 'n/02', fromUs: 2 * SECOND, toUs: 9 * SECOND, over: true }]);
    expect(stuckSteps(story.stuck)).toEqual([{ atUs: 2 * SECOND, value: 1 }, { atUs: 9 * SECOND, value: 0 }]);
  });

  test('slots wait from the answer that says so to the event that frees them', () => {
    expect(story.quarantined).toEqual([{ atUs: 2.3 * SECOND, value: 2 }, { atUs: 9 * SECOND, value: 0 }]);
  });

  test('log and end are told', () => {
    expect(story.log).toEqual([{ atUs: 4 * SECOND, level: 'warn', text: 'mount {"state":"suspended"}' }]);
    expect(story.notes).toEqual([{ atUs: 10 * SECOND, text: 'it was ended by SIGKILL' }]);
  });
});

test.each([
  [true, [], 'ok'],
  [false, ['NOT_FOUND'], 'miss'],
  [false, ['NOT_FOUND', 'CORRUPT'], 'miss'],
  [false, ['NOT_FOUND', 'KEY_BUSY'], 'refused'],
  [false, ['IO_ERROR', 'NOT_FOUND'], 'failed'],
  [false, ['NOT_FOUND', 'DEADLINE_EXCEEDED', 'IO_ERROR'], 'overdue'],
  [false, ['INVALID_REQUEST'], 'failed'],
] as const)('ok %s with %j ended as %s', (ok, codes, end) => expect(endOf(ok, codes)).toBe(end));

test('a client that uses an id twice, answers to nobody, and lines that are no requests make no trouble', () => {
  const story = storyOf(
    recordOf(
      [1, 'client', message({ id: 1, op: 'ping' })],
      [2, 'client', message({ id: 1, op: 'ping' })],
      [3, 'client', { text: 'nonsense' }],
      [4, 'client', message({ op: 7, blocks: 'x', slots: {} })],
      [5, 'sidecar', message({ id: null, ok: false, error: {} })],
      [6, 'sidecar', message({ id: 1, ok: true })],
      [7, 'sidecar', message({ id: 9, ok: true })],
      [8, 'sidecar', message({ event: 'recovered', tid: 5 })],
      [9, 'sidecar', message({ event: 'slots_freed', slots: 'all' })],
      [10, 'sidecar', { base64: 'AAA=' }],
      [11, 'recorder', { lost: { of: 'sidecar', bytes: 12 } }],
    ),
  );
  expect(story.asked.map(({ end, toUs }) => [end, toUs])).toEqual([['ok', 6], ['unanswered', 2], ['failed', 5]]); // one without an id has the answer without one
  expect(story.notes).toEqual([{ atUs: 11, text: '12 bytes of sidecar are not in the record' }]);
});

describe('the page', () => {
  /** Well-formed, by a parser that is not ours. Python's is there in every test. */
  function parsed(page: string): { tags: Record<string, number>; text: string } {
    const program = 'import sys, json, collections, xml.etree.ElementTree as E\nroot = E.fromstring(sys.stdin.read())\nprint(json.dumps({"tags": collections.Counter(e.tag.split("}")[1] for e in root.iter()), "text": "".join(root.itertext())}))';
    const { status, stdout, stderr } = spawnSync('python3', ['-c', program], { input: page, encoding: 'utf8', maxBuffer: 64 * 1024 * 1024 });
    expect(stderr).toBe('');
    expect(status).toBe(0);
    return JSON.parse(stdout) as { tags: Record<string, number>; text: string };
  }

  test('says first what was suspended, for how long, and why, and what was stuck', () => {
    const { text } = parsed(pageOf('bug.ndjson', [HANG], 0));
    expect(text).toContain('kv0 load was suspended at 2.3 s for 6.8 s: 2 loads in flight, none completed');
    expect(text).toContain('1 call sat in the kernel too long, the longest for 7 s (preadv in read of n/02)');
    expect(text).toContain('4 requests: 1 ok, 1 refused, 1 overdue, 1 unanswered');
    expect(text).toContain('it was ended by SIGKILL');
    expect(text).toContain('--mount kv0=/mnt/<a>&b');
  });

  test('needs nothing else, and lets nothing in: no script, nothing from elsewhere', () => {
    const page = pageOf('bug.ndjson', [HANG, HANG], 0);
    const { tags } = parsed(page);
    for (const tag of ['script', 'link', 'img', 'iframe', 'object', 'a']) expect(tags[tag], tag).toBeUndefined();
    expect(page).toContain("default-src 'none'");
    expect(page.replace('http://www.w3.org/1999/xhtml', '')).not.toMatch(/https?:|url\(|@import|\bon\w+=/);
    expect(tags['h2']).toBe(2);
  });

  test('what a client wrote stays text', () => {
    const evil = '</text><script>alert(1)</script>"\'&\u0000\u001b\ud800\ufffe';
    const { tags, text } = parsed(pageOf(evil, [recordOf([1, 'client', message({ id: evil, op: evil, mount: evil, keys: [evil] })], [2, 'sidecar', message({ event: 'mount', mount: evil, class: evil, state: evil, was: evil, reason: evil })], [3, 'sidecar', message({ event: 'stalled', mount: evil, class: evil, phase: evil, syscall: evil, key: evil, tid: 1 })], [4, 'log', { text: evil }])], 1));
    expect(tags['script']).toBeUndefined();
    expect(text).toContain('<script>alert(1)</script>');
    expect(escaped(evil)).not.toMatch(/[<>"'\u0000\ud800]/);
  });

  test('of many requests the slowest and the failed are drawn one by one, and the page stays small', () => {
    const many = recordOf(
      ...Array.from({ length: 20_000 }, (_, i) => [
        [i * 100, 'client', message({ id: i, op: 'load', keys: ['n/00'] })] as const,
        [i * 100 + 50 + (i % 1000), 'sidecar', message({ id: i, ok: i !== 777, ...(i === 777 ? { error: { code: 'IO_ERROR' } } : {}) })] as const,
      ]).flat()
    );
    const page = pageOf('many', [many], 0);
    expect(page.length).toBeLessThan(1024 * 1024);
    const { text } = parsed(page);
    expect(text).toContain(`Requests: ${DRAWN_MAX} of 20000`);
    expect(text).toContain('load 777');
  });

  test('lines that somebody else wrote, of any shape, make a page or are left out', () => {
    const reader = new LivesReader();
    const shapes = [null, 5, 'x', [], {}, { op: null, id: {}, keys: {}, blocks: [null, 5] }, { event: 'mount' }, { event: 'stalled', tid: null, since_us: 'x' }, { event: 'slots_freed', slots: [null] }, { id: {}, ok: 1, failed: [null, { blocks: [[0, 1e9]] }] }];
    reader.line('{"kvlane_record":1,"life":7,"began":"","began_us":0,"command":[]}');
    for (const atUs of ['-5', '1e999', '3', '9007199254740991']) {
      for (const from of ['client', 'sidecar', 'log', 'recorder', 'nobody']) {
        for (const shape of shapes) reader.line(`{"life":7,"at_us":${atUs},"from":"${from}","message":${JSON.stringify(shape)}}`);
      }
    }
    expect(reader.lives[0]!.entries.length).toBeGreaterThan(50);
    expect(parsed(pageOf('odd', reader.lives, reader.damaged)).text).toContain('of the file could not be read');
  });

  test('an empty life is a page, too', () => {
    expect(parsed(pageOf('empty', [recordOf()], 3)).text).toContain('3 lines of the file could not be read');
  });
});

test.each([[1, 12], [7 * SECOND, 12], [3_600 * SECOND, 12], [90_000 * SECOND, 12]])('an axis of %s us has a few times on it, the first at its beginning', (durationUs, most) => {
  const ticks = new Axis(durationUs).ticks();
  expect(ticks[0]!.us).toBe(0);
  expect(ticks.length).toBeGreaterThan(4);
  expect(ticks.length).toBeLessThanOrEqual(most + 1);
});
