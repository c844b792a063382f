// rig.ts — a stall lab, a sidecar on it with one engine, and the typed client that talks to it; what most stall tests start with.
//
// Times: an answer counts from when its line was read here. On a busy machine the client may have had its last word by then; the
// sidecar's line is waited for all the same (`lastWord` says so), as it alone tells what became of the slots. `overshootMs` below
// zero is an answer before its deadline, which for DEADLINE_EXCEEDED is a broken promise.
// This process never touches the mount; `lab.back` is the same directory behind the gates.

import { readFileSync } from 'node:fs';
import { describe } from 'vitest';
import { Client, type Fields, type Result } from '../../clients/node/client.ts';
import { nowUs } from '../../clients/node/pending.ts';
import type { Engine } from '../../native/index.ts';
import type { FailedEntry, Id, LaneClass, MountState, Op, SlotWord } from '../../protocol/messages.ts';
import { KNOWN_AT_READY } from './sidecar_process.ts';
import { type Lab, type LabOptions, noLab, startLab } from './stall.ts';

export const ENGINES: readonly Engine[] = ['threads', 'aio'];
/** A call that has taken so long on a mount that hangs is one that hangs. */
const SETTLED_MS = 200;
/** A really stuck mount is resumed by the lab after this time, whatever the test does. */
const HANG_S_MAX = 25;
const WAIT_MS = 10_000;
const POLL_MS = 5;
const BLOCK_BYTES = 16_384;
/** How long the sidecar's line is waited for once the client has answered. */
const LATE_LINE_MS = 3_000;

export interface RigOptions {
  engine?: Engine;
  lab?: LabOptions;
  /** The FUSE mount itself (default), or the ext4 on it (lab: { loop: 'ext4' }). */
  on?: 'mnt' | 'blk';
  /** Further mounts of the sidecar, beside kv0. */
  mounts?: Record<string, string>;
  /** Default 64. */
  slots?: number;
  /** Default 16 KiB. */
  slotBytes?: number;
  stallMs?: number;
  stuckMax?: number;
  /** Never refuse: every request is really tried. */
  breakerHeldClosed?: boolean;
  fsync?: boolean;
  /** Further arguments of serve. */
  args?: readonly string[];
  wrapper?: readonly string[];
}

export interface Asked<O extends Op> {
  id: Id;
  answer: Result<O>;
  deadlineUs: number;
  /** From the request to its line. */
  tookMs: number;
  /** The line after the deadline (above 0) or before it. */
  overshootMs: number;
  /** The client answered first, at its deadline + grace_ms: after so many milliseconds of overshoot. */
  lastWordMs: number | null;
}

export class Rig {
  readonly lab: Lab;
  readonly client: Client;
  readonly engine: Engine;
  readonly slotBytes: number;
  /** Every message so far, with the time of its arrival. */
  readonly heard: { atUs: number; message: Record<string, unknown> }[] = [];
  readonly #arrivedUs = new Map<Id, number>();

  constructor(lab: Lab, client: Client, engine: Engine, slotBytes: number) {
    this.lab = lab;
    this.client = client;
    this.engine = engine;
    this.slotBytes = slotBytes;
    client.setMaxListeners(0);
    client.on('message', (message) => {
      const line = message as Record<string, unknown>;
      this.heard.push({ atUs: nowUs(), message: line });
      if (line['id'] != null) this.#arrivedUs.set(line['id'] as Id, nowUs());
    });
  }

  async ask<O extends Op>(op: O, fields: Fields<O>): Promise<Asked<O>> {
    const { timeout_ms: timeoutMs = this.client.ready.timeout_ms, ...rest } = fields as { timeout_ms?: number; deadline_us?: number };
    const beganUs = nowUs();
    const deadlineUs = rest.deadline_us ?? beganUs + timeoutMs * 1000;
    const first = await this.client.request(op, { ...rest, deadline_us: deadlineUs } as unknown as Fields<O>);
    const settledUs = nowUs();
    const id = first.id as Id;
    let answer = first;
    if ('source' in first && !this.client.isGone) {
      const late = await this.#late(id);
      if (late) answer = late as Result<O>;
    }
    const atUs = this.#arrivedUs.get(id) ?? settledUs;
    this.#arrivedUs.delete(id);
    const lastWordMs = 'source' in first ? (settledUs - deadlineUs) / 1000 : null;
    return { id, answer, deadlineUs, tookMs: (atUs - beganUs) / 1000, overshootMs: (atUs - deadlineUs) / 1000, lastWordMs };
  }

