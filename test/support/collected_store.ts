// collected_store.ts — a store in memory as collectors see it: listings, the lease, removals under a fence.
//
// Any number of collectors share one, each on a clock of its own if a test wants that. A lane answers at the next turn, or,
// where the test holds it, when the test lets it.
import type { Ask, AskAnswer, CollectorLane } from '../../sidecar/collector_lane.ts';
import { Collector, type CollectorTimes } from '../../sidecar/collector.ts';
import { Deadlines } from '../../sidecar/deadlines.ts';
import { manualClock, type ManualClock } from './manual_clock.ts';

export interface StoredFile {
  allocatedBytes: number;
  modifiedNs: bigint;
  changedNs: bigint;
  inode: string;
}

/** Of one listing: few, so that most take several. */
const ENTRIES_MAX = 20;

export class CollectedStore {
  /** Path below the root → file. */
  readonly files = new Map<string, StoredFile>();
  readonly lease = new Map<number, { content: string; modifiedNs: bigint }>();
  /** When each was last told, by the file system's clock; made with the lease. */
  readonly signs = new Map<string, bigint>();
  /** The holders are of a version that knows no signs. */
  signless = false;
  /** The file system's own clock. */
  nowNs: () => bigint;
  totalBytes = 1 << 30;
  removed: { path: string; by: string; atUs: number }[] = [];
  /** What a listing of this path is answered instead. */
  readonly unlistable = new Map<string, AskAnswer>();
  #inode = 100;

  constructor(clock: { nowUs(): number }) {
    this.nowNs = () => BigInt(Math.round(clock.nowUs())) * 1000n + 1_700_000_000_000_000_000n;
  }

  /** `ageS` by the file system's clock; negative: from the future. */
  block(namespace: string, hex: string, ageS: number, allocatedBytes = 1 << 20): string {
    return this.file(`blocks/${namespace}/${hex.slice(0, 2)}/${hex}.kvb`, ageS, allocatedBytes);
  }

  file(path: string, ageS: number, allocatedBytes = 4096): string {
    const modifiedNs = this.nowNs() - BigInt(Math.round(ageS * 1e9));
    this.#inode += 1;
    this.files.set(path, { allocatedBytes, modifiedNs, changedNs: modifiedNs, inode: String(this.#inode) });
    return path;
  }

  blocks(): string[] {
    return [...this.files.keys()].filter((path) => path.endsWith('.kvb')).map((path) => path.slice(path.lastIndexOf('/') + 1, -4)).sort();
  }

  usedBytes(): number {
    let used = 0;
    for (const [path, { allocatedBytes }] of this.files) if (path.endsWith('.kvb')) used += allocatedBytes;
    return used;
  }

  do(ask: Ask, by: string, atUs: number): AskAnswer {
    switch (ask.kind) {
      case 'lease':
        return this.#lease(ask.step);
      case 'sign':
        return this.#sign(ask.action, ask.sign);
      case 'list':
        return this.unlistable.get(ask.path) ?? this.#list(ask.path, ask.cookie);
      case 'remove': {
        const { namespace, hex, inode, modifiedNs } = ask.block;
        return this.#remove(`blocks/${namespace}/${hex.slice(0, 2)}/${hex}.kvb`, ask.fence, by, atUs, (file) => file.inode === inode && String(file.modifiedNs) === modifiedNs);
      }
      case 'remove_file':
        return this.#remove(ask.leftover.path, ask.fence, by, atUs, (file) => file.inode === ask.leftover.inode && String(file.changedNs) === ask.leftover.changedNs);
    }
  }

  #highest(): number {
    return Math.max(0, ...this.lease.keys());
  }

  #lease(step: Extract<Ask, { kind: 'lease' }>['step']): AskAnswer {
    const highest = this.#highest();
    if (step.action === 'look') return ok(this.#leaseText(highest, false));
    if (step.action === 'take') {
      if (this.lease.has(step.number)) return not('fenced');
      for (const number of this.lease.keys()) if (number < step.number - 1) this.lease.delete(number);
    } else if (step.number !== highest) return not('fenced');
    if (!this.signless) for (const sign of ['want', 'made']) if (!this.signs.has(sign)) this.signs.set(sign, this.nowNs());
    this.lease.set(step.number, { content: step.action === 'leave' ? 'left' : step.text, modifiedNs: this.nowNs() });
    return ok(this.#leaseText(step.number));
  }

  #sign(action: 'listen' | 'tell', sign: string): AskAnswer {
    if (action === 'tell') {
      if (!this.signs.has(sign)) return refused('ENOENT');
      this.signs.set(sign, this.nowNs());
    }
    return ok(JSON.stringify({ number: 0, modified_ns: String(this.signs.get(sign) ?? 0n) }));
  }

  #leaseText(number: number, isOurs = true): string {
    const file = this.lease.get(number);
    return JSON.stringify({ number, content: file?.content ?? '', modified_ns: String(file?.modifiedNs ?? 0n), ...(isOurs ? { total_bytes: this.totalBytes } : {}) });
  }

  #list(path: string, cookie: string): AskAnswer {
    const names = new Map<string, StoredFile | null>();
    for (const [name, file] of this.files) {
      if (!name.startsWith(`${path}/`)) continue;
      const rest = name.slice(path.length + 1);
      const slash = rest.indexOf('/');
      names.set(slash < 0 ? rest : rest.slice(0, slash), slash < 0 ? file : null);
    }
    if (names.size === 0) return not('not_found');
    const from = cookie === '' ? 0 : Number(cookie);
    const lines = [...names].slice(from, from + ENTRIES_MAX).map(([name, file]) => (file === null ? `d 4096 4096 0 0 1 ${name}` : `f ${file.allocatedBytes} ${file.allocatedBytes} ${file.modifiedNs} ${file.changedNs} ${file.inode} ${name}`));
    return ok([from + ENTRIES_MAX < names.size ? String(from + ENTRIES_MAX) : '-', ...lines].join('\n'));
  }

