import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { pooledSink } from '../../sidecar/byte_sink.ts';

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
