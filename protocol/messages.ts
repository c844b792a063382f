// messages.ts — what goes over the wire: types, codes, limits.
// Made by protocol/generate.mjs from protocol/protocol.json. Do not edit; run: npm run protocol:generate

export const PROTOCOL = 1;
export const VERSION = '0.1.0';

export const LIMITS = {
  /** bytes. One line without its newline. The largest request (blocks_max whole keys of key_bytes_max) takes about 0.8 MiB, the largest answer to it about 0.7 MiB. */
  line_bytes_max: 1048576,
  /** blocks. In one request. 64 Ki tokens at 16 a block; decoding takes a few milliseconds of the sidecar's only loop. */
  blocks_max: 4096,
  /** bytes. namespace/hex. Room for a 64-character name with a generation and a 256-bit hash, and 4096 of them still fit a line. */
  key_bytes_max: 160,
  /** characters. The name without its generation; a directory name on any file system. */
  namespace_chars_max: 64,
  /** digits. After the @ of a namespace: 32 bits of bumps. */
  generation_digits_max: 10,
  /** characters. The first two name the fan-out directory. */
  hex_chars_min: 2,
  /** characters. A 512-bit hash; lower case only, so that one block has one name. */
  hex_chars_max: 128,
  /** 2^53 - 1: what every JSON reader keeps exactly. Also the largest time in microseconds. */
  id_max: 9007199254740991,
  /** bytes. An id that is a string, in UTF-8. It is echoed, never interpreted. */
  id_bytes_max: 64,
  /** characters. Mount names stand in every message and log line. */
  mount_name_chars_max: 64,
  /** bytes. Of one block given as text or base64: for hands at a keyboard. Real blocks go through slots. */
  inline_bytes_max: 65536,
  /** blocks. Inline blocks in one request: the answer to an inline load fits one line. */
  inline_blocks_max: 8,
  /** bytes. A namespace's fingerprint as canonical JSON; it is kept in one small file. */
  fingerprint_bytes_max: 16384,
  /** levels. A fingerprint nests no deeper, so that comparing two is cheap. */
  fingerprint_depth_max: 16,
  /** entries. In one answer of list. A name of 255 control characters takes six bytes each in JSON, and so many of those still fit a line. */
  list_entries_max: 512,
  /** blocks. In one request of verify: each is read whole, and its finding may be a sentence. */
  verify_blocks_max: 256,
  /** characters. Of a path below a root that list or sweep is given; the longest that kvlane makes itself has 269. */
  path_chars_max: 320,
  /** ms. One hour, for timeout_ms and for how far ahead deadline_us may lie: more is a mistake of units. */
  timeout_ms_max: 3600000,
  /** ms. How long after the deadline a client waits for the sidecar's answer before it has the last word itself. */
  grace_ms: 20,
  /** ms. ready.now_us and the client's CLOCK_MONOTONIC further apart than this, beyond the start itself: not the same clock, the client refuses. */
  clock_skew_ms_max: 1000,
  /** characters. How much of a bad value an error message repeats. */
  quoted_chars_max: 60,
} as const;

/** Unique while unanswered, free afterwards. */
export type Id = number | string;

export type Code = 'INVALID_REQUEST' | 'LINE_TOO_LONG' | 'UNKNOWN_OP' | 'DUPLICATE_ID' | 'NOT_FOUND' | 'CORRUPT' | 'LENGTH_MISMATCH' | 'DEADLINE_EXCEEDED' | 'CANCELLED' | 'MOUNT_SUSPENDED' | 'SATURATED' | 'KEY_BUSY' | 'WRONG_STORE' | 'IO_ERROR' | 'NO_SPACE' | 'SLOT_BUSY' | 'SHUTTING_DOWN';

export type Op = 'store' | 'load' | 'lookup' | 'remove' | 'namespace' | 'list' | 'verify' | 'sweep' | 'cancel' | 'stats' | 'stuck' | 'ping' | 'help' | 'shutdown';