  // The sidecar's own answer after the client's; null when it does not come, as from a sidecar that is stopped.
  #late(id: Id): Promise<object | null> {
    return new Promise((resolve) => {
      const end = (answer: object | null): void => {
        clearTimeout(timer);
        this.client.off('late', heard);
        resolve(answer);
      };
      const heard = (answer: object): void => {
        if ((answer as { id?: Id }).id === id) end(answer);
      };
      const timer = setTimeout(end, LATE_LINE_MS, null);
      this.client.on('late', heard);
    });
  }

  load(keys: readonly string[], slots: readonly number[], timeoutMs: number, bytes = this.slotBytes): Promise<Asked<'load'>> {
    return this.ask('load', { keys: [...keys], slots: [...slots], bytes, timeout_ms: timeoutMs });
  }
  store(keys: readonly string[], slots: readonly number[], timeoutMs: number, o: { replace?: boolean; bytes?: number } = {}): Promise<Asked<'store'>> {
    const { replace = false, bytes = this.slotBytes } = o;
    return this.ask('store', { keys: [...keys], slots: [...slots], bytes, timeout_ms: timeoutMs, if_exists: replace ? 'replace' : 'keep' });
  }
  lookup(keys: readonly string[], timeoutMs: number): Promise<Asked<'lookup'>> {
    return this.ask('lookup', { keys: [...keys], timeout_ms: timeoutMs });
  }
  remove(keys: readonly string[], timeoutMs: number): Promise<Asked<'remove'>> {
    return this.ask('remove', { keys: [...keys], timeout_ms: timeoutMs });
  }

  /** Free slots, or a clear failure. The caller gives them back with client.arena.release. */
  lease(count: number): number[] {
    const slots = this.client.arena.lease(count);
    if (!slots) throw new Error(`${count} free slots wanted; ${this.client.arena.quarantined.length} of ${this.client.arena.facts.slots} are quarantined`);
    return slots;
  }

  /** These blocks are in the store, each with bytes of its own (patternOf). */
  async fill(keys: readonly string[], timeoutMs = 10_000): Promise<void> {
    // Whoever opened the root before that looks at it again: a lane that was to be warm would hang there.
    await this.until('the first list of mounts was read', async () => Number((await this.stats()).whole['mount_list_reads']) > 0);
    for (let first = 0; first < keys.length; first += 32) {
      const some = keys.slice(first, first + 32);
      const slots = this.lease(some.length);
      some.forEach((key, i) => this.client.writeSlot(slots[i]!, patternOf(key, this.slotBytes)));
      const { answer } = await this.store(some, slots, timeoutMs);
      this.client.arena.release(slots);
      if (!answer.ok) throw new Error(`the store could not be filled: ${JSON.stringify(answer)}; stderr: ${this.client.stderr}`);
    }
  }

  /** True when this block loads within timeoutMs, byte for byte. */
  async loads(key: string, timeoutMs = 5_000): Promise<boolean> {
    const slots = this.lease(1);
    try {
      const { answer } = await this.load([key], slots, timeoutMs);
      return answer.ok && this.client.readSlot(slots[0]!, this.slotBytes).equals(patternOf(key, this.slotBytes));
    } finally {
      this.client.arena.release(slots);
    }
  }

  /**
   * The slots that stay quarantined until the mount goes on. A lane that was between two calls when its load was answered gives its slot
   * back a moment later: it never came to its read.
   */
  async keptByTheKernel(): Promise<number[]> {
    await this.until('every load that is still under way is in a call that does not return', async () => {
      const answer = await this.client.request('stuck', { timeout_ms: 5_000 } as Fields<'stuck'>);
      const calls = ('stuck' in answer ? answer.stuck : []).filter(({ kind }) => kind === 'load');
      return calls.length === this.client.arena.quarantined.length && calls.every(({ for_ms }) => for_ms >= SETTLED_MS);
    });
    return [...this.client.arena.quarantined];
  }

  /** Everything goes on, and what it held has come back: no stuck call, no quarantined slot. Returns the milliseconds this took. */
  async heal(): Promise<number> {
    const beganUs = nowUs();
    await this.lab.resume();
    await this.until('everything stuck has come back', () => this.client.arena.quarantined.length === 0 && this.client.outstanding === 0);
    await this.until('no lane is stuck', async () => (await this.stats()).stuckOperations === 0);
    return (nowUs() - beganUs) / 1000;
  }

  /** Healed, and no class of any mount is suspended any more. */
  async recovered(): Promise<void> {
    await this.until('every class is used again', async () => (await this.stats()).states.every((state) => state === 'ok' || state === 'unknown'));
  }

  /** What the sidecar says of itself, in brief. */
  async stats(): Promise<{ slots: { free: number; in_flight: number; quarantined: number }; stuckOperations: number; lanes: number; states: MountState[]; engines: string[]; whole: Record<string, unknown> }> {
    const answer = await this.client.request('stats', { timeout_ms: 5_000 } as Fields<'stats'>);
    if (!('stats' in answer)) throw new Error(`no stats: ${JSON.stringify(answer)}; stderr: ${this.client.stderr}`);
    const whole = answer.stats as unknown as Record<string, unknown> & StatsPicture;
    const groups = whole.devices.flatMap((device) => Object.values(device.classes));
    return {
      slots: whole.slots,
      stuckOperations: groups.reduce((sum, group) => sum + group.operations_abandoned, 0),
      lanes: groups.reduce((sum, group) => sum + group.lanes, 0),
      states: groups.map((group) => group.state),
      engines: groups.map((group) => group.engine),
      whole,
    };
  }

  /** Polls; fails with what the sidecar and the lab say. */
  async until(what: string, true_: () => boolean | Promise<boolean>, timeoutMs = WAIT_MS): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!(await true_())) {
      if (performance.now() > end) {
        const said = [await this.lab.status(), this.client.isGone ? 'the sidecar is gone' : (await this.stats()).whole];
        throw new Error(`waited ${timeoutMs} ms until ${what}; ${JSON.stringify(said)}; stderr: ${this.client.stderr}`);
      }
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  }

  /** Of the sidecar, from /proc. */
  process(): { residentMib: number; threads: number } {
    const text = readFileSync(`/proc/${this.client.process.child.pid}/status`, 'utf8');
    const number = (field: string): number => Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(text)?.[1]);
    return { residentMib: Math.round(number('VmRSS') / 102.4) / 10, threads: number('Threads') };
  }
}

