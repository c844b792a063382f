// asked.ts — a request as the client knows it, until it is answered.
import type { LaneClass } from '../../native/index.ts';
import { OPS, type Code, type Id, type Op } from '../../protocol/messages.ts';

/** A request that the decoder let through. */
export interface Asked {
  id: Id;
  op: Op;
  line: number;
  mount: string;
  /** What the sidecar took the mount for when it read this. */
  storeId: string | null;
  receivedUs: number;
  /** Infinity: no mount is asked, so the answer comes at once. */
  deadlineUs: number;
  keys: string[];
  slots: (number | null)[];
  bytes: (number | null)[];
  /** What a store was to put under each key. */
  tags: string[];
  replace: boolean;
  /** namespace: what it is to be compared with, in canonical form. */
  fingerprint: string;
  bump: boolean;
  /** cancel: whom it is to end, and whether that one was unanswered then. */
  task: Id | null;
  about: Asked | null;
  /** Its class is suspended, or it reaches no mount. */
  atOnce: boolean;
  /** Sent while the sidecar was leaving. */
  leaving: boolean;
  /** It names a slot that is not the client's to use. */
  busy: boolean;
  /** A cancel names it. */
  cancelled: boolean;
  /** Answered as a whole by an error. */
  refused: boolean;
  /** Every code of its answer. */
  codes: Set<Code>;
}

/** What the simulation asks for. list, verify and sweep are for whoever looks after a store, and change no block: test/unit/inspect_ops.test.ts. */
export const SIMULATED_OPS: readonly Op[] = OPS.filter((op) => op !== 'list' && op !== 'verify' && op !== 'sweep');

export const CLASS_OF: Partial<Record<Op, LaneClass>> = { load: 'load', store: 'store', lookup: 'metadata', remove: 'metadata', namespace: 'metadata' };
