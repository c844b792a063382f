// process.ts — one sidecar process: started with little, fed lines, read to lines, and left without waiting.
// A sidecar with a call stuck in the kernel may stay a corpse for hours: `gone` means that it will say no more
// (end of stdout, or it exited), `exited` that the kernel has given up its pid. Only the second may never come.

import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { LIMITS } from '../../protocol/messages.ts';
import { KvlaneError } from './errors.ts';

/** Written and not taken by the pipe. A sidecar that does not read is stopped or stuck: more would only pile up. */
export const OUTBOX_BYTES_MAX = 16 * 1024 * 1024;
/** The end of stderr is kept for error messages, the rest counted. */
export const STDERR_BYTES_MAX = 64 * 1024;
/** After the exit, output already in the pipe may still be read for this long. */
const LAST_WORDS_MS = 200;

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export interface ProcessOptions {
  /** Absolute or relative here: the sidecar itself runs in "/". */
  mounts: Record<string, string>;
  create?: boolean;
  /** Further arguments of `serve`, as typed. */
  args?: readonly string[];
  /** A command that ends by running the rest of its arguments, such as ["setpriv", "--reuid=1000"]. */
  wrapper?: readonly string[];
  env?: Record<string, string>;
  /** Another kvlane.cjs than the one built in this package. */
  main?: string;
  /** Each line of its stderr, beside what is kept of it. */
  onLog?: (line: string) => void;
}

export interface Listener {
  line(text: string): void;
  /** Once. Nothing will be read after it. */
  gone(reason: string): void;
}

export class SidecarProcess {
  readonly child: ChildProcessWithoutNullStreams;
  exit: Exit | null = null;
  readonly exited: Promise<Exit>;
  stderrDroppedBytes = 0;
  #stderr: Buffer[] = [];
  #stderrBytes = 0;
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #gone = false;
  readonly #listener: Listener;

  constructor(options: ProcessOptions, listener: Listener) {
    this.#listener = listener;
    const [command = process.execPath, ...args] = commandOf(options);
    // A group of its own, so that a Ctrl-C meant for the parent does not race our shutdown; and no inherited
    // environment, since a NODE_OPTIONS from somewhere would change the sidecar.
    this.child = spawn(command, args, { cwd: '/', env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', ...options.env }, stdio: 'pipe', detached: true });
    const { child } = this;
    this.exited = new Promise((settle) => child.once('exit', (code, signal) => settle((this.exit = { code, signal }))));
    child.once('error', (error) => this.#end(`it could not be started: ${error.message}`));
    child.once('exit', (code, signal) => {
      setTimeout(() => this.#end(`it exited with ${signal ?? `status ${code}`}`), LAST_WORDS_MS).unref();
    });
    child.stdin.on('error', () => {}); // EPIPE: the end of stdout tells the same, and tells it once.
    child.stdout.on('error', (error) => this.#end(error.message));
    child.stdout.on('data', (chunk: Buffer) => this.#read(chunk));
    child.stdout.once('end', () => this.#end('its stdout ended'));
    child.stderr.on('error', () => {});
    child.stderr.on('data', (chunk: Buffer) => this.#keep(chunk));
    if (options.onLog) createInterface({ input: child.stderr }).on('line', options.onLog);
  }

  /** False when the line was not taken: the sidecar is gone, or has not read for OUTBOX_BYTES_MAX. */
  write(line: string): boolean {
    const { stdin } = this.child;
    if (this.#gone || !stdin.writable || stdin.writableLength > OUTBOX_BYTES_MAX) return false;
    stdin.write(`${line}\n`);
    return true;
  }

  get isGone(): boolean {
    return this.#gone;
  }

  get stderr(): string {
    return Buffer.concat(this.#stderr).toString();
  }

  /** The exit, or null when it did not come in time: the caller goes on without it. */
  async waitExit(timeoutMs: number): Promise<Exit | null> {
    if (this.exit) return this.exit;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<null>((settle) => (timer = setTimeout(settle, timeoutMs, null)));
    try {
      return await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Lets go of everything that would keep this process alive; the sidecar sees the end of its stdin. */
  release(): void {
    this.#end('it was released');
    for (const stream of [this.child.stdin, this.child.stdout, this.child.stderr]) stream.destroy();
    this.child.unref();
  }

  #read(chunk: Buffer): void {
    let from = 0;
    for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, from)) {
      const line = this.#tailBytes > 0 ? Buffer.concat([...this.#tail.splice(0), chunk.subarray(from, at)]) : chunk.subarray(from, at);
      this.#tailBytes = 0;
      from = at + 1;
      if (!this.#gone) this.#listener.line(line.toString());
    }
    if (from === chunk.length) return;
    this.#tail.push(chunk.subarray(from));
    this.#tailBytes += chunk.length - from;
    // Twice the limit: the sidecar keeps to it, so this is no longer the protocol.
    if (this.#tailBytes > 2 * LIMITS.line_bytes_max) {
      this.#end('it wrote a line longer than the protocol allows');
      this.child.kill('SIGKILL');
    }
  }

  #keep(chunk: Buffer): void {
    this.#stderr.push(chunk);
    this.#stderrBytes += chunk.length;
    while (this.#stderrBytes > STDERR_BYTES_MAX && this.#stderr.length > 1) {
      const dropped = this.#stderr.shift()!.length;
      this.#stderrBytes -= dropped;
      this.stderrDroppedBytes += dropped;
    }
  }

  #end(reason: string): void {
    if (this.#gone) return;
    this.#gone = true;
    this.#listener.gone(reason);
  }
}

function commandOf(options: ProcessOptions): string[] {
  const mounts = Object.entries(options.mounts).flatMap(([name, root]) => ['--mount', `${name}=${resolve(root)}`]);
  const create = options.create ? ['--create'] : [];
  // This client reaches the arena by read(2) and write(2), and hugetlb takes no write(2).
  const pages = options.args?.includes('--huge-pages') ? [] : ['--huge-pages', 'off'];
  return [...(options.wrapper ?? []), process.execPath, options.main ?? sidecarMain(), 'serve', ...mounts, ...create, ...pages, ...(options.args ?? [])];
}

/** dist/kvlane.cjs of this package. */
export function sidecarMain(): string {
  for (let at = import.meta.dirname; at !== dirname(at); at = dirname(at)) {
    if (!existsSync(join(at, 'package.json'))) continue;
    const main = join(at, 'dist/kvlane.cjs');
    if (existsSync(main)) return main;
    throw new KvlaneError(`${main} is not there; run: npm run build`);
  }
  throw new KvlaneError(`no package.json above ${import.meta.dirname}`);
}