export type Phase = 'queue' | 'open' | 'stat' | 'header' | 'read' | 'write' | 'fsync' | 'rename' | 'unlink' | 'close';

export type LaneClass = 'load' | 'store' | 'metadata';

export type MountState = 'unknown' | 'ok' | 'suspended' | 'probing';

export type SlotWord = 'free' | 'quarantined';

export type IfExists = 'keep' | 'replace';

export type CancelState = 'cancelled' | 'already_settled' | 'unknown';

export type NamespaceState = 'created' | 'matches' | 'differs';

/** Not followed. escaped: the name has a control character or is not UTF-8, and is told with % and two hex digits for what is no visible ASCII; kvlane makes no such name. */
export type EntryType = 'file' | 'directory' | 'link' | 'other' | 'escaped';

/** unknown: it was not read to its end; code says why. */
export type BlockFinding = 'sound' | 'corrupt' | 'newer_format' | 'not_found' | 'unknown';

/** changed: it is not the file that was listed any more, and was left alone. */
export type SweepState = 'removed' | 'changed' | 'absent';

/** As observed. thp: shared memory that lies on transparent huge pages, all of it. */
export type Backing = 'hugetlb' | 'thp' | 'shmem';

/** namespace/hex */
export type Key = string;

/** A hex beside a namespace field, a whole key without one. */
export type KeyOrHex = string;

export type NamespaceWithGeneration = string;

export type NamespaceName = string;

export type MountName = string;

/** From the moment the line was read. */
export type TimeoutMs = number;

/** CLOCK_MONOTONIC in microseconds. */
export type DeadlineUs = number;

export type Slot = number;

export type Bytes = number;

export type Fingerprint = Record<string, unknown>;

export type Keys = KeyOrHex[];

export type Slots = Slot[];

/** One number for all blocks, or one each. */
export type BytesColumn = number | Bytes[];

/** Either slot and bytes, or text, or base64. */
export interface StoreBlock {
  key: Key;
  slot?: Slot | undefined;
  bytes?: Bytes | undefined;
  text?: string | undefined;
  base64?: string | undefined;
}

/** slot and bytes; in an inline load no slot, and bytes only to insist on a length. */
export interface LoadBlock {
  key: Key;
  slot?: Slot | undefined;
  bytes?: Bytes | undefined;
}

export interface ErrorBody {
  code: Code;
  message: string;
  errno?: string | undefined;
}

/** What went wrong with one block (block), or in the same way with several (blocks: inclusive ranges). */
export interface FailedEntry {
  block?: number | undefined;
  blocks?: Range[] | undefined;
  code: Code;
  phase?: Phase | undefined;
  waited_ms?: number | undefined;
  slot?: SlotWord | undefined;
  errno?: string | undefined;
  message?: string | undefined;
  outcome?: 'unknown' | undefined;
  stored_bytes?: number | undefined;
}

/** First and last, both included. */
export type Range = number[];

/** base64 where the bytes are not UTF-8 text. */
export interface InlineBlock {
  block: number;
  bytes: number;
  text?: string | undefined;
  base64?: string | undefined;
}

/** One name in a directory of the store. Sizes and times beyond 2^53 - 1 are told as that; inode and changed_ns are exact, for sweep. */
export interface ListEntry {
  name: string;
  type: EntryType;
  bytes: number;
  allocated_bytes: number;
  modified_ms: number;
  changed_ms: number;
  inode: string;
  changed_ns: string;
}

/** What one block is, as it was read just now. Nothing was changed. */
export interface VerifiedBlock {
  finding: BlockFinding;
  stored_bytes?: number | undefined;
  created_ms?: number | undefined;
  writer?: string | undefined;
  code?: Code | undefined;
  phase?: Phase | undefined;
  errno?: string | undefined;
  message?: string | undefined;
}

