// story.ts — a record's lines → what happened: requests from asking to answer, calls that were stuck, states of the mounts, slots that
// waited for the kernel. Times in microseconds since the record began.
//
// A record may begin in the middle, end in the middle, lack lines, and come from a client that makes mistakes: what has no beginning
// begins where it is first seen, what has no end lasts until the end of the record.
import type { Life, RecordEntry } from '../record/format.ts';

/** overdue: given up at its deadline, or by its client · refused: nothing was started · miss: not there, or not usable */
export type End = 'ok' | 'miss' | 'refused' | 'overdue' | 'failed' | 'unanswered';
export const ENDS: readonly End[] = ['ok', 'miss', 'refused', 'overdue', 'failed', 'unanswered'];

export interface Asked {
  id: string;
  op: string;
  mount: string;
  blocks: number;
  fromUs: number;
  /** The end of the record where no answer came. */
  toUs: number;
  end: End;
  /** Blocks, or the whole request, by code. */
  codes: Record<string, number>;
}

export interface StuckCall {
  tid: number;
  mount: string;
  class: string;
  phase: string;
  syscall: string;
  key: string;
  fromUs: number;
  toUs: number;
  /** It came back. */
  over: boolean;
}

export interface Band {
  state: string;
  reason: string;
  fromUs: number;
  toUs: number;
}

export interface Step {
  atUs: number;
  value: number;
}

export interface Story {
  durationUs: number;
  ready: Record<string, unknown> | null;
  asked: Asked[];
  stuck: StuckCall[];
  /** By "mount class". */
  bands: Map<string, Band[]>;
  quarantined: Step[];
  log: { atUs: number; level: string; text: string }[];
  /** Of the recorder: bytes that are missing, how the process ended. */
  notes: { atUs: number; text: string }[];
}

type Message = Record<string, unknown>;

const MISSES = new Set(['NOT_FOUND', 'CORRUPT', 'LENGTH_MISMATCH']);
const REFUSALS = new Set(['MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'SLOT_BUSY', 'SHUTTING_DOWN', 'WRONG_STORE']);
const OVERDUE = new Set(['DEADLINE_EXCEEDED', 'CANCELLED']);

export function storyOf(life: Life): Story {
  const durationUs = life.entries.reduce((most, { at_us }) => Math.max(most, at_us), 1);
  const story: Story = { durationUs, ready: null, asked: [], stuck: [], bands: new Map(), quarantined: [], log: [], notes: [] };
  const teller = new Teller(story, life.head.began_us);
  for (const entry of life.entries) teller.take(entry);
  teller.close();
  return story;
}

class Teller {
  #story: Story;
  #beganUs: number;
  #open = new Map<string, { asked: Asked; slots: number[] }>();
  #stuck = new Map<number, StuckCall>();
  #held = new Set<number>();

  constructor(story: Story, beganUs: number) {
    this.#story = story;
    this.#beganUs = beganUs;
  }

  take(entry: RecordEntry): void {
    const { at_us: atUs, from, message } = entry;
    if (from === 'client' && message !== undefined && 'op' in message) this.#ask(atUs, message);
    else if (from === 'sidecar' && message !== undefined) this.#hear(atUs, message);
    else if (from === 'log') this.#logged(atUs, entry);
    else if (from === 'recorder') this.#noted(atUs, entry);
  }

  close(): void {
    const { durationUs } = this.#story;
    for (const { asked } of this.#open.values()) asked.toUs = durationUs;
    for (const call of this.#stuck.values()) call.toUs = durationUs;
    for (const bands of this.#story.bands.values()) bands.at(-1)!.toUs = durationUs;
  }

  #ask(atUs: number, message: Message): void {
    const slots = slotsOf(message);
    const asked: Asked = { id: JSON.stringify(message['id'] ?? null), op: word(message['op']), mount: word(message['mount']), blocks: countOf(message), fromUs: atUs, toUs: atUs, end: 'unanswered', codes: {} };
    this.#story.asked.push(asked);
    if (!this.#open.has(asked.id)) this.#open.set(asked.id, { asked, slots }); // the second of an id has an answer of its own, with id null
  }

  #hear(atUs: number, message: Message): void {
    switch (message['event']) {
      case undefined:
        return this.#answered(atUs, message);
      case 'ready':
        this.#story.ready ??= message;
        return;
      case 'mount':
        return this.#state(atUs, message);
      case 'stalled':
      case 'recovered':
        return this.#call(atUs, message);
      case 'slots_freed':
        for (const slot of numbers(message['slots'])) this.#held.delete(slot);
        this.#step(atUs);
    }
  }

  #answered(atUs: number, message: Message): void {
    const id = JSON.stringify(message['id'] ?? null);
    const found = this.#open.get(id);
    if (found === undefined) return;
    this.#open.delete(id);
    const { asked, slots } = found;
    asked.toUs = atUs;
    for (const entry of objects(message['failed'])) {
      const blocks = blocksOf(entry);
      const code = word(entry['code']);
      asked.codes[code] = (asked.codes[code] ?? 0) + blocks.length;
      if (entry['slot'] === 'quarantined') for (const block of blocks) if (slots[block] !== undefined && slots[block]! >= 0) this.#held.add(slots[block]!);
    }
    const { error } = message as { error?: Message };
    if (error !== undefined) asked.codes[word(error['code'])] = Math.max(1, asked.blocks);
    asked.end = endOf(message['ok'] === true, Object.keys(asked.codes));
    this.#step(atUs);
  }

  #state(atUs: number, message: Message): void {
    const key = `${word(message['mount'])} ${word(message['class'])}`;
    let bands = this.#story.bands.get(key);
    if (bands === undefined) this.#story.bands.set(key, (bands = [{ state: word(message['was']), reason: '', fromUs: 0, toUs: atUs }]));
    bands.at(-1)!.toUs = atUs;
    bands.push({ state: word(message['state']), reason: word(message['reason']), fromUs: atUs, toUs: atUs });
  }

  #call(atUs: number, message: Message): void {
    const tid = Number(message['tid']);
    const open = this.#stuck.get(tid);
    if (message['event'] === 'recovered') {
      if (open !== undefined) Object.assign(open, { toUs: atUs, over: true });
      this.#stuck.delete(tid);
      return;
    }
    if (open !== undefined) open.toUs = atUs;
    const since = Number(message['since_us']) - this.#beganUs;
    const call: StuckCall = {
      tid,
      mount: word(message['mount']),
      class: word(message['class']),
      phase: word(message['phase']),
      syscall: word(message['syscall']),
      key: word(message['key']),
      fromUs: since >= 0 && since <= atUs ? since : atUs,
      toUs: atUs,
      over: false,
    };
    this.#story.stuck.push(call);
    this.#stuck.set(tid, call);
  }

  #logged(atUs: number, entry: RecordEntry): void {
    const { message, text } = entry;
    if (message === undefined) {
      if (text !== undefined) this.#story.log.push({ atUs, level: '', text });
      return;
    }
    const { level, event, time: _time, ...more } = message;
    this.#story.log.push({ atUs, level: word(level), text: `${word(event)} ${JSON.stringify(more)}` });
  }

  #noted(atUs: number, entry: RecordEntry): void {
    if (entry.lost) this.#story.notes.push({ atUs, text: `${entry.lost.bytes} bytes of ${entry.lost.of} are not in the record` });
    if (entry.full) this.#story.notes.push({ atUs, text: 'the record has reached its limit; what followed is not in it' });
    if (entry.exit !== undefined) {
      const how = entry.exit === null ? 'its end was not seen' : entry.exit.signal === null ? `it ended with status ${entry.exit.code}` : `it was ended by ${entry.exit.signal}`;
      this.#story.notes.push({ atUs, text: how });
    }
  }

  #step(atUs: number): void {
    const { quarantined } = this.#story;
    if ((quarantined.at(-1)?.value ?? 0) !== this.#held.size) quarantined.push({ atUs, value: this.#held.size });
  }
}

