// dispatcher.ts — a request to its handler; what cannot be started is refused here, at once.
//
// Everything in this file runs between two system calls of nobody: no lane is asked, so a refusal takes
// microseconds however sick the mount is.
import type { LaneClass, Native, StuckCall } from '../native/index.ts';
import type { Answer, Code, StuckEntry } from '../protocol/messages.ts';
import type { MountRequest, Request } from '../protocol/request.ts';
import { BlockTask } from './block_ops.ts';
import { errnoName } from './errno.ts';
import { help } from './help.ts';
import { ListTask, SweepTask, VerifyTask } from './inspect_ops.ts';
import type { Mount } from './mount.ts';
import { LookupTask } from './lookup_op.ts';
import type { Mounts } from './mounts.ts';
import { NamespaceTask } from './namespace_op.ts';
import type { Operation } from './operation.ts';
import { stuckEntry } from './stuck_report.ts';
import { ms, type TaskContext } from './task_context.ts';
import { NAMES_MAX, TASKS_MAX } from './task_table.ts';

/** Operations in hand of one class of one device; more would only wait past their deadlines. */
export const OPERATIONS_MAX = 65_536;
/** Answer lines are bounded: 4,096 stuck calls of 250 bytes each fit in one. */
const STUCK_LISTED_MAX = 3000;
/** How long a `shutdown` without timeout_ms waits for what is in flight. */
export const SHUTDOWN_TIMEOUT_MS = 500;

const CLASS_OF: Record<MountRequest['op'], LaneClass> = { load: 'load', store: 'store', lookup: 'metadata', remove: 'metadata', namespace: 'metadata', list: 'metadata', sweep: 'metadata', verify: 'load' };

export interface DispatcherContext {
  tasks: TaskContext;
  native: Native;
  mounts: Mounts;
  timeoutMs: number;
  stats(): Record<string, unknown>;
  send(answer: Answer): void;
  onShutdown(timeoutMs: number): void;
}

export class Dispatcher {
  /** Set by a drain: new work is refused, questions are still answered. */
  leaving = false;
  #context: DispatcherContext;

  constructor(context: DispatcherContext) {
    this.#context = context;
  }

  handle(request: Request, nowUs: number): void {
    const { tasks } = this.#context.tasks;
    if (tasks.has(request.id)) {
      const message = `id ${JSON.stringify(request.id)} belongs to a request that is not answered yet; it goes on, this line was ignored`;
      this.#context.send({ id: null, ok: false, error: { code: 'DUPLICATE_ID', message }, duplicate_of: request.id, line: request.line });
      return;
    }
    this.#context.tasks.stats.received(request.op);
    const { id } = request;
    switch (request.op) {
      case 'cancel':
        this.#context.send({ id, ok: true, state: tasks.cancel(request.task, nowUs) });
        return;
      case 'stats':
        this.#context.send({ id, ok: true, stats: this.stats() });
        return;
      case 'stuck':
        this.#context.send({ id, ok: true, ...this.stuck(request.overMs) });
        return;
      case 'ping':
        this.#context.send({ id, ok: true, now_us: nowUs });
        return;
      case 'help':
        this.#context.send({ id, ok: true, help: this.help() });
        return;
      case 'shutdown':
        this.leaving = true;
        this.#context.send({ id, ok: true });
        this.#context.onShutdown(request.timeoutMs ?? SHUTDOWN_TIMEOUT_MS);
        return;
      default:
        this.#work(request, nowUs);
    }
  }

  stats(): Record<string, unknown> {
    return this.#context.stats();
  }