interface StatsPicture {
  slots: { free: number; in_flight: number; quarantined: number };
  devices: { classes: Record<LaneClass, { state: MountState; engine: string; lanes: number; operations_abandoned: number }> }[];
}

/** Bytes that belong to this key and no other. */
export function patternOf(key: string, bytes: number): Buffer {
  return Buffer.alloc(bytes, `${key}.`);
}

/** `count` keys of one namespace, spread over the fan-out directories. */
export function keysOf(namespace: string, count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, i) => `${namespace}/${(((from + i) * 0x9e3779b1) >>> 0).toString(16).padStart(8, '0')}`);
}

/** Slot of each failed block that has one, by block; ranges spelled out. */
export function failuresOf(answer: object): Map<number, FailedEntry> {
  const found = new Map<number, FailedEntry>();
  for (const entry of (answer as { failed?: FailedEntry[] }).failed ?? []) {
    const ranges = entry.block === undefined ? (entry.blocks ?? []) : [[entry.block, entry.block]];
    for (const [first = 0, last = first] of ranges) for (let block = first; block <= last; block += 1) found.set(block, entry);
  }
  return found;
}

export function slotWordsOf(answer: object): (SlotWord | undefined)[] {
  return [...failuresOf(answer).values()].map((entry) => entry.slot);
}

