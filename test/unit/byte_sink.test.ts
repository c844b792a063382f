// Text on its way out of the process: pipes that are full, slow, or have no reader.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { pipeSink, pooledSink } from '../../sidecar/byte_sink.ts';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'kvlane-sink-'))));
afterEach(() => rmSync(folder, { recursive: true }));

test('a full pipe that does not block is tried again until all is through', async () => {
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  try {
    const text = 'x'.repeat(200_000); // three times what a pipe holds
    let done = false;
    const written = new Promise<void>((resolve, reject) =>
      pooledSink(fd).write(text, (error) => {
        done = true;
        if (error) reject(error);
        else resolve();
      }),
    );
    const buffer = Buffer.alloc(64 * 1024);
    let got = 0;
    while (got < text.length) {
      try {
        got += readSync(fd, buffer);
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe('EAGAIN');
        expect(done).toBe(false);
        await new Promise<void>((resolve) => setImmediate(resolve));
      }
    }
    await written;
    expect(got).toBe(text.length);
  } finally {
    closeSync(fd);
  }
});

test('a descriptor that cannot be written says so and is not tried again', async () => {
  const fd = openSync('/dev/full', 'w');
  try {
    const error = await new Promise<Error | null | undefined>((done) => pooledSink(fd).write('x', done));
    expect(error?.message).toContain('ENOSPC');
  } finally {
    closeSync(fd);
  }
});

/** A pipe, and a stream that only keeps what it is given. */
function pipeAndStream(): { reads: number; writes: number; behind: Buffer[]; stream: Writable } {
  const path = join(folder, 'pipe');
  execFileSync('mkfifo', [path]);
  const reads = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const writes = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
  const behind: Buffer[] = [];
  const stream = new Writable({ decodeStrings: true, write: (bytes: Buffer, _encoding, done) => (behind.push(bytes), done()) });
  return { reads, writes, behind, stream };
}

const through = (sink: { write(text: string, done: (error?: Error | null) => void): void }, text: string): Promise<void> =>
  new Promise((resolve, reject) => sink.write(text, (error) => (error ? reject(error) : resolve())));

test('a pipe with room is written past its stream; what it has no room for goes behind, byte for byte', async () => {
  const { reads, writes, behind, stream } = pipeAndStream();
  try {
    const sink = pipeSink(writes, stream, () => {});
    await through(sink, 'first\n');
    expect(behind).toEqual([]);
    const text = 'aé€😀'.repeat(20_000); // where the pipe is full stands anywhere, also within a letter
    await through(sink, text);
    await through(sink, 'last\n'); // the pipe is still full
    const buffer = Buffer.alloc(256 * 1024);
    const got = Buffer.concat([buffer.subarray(0, readSync(reads, buffer)), ...behind]);
    expect(got.toString()).toBe(`first\n${text}last\n`);
    expect(behind.length).toBe(2);
  } finally {
    closeSync(reads);
    closeSync(writes);
  }
});

test('a pipe without a reader is an error of the write', async () => {
  const { reads, writes, behind, stream } = pipeAndStream();
  closeSync(reads);
  try {
    await expect(through(pipeSink(writes, stream, () => {}), 'x')).rejects.toThrow('EPIPE');
    expect(behind).toEqual([]);
  } finally {
    closeSync(writes);
  }
});
