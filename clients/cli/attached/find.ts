// find.ts — the sockets of the sidecars that run, as sidecar/attach_place.ts puts them: of this user, or of all for root.
import { promises as fs } from 'node:fs';
import { dirname, join } from 'node:path';
import { attachPlaces, SOCKET_NAME, whyNot, type Place } from '../../../sidecar/attach_place.ts';

export interface Found {
  path: string;
  /** As it is called in the sidecar's own pid namespace. */
  pid: number;
}

export interface Where {
  /** Only there; null: in all the usual places. Root may name one of another user. */
  directory: string | null;
  /** The usual places of every user; others' can be looked into by root alone. */
  allUsers?: boolean;
}

export interface Search {
  found: Found[];
  /** Directories that are there and not to be believed, each a sentence. */
  refused: string[];
  /** Where was looked. */
  places: string[];
}

/** In one directory: beyond this it holds something else than sidecars of one machine, and others are not to wait for it. */
const SOCKETS_MAX = 256;
/** A directory may hang with what it lies on: another user's, or one that somebody named. */
const LOOK_MS_MAX = 2_000;
/** Those that have not answered yet: each holds a thread of libuv's pool, and is not asked again. */
const hanging = new Set<string>();

export async function findSockets(where: Where, env: Record<string, string | undefined> = process.env, uid = process.geteuid!()): Promise<Search> {
  const search: Search = { found: [], refused: [], places: [] };
  const candidates = await placesOf(where, env, uid);
  const all = await Promise.all(candidates.map((candidate) => lookIn(candidate)));
  for (const [index, { place }] of candidates.entries()) {
    search.places.push(place.directory);
    const names = all[index]!;
    if (typeof names === 'string') search.refused.push(names);
    else if (names === null && where.directory !== null) search.refused.push(`${place.directory} is not there (ENOENT)`);
    const sockets = (typeof names === 'string' ? [] : (names ?? [])).flatMap((name): Found[] => {
      const pid = SOCKET_NAME.exec(name)?.[1];
      return pid === undefined ? [] : [{ path: join(place.directory, name), pid: Number(pid) }];
    });
    if (sockets.length > SOCKETS_MAX) search.refused.push(`${place.directory} holds ${sockets.length} sockets; ${SOCKETS_MAX} are looked at`);
    search.found.push(...sockets.slice(0, SOCKETS_MAX));
  }
  search.found.sort((a, b) => a.pid - b.pid || (a.path < b.path ? -1 : 1));
  return search;
}

/** null: it is not there; as text why it is not to be believed. What somebody else put there could be anything. */
async function namesIn({ place, owner }: Candidate): Promise<string[] | string | null> {
  try {
    const names = await fs.readdir(place.directory);
    return (await whyNot(place, owner, false)) ?? names;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? null : message;
  }
}

function lookIn(candidate: Candidate): Promise<string[] | string | null> {
  const { directory } = candidate.place;
  if (hanging.has(directory)) return Promise.resolve(`${directory} still gives no answer`);
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      hanging.add(directory);
      resolve(`${directory} gave no answer for ${LOOK_MS_MAX} ms`);
    }, LOOK_MS_MAX);
    void namesIn(candidate).then((names) => {
      clearTimeout(timer);
      hanging.delete(directory);
      resolve(names);
    });
  });
}

/** `owner` null: whoever it is. */
interface Candidate {
  place: Place;
  owner: number | null;
}

async function placesOf({ directory, allUsers }: Where, env: Record<string, string | undefined>, uid: number): Promise<Candidate[]> {
  if (directory !== null) return [{ place: { directory, parent: dirname(directory) }, owner: uid === 0 ? null : uid }];
  const own = attachPlaces(env, uid).map((place): Candidate => ({ place, owner: uid }));
  if (allUsers !== true) return own;
  // The number in the name is who may have put something there.
  const users = new Set<number>();
  for (const [parent, name] of [['/run/user', /^(\d{1,10})$/], ['/dev/shm', /^kvlane-(\d{1,10})$/], ['/tmp', /^kvlane-(\d{1,10})$/]] as const) {
    for (const entry of await fs.readdir(parent).catch(() => [])) {
      const user = name.exec(entry)?.[1];
      if (user !== undefined && Number(user) !== uid) users.add(Number(user));
    }
  }
  return [...own, ...[...users].sort((a, b) => a - b).flatMap((user) => attachPlaces({}, user).map((place): Candidate => ({ place, owner: user })))];
}
