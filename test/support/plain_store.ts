// plain_store.ts — a real sidecar on a plain directory whose files a test may damage, replace and look at.
//
// The mount never hangs here, so this process may touch it. Whole trees are compared before and after (treeOf): that is the only
// way to see that nothing was moved, made or lost which nobody spoke of.

import { createHash } from 'node:crypto';
import { closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Client, type Fields } from '../../clients/node/client.ts';
import type { Engine } from '../../native/index.ts';
import type { FailedEntry } from '../../protocol/messages.ts';
import { failuresOf, patternOf } from './rig.ts';
import { KNOWN_AT_READY } from './sidecar_process.ts';

/** Most of this is a busy machine; nothing here hangs. */
export const TIMEOUT_MS = 20_000;
export const SLOT_BYTES = 65_536;
export const HEADER_BYTES = 4096;
const POLL_MS = 5;
/** Of a file this much is compared: the rest of a huge sparse one is its size. */
const HASHED_BYTES_MAX = 4 * 1024 * 1024;

export interface PlainOptions {
  engine?: Engine;
  args?: readonly string[];
  wrapper?: readonly string[];
  create?: boolean;
  slots?: number;
}

export interface Outcome {
  /** OK, or the code of the block or of the whole request. */
  code: string;
  entry: FailedEntry | null;
  /** What lies in the slot, if OK. */
  data: Buffer | null;
  kept: boolean;
}

export class PlainStore {
  readonly root: string;
  readonly client: Client;
  constructor(root: string, client: Client) {
    this.root = root;
    this.client = client;
  }

  path(key: string): string {
    return blockPath(this.root, key);
  }

  /** Every block with bytes of its own (patternOf), in as few requests as the slots allow. */
  async put(keys: readonly string[], bytes: number, o: { replace?: boolean; data?: (key: string) => Uint8Array } = {}): Promise<Outcome[]> {
    return this.#inBatches(keys, async (some, slots) => {
      some.forEach((key, i) => this.client.writeSlot(slots[i]!, o.data?.(key) ?? patternOf(key, bytes)));
      const answer = await this.client.request('store', { keys: some, slots, bytes, timeout_ms: TIMEOUT_MS, if_exists: o.replace ? 'replace' : 'keep' } as Fields<'store'>);
      const outcomes = outcomesOf(answer, some);
      // kept is counted for the whole request: exact for one block, or for all or none.
      const kept = (answer as { kept?: number }).kept ?? 0;
      for (const one of outcomes) one.kept = kept > 0 && one.code === 'OK';
      return outcomes;
    });
  }

  async get(keys: readonly string[], bytes: number): Promise<Outcome[]> {
    return this.#inBatches(keys, async (some, slots) => {
      for (const slot of slots) this.client.writeSlot(slot, Buffer.alloc(SLOT_BYTES, 0xee));
      const answer = await this.client.request('load', { keys: some, slots, bytes, timeout_ms: TIMEOUT_MS } as Fields<'load'>);
      const outcomes = outcomesOf(answer, some);
      outcomes.forEach((one, i) => {
        if (one.code !== 'OK') return;
        one.data = this.client.readSlot(slots[i]!, bytes);
        const behind = this.client.readSlot(slots[i]!, SLOT_BYTES - bytes, bytes);
        if (!behind.equals(Buffer.alloc(SLOT_BYTES - bytes, 0xee))) throw new Error(`the load of ${some[i]} wrote behind its ${bytes} bytes`);
      });
      return outcomes;
    });
  }

  async has(keys: readonly string[]): Promise<(boolean | null)[]> {
    const answer = await this.client.request('lookup', { keys: [...keys], timeout_ms: TIMEOUT_MS } as Fields<'lookup'>);
    if (!('present' in answer)) throw new Error(`no look-up: ${JSON.stringify(answer)}`);
    return answer.present;
  }

  async drop(key: string): Promise<Outcome> {
    return outcomesOf(await this.client.request('remove', { keys: [key], timeout_ms: TIMEOUT_MS } as Fields<'remove'>), [key])[0]!;
  }

  async stat(field: string): Promise<number> {
    const answer = await this.client.request('stats', { timeout_ms: TIMEOUT_MS } as unknown as Fields<'stats'>);
    return Number((answer as { stats?: Record<string, unknown> }).stats?.[field] ?? NaN);
  }

  /** Files that were set aside, once there are `count`; more or fewer than that in the end is for the test to see. */
  async aside(count: number): Promise<string[]> {
    await until(`${count} files are set aside`, () => namesIn(join(this.root, 'aside')).length >= count, () => `${namesIn(join(this.root, 'aside'))}\n${this.client.stderr}`);
    return namesIn(join(this.root, 'aside'));
  }

  async #inBatches(keys: readonly string[], body: (some: string[], slots: number[]) => Promise<Outcome[]>): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    const width = this.client.ready.arena.slots;
    for (let from = 0; from < keys.length; from += width) {
      const some = keys.slice(from, from + width);
      outcomes.push(...(await body(some, some.map((_, i) => i))));
    }
    return outcomes;
  }
}

