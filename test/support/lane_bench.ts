// lane_bench.ts — the addon alone, without a sidecar: one operation after the other on a real directory, each awaited.
import { loadNative, type Engine, type Native, type NativeEvent, type OpSpec } from '../../native/index.ts';
import { within } from './sidecar_process.ts';

export type Ended = Extract<NativeEvent, { type: 'done' }>;
type OfStore = 'id' | 'mount' | 'rootGeneration' | 'deadlineUs';
/** An OpSpec without what the bench adds. */
export type Ask = OpSpec extends infer One ? (One extends OpSpec ? Omit<One, OfStore> : never) : never;

const PAGE = 4096;
/** Fixed before the first operation: an addon maps its arena once. */
const ARENA_BYTES = 4 * 1024 * 1024;

export class LaneBench {
  readonly native: Native = loadNative();
  #pools = new Map<Engine, number>();
  #waiting = new Map<number, (done: Ended) => void>();
  #nextId = 1;

  constructor() {
    this.native.start({ stallUs: 1_000_000, stuckProcessMax: 64 }, (batch) => {
      for (const event of batch) {
        if (event.type !== 'done') continue;
        this.#waiting.get(event.id)?.(event);
        this.#waiting.delete(event.id);
      }
    });
    this.native.createArena(ARENA_BYTES, { hugePages: 'off', bounce: 'none' });
  }

  /** A store in this directory, made if it is not there. */
  async store(root: string, engine: Engine): Promise<Store> {
    const mount = this.native.addMount(root);
    const store = new Store(this, mount, engine);
    const made = await store.run({ kind: 'identify', create: true, fileMode: 0o600 });
    this.native.setMountIdentity(mount, (JSON.parse(made.text) as { store_id: string }).store_id);
    return store;
  }

  pool(engine: Engine): number {
    let pool = this.#pools.get(engine);
    if (pool === undefined) {
      this.#pools.set(engine, (pool = this.native.createPool({ laneClass: 'metadata', lanes: 4, engine, forProbes: false })));
      this.native.setStuckLimit(pool, 16);
    }
    return pool;
  }

  /** Lets go of all directories, so that their file systems can be unmounted. */
  async rest(): Promise<void> {
    for (const pool of this.#pools.values()) this.native.closePool(pool);
    const gone = (async () => {
      while ([...this.#pools.values()].some((pool) => this.native.poolState(pool).lanes > 0)) await new Promise((go) => setTimeout(go, 3));
    })();
    await within(gone, () => 'lanes have not left their pool');
    this.#pools.clear();
  }

  /** The id, to abandon it by, and how it ends. */
  begin(engine: Engine, mount: number, ask: Ask, deadlineUs = 0): { id: number; ended: Promise<Ended> } {
    const id = this.#nextId;
    this.#nextId += 1;
    const ended = new Promise<Ended>((done) => this.#waiting.set(id, done));
    this.native.submit(this.pool(engine), { id, mount, rootGeneration: 1, deadlineUs, ...ask } as OpSpec);
    return { id, ended: within(ended, () => `operation ${id}, ${ask.kind}, has not ended`) };
  }
}

export class Store {
  readonly #bench: LaneBench;
  readonly #mount: number;
  readonly #engine: Engine;
  constructor(bench: LaneBench, mount: number, engine: Engine) {
    this.#bench = bench;
    this.#mount = mount;
    this.#engine = engine;
  }

  begin(ask: Ask, deadlineUs = 0): { id: number; ended: Promise<Ended> } {
    return this.#bench.begin(this.#engine, this.#mount, ask, deadlineUs);
  }

  run(ask: Ask): Promise<Ended> {
    return this.begin(ask).ended;
  }

  put(namespace: string, hex: string, bytes = PAGE): Promise<Ended> {
    return this.run({ kind: 'store', namespace, hex, region: 0, offset: 0, bytes, replace: true, durable: false, fileMode: 0o600 });
  }
}
