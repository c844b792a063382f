// run.ts — one seed: a world with faults, a client that asks, sidecars one after the other. The seed and the steps decide
// everything: there is no other clock, no file, no timer.
import { setImmediate } from 'node:timers/promises';
import type { Engine } from '../../native/index.ts';
import type { ServiceOptions } from '../../sidecar/service_types.ts';
import { Agenda } from './agenda.ts';
import { CLIENTS } from './checker.ts';
import { Store, type Root } from './disk.ts';
import { end } from './ending.ts';
import { FAULTS, Faults, OTHER, type Fault } from './faults.ts';
import type { SimNative } from './native.ts';
import { Random } from './random.ts';
import * as requests from './requests.ts';
import { Sidecar, type World } from './sidecar.ts';
import { Broken, Story, type Seen } from './story.ts';

export const STEPS = 150;
/** A burst of large requests makes some thousand. */
const AT_ONE_MOMENT_MAX = 30_000;

export interface Outcome {
  seed: number;
  steps: number;
  broken: Broken | null;
  /** The step in which it broke; `steps` when it was at the end. */
  at: number;
  events: number;
  answers: number;
  lines: string[] | null;
}

export interface Plan {
  seed: number;
  steps?: number;
  skip?: ReadonlySet<number>;
  told?: boolean;
  seen?: Seen;
  tampered?: (native: SimNative) => SimNative;
}

type Question = 'load' | 'store' | 'lookup' | 'remove' | 'namespace' | 'question' | 'cancel' | 'malformed' | 'garbage' | 'again';
type Action = Question | Fault | 'scribble' | 'stop' | 'stopInside' | 'kill' | 'leave' | 'wait' | 'burst' | 'fallBack';

/** How likely each is in the mean run; each seed turns them up and down, and some off. */
const MEAN: Record<Action, number> = {
  load: 300, store: 300, lookup: 120, remove: 100, namespace: 60, question: 60, cancel: 80, malformed: 40, garbage: 10, again: 20, scribble: 60,
  hang: 40, resume: 45, badFile: 20, slow: 20, errno: 20, damage: 40, unmount: 8, remount: 14, stop: 10, stopInside: 6, threads: 8, kill: 4, leave: 4, wait: 60, burst: 12, fallBack: 3,
};

export async function run(plan: Plan): Promise<Outcome> {
  const { seed, steps = STEPS, told = false, seen = new Map() } = plan;
  const story = new Story(told, seen);
  const all = new Run(seed, story, plan.tampered ?? ((native) => native));
  let broken: Broken | null = null;
  let at = 0;
  try {
    await all.begin();
    for (at = 0; at < steps; at += 1) {
      if (plan.skip?.has(at)) continue;
      await all.step(at);
    }
    await all.end();
  } catch (error) {
    broken = error instanceof Broken ? error : new Broken('it threw', `${(error as Error).stack}`);
    story.tell('BROKEN', () => `${broken!.rule}: ${broken!.message}`);
  }
  await setImmediate(); // all of it ran in microtasks: what Node's streams keep for the next tick would hold every run in memory
  return { seed, steps, broken, at, events: story.events, answers: all.answers, lines: story.lines };
}

export class Run {
  readonly agenda = new Agenda(1_000_000_000);
  readonly story: Story;
  readonly world: World;
  readonly faults: Faults;
  /** Null between two of them. */
  sidecar: Sidecar | null = null;
  /** No other is started after this one. */
  over = false;
  answers = 0;
  #seed: number;
  #random: Random;
  #weights: Record<Action, number>;
  #tampered: (native: SimNative) => SimNative;
  #ids = 0;
  #tags = 0;
  #keys: number;
  #longMs: number;
  #calm: boolean;
  #mayFallBack = false;
  #restartUs: number;
  #settling = 4;
  #lastUs = 0;
  #atOnce = 0;