export interface Spread {
  n: number;
  p50: number;
  p99: number;
  max: number;
  min: number;
}
export function spreadOf(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (q: number): number => Math.round((sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN) * 100) / 100;
  return { n: sorted.length, min: at(0), p50: at(0.5), p99: at(0.99), max: at(1) };
}

/** A measured line for people: tests print what was seen, and assert less than that. */
export function measured(text: string): void {
  process.stderr.write(`measured: ${text}\n`);
}

/** For one test. For several on the same sidecar: startRig in beforeAll, endRig in afterAll. */
export async function withRig<T>(o: RigOptions, body: (rig: Rig) => Promise<T>): Promise<T> {
  const rig = await startRig(o);
  try {
    return await body(rig);
  } finally {
    await endRig(rig);
  }
}

/** A lab, and a sidecar on it that knows its mounts. */
export async function startRig(o: RigOptions): Promise<Rig> {
  const lab = await startLab({ maxHangS: HANG_S_MAX, ...o.lab });
  try {
    const rig = await startOn(lab, o);
    await identified(rig);
    return rig;
  } catch (error) {
    await lab.down().catch(said('down'));
    throw error;
  }
}

/** Of each class, unless `args` says otherwise: few, so that a handful of requests finds every one of them in use, warmed up, or stuck. */
export const LANES = 4;

/** A sidecar of its own on a lab that is there; end it with client.shutdown. */
export async function startOn(lab: Lab, o: RigOptions): Promise<Rig> {
  const engine = o.engine ?? 'threads';
  const slotBytes = o.slotBytes ?? BLOCK_BYTES;
  const arenaMib = Math.max(1, Math.ceil(((o.slots ?? 64) * slotBytes) / 2 ** 20));
  const args = [...KNOWN_AT_READY, '--engine', engine, '--lanes', String(LANES), '--slot-bytes', String(slotBytes), '--arena-mib', String(arenaMib)];
  if (o.stallMs !== undefined) args.push('--stall-ms', String(o.stallMs));
  if (o.stuckMax !== undefined) args.push('--stuck-max', String(o.stuckMax));
  if (o.breakerHeldClosed) args.push('--test-hold-breaker-closed');
  if (o.fsync) args.push('--fsync');
  const mounts = { kv0: o.on === 'blk' ? lab.blk : lab.mnt, ...o.mounts };
  const client = await Client.spawn({ mounts, create: true, args: [...args, ...(o.args ?? [])], ...(o.wrapper ? { wrapper: o.wrapper } : {}) });
  const rig = new Rig(lab, client, engine, slotBytes);
  if (client.ready.engine !== engine) throw new Error(`the sidecar runs ${client.ready.engine}, ${engine} was asked for; stderr: ${client.stderr}`);
  return rig;
}

/** The mounts are identified: the first operation does not have to wait for that. Not for a mount that hangs from the start. */
export async function identified(rig: Rig): Promise<void> {
  await rig.until('every mount is identified', async () => ((await rig.stats()).whole['mounts'] as { store_id?: string }[]).every((mount) => mount.store_id !== undefined));
}

const said = (what: string) => (error: unknown) => void process.stderr.write(`stall rig: ${what}: ${String(error)}\n`);

/** Everything goes on, then everything goes. What fails here is only printed: a failure of the test is the one to be reported. */
export async function endRig(rig: Rig): Promise<void> {
  await rig.lab.cont().catch(said('cont'));
  await rig.lab.resume().catch(said('resume'));
  await rig.client.shutdown(300).catch(said('shutdown'));
  await rig.lab.down().catch(said('down'));
}

/** The same tests on every engine, or said aloud why not. */
export function onEachEngine(what: string, body: (engine: Engine) => void, engines: readonly Engine[] = ENGINES): void {
  for (const engine of engines) describe.skipIf(noLab(`${what} (${engine})`))(`${what} (${engine})`, () => body(engine));
}