/** A sidecar on `root`, whatever it makes of it. */
export async function startPlain(root: string, o: PlainOptions = {}): Promise<PlainStore> {
  const arenaMib = Math.ceil(((o.slots ?? 64) * SLOT_BYTES) / 2 ** 20);
  const args = [...KNOWN_AT_READY, '--slot-bytes', String(SLOT_BYTES), '--arena-mib', String(arenaMib), '--timeout-ms', String(TIMEOUT_MS), '--engine', o.engine ?? 'threads', ...(o.args ?? [])];
  const client = await Client.spawn({ mounts: { kv0: root }, create: o.create ?? true, args, ...(o.wrapper ? { wrapper: o.wrapper } : {}), startMs: TIMEOUT_MS });
  client.setMaxListeners(0);
  onTestFinished(async () => {
    if (!client.isGone) await client.shutdown(300);
  });
  const store = new PlainStore(root, client);
  if (o.engine && client.ready.engine !== o.engine) throw new Error(`the sidecar runs ${client.ready.engine}, ${o.engine} was asked for: ${client.stderr}`);
  // Its first request does not meet a mount that has not answered yet.
  await until('the mount has answered', async () => (await mountOf(store)).code !== 'MOUNT_SUSPENDED', () => client.stderr);
  return store;
}

/** The same, and it is a store that can be used. */
export async function startStore(root: string, o: PlainOptions = {}): Promise<PlainStore> {
  const store = await startPlain(root, o);
  const { store_id: id, code, reason } = await mountOf(store);
  if (id === undefined) throw new Error(`${root} cannot be used: ${code}, ${reason}; ${store.client.stderr}`);
  return store;
}

async function mountOf(store: PlainStore): Promise<{ store_id?: string; code?: string; reason?: string }> {
  const answer = await store.client.request('stats', { timeout_ms: TIMEOUT_MS } as unknown as Fields<'stats'>);
  const [mount] = (answer as { stats?: { mounts?: object[] } }).stats?.mounts ?? [];
  if (mount === undefined) throw new Error(`no mount in ${JSON.stringify(answer)}; ${store.client.stderr}`);
  return mount;
}

export function blockPath(root: string, key: string): string {
  const [namespace = '', hex = ''] = key.split('/');
  return join(root, 'blocks', namespace, hex.slice(0, 2), `${hex}.kvb`);
}

export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Every file below root: kind, inode, permissions, size, links and content. Opens nothing but plain files. */
export function treeOf(root: string): Record<string, string> {
  const tree: Record<string, string> = {};
  const walk = (below: string): void => {
    for (const name of readdirSync(join(root, below)).sort()) {
      const path = join(below, name);
      const stat = lstatSync(join(root, path));
      const kind = stat.isDirectory() ? 'directory' : stat.isFile() ? 'file' : stat.isSymbolicLink() ? `link to ${readlinkSync(join(root, path))}` : 'special';
      const mode = (stat.mode & 0o7777).toString(8);
      tree[path] = stat.isDirectory() ? `${kind} ${mode}` : `${kind} inode ${stat.ino} mode ${mode} links ${stat.nlink}`;
      if (stat.isFile()) tree[path] += ` bytes ${stat.size} ${hashOf(join(root, path))}`;
      if (stat.isDirectory()) walk(path);
    }
  };
  walk('');
  return tree;
}

function hashOf(path: string): string {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const hash = createHash('sha1');
    const piece = Buffer.alloc(65_536);
    for (let at = 0; at < HASHED_BYTES_MAX; at += piece.length) {
      const got = readSync(fd, piece, 0, piece.length, at);
      hash.update(piece.subarray(0, got));
      if (got < piece.length) break;
    }
    return hash.digest('hex').slice(0, 12);
  } finally {
    closeSync(fd);
  }
}

/** No temporary of anybody below root, besides those named. */
export function temporariesIn(root: string): string[] {
  return Object.keys(treeOf(root)).filter((path) => path.endsWith('.tmp'));
}

export async function until(what: string, true_: () => boolean | Promise<boolean>, otherwise: () => string = () => ''): Promise<void> {
  const end = performance.now() + TIMEOUT_MS;
  while (!(await true_())) {
    if (performance.now() > end) throw new Error(`waited ${TIMEOUT_MS} ms until ${what}; ${otherwise()}`);
    await new Promise((go) => setTimeout(go, POLL_MS));
  }
}

function outcomesOf(answer: object, keys: readonly string[]): Outcome[] {
  const { ok, error } = answer as { ok: boolean; error?: { code: string } };
  const failures = failuresOf(answer);
  return keys.map((_, i) => {
    const entry = failures.get(i) ?? null;
    const code = error?.code ?? entry?.code ?? (ok || failures.size > 0 ? 'OK' : 'NO ANSWER');
    return { code, entry: error ? (error as unknown as FailedEntry) : entry, data: null, kept: false };
  });
}
