// keeper.ts — the recorder's side of the writing: a bounded queue that nothing waits for.
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Writable } from 'node:stream';
import { thisLauncher } from '../console/link.ts';
import type { From, RecordHead } from './format.ts';
import { frameHead } from './frames.ts';
import type { Word } from './writer.ts';

/** What may wait for a file that takes nothing: more than half a minute of a busy conversation. */
export const QUEUE_BYTES_MAX = 16 * 1024 * 1024;

export interface KeeperOptions {
  file: string;
  life: number;
  fileBytesMax: number;
  queueBytesMax: number;
  say(text: string): void;
}

export class Keeper {
  readonly #options: KeeperOptions;
  #child: ChildProcess | null = null;
  #input: Writable | null = null;
  /** Until the process that writes is there. */
  #early: Buffer[] = [];
  #earlyBytes = 0;
  /** By stream: what is missing since the queue was full. */
  readonly #lost = new Map<From, number>();
  #saidLost = false;
  #dead = false;
  #closing = false;
  /** undefined: it has not. */
  #exitedWith: number | null | undefined;
  #exited: Promise<boolean> = Promise.resolve(false);

  constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Not before the sidecar is there: two processes that start at once are slower than one, and the client waits for one of them. */
  start(): void {
    if (this.#child !== null) return;
    const options = this.#options;
    const words = [thisLauncher(), 'record-writer', options.file, '--life', String(options.life), '--max-bytes', String(options.fileBytesMax)];
    // A group of its own: a ctrl-C is for the conversation, and the end of the record comes after it.
    const child = spawn(process.execPath, words, { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
    const input = child.stdin;
    input.on('error', () => {}); // its exit says the same
    this.#exited = new Promise((done) => {
      child.once('error', (error) => {
        this.#fail(`the process that writes cannot be started: ${error.message}`);
        done(false);
      });
      child.once('exit', (code) => {
        this.#exitedWith = code;
        done(code === 0);
      });
      // After its last words, which say it better.
      child.once('close', (code, signal) => {
        if (!this.#closing) this.#fail(`the process that writes ended with ${signal ?? `status ${code}`}`);
      });
    });
    createInterface({ input: child.stdout }).on('line', (line) => this.#heard(JSON.parse(line) as Word));
    for (const piece of this.#early.splice(0)) input.write(piece);
    this.#child = child;
    this.#input = input;
  }

  head(head: RecordHead): void {
    this.#put('words', 'recorder', 0, Buffer.from(JSON.stringify(head)));
  }

  bytes(from: From, atUs: number, chunk: Buffer): void {
    if (this.#dead) return;
    if ((this.#input?.writableLength ?? this.#earlyBytes) + chunk.length > this.#options.queueBytesMax) {
      this.#lost.set(from, (this.#lost.get(from) ?? 0) + chunk.length);
      if (!this.#saidLost) this.#options.say(`${this.#options.file} takes no more (its disk is full, slow, or does not answer): what is said from now on will be missing in the record; the conversation goes on`);
      this.#saidLost = true;
      return;
    }
    const lost = this.#lost.get(from);
    if (lost !== undefined) {
      this.#lost.delete(from);
      this.#put('lost', from, atUs, Buffer.from(String(lost)));
      if (this.#lost.size === 0 && this.#saidLost) {
        this.#options.say(`${this.#options.file} takes lines again`);
        this.#saidLost = false;
      }
    }
    this.#put('bytes', from, atUs, chunk);
  }

  ended(from: From, atUs: number): void {
    this.#put('ended', from, atUs, Buffer.alloc(0));
  }

  exit(atUs: number, exit: object | null): void {
    this.#put('words', 'sidecar', atUs, Buffer.from(JSON.stringify({ exit })));
  }

  /** True when all of it is in the file. Waits so long and no longer. */
  async close(waitMs: number): Promise<boolean> {
    this.#closing = true;
    this.start();
    const whole = this.#lost.size === 0;
    this.#input?.end();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((done) => (timer = setTimeout(done, waitMs, false)));
    const written = await Promise.race([this.#exited, late]);
    clearTimeout(timer);
    if (!written && this.#exitedWith === undefined) {
      this.#child?.kill('SIGKILL'); // and not waited for: it may be stuck in a write for good
      this.#input?.destroy();
      this.#child?.stdout?.destroy();
      this.#child?.unref();
    }
    return written && whole;
  }

  #put(kind: 'bytes' | 'ended' | 'lost' | 'words', from: From, atUs: number, payload: Buffer): void {
    if (this.#dead) return;
    const head = frameHead(kind, from, atUs, payload.length);
    if (this.#input === null) {
      this.#early.push(head, payload);
      this.#earlyBytes += head.length + payload.length;
      return;
    }
    this.#input.cork();
    this.#input.write(head);
    if (payload.length > 0) this.#input.write(payload);
    this.#input.uncork();
  }

  #heard(word: Word): void {
    const { file, say } = this.#options;
    if ('full' in word) say(`${file}: no space left (${word.full}): what is said from now on may be missing in the record; the conversation goes on`);
    else if ('again' in word) say(`${file}: there is space again`);
    else if ('limit' in word) say(`${file} has reached ${word.limit} bytes (--max-mib): nothing more is recorded; the conversation goes on`);
    else this.#fail(word.failed);
  }

  #fail(why: string): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#options.say(`${this.#options.file} cannot be written: ${why}; the conversation goes on, and is not recorded`);
  }
}
