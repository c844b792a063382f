// store.ts — a sidecar of our own on one directory, and what is asked of it. No call on the mount is made here: a mount that hangs
// costs a message and an exit status.
//
// Each look has a deadline. After one that passed, or while the mount is suspended, it is asked once more, and given up after as
// long again. The sidecar makes no store, tidies nothing away and keeps no removed file: what is looked at stays as it was.
import { setTimeout as pause } from 'node:timers/promises';
import { Client } from '../../node/client.ts';
import type { Answers, ErrorAnswer, ErrorBody, FailedEntry, LaneClass, ListEntry, MountInfo, Op, SweepState, VerifiedBlock } from '../../../protocol/messages.ts';
import { LIMITS } from '../../../protocol/messages.ts';
import { thisLauncher } from '../console/link.ts';
import { smallProgram } from '../small_program.ts';
import { EXIT_FATAL, EXIT_UNSEEN, Wrong } from '../spec.ts';
import { duration } from '../text/units.ts';
import { shown } from './shown.ts';

const MOUNT = 'kv0';
/** A slow disk reads more; a block is given so long beyond --timeout-ms. */
const VERIFY_BYTES_PER_MS_MIN = 10_000;
/** Of one block; no block is larger, but a header may say so. */
const VERIFY_EXTRA_MS_MAX = 600_000;
/** After it the sidecar is left behind; it ends with its stdin. */
const LEAVE_MS = 300;
/** Beyond the time for the mount, for the process itself. */
const START_MS = 10_000;
/** To name what is in a directory that is no store. */
const NAMES_SHOWN_MAX = 8;
/** Until lanes are free again, of which there is no event. */
const SATURATED_REST_MS = 100;
/** What is stuck is in the sidecar's memory; most of it is a busy machine. */
const STUCK_ANSWER_MS = 2_000;
const PASSING: ReadonlySet<string> = new Set(['DEADLINE_EXCEEDED', 'MOUNT_SUSPENDED', 'SATURATED']);
const CLASS: Partial<Record<Op, LaneClass>> = { verify: 'load' };

export interface Removed {
  done: number;
  failed: FailedEntry[];
}

export interface Store {
  readonly directory: string;
  readonly mount: MountInfo;
  /** The names in one directory, as many at a time as one answer holds; none where it is not there. */
  list(path: string): AsyncGenerator<ListEntry>;
  /** `bytes`: about so many are read. */
  verify(keys: readonly string[], bytes: number): Promise<VerifiedBlock[]>;
  present(keys: readonly string[]): Promise<(boolean | null)[]>;
  remove(keys: readonly string[]): Promise<Removed>;
  sweep(path: string, entry: ListEntry): Promise<SweepState>;
  close(): Promise<void>;
}

export async function openStore(directory: string, timeoutMs: number, notice: (text: string) => void): Promise<Store> {
  const native = process.env['KVLANE_NATIVE'];
  const client = await Client.spawn({
    mounts: { [MOUNT]: directory },
    main: thisLauncher(),
    args: ['--no-attach', '--no-tidy', '--recycle', 'off', '--arena-mib', '1', '--slot-bytes', '4096', '--timeout-ms', String(timeoutMs), '--test-start-wait-ms', String(timeoutMs)],
    ...(native === undefined ? {} : { env: { KVLANE_NATIVE: native } }),
    startMs: timeoutMs + START_MS,
  });
  client.setMaxListeners(0);
  const mount = client.ready.mounts[0]!;
  if (mount.store_id === undefined) {
    const wrong = await whyNot(client, directory, mount, timeoutMs);
    await client.shutdown(LEAVE_MS);
    throw wrong;
  }

  /** Settles within twice the time. What it ends with is an answer, or a Wrong with what is known. */
  async function ask<O extends Op>(op: O, fields: object, what: string, ms: number): Promise<Answers[O]> {
    const untilMs = performance.now() + 2 * ms;
    for (let said = false; ; said = true) {
      const leftMs = Math.min(ms, Math.floor(untilMs - performance.now()));
      const answer = (await client.request(op, { mount: MOUNT, ...fields, timeout_ms: Math.max(1, leftMs) } as never)) as Answers[O] | ErrorAnswer;
      if (!('error' in answer)) return answer;
      const { error } = answer;
      const mayPass = PASSING.has(error.code) && performance.now() < untilMs - 1;
      if (!mayPass) throw await failure(client, what, error);
      if (!said) notice(`${what}: ${shown(error.message)}; the mount is waited for, ${duration(Math.max(0, untilMs - performance.now()))} more`);
      const restMs = Math.max(0, untilMs - performance.now() - 1);
      if (error.code === 'SATURATED') await pause(Math.min(restMs, SATURATED_REST_MS));
      if (error.code === 'MOUNT_SUSPENDED') {
        await client.nextEvent('mount', restMs, (event) => event.state === 'ok' && event.class === (CLASS[op] ?? 'metadata'));
      }
    }
  }

  return {
    directory,
    mount,
    async *list(path) {
      for (let cookie: string | null = ''; cookie !== null; ) {
        let page: Answers['list'];
        try {
          page = await ask('list', { path, ...(cookie === '' ? {} : { cookie }) }, `listing ${path}`, timeoutMs);
        } catch (error) {
          if (error instanceof Unanswered && error.code === 'NOT_FOUND') return;
          throw error;
        }
        yield* page.entries;
        cookie = page.cookie;
      }
    },
    async verify(keys, bytes) {
      const extraMs = Math.min(VERIFY_EXTRA_MS_MAX, Math.ceil(bytes / VERIFY_BYTES_PER_MS_MIN));
      return (await ask('verify', { keys: [...keys] }, `reading ${keys.length === 1 ? keys[0]! : `${keys[0]!} and ${keys.length - 1} more`}`, Math.min(LIMITS.timeout_ms_max, timeoutMs + extraMs))).blocks;
    },
    async present(keys) {
      return (await ask('lookup', { keys: [...keys] }, `looking for ${keys.length} blocks`, timeoutMs)).present;
    },
    async remove(keys) {
      const { done, failed = [] } = await ask('remove', { keys: [...keys] }, `removing ${keys.length} blocks`, timeoutMs);
      return { done, failed };
    },
    async sweep(path, { inode, changed_ns }) {
      return (await ask('sweep', { path, inode, changed_ns }, `removing ${path}`, timeoutMs)).state;
    },
    async close() {
      await client.shutdown(LEAVE_MS);
    },
  };
}

