// Answers on their way to stdout: order, bounds, and readers who are gone.
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createLineWriter } from '../../sidecar/line_writer.ts';
import { heldSink } from '../support/held_sink.ts';

const nextTick = () => new Promise<void>((done) => process.nextTick(done));

beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'setInterval', 'clearTimeout', 'clearInterval'] }));
afterEach(() => vi.useRealTimers());

test('what is said in one turn goes out in one write, in order', async () => {
  const sink = heldSink();
  const writer = createLineWriter({ sink, onGone: () => {} });
  writer.send({ id: 1 });
  writer.send({ id: 2, text: 'ü' });
  expect(sink.writes).toEqual([]);
  await nextTick();
  expect(sink.writes).toEqual(['{"id":1}\n{"id":2,"text":"ü"}\n']);
  writer.send({ id: 3 });
  await nextTick();
  expect(sink.writes).toHaveLength(1); // one in flight at a time
  sink.release();
  await nextTick();
  expect(sink.writes[1]).toBe('{"id":3}\n');
});

test('a long outbox goes out in pieces of a bounded size and nothing is lost or doubled', async () => {
  const sink = heldSink();
  const writer = createLineWriter({ sink, onGone: () => {} });
  for (let id = 0; id < 20_000; id += 1) writer.send({ id, pad: 'x'.repeat(100) });
  await nextTick();
  while (writer.outboxBytes() > 0) sink.release();
  const lines = sink.writes.join('').split('\n');
  expect(lines.pop()).toBe('');
  expect(lines.map((line) => (JSON.parse(line) as { id: number }).id)).toEqual([...Array(20_000).keys()]);
  expect(Math.max(...sink.writes.map((text) => text.length))).toBeLessThanOrEqual(256 * 1024);
});

test('a reader that does not read is taken for gone at the limit, and later messages cost nothing', async () => {
  const sink = heldSink();
  const gone: string[] = [];
  const writer = createLineWriter({ sink, onGone: (why) => void gone.push(why), outboxBytesMax: 1000 });
  for (let id = 0; id < 500; id += 1) writer.send({ id });
  await nextTick();
  expect(gone).toHaveLength(1);
  expect(gone[0]).toMatch(/stdout is read too slowly: 100\d bytes are waiting, limit 1000/);
  expect(writer.outboxBytes()).toBe(0);
});

test('an outbox that does not move for the whole time means the reader is gone; one that moves does not', async () => {
  const sink = heldSink();
  const gone: string[] = [];
  const writer = createLineWriter({ sink, onGone: (why) => void gone.push(why), undrainedMs: 6_000 });
  for (let turn = 0; turn < 10; turn += 1) {
    writer.send({ turn });
    await nextTick();
    vi.advanceTimersByTime(5_000);
    sink.release();
  }
  expect(gone).toEqual([]);
  writer.send({ last: true });
  await nextTick();
  vi.advanceTimersByTime(8_000);
  expect(gone).toEqual(['nobody has read stdout for 6 s; 14 bytes are waiting']);
});

test('an idle writer has no timer', async () => {
  const sink = heldSink();
  const writer = createLineWriter({ sink, onGone: () => {}, undrainedMs: 6_000 });
  writer.send({ id: 1 });
  await nextTick();
  sink.release();
  vi.advanceTimersByTime(1_000); // one look, to see that nothing waits
  expect(vi.getTimerCount()).toBe(0);
});

test('an error of the pipe is the end of the reader, once', async () => {
  const sink = heldSink();
  const gone: string[] = [];
  const writer = createLineWriter({ sink, onGone: (why) => void gone.push(why) });
  writer.send({ id: 1 });
  await nextTick();
  sink.release(new Error('write EPIPE'));
  writer.fail('stdout: write EPIPE');
  writer.send({ id: 2 });
  await nextTick();
  expect(gone).toEqual(['stdout: write EPIPE']);
  expect(sink.writes).toHaveLength(1);
});

test('flush waits for the last write, and no longer than it was told', async () => {
  const sink = heldSink();
  const writer = createLineWriter({ sink, onGone: () => {} });
  const done: string[] = [];
  writer.flush(100, () => void done.push('empty'));
  expect(done).toEqual(['empty']);
  writer.send({ id: 1 });
  writer.flush(100, () => void done.push('bounded'));
  await nextTick();
  vi.advanceTimersByTime(99);
  expect(done).toEqual(['empty']);
  vi.advanceTimersByTime(1);
  expect(done).toEqual(['empty', 'bounded']);
  writer.flush(100, () => void done.push('written'));
  sink.release();
  expect(done).toEqual(['empty', 'bounded', 'written']);
});
