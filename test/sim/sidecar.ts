// sidecar.ts — one life of the sidecar: the real policy half behind a front that does what main.ts does, on a clock and over
// lanes that are simulated. It can be stopped, killed, told to leave, and its loop can be late.
import { decode } from '../../protocol/decode.ts';
import { LIMITS, type Answer, type Event, type Id, type MountInfo } from '../../protocol/messages.ts';
import type { MountRequest, Request } from '../../protocol/request.ts';
import { createLineReader } from '../../sidecar/line_reader.ts';
import { createService } from '../../sidecar/service.ts';
import type { Service, ServiceOptions } from '../../sidecar/service_types.ts';
import type { Agenda, Due } from './agenda.ts';
import type { Asked } from './asked.ts';
import { Checker, CLIENTS, SENT } from './checker.ts';
import type { Root, Store } from './disk.ts';
import type { Faults } from './faults.ts';
import { SimNative } from './native.ts';
import type { Random } from './random.ts';
import { Broken, type Story } from './story.ts';

export interface World {
  agenda: Agenda;
  story: Story;
  random(): Random;
  roots: Root[];
  stores: Map<string, Store>;
  never: Set<string>;
  faults: Faults;
  options: ServiceOptions;
  /** It has left, or was killed. */
  ended(sidecar: Sidecar): void;
}

/** From learning what a mount is to having asked again, should it have been replaced meanwhile. */
const LEARNT_US = 700_000;
const QUIET = { info() {}, warn() {}, error() {} };

export class Sidecar {
  readonly native: SimNative;
  readonly checker: Checker;
  readonly service: Service;
  alive = true;
  ready = false;
  leaving = false;
  /** Stopped until then (SIGSTOP, a starved loop). */
  awayUntilUs = 0;
  /** A stop inside a turn: after so many looks at the clock it is so much later. */
  inside: { looks: number; us: number } | null = null;
  /** The last line's number. */
  line = 0;
  armedUs = 0;
  startedUs = 0;
  /** Thrown where only a promise could have heard it. */
  fault: Error | null = null;
  #jumped = false;
  #drained = false;
  #jumpedInStart = false;
  #looks = 0;
  #served = true;
  #timer: Due | null = null;
  #early: (Answer | Event)[] = [];
  #stdin: (() => void)[] = [];
  #list = '';
  /** When the list could not be read. */
  #unlistedUs = -1;
  #stops: { fromUs: number; toUs: number }[] = [];
  #reader;
  #world: World;

