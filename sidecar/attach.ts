// attach.ts — the socket by which `kvlane top`, `metrics` and their like look at a running sidecar.
//
// Whoever is attached may look and nothing else, and costs what we give him, whatever he sends or leaves unread: one line is
// answered at a time over all readers, and after each comes a pause of twenty times what it took, of 100 ms at most: a thousand
// readers take no more than a twentieth of the loop, as long as an answer takes less than 5 ms. Nobody's next line is read before his last answer is in the
// kernel, so a reader holds one chunk of input and one answer of memory at most. Not a byte of this reaches the client's pipes.
import { readlink } from 'node:fs';
import type { Socket } from 'node:net';
import type { Event } from '../protocol/messages.ts';
import { openDoor } from './attach_door.ts';
import type { Place } from './attach_place.ts';
import { answerTo, refusal } from './attach_questions.ts';
import type { Log, Service } from './service_types.ts';

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
/** Nothing asked, nothing read for so long: it is closed. */
export const IDLE_MS = 60_000;
/** Of events that a watcher has not read; what comes then is counted and left out. */
const UNREAD_BYTES_MAX = 64 * 1024;
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
  const figures = { attached: 0, questions: 0 };
  const watchers = new Set<Reader>();
  let restUntilUs = 0;
  let timer: NodeJS.Timeout | null = null;
  let pidNamespace: string | undefined;
  /** Events of this turn of the loop, as lines, for all watchers. */
  let news = '';
  let newsEvents = 0;
  let newsLeftOut = 0;

  readlink('/proc/self/ns/pid', (_error, name) => (pidNamespace = name));
  const door = openDoor(places, { readers: () => readers.size, arrive, nowUs, log });

  function arrive(socket: Socket): void {
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
      say(reader, refusal(null, 'LINE_TOO_LONG', `line ${reader.line}: longer than ${QUESTION_BYTES_MAX} bytes; nothing that may be asked here is`).message);
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
    const { message, fault, watching } = answerTo(text, reader.line, service.look, nowUs(), attachFigures);
    if (watching !== undefined) {
      reader.watching = watching;
      if (watching) watchers.add(reader);
      else watchers.delete(reader);
    }
    say(reader, message);
    if (fault && (reader.faults += 1) >= FAULTS_MAX) reader.socket.destroySoon();
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
    const { attached, questions } = figures;
    return { readers: readers.size, attached, turned_away: door.turnedAway(), questions };
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
    path: door.path,
    close: door.close,
  };
}

const NEWLINE = 0x0a;
const NOTHING = Buffer.alloc(0);
