// connection.ts — one look at a running sidecar: connect, read its greeting, ask, each within a time of its own.
//
// What is at the other end may be a sidecar that is stopped, whose loop hangs, or that has died and whose socket still accepts: all
// of them are silent, none is waited for longer than was said here.
import { connect, type Socket } from 'node:net';
import { tamed } from './tame.ts';

export interface Bounds {
  connectMs: number;
  answerMs: number;
}

/** A sidecar answers in under a millisecond, behind other readers in a tenth of a second. */
export const BOUNDS: Bounds = { connectMs: 500, answerMs: 1_000 };
/** A `stats` answer of 64 mounts on 64 devices has 200 KiB. */
const LINE_BYTES_MAX = 4 * 1024 * 1024;

/** dead: nobody listens there any more · mute: no answer in time · shut: it hung up, or has no room · denied: not for this user · odd: no sidecar */
export type Trouble = 'dead' | 'mute' | 'shut' | 'denied' | 'odd';

export class AttachError extends Error {
  override name = 'AttachError';
  readonly trouble: Trouble;
  constructor(trouble: Trouble, message: string) {
    super(message);
    this.trouble = trouble;
  }
}

export type Line = Record<string, unknown>;

export class Connection {
  readonly hello: Line;
  /** Events, once `watch` was asked. */
  onEvent: (event: Line) => void = () => {};
  #wire: Wire;
  #bounds: Bounds;
  #nextId = 1;

  private constructor(hello: Line, wire: Wire, bounds: Bounds) {
    this.hello = hello;
    this.#wire = wire;
    this.#bounds = bounds;
    wire.onEvent = (event) => this.onEvent(event);
  }

  static async open(path: string, bounds: Bounds = BOUNDS): Promise<Connection> {
    const wire = new Wire(path);
    try {
      await wire.connected(bounds.connectMs);
      const hello = await wire.line((line) => line['event'] === 'attached', bounds.answerMs, 'its greeting');
      return new Connection(hello, wire, bounds);
    } catch (error) {
      wire.close();
      throw error;
    }
  }

  get isOpen(): boolean {
    return this.#wire.fault === null;
  }

  /** The answer, whatever it says. After a rejection the connection is closed. */
  async ask(op: string, fields: object = {}): Promise<Line> {
    const id = this.#nextId;
    this.#nextId += 1;
    try {
      const answer = this.#wire.line((line) => line['id'] === id, this.#bounds.answerMs, `its answer to ${op}`);
      this.#wire.write(`${JSON.stringify({ id, op, ...fields })}\n`);
      return await answer;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    this.#wire.close();
  }
}

interface Waiting {
  fits(line: Line): boolean;
  end(outcome: Line | AttachError): void;
}

/** Lines from a socket, each to whoever waits for it. */
class Wire {
  fault: AttachError | null = null;
  onEvent: (event: Line) => void = () => {};
  #socket: Socket;
  #waiting = new Set<Waiting>();
  #tail: Buffer[] = [];
  #tailBytes = 0;
  #connected = false;

  constructor(path: string) {
    this.#socket = connect(path);
    this.#socket.on('connect', () => (this.#connected = true));
    this.#socket.on('data', (chunk) => this.#take(chunk));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => this.#fail(troubleOf(error), `${path}: ${error.message}`));
    this.#socket.on('close', () => this.#fail('shut', `${path}: it closed the connection`));
  }

  connected(ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (error: AttachError | null): void => {
        clearTimeout(timer);
        this.#waiting.delete(waiting);
        if (error === null) resolve();
        else reject(error);
      };
      const timer = setTimeout(() => end(new AttachError('mute', `no connection within ${ms} ms`)), ms);
      const waiting: Waiting = { fits: () => false, end: (outcome) => end(outcome as AttachError) };
      this.#waiting.add(waiting);
      this.#socket.once('connect', () => end(null));
      if (this.fault !== null) end(this.fault);
    });
  }

  line(fits: (line: Line) => boolean, ms: number, what: string): Promise<Line> {
    return new Promise((resolve, reject) => {
      if (this.fault !== null) return reject(this.fault);
      const waiting: Waiting = {
        fits,
        end: (outcome) => {
          clearTimeout(timer);
          this.#waiting.delete(waiting);
          if (outcome instanceof AttachError) reject(outcome);
          else resolve(outcome);
        },
      };
      const timer = setTimeout(() => waiting.end(new AttachError('mute', `${what} did not come within ${ms} ms`)), ms);
      this.#waiting.add(waiting);
    });
  }

  write(text: string): void {
    this.#socket.write(text);
  }

  close(): void {
    this.#fail('shut', 'closed by us');
    this.#socket.destroy();
  }

  #fail(trouble: Trouble, message: string): void {
    if (this.fault !== null) return;
    this.fault = new AttachError(trouble, message);
    for (const waiting of [...this.#waiting]) waiting.end(this.fault);
    if (this.#connected) this.#socket.destroy();
  }

  #take(chunk: Buffer): void {
    for (let rest = chunk; rest.length > 0; ) {
      const end = rest.indexOf(0x0a);
      const part = end < 0 ? rest : rest.subarray(0, end);
      this.#tail.push(part);
      this.#tailBytes += part.length;
      if (this.#tailBytes > LINE_BYTES_MAX) return this.#fail('odd', `a line of more than ${LINE_BYTES_MAX} bytes: that is no sidecar`);
      if (end < 0) return;
      rest = rest.subarray(end + 1);
      const text = Buffer.concat(this.#tail).toString();
      this.#tail = [];
      this.#tailBytes = 0;
      let line: unknown;
      try {
        line = tamed(JSON.parse(text));
      } catch {
        return this.#fail('odd', 'it says what is not JSON, or nested without end: that is no sidecar');
      }
      if (typeof line !== 'object' || line === null) return this.#fail('odd', 'it says what is no message: that is no sidecar');
      this.#hand(line as Line);
    }
  }

  #hand(line: Line): void {
    for (const waiting of this.#waiting) {
      if (waiting.fits(line)) return waiting.end(line);
    }
    if ('event' in line) this.onEvent(line);
  }
}

function troubleOf(error: NodeJS.ErrnoException): Trouble {
  switch (error.code) {
    case 'ECONNREFUSED':
    case 'ENOENT':
      return 'dead';
    case 'EACCES':
    case 'EPERM':
      return 'denied';
    case 'EAGAIN':
      return 'mute'; // its queue is full and nobody takes from it
    default:
      return 'shut';
  }
}