  help(): Record<string, unknown> {
    return help(this.#context.mounts.all.map((mount) => mount.name), this.#context.timeoutMs);
  }

  /** Oldest first. */
  stuck(overMs: number | undefined, listedMax = STUCK_LISTED_MAX): { stuck: StuckEntry[]; more?: number } {
    const calls: { call: StuckCall; operation: Operation }[] = [];
    for (const call of this.#context.native.stuck(overMs !== undefined)) {
      const operation = this.#context.tasks.lanes.operation(call.id);
      if (operation !== null && call.forUs >= (overMs ?? 0) * 1000) calls.push({ call, operation });
    }
    calls.sort((a, b) => a.call.sinceUs - b.call.sinceUs);
    const stuck = calls.slice(0, listedMax).map(({ call, operation }) => stuckEntry(call, operation));
    return calls.length > stuck.length ? { stuck, more: calls.length - stuck.length } : { stuck };
  }

  #work(request: MountRequest, nowUs: number): void {
    const mount = this.#context.mounts.named(request.mount);
    const refusal = this.#refusal(request, mount, nowUs);
    if (refusal !== null) {
      this.#refuse(request, refusal.code, refusal.message, refusal.errno);
      return;
    }
    const context = this.#context.tasks;
    const group = mount!.device!.groups[CLASS_OF[request.op]];
    const deadlineUs = request.deadlineUs ?? nowUs + (request.timeoutMs ?? this.#context.timeoutMs) * 1000;
    let task;
    if (request.op === 'lookup') task = new LookupTask(request, mount!, group, nowUs, deadlineUs, context);
    else if (request.op === 'namespace') task = new NamespaceTask(request, mount!, group, nowUs, deadlineUs, context);
    else if (request.op === 'list') task = new ListTask(request, mount!, group, nowUs, deadlineUs, context);
    else if (request.op === 'sweep') task = new SweepTask(request, mount!, group, nowUs, deadlineUs, context);
    else if (request.op === 'verify') task = new VerifyTask(request, mount!, group, nowUs, deadlineUs, context);
    else {
      task = new BlockTask(request, mount!, nowUs, deadlineUs, context);
      const obstacle = deadlineUs <= nowUs ? null : task.obstacle();
      if (obstacle !== null) {
        this.#refuse(request, obstacle.code, obstacle.message);
        return;
      }
    }
    context.tasks.add(task);
    if (deadlineUs <= nowUs) task.startTooLate(nowUs);
    else task.start(nowUs);
  }

  #refusal(request: MountRequest, mount: Mount | null, nowUs: number): { code: Code; message: string; errno?: number } | null {
    if (this.leaving) return { code: 'SHUTTING_DOWN', message: 'the sidecar is leaving; nothing was started' };
    if (mount === null) return { code: 'INVALID_REQUEST', message: `there is no mount ${JSON.stringify(request.mount)}; there is ${this.#context.mounts.all.map((one) => one.name).join(', ')}` };
    if (mount.standing !== 'right') {
      const code = mount.standing === 'unheard' ? 'MOUNT_SUSPENDED' : mount.code;
      return { code, errno: mount.errno, message: `mount ${mount.name}: ${mount.reason === '' ? `${mount.root} has not answered yet` : mount.reason}; it is looked at all the time and used again by itself` };
    }
    const laneClass = CLASS_OF[request.op];
    const group = mount.device!.groups[laneClass];
    if (group.breaker.isOpen()) {
      return { code: 'MOUNT_SUSPENDED', message: `mount ${mount.name} is suspended for ${laneClass} since ${ms(nowUs - group.breaker.openedUs)} ms: ${group.breaker.reason}; it is probed all the time, a mount event says when it is used again` };
    }
    if (this.#context.tasks.tasks.size() >= TASKS_MAX) return { code: 'SATURATED', message: `${TASKS_MAX} requests are unanswered; wait for answers before sending more` };
    if (request.op === 'lookup' && this.#context.tasks.tasks.names + request.blocks.hexes.length > NAMES_MAX) {
      return { code: 'SATURATED', message: `${this.#context.tasks.tasks.names} names of look-ups are unanswered, the limit is ${NAMES_MAX}; wait for answers before sending more` };
    }
    if (group.inHand >= OPERATIONS_MAX) return { code: 'SATURATED', message: `${OPERATIONS_MAX} ${laneClass} operations wait on mount ${mount.name}; wait for answers before sending more` };
    if (group.saturated()) {
      return { code: 'SATURATED', message: `all lanes for ${laneClass} on mount ${mount.name} are stuck in the kernel (${group.abandoned} calls) and --stuck-max allows no more; a recovered event says when to try again` };
    }
    return null;
  }

  #refuse(request: MountRequest, code: Code, message: string, errno = 0): void {
    this.#context.tasks.stats.refusedWith(request.op, code);
    this.#context.send({ id: request.id, ok: false, error: errno === 0 ? { code, message } : { code, message, errno: errnoName(errno) } });
  }
}
