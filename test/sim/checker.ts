// checker.ts — what one sidecar promised its client, held against everything it says: one answer each, in time; whose each slot
// is; what it says of its mounts. It knows the requests and the protocol, and nothing of how the sidecar keeps its books.
// Whether what is said of blocks is true is judged in facts.ts, what lanes are given in handed.ts.
import type { LaneClass } from '../../native/index.ts';
import { LANE_CLASSES, type Answer, type Code, type Event, type FailedEntry, type Id, type MountInfo, type MountState, type StuckEntry } from '../../protocol/messages.ts';
import { answerValidators, eventValidators } from '../../protocol/validate_answers.generated.ts';
import { CLASS_OF, type Asked } from './asked.ts';
import type { Store } from './disk.ts';
import { Facts } from './facts.ts';
import { Handed } from './handed.ts';
import type { SimNative } from './native.ts';
import { Broken, type Story } from './story.ts';

export const CLIENTS = 0;
export const ASKED = 1;
export const QUARANTINED = 2;
/** In a line that the sidecar has not read yet. */
export const SENT = 3;

export interface CheckerHost {
  nowUs(): number;
  native: SimNative;
  slotBytes: number;
  indexUs: number;
  stores: Map<string, Store>;
  story: Story;
  mounts: string[];
  stuckMax: number;
  lanes: number;
  stallUs: number;
  /** Whether anything of this class was ever slow or hung there: else nothing may be suspended. */
  mayBeSick(mount: string, laneClass: LaneClass): boolean;
  /** Whether threads were ever short, or anything was ever mounted elsewhere. */
  wasTroubled(): boolean;
  armedUs(): number;
  leaving(): boolean;
  /** For how long the process did not run since then; each time but for so long. */
  awayUs(sinceUs: number, butUs?: number): number;
  /** Runs only while this sidecar lives. */
  later(atUs: number, work: () => void): void;
}

/** was → state, where the mount stayed the right store. */
const STEPS = new Set(['unknown ok', 'unknown suspended', 'ok suspended', 'suspended probing', 'suspended ok', 'suspended unknown', 'probing suspended', 'probing ok', 'ok unknown', 'ok probing', 'unknown probing', 'probing unknown']);
const TASKS_MAX = 16_384;
/** Ids that a cancel may still ask for; the sidecar remembers as many. */
const SETTLED_REMEMBERED = 1_000;

export class Checker {
  readonly asked = new Map<Id, Asked>();
  /** Lines that must be answered by their number. */
  readonly refused = new Set<number>();
  /** The request in hand, with an id that is in use: it is refused, unless that one is answered first. */
  duplicate: Asked | null = null;
  readonly slots: Uint8Array;
  readonly said = new Map<string, MountState>();
  /** What may never appear any more. */
  readonly never: Set<string>;
  readonly facts: Facts;
  readonly handed: Handed;
  /** Answers to these are kept, for whoever asked. */
  readonly wanted = new Map<Id, Answer | null>();
  answers = 0;
  /** When each class of each mount was last spoken of, and when it was last said to be suspended. */
  #saidUs = new Map<string, number>();
  #suspendedUs = new Map<string, number>();
  /** Suspended since something else is mounted there: what waited still goes to lanes, which compare the store first. */
  #lost = new Set<string>();
  /** Calls that were told to be stuck, and not yet to have come back. */
  #stalled = new Map<string, number>();
  /** The request that is being read. */
  #inHand: Asked | null = null;
  /** The last ones. */
  #settled: Asked[] = [];
  #quarantined = 0;
  #atOnce: Asked[] = [];
  #earliest: Asked | null = null;
  #owners = new Map<number, Asked>();
  #host: CheckerHost;

