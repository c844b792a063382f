// Bytes in any pieces become lines, values and refusals, each with its number.
import { expect, test } from 'vitest';
import { createLineReader, type Refusal } from '../../sidecar/line_reader.ts';

type Seen = { value: unknown; line: number } | Refusal;

function reading(lineBytesMax = 1024 * 1024) {
  const seen: Seen[] = [];
  const reader = createLineReader(
    { onValue: (value, line) => void seen.push({ value, line }), onRefused: (refusal) => void seen.push(refusal) },
    lineBytesMax,
  );
  return { seen, reader, feed: (text: string | Uint8Array) => reader.feed(typeof text === 'string' ? Buffer.from(text) : text) };
}

const refusals = (seen: Seen[]) => seen.filter((one) => 'code' in one);

test('lines come in order with their numbers, whatever pieces they arrive in', () => {
  const text = '{"id":1}\n\n  \r\n{"id":2}\r\n{"key":"ü€😀"}\n';
  for (const piece of [1, 2, 3, 7, 1000]) {
    const { seen, feed } = reading();
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += piece) feed(bytes.subarray(at, at + piece));
    expect(seen).toEqual([
      { value: { id: 1 }, line: 1 },
      { value: { id: 2 }, line: 4 },
      { value: { key: 'ü€😀' }, line: 5 },
    ]);
  }
});

test('null, numbers, strings, lists and words are handed on one by one, and reading goes on after each', () => {
  const { seen, feed } = reading();
  feed('null\n 7 \n"x"\n[]\ntrue\nfalse\n0\n""\n\tnull\r\n{"id":1}\n');
  expect(seen).toEqual(
    [null, 7, 'x', [], true, false, 0, '', null, { id: 1 }].map((value, index) => ({ value, line: index + 1 })),
  );
});

test('a bad line gets exactly one refusal with its number, and the lines around it are read', () => {
  const { seen, feed } = reading();
  feed('{"id":1}\n{"id":2,}\n{id:3}\nhello\n{"id":4}\n');
  expect(seen.map((one) => one.line)).toEqual([1, 2, 3, 4, 5]);
  expect(refusals(seen).map((one) => one.message)).toEqual([
    "line 2: not JSON at character 9: expected no comma before }, found '}', in '{\"id\":2,}'. Send one JSON object a line, for example {\"id\":1,\"op\":\"help\"}.",
    "line 3: not JSON at character 2: expected a name in double quotes, found 'id:3}', in '{id:3}'. Send one JSON object a line, for example {\"id\":1,\"op\":\"help\"}.",
    "line 4: not JSON at character 1: expected a value, found 'hello', in 'hello'. Send one JSON object a line, for example {\"id\":1,\"op\":\"help\"}.",
  ]);
});

test('a long bad line is quoted by its first 60 characters, without anything that moves a terminal', () => {
  const { seen, feed } = reading();
  feed(`\u001b[2J${'y'.repeat(500)}\n`);
  const [refusal] = refusals(seen);
  expect(refusal?.message).toContain(`in '?[2J${'y'.repeat(56)}…'`);
  expect(refusal?.message.length).toBeLessThan(300);
});

test('bytes that are not UTF-8 are refused by place, not turned into another key', () => {
  const { seen, feed } = reading();
  feed(Buffer.concat([Buffer.from('{"id":"'), Buffer.from([0xff]), Buffer.from('"}\n{"id":2}\n')]));
  expect(seen).toEqual([
    { code: 'INVALID_REQUEST', line: 1, message: expect.stringContaining('not UTF-8 at byte 8 (0xff)') as string },
    { value: { id: 2 }, line: 2 },
  ]);
});

test('a byte order mark is named', () => {
  const { seen, feed } = reading();
  feed('\ufeff{"id":1}\n');
  expect(refusals(seen)[0]?.message).toContain('byte order mark');
});

