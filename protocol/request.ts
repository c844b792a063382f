// request.ts — what the sidecar works on: a request that decode.ts found right in every field.
// Blocks are columns, whatever form the line had: entry i of every column speaks of block i, and i is the
// number a `failed` entry names. Nothing here needs a second look except what decode cannot know:
// whether an id is in use, whether a slot is in flight, and what the mount says.

import type { Id } from './messages.ts';

export interface RequestHead {
  id: Id;
  /** Which line of stdin it came on, from 1: what a duplicate's answer names. */
  line: number;
}

/** A request that reaches a mount. At most one of the two times is there; with neither the default serves. */
export interface MountRequestHead extends RequestHead {
  mount: string;
  deadlineUs?: number;
  timeoutMs?: number;
}

export interface KeyColumns {
  /** With the generation, as in "llama@3". The same string over and over where the line said it once. */
  namespaces: readonly string[];
  hexes: readonly string[];
}

export interface StoreRequest extends MountRequestHead {
  op: 'store';
  blocks: KeyColumns & {
    /** null: the bytes came inline, see `inlineData`. No slot twice in one request. */
    slots: readonly (number | null)[];
    /** From 1 to slot_bytes; of inline blocks the length of their data. */
    bytes: readonly number[];
    /** null when no block of the request is inline. */
    inlineData: readonly (Uint8Array | null)[] | null;
  };
  /** "if_exists":"replace"; otherwise a block that is there is kept and counted. */
  replace: boolean;
}

export interface LoadRequest extends MountRequestHead {
  op: 'load';
  blocks: KeyColumns & {
    /** All null when `inline`, none otherwise. No slot twice in one request. */
    slots: readonly (number | null)[];
    /** null (inline only): whatever length the block has, up to inline_bytes_max. */
    bytes: readonly (number | null)[];
  };
  inline: boolean;
}

export interface LookupRequest extends MountRequestHead {
  op: 'lookup';
  blocks: KeyColumns;
}

export interface RemoveRequest extends MountRequestHead {
  op: 'remove';
  blocks: KeyColumns;
}

export interface NamespaceRequest extends MountRequestHead {
  op: 'namespace';
  /** Without a generation. */
  name: string;
  /** Canonical JSON text (sorted keys, no spaces): equal fingerprints are equal strings. */
  fingerprint: string;
  bump: boolean;
}

export interface ListRequest extends MountRequestHead {
  op: 'list';
  /** One of the store's directories, as store_paths.ts has them. */
  path: string;
  /** '' at the beginning of the directory. */
  cookie: string;
  entriesMax: number;
}

export interface VerifyRequest extends MountRequestHead {
  op: 'verify';
  blocks: KeyColumns;
}

export interface SweepRequest extends MountRequestHead {
  op: 'sweep';
  /** A file that kvlane left behind, as store_paths.ts has them. */
  path: string;
  /** Decimal, both as list told them: it goes only if it is this file, unchanged. */
  inode: string;
  changedNs: string;
}

export interface CancelRequest extends RequestHead {
  op: 'cancel';
  task: Id;
}

export interface ShutdownRequest extends RequestHead {
  op: 'shutdown';
  timeoutMs?: number;
}

export interface StuckRequest extends RequestHead {
  op: 'stuck';
  /** Without it: what is late. */
  overMs?: number;
}

export interface PlainRequest extends RequestHead {
  op: 'stats' | 'ping' | 'help';
}

export type BlockRequest = StoreRequest | LoadRequest | LookupRequest | RemoveRequest;
export type InspectRequest = ListRequest | VerifyRequest | SweepRequest;
export type MountRequest = BlockRequest | NamespaceRequest | InspectRequest;
export type Request = MountRequest | CancelRequest | ShutdownRequest | StuckRequest | PlainRequest;
