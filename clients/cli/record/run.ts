// run.ts — between a client and its sidecar: every byte goes on first, and is kept then.
//
// Nothing here waits for the file. What waits for the other end of a pipe is as much as a pipe holds and no more: who does not read
// is felt by who writes, as if nobody stood between them.
import { spawn } from 'node:child_process';
import { fstatSync } from 'node:fs';
import { Socket } from 'node:net';
import { constants, release, type as systemType, arch } from 'node:os';
import type { Writable } from 'node:stream';
import { nowUs } from '../../node/pending.ts';
import { VERSION } from '../../../protocol/messages.ts';
import { pooledSink } from '../../../sidecar/byte_sink.ts';
import { thisLauncher } from '../console/link.ts';
import { EXIT_FATAL } from '../spec.ts';
import { RECORD_FORMAT } from './format.ts';
import { inheritedFds, stdioWith } from './inherited.ts';
import { Keeper } from './keeper.ts';

/** After a signal, or the end of our client: a sidecar with a call in the kernel may never come to its exit. */
const EXIT_MS_MAX = 1_000;
/** After the exit, and after each piece of what was in the pipe by then: somebody else may hold its other end for good. */
const LAST_WORDS_MS = 200;
/** For a client that takes no more of the last answers. */
const FLUSH_MS_MAX = 5_000;
/** For the end of the record: the program that writes it may not have started yet, on a machine that is slow. */
const CLOSE_MS_MAX = 5_000;
/** For the last lines of the log. */
const LOG_MS_MAX = 1_000;
/** For a sidecar that says nothing at its start. */
const START_MS_MAX = 500;
const PARENT_LOOK_MS = 1_000;
/** Of stderr: beyond this lines are dropped, as the sidecar itself does. */
const LOG_PENDING_BYTES_MAX = 256 * 1024;
const EXIT_CANNOT_RUN = 127;

export interface RecordOptions {
  file: string;
  rest: readonly string[];
  fileBytesMax: number;
  queueBytesMax: number;
}

