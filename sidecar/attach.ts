// attach.ts — the socket by which `kvlane top`, `metrics` and their like look at a running sidecar.
//
// Whoever is attached may look and nothing else, and costs what we give him, whatever he sends or leaves unread: one line is
// answered at a time over all readers, and after each comes a pause of twenty times what it took, of 100 ms at most: a thousand
// readers take no more than a twentieth of the loop, as long as an answer takes less than 5 ms. Nobody's next line is read before his last answer is in the
// kernel, so a reader holds one chunk of input and one answer of memory at most. Too many readers are turned away,
// too frequent ones find the door shut for a second. Not a byte of this reaches the client's pipes.
import { connect, createServer, type Server, type Socket } from 'node:net';
import { readlink, unlinkSync } from 'node:fs';
import { decode } from '../protocol/decode.ts';
import { OPS, type Event, type Op } from '../protocol/messages.ts';
import { publish, socketPaths, tidy, whyNot, type Place, type SocketPaths } from './attach_place.ts';
import { quoteStart } from './quote.ts';
import type { Log, Service } from './service_types.ts';

/** At a time. A person, a scraper and a few who forgot theirs. */
export const READERS_MAX = 16;
/** One question; the longest has a hundred bytes. */
export const QUESTION_BYTES_MAX = 4_096;
/** Lines that are no question, before it is taken for no reader at all. */
export const FAULTS_MAX = 16;
/** After an answer, at least. */
const PAUSE_MS_MIN = 5;
/** Of the time that answers take: a twentieth of the loop. */
const PAUSE_FACTOR = 20;
/** On a busy machine an answer may take long by the clock; nobody waits a second for that. */
const PAUSE_MS_MAX = 100;
/** In one second, turned away ones too. Each costs a tenth of a millisecond. */
export const ARRIVALS_MAX = 64;
const ARRIVALS_MS = 1_000;
const BACKLOG = 16;
/** Nothing asked, nothing read for so long: it is closed. */
export const IDLE_MS = 60_000;
/** Of events that a watcher has not read; what comes then is counted and left out. */
const UNREAD_BYTES_MAX = 64 * 1024;
/** Of calls in one answer: 64 KiB. Those over the pipes list 3,000. */
export const CALLS_LISTED_MAX = 256;
/** Directory and socket are made in memory; longer than this, and a thread of libuv's pool is stuck. */
const OPENING_MS_MAX = 5_000;
/** Somebody else's socket, when it is looked at for being dead. */
const REFUSAL_MS_MAX = 500;
const LOOKS: ReadonlySet<Op> = new Set(['stats', 'stuck', 'ping', 'help']);
const WATCHED: ReadonlySet<string> = new Set(['mount', 'stalled', 'recovered']);

export interface AttachDeps {
  service: Pick<Service, 'look'>;
  /** The `ready` event as it would be now. */
  hello(): object;
  nowUs(): number;
  log: Log;
  /** Tests: milliseconds that a socket may be idle. */
  idleMs?: number;
}

export interface AttachFigures {
  readers: number;
  /** Since the start. */
  attached: number;
  turned_away: number;
  questions: number;
}

export interface Attach {
  /** An event went to the client. */
  heard(event: Event): void;
  figures(): AttachFigures;
  /** Where readers find it; null: nowhere. */
  path(): string | null;
  close(): void;
}

interface Reader {
  socket: Socket;
  /** Read and not answered: whole lines and the beginning of another. */
  input: Buffer;
  line: number;
  faults: number;
  watching: boolean;
  /** Events left out since the last that was told. */
  missed: number;
  /** It has its turn, or waits for it. */
  queued: boolean;
}