/** One call in the kernel: over stall_ms, or settled and not returned yet. */
export interface StuckEntry {
  mount: string;
  class: LaneClass;
  kind?: string | undefined;
  phase: Phase;
  key?: string | undefined;
  slot?: number | undefined;
  task?: Id | undefined;
  tid: number;
  syscall: string;
  since_us: number;
  for_ms: number;
  settled: boolean;
}

export interface ArenaFacts {
  owner: 'client' | 'sidecar';
  path: string;
  bytes: number;
  slot_bytes: number;
  slots: number;
  page_bytes: number;
  backing: Backing;
  huge_bytes?: number | undefined;
  advice?: string | undefined;
}

/** device is null until the mount has answered; mounts with equal devices share lanes. */
export interface MountInfo {
  name: string;
  root: string;
  device: string | null;
  state: MountState;
  store_id?: string | undefined;
  fs_type?: string | undefined;
  direct?: boolean | undefined;
  created?: boolean | undefined;
  code?: Code | undefined;
  reason?: string | undefined;
}

/** The table of limits, by name. */
export type Limits = Record<string, number>;

export type OpenObject = Record<string, unknown>;

export const CODES: readonly Code[] = ['INVALID_REQUEST', 'LINE_TOO_LONG', 'UNKNOWN_OP', 'DUPLICATE_ID', 'NOT_FOUND', 'CORRUPT', 'LENGTH_MISMATCH', 'DEADLINE_EXCEEDED', 'CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'WRONG_STORE', 'IO_ERROR', 'NO_SPACE', 'SLOT_BUSY', 'SHUTTING_DOWN'];

export const OPS: readonly Op[] = ['store', 'load', 'lookup', 'remove', 'namespace', 'list', 'verify', 'sweep', 'cancel', 'stats', 'stuck', 'ping', 'help', 'shutdown'];

export const PHASES: readonly Phase[] = ['queue', 'open', 'stat', 'header', 'read', 'write', 'fsync', 'rename', 'unlink', 'close'];

export const LANE_CLASSES: readonly LaneClass[] = ['load', 'store', 'metadata'];

export const MOUNT_STATES: readonly MountState[] = ['unknown', 'ok', 'suspended', 'probing'];

export const SLOT_WORDS: readonly SlotWord[] = ['free', 'quarantined'];

export const IF_EXISTSES: readonly IfExists[] = ['keep', 'replace'];

export const CANCEL_STATES: readonly CancelState[] = ['cancelled', 'already_settled', 'unknown'];

export const NAMESPACE_STATES: readonly NamespaceState[] = ['created', 'matches', 'differs'];

export const ENTRY_TYPES: readonly EntryType[] = ['file', 'directory', 'link', 'other', 'escaped'];

export const BLOCK_FINDINGS: readonly BlockFinding[] = ['sound', 'corrupt', 'newer_format', 'not_found', 'unknown'];

export const SWEEP_STATES: readonly SweepState[] = ['removed', 'changed', 'absent'];

export const BACKINGS: readonly Backing[] = ['hugetlb', 'thp', 'shmem'];

/** What each code means, and what the caller should do next. */
export const CODE_TABLE: Record<Code, { meaning: string; next: string }> = {
  INVALID_REQUEST: {
    meaning: "The line is not a request: not JSON, a field missing, unknown, out of range. The message says which field, what it must be and what it was.",
    next: "Mend the client; the same line never succeeds.",
  },
  LINE_TOO_LONG: {
    meaning: "A line of more than line_bytes_max; it was skipped up to its newline.",
    next: "Split the request.",
  },
  UNKNOWN_OP: {
    meaning: "No such operation; the message names the nearest one.",
    next: "Mend the client, or install matching versions.",
  },
  DUPLICATE_ID: {
    meaning: "The id belongs to a request that is not answered yet. The answer has id null, duplicate_of and line; the first request goes on.",
    next: "Mend the client: an id is free again once its answer came.",
  },
  NOT_FOUND: {
    meaning: "There is no such block (or only one of a newer format).",
    next: "A miss: recompute, and store it.",
  },
  CORRUPT: {
    meaning: "The file does not hold what its header promises, or is no block at all. No byte of it counts; the slot's contents are undefined.",
    next: "A miss: recompute, and store it.",
  },
  LENGTH_MISMATCH: {
    meaning: "A valid block of another length than asked; it is left alone.",
    next: "A miss for this layout. Check that the namespace's fingerprint covers whatever decides the block size.",
  },
  DEADLINE_EXCEEDED: {
    meaning: "Not finished in time; phase says where it was. The kernel may still be at work: the entry says whether the slot is free or quarantined.",
    next: "Treat a load as a miss and a store as not done. Do not touch a quarantined slot before slots_freed names it.",
  },
  CANCELLED: {
    meaning: "A cancel settled it.",
    next: "As for DEADLINE_EXCEEDED: mind the slot's state.",
  },
  MOUNT_SUSPENDED: {
    meaning: "The mount does not answer for this class of operation; refused at once, nothing was started.",
    next: "A miss, now. A mount event with state ok says when to use it again; no need to poll.",
  },
  SATURATED: {
    meaning: "No lane may be added: the cap of stuck calls, queued work or threads is reached. Nothing was started.",
    next: "A miss, now. Try again after a recovered or mount event, or with back-off.",
  },
  KEY_BUSY: {
    meaning: "An earlier store or remove of this key still sits in a name-changing call.",
    next: "Skip this store; a later one may succeed.",
  },
  WRONG_STORE: {
    meaning: "The directory is not the store that was there at the start: unmounted, remounted elsewhere, or never made.",
    next: "Miss. Mount it again (it is noticed within a second), or make a store with --create.",
  },
  IO_ERROR: {
    meaning: "The kernel refused; errno says how.",
    next: "Miss. Look at errno and the machine; retrying at once rarely helps.",
  },
  NO_SPACE: {
    meaning: "The file system is full or over quota; nothing half-visible was left.",
    next: "Stop storing for a while; loads still work.",
  },
  SLOT_BUSY: {
    meaning: "The slot is part of an unanswered request or quarantined. Nothing was started.",
    next: "Mend the client's leasing: a slot is free after its answer, or after slots_freed.",
  },
  SHUTTING_DOWN: {
    meaning: "The sidecar is leaving.",
    next: "Miss. Start a new sidecar with a new arena.",
  },
};

/** The fields each op takes. */
export const REQUEST_FIELDS: Record<Op, readonly string[]> = {
  store: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'blocks', 'namespace', 'keys', 'slots', 'bytes', 'if_exists'],
  load: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'blocks', 'namespace', 'keys', 'slots', 'bytes', 'inline'],
  lookup: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'namespace', 'keys'],
  remove: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'namespace', 'keys'],
  namespace: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'name', 'fingerprint', 'bump'],
  list: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'path', 'cookie', 'entries_max'],
  verify: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'namespace', 'keys'],
  sweep: ['id', 'op', 'mount', 'timeout_ms', 'deadline_us', 'path', 'inode', 'changed_ns'],
  cancel: ['id', 'op', 'task'],
  stats: ['id', 'op'],
  stuck: ['id', 'op', 'over_ms'],
  ping: ['id', 'op'],
  help: ['id', 'op'],
  shutdown: ['id', 'op', 'timeout_ms'],
};

