// The stall lab for vitest: real mounts that hang on command. What each stall shows: test/stall/README.md.
//
// Never touch `mnt` or `blk` with fs.* while something hangs there: four stuck calls stop all of fs.promises, and one stops
// process.exit(). Let a spawned sidecar or a child process do it. `back` is the same directory behind the gates; it never hangs.

import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const STALL = fileURLToPath(new URL('../stall/stall.py', import.meta.url));
const SYSGATE = fileURLToPath(new URL('../stall/build/sysgate', import.meta.url));
const UP_MS = 30_000; // compiling included, on a busy machine
const ANSWER_MS = 20_000; // the longest command is `down`, whose steps are bounded by about 10 s together
const POLL_MS = 3;

export const OP_CLASSES = ['open', 'lookup', 'getattr', 'read', 'write', 'fsync', 'rename', 'mkdir', 'unlink', 'close'] as const;
export type OpClass = (typeof OP_CLASSES)[number];
export type Counts = Record<OpClass | 'all', number>;
/** One class, several, or all. `open` is the open itself; finding the name is `lookup`; stat of an open file is `getattr`. */
export type Classes = OpClass | 'all' | readonly OpClass[];
export type Errno = 'EIO' | 'ENOSPC' | 'EDQUOT' | 'EACCES' | 'EPERM' | 'ENOENT' | 'ESTALE' | 'ETIMEDOUT' | 'EROFS' | 'EMFILE' | 'EINTR' | 'EAGAIN';
export interface RuleOptions {
  /** Glob over the path below the mount, with a leading slash; `*` matches slashes too. */
  match?: string;
  /** Only the next N operations. */
  count?: number;
  /** after: the operation is done, its answer is held back. */
  when?: 'before' | 'after';
}
export interface GateStatus {
  rules: { do: string; classes: OpClass[]; value: number; match: string; when: string; count: number }[];
  /** Hung now · waiting for a delay or a rate now · ever taken by a rule · ever arrived. */
  held: Counts;
  delayed: Counts;
  gated: Counts;
  seen: Counts;
}
export interface LabStatus extends GateStatus {
  /** What the kernel waits for in all, also requests not read yet (after stop()); null: it does not say. */
  waiting: number | null;
  stopped: boolean;
  aborted: boolean;
  frozen: boolean;
}
export interface LabOptions {
  /** Also an ext4 with direct IO on a loop device whose image lies behind the gates, as `blk`. */
  loop?: 'ext4';
  sizeMib?: number;
  /** A held operation goes on after this time whatever happens. */
  maxHangS?: number;
  /** The lab ends with this process; else with the one that asks. */
  owner?: number;
}

/** One line to a control socket, its JSON answer back. Bounded. */
export function ask(control: string, line: string): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = net.connect(control, () => socket.end(`${line}\n`));
    const timer = setTimeout(() => socket.destroy(new Error(`no answer to "${line}" in ${ANSWER_MS} ms`)), ANSWER_MS);
    socket.setEncoding('utf8');
    socket.on('data', (piece: string) => (text += piece));
    socket.on('error', reject);
    socket.on('close', () => {
      clearTimeout(timer);
      try {
        resolve(JSON.parse(text) as Record<string, unknown>);
      } catch {
        reject(new Error(`the answer to "${line}" is no JSON: ${JSON.stringify(text)}`));
      }
    });
  });
}

const joined = (classes: Classes): string => (typeof classes === 'string' ? classes : classes.join(','));

/** The rules that a mount (Lab) and a gated command (SysGate) have in common. */
export class Gates {
  readonly control: string;
  constructor(control: string) {
    this.control = control;
  }

  protected async tell(line: string): Promise<Record<string, unknown>> {
    const answer = await ask(this.control, line);
    if (answer['ok'] !== true) throw new Error(`${line}: ${JSON.stringify(answer['error'] ?? answer)}`);
    return answer;
  }

