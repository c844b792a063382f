// `kvlane doctor` on mounts that really hang: it says so within its time, whoever waits for it goes on, and once the mount answers
// again nothing is left of it, neither a process nor a name.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { YOUNG_MS } from '../../clients/cli/doctor/survey_watch.ts';
import { sidecarMain } from '../../clients/node/process.ts';
import { expectGone, isGone } from '../support/corpse.ts';
import { type Classes, type Lab, noLab, type OpClass, startLab } from '../support/stall.ts';

/** Long enough to come to the step that hangs on a machine with other things to do. */
const TIMEOUT_S = 3;
/** Where nothing hangs, it is not the machine that is judged. */
const WELL_S = 30;
/** Node twice, the look into /proc, and a machine with other things to do. */
const NOISE_MS = 8_000;
const MAX_HANG_S = 40;
const OWN = '/.kvlane-doctor-*';

interface Said {
  verdict: string;
  findings: { id: string; level: string; what: string; why: string; do: string }[];
}
interface Looked {
  status: number;
  said: Said;
  tookMs: number;
  worst: Said['findings'][number];
  /** The process that was left behind, and its thread. */
  pid: number;
}

/** Some kernels tell nobody where a thread sleeps. */
const PLACES = ['stack', 'wchan'].some((file) => {
  try {
    return readFileSync(`/proc/self/task/${process.pid}/${file}`, 'latin1').length > 0;
  } catch {
    return false;
  }
});