export interface StoreMessage {
  id: Id;
  op: 'store';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  blocks?: StoreBlock[] | undefined;
  namespace?: NamespaceWithGeneration | undefined;
  keys?: Keys | undefined;
  slots?: Slots | undefined;
  bytes?: BytesColumn | undefined;
  if_exists?: IfExists | undefined;
}

export interface LoadMessage {
  id: Id;
  op: 'load';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  blocks?: LoadBlock[] | undefined;
  namespace?: NamespaceWithGeneration | undefined;
  keys?: Keys | undefined;
  slots?: Slots | undefined;
  bytes?: BytesColumn | undefined;
  inline?: boolean | undefined;
}

export interface LookupMessage {
  id: Id;
  op: 'lookup';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  namespace?: NamespaceWithGeneration | undefined;
  keys: Keys;
}

export interface RemoveMessage {
  id: Id;
  op: 'remove';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  namespace?: NamespaceWithGeneration | undefined;
  keys: Keys;
}

export interface NamespaceMessage {
  id: Id;
  op: 'namespace';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  name: NamespaceName;
  fingerprint: Fingerprint;
  bump?: boolean | undefined;
}

export interface ListMessage {
  id: Id;
  op: 'list';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  path: string;
  cookie?: string | undefined;
  entries_max?: number | undefined;
}