  #remove(path: string, fence: string, by: string, atUs: number, same: (file: StoredFile) => boolean): AskAnswer {
    const file = this.files.get(path);
    if (file === undefined) return not('not_found');
    if (!same(file)) return { ...ok(''), kept: true };
    if (this.lease.has(Number(fence.slice('collector/'.length)))) return not('fenced');
    this.files.delete(path);
    this.removed.push({ path, by, atUs });
    return ok('');
  }
}

export function ok(text: string): AskAnswer {
  return { status: 'ok', text, kept: false, error: '', why: '' };
}

export function not(status: AskAnswer['status'], why: string = status): AskAnswer {
  return { status, text: '', kept: false, error: '', why };
}

export function refused(error: string): AskAnswer {
  return { ...not('io_error', error), error };
}

/** One sidecar's collector, with its lane in the test's hand. */
export class Collecting implements CollectorLane {
  readonly name: string;
  readonly clock: ManualClock;
  readonly collector: Collector;
  readonly deadlines: Deadlines;
  readonly asked: Ask[] = [];
  readonly said: { event: string; fields: object }[] = [];
  hindrance = '';
  busy = new Set<string>();
  /** Asks of these kinds wait until the test says so. */
  hold = new Set<Ask['kind']>();
  waiting: { ask: Ask; deadlineUs: number } | null = null;
  /** Called before an ask is carried out. */
  before: (ask: Ask) => void = () => {};
  #store: CollectedStore;
  #tookUs: number;

  /** `tookUs`: what each call takes. */
  constructor(store: CollectedStore, limit: number | ((totalBytes: number | null) => number | null), options: { name?: string; clock?: ManualClock; times?: CollectorTimes; tookUs?: number } = {}) {
    this.name = options.name ?? 'one';
    this.clock = options.clock ?? manualClock();
    this.#store = store;
    this.#tookUs = options.tookUs ?? 100;
    this.deadlines = new Deadlines(this.clock);
    this.collector = new Collector({
      lane: this, deadlines: this.deadlines, owner: this.name,
      limitBytes: typeof limit === 'number' ? () => limit : limit,
      say: (_level, event, fields) => void this.said.push({ event, fields }),
      ...(options.times === undefined ? {} : { times: options.times }),
    });
    const before = this.clock.onTimer;
    this.clock.onTimer = () => {
      before();
      this.turn(() => this.deadlines.fired());
    };
  }

  start(): this {
    this.turn(() => this.collector.start(this.clock.nowUs()));
    return this;
  }

  turn(work: (nowUs: number) => void): void {
    work(this.clock.nowUs());
    this.deadlines.ringDue(this.clock.nowUs());
    this.deadlines.arm();
  }

  obstacle(): string {
    return this.hindrance;
  }

  isBusy(namespace: string, hex: string): boolean {
    return this.busy.has(`${namespace}/${hex}`);
  }

  ask(ask: Ask, deadlineUs: number, nowUs: number): void {
    if (this.waiting !== null) throw new Error('two calls at once');
    this.asked.push(ask);
    this.waiting = { ask, deadlineUs };
    if (this.hold.has(ask.kind)) return;
    const ring = (): void => {
      if (this.waiting?.ask === ask) this.let(); // unless the test was first
    };
    this.deadlines.set({ atUs: 0, heapIndex: -1, ring }, nowUs + this.#tookUs);
  }

  /** The call is carried out now, or ends as said. */
  let(answer?: AskAnswer): void {
    const { ask, deadlineUs } = this.waiting!;
    const nowUs = this.clock.nowUs();
    this.before(ask);
    const ended = answer ?? (nowUs >= deadlineUs ? not('expired') : this.#store.do(ask, this.name, nowUs));
    this.waiting = null;
    this.turn(() => this.collector.answered(ended, nowUs));
  }

  picture(): Record<string, unknown> {
    return this.collector.picture(this.clock.nowUs()) as Record<string, unknown>;
  }

  asks<Kind extends Ask['kind']>(kind: Kind): Extract<Ask, { kind: Kind }>[] {
    return this.asked.filter((ask): ask is Extract<Ask, { kind: Kind }> => ask.kind === kind);
  }
}