export function endOf(ok: boolean, codes: readonly string[]): End {
  if (ok) return 'ok';
  if (codes.some((code) => OVERDUE.has(code))) return 'overdue';
  if (codes.some((code) => !MISSES.has(code) && !REFUSALS.has(code))) return 'failed';
  return codes.some((code) => REFUSALS.has(code)) ? 'refused' : 'miss';
}

/** How many calls are stuck at each time. */
export function stuckSteps(calls: readonly StuckCall[]): Step[] {
  const changes = calls.flatMap(({ fromUs, toUs, over }) => [{ atUs: fromUs, by: 1 }, ...(over ? [{ atUs: toUs, by: -1 }] : [])]).sort((a, b) => a.atUs - b.atUs);
  let value = 0;
  return changes.map(({ atUs, by }) => ({ atUs, value: (value += by) }));
}

function slotsOf(message: Message): number[] {
  if (Array.isArray(message['slots'])) return numbers(message['slots']);
  return objects(message['blocks']).map((block) => (typeof block['slot'] === 'number' ? block['slot'] : -1));
}

function countOf(message: Message): number {
  for (const field of ['keys', 'blocks'] as const) if (Array.isArray(message[field])) return message[field].length;
  return 0;
}

function blocksOf(entry: Message): number[] {
  if (typeof entry['block'] === 'number') return [entry['block']];
  if (!Array.isArray(entry['blocks'])) return [];
  return entry['blocks'].flatMap((range: unknown) => {
    const [first = 0, last = first] = numbers(range);
    return last - first > 100_000 ? [] : Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
  });
}

export const word = (value: unknown): string => (typeof value === 'string' ? value : value === undefined || value === null ? '' : String(value));
const numbers = (value: unknown): number[] => (Array.isArray(value) ? value.filter((one): one is number => typeof one === 'number') : []);
const objects = (value: unknown): Message[] => (Array.isArray(value) ? value.filter((one): one is Message => typeof one === 'object' && one !== null) : []);
