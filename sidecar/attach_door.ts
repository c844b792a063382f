// attach_door.ts — where readers come in: the socket, made in memory in its own time, found or shut.
//
// Too many readers are turned away; too frequent ones find the door shut for a second, since an accept cannot be put off.
import type { Server, Socket } from 'node:net';
import { unlinkSync } from 'node:fs';
import { publish, socketPaths, tidy, whyNot, type Place, type SocketPaths } from './attach_place.ts';
import { late } from './late.ts';
import type { Log } from './service_types.ts';

const { connect, createServer } = late('node:net');

/** At a time. A person, a scraper and a few who forgot theirs. */
export const READERS_MAX = 16;
/** In one second, turned away ones too. Each costs a tenth of a millisecond. */
export const ARRIVALS_MAX = 64;
const ARRIVALS_MS = 1_000;
const BACKLOG = 16;
/** Directory and socket are made in memory; longer than this, and a thread of libuv's pool is stuck. */
const OPENING_MS_MAX = 5_000;
/** Somebody else's socket, when it is looked at for being dead. */
const REFUSAL_MS_MAX = 500;

export interface DoorDeps {
  /** How many are in. */
  readers(): number;
  arrive(socket: Socket): void;
  nowUs(): number;
  log: Log;
}

export interface Door {
  /** Where readers find it; null: nowhere. */
  path(): string | null;
  turnedAway(): number;
  close(): void;
}

/** Returns at once; opens in its own time, and says so if it cannot. */
export function openDoor(places: readonly Place[], { readers, arrive, nowUs, log }: DoorDeps): Door {
  let server: Server | null = null;
  let paths: SocketPaths | null = null;
  let closed = false;
  let arrivals = 0;
  let arrivalsSinceUs = 0;
  let turnedAway = 0;

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
    const opened = createServer(arrived);
    opened.maxConnections = READERS_MAX;
    opened.on('drop', turnAway);
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

  function turnAway(): void {
    turnedAway += 1;
    countArrival();
  }

  function arrived(socket: Socket): void {
    if (readers() >= READERS_MAX) {
      // A server that was opened again counts from nothing, and those that were in are in.
      turnAway();
      socket.destroy();
      return;
    }
    countArrival();
    arrive(socket);
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

  return {
    path: () => (server === null ? null : paths!.final),
    turnedAway: () => turnedAway,
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
