// calls.ts — what an operation is to the kernel: its calls one after the other, what each does to the disk, and what it finds.
//
// The same order as in native/core: a root is opened and compared where the lane does not have it yet, and a name changes in
// the last call. What the deadline or a caller that gave up means between two of them is in native.ts.
import type { NativeEvent, NativeStatus, OpSpec, Phase } from '../../native/index.ts';
import { LANE_CLASSES } from '../../protocol/messages.ts';
import type { NamespaceRecord } from './disk.ts';
import type { Seated } from './lanes.ts';
import type { Random } from './random.ts';
import { Broken, type Story } from './story.ts';

type Done = Extract<NativeEvent, { type: 'done' }>;

export interface Call {
  phase: Phase;
  /** It takes up to this where nothing is slow. */
  mostUs: number;
  /** The name changes in it. */
  commits: boolean;
  /** With aio: the lane's thread is in it. Otherwise the kernel is, and the lane takes up others. */
  holdsThread: boolean;
}

const EIO = 5;
const ENOSPC = 28;
const EROFS = 30;
const ESTALE = 116;
export const ERRNOS = [EIO, ENOSPC, EROFS, 13 /* EACCES */, 107 /* ENOTCONN */, ESTALE] as const;
const STATS_MAX = 4;

/** Made once for each kind and each variant of it. */
const READY = new Map<OpSpec['kind'], (readonly Call[])[]>();

export function callsOf(spec: OpSpec, afresh: boolean, aio: boolean): readonly Call[] {
  let variant = 0;
  if (spec.kind === 'store') variant = spec.durable ? 1 : 0;
  else if (spec.kind === 'lookup') variant = Math.min(STATS_MAX, spec.names.length);
  else if (spec.kind === 'probe') variant = LANE_CLASSES.indexOf(spec.probeClass);
  let variants = READY.get(spec.kind);
  if (variants === undefined) READY.set(spec.kind, (variants = []));
  return (variants[4 * variant + (afresh ? 2 : 0) + (aio ? 1 : 0)] ??= made(spec, afresh, aio));
}

function made(spec: OpSpec, afresh: boolean, aio: boolean): Call[] {
  const call = (phase: Phase, mostUs: number, commits = false): Call => ({ phase, mostUs, commits, holdsThread: !(aio && (phase === 'read' || phase === 'write' || phase === 'fsync')) });
  const opened = afresh ? [call('open', 60)] : [];
  switch (spec.kind) {
    case 'load':
      return [...opened, call('open', 30), call('header', 20), call('read', 300)];
    case 'store':
      return [...opened, call('open', 60), call('write', 300), ...(spec.durable ? [call('fsync', 900)] : []), call('close', 10), call('rename', 60, true)];
    case 'remove':
      return [...opened, call('unlink', 60, true)];
    case 'aside':
      return [...opened, call('stat', 20), call('rename', 60, true)];
    case 'lookup':
      return [...opened, ...Array.from({ length: Math.min(STATS_MAX, spec.names.length) }, () => call('stat', 40))];
    case 'identify':
      return [call('open', 60), call('read', 60)];
    case 'namespace':
      return [...opened, call('read', 60), call('rename', 60, true)];
    case 'tidy':
      return [...opened, call('stat', 60), call('unlink', 60)];
    case 'list':
    case 'touch':
      return [...opened, call('open', 30), call('stat', 60)];
    case 'verify':
      return [...opened, call('open', 30), call('read', 300)];
    case 'remove_file':
      return [...opened, call('open', 30), call('stat', 20), call('unlink', 60, true)];
    case 'lease':
      return [...opened, call('open', 60), call('write', 60), call('rename', 60, true)];
    case 'probe':
      return [call('open', 60), spec.probeClass === 'load' ? call('read', 100) : spec.probeClass === 'store' ? call('write', 100) : call('stat', 60)];
  }
}

export interface Kernel {
  nowUs(): number;
  random(): Random;
  story: Story;
  slotBytes: number;
  memory: string[];
  staging: Map<number, string>;
  /** The store that the mount is to be; null: not known yet. */
  identities: (string | null)[];
  /** The kernel writes to or reads from this slot now. */
  touched(slot: number, spec: OpSpec): void;
  /** A store's bytes became visible under its name. */
  published(tag: string, key: string): void;
}

/** How an operation ends. */
export interface Finding {
  status: NativeStatus;
  errno: number;
  more: Partial<Done>;
}

const NOTHING = {};

function found(status: NativeStatus, more: Partial<Done> = NOTHING): Finding {
  return { status, errno: 0, more };
}

