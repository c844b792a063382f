// inspect_ops.ts — list, verify and sweep: what somebody asks who looks after a store. Looking changes nothing.
//
// Not for whoever is attached: a list or a scrub costs lanes, and those are the client's. A verify answers what is proven by its
// deadline, like a look-up; of a block that was not read to its end it says so. Damage that it finds is told and left where it is.
import { listing, type Entry } from '../native/index.ts';
import { LIMITS, type BlockFinding, type Code, type EntryType, type ListEntry, type VerifiedBlock } from '../protocol/messages.ts';
import type { ListRequest, SweepRequest, VerifyRequest } from '../protocol/request.ts';
import { errnoName } from './errno.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import { CODE_OF, ms, type TaskContext } from './task_context.ts';
import { Task, type EndCode } from './task_table.ts';

const FINDING_OF: Partial<Record<Done['status'], BlockFinding>> = { ok: 'sound', corrupt: 'corrupt', newer_format: 'newer_format', not_found: 'not_found' };
const TYPE_OF: Record<Entry['type'], EntryType> = { f: 'file', d: 'directory', l: 'link', o: 'other', '?': 'escaped' };
const ENDED: Record<EndCode, string> = { DEADLINE_EXCEEDED: 'reached its deadline', CANCELLED: 'was cancelled', SHUTTING_DOWN: 'was ended by the shutdown' };

/** One operation, one answer. */
abstract class OneOperationTask extends Task implements Owner {
  protected readonly operation: Operation;
  protected readonly context: TaskContext;
  readonly #what: string;

  constructor(request: ListRequest | SweepRequest, kind: 'list' | 'remove_file', mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request.id, request.op, receivedUs, deadlineUs);
    this.context = context;
    this.#what = `${request.op} of ${request.path} on mount ${mount.name}`;
    this.operation = new Operation(kind, mount, group, group.pool, this, 0, deadlineUs);
  }

  start(nowUs: number): void {
    this.context.lanes.submit(this.operation, nowUs);
  }

  startTooLate(nowUs: number): void {
    this.refuse('DEADLINE_EXCEEDED', 'the deadline had passed when the request was read', 0, nowUs);
  }

  abstract succeeded(done: Done, nowUs: number): void;

  completed(_operation: Operation, done: Done, nowUs: number): void {
    if (done.status === 'ok') this.succeeded(done, nowUs);
    else this.refuse(CODE_OF[done.status], [`it ended in ${done.phase}`, done.errno === 0 ? '' : ` with ${errnoName(done.errno)}`, done.text === '' ? '' : `: ${done.text}`].join(''), done.errno, nowUs);
  }

  dropped(_operation: Operation, code: Code, reason: string): void {
    this.refuse(code, reason, 0, this.context.nowUs());
  }

  conclude(code: EndCode, nowUs: number): void {
    const settled = this.context.lanes.settle(this.operation, nowUs);
    if (settled.quarantined && code === 'DEADLINE_EXCEEDED') this.operation.group!.noteOverrun(this.operation, nowUs);
    const late = this.op === 'sweep' && (settled.state === 'committing' || settled.state === 'done') ? '; the file may be gone, or go late' : '';
    this.refuse(code, `it ${ENDED[code]} after ${ms(nowUs - this.receivedUs)} ms${where(settled.phase, settled.sinceUs, nowUs)}${late}`, 0, nowUs);
  }

  protected refuse(code: Code, why: string, errno: number, nowUs: number): void {
    const message = `${this.#what}: ${why}`;
    this.context.tasks.answer(this, { id: this.id, ok: false, error: errno === 0 ? { code, message } : { code, message, errno: errnoName(errno) } }, nowUs);
  }
}

export class ListTask extends OneOperationTask {
  constructor(request: ListRequest, mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request, 'list', mount, group, receivedUs, deadlineUs, context);
    this.operation.asked = { path: request.path, cookie: request.cookie, entriesMax: request.entriesMax };
  }

  succeeded(done: Done, nowUs: number): void {
    const { cookie, entries } = listing(done.text);
    this.context.tasks.answer(this, { id: this.id, ok: true, entries: entries.map(entryOf), cookie }, nowUs);
  }
}

export class SweepTask extends OneOperationTask {
  constructor(request: SweepRequest, mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request, 'remove_file', mount, group, receivedUs, deadlineUs, context);
    this.operation.asked = { path: request.path, inode: request.inode, changedNs: request.changedNs, fence: '' };
  }

  succeeded(done: Done, nowUs: number): void {
    this.context.tasks.answer(this, { id: this.id, ok: true, state: done.kept ? 'changed' : 'removed' }, nowUs);
  }

  override completed(operation: Operation, done: Done, nowUs: number): void {
    if (done.status === 'not_found') this.context.tasks.answer(this, { id: this.id, ok: true, state: 'absent' }, nowUs);
    else super.completed(operation, done, nowUs);
  }
}

