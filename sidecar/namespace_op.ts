// namespace_op.ts — does this namespace hold what this engine would store?
//
// The generation lives on the mount and goes back to the client as `key_namespace`; nothing about it is
// kept here. Changing the record is a rename, so records of one name go through the gate like blocks.
import type { Code, Fingerprint, NamespaceState } from '../protocol/messages.ts';
import type { NamespaceRequest } from '../protocol/request.ts';
import { errnoName } from './errno.ts';
import type { LaneGroup } from './lane_group.ts';
import type { Mount } from './mount.ts';
import { Operation, type Done, type Owner } from './operation.ts';
import { CODE_OF, ms, type TaskContext } from './task_context.ts';
import { Task, type EndCode } from './task_table.ts';

interface Stored {
  state: NamespaceState;
  generation: number;
  fingerprint: Fingerprint;
}

export class NamespaceTask extends Task implements Owner {
  #request: NamespaceRequest;
  #mount: Mount;
  #context: TaskContext;
  #operation: Operation;

  constructor(request: NamespaceRequest, mount: Mount, group: LaneGroup, receivedUs: number, deadlineUs: number, context: TaskContext) {
    super(request.id, 'namespace', receivedUs, deadlineUs);
    this.#request = request;
    this.#mount = mount;
    this.#context = context;
    this.#operation = new Operation('namespace', mount, group, group.pool, this, 0, deadlineUs);
    this.#operation.namespace = request.name;
    this.#operation.text = request.fingerprint;
    this.#operation.flag = request.bump;
    this.#operation.gateKey = `${mount.storeId}:@${request.name}`; // no key begins with @
  }

  start(nowUs: number): void {
    this.#context.lanes.submit(this.#operation, nowUs);
  }

  startTooLate(nowUs: number): void {
    this.#refuse('DEADLINE_EXCEEDED', 'the deadline had passed when the request was read', 0, nowUs);
  }

  completed(_operation: Operation, done: Done): void {
    const nowUs = this.#context.nowUs();
    if (done.status !== 'ok') {
      this.#refuse(CODE_OF[done.status], `it ended in ${done.phase}${done.errno === 0 ? '' : ` with ${errnoName(done.errno)}`}${done.text === '' ? '' : `: ${done.text}`}`, done.errno, nowUs);
      return;
    }
    const { name } = this.#request;
    const { state, generation, fingerprint } = JSON.parse(done.text) as Stored;
    this.#context.tasks.answer(this, { id: this.id, ok: true, state, name, generation, key_namespace: `${name}@${generation}`, fingerprint }, nowUs);
  }

  dropped(_operation: Operation, code: Code, reason: string): void {
    this.#refuse(code, reason, 0, this.#context.nowUs());
  }

  conclude(code: EndCode, nowUs: number): void {
    const settled = this.#context.lanes.settle(this.#operation, nowUs);
    if (settled.quarantined && code === 'DEADLINE_EXCEEDED') this.#operation.group!.noteOverrun(this.#operation, nowUs);
    if (settled.state === 'gated' && code === 'DEADLINE_EXCEEDED') {
      this.#refuse('KEY_BUSY', 'an earlier change of this namespace is still in the kernel and may take effect', 0, nowUs);
      return;
    }
    const where = settled.phase === 'queue' ? 'before a lane had taken it up' : `in ${settled.phase} for ${ms(nowUs - settled.sinceUs)} ms`;
    const outcome = settled.state === 'committing' || settled.state === 'done' ? '; the record may change late' : '';
    this.#refuse(code, `stopped after ${ms(nowUs - this.receivedUs)} ms, ${where}${outcome}`, 0, nowUs);
  }

  #refuse(code: Code, why: string, errno: number, nowUs: number): void {
    const message = `namespace ${this.#request.name} on mount ${this.#mount.name}: ${why}`;
    const error = errno === 0 ? { code, message } : { code, message, errno: errnoName(errno) };
    this.#context.tasks.answer(this, { id: this.id, ok: false, error }, nowUs);
  }
}