/** What the call that has just returned did. Null: the next one is to be made. */
export function effectOf(one: Seated, kernel: Kernel): Finding | null {
  const { spec } = one;
  const fileSystem = one.fileSystem!;
  const { laneClass } = one.pool.options;
  const call = one.calls[one.at]!;
  const errno = fileSystem.errno[laneClass];
  if (errno !== 0 && !(errno === ENOSPC && laneClass === 'load') && kernel.random().below(3) > 0) {
    kernel.story.saw('fault errno', String(errno));
    return { status: errno === ENOSPC ? 'no_space' : 'io_error', errno, more: NOTHING };
  }
  const { store } = fileSystem;
  if (spec.kind === 'identify') {
    if (call.phase === 'open') return null;
    return store === null ? found('not_found') : found('ok', { text: JSON.stringify({ store_id: store.id, device: fileSystem.label, fs_type: fileSystem.type, direct: true, created: false }) });
  }
  if (one.at === 0 && call.phase === 'open' && (store === null || store.id !== kernel.identities[spec.mount])) {
    one.lane!.roots.delete(spec.mount);
    kernel.story.saw('fault wrong store');
    return found('wrong_store');
  }
  if (one.at === 0 && one.opensRoot) one.lane!.roots.set(spec.mount, { generation: (spec as { rootGeneration: number }).rootGeneration, fileSystem });
  if (store === null) return { status: 'io_error', errno: ESTALE, more: NOTHING }; // a root that was opened while it was something else
  switch (spec.kind) {
    case 'load': {
      const version = store.current(one.key);
      const last = one.at === one.calls.length - 1;
      if (version.state === 'absent' && !last) return found('not_found', { uncached: kernel.random().oneIn(2) });
      if (!last) return null;
      // The bytes land, whoever still wants them.
      const lands = version.state === 'whole' && version.bytes === spec.bytes && !one.abandoned ? version.tag : `late or unfit ${spec.id}`;
      if (spec.region === 0) {
        kernel.touched(spec.offset / kernel.slotBytes, spec);
        kernel.memory[spec.offset / kernel.slotBytes] = lands;
      } else kernel.staging.set(spec.offset, lands);
      if (version.state === 'absent') return found('not_found');
      if (version.state === 'newer') return found('newer_format', { text: 'a later version wrote it' });
      if (version.state !== 'whole') return found('corrupt', { inode: version.state === 'damaged' ? inodeText(version.inode) : '', text: 'the checksum does not fit' });
      if (version.bytes !== spec.bytes) return found('length_mismatch', { storedBytes: version.bytes });
      return null;
    }
    case 'store':
      if (call.phase === 'write') {
        if (spec.region === 0) kernel.touched(spec.offset / kernel.slotBytes, spec);
        one.written = contentsOf(spec, kernel);
        if (one.written !== one.given) throw new Broken('memory', `store ${spec.id} of ${one.key} wrote ${JSON.stringify(one.written)}, but ${JSON.stringify(one.given)} was handed over: its memory was changed while the kernel had it`);
      }
      if (call.phase === 'rename') {
        if (!spec.replace && store.current(one.key).state !== 'absent') return found('ok', { kept: true });
        kernel.published(one.written, one.key);
        store.put(one.key, 'whole', spec.bytes, one.written, kernel.nowUs());
      }
      return null;
    case 'remove':
      if (store.current(one.key).state === 'absent') return found('not_found', { uncached: false });
      store.put(one.key, 'absent', 0, '', kernel.nowUs());
      return null;
    case 'aside': {
      if (call.phase !== 'rename') return null;
      const version = store.current(one.key);
      if (inodeText(version.inode) !== spec.inode || version.state === 'absent') return found('not_found');
      store.put(one.key, 'absent', 0, '', kernel.nowUs());
      return null;
    }
    case 'lookup': {
      if (call.phase !== 'stat') return null;
      const calls = Math.min(STATS_MAX, spec.names.length);
      const upTo = Math.ceil((spec.names.length * (one.at + 1 - (one.calls.length - calls))) / calls);
      for (let i = 0; i < upTo; i += 1) one.found![i] ||= store.current(`${spec.namespace}/${spec.names[i]}`).state === 'absent' ? 1 : 2;
      return null;
    }
    case 'namespace':
      return call.phase === 'rename' ? recorded(spec, store.records, kernel.nowUs()) : null;
    default:
      return null;
  }
}

export function contentsOf(spec: OpSpec & { kind: 'load' | 'store' }, kernel: Pick<Kernel, 'memory' | 'staging' | 'slotBytes'>): string {
  return (spec.region === 0 ? kernel.memory[spec.offset / kernel.slotBytes] : kernel.staging.get(spec.offset)) ?? '';
}

function recorded(spec: OpSpec & { kind: 'namespace' }, records: Map<string, NamespaceRecord[]>, nowUs: number): Finding {
  let all = records.get(spec.namespace);
  if (all === undefined) records.set(spec.namespace, (all = []));
  const before = all.at(-1);
  let state = 'created';
  if (before !== undefined && !spec.bump) state = before.fingerprint === spec.fingerprint ? 'matches' : 'differs';
  if (state === 'created') all.push({ fingerprint: spec.fingerprint, fromUs: nowUs });
  const { fingerprint } = all.at(-1)!;
  return found('ok', { text: JSON.stringify({ state, generation: all.length, fingerprint: JSON.parse(fingerprint) as unknown }) });
}

// As native/core writes it: with the time of the last change.
function inodeText(inode: number): string {
  return `${inode}@1`;
}