export class VerifyTask extends Task implements Owner {
  #request: VerifyRequest;
  #mount: Mount;
  #group: LaneGroup;
  #context: TaskContext;
  #operations: Operation[] = [];
  #found: (VerifiedBlock | null)[];
  #pending: number;

  constructor(request: VerifyRequest, mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request.id, 'verify', receivedUs, deadlineUs);
    this.#request = request;
    this.#mount = mount;
    this.#group = group;
    this.#context = context;
    this.#pending = request.blocks.hexes.length;
    this.#found = new Array<VerifiedBlock | null>(this.#pending).fill(null);
  }

  start(nowUs: number): void {
    const { namespaces, hexes } = this.#request.blocks;
    this.#operations = hexes.map((hex, block) => {
      const operation = new Operation('verify', this.#mount, this.#group, this.#group.pool, this, block, this.deadlineUs);
      operation.namespace = namespaces[block]!;
      operation.hex = hex;
      return operation;
    });
    for (const operation of this.#operations) this.#context.lanes.submit(operation, nowUs);
  }

  startTooLate(nowUs: number): void {
    this.#found = this.#found.map(() => ({ finding: 'unknown', code: 'DEADLINE_EXCEEDED', phase: 'queue', message: 'the deadline had passed when the request was read' }));
    this.#answer(nowUs);
  }

  completed(operation: Operation, done: Done, nowUs: number): void {
    this.#note(operation.index, verified(done), nowUs);
  }

  dropped(operation: Operation, code: Code, reason: string): void {
    this.#note(operation.index, { finding: 'unknown', code, phase: 'queue', message: reason }, this.#context.nowUs());
  }

  conclude(code: EndCode, nowUs: number): void {
    for (let block = this.#operations.length - 1; block >= 0; block -= 1) {
      if (this.#found[block] !== null) continue; // last first, as in block_ops.ts
      const operation = this.#operations[block]!;
      const settled = this.#context.lanes.settle(operation, nowUs);
      if (settled.quarantined && code === 'DEADLINE_EXCEEDED') operation.group!.noteOverrun(operation, nowUs);
      this.#found[block] = { finding: 'unknown', code, phase: settled.phase, message: `it ${ENDED[code]} after ${ms(nowUs - this.receivedUs)} ms${where(settled.phase, settled.sinceUs, nowUs)}` };
    }
    this.#answer(nowUs);
  }

  #note(block: number, found: VerifiedBlock, nowUs: number): void {
    this.#found[block] = found;
    this.#pending -= 1;
    if (this.#pending === 0) this.#answer(nowUs);
  }

  #answer(nowUs: number): void {
    const blocks = this.#found as VerifiedBlock[];
    this.#context.tasks.answer(this, { id: this.id, ok: true, blocks, complete: blocks.every((block) => block.finding !== 'unknown') }, nowUs);
  }
}

function where(phase: Done['phase'], sinceUs: number, nowUs: number): string {
  return phase === 'queue' ? ', before a lane had taken it up' : `, in ${phase} for ${ms(nowUs - sinceUs)} ms`;
}

function verified(done: Done): VerifiedBlock {
  const finding = FINDING_OF[done.status] ?? 'unknown';
  const block: VerifiedBlock = { finding };
  if (finding === 'sound') {
    block.stored_bytes = done.storedBytes;
    if (done.text === '') return block;
    const { created_us: createdUs, writer } = JSON.parse(done.text) as { created_us: number; writer?: string };
    block.created_ms = exactly(Math.floor(createdUs / 1000));
    if (writer !== undefined) block.writer = writer;
  } else if (done.text !== '') block.message = done.text;
  if (finding !== 'unknown') return block;
  block.code = CODE_OF[done.status as keyof typeof CODE_OF];
  block.phase = done.phase;
  if (done.errno !== 0) block.errno = errnoName(done.errno);
  return block;
}

/** Inode and nanoseconds stay the digits they came as; the rest fits a number, or is told as the largest. */
function entryOf({ name, type, bytes, allocatedBytes, modifiedNs, changedNs, inode }: Entry): ListEntry {
  return { name, type: TYPE_OF[type], bytes: exactly(bytes), allocated_bytes: exactly(allocatedBytes), modified_ms: msOf(modifiedNs), changed_ms: msOf(changedNs), inode, changed_ns: changedNs };
}

function exactly(bytes: number): number {
  return Math.min(bytes, LIMITS.id_max);
}

function msOf(ns: string): number {
  return Number(BigInt.asIntN(64, BigInt(ns)) / 1_000_000n); // before 1970 it comes as the largest numbers
}