/** Returns at once; opens in its own time, and says so if it cannot. */
export function createAttach(places: readonly Place[], deps: AttachDeps): Attach {
  const { service, log, nowUs } = deps;
  const readers = new Set<Reader>();
  const queue: Reader[] = [];
  const figures = { attached: 0, turned_away: 0, questions: 0 };
  const watchers = new Set<Reader>();
  let server: Server | null = null;
  let paths: SocketPaths | null = null;
  let closed = false;
  let restUntilUs = 0;
  let timer: NodeJS.Timeout | null = null;
  let arrivals = 0;
  let arrivalsSinceUs = 0;
  let pidNamespace: string | undefined;
  /** Events of this turn of the loop, as lines, for all watchers. */
  let news = '';
  let newsEvents = 0;
  let newsLeftOut = 0;

  readlink('/proc/self/ns/pid', (_error, name) => (pidNamespace = name));
  void open().catch((error: unknown) => log.warn('not_attachable', { error }));

  async function open(): Promise<void> {
    const reasons: string[] = [];
    const uid = process.geteuid!();
    for (const place of places) {
      const reason = (await withinTime(whyNot(place, uid, true), `${place.directory} gave no answer for ${OPENING_MS_MAX} ms`)) ?? (await openIn(place.directory));
      if (closed || reason === null) return;
      reasons.push(reason);
    }
    log.warn('not_attachable', { reasons, next: 'name a directory of your own in memory with --attach-dir, or say --no-attach' });
  }

  /** What keeps the socket from lying there; null: nothing. */
  async function openIn(directory: string): Promise<string | null> {
    if (closed) return null;
    const random = Math.floor(Math.random() * 2 ** 32).toString(16).padStart(8, '0'); // to tell apart, not to keep secret
    const made = socketPaths(directory, process.pid, random);
    if (typeof made === 'string') return made;
    paths = made;
    try {
      await listen();
    } catch (error) {
      paths = null;
      return (error as Error).message; // read-only, full: it says which call and which path
    }
    void tidy(directory, made.final, refuses).catch(() => {});
    return null;
  }

  async function listen(): Promise<void> {
    const { fresh } = paths!;
    const opened = createServer(arrive);
    opened.maxConnections = READERS_MAX;
    opened.on('drop', turnedAway);
    server = opened;
    try {
      await new Promise<void>((resolve, reject) => {
        opened.once('error', reject);
        opened.listen({ path: fresh, backlog: BACKLOG }, () => {
          opened.off('error', reject);
          opened.on('error', (error) => log.warn('attach_failed', { error }));
          opened.unref();
          resolve();
        });
      });
      await publish(paths!);
    } catch (error) {
      opened.close(); // libuv unlinks what it bound
      if (server === opened) server = null;
      if (!closed) throw error;
    }
  }

  function turnedAway(): void {
    figures.turned_away += 1;
    countArrival();
  }

  /** Who comes and goes in a loop costs an accept each time, which cannot be put off: so the door is shut for a while. */
  function countArrival(): void {
    const now = nowUs();
    if (now - arrivalsSinceUs > ARRIVALS_MS * 1000) {
      arrivalsSinceUs = now;
      arrivals = 0;
    }
    arrivals += 1;
    if (arrivals < ARRIVALS_MAX || server === null) return;
    unlinkNow(paths!.final); // first: nobody is to find a name that refuses, which says that its sidecar is dead
    server.close(); // those that are in stay
    server = null;
    log.warn('attach_shut', { why: `${arrivals} readers came within ${ARRIVALS_MS} ms`, for_ms: ARRIVALS_MS });
    setTimeout(() => {
      if (!closed) listen().catch((error: unknown) => log.warn('not_attachable', { error }));
    }, ARRIVALS_MS).unref();
  }

  function arrive(socket: Socket): void {
    if (readers.size >= READERS_MAX) {
      // A server that was opened again counts from nothing, and those that were in are in.
      turnedAway();
      socket.destroy();
      return;
    }
    countArrival();
    figures.attached += 1;
    const reader: Reader = { socket, input: NOTHING, line: 1, faults: 0, watching: false, missed: 0, queued: false };
    readers.add(reader);
    socket.unref();
    socket.setTimeout(deps.idleMs ?? IDLE_MS, () => {
      if (!reader.watching || socket.writableLength > 0) socket.destroy(); // a watcher has nothing to say
    });
    socket.on('data', (chunk) => {
      socket.pause();
      reader.input = reader.input.length === 0 ? chunk : Buffer.concat([reader.input, chunk]);
      enqueue(reader);
    });
    socket.on('error', () => {}); // its end is what counts
    socket.on('close', () => {
      readers.delete(reader);
      watchers.delete(reader);
    });
    say(reader, { ...deps.hello(), event: 'attached', parent_pid: process.ppid, pid_namespace: pidNamespace });
  }

  function enqueue(reader: Reader): void {
    reader.queued = true;
    queue.push(reader);
    serve();
  }

  /** One line of one reader, then a rest. */
  function serve(): void {
    if (timer !== null || queue.length === 0) return;
    const beganUs = nowUs();
    if (beganUs < restUntilUs) {
      timer = setTimeout(rested, Math.ceil((restUntilUs - beganUs) / 1000)).unref();
      return;
    }
    const reader = queue.shift()!;
    reader.queued = false;
    if (!reader.socket.destroyed) takeLine(reader);
    const endedUs = nowUs();
    restUntilUs = endedUs + Math.min(PAUSE_MS_MAX * 1000, Math.max(PAUSE_MS_MIN * 1000, PAUSE_FACTOR * (endedUs - beganUs)));
    if (queue.length > 0) timer ??= setTimeout(rested, Math.ceil((restUntilUs - endedUs) / 1000)).unref(); // goOn may have set one
  }

  function rested(): void {
    timer = null;
    serve();
  }

  function takeLine(reader: Reader): void {
    const { input } = reader;
    const end = input.indexOf(NEWLINE);
    if ((end < 0 ? input.length : end) > QUESTION_BYTES_MAX) {
      refuse(reader, null, 'LINE_TOO_LONG', `line ${reader.line}: longer than ${QUESTION_BYTES_MAX} bytes; nothing that may be asked here is`);
      reader.socket.destroySoon();
      return;
    }
    if (end >= 0) {
      const text = input.toString('utf8', 0, end);
      reader.input = end + 1 === input.length ? NOTHING : input.subarray(end + 1);
      answer(reader, text);
      reader.line += 1;
    }
    goOn(reader);
  }

  /** Nothing more is read from whoever has not read what he was told. */
  function goOn(reader: Reader): void {
    const { socket, input } = reader;
    if (socket.destroyed || socket.writableEnded || socket.writableLength > 0) return;
    if (input.includes(NEWLINE)) enqueueLater(reader);
    else {
      if (input.length > 0 && input.buffer.byteLength > 2 * input.length) reader.input = Buffer.from(input); // not the whole chunk for its rest
      socket.resume();
    }
  }

  // Not serve() again from inside of itself.
  function enqueueLater(reader: Reader): void {
    reader.queued = true;
    queue.push(reader);
    timer ??= setTimeout(rested, PAUSE_MS_MIN).unref();
  }

  function answer(reader: Reader, text: string): void {
    figures.questions += 1;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return fault(reader, null, 'INVALID_REQUEST', `line ${reader.line}: not JSON: '${quoteStart(text)}'; ask for example {"id":1,"op":"stats"}`);
    }
    if (isWatch(value)) {
      reader.watching = value.op === 'watch';
      if (reader.watching) watchers.add(reader);
      else watchers.delete(reader);
      return say(reader, { id: value.id, ok: true });
    }
    const decoded = decode(value, { slots: 0, slotBytes: 0, mounts: [], line: reader.line, nowUs: nowUs() });
    const { op } = (value ?? {}) as { op?: Op };
    if (op !== undefined && OPS.includes(op) && !LOOKS.has(op)) {
      // Whatever else is wrong with it.
      return fault(reader, decoded.ok ? decoded.request.id : decoded.id, 'INVALID_REQUEST', `${op} is for the client that started this sidecar; whoever is attached may ask stats, stuck, ping, help, watch, unwatch`);
    }
    if (!decoded.ok) return fault(reader, decoded.id, decoded.code, decoded.message);
    const { request } = decoded;
    const { id } = request;
    switch (request.op) {
      case 'stats':
        return say(reader, { id, ok: true, stats: { ...service.look.stats(), attached: attachFigures() } });
      case 'stuck':
        return say(reader, { id, ok: true, ...service.look.stuck(request.overMs, CALLS_LISTED_MAX) });
      case 'ping':
        return say(reader, { id, ok: true, now_us: nowUs() });
      case 'help':
        return say(reader, { id, ok: true, help: { ...service.look.help(), attached: 'you may look and nothing else: stats, stuck, ping, help; watch for events, unwatch' } });
    }
  }

  function fault(reader: Reader, id: unknown, code: string, message: string): void {
    reader.faults += 1;
    refuse(reader, id, code, message);
    if (reader.faults >= FAULTS_MAX) reader.socket.destroySoon();
  }

  function refuse(reader: Reader, id: unknown, code: string, message: string): void {
    say(reader, { id, ok: false, error: { code, message } });
  }

  function say(reader: Reader, message: object): void {
    write(reader, `${JSON.stringify(message)}\n`);
  }

  function write(reader: Reader, text: string): void {
    reader.socket.write(text, () => taken(reader));
  }

  /** The kernel has all that was said. 'drain' would not do: it comes only after more than a stream likes to hold. */
  function taken(reader: Reader): void {
    if (reader.socket.writableLength > 0) return;
    if (reader.missed > 0 && reader.watching) {
      const events = reader.missed;
      reader.missed = 0;
      return say(reader, { event: 'missed', events });
    }
    if (!reader.queued) goOn(reader);
  }

  /** One write a watcher, however many calls stalled at once: there may be thousands. */
  function tell(): void {
    for (const reader of watchers) {
      if (reader.socket.writableLength > UNREAD_BYTES_MAX) reader.missed += newsEvents;
      else {
        reader.missed += newsLeftOut;
        write(reader, news);
      }
    }
    news = '';
    newsEvents = newsLeftOut = 0;
  }

  function attachFigures(): AttachFigures {
    return { readers: readers.size, ...figures };
  }

  return {
    heard(event) {
      if (watchers.size === 0 || !WATCHED.has(event.event)) return;
      if (newsEvents === 0) setImmediate(tell);
      newsEvents += 1;
      if (news.length > UNREAD_BYTES_MAX) newsLeftOut += 1;
      else news += `${JSON.stringify(event)}\n`;
    },
    figures: attachFigures,
    path: () => (server === null ? null : paths!.final),
    close() {
      closed = true;
      server?.close();
      server = null;
      if (paths !== null) unlinkNow(paths.final);
    },
  };
}

function unlinkNow(path: string): void {
  try {
    unlinkSync(path); // in memory, as bind
  } catch {
    // It was not published yet, or somebody took it away.
  }
}

const NEWLINE = 0x0a;
const NOTHING = Buffer.alloc(0);

function isWatch(value: unknown): value is { id: number | string; op: 'watch' | 'unwatch' } {
  if (typeof value !== 'object' || value === null) return false;
  const { id, op, ...more } = value as Record<string, unknown>;
  if (op !== 'watch' && op !== 'unwatch') return false;
  return Object.keys(more).length === 0 && (Number.isSafeInteger(id) || (typeof id === 'string' && id.length <= 64));
}

/** Nobody listens there any more. */
function refuses(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const end = (dead: boolean): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(dead);
    };
    const timer = setTimeout(end, REFUSAL_MS_MAX, false).unref();
    socket.unref();
    socket.once('connect', () => end(false));
    socket.once('error', (error: NodeJS.ErrnoException) => end(error.code === 'ECONNREFUSED'));
  });
}

function withinTime(question: Promise<string | null>, otherwise: string): Promise<string | null> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, OPENING_MS_MAX, otherwise).unref();
    void question.then((answer) => {
      clearTimeout(timer);
      resolve(answer);
    });
  });
}
