// stdin in small pieces: all of it, in order, and the loop goes on.
import { PassThrough } from 'node:stream';
import { expect, test } from 'vitest';
import { pumpStdin } from '../../sidecar/stdin_pump.ts';

const turn = () => new Promise<void>((done) => setImmediate(done));
const spin = (ms: number): void => {
  const end = performance.now() + ms;
  while (performance.now() < end);
};

test('everything arrives once and in order, then the end', async () => {
  const stream = new PassThrough();
  const got: Buffer[] = [];
  const ended = new Promise<Error | null>((done) => pumpStdin((work) => stream.on('data', work), { take: (bytes) => void got.push(Buffer.from(bytes)), ended: done }));
  const sent = Buffer.alloc(1024 * 1024, 'abcdefghijklmnopqrstuvwxyz0123456789\n');
  for (let at = 0; at < sent.length; at += 50_000) stream.write(sent.subarray(at, at + 50_000));
  stream.end();
  expect(await ended).toBeNull();
  expect(Buffer.concat(got).equals(sent)).toBe(true);
});

test('slow work within one chunk lets the loop turn, and still takes all of it before the end', async () => {
  const stream = new PassThrough();
  const order: string[] = [];
  const ended = new Promise<void>((done) =>
    pumpStdin((work) => stream.on('data', work), {
      take(bytes) {
        order.push(`piece ${bytes.length}`);
        spin(2);
      },
      ended() {
        order.push('end');
        done();
      },
    }),
  );
  stream.end(Buffer.alloc(64 * 1024));
  let turns = 0;
  let over = false;
  void ended.then(() => (over = true));
  while (!over) {
    await turn();
    turns += 1;
  }
  expect(order).toHaveLength(17);
  expect(order.at(-1)).toBe('end');
  expect(turns).toBeGreaterThanOrEqual(6);
});

test('an error of stdin is its end, after what had come before it, and once', async () => {
  const stream = new PassThrough();
  const order: string[] = [];
  pumpStdin((work) => stream.on('data', work), {
    take(bytes) {
      order.push(`took ${bytes.length}`);
      spin(4);
    },
    ended: (fault) => void order.push(`ended ${fault?.message}`),
  });
  stream.write(Buffer.alloc(6 * 1024));
  await turn();
  stream.destroy(new Error('EIO'));
  await turn();
  await turn();
  expect(order).toEqual(['took 4096', 'took 2048', 'ended EIO']);
});