  constructor(world: World, tampered: (native: SimNative) => SimNative) {
    this.#world = world;
    const { agenda, options, story } = world;
    const native = new SimNative(
      {
        agenda, story, random: world.random, roots: world.roots, noThreads: () => world.faults.noThreads, stallUs: options.stallMs * 1000, slotBytes: options.slotBytes,
        wake: () => this.#later(this.#world.random().oneIn(20) ? this.#world.random().below(2_000) : this.#world.random().below(40), () => this.#deliver(false)),
        touched: (slot, spec) => {
          if (this.alive && this.checker.slots[slot] === CLIENTS) throw new Broken('memory', `the kernel is at slot ${slot} for ${spec.kind} ${spec.id}, and the slot belongs to the client`);
        },
        learnt: (mount) => this.#learnt(mount),
        submitted: (spec, pool) => this.checker.handed.submitted(spec, pool),
        ended: (one) => this.checker.facts.ended(one),
        delivered: (one, { late, uncached, kernelUs, status, text }) => this.checker.handed.delivered(one, late || one.unwanted, uncached && status !== 'expired' && status !== 'saturated', kernelUs, one.spec.kind === 'identify' && status === 'ok' ? text : ''),
        stalled: (one) => this.checker.handed.stalled(one),
        published: (tag, key) => {
          if (world.never.has(tag)) throw new Broken('late store', `${key} appeared though its store had been answered as not done`);
        },
      },
      options.stuckProcessMax,
      (atUs) => this.#arm(atUs),
    );
    for (let slot = 0; slot < options.slots; slot += 1) native.memory.push(`new ${slot}`);
    this.native = native;
    this.checker = new Checker(options.slots, world.never, {
      nowUs: () => agenda.nowUs, native, slotBytes: options.slotBytes, indexUs: options.indexMs * 1000, stores: world.stores, story, mounts: options.mounts.map((mount) => mount.name), stuckMax: options.stuckMax, lanes: options.lanes, stallUs: options.stallMs * 1000,
      mayBeSick: (mount, laneClass) => world.faults.maySuffer(mount, laneClass), wasTroubled: () => world.faults.troubled, armedUs: () => this.armedUs, leaving: () => this.leaving, awayUs: (sinceUs, butUs) => this.#awayUs(sinceUs, butUs),
      later: (atUs, work) => void agenda.at(atUs, () => {
        if (this.alive) work();
      }),
    });
    const seen = tampered(native);
    this.service = createService(
      {
        native: seen,
        clock: { nowUs: () => this.#look(), arm: (atUs) => seen.armTimer(atUs) },
        send: (message) => this.#send(message),
        log: QUIET,
        mountTable: { read: (take) => this.#later(50 + world.random().below(2_000), () => this.#listed(take)) },
        onShutdown: (timeoutMs) => this.leave('shutdown', timeoutMs),
      },
      options,
    );
    this.#reader = createLineReader({ onValue: (value, line) => this.#value(value, line), onRefused: ({ code, message, line }) => this.#refuse(null, code, message, line) }, LIMITS.line_bytes_max);
  }

  start(): void {
    this.startedUs = this.#world.agenda.nowUs;
    this.#turn(() => {
      void this.service.start().then((mounts) => this.#isReady(mounts)).catch((error: unknown) => (this.fault = error as Error));
    });
  }

  /** A value as if it had come in a line of its own. */
  takes(value: unknown, sent: readonly number[] = []): void {
    this.#world.story.tell('client', () => `asks ${brief(value)}`);
    this.line += 1;
    const { line } = this;
    for (const slot of sent) this.checker.slots[slot] = SENT;
    this.#reads(() => {
      for (const slot of sent) this.checker.slots[slot] = CLIENTS;
      this.#value(value, line);
    });
  }

  /** Bytes for the real line reader; must end with a newline. */
  takesText(text: string): void {
    this.#world.story.tell('client', () => `sends ${text.length} characters: ${JSON.stringify(text.slice(0, 60))}`);
    this.#reads(() => this.#reader.feed(Buffer.from(text)));
  }

  // Whatever it is stopped by meanwhile, lines are read in the order they were written.
  #reads(work: () => void): void {
    this.#stdin.push(work);
    this.#later(0, () => this.#stdin.shift()!());
  }

  /** As shutdown.ts does: drain, and gone. */
  leave(why: string, drainMs: number): void {
    if (this.leaving) return;
    this.leaving = true;
    const world = this.#world;
    const { story, agenda } = world;
    story.saw('leaves', why);
    story.tell('sidecar', () => `leaves (${why}), drains for at most ${drainMs} ms with ${this.checker.asked.size} unanswered`);
    const beganUs = agenda.nowUs;
    const boundUs = beganUs + Math.max(1, drainMs * 1000);
    this.service.drain(drainMs, () => {
      if (this.service.outstanding() > 0) throw new Broken('drain', `it is drained with ${this.service.outstanding()} requests outstanding`);
      story.tell('sidecar', () => 'has drained');
      this.#drained = true;
      agenda.in(world.random().below(2_000), () => {
        if (this.alive) this.#gone(); // what was said last had to be written
      });
    });
    const isOver = (): void => {
      if (!this.alive || this.#drained || agenda.nowUs < this.awayUntilUs) return;
      // It may have been stopped between the request and its own look at the clock.
      const overUs = boundUs + this.#awayUs(beganUs) + 1_000;
      if (agenda.nowUs < overUs) agenda.at(overUs, isOver);
      else throw new Broken('drain', 'the drain is not over at its bound');
    };
    agenda.at(boundUs + 1_000, isOver);
  }

  /** A signal, or the end of stdin: not from inside a turn. */
  leaveFromOutside(why: string, drainMs: number): void {
    this.#later(0, () => this.leave(why, drainMs));
  }

  kill(): void {
    this.#world.story.saw('fault kill');
    this.#world.story.tell('fault', () => `SIGKILL; ${this.native.inKernel().length} calls stay in the kernel`);
    this.#gone();
  }

  #gone(): void {
    this.alive = false;
    this.native.dead = true;
    if (this.#timer !== null) this.#timer.run = null;
    this.#world.ended(this);
  }

  // ---- the front ----

  #value(value: unknown, line: number): void {
    const { options, agenda } = this.#world;
    const decoded = decode(value, { slots: options.slots, slotBytes: options.slotBytes, mounts: options.mounts.map((mount) => mount.name), line, nowUs: agenda.nowUs });
    if (!decoded.ok) {
      this.#world.story.saw('fault malformed');
      this.#refuse(decoded.id, decoded.code, decoded.message, line);
      return;
    }
    const { request } = decoded;
    this.#served = true;
    if (this.checker.asked.has(request.id)) {
      this.checker.refused.add(line);
      this.checker.duplicate = this.#asked(request);
      this.#world.story.saw('fault duplicate id');
    } else this.checker.asks(this.#asked(request));
    this.service.handle(request);
  }

  #refuse(id: Id | null, code: string, message: string, line: number): void {
    const held = id !== null && this.service.holdsId(id);
    if (held !== (id !== null && this.checker.asked.has(id))) throw new Broken('books', `holdsId(${JSON.stringify(id)}) says ${held}`);
    if (id === null || held) {
      this.checker.refused.add(line);
      this.#send({ id: null, ok: false, error: { code, message }, ...(held ? { duplicate_of: id } : {}), line } as Answer);
    } else this.#world.story.saw('code', code);
  }

  #asked(request: Request): Asked {
    const { agenda: { nowUs }, options } = this.#world;
    const asked: Asked = {
      id: request.id, op: request.op, line: request.line, mount: '', storeId: null, receivedUs: nowUs, deadlineUs: Infinity, keys: [], slots: [], bytes: [], tags: [], replace: false, fingerprint: '', bump: false,
      task: request.op === 'cancel' ? request.task : null, about: null, atOnce: false, leaving: this.leaving, busy: false, cancelled: false, refused: false, codes: new Set(),
    };
    if (!('mount' in request)) return asked;
    const { mount, deadlineUs, timeoutMs } = request as MountRequest;
    asked.mount = mount;
    asked.storeId = this.native.identities[options.mounts.findIndex(({ name }) => name === mount)] ?? null;
    asked.deadlineUs = deadlineUs ?? nowUs + (timeoutMs ?? options.timeoutMs) * 1000;
    if (request.op === 'namespace') {
      asked.keys = [request.name];
      asked.fingerprint = request.fingerprint;
      asked.bump = request.bump;
    }
    if (!('blocks' in request)) return asked;
    const { namespaces, hexes } = request.blocks;
    asked.keys = hexes.map((hex, i) => `${namespaces[i]}/${hex}`);
    if (request.op === 'store' || request.op === 'load') {
      asked.slots = [...request.blocks.slots];
      asked.bytes = [...request.blocks.bytes];
    }
    if (request.op === 'store') {
      const { inlineData } = request.blocks;
      asked.replace = request.replace;
      // '': the checker gives it bytes if the slot is the client's to use.
      asked.tags = asked.slots.map((slot, i) => (slot === null ? Buffer.from(inlineData![i]!).toString() : ''));
    }
    return asked;
  }

  #isReady(mounts: MountInfo[]): void {
    if (!this.alive) return;
    this.ready = true;
    this.checker.readyWith(mounts);
    const { agenda, story } = this.#world;
    story.saw('event ready');
    for (const { state } of mounts) story.saw('ready', state);
    story.tell('sidecar', () => `is ready: ${mounts.map(({ name, device, state }) => `${name} on ${device} ${state}`).join(', ')}`);
    if (agenda.nowUs > this.startedUs + 80_000 && agenda.nowUs > this.awayUntilUs + 1_000 && !this.#jumpedInStart) throw new Broken('start', `ready came ${agenda.nowUs - this.startedUs} us after the start`);
    for (const message of this.#early.splice(0)) this.#send(message);
  }

  #send(message: Answer | Event): void {
    if (!this.alive) return;
    if (!this.ready) {
      this.#early.push(message);
      return;
    }
    this.#world.story.tell('sidecar', () => `says ${brief(message)}`);
    this.checker.take(message);
  }

  // ---- turns ----

  // The kernel's list of mounts, as it is now; null: it could not be read.
  #listed(take: (text: string | null) => void): void {
    const { roots, faults, random } = this.#world;
    const text = !faults.healed && random().oneIn(40) ? null : roots.map((root) => `${root.mountId} 1 ${root.fileSystem.label} / ${root.path} rw - ext4 /dev/kv rw\n`).join('');
    if (text === null) this.#unlistedUs = this.#world.agenda.nowUs;
    else {
      this.native.listedUs = this.#world.agenda.nowUs;
      if (text !== this.#list) this.checker.handed.listed();
      this.#list = text;
    }
    take(text);
  }

  // What it takes a mount for was there when it learnt it, not only when the lane that told it had opened the root.
  #learnt(mount: number): void {
    const { agenda, roots, faults } = this.#world;
    const learntUs = agenda.nowUs;
    const storeId = this.native.identities[mount]!;
    agenda.at(learntUs + LEARNT_US, () => {
      const { mountedUs, fileSystem, path } = roots[mount]!;
      if (!this.alive || mountedUs >= learntUs || fileSystem.store === null || this.native.identities[mount] !== storeId || fileSystem.store.id === storeId) return;
      // It cannot find out: threads or the list were not to be had, it did not run, or the mount does not answer.
      if (faults.troubledThreads || this.native.listedUs < learntUs || this.#unlistedUs >= learntUs || this.#awayUs(learntUs) > 0 || !fileSystem.answers('metadata')) return;
      throw new Broken('old mount', `${path} is taken for store ${storeId}, which was not there any more when it was learnt`);
    });
  }

  /** For how long it did not run since then; each time but for so long. */
  #awayUs(sinceUs: number, butUs = 0): number {
    let us = 0;
    for (const { fromUs, toUs } of this.#stops) us += Math.max(0, Math.min(toUs, this.#world.agenda.nowUs) - Math.max(fromUs, sinceUs) - butUs);
    return us;
  }

  /** SIGSTOP, or a loop that starves. */
  stop(us: number): void {
    const { nowUs } = this.#world.agenda;
    this.#world.story.saw('fault stop');
    this.#world.story.tell('fault', () => `SIGSTOP for ${us} us`);
    const fromUs = Math.max(this.awayUntilUs, nowUs); // a stop within a stop only makes it longer
    this.awayUntilUs = Math.max(this.awayUntilUs, nowUs + us);
    if (this.awayUntilUs > fromUs) this.#stops.push({ fromUs, toUs: this.awayUntilUs });
  }

  #look(): number {
    const { agenda } = this.#world;
    this.#looks += 1;
    // Not at the first look: when a line was read is what the whole turn goes by.
    if (this.inside !== null && this.#looks > 1 && (this.inside.looks -= 1) < 0) {
      const { us } = this.inside;
      this.inside = null;
      this.#jumped = true;
      this.#stops.push({ fromUs: agenda.nowUs, toUs: agenda.nowUs + us });
      agenda.nowUs += us;
      if (!this.ready) this.#jumpedInStart = true;
      this.#world.story.saw('fault stop inside a turn');
      this.#world.story.tell('fault', () => `stopped inside a turn for ${us} us`);
    }
    return agenda.nowUs;
  }

  #arm(atUs: number): void {
    if (this.#timer !== null) this.#timer.run = null;
    this.#timer = null;
    this.armedUs = atUs;
    if (atUs === 0) return;
    this.#timer = this.#world.agenda.at(atUs, () => this.#whenRunning(() => this.#deliver(true)));
  }

  // What is done is told with the timer now and then: a batch holds what there is.
  #deliver(timer: boolean): void {
    const { native } = this;
    const events = timer && !this.#world.random().oneIn(4) ? [] : native.takeEvents();
    if (timer) {
      this.armedUs = 0;
      events.splice(this.#world.random().below(events.length + 1), 0, { type: 'timer' });
    }
    if (events.length === 0) return;
    this.#served = true;
    this.service.onNative(events);
  }

  #later(us: number, work: () => void): void {
    this.#world.agenda.in(us, () => this.#whenRunning(work));
  }

  #whenRunning(work: () => void): void {
    const { agenda } = this.#world;
    if (!this.alive) return;
    if (agenda.nowUs < this.awayUntilUs) agenda.at(this.awayUntilUs + this.#world.random().below(30), () => this.#whenRunning(work));
    else this.#turn(work);
  }

  #turn(work: () => void): void {
    this.#jumped = false;
    this.#looks = 0;
    this.#served = false; // not every event is a turn of the service: a refused line, a list of mounts that is as it was
    try {
      work();
    } catch (error) {
      if (error instanceof Broken) throw error;
      throw new Broken('it threw', `${(error as Error).stack}`);
    }
    // A turn of the service begins with a look at the clock: none was made of a wake-up whose news it had collected, nor of a mount table as it was.
    if (this.alive) this.checker.turnEnded(this.#jumped || this.#world.agenda.nowUs < this.awayUntilUs, this.#served && this.#looks > 0);
  }
}

function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 220 ? `${text.slice(0, 200)}… (${text.length} characters)` : text;
}