test('a line of exactly the limit passes and one byte more is refused once, whether cut by a chunk or not', () => {
  const line = (bytes: number) => `"${'a'.repeat(bytes - 2)}"\n`;
  for (const piece of [1, 5, 16, 33, 1000]) {
    const { seen, feed } = reading(32);
    const bytes = Buffer.from(`${line(32)}${line(33)}${line(80)}7\n`);
    for (let at = 0; at < bytes.length; at += piece) feed(bytes.subarray(at, at + piece));
    expect(seen.map((one) => ('code' in one ? one.code : 'value'))).toEqual(['value', 'LINE_TOO_LONG', 'LINE_TOO_LONG', 'value']);
    expect(seen.map((one) => one.line)).toEqual([1, 2, 3, 4]);
    expect(refusals(seen)[0]?.message).toMatch(/^line 2: longer than line_bytes_max = 32 bytes \(\d+.*\): '"a+"?'; it is skipped up to its newline/);
  }
});

test('an endless line is answered when it passes the limit and costs no memory after that', () => {
  const { seen, feed } = reading(1024);
  const chunk = Buffer.alloc(64 * 1024, 'z');
  for (let fed = 0; fed < 2000; fed += 1) feed(chunk);
  expect(seen).toHaveLength(1);
  feed('\n{"id":1}\n');
  expect(seen.slice(1)).toEqual([{ value: { id: 1 }, line: 2 }]);
});

test('long lines in small pieces cost time in proportion to their length', () => {
  const time = (bytes: number): number => {
    const { seen, feed } = reading(8 * 1024 * 1024);
    const line = Buffer.from(`"${'a'.repeat(bytes)}"\n`);
    const before = process.cpuUsage(); // not the wall's clock: whoever else is busy does not count
    for (let at = 0; at < line.length; at += 4096) feed(line.subarray(at, at + 4096));
    const { user, system } = process.cpuUsage(before);
    expect(seen).toHaveLength(1);
    return (user + system) / 1000;
  };
  time(1024 * 1024);
  const ratio = time(6 * 1024 * 1024) / Math.max(time(512 * 1024), 1);
  expect(ratio).toBeLessThan(12 * 5); // 12 in proportion, 144 if it were the square
});

test('half a line at the end is refused even if it would be JSON, white space is not', () => {
  for (const [rest, count] of [['12345', 1], ['{"id":1,"op":"ping"}', 1], ['{"id":1', 1], [' \r', 0], ['', 0]] as const) {
    const { seen, feed, reader } = reading();
    feed(`{"id":0}\n${rest}`);
    reader.end();
    expect(refusals(seen)).toHaveLength(count);
    if (count === 1) expect(refusals(seen)[0]).toMatchObject({ line: 2, message: expect.stringContaining('stdin ended after') as string });
  }
});

test('a handler that throws is not mistaken for a bad line, and the next line is read', () => {
  let count = 0;
  const refused: Refusal[] = [];
  const reader = createLineReader(
    {
      onValue() {
        count += 1;
        if (count === 1) throw new Error('ours');
      },
      onRefused: (refusal) => void refused.push(refusal),
    },
    1024,
  );
  expect(() => reader.feed(Buffer.from('{"id":1}\n'))).toThrow('ours');
  reader.feed(Buffer.from('{"id":2}\n'));
  expect({ count, refused }).toEqual({ count: 2, refused: [] });
});

test('a million brackets are refused before anything builds what they say', () => {
  const { seen, feed } = reading(3 * 1024 * 1024);
  const before = performance.now();
  feed(`${'['.repeat(1_000_000)}\n${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}\n${'{"a":'.repeat(300_000)}1${'}'.repeat(300_000)}\n`);
  expect(performance.now() - before).toBeLessThan(500); // more than 1,500 ms when parsed
  expect(refusals(seen).map((one) => one.message.slice(0, 35))).toEqual([1, 2, 3].map((line) => `line ${line}: nests deeper than 32 levels`.slice(0, 35)));
});

test('brackets in strings do not nest', () => {
  const { seen, feed } = reading();
  const text = `${'[{'.repeat(100)}\\"`;
  feed(`${JSON.stringify({ text })}\n`);
  expect(seen).toEqual([{ value: { text }, line: 1 }]);
});
