// block_ops.ts — store, load and remove: one operation a block, one answer for all of them.
//
// Answered when the last block is through, or when something ends the task first. Then every unfinished
// block says where it was, and whether its slot is free or belongs to the kernel until slots_freed.
import { LIMITS, type Code, type FailedEntry, type InlineBlock, type LoadAnswer, type StoreAnswer } from '../protocol/messages.ts';
import type { LoadRequest, RemoveRequest, StoreRequest } from '../protocol/request.ts';
import type { Collector } from './collector.ts';
import { failedEntries, type Asked, type Failure } from './failures.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import { Operation, gateKeyOf, type Done, type Owner } from './operation.ts';
import { CODE_OF, ms, type TaskContext } from './task_context.ts';
import { Task, type EndCode } from './task_table.ts';
import type { Waiter } from './urging.ts';

/** After these a look-up is to ask the mount again. */
const MISSES: ReadonlySet<Done['status']> = new Set(['not_found', 'corrupt', 'newer_format']);

const CLASS_OF = { load: 'load', store: 'store', remove: 'metadata' } as const;

type BlockRequest = StoreRequest | LoadRequest | RemoveRequest;

/** The end of a pass that is to make room for a store. */
interface Waiting {
  collector: Collector | null;
  done: Done;
  heard: Waiter;
}

export class BlockTask extends Task implements Owner, Asked {
  declare readonly op: 'store' | 'load' | 'remove';
  readonly mount: string;
  #request: BlockRequest;
  #mount: Mount;
  #context: TaskContext;
  #operations: (Operation | null)[];
  #pending = 0;
  #started = false;
  #done = 0;
  /** Removals that the index knew of at the start. */
  #removals = 0;
  #kept = 0;
  #failures: Failure[] = [];
  /** Stores that found no room and wait for some, by block; and those that were tried again, with who made it. */
  #waiting: Map<number, Waiting> | null = null;
  #retries: Map<number, Collector> | null = null;
  #inline: InlineBlock[] = [];
  /** Damaged files that loads of this task met: moved away once it is answered. */
  #damaged: { block: number; inode: string }[] = [];

