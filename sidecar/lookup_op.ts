// lookup_op.ts — which of many blocks exist; the only op that answers half a result.
//
// Names go to the lanes in chunks, the first ones first, because an engine asks for the longest prefix.
// What the index knows to be there is not asked for; a lane is asked from the first to the last name that it does not know.
// At the deadline the answer says what is proven by then, also from inside a chunk that is still under
// way: true and false are facts, null is "not known".
import type { Code } from '../protocol/messages.ts';
import type { LookupRequest } from '../protocol/request.ts';
import { errnoName } from './errno.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import { CODE_OF, type TaskContext } from './task_context.ts';
import { Task, type EndCode } from './task_table.ts';

/** Names in one operation: few enough that the lanes share a large look-up, many enough that handing over costs nothing. */
export const LOOKUP_CHUNK_NAMES = 256;

const UNKNOWN = 0;
const ABSENT = 1;
const PRESENT = 2;

export class LookupTask extends Task implements Owner {
  #request: LookupRequest;
  #mount: Mount;
  #group: LaneGroup;
  #context: TaskContext;
  #operations: Operation[] = [];
  #pending = 0;
  /** UNKNOWN, ABSENT or PRESENT, of each name. */
  #found: Uint8Array;
  /** Removals that the index knew of at the start. */
  #removals = 0;
  #trouble: { code: Code; errno: number; detail: string } | null = null;

  constructor(request: LookupRequest, mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request.id, 'lookup', receivedUs, deadlineUs, request.blocks.hexes.length);
    this.#request = request;
    this.#mount = mount;
    this.#group = group;
    this.#context = context;
    this.#found = new Uint8Array(request.blocks.hexes.length);
  }

  start(nowUs: number): void {
    const { namespaces, hexes } = this.#request.blocks;
    this.#removals = this.#context.index.removals;
    this.#askIndex(nowUs);
    for (let first = 0; first < hexes.length; ) {
      if (this.#found[first] !== UNKNOWN) {
        first += 1;
        continue;
      }
      const namespace = namespaces[first]!;
      let end = first + 1;
      for (let next = end; next < hexes.length && next - first < LOOKUP_CHUNK_NAMES && namespaces[next] === namespace; next += 1) {
        if (this.#found[next] === UNKNOWN) end = next + 1;
      }
      const operation = new Operation('lookup', this.#mount, this.#group, this.#group.pool, this, first, this.deadlineUs);
      operation.namespace = namespace;
      operation.names = hexes.slice(first, end);
      this.#operations.push(operation);
      first = end;
    }
    this.#pending = this.#operations.length;
    for (const operation of this.#operations) this.#context.lanes.submit(operation, nowUs);
    if (this.#operations.length === 0) this.#answer(nowUs);
  }

  /** The deadline had passed before anything could be started: nothing is proven. */
  startTooLate(nowUs: number): void {
    this.#answer(nowUs);
  }

  completed(operation: Operation, done: Done, nowUs: number): void {
    if (done.found !== undefined) {
      this.#learn(done.found, operation.index);
      this.#tellIndex(operation, done.found, nowUs);
    }
    if (done.status !== 'ok' && done.status !== 'expired') this.#trouble ??= { code: CODE_OF[done.status], errno: done.errno, detail: done.text };
    this.#pending -= 1;
    if (this.#pending === 0) this.#answer(nowUs);
  }

  dropped(_operation: Operation, code: Code, reason: string): void {
    this.#trouble ??= { code, errno: 0, detail: reason };
    this.#pending -= 1;
    if (this.#pending === 0) this.#answer(this.#context.nowUs());
  }

  conclude(code: EndCode, nowUs: number): void {
    for (let i = this.#operations.length - 1; i >= 0; i -= 1) {
      const operation = this.#operations[i]!; // last first, as in block_ops.ts
      if (operation.state === 'finished') continue;
      const settled = this.#context.lanes.settle(operation, nowUs);
      if (settled.found !== null) {
        this.#learn(settled.found, operation.index);
        this.#tellIndex(operation, settled.found, nowUs);
      }
      if (settled.quarantined && code === 'DEADLINE_EXCEEDED') operation.group!.noteOverrun(operation, nowUs);
    }
    if (code === 'DEADLINE_EXCEEDED') this.#answer(nowUs);
    else this.#refuse(code, `lookup of ${this.#found.length} blocks on mount ${this.#mount.name} was ${code === 'CANCELLED' ? 'cancelled' : 'ended by the shutdown'}`, 0, nowUs);
  }

  #askIndex(nowUs: number): void {
    const { index } = this.#context;
    if (!index.believes(this.#mount)) return;
    const { namespaces, hexes } = this.#request.blocks;
    for (let i = 0; i < hexes.length; i += 1) if (index.has(this.#mount, namespaces[i]!, hexes[i]!, nowUs)) this.#found[i] = PRESENT;
  }

  // What one does not know, as when the deadline cut it short, takes nothing from what the index knew.
  #learn(found: Uint8Array, from: number): void {
    for (let i = 0; i < found.length; i += 1) if (found[i] !== UNKNOWN) this.#found[from + i] = found[i]!;
  }

  #tellIndex(operation: Operation, found: Uint8Array, nowUs: number): void {
    const { index } = this.#context;
    if (!index.believes(this.#mount)) return;
    const { namespace, names } = operation;
    for (let i = 0; i < found.length; i += 1) {
      if (found[i] === PRESENT) index.note(this.#mount, namespace, names[i]!, this.#removals, this.receivedUs, nowUs);
      else if (found[i] === ABSENT) index.forget(this.#mount, namespace, names[i]!);
    }
  }

  #answer(nowUs: number): void {
    const trouble = this.#trouble;
    if (trouble !== null && this.#found.every((one) => one === UNKNOWN)) {
      const said = [trouble.errno === 0 ? '' : errnoName(trouble.errno), trouble.detail].filter((one) => one !== '').join(': ');
      this.#refuse(trouble.code, `lookup of ${this.#found.length} blocks on mount ${this.#mount.name} proved nothing${said === '' ? '' : `: ${said}`}`, trouble.errno, nowUs);
      return;
    }
    const present = new Array<boolean | null>(this.#found.length);
    let prefix = 0;
    let complete = true;
    for (let i = 0; i < present.length; i += 1) {
      const found = this.#found[i]!;
      present[i] = found === UNKNOWN ? null : found === PRESENT;
      if (found === UNKNOWN) complete = false;
      if (found === PRESENT && prefix === i) prefix += 1;
    }
    this.#context.tasks.answer(this, { id: this.id, ok: true, present, prefix, complete }, nowUs);
  }

  #refuse(code: Code, message: string, errno: number, nowUs: number): void {
    const error = errno === 0 ? { code, message } : { code, message, errno: errnoName(errno) };
    this.#context.tasks.answer(this, { id: this.id, ok: false, error }, nowUs);
  }
}
