// lanes.ts — the only place that hands operations to native lanes and takes them back.
//
// Every operation that native knows is in one table until its lane is through with it, also long
// after its task was answered. settle() ends the owner's claim and says what became of the memory;
// finished() is the kernel giving something back, whoever still cares.
import type { Abandoned, Native, OpSpec, Phase, SharedSpec } from '../native/index.ts';
import type { Code } from '../protocol/messages.ts';
import { KeyGate } from './key_gate.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import { gateKeyOf, type Done, type Operation } from './operation.ts';
import type { Slots } from './slots.ts';

/** What settle() found. */
export interface Settled {
  state: 'gated' | Abandoned['state'];
  phase: Phase;
  sinceUs: number;
  /** The kernel may still touch the memory. */
  quarantined: boolean;
  found: Uint8Array | null;
}

export class Lanes {
  readonly gate = new KeyGate();
  #native: Native;
  #slots: Slots;
  #operations = new Map<number, Operation>();
  #nextId = 1;
  #fileMode: number;
  #durable: boolean;
  /** Slots given back since the last turn's end, all of them announced as quarantined before. */
  #freed: number[] = [];
  /** Gates handed on while a settlement is under way; started when it is complete. */
  #ready: Operation[] = [];
  lateCompletions = 0;

  constructor(native: Native, slots: Slots, fileMode: number, durable: boolean) {
    this.#native = native;
    this.#slots = slots;
    this.#fileMode = fileMode;
    this.#durable = durable;
  }

