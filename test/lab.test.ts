// The lab itself: what it says it holds is held by the kernel, and nothing is left of it afterwards. If these fail, no stall test means
// anything.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { buildLab, Gates, type Lab, noLab, OP_CLASSES, type OpClass, startLab, SysGate, withLab } from './support/stall.ts';

const CALLS = fileURLToPath(new URL('stall/calls.py', import.meta.url));
const TEST_MS = 60_000;

/** One process that makes one kind of call (calls.py); resolves with "ok", an errno name or what it read. */
function call(args: string[], prefix: readonly string[] = []): { child: ChildProcess; said: Promise<string> } {
  const [program, ...rest] = [...prefix, 'python3', '-I', CALLS, ...args] as [string, ...string[]];
  const child = spawn(program, rest, { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' });
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  return { child, said: once(child, 'close').then(() => text.trim()) };
}

/** What makes an operation of this class, on a mount that has the file f. */
const CALL_OF: Record<OpClass, string> = {
  open: 'open', lookup: 'open', getattr: 'fstat', read: 'read', write: 'write', fsync: 'fsync', rename: 'rename', mkdir: 'mkdir', unlink: 'unlink', close: 'close',
};

const leftIn = (dir: string): string[] => readFileSync('/proc/self/mountinfo', 'utf8').split('\n').filter((line) => line.includes(dir));
const alive = (pid: number): boolean => {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
};
async function until(what: string, true_: () => boolean, ms = 10_000): Promise<void> {
  const end = performance.now() + ms;
  while (!true_()) {
    if (performance.now() > end) throw new Error(`waited ${ms} ms for: ${what}`);
    await new Promise((go) => setTimeout(go, 10));
  }
}

describe.skipIf(noLab('the stall lab'))('the stall lab', { timeout: TEST_MS }, () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await startLab();
    for (const name of ['g', 'other']) writeFileSync(path.join(lab.back, name), 'x'.repeat(8192));
  }, TEST_MS);
  afterAll(() => lab.down(), TEST_MS);

  for (const op of OP_CLASSES) {
    // Two directories: the kernel locks a directory for a rename, mkdir or unlink in it, and everybody else in it waits for that lock.
    it(`holds ${op} until it is resumed, and lets other directories pass`, async () => {
      for (const name of ['held', 'free']) {
        mkdirSync(path.join(lab.back, name));
        writeFileSync(path.join(lab.back, name, 'f'), 'x'.repeat(8192));
      }
      await lab.hang(op, { match: '/held/*' });
      const held = call([CALL_OF[op], path.join(lab.mnt, 'held'), 'f']);
      await lab.waitStuck(op);
      expect(await call([CALL_OF[op], path.join(lab.mnt, 'free'), 'f']).said).toBe('ok');
      expect(held.child.exitCode).toBeNull();
      expect((await lab.status()).held[op]).toBe(1);
      await lab.resume();
      expect(await held.said).toBe('ok');
      for (const name of ['held', 'free']) rmSync(path.join(lab.back, name), { recursive: true });
    });
  }

  it('makes what it held fail with the errno of the resume', async () => {
    await lab.hang('read');
    const held = call(['read', lab.mnt, 'g']);
    await lab.waitStuck('read');
    await lab.resume('read', { errno: 'EIO' });
    expect(await held.said).toBe('EIO');
  });

  it('fails the next N operations and then no more', async () => {
    await lab.fail('write', 'ENOSPC', { count: 1 });
    expect(await call(['write', lab.mnt, 'g']).said).toBe('ENOSPC');
    expect(await call(['write', lab.mnt, 'g']).said).toBe('ok');
    await lab.resume();
  });

  it('holds the answer of a rename that has happened already', async () => {
    await lab.hang('rename', { when: 'after' });
    const held = call(['rename', lab.mnt, 'other']);
    await lab.waitStuck('rename');
    expect(existsSync(path.join(lab.back, 'other.new'))).toBe(true);
    await lab.resume();
    expect(await held.said).toBe('ok');
  });

  it('lets the longest held go on one by one', async () => {
    await lab.hang('read');
    const both = [call(['read', lab.mnt, 'g']), call(['read', lab.mnt, 'g'])];
    await lab.waitStuck('read', 2);
    expect(await lab.resume('read', { count: 1 })).toBe(1);
    await Promise.race(both.map((c) => c.said));
    expect((await lab.status()).held.read).toBe(1);
    await lab.resume();
    expect(await Promise.all(both.map((c) => c.said))).toEqual(['ok', 'ok']);
  });

  it('holds a thousand reads at once', async () => {
    await lab.hang('read');
    const many = call(['read-many', lab.mnt, 'g', '1000']);
    await lab.waitStuck('read', 1000, 30_000);
    expect((await lab.status()).held.read).toBe(1000);
    await lab.resume();
    expect(await many.said).toBe('ok');
  });

  it('slows reads down to a rate', async () => {
    writeFileSync(path.join(lab.back, 'big'), Buffer.alloc(10 << 20));
    await lab.rate('read', 20e6);
    const start = performance.now();
    expect(await call(['read-all', lab.mnt, 'big']).said).toBe('ok');
    expect(performance.now() - start).toBeGreaterThan(450); // 10 MiB at 20 MB/s: 524 ms
    await lab.resume();
  });

  it('takes what stands in the buffer at cont, not at the call: the late write', async () => {
    const late = call(['late-write', lab.mnt, 'g']); // writes "B"s when told, changes them to "C"s when told again
    await once(late.child.stdout!, 'data'); // "opened"
    await lab.stop();
    late.child.stdin!.write('now\n');
    await lab.waitUntaken(1);
    late.child.stdin!.write('now\n');
    await once(late.child.stdout!, 'data'); // "changed"
    await lab.cont();
    expect(await late.said).toMatch(/ok$/);
    expect(readFileSync(path.join(lab.back, 'g'), 'latin1').slice(0, 4096)).toBe('C'.repeat(4096));
  });

  it('shows the directory underneath after a lazy unmount, and the files again after the remount', async () => {
    await lab.unmount();
    expect(existsSync(path.join(lab.mnt, 'g'))).toBe(false);
    await lab.remount();
    expect(existsSync(path.join(lab.mnt, 'g'))).toBe(true);
  });

  it('refuses what it does not understand, and says what it wants', async () => {
    await expect(lab.hang('reed' as OpClass)).rejects.toThrow(/want classes out of .* got reed/);
    await expect(lab.delay('read', -1)).rejects.toThrow(/want delay MS/);
  });
});

