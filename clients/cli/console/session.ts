// session.ts — the conversation: what was typed goes to the sidecar, what comes back is shown, and who waits for what is known.
//
// Knows neither terminal nor process: `show` prints lines, `send` takes one. Tests drive it with both of their own.
import type { Event, Id, ReadyEvent } from '../../../protocol/messages.ts';
import type { Colours } from '../text/colour.ts';
import { harmless } from '../text/colour.ts';
import { objectOf } from '../record/format.ts';
import { idOf } from './asked.ts';
import type { Asked } from './asked.ts';
import type { Known } from './complete.ts';
import { answerLines } from './pretty/answer.ts';
import { eventLine, logLine, readyLines, timeOfDay } from './pretty/event.ts';
import { underlined } from './pretty/fault.ts';
import { RecentKeys } from './recent_keys.ts';
import { readShorthand } from './shorthand.ts';

/** Of a question that the console asks on its own account. */
export const WATCH_ID = 'console';
export const COMMANDS = ['.wire', '.raw', '.quit'] as const;
/** What a person would type to leave. */
const LEAVE = new Set(['.quit', '.exit', 'quit', 'exit', '\\q']);

/** Most answers come at once, and a prompt that flickers is no help. */
const WAITING_SHOWN_MS = 250;
/** A timer may fire so much before the clock says so; it would find nobody late, and come once. */
const TIMER_EARLY_MS = 2;

export interface SessionIo {
  show(lines: readonly string[]): void;
  send(line: string): boolean;
  leave(): void;
  /** What is said before the line that is being typed. */
  prompt(text: string): void;
  width(): number;
  c: Colours;
  nowMs(): number;
  later(ms: number, what: () => void): void;
  /** CLOCK_MONOTONIC. */
  nowUs(): number;
  date(): Date;
}

export class Session {
  readonly #io: SessionIo;
  readonly #waiting = new Map<Id, Asked>();
  readonly #withoutId = new Map<number, Asked>();
  readonly #cancelled = new WeakSet<Asked>();
  readonly #keys = new RecentKeys();
  readonly #suspended = new Set<string>();
  #mounts: string[] = [];
  #lines = 0;
  #nextId = 1;
  #wire = false;
  #raw = false;

  constructor(io: SessionIo) {
    this.#io = io;
  }