  constructor(slots: number, never: Set<string>, host: CheckerHost) {
    this.slots = new Uint8Array(slots);
    this.never = never;
    this.#host = host;
    const saidOf = (mount: string, laneClass: LaneClass): MountState => this.saidOf(mount, laneClass);
    const isLost = (mount: string): boolean => this.#lost.has(mount);
    this.facts = new Facts({
      ...host, asked: this.asked,
      wasSuspended: (mount, laneClass, sinceUs) => {
        const state = saidOf(mount, laneClass);
        return state === 'suspended' || state === 'probing' || (this.#suspendedUs.get(`${mount} ${laneClass}`) ?? -1) >= sinceUs;
      },
      wasWithoutLanes: (laneClass, sinceUs) => this.handed.wasWithoutLanes(laneClass, sinceUs),
      isWell: ({ op, mount }) => !host.wasTroubled() && (op === 'load' ? !host.mayBeSick(mount, 'load') : !host.mounts.some((one) => host.mayBeSick(one, 'store') || host.mayBeSick(one, 'metadata'))),
    });
    this.handed = new Handed({ ...host, saidOf, isLost, saidUs: (mount, laneClass) => this.#saidUs.get(`${mount} ${laneClass}`) ?? -1 });
  }

  // What is not the client's to give makes it SLOT_BUSY.
  #claim(asked: Asked): void {
    asked.busy = false;
    asked.slots.forEach((slot, block) => {
      if (slot === null || this.#owners.get(slot) === asked) return;
      if (this.slots[slot] !== CLIENTS) {
        asked.busy = true;
        return;
      }
      this.slots[slot] = ASKED;
      this.#owners.set(slot, asked);
      // The client writes at the last moment: no two stores have the same bytes.
      if (asked.op === 'store') asked.tags[block] = this.#host.native.memory[slot] = `line ${asked.line} at ${asked.receivedUs}, ${slot}`;
    });
  }

  // What came back while this line is read, by an answer or by itself, is its to have.
  #claimAgain(): void {
    if (this.#inHand?.busy === true && this.asked.get(this.#inHand.id) === this.#inHand) this.#claim(this.#inHand);
  }

  #isSuspended(mount: string, laneClass: LaneClass): boolean {
    const state = this.saidOf(mount, laneClass);
    return state === 'suspended' || state === 'probing';
  }

  saidOf(mount: string, laneClass: LaneClass): MountState {
    return this.said.get(`${mount} ${laneClass}`) ?? 'unknown';
  }

  /** A line goes in; its answer may come before this returns to the caller's caller. */
  asks(asked: Asked): void {
    if (asked.op === 'cancel' && asked.task !== asked.id) {
      asked.about = this.asked.get(asked.task!) ?? null;
      if (asked.about !== null) asked.about.cancelled = true;
    }
    this.asked.set(asked.id, asked);
    this.#inHand = asked;
    this.#claim(asked);
    const laneClass = CLASS_OF[asked.op];
    if (laneClass === undefined) asked.atOnce = true;
    else {
      const state = this.saidOf(asked.mount, laneClass);
      if (state === 'suspended' || state === 'probing') asked.atOnce = true;
      if (asked.leaving) asked.atOnce = true;
      if (asked.deadlineUs <= this.#host.nowUs()) asked.atOnce = true;
      if (this.#earliest === null || asked.deadlineUs < this.#earliest.deadlineUs) this.#earliest = asked;
    }
    if (asked.atOnce) this.#atOnce.push(asked);
  }

  // ---- what comes out ----

  take(message: Answer | Event): void {
    const { story } = this.#host;
    if ('event' in message) {
      this.#valid(eventValidators, message.event, message);
      story.saw('event', message.event);
      this.#event(message);
      if (message.event === 'slots_freed') this.#claimAgain();
      return;
    }
    this.answers += 1;
    const { id } = message;
    if (id === null) {
      this.#valid(answerValidators, 'error', message);
      const { line, error, duplicate_of: of } = message as { line?: number; error: { code: Code }; duplicate_of?: Id };
      story.saw('code', error.code);
      if (this.duplicate?.line === line && (error.code !== 'DUPLICATE_ID' || of !== this.duplicate?.id)) throw new Broken('one answer', `line ${line} has the id of request ${this.duplicate?.id}, which is not answered yet; it was answered ${error.code}, duplicate of ${of}`);
      if (line === undefined || !this.refused.delete(line)) throw new Broken('one answer', `an answer without an id names line ${line}, which was not to be refused, or was already`);
      if (this.duplicate?.line === line) this.duplicate = null;
      return;
    }
    const asked = this.asked.get(id);
    if (asked === undefined) throw new Broken('one answer', `${JSON.stringify(id)} was answered, but no request with this id was unanswered: ${JSON.stringify(message).slice(0, 300)}`);
    this.asked.delete(id);
    if (this.#earliest === asked) this.#earliest = null;
    this.#judge(asked, message);
    if (CLASS_OF[asked.op] !== undefined && this.#settled.push(asked) > SETTLED_REMEMBERED) this.#settled.shift();
    if (this.wanted.has(id)) this.wanted.set(id, message);
    this.#claimAgain();
    const again = this.duplicate;
    if (again?.id !== id) return;
    this.duplicate = null; // its id became free in the turn in which it was read
    this.refused.delete(again.line);
    this.asks(again);
  }

  #valid(validators: unknown, name: string, message: object): void {
    const validate = (validators as Record<string, ((value: unknown) => boolean) & { errors?: unknown }>)[name];
    if (validate !== undefined && !validate(message)) throw new Broken('protocol', `this is no ${name} of the protocol: ${JSON.stringify(message).slice(0, 400)}: ${JSON.stringify(validate.errors)}`);
  }

  #event(event: Event): void {
    const { story } = this.#host;
    switch (event.event) {
      case 'slots_freed':
        for (const slot of event.slots) {
          if (this.slots[slot] !== QUARANTINED) throw new Broken('slots', `slots_freed names slot ${slot}, which no answer had called quarantined`);
          if (this.#host.native.holderOf(slot) !== undefined) throw new Broken('slots', `slots_freed names slot ${slot} while a lane still has it`);
          this.slots[slot] = CLIENTS;
          this.#quarantined -= 1;
        }
        return;
      case 'mount': {
        const key = `${event.mount} ${event.class}`;
        const was = this.said.get(key);
        if (was !== undefined && was !== event.was) throw new Broken('mount events', `${key}: the event says it was ${event.was}, but the last word was ${was}`);
        if (was === event.state) throw new Broken('mount events', `${key}: an event that says ${was} again`);
        if (!STEPS.has(`${event.was} ${event.state}`)) throw new Broken('mount events', `${key} went from ${event.was} to ${event.state}`);
        this.said.set(key, event.state);
        this.#saidUs.set(key, this.#host.nowUs());
        if (event.state === 'ok' || event.state === 'unknown') {
          // What had come is heard before a request is looked at: one that found it suspended may find it well again.
          const stillDue = (one: Asked): boolean => one.leaving || one.deadlineUs <= this.#host.nowUs() || `${one.mount} ${CLASS_OF[one.op]}` !== key;
          this.#atOnce = this.#atOnce.filter(stillDue);
        }
        if (event.state === 'suspended' || event.state === 'probing') this.#suspendedUs.set(key, this.#host.nowUs());
        const lost = event.code !== undefined;
        if (lost) this.#lost.add(event.mount);
        else this.#lost.delete(event.mount);
        story.saw(`${lost ? 'store lost' : 'breaker'} ${event.class}: ${event.was} -> ${event.state}`);
        if (event.state !== 'suspended' || event.was !== 'ok' || lost) return;
        // Until it is learnt where a mount lies now, its calls count for the device that it was on; and one that comes to a suspended device is suspended.
        const others = this.#host.mounts.filter((one) => one !== event.mount && this.handed.areOnOneDevice(one, event.mount));
        if (others.some((one) => this.#isSuspended(one, event.class))) return;
        if (![event.mount, ...others].some((one) => this.#host.mayBeSick(one, event.class))) throw new Broken('suspended for nothing', `${key} was suspended (${event.reason}), but nothing of it was ever slow or stuck`);
        this.handed.suspended(event.mount, event.class, event.reason ?? '');
        return;
      }
      case 'stalled':
      case 'recovered': {
        const call = `${event.kind} ${event.mount} ${event.class} ${event.tid} ${event.since_us} ${event.key} ${event.task}`;
        const stuck = (this.#stalled.get(call) ?? 0) + (event.event === 'stalled' ? 1 : -1); // a task's look-ups in one lane begin at once
        if (stuck < 0) throw new Broken('stuck', `recovered is told of ${call}, which was not told to be stuck`);
        if (stuck === 0) this.#stalled.delete(call);
        else this.#stalled.set(call, stuck);
        return;
      }
      default:
        return;
    }
  }

  #judge(asked: Asked, answer: Answer): void {
    const { story } = this.#host;
    const nowUs = this.#host.nowUs();
    const refusal = (answer as { error?: { code: Code; errno?: string } }).error;
    story.saw(answer.ok ? 'ok' : refusal === undefined ? 'failed' : 'refused', asked.op);
    if (refusal !== undefined) {
      this.#valid(answerValidators, 'error', answer);
      asked.refused = true;
      this.facts.refused(asked, refusal.code);
      for (const slot of asked.slots) this.#givenBack(slot, 'free', asked);
      this.facts.notStored(asked, null, this.never);
      return;
    }
    this.#valid(answerValidators, asked.op, answer);
    switch (asked.op) {
      case 'load':
      case 'store':
      case 'remove':
        this.#blocks(asked, answer as never, nowUs);
        return;
      case 'lookup':
        this.facts.lookup(asked, answer as never);
        return;
      case 'cancel':
        this.#cancel(asked, (answer as { state: string }).state);
        return;
      case 'namespace':
        this.facts.namespace(asked, answer as never);
        return;
      case 'ping':
        if ((answer as { now_us: number }).now_us > nowUs) throw new Broken('clock', 'ping answers with a time to come');
        return;
      case 'stats':
        this.#stats(answer as never);
        return;
      case 'stuck':
        this.#stuck((answer as { stuck: StuckEntry[] }).stuck);
        return;
      default:
        return;
    }
  }

  #cancel(asked: Asked, state: string): void {
    this.#host.story.saw('cancel', state);
    const { task, about } = asked;
    if (task === null || task === asked.id) return;
    if (this.asked.has(task)) throw new Broken('cancel', `the cancel of ${task} was answered (${state}) before the task was`);
    const before = this.#settled.filter(({ id }) => id === task);
    const truth = about?.codes.has('CANCELLED') === true ? 'cancelled' : before.length > 0 ? 'already_settled' : 'unknown';
    // What was refused at once is unknown afterwards: it was never begun.
    if (state !== truth && !(state === 'unknown' && before.every((one) => one.refused)) && !(state === 'already_settled' && this.#settled.length === SETTLED_REMEMBERED)) throw new Broken('cancel', `the cancel of ${task} was answered ${state}; it is ${truth}`);
  }

  #stuck(entries: StuckEntry[]): void {
    const held = this.#host.native.stuckSeats();
    if (entries.length !== held.length && entries.length < 3_000) throw new Broken('stuck', `${entries.length} calls are listed as stuck, the lanes have ${held.length}`);
    for (const entry of entries) {
      const one = held.find(({ spec, sinceUs, lane, phase, key }) => spec.kind === entry.kind && sinceUs === entry.since_us && 4000 + lane!.number === entry.tid && phase === entry.phase && key === (entry.key ?? '') && this.#host.mounts[spec.mount] === entry.mount);
      if (one === undefined) throw new Broken('stuck', `no lane is in this call: ${JSON.stringify(entry)}`);
      const { spec } = one;
      const slot = 'region' in spec && spec.region === 0 ? spec.offset / this.#host.slotBytes : undefined;
      if (entry.slot !== slot || entry.settled !== one.abandoned) throw new Broken('stuck', `${JSON.stringify(entry)} is not what the lane has: slot ${slot}, ${one.abandoned ? '' : 'not '}given up`);
      if (entry.task !== undefined && !entry.settled && !this.asked.has(entry.task)) throw new Broken('stuck', `${JSON.stringify(entry)} names a task that was answered, and is not settled`);
    }
  }

  #givenBack(slot: number | null, word: 'free' | 'quarantined', asked: Asked): void {
    if (slot === null || this.slots[slot] !== ASKED || this.#owners.get(slot) !== asked) return; // SLOT_BUSY: it is another's
    const holder = this.#host.native.holderOf(slot);
    if (word === 'free') {
      if (holder !== undefined) throw new Broken('slots', `${asked.op} ${asked.id} gave slot ${slot} back as free while ${holder.spec.kind} ${holder.spec.id} (${holder.state}${holder.abandoned ? ', given up' : ''}) has it`);
      this.slots[slot] = CLIENTS;
      this.#owners.delete(slot);
    } else {
      if (holder === undefined) throw new Broken('slots', `${asked.op} ${asked.id} calls slot ${slot} quarantined, but no lane has it`);
      this.slots[slot] = QUARANTINED;
      this.#quarantined += 1;
    }
    this.#host.story.saw('slot', word);
  }

  #blocks(asked: Asked, answer: { ok: boolean; done: number; kept?: number; failed?: FailedEntry[] }, nowUs: number): void {
    const done = this.facts.blocks(asked, answer, (block, word) => this.#givenBack(asked.slots[block] ?? null, word, asked));
    if (done !== answer.done || answer.ok !== (done === asked.keys.length)) throw new Broken('one answer', `${asked.op} ${asked.id}: done ${answer.done} and ok ${answer.ok}, with ${done} of ${asked.keys.length} blocks through`);
    if (asked.busy && (done > 0 || nowUs < asked.deadlineUs)) throw new Broken('slots', `${asked.op} ${asked.id} was started, though a slot of it was another's or quarantined`);
    this.facts.notStored(asked, answer.failed ?? [], this.never);
  }

  #stats({ stats }: { stats: { outstanding: number; slots: Record<string, number>; staging: { in_flight: number; quarantined: number }; keys_gated: number } }): void {
    let quarantined = 0;
    for (const state of this.slots) if (state === QUARANTINED) quarantined += 1;
    if (stats.slots['quarantined']! !== quarantined) throw new Broken('books', `stats counts ${stats.slots['quarantined']} quarantined slots, the answers named ${quarantined}`);
    let tasks = 0;
    for (const one of this.asked.values()) if (CLASS_OF[one.op] !== undefined) tasks += 1;
    if (stats.outstanding !== tasks) throw new Broken('books', `stats counts ${stats.outstanding} unanswered requests, there are ${tasks}`);
  }

  // ---- at the end of every turn ----

  turnEnded(jumped: boolean, ofTheService: boolean): void {
    const nowUs = this.#host.nowUs();
    this.duplicate = this.#inHand = null;
    if (this.refused.size > 0) throw new Broken('one answer', `line ${[...this.refused][0]} was refused by the decoder, and nothing was answered`);
    for (const asked of this.#atOnce) if (this.asked.get(asked.id) === asked) throw new Broken('at once', `${asked.op} ${asked.id} was to be answered at once (${asked.leaving ? 'the sidecar is leaving' : CLASS_OF[asked.op] === undefined ? 'it reaches no mount' : 'its mount is suspended, or its deadline had passed'}), and was not`);
    if (this.#atOnce.length > 0) this.#atOnce = [];
    if (ofTheService) this.#deadlines(nowUs, jumped);
    if (this.asked.size > TASKS_MAX + 16) throw new Broken('caps', `${this.asked.size} requests are unanswered`);
    if (ofTheService && this.#quarantined > 0) this.#freed();
    this.handed.turnEnded();
  }

  #deadlines(nowUs: number, jumped: boolean): void {
    if (this.#earliest === null) for (const one of this.asked.values()) if (this.#earliest === null || one.deadlineUs < this.#earliest.deadlineUs) this.#earliest = one;
    const first = this.#earliest;
    if (first === null || first.deadlineUs === Infinity) return;
    if (first.deadlineUs <= nowUs && !jumped) throw new Broken('in time', `${first.op} ${first.id} is not answered ${nowUs - first.deadlineUs} us after its deadline, though the sidecar runs`);
    const armedUs = this.#host.armedUs();
    if (armedUs === 0 || armedUs > Math.max(first.deadlineUs, nowUs)) throw new Broken('in time', `${first.op} ${first.id} has its deadline in ${first.deadlineUs - nowUs} us, but the timer is ${armedUs === 0 ? 'off' : `set to ${armedUs - first.deadlineUs} us after it`}`);
  }

  // What the kernel has given back is told in the same turn.
  #freed(): void {
    const { native } = this.#host;
    for (let slot = 0; slot < this.slots.length; slot += 1) {
      if (this.slots[slot] !== QUARANTINED || native.holderOf(slot) !== undefined) continue;
      if (native.isUndelivered(({ spec }) => 'region' in spec && spec.region === 0 && spec.offset === slot * this.#host.slotBytes)) continue;
      throw new Broken('slots', `the sidecar knows that no lane has slot ${slot} any more, and slots_freed does not name it`);
    }
  }

  /** The client's own view at the end. */
  whatIsLeft(): string[] {
    const left: string[] = [];
    if (this.asked.size > 0) left.push(`${this.asked.size} requests without an answer`);
    const quarantined = this.slots.filter((state) => state === QUARANTINED).length;
    if (this.#stalled.size > 0) left.push(`${this.#stalled.size} calls that were told to be stuck, and never to have come back: ${[...this.#stalled.keys()].slice(0, 3).join('; ')}`);
    if (quarantined > 0) left.push(`${quarantined} slots that slots_freed never named`);
    return left;
  }

  readyWith(mounts: readonly MountInfo[]): void {
    // It tells of loads; of the others only when no class can be used. They may be ok already.
    for (const { name, state, code } of mounts) {
      for (const laneClass of LANE_CLASSES) if (laneClass === 'load' || state === 'suspended') this.said.set(`${name} ${laneClass}`, state);
      if (code !== undefined) this.#lost.add(name);
    }
  }
}
