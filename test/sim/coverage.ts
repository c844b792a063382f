// coverage.ts — what a large run must have seen at least once. A state that the seeds never reach is not tested, whatever
// passes; so a large run that misses one fails.
import { CANCEL_STATES, CODES, LANE_CLASSES, NAMESPACE_STATES, PHASES, SLOT_WORDS, type Code, type Op } from '../../protocol/messages.ts';
import { SIMULATED_OPS } from './asked.ts';

/** Runs of fewer seeds may miss something by chance. */
export const ALL_FROM_SEEDS = 1_000;

const STEPS_OF_A_BREAKER = ['unknown -> ok', 'ok -> suspended', 'suspended -> probing', 'probing -> suspended', 'probing -> ok'];

/** What each op can be answered with, of the whole or of a block. */
const CODES_OF: Partial<Record<Op, readonly Code[]>> = {
  load: ['NOT_FOUND', 'CORRUPT', 'LENGTH_MISMATCH', 'DEADLINE_EXCEEDED', 'CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'WRONG_STORE', 'IO_ERROR', 'SLOT_BUSY', 'SHUTTING_DOWN'],
  store: ['DEADLINE_EXCEEDED', 'CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'WRONG_STORE', 'IO_ERROR', 'NO_SPACE', 'SLOT_BUSY', 'SHUTTING_DOWN'],
  remove: ['DEADLINE_EXCEEDED', 'CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'WRONG_STORE', 'IO_ERROR', 'SHUTTING_DOWN'],
  lookup: ['CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'WRONG_STORE', 'IO_ERROR', 'SHUTTING_DOWN'],
  namespace: ['DEADLINE_EXCEEDED', 'CANCELLED', 'MOUNT_SUSPENDED', 'SATURATED', 'KEY_BUSY', 'WRONG_STORE', 'IO_ERROR', 'SHUTTING_DOWN'],
};

export const WANTED: readonly string[] = [
  ...CODES.map((code) => `code ${code}`),
  ...Object.entries(CODES_OF).flatMap(([op, codes]) => codes.map((code) => `${code} ${op}`)),
  ...SIMULATED_OPS.map((op) => `ok ${op}`),
  ...(['load', 'store', 'remove'] as const).map((op) => `failed ${op}`),
  ...(['load', 'store', 'remove', 'lookup', 'namespace'] as const).map((op) => `refused ${op}`),
  ...LANE_CLASSES.flatMap((laneClass) => STEPS_OF_A_BREAKER.map((step) => `breaker ${laneClass}: ${step}`)),
  ...LANE_CLASSES.flatMap((laneClass) => [`breaker ${laneClass}: unknown -> suspended`, `breaker ${laneClass}: suspended -> ok`, `store lost ${laneClass}: unknown -> suspended`, `store lost ${laneClass}: ok -> suspended`]),
  ...CANCEL_STATES.map((state) => `cancel ${state}`),
  ...NAMESPACE_STATES.map((state) => `namespace ${state}`),
  ...SLOT_WORDS.map((word) => `slot ${word}`),
  ...PHASES.filter((phase) => phase !== 'queue').map((phase) => `stuck in ${phase}`),
  ...PHASES.filter((phase) => phase !== 'stat').map((phase) => `phase ${phase}`), // look-ups have no entries for what failed
  ...['queued', 'running', 'committing', 'done'].map((state) => `abandoned ${state}`),
  ...['ok', 'not_found', 'corrupt', 'length_mismatch', 'newer_format', 'io_error', 'no_space', 'wrong_store', 'expired', 'saturated'].map((status) => `native ${status}`),
  ...['ready', 'mount', 'stalled', 'recovered', 'slots_freed'].map((event) => `event ${event}`),
  ...['hang', 'resume', 'one bad file', 'slow', 'errors', 'unmounted', 'remounted', 'stop', 'stop inside a turn', 'kill', 'malformed', 'duplicate id', 'no threads', 'wrong store', 'mounted late', 'block damaged', 'block foreign', 'block newer'].map((fault) => `fault ${fault}`),
  ...['shutdown', 'signal', 'end of stdin'].map((why) => `leaves ${why}`),
  ...['kept', 'outcome unknown', 'lane retired', 'restart', 'all back', 'withdrawn', 'store learnt anew', 'probes beyond three', 'lookup in part at its deadline', 'lookup in part for an error', 'lookup of what was removed elsewhere', 'lookup without a lane', 'ready unknown', 'ready suspended'],
];
