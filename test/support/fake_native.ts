// fake_native.ts — the native half, with lanes that wait until the test lets them go on.
//
// Lanes are taken up as the real pools do it: first in, first out, `lanes` of them alive, replaced while
// stuck up to the limit. Nothing completes by itself unless the test says so with `onSubmit`; events go
// to the service only in deliver(), never from inside a call.
import type { Abandoned, ArenaInfo, BlockSpec, Engine, Entry, LaneClass, Native, NativeEvent, OpSpec, Phase, PoolState, RecycleFigures, RecycleLimits, SharedSpec, StuckCall } from '../../native/index.ts';
import type { Clock } from '../../sidecar/service_types.ts';

type Done = Extract<NativeEvent, { type: 'done' }>;
export type Ending = Partial<Omit<Done, 'type' | 'id' | 'late'>>;

export interface FakeOperation {
  spec: OpSpec;
  pool: number;
  state: 'queued' | 'running' | 'committing' | 'done';
  abandoned: boolean;
  stalled: boolean;
  phase: Phase;
  sinceUs: number;
  found: Uint8Array | undefined;
}

interface FakePool {
  laneClass: LaneClass;
  lanes: number;
  engine: Engine;
  limit: number;
  closed: boolean;
  forProbes: boolean;
}

const FIRST_PHASE: Record<OpSpec['kind'], Phase> = {
  load: 'read', store: 'write', lookup: 'stat', remove: 'unlink', aside: 'rename', identify: 'open', namespace: 'open', tidy: 'unlink', probe: 'read',
  list: 'stat', verify: 'read', remove_file: 'unlink', touch: 'stat', lease: 'rename',
};

/** What `list` tells of these entries. */
export function listed(entries: readonly Partial<Entry>[], next = '-'): Ending {
  const line = ({ type = 'f', name = 'aa.kvb', allocatedBytes = 4096, bytes = 4096, modifiedNs = '1', changedNs = '1', inode = '1' }: Partial<Entry>): string =>
    `${type} ${allocatedBytes} ${bytes} ${modifiedNs} ${changedNs} ${inode} ${name}\n`;
  return { text: `${next}\n${entries.map(line).join('')}` };
}

/** What `lease` tells; with `content`, of look. */
export function leased(number: number, content?: string, modifiedNs = '1'): Ending {
  return { text: JSON.stringify({ number, ...(content === undefined ? {} : { content }), modified_ns: modifiedNs }) };
}


export class FakeNative implements Native {
  readonly operations = new Map<number, FakeOperation>();
  readonly pools: FakePool[] = [];
  /** The cap of the process: lanes of all pools of work beyond their first ones. */
  stuckProcessMax = Infinity;
  /** What engineOf says; null for what was asked. */
  fallenBack: Engine | null = null;
  /** What was allowed to each mount, by its number. */
  readonly recycleLimits: RecycleLimits[] = [];
  readonly identities: (string | null)[] = [];
  readonly roots: string[] = [];
  /** Every operation ever submitted, in order. */
  readonly submitted: OpSpec[] = [];
  /** Called when a lane takes an operation up; an ending completes it at the next deliver(). */
  onSubmit: (spec: OpSpec) => Ending | null = () => null;
  #clock: Clock;
  #events: NativeEvent[] = [];
  #endings = new Map<number, Ending>();
  #staging = Buffer.alloc(0);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  // ---- what a test does ----

  /** The operations a lane or the queue has, oldest first. */
  held(kind?: OpSpec['kind']): FakeOperation[] {
    return [...this.operations.values()].filter((one) => one.state !== 'done' && (kind === undefined || one.spec.kind === kind));
  }

  inKernel(kind?: OpSpec['kind']): FakeOperation[] {
    return this.held(kind).filter((one) => one.state !== 'queued');
  }

  /** The call the operation is in; with `committing` it may change a name from now on. */
  reach(operation: FakeOperation, phase: Phase, committing = false): void {
    operation.phase = phase;
    operation.sinceUs = this.#clock.nowUs();
    if (committing) operation.state = 'committing';
  }

