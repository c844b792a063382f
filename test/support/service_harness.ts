// service_harness.ts — the whole policy half on a clock moved by hand and lanes released by hand.
import type { OpSpec } from '../../native/index.ts';
import type { Answer, Event, FailedEntry, MountInfo } from '../../protocol/messages.ts';
import type { LoadRequest, LookupRequest, NamespaceRequest, RemoveRequest, Request, StoreRequest } from '../../protocol/request.ts';
import type { MountTable } from '../../sidecar/mount_table.ts';
import { createService } from '../../sidecar/service.ts';
import type { Service, ServiceOptions } from '../../sidecar/service_types.ts';
import { FakeNative, type Ending } from './fake_native.ts';
import { manualClock, type ManualClock } from './manual_clock.ts';

export const STORE_ID = '0123456789abcdef0123456789abcdef';
export const MS = 1000;

export interface Harness {
  clock: ManualClock;
  native: FakeNative;
  service: Service;
  /** Everything that was sent, in order. */
  sent: (Answer | Event)[];
  shutdowns: number[];
  /** What the kernel's list of mounts says; '' for nothing. */
  mountTable: { text: string; reads: number };
  /** Brings what happened in the lanes to the service, until nothing more happens. */
  deliver(): void;
  /** Moves time on, delivering timers and whatever the lanes do meanwhile. */
  advance(ms: number): void;
  answer(id: number | string): Answer;
  answers(id: number | string): Answer[];
  failed(id: number | string): FailedEntry[];
  events<K extends Event['event']>(kind: K): Extract<Event, { event: K }>[];
  store(id: number | string, slots: (number | null)[], more?: { hexes?: string[]; replace?: boolean; timeoutMs?: number; deadlineUs?: number; texts?: string[]; mount?: string; bytes?: number }): void;
  load(id: number | string, slots: (number | null)[], more?: { hexes?: string[]; timeoutMs?: number; deadlineUs?: number; mount?: string; bytes?: number | null }): void;
  lookup(id: number | string, hexes: string[], more?: { timeoutMs?: number }): void;
  remove(id: number | string, hexes: string[], more?: { timeoutMs?: number }): void;
  ask(request: Partial<Request> & { op: Request['op']; id: number | string }): void;
}

/** `fsType`: one on which nothing is recycled, nor looked for what others left. */
export function identity(device = '254:1', storeId = STORE_ID, fsType = 'fuse'): Ending {
  return { text: JSON.stringify({ store_id: storeId, device, fs_type: fsType, direct: true, created: false }) };
}

/** Identifies mounts and answers nothing else by itself. */
export function identifies(spec: OpSpec): Ending | null {
  return spec.kind === 'identify' ? identity() : null;
}

export function harness(options: Partial<ServiceOptions> = {}, onSubmit: (spec: OpSpec) => Ending | null = identifies): Harness {
  const clock = manualClock();
  const native = new FakeNative(clock);
  native.onSubmit = onSubmit;
  if (options.stuckProcessMax !== undefined) native.stuckProcessMax = options.stuckProcessMax;
  const sent: (Answer | Event)[] = [];
  const shutdowns: number[] = [];
  const mountTable = { text: '', reads: 0 };
  const table: MountTable = {
    read(take) {
      mountTable.reads += 1;
      tableReads.push(() => take(mountTable.text));
    },
  };
  const tableReads: (() => void)[] = [];
  const quiet = { info() {}, warn() {}, error() {} };
  const service = createService(
    { native, clock, send: (message) => void sent.push(message), log: quiet, mountTable: table, onShutdown: (timeoutMs) => void shutdowns.push(timeoutMs) },
    {
      mounts: [{ name: 'kv0', root: '/mnt/kv0', create: false }],
      slotBytes: 65536, slots: 128, timeoutMs: 2000, stallMs: 1000, engine: 'threads', lanes: 4, stuckMax: 16, stuckProcessMax: 64, fsync: false, fileMode: 0o600, recycle: 'off', tidy: true, capacity: new Map(), collectorHaste: 1, indexMs: 0, holdBreakerClosed: false,
      ...options,
    },
  );
  let line = 0;
  const deliver = (): void => {
    for (;;) {
      for (const read of tableReads.splice(0)) read();
      const batch = native.takeEvents();
      if (batch.length === 0) return;
      service.onNative(batch);
    }
  };
  clock.onTimer = () => {
    service.onNative([{ type: 'timer' }]);
    deliver();
  };
  const head = (id: number | string, more: { timeoutMs?: number; deadlineUs?: number; mount?: string } = {}) => {
    line += 1;
    return {
      id, line, mount: more.mount ?? 'kv0',
      ...(more.timeoutMs === undefined ? {} : { timeoutMs: more.timeoutMs }),
      ...(more.deadlineUs === undefined ? {} : { deadlineUs: more.deadlineUs }),
    };
  };
  const namesOf = (count: number, hexes?: string[]) => {
    const all = hexes ?? Array.from({ length: count }, (_, i) => i.toString(16).padStart(4, '0'));
    return { namespaces: all.map(() => 'demo'), hexes: all };
  };
  const self: Harness = {
    clock, native, service, sent, shutdowns, mountTable, deliver,
    advance(ms) {
      clock.advance(ms);
      deliver();
    },
    answers: (id) => sent.filter((message): message is Answer => 'id' in message && message.id === id),
    answer(id) {
      const all = self.answers(id);
      if (all.length !== 1) throw new Error(`${all.length} answers to ${id}`);
      return all[0]!;
    },
    failed: (id) => (self.answer(id) as { failed?: FailedEntry[] }).failed ?? [],
    events: <K extends Event['event']>(kind: K) => sent.filter((message): message is Extract<Event, { event: K }> => 'event' in message && message.event === kind),
    store(id, slots, more = {}) {
      const bytes = slots.map((_, i) => more.texts?.[i]?.length ?? more.bytes ?? 4096);
      const inlineData = more.texts === undefined ? null : more.texts.map((text) => Buffer.from(text));
      service.handle({ ...head(id, more), op: 'store', blocks: { ...namesOf(slots.length, more.hexes), slots, bytes, inlineData }, replace: more.replace ?? false } satisfies StoreRequest);
    },
    load(id, slots, more = {}) {
      const bytes = slots.map(() => (more.bytes === undefined ? 4096 : more.bytes));
      service.handle({ ...head(id, more), op: 'load', blocks: { ...namesOf(slots.length, more.hexes), slots, bytes }, inline: slots[0] === null } satisfies LoadRequest);
    },
    lookup(id, hexes, more = {}) {
      service.handle({ ...head(id, more), op: 'lookup', blocks: namesOf(0, hexes) } satisfies LookupRequest);
    },
    remove(id, hexes, more = {}) {
      service.handle({ ...head(id, more), op: 'remove', blocks: namesOf(0, hexes) } satisfies RemoveRequest);
    },
    ask(request) {
      line += 1;
      service.handle({ line, ...request } as Request);
    },
  };
  return self;
}

/** A harness whose mounts have been identified. */
export async function started(options: Partial<ServiceOptions> = {}, onSubmit?: (spec: OpSpec) => Ending | null): Promise<Harness & { ready: MountInfo[] }> {
  const made = harness(options, onSubmit);
  const start = made.service.start();
  made.deliver();
  return Object.assign(made, { ready: await start });
}

export type { NamespaceRequest };