  get known(): Known {
    return { mounts: this.#mounts, keys: this.#keys.all, tasks: [...this.#waiting.keys()], commands: COMMANDS };
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** Of earlier sessions, the oldest first: their keys are offered too. */
  remember(lines: readonly string[]): void {
    for (const line of lines) {
      const request = /^\s*\{/.test(line) ? objectOf(line) : fieldsOf(line);
      if (request !== null) this.#keys.useAllOf(request);
    }
  }

  // ---- what is typed ----

  typed(text: string): void {
    const line = text.trim();
    if (line === '') return;
    if (LEAVE.has(line)) return this.#io.leave();
    if (line === '.wire') return this.#say(`the lines of the protocol are ${(this.#wire = !this.#wire) ? 'shown' : 'not shown any more'}`);
    if (line === '.raw') return this.#say(`answers come ${(this.#raw = !this.#raw) ? 'as the lines of the protocol' : 'in words'}`);
    if (line === '?' || line === '.help') return this.typed('help');
    if (line.startsWith('.')) return this.#say(`${harmless(line)}: there are ${COMMANDS.join(', ')}; help says what they do`);
    if (/^[{["]/.test(line)) return this.#json(text);
    const meant = readShorthand(text);
    if (!meant.ok) return this.#io.show([...underlined(text, meant.at, this.#io.width(), this.#io.c), `${this.#io.c.bad('not sent')}: ${meant.message}`]);
    const request = { id: meant.fields['id'] ?? this.#freeId(), op: meant.op, ...meant.fields };
    this.#send(JSON.stringify(request), { id: idOf(request), op: meant.op, request, typed: text, spans: meant.spans }, true);
  }

  /** ctrl-C in an empty line: what is not answered is given up; false when there is nothing of the kind, or that was said already. */
  cancelAll(): boolean {
    const tasks = [...this.#waiting.values()].filter((asked) => asked.op !== 'cancel' && asked.op !== 'shutdown' && !this.#cancelled.has(asked));
    for (const asked of tasks) {
      this.#cancelled.add(asked);
      const { id } = asked;
      const request = { id: this.#freeId(), op: 'cancel', task: id };
      this.#send(JSON.stringify(request), { id: request.id, op: 'cancel', request, typed: `cancel ${String(id)}`, spans: new Map() }, false);
    }
    return tasks.length > 0;
  }

  // As it was typed: what a fault is told of must be the line that stands there. Only a missing id is put in.
  #json(text: string): void {
    const bare = { id: null, op: '', request: null, typed: text, spans: null };
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return this.#send(text, bare, false);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return this.#send(text, bare, false);
    const request = value as Record<string, unknown>;
    let id = idOf(request);
    let line = text.trim();
    if (request['id'] === undefined) {
      id = this.#freeId();
      line = `{"id":${id}${/^\{\s*\}$/.test(line) ? '' : ','}${line.slice(1)}`;
    }
    this.#send(line, { id, op: String(request['op'] ?? ''), request, typed: text, spans: null }, false);
  }

  #send(line: string, asked: Omit<Asked, 'atMs'>, explain: boolean): void {
    const { c, show } = this.#io;
    if (this.#wire || (explain && this.#raw)) show([c.dim(`→ ${harmless(line)}`)]);
    const whole: Asked = { ...asked, atMs: this.#io.nowMs() };
    if (!this.#io.send(line)) return show([c.bad('not sent: the sidecar takes no more lines')]);
    this.#lines += 1;
    if (asked.request !== null) this.#keys.useAllOf(asked.request);
    // A line without an id that can be read, or with one that is taken, is answered by its number.
    if (asked.id === null || this.#waiting.has(asked.id)) this.#withoutId.set(this.#lines, whole);
    else this.#waiting.set(asked.id, whole);
    this.#io.later(WAITING_SHOWN_MS + TIMER_EARLY_MS, () => this.#prompt());
  }

  // ---- what comes ----

  line(text: string): void {
    const { c, show } = this.#io;
    let message: Record<string, unknown>;
    try {
      message = JSON.parse(text) as Record<string, unknown>;
    } catch {
      return show([c.bad(`not a line of the protocol: ${harmless(text.slice(0, 200))}`)]);
    }
    if (this.#wire || this.#raw) show([c.dim(this.#raw ? harmless(text) : `← ${harmless(text)}`)]);
    if (typeof message['event'] === 'string') return this.#event(message as unknown as Event);
    if (message['id'] === WATCH_ID && !this.#waiting.has(WATCH_ID)) return;
    const asked = this.#settled(message);
    this.#prompt();
    if (this.#raw) return;
    const tookMs = asked === null ? null : this.#io.nowMs() - asked.atMs;
    show(answerLines(message, asked, tookMs, { c, width: this.#io.width(), nowUs: this.#io.nowUs() }));
  }

  log(line: string): void {
    const said = logLine(line, this.#io.c);
    if (said !== null) this.#io.show([`${this.#time()} ${said}`]);
  }

  ready(ready: ReadyEvent): void {
    this.#mounts = ready.mounts.map((mount) => mount.name);
    for (const mount of ready.mounts) if (mount.state === 'suspended') this.#suspended.add(mount.name);
    this.#io.show(readyLines(ready, this.#io.c));
    this.#prompt();
  }

  #settled(message: Record<string, unknown>): Asked | null {
    const id = message['id'] as Id | null;
    const found = id === null ? this.#withoutId.get(message['line'] as number) : this.#waiting.get(id);
    if (id === null) this.#withoutId.delete(message['line'] as number);
    else this.#waiting.delete(id);
    return found ?? null;
  }

  #event(event: Event): void {
    // A sidecar that runs already says the same in other words.
    if (event.event === 'ready' || (event as { event: string }).event === 'attached') return this.ready(event as ReadyEvent);
    if (event.event === 'mount') {
      const name = `${event.mount} ${event.class}`;
      if (event.state === 'ok' || event.state === 'unknown') this.#suspended.delete(name);
      else this.#suspended.add(name);
      this.#suspended.delete(event.mount);
    }
    if (!this.#raw) this.#io.show([`${this.#time()} ${eventLine(event, this.#io.c)}`]);
    this.#prompt();
  }

  #prompt(): void {
    const { c } = this.#io;
    const sick = [...this.#suspended].map((name) => c.bad(`${name} suspended`));
    const since = this.#io.nowMs() - WAITING_SHOWN_MS;
    const late = [...this.#waiting.values()].filter((asked) => asked.atMs <= since).length;
    const waiting = late > 0 ? [`${late} waiting`] : [];
    const notes = [...waiting, ...(sick.length > 2 ? [c.bad(`${sick.length} suspended`)] : sick)];
    this.#io.prompt(`kvlane${notes.length > 0 ? ` (${notes.join(', ')})` : ''}> `);
  }

  #say(text: string): void {
    this.#io.show([this.#io.c.dim(text)]);
  }

  #time(): string {
    return this.#io.c.dim(timeOfDay(this.#io.date()));
  }

  #freeId(): number {
    while (this.#waiting.has(this.#nextId)) this.#nextId += 1;
    return this.#nextId++;
  }
}

function fieldsOf(line: string): Record<string, unknown> | null {
  const meant = readShorthand(line);
  return meant.ok ? meant.fields : null;
}