  /** The kernel gives it back; seen by the service at the next deliver(). */
  release(operation: FakeOperation, ending: Ending = {}): void {
    if (operation.state !== 'running' && operation.state !== 'committing') throw new Error(`operation ${operation.spec.id} is ${operation.state}`);
    const late = operation.abandoned;
    if (operation.stalled) this.#events.push({ type: 'recovered', call: this.#call(operation) });
    operation.state = 'done';
    const status = ending.status ?? (late ? 'expired' : 'ok');
    this.#events.push({
      type: 'done', id: operation.spec.id, errno: 0, phase: operation.phase, kernelUs: this.#clock.nowUs() - operation.sinceUs, kernelUsKnown: true, uncached: true,
      kept: false, storedBytes: 0, inode: '', text: '', ...ending, status, late,
    });
    this.operations.delete(operation.spec.id);
    this.#takeUp(operation.pool);
  }

  releaseAll(kind?: OpSpec['kind'], ending: Ending = {}): void {
    for (const operation of this.inKernel(kind)) this.release(operation, ending);
  }

  /** The supervisor has seen it inside one call for longer than stall_ms. */
  stall(operation: FakeOperation): void {
    operation.stalled = true;
    this.#events.push({ type: 'stalled', call: this.#call(operation) });
    this.#takeUp(operation.pool);
  }

  /** What happened since the last time, as one batch; empty when nothing did. */
  takeEvents(): NativeEvent[] {
    for (const [id, ending] of this.#endings) {
      const operation = this.operations.get(id);
      if (operation !== undefined && operation.state === 'running') this.release(operation, ending);
    }
    this.#endings.clear();
    const events = this.#events;
    this.#events = [];
    return events;
  }

  // ---- what the service asks ----

  nowUs(): number {
    return this.#clock.nowUs();
  }
  start(): void {}
  collect(): NativeEvent[] {
    return this.takeEvents();
  }
  /** Of those that somebody else waits for. */
  readonly hurried: number[] = [];
  hurry(id: number): void {
    this.hurried.push(id);
  }
  armTimer(): void {}
  adoptArena(): never {
    throw new Error('not in the fake');
  }
  createArena(): never {
    throw new Error('not in the fake');
  }
  observeArena(): ArenaInfo {
    return { fd: 3, bytes: 0, pageBytes: 4096, hugeBytes: 0, backing: 'shmem', advice: '' };
  }
  setRecycling(mount: number, limits: RecycleLimits): void {
    this.recycleLimits[mount] = limits;
  }
  recycling(): RecycleFigures {
    return { on: false, files: 0, bytes: 0, recycled: 0, kept: 0, dropped: 0, lost: 0 };
  }
  createStaging(bytes: number): void {
    this.#staging = Buffer.alloc(bytes);
  }
  writeStaging(offset: number, data: Uint8Array): void {
    this.#staging.set(data, offset);
  }
  readStaging(offset: number, bytes: number): Buffer {
    return Buffer.from(this.#staging.subarray(offset, offset + bytes));
  }
  addMount(path: string): number {
    this.identities.push(null);
    return this.roots.push(path) - 1;
  }
  setMountIdentity(mount: number, storeId: string | null): void {
    this.identities[mount] = storeId;
  }
  createPool(options: { laneClass: LaneClass; lanes: number; engine: Engine; forProbes: boolean }): number {
    return this.pools.push({ ...options, limit: 0, closed: false }) - 1;
  }
  setStuckLimit(pool: number, lanes: number): void {
    this.pools[pool]!.limit = lanes;
    this.#takeUp(pool);
  }
  closePool(pool: number): void {
    if (this.held().some((one) => one.pool === pool && !one.abandoned)) throw new Error(`pool ${pool} was closed with work that somebody waits for`);
    this.pools[pool]!.closed = true;
  }
  submit(pool: number, spec: OpSpec): void {
    if (this.pools[pool]!.closed) throw new Error(`operation ${spec.id} was submitted to pool ${pool}, which is closed`);
    if (this.operations.has(spec.id)) throw new Error(`operation ${spec.id} was submitted twice`);
    this.submitted.push(spec);
    this.operations.set(spec.id, { spec, pool, state: 'queued', abandoned: false, stalled: false, phase: 'queue', sinceUs: 0, found: undefined });
    this.#takeUp(pool);
  }
  submitBlocks(pool: number, { kind, ...shared }: SharedSpec, blocks: readonly BlockSpec[]): void {
    for (const { id, hex, region, offset, bytes, replace } of blocks) {
      const { durable, fileMode, ...named } = { ...shared, id, hex };
      if (kind === 'remove') this.submit(pool, { ...named, kind });
      else if (kind === 'load') this.submit(pool, { ...named, kind, region, offset, bytes });
      else this.submit(pool, { ...named, kind, region, offset, bytes, replace, durable, fileMode });
    }
  }
  abandon(id: number): Abandoned {
    const operation = this.operations.get(id);
    if (operation === undefined) return { state: 'done', phase: 'queue', sinceUs: 0 };
    if (operation.abandoned) throw new Error(`operation ${id} was abandoned twice`);
    const { state, phase, sinceUs, found } = operation;
    if (state === 'queued') this.operations.delete(id);
    else {
      operation.abandoned = true;
      this.#endings.delete(id);
      this.#takeUp(operation.pool);
    }
    return found === undefined ? { state, phase, sinceUs } : { state, phase, sinceUs, found };
  }
  withdraw(id: number): boolean {
    return this.operations.get(id)?.state === 'queued' && this.operations.delete(id);
  }
  poolState(pool: number): PoolState {
    const own = [...this.operations.values()].filter((one) => one.pool === pool);
    const running = own.filter((one) => one.state !== 'queued');
    const wanted = running.filter((one) => !one.abandoned);
    return {
      queued: own.length - running.length,
      running: wanted.length,
      stuck: running.length - running.filter((one) => !one.abandoned && !one.stalled).length,
      lanes: running.length,
      oldestSinceUs: wanted[0]?.sinceUs ?? 0,
      oldestIds: wanted.slice(0, 8).map((one) => one.spec.id),
      runningBytes: wanted.reduce((sum, one) => sum + ('bytes' in one.spec ? one.spec.bytes : 0), 0),
    };
  }
  stuck(all = false): StuckCall[] {
    return this.inKernel().filter((one) => all || one.abandoned || one.stalled).map((one) => this.#call(one));
  }
  hardExit(): never {
    throw new Error('not in the fake');
  }
  watchParent(): void {}
  engineOf(pool: number): Engine {
    return this.fallenBack ?? this.pools[pool]!.engine;
  }

  #extraLanes(): number {
    const busy = this.inKernel();
    return this.pools.reduce((sum, { lanes, forProbes }, pool) => sum + (forProbes ? 0 : Math.max(0, busy.filter((one) => one.pool === pool).length - lanes)), 0);
  }

  #takeUp(pool: number): void {
    const { lanes, limit, forProbes } = this.pools[pool]!;
    for (const operation of this.operations.values()) {
      if (operation.pool !== pool || operation.state !== 'queued') continue;
      const busy = this.inKernel().filter((one) => one.pool === pool);
      const alive = busy.filter((one) => !one.abandoned && !one.stalled).length;
      if (alive >= lanes || busy.length >= lanes + limit) return;
      if (busy.length >= lanes && !forProbes && this.#extraLanes() >= this.stuckProcessMax) return;
      if (operation.spec.deadlineUs !== 0 && this.#clock.nowUs() >= operation.spec.deadlineUs) {
        this.operations.delete(operation.spec.id); // as a lane does: taken out, not begun
        this.#events.push({
          type: 'done', id: operation.spec.id, status: 'expired', errno: 0, phase: 'queue', kernelUs: 0, kernelUsKnown: true, uncached: false, kept: false, storedBytes: 0, inode: '', text: '', late: false,
        });
        continue;
      }
      operation.state = 'running';
      operation.phase = FIRST_PHASE[operation.spec.kind];
      operation.sinceUs = this.#clock.nowUs();
      const ending = this.onSubmit(operation.spec);
      if (ending !== null) this.#endings.set(operation.spec.id, ending);
    }
  }

  #call(operation: FakeOperation): StuckCall {
    const { spec, pool, phase, sinceUs, abandoned } = operation;
    return {
      id: spec.id, pool, kind: spec.kind, tid: 4000 + spec.id, phase, syscall: 'preadv', sinceUs, forUs: this.#clock.nowUs() - sinceUs, abandoned,
      namespace: 'namespace' in spec ? spec.namespace : '', hex: 'hex' in spec ? spec.hex : '',
    };
  }
}