  submit(operation: Operation, nowUs: number): void {
    if (this.#enlist(operation)) this.#start(operation, nowUs);
    else this.#hurryHolder(operation);
  }

  /** The blocks of one task: those whose gate is open cross to native together. */
  submitBlocks(operations: readonly Operation[], nowUs: number): void {
    const ready: Operation[] = [];
    const gated: Operation[] = [];
    for (const operation of operations) (this.#enlist(operation) ? ready : gated).push(operation);
    for (let from = 0; from < ready.length; ) {
      const { namespace } = ready[from]!;
      let to = from + 1;
      while (to < ready.length && ready[to]!.namespace === namespace) to += 1;
      this.#startBlocks(from === 0 && to === ready.length ? ready : ready.slice(from, to), nowUs);
      from = to;
    }
    for (const operation of gated) this.#hurryHolder(operation);
  }

  /** Ends the owner's claim wherever it is: deadline, cancel, shutdown, joined probe. Calls no owner. */
  settle(operation: Operation, nowUs: number): Settled {
    if (operation.state === 'gated') {
      this.gate.quit(operation);
      this.#forget(operation);
      return { state: 'gated', phase: 'queue', sinceUs: nowUs, quarantined: false, found: null };
    }
    const abandoned = this.#native.abandon(operation.id);
    const { state, phase, sinceUs, found = null } = abandoned;
    const settled: Settled = { state, phase, sinceUs, quarantined: false, found };
    operation.phase = abandoned.phase;
    operation.sinceUs = abandoned.sinceUs;
    if (abandoned.state === 'queued') {
      this.#forget(operation);
      return settled;
    }
    operation.state = 'abandoned';
    if (abandoned.state === 'done') {
      // Its completion is on the way: nothing of it is in the kernel any more.
      this.#cameBack(operation);
      this.#letGo(operation);
      return settled;
    }
    settled.quarantined = true;
    operation.memory?.quarantine(operation.area);
    operation.group?.left(operation);
    if (abandoned.state === 'running') this.#leaveGate(operation); // it will not reach its rename any more
    return settled;
  }

  /** A completion from native, on time or late. */
  finished(done: Done, nowUs: number): void {
    const operation = this.#operations.get(done.id);
    if (operation === undefined) return; // dropped from the queue in the same instant
    const late = operation.state === 'abandoned';
    const wasInKernel = late && operation.inHand;
    if (late) this.lateCompletions += 1;
    this.#operations.delete(operation.id);
    this.#cameBack(operation);
    this.#letGo(operation);
    operation.state = 'finished';
    if (late) {
      if (wasInKernel) operation.group?.returned(operation, done, nowUs);
      operation.owner.returned?.(operation, done);
    } else {
      operation.group?.completed(operation, done, nowUs);
      operation.owner.completed(operation, done, nowUs);
    }
  }

  /** A class was suspended (of a device, or of one mount of it): what no lane has taken up yet is taken out and its owners are told. What a lane has stays as it is. */
  dropQueued(group: LaneGroup, code: Code, reason: string, nowUs: number, mount: Mount | null = null): void {
    // Newest first: the queue is first in, first out, so that a lane that looks into it meanwhile finds what is still in it.
    const newestFirst = this.inHandOf(group).reverse().filter((operation) => operation.kind !== 'probe' && (mount === null || operation.mount === mount)); // probes have a queue of their own
    // Waiters first: a gate that a queued one gives up must not start another of this class. Those
    // settled by an owner's answer meanwhile are passed over.
    for (const operation of newestFirst) {
      if (operation.state !== 'gated') continue;
      this.settle(operation, nowUs);
      operation.owner.dropped(operation, code, reason);
    }
    for (const operation of newestFirst) {
      if (operation.state !== 'submitted' || !this.#native.withdraw(operation.id)) continue;
      this.#forget(operation);
      operation.owner.dropped(operation, code, reason);
    }
  }

  /** Its mount lies on another device now, so what no lane has taken up yet waits there: the old one may hang for ever. */
  moveQueued(mount: Mount, from: LaneGroup, to: LaneGroup, nowUs: number): void {
    // Newest first, as in dropQueued(); started in the order they came.
    const newestFirst = this.inHandOf(from).reverse().filter((operation) => operation.mount === mount && operation.kind !== 'probe');
    const moving = newestFirst.filter(({ state, id }) => state === 'gated' || (state === 'submitted' && this.#native.withdraw(id)));
    for (const operation of moving.reverse()) {
      operation.group = to;
      operation.pool = to.pool;
      from.inHand -= 1;
      to.inHand += 1;
      if (operation.state === 'gated') continue;
      this.#operations.delete(operation.id);
      operation.id = this.#nextId;
      this.#nextId += 1;
      this.#operations.set(operation.id, operation);
      this.#start(operation, nowUs);
    }
  }

  /** At the end of every turn: operations whose gate opened, and the slots that came back. */
  endTurn(nowUs: number): number[] {
    for (let next = this.#ready.pop(); next !== undefined; next = this.#ready.pop()) {
      if (next.state !== 'gated') continue;
      this.#start(next, nowUs);
      if (this.gate.isAwaited(next.gateKey)) this.#native.hurry(next.id);
    }
    if (this.#freed.length === 0) return this.#freed;
    const freed = this.#freed;
    this.#freed = [];
    return freed;
  }

  operation(id: number): Operation | null {
    return this.#operations.get(id) ?? null;
  }

  /** In the order they were made. Looks at every operation of the process: for rare moments. */
  inHandOf(group: LaneGroup): Operation[] {
    return [...this.#operations.values()].filter((operation) => operation.group === group && operation.inHand);
  }

  /** As the gate calls them. Looks at every operation of the process. */
  keysOfLoads(): Set<string> {
    const keys = new Set<string>();
    for (const { kind, mount, namespace, hex } of this.#operations.values()) if (kind === 'load') keys.add(gateKeyOf(mount, namespace, hex));
    return keys;
  }

  /** False: it waits at its gate. */
  #enlist(operation: Operation): boolean {
    operation.id = this.#nextId;
    this.#nextId += 1;
    this.#operations.set(operation.id, operation);
    operation.inHand = true;
    if (operation.group !== null) operation.group.inHand += 1;
    if (operation.gateKey === '') return true;
    operation.holdsGate = this.gate.enter(operation);
    if (!operation.holdsGate) operation.state = 'gated';
    return operation.holdsGate;
  }

  // Its end lets another one go ahead, and must not wait for the rest of its own task.
  #hurryHolder(waiting: Operation): void {
    const holder = this.gate.holder(waiting.gateKey);
    if (holder !== null && holder.state === 'submitted') this.#native.hurry(holder.id);
  }

  #cameBack(operation: Operation): void {
    if (!operation.inHand) return;
    operation.inHand = false;
    if (operation.group !== null) operation.group.inHand -= 1;
  }

  #startBlocks(operations: readonly Operation[], nowUs: number): void {
    for (const operation of operations) {
      operation.state = 'submitted';
      operation.submittedUs = nowUs;
    }
    const { kind, mount, deadlineUs, namespace, pool } = operations[0]! as Operation & { kind: SharedSpec['kind'] };
    const shared = { kind, mount: mount.nativeId, rootGeneration: mount.rootGeneration, deadlineUs, namespace, durable: this.#durable, fileMode: this.#fileMode };
    this.#native.submitBlocks(pool, shared, operations);
  }

  #start(operation: Operation, nowUs: number): void {
    operation.state = 'submitted';
    operation.submittedUs = nowUs;
    this.#native.submit(operation.pool, this.#spec(operation));
  }

  #forget(operation: Operation): void {
    this.#operations.delete(operation.id);
    this.#cameBack(operation);
    this.#letGo(operation);
    operation.state = 'finished';
  }

  #letGo(operation: Operation): void {
    const memory = operation.memory;
    if (memory !== null) {
      operation.memory = null;
      if (memory.release(operation.area) && memory === this.#slots) this.#freed.push(operation.area);
    }
    this.#leaveGate(operation);
  }

  #leaveGate(operation: Operation): void {
    if (!operation.holdsGate) return;
    operation.holdsGate = false;
    const next = this.gate.leave(operation);
    if (next === null) return;
    next.holdsGate = true;
    this.#ready.push(next);
  }

  #spec(operation: Operation): OpSpec {
    const { id, namespace, hex, region, offset, bytes } = operation;
    const mount = operation.mount.nativeId;
    const rootGeneration = operation.mount.rootGeneration;
    const deadlineUs = operation.deadlineUs;
    const fileMode = this.#fileMode;
    switch (operation.kind) {
      case 'load':
        return { id, kind: 'load', mount, rootGeneration, deadlineUs, namespace, hex, region, offset, bytes };
      case 'store':
        return { id, kind: 'store', mount, rootGeneration, deadlineUs, namespace, hex, region, offset, bytes, replace: operation.replace, durable: this.#durable, fileMode };
      case 'lookup':
        return { id, kind: 'lookup', mount, rootGeneration, deadlineUs, namespace, names: operation.names };
      case 'remove':
        return { id, kind: 'remove', mount, rootGeneration, deadlineUs, namespace, hex, ...operation.asked };
      case 'aside':
        return { id, kind: 'aside', mount, rootGeneration, deadlineUs, namespace, hex, inode: operation.inode, fileMode };
      case 'identify':
        return { id, kind: 'identify', mount, rootGeneration, deadlineUs, create: operation.flag, fileMode };
      case 'namespace':
        return { id, kind: 'namespace', mount, rootGeneration, deadlineUs, namespace, fingerprint: operation.text, bump: operation.flag, fileMode };
      case 'tidy':
        return { id, kind: 'tidy', mount, rootGeneration, deadlineUs, olderUs: operation.olderUs, fileMode };
      case 'probe':
        return { id, kind: 'probe', mount, rootGeneration, deadlineUs, probeClass: operation.group!.laneClass, fileMode };
      case 'list':
      case 'verify':
      case 'remove_file':
      case 'touch':
      case 'lease':
        return { id, kind: operation.kind, mount, rootGeneration, deadlineUs, namespace, hex, names: operation.names, fileMode, ...operation.asked } as OpSpec;
    }
  }
}