describe.skipIf(noLab('ext4 on the stall lab'))('ext4 on the stall lab', { timeout: TEST_MS }, () => {
  it('hangs with its device, unkillably, and goes on', async () => {
    await withLab({ loop: 'ext4', sizeMib: 64 }, async (lab) => {
      expect(await call(['create', lab.blk, 'f']).said).toBe('ok');
      await lab.hang('read');
      const held = call(['read', lab.blk, 'f']);
      await lab.waitStuck('read');
      held.child.kill('SIGKILL');
      const state = (): string => readFileSync(`/proc/${held.child.pid}/status`, 'utf8').match(/^State:\s+(\w)/m)![1]!;
      expect(state()).toBe('D');
      await lab.resume();
      await held.said;
    });
  });

  it('stops writing when it is frozen, and still reads', async () => {
    await withLab({ loop: 'ext4', sizeMib: 64 }, async (lab) => {
      expect(await call(['create', lab.blk, 'f']).said).toBe('ok');
      await lab.freeze();
      const held = call(['create', lab.blk, 'g']);
      expect(await call(['read', lab.blk, 'f']).said).toBe('ok');
      expect(held.child.exitCode).toBeNull();
      await lab.thaw();
      expect(await held.said).toBe('ok');
    });
  });

  it('is gone with everything stuck', async () => {
    const lab = await startLab({ loop: 'ext4', sizeMib: 64 });
    expect(await call(['create', lab.blk, 'f']).said).toBe('ok');
    await lab.hang('all');
    const held = call(['read', lab.blk, 'f']);
    await lab.waitStuck('read');
    await lab.down();
    expect(await held.said).toBe('ok');
    expect(leftIn(lab.dir)).toEqual([]);
    expect(existsSync(lab.dir)).toBe(false);
    await until('its processes are gone', () => !alive(lab.keeperPid) && !alive(lab.daemonPid));
  });
});