function start(directory: string, timeoutS = TIMEOUT_S): ChildProcess {
  const child = spawn(process.execPath, [sidecarMain(), 'doctor', '--json', '--timeout-s', String(timeoutS), directory], { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' });
  onTestFinished(() => void child.kill('SIGKILL'));
  return child;
}

/** Until its exit status is there: a process with a thread in the kernel would have none. */
async function look(directory: string, timeoutS = TIMEOUT_S): Promise<Looked> {
  const began = performance.now();
  const child = start(directory, timeoutS);
  let text = '';
  child.stdout!.setEncoding('utf8').on('data', (piece: string) => (text += piece));
  const [status] = (await once(child, 'close')) as [number];
  const said = JSON.parse(text) as Said;
  const worst = said.findings[0]!;
  return { status, said, tookMs: performance.now() - began, worst, pid: Number(/of process (\d+)/.exec(worst.what)?.[1] ?? 0) };
}

function expectHung(looked: Looked, step: RegExp, syscall: RegExp): void {
  expect(looked.worst).toMatchObject({ id: 'probe.hung', level: 'bad', what: expect.stringMatching(/^the mount does not answer: /) as string });
  expect(looked.worst.what).toMatch(step);
  expect(/\((\w+)\) has not returned for/.exec(looked.worst.what)?.[1]).toMatch(syscall);
  expect(looked.status).toBe(1);
  expect(looked.said.verdict).toBe('not_fit');
  // Removing has a time of its own.
  expect(looked.tookMs).toBeGreaterThanOrEqual(looked.worst.what.includes('removing what was made') ? YOUNG_MS : TIMEOUT_S * 1000);
  expect(looked.tookMs).toBeLessThan(TIMEOUT_S * 1000 + NOISE_MS);
  expect(isGone(looked.pid)).toBe(false);
}

describe.skipIf(noLab('doctor on a mount that hangs'))('doctor on a mount that hangs', () => {
  let lab: Lab;
  beforeAll(async () => void (lab = await startLab({ loop: 'ext4', maxHangS: MAX_HANG_S })));
  afterAll(() => lab.down());
  const own = (): string[] => readdirSync(lab.back).filter((name) => name.startsWith('.kvlane-doctor'));

  const EACH: [hung: OpClass, match: string, step: RegExp, syscall: RegExp][] = [
    ['getattr', '/', /opening the directory/, /^(openat|statx|fstatfs)$/],
    ['mkdir', OWN, /making a file/, /^mkdirat$/],
    ['open', OWN, /making a file|writing/, /^openat2$/],
    ['write', OWN, /writing/, /^pwritev$/],
    ['fsync', OWN, /writing/, /^fsync$/],
    ['close', OWN, /./, /^close$/],
    ['read', `${OWN}/block`, /reading back what was written/, /^preadv$/],
    ['rename', OWN, /renaming/, /^renameat2$/],
    ['unlink', `${OWN}/other`, /removing a file that is open/, /^unlinkat$/],
    ['unlink', `${OWN}/block`, /removing what was made/, /^unlinkat$/],
  ];
  it.each(EACH)('%s of %s hangs: the step is named, and all is gone after the resume', async (hung, match, step, syscall) => {
    await lab.hang(hung, { match });
    const looked = await look(lab.mnt);
    expectHung(looked, step, syscall);
    if (PLACES) expect(looked.worst.what).toMatch(/in the kernel in \w*(fuse|request_wait)\w*/);
    await lab.resume();
    await expectGone(looked.pid);
    expect(own()).toEqual([]);
    expect(await look(lab.mnt, WELL_S)).toMatchObject({ status: 0 });
  });

  const DISK: [what: string, hang: () => Promise<void>, resume: () => Promise<unknown>][] = [
    ['does not answer', () => lab.hang(['read', 'write'] as Classes), () => lab.resume()],
    ['is frozen', () => lab.freeze(), () => lab.thaw()],
  ];
  it.each(DISK)('a disk that %s: not fit, and its process leaves when it can', async (_what, hang, resume) => {
    expect(await look(lab.blk, WELL_S)).toMatchObject({ status: 0 });
    await hang();
    const looked = await look(lab.blk);
    expectHung(looked, /./, /^(mkdirat|openat2|pwritev|fsync|unlinkat|preadv)$/);
    await resume();
    await expectGone(looked.pid);
    expect(await look(lab.blk, WELL_S)).toMatchObject({ status: 0 });
  });

  it('a daemon that reads no request at all hangs the very first step', async () => {
    await lab.stop();
    const looked = await look(lab.mnt);
    expectHung(looked, /opening the directory/, /^(openat|statx|fstatfs)$/);
    expect(looked.worst.why).not.toContain('rm -r');
    await lab.cont();
    await expectGone(looked.pid);
    expect(own()).toEqual([]);
  });

  it('doctor itself killed while it waits: what it began is still removed', async () => {
    await lab.hang('write', { match: OWN });
    const child = start(lab.mnt);
    await lab.waitStuck('write');
    expect(own()).toHaveLength(1);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await lab.resume();
    await expect.poll(own, { timeout: 10_000 }).toEqual([]);
  });

  it('a mount that is slow but answers each call is told as slow, and left clean', async () => {
    await lab.rate('write', 2_000_000, { match: OWN });
    const { status, worst } = await look(lab.mnt);
    await lab.resume();
    expect(status).toBe(1);
    expect(worst).toMatchObject({ id: 'probe.write', what: 'writing was not done in time' });
    expect(own()).toEqual([]);
  });

  it('a mount where removing takes longer than a second, each call being quick enough, hangs in nothing and is left clean', async () => {
    await lab.delay(['unlink', 'lookup', 'mkdir'], 350);
    const { status, said } = await look(lab.mnt, WELL_S);
    await lab.resume();
    expect(said.findings.map(({ id }) => id)).not.toContain('probe.hung');
    expect(status).toBe(0);
    expect(own()).toEqual([]);
  });

  it('one where it takes longer than anybody waits is told so, and is clean in the end', async () => {
    await lab.delay('lookup', 900, { match: OWN });
    const { status, said } = await look(lab.mnt);
    await lab.resume();
    expect(said.findings.find(({ id }) => id === 'probe.left')).toMatchObject({ level: 'warn', why: expect.stringContaining('takes too long') as string, do: expect.stringContaining('rm -r') as string });
    expect(said.findings.map(({ id }) => id)).not.toContain('probe.hung');
    expect(status).toBe(1); // the steps were not done in time, either
    await expect.poll(own, { timeout: 30_000 }).toEqual([]);
  });

  it('a mount that was broken for good says so by its error', async () => {
    const other = await startLab({ maxHangS: MAX_HANG_S });
    try {
      await other.abort();
      const { status, worst } = await look(other.mnt);
      expect(status).toBe(1);
      expect(worst).toMatchObject({ id: 'probe.root', level: 'bad', what: expect.stringMatching(/ENOTCONN|ECONNABORTED/) as string });
    } finally {
      await other.down();
    }
  });
});