  private async rule(verb: string, classes: Classes, value: string, o: RuleOptions): Promise<void> {
    const words = [verb, joined(classes), value, o.match && `match=${o.match}`, o.count && `count=${o.count}`, o.when && `when=${o.when}`];
    await this.tell(words.filter(Boolean).join(' '));
  }

  hang(classes: Classes, o: RuleOptions = {}): Promise<void> {
    return this.rule('hang', classes, '', o);
  }
  delay(classes: Classes, ms: number, o: RuleOptions = {}): Promise<void> {
    return this.rule('delay', classes, String(ms), o);
  }
  fail(classes: Classes, errno: Errno, o: RuleOptions = {}): Promise<void> {
    return this.rule('fail', classes, errno, o);
  }

  /** Ends the rules of these classes; what they hold goes on, or fails with `errno`. With `count`, the N longest held go on and the rules stay. */
  async resume(classes: Classes = 'all', o: { errno?: Errno; count?: number } = {}): Promise<number> {
    const words = ['resume', joined(classes), o.errno, o.count && `count=${o.count}`];
    return (await this.tell(words.filter(Boolean).join(' ')))['resumed'] as number;
  }

  async status(): Promise<GateStatus> {
    return (await this.tell('status')) as unknown as GateStatus;
  }

  /** Until n operations of the class really hang. */
  async waitStuck(what: OpClass | 'all', n = 1, timeoutMs = 10_000): Promise<void> {
    await this.until(`${n} stuck in ${what}`, timeoutMs, (s) => s.held[what] >= n);
  }

  /** Until nothing is held any more, for after a resume. */
  async waitFree(timeoutMs = 10_000): Promise<void> {
    await this.until('nothing held', timeoutMs, (s) => s.held.all === 0);
  }

  protected async until(what: string, timeoutMs: number, true_: (s: LabStatus) => boolean): Promise<void> {
    const end = performance.now() + timeoutMs;
    for (;;) {
      const status = (await this.status()) as LabStatus;
      if (true_(status)) return;
      if (performance.now() > end) throw new Error(`waited ${timeoutMs} ms for "${what}"; the lab says ${JSON.stringify(status)}`);
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  }
}

/** A FUSE mount (`mnt`), and with loop: 'ext4' an ext4 on it (`blk`). Ends with this process at the latest. */
export class Lab extends Gates {
  readonly dir: string;
  readonly mnt: string;
  readonly back: string;
  readonly keeperPid: number;
  readonly daemonPid: number;
  readonly device: string | null;
  private readonly blkOrNull: string | null;

  constructor(up: Record<string, unknown>) {
    super(up['control'] as string);
    this.dir = up['dir'] as string;
    this.mnt = up['mnt'] as string;
    this.back = up['back'] as string;
    this.blkOrNull = up['blk'] as string | null;
    this.device = up['device'] as string | null;
    this.keeperPid = up['keeper_pid'] as number;
    this.daemonPid = up['daemon_pid'] as number;
  }

