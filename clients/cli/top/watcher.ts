// watcher.ts — the running sidecars, looked at again and again: each by a connection of its own that stays, so that one which hangs
// delays none of the others.
import { Connection, type Line } from '../attached/connection.ts';
import { findSockets, type Found, type Search, type Where } from '../attached/find.ts';
import { failed, lookThrough, type Look } from '../attached/look.ts';
import { kernelPlaces, type KernelPlace } from './kernel.ts';

/** Told last. */
const EVENTS_MAX = 50;

export interface Watched {
  found: Found;
  /** null: not heard yet. */
  look: Look | null;
  before: Extract<Look, { up: true }> | null;
  places: Map<number, KernelPlace>;
  events: { at: Date; event: Line }[];
}

interface Entry extends Watched {
  connection: Connection | null;
  busy: boolean;
}

export interface WatchOptions {
  where: Where;
  pid: number | null;
}

export class Watcher {
  search: Search = { found: [], refused: [], places: [] };
  #entries = new Map<string, Entry>();
  #options: WatchOptions;

  constructor(options: WatchOptions) {
    this.#options = options;
  }

  /** Oldest pid first. Those whose socket is dead are left out. */
  watched(): Watched[] {
    return [...this.#entries.values()].filter(({ look }) => look === null || look.up || look.trouble !== 'dead');
  }

  /** Resolves when all have answered, or after `ms` with what is there; whoever is late is not asked twice. */
  async round(ms: number): Promise<void> {
    this.search = await findSockets(this.#options.where);
    const { pid } = this.#options;
    const wanted = this.search.found.filter((found) => pid === null || found.pid === pid);
    const paths = new Set(wanted.map((found) => found.path));
    for (const [path, entry] of this.#entries) {
      if (paths.has(path)) continue;
      entry.connection?.close();
      this.#entries.delete(path);
    }
    for (const found of wanted) if (!this.#entries.has(found.path)) this.#entries.set(found.path, { found, look: null, before: null, places: new Map(), events: [], connection: null, busy: false });
    this.#entries = new Map([...this.#entries].sort(([, a], [, b]) => a.found.pid - b.found.pid));
    const looks = [...this.#entries.values()].map((entry) => this.#look(entry));
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([Promise.all(looks), new Promise((resolve) => (timer = setTimeout(resolve, ms)))]);
    clearTimeout(timer);
  }

  close(): void {
    for (const { connection } of this.#entries.values()) connection?.close();
  }

  async #look(entry: Entry): Promise<void> {
    if (entry.busy) return;
    entry.busy = true;
    try {
      if (entry.connection === null || !entry.connection.isOpen) {
        entry.connection = await Connection.open(entry.found.path);
        entry.connection.onEvent = (event) => {
          entry.events.push({ at: new Date(), event });
          if (entry.events.length > EVENTS_MAX) entry.events.shift();
        };
        await entry.connection.ask('watch');
      }
      const look = await lookThrough(entry.found, entry.connection, 0);
      if (!look.up) return;
      const late = look.stuck.filter((call) => call.settled || call.for_ms >= look.hello.stall_ms);
      entry.places = late.length === 0 ? new Map() : await kernelPlaces(look.hello.pid, look.hello.pid_namespace, late.map((call) => call.tid));
      entry.before = entry.look?.up ? entry.look : null;
      entry.look = look;
    } catch (error) {
      entry.connection?.close();
      entry.connection = null;
      entry.look = failed(entry.found, error);
      entry.before = null;
    } finally {
      entry.busy = false;
    }
  }
}
