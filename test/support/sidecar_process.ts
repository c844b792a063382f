// sidecar_process.ts — a real sidecar over real pipes, spoken to in bare lines.
//
// Not the typed client: these tests send what no client would. Every wait is bounded by WAIT_MS and fails
// with what was seen until then; life and death are read from the pipes and the exit, never from sleeps.
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process';
import { mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import type { ReadyEvent } from '../../protocol/messages.ts';

export const WAIT_MS = 10_000;

/** Where no mount hangs: `ready` waits until they have answered, and no first request is refused because a busy disk took 100 ms. */
export const KNOWN_AT_READY = ['--test-start-wait-ms', String(WAIT_MS)];

/** Tests look into answers of every kind. */
export type Message = Record<string, any>;

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface StartOptions {
  /** Default: one mount kv0 in a fresh directory, with --create. */
  args?: readonly string[];
  /** The command and words that run the rest of the arguments. */
  wrapper?: readonly string[];
  stdio?: StdioOptions;
  /** Read stdout (default). Without it the pipe fills. */
  read?: boolean;
}

export interface Sidecar {
  child: ChildProcess;
  /** Every message so far, in order. */
  messages: Message[];
  stderr(): string;
  send(...requests: object[]): void;
  write(text: string | Uint8Array): void;
  /** The first message that fits, also one that came before the call. */
  message(fits: (message: Message) => boolean, what: string): Promise<Message>;
  answer(id: number | string): Promise<Message>;
  ready(): Promise<ReadyEvent>;
  end(): void;
  /** stdout has ended. */
  ended: Promise<void>;
  exited: Promise<Exit>;
  /** From /proc/<pid>/status, for example VmHWM; null when the process is gone. */
  statusKib(field: string): number | null;
}

/** A directory that is gone after the test. */
export function freshDirectory(): string {
  const path = mkdtempSync(join(tmpdir(), 'kvlane-test-'));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

export function startSidecar(options: StartOptions = {}): Sidecar {
  const args = options.args ?? ['--mount', `kv0=${freshDirectory()}`, '--create', '--arena-mib', '8'];
  const words = [...(options.wrapper ?? []), process.execPath, sidecarMain(), 'serve', ...KNOWN_AT_READY, ...(args.includes('--huge-pages') ? [] : ['--huge-pages', 'off']), ...args]; // what a test finds must not depend on the machine
  const child = spawn(words[0]!, words.slice(1), {
    cwd: '/',
    env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin' },
    stdio: options.stdio ?? 'pipe',
    detached: true,
  });
  onTestFinished(() => {
    try {
      process.kill(-child.pid!, 'SIGKILL'); // the group: a wrapper's other children too
    } catch {
      // it has left
    }
    for (const stream of child.stdio) stream?.destroy();
  });
  return talkTo(child, options.read ?? true);
}

export function talkTo(child: ChildProcess, read = true): Sidecar {
  const messages: Message[] = [];
  const waiting = new Set<() => void>();
  let tail = '';
  let stderr = '';
  const changed = (): void => {
    for (const look of [...waiting]) look();
  };
  const exited = new Promise<Exit>((done) => child.once('exit', (code, signal) => done({ code, signal })));
  const stdout: Readable | null = child.stdout;
  const ended = new Promise<void>((done) => {
    if (stdout === null) return done();
    stdout.once('close', done);
    stdout.on('error', () => {});
  });
  if (read) {
    stdout?.setEncoding('utf8').on('data', (text: string) => {
      const lines = (tail + text).split('\n');
      tail = lines.pop()!;
      for (const line of lines) messages.push(JSON.parse(line) as Message); // anything else on stdout fails the test here
      changed();
    });
  }
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-64 * 1024);
    changed();
  });
  child.stdin?.on('error', () => {}); // the end of stdout tells the same
  void ended.then(changed);

  const sidecar: Sidecar = {
    child,
    messages,
    stderr: () => stderr,
    write: (text) => void (child.stdin as Writable).write(text),
    send: (...requests) => sidecar.write(requests.map((request) => `${JSON.stringify(request)}\n`).join('')),
    async message(fits, what) {
      let next = 0; // each message is looked at once, however many come
      return within(
        new Promise<Message>((done) => {
          const look = (): void => {
            for (; next < messages.length; next += 1) {
              if (!fits(messages[next]!)) continue;
              waiting.delete(look);
              return done(messages[next]!);
            }
          };
          waiting.add(look);
          look();
        }),
        () => `${what} did not come; the last messages: ${JSON.stringify(messages.slice(-3))}; stderr: ${stderr}`,
      );
    },
    answer: (id) => sidecar.message((message) => message['id'] === id, `the answer to ${id}`),
    ready: async () => (await sidecar.message((message) => message['event'] === 'ready', 'ready')) as unknown as ReadyEvent,
    end: () => void child.stdin?.end(),
    ended: withinLazily(ended, () => `stdout did not end; stderr: ${stderr}`),
    exited: withinLazily(exited, () => `no exit; stderr: ${stderr}`),
    statusKib(field) {
      try {
        const found = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'));
        return found ? Number(found[1]) : null;
      } catch {
        return null;
      }
    },
  };
  return sidecar;
}

export async function within<T>(promise: Promise<T>, complaint: () => string, waitMs = WAIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_done, fail) => {
    timer = setTimeout(() => fail(new Error(complaint())), waitMs);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Bounded from the moment somebody waits, not from the start. */
export function withinLazily<T>(promise: Promise<T>, complaint: () => string, waitMs = WAIT_MS): Promise<T> {
  return {
    then: (done, fail) => within(promise, complaint, waitMs).then(done, fail),
    catch: (fail) => within(promise, complaint, waitMs).catch(fail),
    finally: (last) => within(promise, complaint, waitMs).finally(last),
    [Symbol.toStringTag]: 'Promise',
  };
}

/** Not /proc/PID/stat: reading that of a corpse may hang. */
export function isAlive(pid: number): boolean {
  try {
    readlinkSync(`/proc/${pid}/exe`);
    return true;
  } catch {
    return false;
  }
}
