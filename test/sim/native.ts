// native.ts — the native half in virtual time: lanes go through their calls by the agenda, and mounts misbehave.
//
// It keeps the rules of native/core (abandoning, committing, retiring, stalls, the deadline looked at before every
// call) and judges its caller by what index.ts promises: an operation it may not get ends the run. Completions
// go to the service in batches, a little later. After a kill the lanes live on as a corpse's do: names still change.
import type { Abandoned, ArenaInfo, BlockSpec, Engine, Native, NativeEvent, NativeStatus, OpSpec, PoolState, RecycleFigures, RecycleLimits, SharedSpec, StuckCall } from '../../native/index.ts';
import type { Agenda } from './agenda.ts';
import { callsOf, contentsOf, effectOf, type Call, type Kernel } from './calls.ts';
import type { Root } from './disk.ts';
import { ExtraLanes, Lane, Pool, type PoolOptions, type Seated } from './lanes.ts';
import type { Random } from './random.ts';
import { Broken, type Story } from './story.ts';

export type Done = Extract<NativeEvent, { type: 'done' }>;

export interface NativeHost {
  agenda: Agenda;
  story: Story;
  random(): Random;
  roots: Root[];
  /** Threads cannot be made just now. */
  noThreads(): boolean;
  stallUs: number;
  slotBytes: number;
  /** Something for the service; called once for all that gather meanwhile. */
  wake(): void;
  /** The kernel writes to or reads from this slot now. */
  touched(slot: number, spec: OpSpec): void;
  /** The service takes this mount for a store from now on. */
  learnt(mount: number): void;
  /** An operation is being submitted: what only the client's view of the mounts can judge. */
  submitted(spec: OpSpec, pool: Pool): void;
  /** It ended, in time or late; the service has not been told. */
  ended(one: Seated): void;
  /** The service is being told of it. */
  delivered(one: Seated, done: Done): void;
  /** It has been in one call for longer than stall_ms. */
  stalled(one: Seated): void;
  /** A store's bytes became visible under its name. */
  published(tag: string, key: string): void;
}

const EAGAIN = 11;
const SOON_US = 20_000;
const NO_CALLS: readonly Call[] = [];
const CHANGES_NAMES = new Set<OpSpec['kind']>(['store', 'remove', 'aside', 'namespace']);

export class SimNative implements Native {
  readonly pools: Pool[] = [];
  /** Everything that was handed over and has not come back. */
  readonly operations = new Map<number, Seated>();
  /** Came back, and the service has not been told. */
  readonly undelivered = new Map<number, Seated>();
  readonly identities: (string | null)[] = [];
  readonly memory: string[] = [];
  readonly staging = new Map<number, string>();
  readonly extra: ExtraLanes;
  /** When the service last got the list of mounts. */
  listedUs = -1;
  fallenBack: Engine | null = null;
  events: NativeEvent[] = [];
  dead = false;
  recycled: RecycleLimits[] = [];
  #holders = new Map<string, Seated>();
  #changing = new Map<string, Seated>();
  #probes = new ExtraLanes(1_000_000);
  #arm: (atUs: number) => void;
  #host: NativeHost;
  #kernel: Kernel;

  constructor(host: NativeHost, extraMax: number, arm: (atUs: number) => void) {
    this.#host = host;
    this.#kernel = { nowUs: () => host.agenda.nowUs, random: host.random, story: host.story, slotBytes: host.slotBytes, memory: this.memory, staging: this.staging, identities: this.identities, touched: host.touched, published: host.published };
    this.#arm = arm;
    this.extra = new ExtraLanes(extraMax);
  }

  // ---- what the run asks ----

  /** Is another number whenever a limit or a lane has changed. */
  get limits(): number {
    return this.extra.changes + this.#probes.changes;
  }

  inKernel(): Seated[] {
    return [...this.operations.values()].filter((one) => one.state !== 'queued');
  }

  /** Whom this slot belongs to, as far as the lanes are concerned. */
  holderOf(slot: number): Seated | undefined {
    return this.#holders.get(`0:${slot * this.#host.slotBytes}`);
  }

  takeEvents(): NativeEvent[] {
    const events = this.events;
    this.events = [];
    for (const event of events) {
      if (event.type !== 'done') continue;
      const one = this.undelivered.get(event.id)!;
      one.toldUs = this.#host.agenda.nowUs;
      this.#host.delivered(one, event);
      this.undelivered.delete(event.id);
    }
    return events;
  }