describe.skipIf(noLab('the end of a stall lab'))('nothing is left of a stall lab', { timeout: TEST_MS }, () => {
  async function stuckLab(owner: number): Promise<{ lab: Lab; held: ReturnType<typeof call> }> {
    const lab = await startLab({ loop: 'ext4', sizeMib: 64, owner });
    expect(await call(['create', lab.blk, 'f']).said).toBe('ok');
    await lab.hang('read');
    const held = call(['read', lab.blk, 'f']);
    await lab.waitStuck('read');
    return { lab, held };
  }
  async function expectGone(lab: Lab): Promise<void> {
    await until('no mount is left', () => leftIn(lab.dir).length === 0);
    await until('the loop device is free', () => !existsSync(`/sys/block/${path.basename(lab.device!)}/loop/backing_file`));
    await until('its processes are gone', () => !alive(lab.keeperPid) && !alive(lab.daemonPid));
    expect(existsSync(lab.dir)).toBe(false);
  }

  it('when its owner is killed', async () => {
    const owner = spawn('sleep', ['60'], { stdio: 'ignore' });
    const { lab, held } = await stuckLab(owner.pid!);
    owner.kill('SIGKILL');
    expect(await held.said).toBe('ok');
    await expectGone(lab);
  });

  it('when its keeper is killed', async () => {
    const { lab, held } = await stuckLab(process.pid);
    process.kill(lab.keeperPid, 'SIGKILL');
    await held.said;
    await expectGone(lab);
  });

  it('when its file system daemon is killed', async () => {
    const { lab, held } = await stuckLab(process.pid);
    process.kill(lab.daemonPid, 'SIGKILL');
    expect(await held.said).toBe('EIO');
    await lab.down();
    await expectGone(lab);
  });
});

describe('the gate for system calls', { timeout: TEST_MS }, () => {
  let dir: string;
  beforeAll(() => {
    buildLab();
    dir = mkdtempSync(path.join(tmpdir(), 'kvlane-gated-'));
    for (const name of ['f', 'g']) writeFileSync(path.join(dir, name), 'x'.repeat(8192));
  });
  afterAll(() => rmSync(dir, { recursive: true }));

  const opened = async (gate: Gates): Promise<void> =>
    expect((await gate.status()).held.all).toBe(0);

  for (const op of OP_CLASSES.filter((name) => name !== 'lookup')) {
    it(`holds ${op} until it is resumed`, async () => {
      writeFileSync(path.join(dir, 'f'), 'x'.repeat(8192));
      const gate = new SysGate({ under: dir });
      const held = call(['wait-then', CALL_OF[op], dir, 'f'], gate.prefix);
      await once(held.child.stdout!, 'data'); // "ready"
      await opened(gate);
      await gate.hang(op, { match: '/f*' });
      held.child.stdin!.write('now\n');
      await gate.waitStuck(op);
      await gate.resume();
      expect(await held.said).toMatch(/ok$/);
      gate.remove();
      for (const name of readdirSync(dir)) if (name !== 'g') rmSync(path.join(dir, name), { recursive: true });
    });
  }

  it('fails a held call with the errno of the resume, and dies with its command', async () => {
    const gate = new SysGate({ under: dir });
    const held = call(['wait-then', 'read', dir, 'g'], gate.prefix);
    await once(held.child.stdout!, 'data');
    await gate.hang('read');
    held.child.stdin!.write('now\n');
    await gate.waitStuck('read');
    await gate.resume('read', { errno: 'EIO' });
    expect(await held.said).toMatch(/EIO$/);
    await expect(gate.status()).rejects.toThrow();
    gate.remove();
  });

  it('cannot keep a killed command', async () => {
    const gate = new SysGate({ under: dir });
    const held = call(['wait-then', 'read', dir, 'g'], gate.prefix);
    await once(held.child.stdout!, 'data');
    await gate.hang('read');
    held.child.stdin!.write('now\n');
    await gate.waitStuck('read');
    held.child.kill('SIGKILL');
    await held.said;
    gate.remove();
  });
});