/** Resolves to the exit status of what was recorded. */
export function runRecord({ file, rest, fileBytesMax, queueBytesMax }: RecordOptions): Promise<number> {
  const own = rest.length === 0 || rest[0]!.startsWith('-') || rest[0] === 'serve';
  const [program = '', ...words] = own ? [process.execPath, thisLauncher(), 'serve', ...(rest[0] === 'serve' ? rest.slice(1) : rest)] : rest;
  const beganUs = nowUs();
  const atUs = (): number => nowUs() - beganUs;

  const child = spawn(program, words, { stdio: stdioWith(inheritedFds()) });
  const stdin = child.stdin!;
  const stdout = child.stdout!;
  const out = openStdout();
  const log = createStderr();
  const say = (text: string): void => log(Buffer.from(`kvlane record: ${text}\n`));
  const keeper = new Keeper({ file, life: process.pid, fileBytesMax, queueBytesMax, say });
  keeper.head({
    kvlane_record: RECORD_FORMAT,
    life: process.pid,
    version: VERSION,
    began: new Date().toISOString(),
    began_us: beganUs,
    command: own ? ['kvlane', 'serve', ...(rest[0] === 'serve' ? rest.slice(1) : rest)] : [...rest],
    system: `${systemType()} ${release()} ${arch()}`,
    node: process.version,
  });

  process.stdin.on('data', (chunk: Buffer) => {
    if (!stdin.write(chunk)) {
      process.stdin.pause();
      stdin.once('drain', () => process.stdin.resume());
    }
    keeper.bytes('client', atUs(), chunk);
  });
  process.stdin.on('end', () => {
    stdin.end();
    keeper.ended('client', atUs());
  });
  process.stdin.on('error', () => stdin.end());
  stdin.on('error', () => {}); // EPIPE: the end of its stdout tells the same

  setTimeout(() => keeper.start(), START_MS_MAX).unref();
  let pieces = 0;
  stdout.on('data', (chunk: Buffer) => {
    pieces += 1;
    if (!out.write(chunk)) {
      stdout.pause();
      out.once('drain', () => stdout.resume());
    }
    keeper.bytes('sidecar', atUs(), chunk);
    keeper.start();
  });
  out.on('error', () => {
    stdout.destroy(); // whoever asked has gone: the sidecar is to feel it
    stdin.end();
  });
  child.stderr!.on('data', (chunk: Buffer) => {
    log(chunk);
    keeper.bytes('log', atUs(), chunk);
  });

  return new Promise((done) => {
    let exit: { code: number | null; signal: NodeJS.Signals | null } | null = null;
    let leaving = false;
    const leave = async (): Promise<void> => {
      if (leaving) return;
      leaving = true;
      keeper.ended('sidecar', atUs());
      keeper.exit(atUs(), exit);
      await bounded(FLUSH_MS_MAX, (settle) => void (out.writable ? out.write('', settle) : out.closed || out.writableFinished ? settle() : out.once('close', settle)));
      if (!(await keeper.close(CLOSE_MS_MAX))) say(`the record in ${file} is not whole`);
      await bounded(LOG_MS_MAX, (settle) => log.flushed(settle));
      const status = exit === null ? EXIT_FATAL : (exit.code ?? 128 + constants.signals[exit.signal!]);
      if (log.stuck()) process.kill(process.pid, 'SIGKILL'); // process.exit() would wait for that write
      done(status);
    };
    // What is in the pipe is passed on however long that takes, as long as it goes on.
    const lastWords = (before: number, idleMs: number): void => {
      const look = (): void => {
        if (pieces > before) return lastWords(pieces, 0);
        const idle = idleMs + LAST_WORDS_MS;
        if (stdout.isPaused() && idle < FLUSH_MS_MAX) return lastWords(pieces, idle);
        void leave();
      };
      setTimeout(() => setImmediate(look), LAST_WORDS_MS); // not before the pipe was looked at: a late timer comes first
    };
    child.once('error', (error) => {
      say(`${program} cannot be started: ${error.message}`);
      exit = { code: EXIT_CANNOT_RUN, signal: null };
      void leave();
    });
    child.once('exit', (code, signal) => {
      exit = { code, signal };
      lastWords(pieces, 0);
      if (stdout.readableEnded || stdout.destroyed) void leave();
    });
    stdout.once('close', () => {
      if (exit !== null) return void leave();
      // The end is the client's at once. The exit is when it is: whoever waits for it, to have the memory back, waits for the sidecar's.
      if (out !== process.stdout) out.end();
    });
    const end = (signal: NodeJS.Signals): void => {
      child.kill(signal);
      if (stdout.closed) setTimeout(() => void leave(), EXIT_MS_MAX);
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => end(signal));
    const parent = process.ppid;
    setInterval(() => {
      if (process.ppid === parent) return;
      stdin.end(); // a sidecar watches its parent, which is us: so its client is watched here
      end('SIGTERM');
    }, PARENT_LOOK_MS).unref();
  });
}

/** A pipe or a socket of our own, since process.stdout cannot be closed. */
function openStdout(): Writable {
  const kind = fstatSync(1);
  return kind.isFIFO() || kind.isSocket() ? new Socket({ fd: 1, readable: false, writable: true }) : process.stdout;
}

/** stderr, one write at a time and never waited for; what does not fit is dropped. */
function createStderr(): ((chunk: Buffer) => void) & { flushed(then: () => void): void; stuck(): boolean } {
  const sink = pooledSink(2);
  let pending = '';
  let writing = false;
  let dropped = 0;
  let waiting: (() => void)[] = [];
  const pump = (): void => {
    if (writing) return;
    if (dropped > 0 && pending.length < LOG_PENDING_BYTES_MAX / 2) {
      pending += `kvlane record: ${dropped} bytes of the log were dropped: stderr is not read fast enough\n`;
      dropped = 0;
    }
    if (pending === '') {
      for (const then of waiting.splice(0)) then();
      return;
    }
    const text = pending;
    pending = '';
    writing = true;
    sink.write(text, () => {
      writing = false;
      pump();
    });
  };
  const log = (chunk: Buffer): void => {
    if (pending.length + chunk.length > LOG_PENDING_BYTES_MAX) dropped += chunk.length;
    else pending += chunk.toString('utf8');
    pump();
  };
  return Object.assign(log, {
    flushed(then: () => void): void {
      if (!writing && pending === '') return then();
      waiting.push(then);
    },
    stuck: () => writing,
  });
}

function bounded(ms: number, start: (settle: () => void) => void): Promise<void> {
  return new Promise((done) => {
    const timer = setTimeout(done, ms);
    start(() => {
      clearTimeout(timer);
      done();
    });
  });
}
