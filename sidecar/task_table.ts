// task_table.ts — every request in flight, and the single place where one is answered.
//
// Whatever comes first settles a task: its last completion, its deadline, a cancel, the shutdown. What
// comes later only retires its lane and frees its memory; the task is not in here any more and its id
// is free.
import type { Answer, Code, Id, Op } from '../protocol/messages.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import type { Stats } from './stats.ts';

/** Queued work is memory; a client that is this far ahead gains nothing by being further. */
export const TASKS_MAX = 16_384;
/** Names in look-ups, some hundred bytes each here and in the core: 256 of the largest ones. What else asks for many blocks has slots, which are few. */
export const NAMES_MAX = 1_048_576;
/** Ids that were answered lately: what a cancel that crossed its task's answer may ask for. */
const SETTLED_REMEMBERED = 1024;

export type EndCode = Extract<Code, 'DEADLINE_EXCEEDED' | 'CANCELLED' | 'SHUTTING_DOWN'>;

export abstract class Task implements Alarm {
  atUs = 0;
  heapIndex = -1;
  order = 0;
  readonly id: Id;
  readonly op: Op;
  readonly receivedUs: number;
  readonly deadlineUs: number;
  /** Counted against NAMES_MAX. */
  readonly names: number;

  constructor(id: Id, op: Op, receivedUs: number, deadlineUs: number, names = 0) {
    this.id = id;
    this.op = op;
    this.receivedUs = receivedUs;
    this.deadlineUs = deadlineUs;
    this.names = names;
  }

  ring(nowUs: number): void {
    this.conclude('DEADLINE_EXCEEDED', nowUs);
  }

  /** Gives up what is unfinished and answers; called at most once, and never after the answer. */
  abstract conclude(code: EndCode, nowUs: number): void;
}

export class TaskTable {
  #tasks = new Map<Id, Task>();
  #settled: Id[] = [];
  #settledNext = 0;
  #deadlines: Deadlines;
  #stats: Stats;
  #send: (answer: Answer) => void;
  /** All there ever were. */
  added = 0;
  /** Of those that are unanswered. */
  names = 0;
  /** Called when the last task is answered. */
  onEmpty: (() => void) | null = null;

  constructor(deadlines: Deadlines, stats: Stats, send: (answer: Answer) => void) {
    this.#deadlines = deadlines;
    this.#stats = stats;
    this.#send = send;
  }

  has(id: Id): boolean {
    return this.#tasks.has(id);
  }

  size(): number {
    return this.#tasks.size;
  }

  add(task: Task): void {
    if (this.#tasks.has(task.id)) throw new Error(`task ${task.id} is in flight already`);
    this.#tasks.set(task.id, task);
    this.added += 1;
    this.names += task.names;
    this.#deadlines.set(task, task.deadlineUs);
  }

  answer(task: Task, answer: Answer, nowUs: number): void {
    if (this.#tasks.get(task.id) !== task) throw new Error(`task ${task.id} was answered already`);
    this.#tasks.delete(task.id);
    this.names -= task.names;
    this.#deadlines.clear(task);
    this.#settled[this.#settledNext] = task.id;
    this.#settledNext = (this.#settledNext + 1) % SETTLED_REMEMBERED;
    this.#stats.answered(task.op, answer.ok, nowUs - task.receivedUs);
    this.#send(answer);
    if (this.#tasks.size === 0) this.onEmpty?.();
  }

  cancel(id: Id, nowUs: number): 'cancelled' | 'already_settled' | 'unknown' {
    const task = this.#tasks.get(id);
    if (task === undefined) return this.#settled.includes(id) ? 'already_settled' : 'unknown';
    task.conclude('CANCELLED', nowUs);
    return 'cancelled';
  }

  concludeAll(code: EndCode, nowUs: number): void {
    for (const task of [...this.#tasks.values()]) if (this.#tasks.get(task.id) === task) task.conclude(code, nowUs);
  }
}