  constructor(request: BlockRequest, mount: Mount, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request.id, request.op, receivedUs, deadlineUs);
    this.mount = mount.name;
    this.#request = request;
    this.#mount = mount;
    this.#context = context;
    this.#operations = new Array<Operation | null>(request.blocks.hexes.length).fill(null);
  }

  /** Why the request cannot be started at all; nothing was touched then. */
  obstacle(): { code: Code; message: string } | null {
    const request = this.#request;
    if (request.op === 'remove') return null;
    const { slots } = request.blocks;
    let inline = 0;
    for (let block = 0; block < slots.length; block += 1) {
      const slot = slots[block]!;
      if (slot === null) {
        inline += 1;
        continue;
      }
      const why = this.#context.slots.whyBusy(slot);
      if (why !== null) return { code: 'SLOT_BUSY', message: `nothing was started: slot ${slot} of block ${block} is ${why}` };
    }
    if (inline > this.#context.staging.left(request.op === 'store')) {
      const { areas, quarantined } = this.#context.staging.figures();
      return { code: 'SATURATED', message: `no room for ${inline} inline blocks: of ${areas} staging areas ${quarantined} belong to stuck calls; use slots, or wait for a recovered event` };
    }
    return null;
  }

  start(nowUs: number): void {
    const request = this.#request;
    const { namespaces, hexes } = request.blocks;
    const count = hexes.length;
    const changesNames = request.op !== 'load';
    this.#pending = count;
    this.#started = true;
    this.#removals = this.#context.index.removals;
    if (request.op !== 'remove') for (const slot of request.blocks.slots) if (slot !== null) this.#context.slots.ask(slot);
    const stuckLoads = request.op === 'load' && this.#mount.device!.stuckLoads.size > 0;
    const group = this.#groupNow();
    const operations: Operation[] = [];
    for (let block = 0; block < count; block += 1) {
      if (stuckLoads && this.#refusedAlone(block, nowUs)) continue;
      const operation = new Operation(request.op, this.#mount, group, group.pool, this, block, this.deadlineUs);
      operation.namespace = namespaces[block]!;
      operation.hex = hexes[block]!;
      if (request.op === 'remove') this.#context.index.removing(this.#mount, operation.namespace, operation.hex);
      if (changesNames) operation.gateKey = gateKeyOf(this.#mount, operation.namespace, operation.hex);
      if (request.op === 'store') this.#giveSource(operation, request, block);
      else if (request.op === 'load') this.#giveTarget(operation, request.blocks.slots[block]!, request.blocks.bytes[block] ?? LIMITS.inline_bytes_max);
      this.#operations[block] = operation;
      operations.push(operation);
    }
    this.#context.lanes.submitBlocks(operations, nowUs);
    if (this.#pending === 0) this.#answer(nowUs);
  }

  /** The deadline had passed before anything could be started. */
  startTooLate(nowUs: number): void {
    for (let block = 0; block < this.#operations.length; block += 1) this.#fail(block, 'DEADLINE_EXCEEDED', nowUs, { detail: 'the deadline had passed when the request was read' });
    this.#answer(nowUs);
  }

  completed(operation: Operation, done: Done, nowUs: number): void {
    const block = operation.index;
    if (this.#learntLength(operation, done) && nowUs < this.deadlineUs) {
      const { breaker } = this.#groupNow();
      if (breaker.isOpen()) {
        // Its length came back late; the second load would be a new one, and no lane is risked for that.
        this.dropped(operation, 'MOUNT_SUSPENDED', `suspended before its ${done.storedBytes} bytes could be read: ${breaker.reason}`);
        return;
      }
      if (this.#askAgain(operation, done, nowUs)) return;
    }
    if (this.op === 'store') {
      if (done.status === 'no_space' && nowUs < this.deadlineUs && this.#waitsForRoom(operation, done, nowUs)) return;
      this.#retries?.get(block)?.retried(done.status !== 'no_space', nowUs);
    }
    this.#operations[block] = null;
    this.#pending -= 1;
    if (this.op === 'remove') this.#context.index.removing(this.#mount, operation.namespace, operation.hex); // an error may come after the deed
    if (done.status === 'ok' || (done.status === 'not_found' && this.op === 'remove')) {
      this.#done += 1;
      this.#succeeded(operation, done, nowUs);
    } else {
      this.#fail(block, CODE_OF[done.status], nowUs, { phase: done.phase, errno: done.errno, storedBytes: done.storedBytes, detail: done.text });
      if (MISSES.has(done.status)) this.#context.index.forget(this.#mount, operation.namespace, operation.hex);
      if (done.status === 'corrupt' && this.op === 'load') this.#damaged.push({ block, inode: done.inode });
    }
    if (this.#pending === 0) this.#answer(nowUs);
  }

  dropped(operation: Operation, code: Code, reason: string): void {
    const nowUs = this.#context.nowUs();
    this.#operations[operation.index] = null;
    this.#pending -= 1;
    this.#fail(operation.index, code, nowUs, { detail: reason });
    if (this.#pending === 0) this.#answer(nowUs);
  }

  /** It had been given up in the kernel. */
  returned(operation: Operation): void {
    if (this.op === 'remove') this.#context.index.removing(this.#mount, operation.namespace, operation.hex);
  }

  conclude(code: EndCode, nowUs: number): void {
    // Last first: what waits leaves the queue before a stuck lane is given up, or its replacement would
    // take it up in between.
    for (let block = this.#operations.length - 1; block >= 0; block -= 1) {
      const waiting = this.#waiting?.get(block);
      if (waiting !== undefined) {
        this.#noRoom(block, waiting, code === 'DEADLINE_EXCEEDED' ? 'NO_SPACE' : code, nowUs);
        continue;
      }
      const operation = this.#operations[block]!;
      if (operation === null) continue;
      this.#operations[block] = null;
      this.#pending -= 1;
      const holder = operation.state === 'gated' ? this.#context.lanes.gate.holder(operation.gateKey) : null;
      const settled = this.#context.lanes.settle(operation, nowUs);
      if (settled.state === 'gated') {
        this.#fail(block, code === 'DEADLINE_EXCEEDED' ? 'KEY_BUSY' : code, nowUs, { detail: holder === null ? '' : waitedFor(holder, nowUs) });
        continue;
      }
      if (settled.quarantined && code === 'DEADLINE_EXCEEDED') operation.group!.noteOverrun(operation, nowUs);
      const outcomeUnknown = this.op !== 'load' && (settled.state === 'committing' || settled.state === 'done');
      this.#fail(block, code, nowUs, { phase: settled.phase, slot: settled.quarantined, outcomeUnknown, heldUs: settled.quarantined ? nowUs - settled.sinceUs : 0 });
    }
    this.#answer(nowUs);
  }

  key(block: number): string {
    return `${this.#request.blocks.namespaces[block]}/${this.#request.blocks.hexes[block]}`;
  }

  slot(block: number): number | null {
    return this.#request.op === 'remove' ? null : this.#request.blocks.slots[block]!;
  }

  // The mount may have gone to another device since the start.
  #groupNow(): LaneGroup {
    return this.#mount.device!.groups[CLASS_OF[this.op]];
  }

  // One bad file on a mount that answers others: its stuck call is enough, no second lane goes there.
  #refusedAlone(block: number, nowUs: number): boolean {
    const stuck = this.#mount.device!.stuckLoads.get(gateKeyOf(this.#mount, this.#request.blocks.namespaces[block]!, this.#request.blocks.hexes[block]!));
    if (stuck === undefined || !this.#groupNow().blamedAlone(stuck, nowUs)) return false;
    this.#pending -= 1;
    this.#fail(block, 'KEY_BUSY', nowUs, { detail: `an earlier load of this block has been in ${stuck.phase} in the kernel for ${ms(nowUs - stuck.sinceUs)} ms, and the mount is not suspended for it; a recovered event says when to try again` });
    return true;
  }

  #giveSource(operation: Operation, request: StoreRequest, block: number): void {
    operation.replace = request.replace || this.#context.damage.isBad(operation.gateKey);
    const data = request.blocks.inlineData?.[block] ?? null;
    this.#giveTarget(operation, request.blocks.slots[block]!, request.blocks.bytes[block]!);
    if (data !== null) this.#context.native.writeStaging(operation.offset, data);
  }

  #giveTarget(operation: Operation, slot: number | null, bytes: number): void {
    operation.bytes = bytes;
    if (slot === null) {
      const { staging } = this.#context;
      operation.region = 1;
      operation.memory = staging;
      operation.area = staging.claim(operation.kind === 'store');
      operation.offset = staging.offset(operation.area);
    } else {
      operation.memory = this.#context.slots;
      operation.area = slot;
      operation.offset = slot * this.#context.slotBytes;
      this.#context.slots.claim(slot);
    }
  }

  // An inline load does not say how long the block is: the first try learns it, the second reads it.
  #learntLength(first: Operation, done: Done): boolean {
    if (done.status !== 'length_mismatch' || this.#request.op !== 'load' || !this.#request.inline) return false;
    if (this.#request.blocks.bytes[first.index] != null || first.bytes !== LIMITS.inline_bytes_max) return false;
    return done.storedBytes >= 1 && done.storedBytes < LIMITS.inline_bytes_max;
  }

  #askAgain(first: Operation, done: Done, nowUs: number): boolean {
    if (this.#context.staging.left(false) === 0) return false;
    const group = this.#groupNow();
    const second = new Operation('load', this.#mount, group, group.pool, this, first.index, this.deadlineUs);
    second.namespace = first.namespace;
    second.hex = first.hex;
    this.#giveTarget(second, null, done.storedBytes);
    this.#operations[first.index] = second;
    this.#context.lanes.submit(second, nowUs);
    return true;
  }

  // Where this sidecar keeps the store within its capacity, room may be made. Once a block: its second miss is the answer.
  #waitsForRoom(first: Operation, done: Done, nowUs: number): boolean {
    const block = first.index;
    if (this.#retries?.has(block) === true) return false;
    const { capacity } = this.#context;
    const waiting: Waiting = { collector: null, done, heard: (tryAgain, atUs) => this.#heardOfRoom(block, waiting, tryAgain, atUs) };
    waiting.collector = capacity.urge(this.#mount, waiting.heard, nowUs);
    if (waiting.collector === null) return false;
    this.#operations[block] = null;
    (this.#waiting ??= new Map()).set(block, waiting);
    return true;
  }

  #heardOfRoom(block: number, waiting: Waiting, tryAgain: boolean, nowUs: number): void {
    const request = this.#request as StoreRequest;
    const group = this.#groupNow();
    const inline = request.blocks.slots[block] === null;
    const refused = group.breaker.isOpen() || (inline && this.#context.staging.left(true) === 0);
    if (!tryAgain || refused || nowUs >= this.deadlineUs) {
      this.#noRoom(block, waiting, 'NO_SPACE', nowUs);
      if (this.#pending === 0) this.#answer(nowUs);
      return;
    }
    this.#waiting!.delete(block);
    (this.#retries ??= new Map()).set(block, waiting.collector!);
    const second = new Operation('store', this.#mount, group, group.pool, this, block, this.deadlineUs);
    second.namespace = request.blocks.namespaces[block]!;
    second.hex = request.blocks.hexes[block]!;
    second.gateKey = gateKeyOf(this.#mount, second.namespace, second.hex);
    this.#giveSource(second, request, block);
    this.#operations[block] = second;
    this.#context.lanes.submit(second, nowUs);
  }

  #noRoom(block: number, waiting: Waiting, code: Code, nowUs: number): void {
    waiting.collector?.gaveUp(waiting.heard);
    this.#waiting!.delete(block);
    this.#pending -= 1;
    const { phase, errno, text } = waiting.done;
    this.#fail(block, code, nowUs, code === 'NO_SPACE' ? { phase, errno, detail: text } : {});
  }

  #succeeded(operation: Operation, done: Done, nowUs: number): void {
    const { stats, damage, index, native } = this.#context;
    const { traffic } = this.#mount;
    if (this.op !== 'remove') index.note(this.#mount, operation.namespace, operation.hex, this.#removals, this.receivedUs, nowUs);
    if (this.op === 'store') {
      if (done.kept) {
        this.#kept += 1;
        traffic.blocks_kept += 1;
      } else {
        stats.bytesStored += operation.bytes;
        traffic.stored_bytes += operation.bytes;
        traffic.blocks_stored += 1;
        this.#context.capacity.stored(this.#mount, operation.bytes, nowUs);
        damage.replaced(operation.gateKey);
      }
    } else if (this.op === 'load') {
      stats.bytesLoaded += operation.bytes;
      traffic.loaded_bytes += operation.bytes;
      traffic.blocks_loaded += 1;
      this.#context.capacity.loaded(this.#mount, operation.namespace, operation.hex, nowUs);
      if (operation.region === 1) this.#inline.push(inlineBlock(operation.index, native.readStaging(operation.offset, operation.bytes)));
    } else {
      traffic.blocks_removed += 1;
      damage.replaced(operation.gateKey);
    }
  }

  #fail(block: number, code: Code, nowUs: number, more: { phase?: Failure['phase']; slot?: boolean; errno?: number; outcomeUnknown?: boolean; storedBytes?: number; heldUs?: number; detail?: string }): void {
    this.#failures.push({
      block,
      code,
      phase: more.phase ?? 'queue',
      slot: this.op === 'remove' ? null : more.slot === true ? 'quarantined' : 'free',
      waitedUs: nowUs - this.receivedUs,
      errno: more.errno ?? 0,
      outcomeUnknown: more.outcomeUnknown ?? false,
      storedBytes: more.storedBytes ?? 0,
      heldUs: more.heldUs ?? 0,
      detail: more.detail ?? '',
    });
    this.#context.stats.blockFailed(code);
  }

  #answer(nowUs: number): void {
    const ok = this.#failures.length === 0;
    const answer: StoreAnswer & LoadAnswer = { id: this.id, ok, done: this.#done };
    if (this.op === 'store') answer.kept = this.#kept;
    if (this.#request.op === 'load' && this.#request.inline) answer.blocks = this.#inline.sort((a, b) => a.block - b.block);
    if (!ok) {
      this.#failures.sort((a, b) => a.block - b.block);
      answer.failed = failedEntries(this.#failures, this) satisfies FailedEntry[];
    }
    this.#context.stats.blocksDone += this.#done;
    if (this.#started && this.#request.op !== 'remove') for (const slot of this.#request.blocks.slots) if (slot !== null) this.#context.slots.answer(slot);
    this.#context.tasks.answer(this, answer, nowUs);
    for (const { block, inode } of this.#damaged) {
      this.#context.damage.met(this.#mount, this.#request.blocks.namespaces[block]!, this.#request.blocks.hexes[block]!, inode, nowUs);
    }
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function inlineBlock(block: number, data: Buffer): InlineBlock {
  try {
    return { block, bytes: data.length, text: utf8.decode(data) };
  } catch {
    return { block, bytes: data.length, base64: data.toString('base64') };
  }
}

function waitedFor(holder: Operation, nowUs: number): string {
  if (holder.state !== 'abandoned') return `an earlier ${holder.kind} of this block is still under way`;
  return `the ${holder.phase} of an earlier ${holder.kind} of this block has been in the kernel for ${ms(nowUs - holder.sinceUs)} ms and may still take effect`;
}
