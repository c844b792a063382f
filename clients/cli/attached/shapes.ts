// shapes.ts — the parts of `stats` and of the greeting that tools read; sidecar/stats.ts paints them.
//
// Every field is what the sidecar says of itself: SHAPES below is what a tool believes, and what does not fit is no sidecar of this version.
import type { LaneClass, MountInfo, MountState, ReadyEvent } from '../../../protocol/messages.ts';
import { eachOf, maybe, oneOf, orNull, type Shape } from './tame.ts';

export type Hello = Omit<ReadyEvent, 'event'> & {
  parent_pid?: number;
  /** As /proc/PID/ns/pid names it: whether its pid and its threads' mean the same here. */
  pid_namespace?: string;
};

export interface HistogramFigures {
  /** One a bucket, not added up; the last is what lies above all bounds. */
  counts: number[];
  sum_ms: number;
}

export interface OpFigures {
  requests: number;
  ok: number;
  not_ok: number;
  /** Of the last 256. */
  p50_ms: number;
  p99_ms: number;
  max_ms: number;
  histogram: HistogramFigures;
}

export interface ClassFigures {
  state: MountState;
  reason?: string;
  suspended_for_ms?: number;
  engine: string;
  queued: number;
  running: number;
  lanes: number;
  lanes_stuck: number;
  lanes_stuck_max: number;
  oldest_in_kernel_ms: number;
  operations_abandoned: number;
  operations_done: number;
  operations_failed: number;
  operations_late: number;
  done_bytes: number;
  kernel_time: HistogramFigures;
  suspended_times: number;
  probes: number;
  probes_stuck: number;
}

/** Of a mount whose store has a limit; all but role absent before it is known. */
export interface CapacityFigures {
  role: 'holder' | 'waiting' | 'off';
  limit_bytes: number | null;
  used_bytes: number | null;
  reason?: string;
  blocks?: number;
  passes?: number;
  failed_passes?: number;
  last_pass_ms?: number;
  evicted_blocks?: number;
  evicted_bytes?: number;
  urged?: number;
  wants?: number;
  touched?: number;
  orphans_removed?: number;
}

export interface MountFigures extends MountInfo {
  capacity?: CapacityFigures;
  blocks_loaded: number;
  blocks_stored: number;
  blocks_kept: number;
  blocks_removed: number;
  loaded_bytes: number;
  stored_bytes: number;
  classes: Record<LaneClass, MountState>;
}

export interface SidecarStats {
  uptime_ms: number;
  outstanding: number;
  ops: Record<string, OpFigures>;
  refused: Record<string, number>;
  blocks_done: number;
  blocks_failed: Record<string, number>;
  loaded_bytes: number;
  stored_bytes: number;
  histogram_bounds_ms: number[];
  late_completions: number;
  arena: { bytes: number; backing: string; page_bytes: number; huge_bytes: number };
  slots: { free: number; in_flight: number; quarantined: number };
  staging: { areas: number; in_flight: number; quarantined: number };
  keys_gated: number;
  keys_bad: number;
  files_set_aside: number;
  mounts: MountFigures[];
  devices: { device: string; mounts: string[]; classes: Record<LaneClass, ClassFigures> }[];
  process: null | {
    cpu_percent: number | null;
    resident_bytes: number | null;
    cpu_user_ms: number;
    cpu_system_ms: number;
    resident_peak_bytes: number;
  };
  attached?: { readers: number; attached: number; turned_away: number; questions: number };
}

const histogram: Shape = { counts: ['number'], sum_ms: 'number' };
const state = oneOf('ok', 'unknown', 'suspended', 'probing');
const perClass = (shape: Shape): Shape => ({ load: shape, store: shape, metadata: shape });
const op: Shape = { requests: 'number', ok: 'number', not_ok: 'number', histogram };
const laneClass: Shape = {
  state, reason: maybe('text'), suspended_for_ms: maybe('number'), engine: 'text', queued: 'number', running: 'number', lanes: 'number', lanes_stuck: 'number', lanes_stuck_max: 'number', operations_done: 'number',
  operations_failed: 'number', operations_late: 'number', done_bytes: 'number', kernel_time: histogram, suspended_times: 'number', probes: 'number',
};
const capacity: Shape = {
  role: oneOf('holder', 'waiting', 'off'), limit_bytes: orNull('number'), used_bytes: orNull('number'), reason: maybe('text'), blocks: maybe('number'), passes: maybe('number'), failed_passes: maybe('number'), last_pass_ms: maybe('number'),
  evicted_blocks: maybe('number'), evicted_bytes: maybe('number'), urged: maybe('number'), wants: maybe('number'), touched: maybe('number'), orphans_removed: maybe('number'),
};
const mount: Shape = {
  name: 'text', root: 'text', device: orNull('text'), fs_type: maybe('text'), code: maybe('text'), reason: maybe('text'), blocks_loaded: 'number', blocks_stored: 'number', blocks_kept: 'number', blocks_removed: 'number', loaded_bytes: 'number',
  stored_bytes: 'number', classes: perClass(state), capacity: maybe(capacity),
};

/** Of what tools read, no more. */
export const SHAPES = {
  hello: { pid: 'number', parent_pid: maybe('number'), pid_namespace: maybe('text'), version: 'text', protocol: 'number', stall_ms: 'number', engine: maybe('text'), mounts: [{}] },
  stats: {
    uptime_ms: 'number', outstanding: 'number', ops: eachOf(op), refused: eachOf('number'), blocks_failed: eachOf('number'), histogram_bounds_ms: ['number'], late_completions: 'number',
    arena: { bytes: 'number', backing: 'text', huge_bytes: 'number' }, slots: { free: 'number', in_flight: 'number', quarantined: 'number' }, keys_gated: 'number', files_set_aside: 'number', mounts: [mount],
    devices: [{ device: 'text', mounts: ['text'], classes: perClass(laneClass) }],
    process: orNull({ resident_bytes: orNull('number'), cpu_user_ms: 'number', cpu_system_ms: 'number' }), attached: maybe({ readers: 'number' }),
  },
  stuck: [{ mount: 'text', class: 'text', kind: maybe('text'), phase: 'text', key: maybe('text'), slot: maybe('number'), tid: 'number', syscall: 'text', for_ms: 'number', settled: (value: unknown) => typeof value === 'boolean' }],
  more: maybe('number'),
} as const satisfies Record<string, Shape>;