export interface VerifyMessage {
  id: Id;
  op: 'verify';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  namespace?: NamespaceWithGeneration | undefined;
  keys: Keys;
}

export interface SweepMessage {
  id: Id;
  op: 'sweep';
  mount?: MountName | undefined;
  timeout_ms?: TimeoutMs | undefined;
  deadline_us?: DeadlineUs | undefined;
  path: string;
  inode: string;
  changed_ns: string;
}

export interface CancelMessage {
  id: Id;
  op: 'cancel';
  task: Id;
}

export interface StatsMessage {
  id: Id;
  op: 'stats';
}

export interface StuckMessage {
  id: Id;
  op: 'stuck';
  over_ms?: number | undefined;
}

export interface PingMessage {
  id: Id;
  op: 'ping';
}

export interface HelpMessage {
  id: Id;
  op: 'help';
}

export interface ShutdownMessage {
  id: Id;
  op: 'shutdown';
  timeout_ms?: TimeoutMs | undefined;
}

export type RequestMessage =
  | StoreMessage
  | LoadMessage
  | LookupMessage
  | RemoveMessage
  | NamespaceMessage
  | ListMessage
  | VerifyMessage
  | SweepMessage
  | CancelMessage
  | StatsMessage
  | StuckMessage
  | PingMessage
  | HelpMessage
  | ShutdownMessage;

export interface RequestMessages {
  store: StoreMessage;
  load: LoadMessage;
  lookup: LookupMessage;
  remove: RemoveMessage;
  namespace: NamespaceMessage;
  list: ListMessage;
  verify: VerifyMessage;
  sweep: SweepMessage;
  cancel: CancelMessage;
  stats: StatsMessage;
  stuck: StuckMessage;
  ping: PingMessage;
  help: HelpMessage;
  shutdown: ShutdownMessage;
}

/** The whole request was refused. id is null when the line has none that can be read, or one that is taken (duplicate_of). */
export interface ErrorAnswer {
  id: number | string | null;
  ok: false;
  error: ErrorBody;
  duplicate_of?: Id | undefined;
  line?: number | undefined;
}

export interface StoreAnswer {
  id: Id;
  ok: boolean;
  done: number;
  kept?: number | undefined;
  failed?: FailedEntry[] | undefined;
}

export interface LoadAnswer {
  id: Id;
  ok: boolean;
  done: number;
  blocks?: InlineBlock[] | undefined;
  failed?: FailedEntry[] | undefined;
}

/** One entry a key; null: not known at the deadline. prefix counts the leading trues. */
export interface LookupAnswer {
  id: Id;
  ok: true;
  present: (boolean | null)[];
  prefix: number;
  complete: boolean;
}

export interface RemoveAnswer {
  id: Id;
  ok: boolean;
  done: number;
  failed?: FailedEntry[] | undefined;
}

/** key_namespace is what the client writes into its keys. fingerprint is the stored one. */
export interface NamespaceAnswer {
  id: Id;
  ok: true;
  state: NamespaceState;
  name: string;
  generation: number;
  key_namespace: string;
  fingerprint: Fingerprint;
}