  get blk(): string {
    if (this.blkOrNull === null) throw new Error("this lab has no ext4; start it with { loop: 'ext4' }");
    return this.blkOrNull;
  }
  override async status(): Promise<LabStatus> {
    return (await this.tell('status')) as unknown as LabStatus;
  }
  /** A bandwidth for these classes together: a slow mount, not a stuck one. */
  async rate(classes: Classes, bytesPerS: number, o: RuleOptions = {}): Promise<void> {
    const words = ['rate', joined(classes), String(bytesPerS), o.match && `match=${o.match}`];
    await this.tell(words.filter(Boolean).join(' '));
  }
  throttle(bytesPerS: number): Promise<void> {
    return this.rate(['read', 'write'], bytesPerS);
  }
  /** No request is read any more: whatever a caller writes is still in its own buffer, and is taken from there at cont(). */
  async stop(): Promise<void> {
    await this.tell('stop');
  }
  async cont(): Promise<void> {
    await this.tell('cont');
  }
  /** Until the kernel waits for n requests, after stop(). */
  async waitUntaken(n = 1, timeoutMs = 10_000): Promise<void> {
    await this.until(`${n} requests not taken`, timeoutMs, (s) => (s.waiting ?? 0) >= n);
  }
  /** Writes and name changes hang, reads go on (FIFREEZE of the ext4). */
  async freeze(): Promise<void> {
    await this.tell('freeze');
  }
  async thaw(): Promise<void> {
    await this.tell('thaw');
  }
  /** Breaks the mount for good: everything that waits gets an error. */
  async abort(): Promise<void> {
    await this.tell('abort');
  }
  /** `umount -l`: open files stay, the name leads to the directory underneath. */
  async unmount(): Promise<void> {
    await this.tell('unmount');
  }
  async remount(): Promise<void> {
    await this.tell('remount');
  }
  /** Ends everything; throws if something could not be removed, and says who holds it. */
  async down(): Promise<void> {
    await this.tell('down').catch((e: NodeJS.ErrnoException) => {
      if (e.code !== 'ENOENT' && e.code !== 'ECONNREFUSED') throw e; // down already
    });
  }
}

let reason: string | undefined;
/** Why there can be no lab here; empty if there can. */
export function labAvailable(): string {
  if (reason === undefined) {
    try {
      execFileSync('python3', [STALL, 'why-not'], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], timeout: UP_MS });
      reason = '';
    } catch (e) {
      const said = e as { stdout?: string; message: string };
      reason = said.stdout?.trim() || `test/stall/stall.py does not run: ${said.message}`;
    }
  }
  return reason;
}

/** For describe.skipIf(noLab('…')): says aloud what is not tested and why. */
export function noLab(what: string): boolean {
  const why = labAvailable();
  if (why) process.stderr.write(`SKIPPED: ${what}: ${why}\n`);
  return why !== '';
}

export async function startLab(o: LabOptions = {}): Promise<Lab> {
  const args = [STALL, 'up', '--owner', String(o.owner ?? process.pid)];
  if (o.loop) args.push('--loop', o.loop);
  if (o.sizeMib) args.push('--size', String(o.sizeMib));
  if (o.maxHangS) args.push('--max-hang', String(o.maxHangS));
  return new Promise((resolve, reject) => {
    execFile('python3', args, { timeout: UP_MS, cwd: '/' }, (error, stdout, stderr) =>
      error ? reject(new Error(`no stall lab: ${stderr || error.message}`)) : resolve(new Lab(JSON.parse(stdout) as Record<string, unknown>)),
    );
  });
}

/** A lab for one test, taken down whatever becomes of it. A failure of the test itself is reported before one of the teardown. */
export async function withLab<T>(o: LabOptions, body: (lab: Lab) => Promise<T>): Promise<T> {
  const lab = await startLab(o);
  let result: T;
  try {
    result = await body(lab);
  } catch (e) {
    await lab.down().catch((e2: unknown) => process.stderr.write(`stall lab: ${String(e2)}\n`));
    throw e;
  }
  await lab.down();
  return result;
}

/** Gates for one command's system calls, without root or FUSE. Start the command as `[...gate.prefix, program, …args]`; its pid is its own. */
export class SysGate extends Gates {
  readonly prefix: readonly string[];
  private readonly dir: string;
  constructor(o: { under: string; maxHangS?: number }) {
    const dir = mkdtempSync(path.join(tmpdir(), 'kvlane-gate-'));
    super(path.join(dir, 'control'));
    this.dir = dir;
    this.prefix = [SYSGATE, '--control', this.control, '--under', o.under, ...(o.maxHangS ? ['--max-hang', String(o.maxHangS)] : []), '--'];
  }
  /** Once the command is gone. */
  remove(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/** Compiles the programs of the lab if that has not been done (test/setup.sh does). */
export function buildLab(): void {
  execFileSync('python3', [STALL, 'build'], { stdio: ['ignore', 'ignore', 'pipe'], timeout: UP_MS });
}