/** It was asked, and not answered as was hoped: what is known of it. */
export class Unanswered extends Wrong {
  readonly code: string;
  constructor(message: string, code: string) {
    super(message, code === 'SIDECAR_GONE' ? EXIT_FATAL : EXIT_UNSEEN);
    this.code = code;
  }

  /** Not of the mount: the next name may well be answered. */
  get isOfOneName(): boolean {
    return this.code === 'IO_ERROR';
  }
}

async function failure(client: Client, what: string, error: Pick<ErrorBody, 'message'> & { code: string }): Promise<Unanswered> {
  const stuck = PASSING.has(error.code) ? await stuckCalls(client) : [];
  return new Unanswered([`${what}: ${error.code}: ${shown(error.message)}`, ...stuck].join('\n  '), error.code);
}

async function stuckCalls(client: Client): Promise<string[]> {
  const answer = await client.request('stuck', { timeout_ms: STUCK_ANSWER_MS } as never);
  if (!('stuck' in answer)) return [];
  const calls = answer.stuck.filter((call) => call.kind !== 'probe').slice(0, 4);
  return (calls.length > 0 ? calls : answer.stuck.slice(0, 1)).map((call) => `in the kernel for ${duration(call.for_ms)}: ${call.kind ?? call.class}${call.key === undefined ? '' : ` of ${call.key}`}, ${call.phase} (${call.syscall}), thread ${call.tid}`);
}

/** Why this directory cannot be looked at: it hangs, or it is no store, and then what it is. */
async function whyNot(client: Client, directory: string, mount: MountInfo, timeoutMs: number): Promise<Wrong> {
  const reason = shown(mount.reason ?? 'it did not answer');
  if (mount.code === undefined || PASSING.has(mount.code) || mount.state === 'unknown') {
    return new Unanswered([`${shown(directory)} did not answer for ${duration(timeoutMs)}: ${reason}`, ...(await stuckCalls(client))].join('\n  '), 'DEADLINE_EXCEEDED');
  }
  const inside = await contents(directory, timeoutMs);
  return new Wrong(`${shown(directory)} is no store that can be looked at: ${reason}${inside === '' ? '' : `\n  ${inside}`}`);
}

/** By a program that is waited for so long and no longer: it is no store, so no lane may go there. '': it could not say. */
async function contents(directory: string, timeoutMs: number): Promise<string> {
  const said = await smallProgram(['find', `${directory}/`, '-maxdepth', '1', '-printf', '%d%y %f\\0'], '', timeoutMs);
  const told = said.split('\0').slice(0, -1);
  if (!told.some((one) => one.startsWith('0'))) return ''; // not even itself: it hangs, or this find does not know -printf
  const names = told.filter((one) => one.startsWith('1')).map((one) => one.slice(1));
  if (names.length === 0) return 'nothing is in it that can be seen; where a mount should be, is it mounted? A store is made by: kvlane serve --mount NAME=DIR --create';
  const some = names.slice(0, NAMES_SHOWN_MAX).map((name) => `${shown(name.slice(2))}${name.startsWith('d') ? '/' : ''}`);
  const inside = names.filter((name) => name.startsWith('d')).length;
  return `in it: ${some.join(', ')}${names.length > some.length ? ' and more' : ''}${inside > 0 && !names.includes('d blocks') ? '; is the store one of these directories?' : ''}`;
}