/** Some of the names in one directory, in no order; cookie asks for those that follow, null: there are none. */
export interface ListAnswer {
  id: Id;
  ok: true;
  entries: ListEntry[];
  cookie: string | null;
}

/** One entry a key; complete is false where one is unknown. */
export interface VerifyAnswer {
  id: Id;
  ok: true;
  blocks: VerifiedBlock[];
  complete: boolean;
}

export interface SweepAnswer {
  id: Id;
  ok: true;
  state: SweepState;
}

export interface CancelAnswer {
  id: Id;
  ok: true;
  state: CancelState;
}

export interface StatsAnswer {
  id: Id;
  ok: true;
  stats: OpenObject;
}

export interface StuckAnswer {
  id: Id;
  ok: true;
  stuck: StuckEntry[];
  more?: number | undefined;
}

export interface PingAnswer {
  id: Id;
  ok: true;
  now_us: number;
}

export interface HelpAnswer {
  id: Id;
  ok: true;
  help: OpenObject;
}

export interface ShutdownAnswer {
  id: Id;
  ok: true;
}

export type Answer =
  | ErrorAnswer
  | StoreAnswer
  | LoadAnswer
  | LookupAnswer
  | RemoveAnswer
  | NamespaceAnswer
  | ListAnswer
  | VerifyAnswer
  | SweepAnswer
  | CancelAnswer
  | StatsAnswer
  | StuckAnswer
  | PingAnswer
  | HelpAnswer
  | ShutdownAnswer;

export interface Answers {
  error: ErrorAnswer;
  store: StoreAnswer;
  load: LoadAnswer;
  lookup: LookupAnswer;
  remove: RemoveAnswer;
  namespace: NamespaceAnswer;
  list: ListAnswer;
  verify: VerifyAnswer;
  sweep: SweepAnswer;
  cancel: CancelAnswer;
  stats: StatsAnswer;
  stuck: StuckAnswer;
  ping: PingAnswer;
  help: HelpAnswer;
  shutdown: ShutdownAnswer;
}

/** The first line, before anything is asked. timeout_ms and stall_ms are the defaults this sidecar runs with. */
export interface ReadyEvent {
  event: 'ready';
  protocol: number;
  version: string;
  pid: number;
  now_us: number;
  engine: string;
  timeout_ms: number;
  stall_ms: number;
  arena: ArenaFacts;
  mounts: MountInfo[];
  limits: Limits;
}

export interface MountEvent {
  event: 'mount';
  mount: string;
  class: LaneClass;
  state: MountState;
  was: MountState;
  reason: string;
  code?: Code | undefined;
}

export interface StalledEvent {
  event: 'stalled';
  mount: string;
  class: LaneClass;
  kind?: string | undefined;
  phase: Phase;
  key?: string | undefined;
  slot?: number | undefined;
  task?: Id | undefined;
  tid: number;
  syscall: string;
  since_us: number;
  for_ms: number;
  settled: boolean;
}

export interface RecoveredEvent {
  event: 'recovered';
  mount: string;
  class: LaneClass;
  kind?: string | undefined;
  phase: Phase;
  key?: string | undefined;
  slot?: number | undefined;
  task?: Id | undefined;
  tid: number;
  syscall: string;
  since_us: number;
  for_ms: number;
  settled: boolean;
}

/** Quarantined slots that the kernel has given back; always after the answer that quarantined them. */
export interface SlotsFreedEvent {
  event: 'slots_freed';
  slots: number[];
}

export type Event =
  | ReadyEvent
  | MountEvent
  | StalledEvent
  | RecoveredEvent
  | SlotsFreedEvent;

export interface Events {
  ready: ReadyEvent;
  mount: MountEvent;
  stalled: StalledEvent;
  recovered: RecoveredEvent;
  slots_freed: SlotsFreedEvent;
}