  /** What was slow is not any more: calls under way return soon. */
  speedUp(): void {
    const { agenda } = this.#host;
    for (const one of this.operations.values()) {
      const { returns } = one;
      if (returns === null || returns.run === null || returns.atUs <= agenda.nowUs + SOON_US) continue;
      returns.run = null;
      one.returns = agenda.in(this.#host.random().below(SOON_US), () => this.#returned(one));
    }
  }

  isUndelivered(which: (one: Seated) => boolean): boolean {
    for (const one of this.undelivered.values()) if (which(one)) return true;
    return false;
  }

  holdersOfStaging(): Seated[] {
    return [...this.#holders.values()].filter(({ spec }) => 'region' in spec && spec.region === 1);
  }

  /** The kernel's own list of what is stuck. */
  stuckSeats(): Seated[] {
    return this.inKernel().filter((one) => one.abandoned || one.stalled);
  }

  /** Threads can be made again, or a limit grew. */
  lookAtQueues(): void {
    for (const pool of this.pools) this.#start(pool);
  }

  // ---- Native ----

  nowUs(): number {
    return this.#host.agenda.nowUs;
  }
  start(): void {}
  collect(): NativeEvent[] {
    return this.takeEvents();
  }
  hurry(): void {} // told soon in any case
  armTimer(atUs: number): void {
    this.#arm(atUs);
  }
  adoptArena(): never {
    throw new Error('not in the simulation');
  }
  createArena(): never {
    throw new Error('not in the simulation');
  }
  observeArena(): ArenaInfo {
    return { fd: 3, bytes: this.memory.length * this.#host.slotBytes, pageBytes: 4096, hugeBytes: 0, backing: 'shmem', advice: '' };
  }
  createStaging(): void {}
  writeStaging(offset: number, data: Uint8Array): void {
    const holder = this.#holders.get(`1:${offset}`);
    if (holder !== undefined) throw new Broken('memory', `staging at ${offset} is written for a new request while the ${holder.spec.kind} ${holder.spec.id} still has it`);
    this.staging.set(offset, Buffer.from(data).toString());
  }
  readStaging(offset: number, bytes: number): Buffer {
    return Buffer.from((this.staging.get(offset) ?? '').padEnd(bytes, '.').slice(0, bytes));
  }
  addMount(): number {
    return this.identities.push(null) - 1;
  }
  setMountIdentity(mount: number, storeId: string | null): void {
    if (this.identities[mount] !== null && this.identities[mount] !== storeId) this.#host.story.saw('store learnt anew');
    this.identities[mount] = storeId;
    this.#host.learnt(mount);
  }
  setRecycling(mount: number, limits: RecycleLimits): void {
    this.recycled[mount] = limits;
  }
  recycling(): RecycleFigures {
    return { on: false, files: 0, bytes: 0, recycled: 0, kept: 0, dropped: 0, lost: 0 };
  }
  createPool(options: PoolOptions): number {
    const engine = this.engine(options.engine);
    this.pools.push(new Pool(this.pools.length, { ...options, engine }, options.forProbes ? this.#probes : this.extra));
    return this.pools.length - 1;
  }
  setStuckLimit(pool: number, lanes: number): void {
    this.pools[pool]!.limit = lanes;
    this.#start(this.pools[pool]!);
  }
  closePool(number: number): void {
    const pool = this.pools[number]!;
    if (pool.queue.length > 0) throw new Broken('closed pool', `pool ${number} was closed with ${pool.queue.length} operations queued`);
    pool.closed = true;
    for (const lane of [...pool.lanes]) if (lane.seats.length === 0) pool.forget(lane);
  }
  submit(pool: number, spec: OpSpec): void {
    this.#accept(this.pools[pool]!, spec);
    this.#start(this.pools[pool]!);
  }
  submitBlocks(pool: number, { kind, ...shared }: SharedSpec, blocks: readonly BlockSpec[]): void {
    const { durable, fileMode, mount, rootGeneration, deadlineUs, namespace } = shared;
    const into = this.pools[pool]!;
    for (const { id, hex, region, offset, bytes, replace } of blocks) {
      if (kind === 'remove') this.#accept(into, { id, kind, mount, rootGeneration, deadlineUs, namespace, hex });
      else if (kind === 'load') this.#accept(into, { id, kind, mount, rootGeneration, deadlineUs, namespace, hex, region, offset, bytes });
      else this.#accept(into, { id, kind, mount, rootGeneration, deadlineUs, namespace, hex, region, offset, bytes, replace, durable, fileMode });
    }
    this.#start(into);
  }
  abandon(id: number): Abandoned {
    const one = this.operations.get(id);
    if (one === undefined) {
      this.#host.story.saw('abandoned done');
      const one = this.undelivered.get(id);
      if (one !== undefined) one.unwanted = true;
      return { state: 'done', phase: 'queue', sinceUs: 0 };
    }
    if (one.abandoned) throw new Broken('abandoned twice', `operation ${id} was given up twice`);
    const { state, phase } = one;
    this.#host.story.saw('abandoned', state);
    this.#host.story.tell('lanes', () => `${what(one)} is given up while ${state}${state === 'queued' ? '' : ` in ${phase}`}`);
    if (state === 'queued') {
      this.#unqueue(one);
      return { state, phase: 'queue', sinceUs: 0 };
    }
    one.abandoned = true;
    one.pool.recount(one.lane!);
    this.#start(one.pool);
    if (state === 'running') this.#nameIsSafe(one);
    return one.found === null ? { state, phase, sinceUs: one.sinceUs } : { state, phase, sinceUs: one.sinceUs, found: one.found.slice() };
  }
  withdraw(id: number): boolean {
    const one = this.operations.get(id);
    if (one?.state !== 'queued') return false;
    this.#host.story.saw('withdrawn');
    this.#unqueue(one);
    return true;
  }
  poolState(number: number): PoolState {
    const pool = this.pools[number]!;
    const wanted: Seated[] = [];
    let runningBytes = 0;
    for (const lane of pool.lanes) {
      for (const one of lane.seats) {
        if (one.abandoned) continue;
        wanted.push(one);
        if ('bytes' in one.spec) runningBytes += one.spec.bytes;
      }
    }
    wanted.sort((a, b) => a.sinceUs - b.sinceUs || a.spec.id - b.spec.id);
    return {
      queued: pool.queue.length,
      running: wanted.length,
      stuck: pool.stuck,
      lanes: pool.lanes.length,
      oldestSinceUs: wanted[0]?.sinceUs ?? 0,
      oldestIds: wanted.slice(0, 8).map((one) => one.spec.id),
      runningBytes,
    };
  }
  stuck(all = false): StuckCall[] {
    return (all ? this.inKernel() : this.stuckSeats()).map((one) => this.#call(one));
  }
  hardExit(): never {
    throw new Error('not in the simulation');
  }
  watchParent(): void {}
  engineOf(pool: number): Engine {
    return this.engine(this.pools[pool]!.options.engine);
  }
  engine(asked: Engine): Engine {
    return this.fallenBack ?? asked;
  }

  // ---- lanes ----

  #accept(pool: Pool, spec: OpSpec): void {
    const { id, mount, kind } = spec;
    if (this.dead) throw new Broken('dead', `operation ${id} was submitted by a sidecar that was killed`);
    if (this.operations.has(id) || this.undelivered.has(id)) throw new Broken('operation ids', `operation ${id} was submitted twice`);
    if (pool.closed) throw new Broken('closed pool', `operation ${id} (${kind}) was submitted to pool ${pool.number}, which is closed`);
    if (this.identities[mount] === null && kind !== 'identify' && kind !== 'probe') throw new Broken('unknown store', `a ${kind} was submitted to mount ${mount} before its store was known`);
    if (pool.options.forProbes !== (kind === 'probe' || kind === 'identify')) throw new Broken('pools', `a ${kind} was submitted to a pool that is ${pool.options.forProbes ? '' : 'not '}for probes`);
    this.#host.submitted(spec, pool);
    const one: Seated = {
      spec, pool, lane: null, state: 'queued', abandoned: false, unwanted: false, stalled: false, phase: 'queue', sinceUs: 0, submittedUs: this.#host.agenda.nowUs, endedUs: Infinity, toldUs: Infinity, status: 'ok', storedBytes: 0, calls: NO_CALLS, at: 0, returns: null,
      fileSystem: null, opensRoot: false, found: kind === 'lookup' ? new Uint8Array(spec.names.length) : null, given: '', written: '', kernelUs: 0, key: keyIn(spec), name: CHANGES_NAMES.has(kind) ? this.#nameOf(spec) : '',
    };
    if (one.name !== '') {
      const { name } = one;
      const other = this.#changing.get(name);
      if (other !== undefined) throw new Broken('two writers', `${what(one)} was submitted while ${what(other)}, ${other.state}${other.abandoned ? ' and given up' : ''}, may still change the same name`);
      this.#changing.set(name, one);
    }
    if (spec.kind === 'load' || spec.kind === 'store') {
      const area = `${spec.region}:${spec.offset}`;
      const other = this.#holders.get(area);
      if (other !== undefined) throw new Broken('memory', `${what(one)} got ${spec.region === 0 ? `slot ${spec.offset / this.#host.slotBytes}` : `staging at ${spec.offset}`} while ${what(other)}, ${other.state}${other.abandoned ? ' and given up' : ''}, has it`);
      this.#holders.set(area, one);
      if (spec.kind === 'store') one.given = contentsOf(spec, this.#kernel);
    }
    this.operations.set(id, one);
    pool.queue.push(one);
  }

  /** In the store that its mount is taken for now. */
  #nameOf(spec: OpSpec): string {
    return `${this.identities[spec.mount]} ${spec.kind === 'namespace' ? `@${spec.namespace}` : keyIn(spec)}`;
  }

  #nameIsSafe(one: Seated): void {
    if (one.name !== '' && this.#changing.get(one.name) === one) this.#changing.delete(one.name);
  }

  #unqueue(one: Seated): void {
    one.pool.queue.splice(one.pool.queue.indexOf(one), 1);
    this.#gone(one);
  }

  #gone(one: Seated): void {
    one.state = 'done';
    this.operations.delete(one.spec.id);
    this.#nameIsSafe(one);
    const { spec } = one;
    if (spec.kind === 'load' || spec.kind === 'store') {
      const area = `${spec.region}:${spec.offset}`;
      if (this.#holders.get(area) === one) this.#holders.delete(area);
    }
  }

  #start(pool: Pool): void {
    if (pool.queue.length === 0) return;
    const { agenda, story } = this.#host;
    const made = pool.start(() => !this.#host.noThreads());
    if (!made && pool.alive() === 0) {
      story.saw('fault no threads');
      for (const one of pool.queue.splice(0)) this.#complete(one, 'saturated', EAGAIN, {});
      return;
    }
    agenda.in(this.#host.random().below(20), () => this.#feed(pool));
  }

  #feed(pool: Pool): void {
    for (let lane = 0; lane < pool.lanes.length && pool.queue.length > 0; lane += 1) {
      const each = pool.lanes[lane]!;
      while (pool.queue.length > 0 && each.free() && !pool.tooMany(each)) this.#takeUp(each, pool.queue.shift()!);
    }
  }

  #takeUp(lane: Lane, one: Seated): void {
    const { agenda } = this.#host;
    const { spec } = one;
    if (spec.deadlineUs !== 0 && agenda.nowUs >= spec.deadlineUs) {
      this.#complete(one, 'expired', 0, {});
      return;
    }
    one.state = 'running';
    one.lane = lane;
    lane.seats.push(one);
    const root = this.#host.roots[spec.mount]!;
    const known = lane.roots.get(spec.mount);
    const afresh = spec.kind === 'probe' || spec.kind === 'identify' || known === undefined || known.generation < spec.rootGeneration;
    one.fileSystem = afresh ? root.fileSystem : known.fileSystem;
    if (one.fileSystem !== root.fileSystem && one.submittedUs > this.listedUs && this.listedUs > root.mountedUs && !this.dead) throw new Broken('old mount', `${what(one)} goes to what was mounted at ${root.path} before, ${(agenda.nowUs - this.listedUs) / 1000} ms after the sidecar had read that something else is`);
    one.opensRoot = afresh && spec.kind !== 'probe' && spec.kind !== 'identify';
    one.calls = callsOf(spec, afresh, this.engineOf(one.pool.number) === 'aio');
    one.at = -1;
    this.#go(one);
  }

  // The next call, unless nobody wants it any more.
  #go(one: Seated): void {
    const { agenda } = this.#host;
    one.at += 1;
    const call = one.calls[one.at];
    if (call === undefined) {
      this.#finish(one, 'ok', 0, {});
      return;
    }
    const { deadlineUs } = one.spec;
    if (one.abandoned || (deadlineUs !== 0 && agenda.nowUs >= deadlineUs)) {
      one.at -= 1;
      this.#finish(one, 'expired', 0, {});
      return;
    }
    if (call.commits) one.state = 'committing';
    one.phase = call.phase;
    one.sinceUs = agenda.nowUs;
    one.pool.recount(one.lane!);
    if (!call.holdsThread && one.pool.queue.length > 0) this.#start(one.pool); // an aio lane that can take up more
    const us = 1 + this.#host.random().below(call.mostUs * one.fileSystem!.slow[one.pool.options.laneClass]);
    one.returns = agenda.in(us, () => this.#returned(one));
    if (us > this.#host.stallUs) this.#stallIn(one);
  }

  // The call would return now, if nothing held it.
  #returned(one: Seated): void {
    const { agenda, story } = this.#host;
    const fileSystem = one.fileSystem!;
    const { laneClass } = one.pool.options;
    if (fileSystem.hangs(laneClass, one.key, one.phase)) {
      story.saw('stuck in', one.phase);
      story.tell('kernel', () => `${what(one)} hangs in ${one.phase}`);
      fileSystem.parked.push({ at: { go: () => this.#returned(one) }, laneClass, key: one.key, phase: one.phase });
      this.#stallIn(one);
      return;
    }
    one.kernelUs += agenda.nowUs - one.sinceUs;
    if (one.stalled) {
      one.stalled = false;
      this.#push({ type: 'recovered', call: this.#call(one) });
      one.pool.recount(one.lane!);
    }
    const ended = effectOf(one, this.#kernel);
    if (ended === null) this.#go(one);
    else this.#finish(one, ended.status, ended.errno, ended.more);
  }

  #stallIn(one: Seated): void {
    const { sinceUs } = one;
    this.#host.agenda.at(sinceUs + this.#host.stallUs + this.#host.random().below(1000), () => this.#stall(one, sinceUs));
  }

  #stall(one: Seated, sinceUs: number): void {
    if (one.state === 'done' || one.sinceUs !== sinceUs || one.stalled) return;
    one.stalled = true;
    one.pool.recount(one.lane!);
    this.#push({ type: 'stalled', call: this.#call(one) });
    if (!this.dead) this.#host.stalled(one);
    this.#start(one.pool);
  }

  #finish(one: Seated, status: NativeStatus, errno: number, more: Partial<Done>): void {
    const lane = one.lane!;
    const { pool } = one;
    lane.seats.splice(lane.seats.indexOf(one), 1);
    this.#complete(one, status, errno, more);
    pool.recount(lane);
    if (lane.seats.length === 0 && pool.tooMany(lane)) {
      lane.retiring = true;
      pool.forget(lane);
      this.#host.story.saw('lane retired');
    }
    if (pool.queue.length > 0) this.#start(pool);
  }

  #complete(one: Seated, status: NativeStatus, errno: number, more: Partial<Done>): void {
    const late = one.abandoned;
    const phase = one.state === 'queued' ? 'queue' : one.phase;
    this.#gone(one);
    const { story } = this.#host;
    story.saw('native', status);
    story.tell('lanes', () => `${what(one)} ${late ? 'comes back late' : 'ends'}: ${status}${errno === 0 ? '' : ` (errno ${errno})`} in ${phase}${this.dead ? ', in a dead sidecar' : ''}`);
    if (this.dead) return;
    this.undelivered.set(one.spec.id, one);
    one.endedUs = this.#host.agenda.nowUs;
    one.status = status;
    one.storedBytes = more.storedBytes ?? 0;
    this.#host.ended(one);
    const aio = one.pool.options.engine === 'aio';
    this.#push({
      type: 'done', id: one.spec.id, status, errno, phase, kernelUs: one.kernelUs, kernelUsKnown: !aio || this.#host.random().oneIn(2), uncached: phase !== 'queue', kept: false, storedBytes: 0, inode: '', text: '',
      ...(one.found === null ? {} : { found: one.found.slice() }), ...more, late,
    });
  }

  #push(event: NativeEvent): void {
    if (this.dead) return;
    this.events.push(event);
    if (this.events.length === 1) this.#host.wake();
  }

  #call(one: Seated): StuckCall {
    const { spec, pool, phase, sinceUs, abandoned } = one;
    return {
      id: spec.id, pool: pool.number, kind: spec.kind, tid: 4000 + one.lane!.number, phase, syscall: phase === 'read' ? 'preadv2' : phase, sinceUs, forUs: this.#host.agenda.nowUs - sinceUs, abandoned,
      namespace: 'namespace' in spec ? spec.namespace : '', hex: 'hex' in spec ? spec.hex : '',
    };
  }
}

function keyIn(spec: OpSpec): string {
  return 'hex' in spec ? `${spec.namespace}/${spec.hex}` : '';
}

export function what(one: Seated): string {
  const { spec } = one;
  return `${spec.kind} ${spec.id}${one.key === '' ? '' : ` of ${one.key}`}${'region' in spec && spec.region === 0 ? ` at ${spec.offset}` : ''} on kv${spec.mount}`;
}