  constructor(seed: number, story: Story, tampered: (native: SimNative) => SimNative) {
    this.#seed = seed;
    const random = (this.#random = new Random(seed));
    this.story = story;
    this.#tampered = tampered;
    story.begin(() => this.agenda.nowUs);
    // Nothing is ever stuck in some of them: there nothing may be suspended either, whatever fails and however short the deadlines are.
    this.#calm = random.oneIn(6);
    this.#weights = weights(random, this.#calm);
    this.#keys = random.pick([2, 8, 30, 80]);
    this.#longMs = random.pick([20, 300, 3_000, 20_000]);
    this.#restartUs = random.pick([1_000, 100_000]);
    const stores = new Map<string, Store>([[OTHER, new Store(OTHER)]]);
    const roots: Root[] = [];
    this.faults = new Faults({
      agenda: this.agenda, story, random: () => this.#random, roots, stores, calm: this.#calm, keys: this.#keys,
      identityOf: (mount) => this.sidecar?.native.identities[mount] ?? null,
      newTag: () => this.newTag(),
    });
    this.#lay(roots, stores);
    const options: ServiceOptions = {
      mounts: roots.map(({ path }, mount) => ({ name: `kv${mount}`, root: path, create: false })),
      slotBytes: 65_536, slots: random.pick([8, 24, 64]), timeoutMs: random.pick([50, 2_000]), stallMs: random.pick([200, 1_000]), engine: random.pick<Engine>(['threads', 'aio']),
      lanes: random.pick([1, 2, 4]), stuckMax: random.pick([1, 4, 10, 16]), stuckProcessMax: random.pick([2, 16, 100]), fsync: random.oneIn(4), fileMode: 0o600, recycle: random.pick(['off', 'auto', 'on']), tidy: true, capacity: new Map(), collectorHaste: 1, indexMs: random.pick([0, 0, 200, 5_000]), holdBreakerClosed: false,
    };
    this.world = { agenda: this.agenda, story, random: () => this.#random, roots, stores, never: new Set(), faults: this.faults, options, ended: (sidecar) => this.#ended(sidecar) };
    story.tell('world', () => `${roots.length} mounts (${roots.map((root) => `${root.path} on ${root.fileSystem.label}`).join(', ')}), ${options.engine}, ${options.lanes} lanes, stuck-max ${options.stuckMax} (process ${options.stuckProcessMax}), ${options.slots} slots, stall ${options.stallMs} ms, timeout ${options.timeoutMs} ms${options.indexMs === 0 ? '' : `, index ${options.indexMs} ms`}`);
  }

  async begin(): Promise<void> {
    if (this.#random.oneIn(12) && !this.#calm) this.faults.hang(); // it starts beside a mount that hangs already
    else if (this.#random.oneIn(25) && !this.#calm) this.faults.mountedLate();
    this.#start();
    await this.until(this.agenda.nowUs + this.#random.pick([0, 5_000, 100_000]));
  }

  async step(number: number): Promise<void> {
    const random = (this.#random = new Random(this.#seed, number + 1));
    const action = random.weighted(this.#weights);
    this.#act(action);
    if (action !== 'burst') await this.until(this.agenda.nowUs + (action === 'wait' ? random.spread(4_000_000) : random.spread(100_000)));
  }

  async end(): Promise<void> {
    this.#random = new Random(this.#seed, 1_000_003);
    await end(this);
  }

  async until(untilUs: number): Promise<void> {
    const { agenda } = this;
    for (let work = agenda.next(untilUs); work !== null; work = agenda.next(untilUs)) {
      this.#atOnce = agenda.nowUs === this.#lastUs ? this.#atOnce + 1 : 0;
      this.#lastUs = agenda.nowUs;
      if (this.#atOnce > AT_ONE_MOMENT_MAX) throw new Broken('time goes on', `${AT_ONE_MOMENT_MAX} events in one moment: the timer is armed again and again for it`);
      work();
      // Only a start answers by a promise.
      while (this.sidecar !== null && !this.sidecar.ready && this.#settling > 0) {
        this.#settling -= 1;
        await Promise.resolve();
      }
      this.#settling = 4;
      if (this.sidecar !== null && this.sidecar.fault !== null) throw this.sidecar.fault;
    }
    agenda.nowUs = Math.max(agenda.nowUs, untilUs);
  }

  newId(): number | string {
    this.#ids += 1;
    return this.#random.oneIn(5) ? `r${this.#ids}` : this.#ids;
  }

  newTag(): string {
    return `bytes ${(this.#tags += 1)}`;
  }

  ask(what: Question): void {
    const { sidecar } = this;
    if (sidecar === null || !sidecar.ready) return;
    const asking: requests.Asking = {
      sidecar, random: this.#random, nowUs: this.agenda.nowUs, mounts: this.world.options.mounts.map((mount) => mount.name), slotBytes: 65_536,
      newId: () => this.newId(), newTag: () => this.newTag(), keys: this.#keys, timeoutMostMs: this.#longMs, sent: [],
    };
    switch (what) {
      case 'load':
      case 'store': {
        const message = requests.blocks(asking, what);
        if (message !== null) sidecar.takes(message, asking.sent);
        return;
      }
      case 'lookup':
      case 'remove':
        return sidecar.takes(requests.names(asking, what));
      case 'namespace':
        return sidecar.takes(requests.namespace(asking));
      case 'question':
        return sidecar.takes(requests.question(asking));
      case 'cancel':
        return sidecar.takes(requests.cancel(asking));
      case 'malformed':
        return sidecar.takes(requests.malformed(asking), asking.sent);
      case 'garbage':
        return sidecar.takesText(requests.garbage(this.#random));
      case 'again': {
        const id = [...sidecar.checker.asked.keys()].at(-1);
        if (id !== undefined) sidecar.takes({ ...requests.names(asking, 'lookup'), id });
        return;
      }
    }
  }

  // ---- life ----

  #lay(roots: Root[], stores: Map<string, Store>): void {
    const random = this.#random;
    for (let mount = 0, count = random.pick([1, 2, 2, 3]); mount < count; mount += 1) {
      const shares = mount > 0 && random.oneIn(4); // two names for one store, on one device
      const store = shares ? roots[0]!.fileSystem.store! : new Store(`${mount}`.repeat(32));
      stores.set(store.id, store);
      const fileSystem = shares ? roots[0]!.fileSystem : this.faults.newFileSystem(store, mount > 0 && random.oneIn(4) ? roots[0]!.fileSystem.label : null);
      roots.push(this.faults.newRoot(`/mnt/kv${mount}`, fileSystem));
    }
  }

  #start(): void {
    this.sidecar = new Sidecar(this.world, this.#tampered);
    if (this.#mayFallBack) this.sidecar.native.fallenBack = 'threads';
    this.sidecar.start();
  }

  #ended(sidecar: Sidecar): void {
    this.answers += sidecar.checker.answers;
    if (this.sidecar !== sidecar) return;
    this.sidecar = null;
    if (this.over) return;
    this.agenda.in(1 + this.#random.below(this.#restartUs), () => {
      this.story.saw('restart');
      this.story.tell('world', () => 'a new sidecar is started over the same stores');
      this.#start();
    });
  }

  // ---- what may happen ----

  #act(action: Action): void {
    const random = this.#random;
    const { sidecar } = this;
    if (FAULTS.has(action)) {
      this.faults.happens(action as Fault);
      if (action === 'threads' && !this.faults.noThreads) sidecar?.native.lookAtQueues();
      return;
    }
    switch (action) {
      case 'fallBack':
        this.#mayFallBack = !this.#mayFallBack;
        return;
      case 'burst':
        for (let count = random.from(3, 12); count > 0; count -= 1) this.ask(random.pick(['load', 'store', 'store', 'remove', 'lookup']));
        return;
      case 'wait':
        return;
      default:
        break;
    }
    if (sidecar === null) return;
    switch (action) {
      case 'stop':
        this.faults.nobodyWatched();
        return sidecar.stop(random.spread(5_000_000));
      case 'stopInside':
        this.faults.nobodyWatched();
        sidecar.inside = { looks: random.below(12), us: random.spread(3_000_000) };
        return;
      case 'kill':
        return sidecar.kill();
      case 'leave':
        if (sidecar.leaving || !sidecar.ready) return;
        if (random.oneIn(2)) sidecar.takes({ id: this.newId(), op: 'shutdown', ...(random.oneIn(2) ? { timeout_ms: 1 + random.below(800) } : {}) });
        else if (random.oneIn(2)) sidecar.leaveFromOutside('signal', 100);
        else sidecar.leaveFromOutside('end of stdin', 30_000);
        return;
      case 'scribble':
        for (let slot = 0; slot < sidecar.checker.slots.length; slot += 1) if (sidecar.checker.slots[slot] === CLIENTS) sidecar.native.memory[slot] = this.newTag();
        return;
      default:
        this.ask(action as Question);
    }
  }
}

// Swarm: a run in which one fault is absent, or rules, finds what a mean one never does.
function weights(random: Random, calm: boolean): Record<Action, number> {
  const all = { ...MEAN };
  for (const action in MEAN) all[action as Action] = Math.round(MEAN[action as Action] * random.pick([0, 0.3, 1, 1, 1, 3]));
  if (all.load + all.store + all.lookup === 0) all.load = all.store = 300;
  if (calm) all.hang = all.badFile = all.stop = all.stopInside = 0;
  return all;
}
