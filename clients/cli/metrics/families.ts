// families.ts — every metric that is told: name, type, help, labels, and where in a look at a sidecar its values are.
//
// Names follow Prometheus: base units, `_total` on counters; what a process costs has OpenTelemetry's names (process.cpu.time →
// process_cpu_time_seconds_total). What the vLLM connector tells from its side too is called the same there, with `vllm:` before it, and
// means the same (clients/python/src/kvlane/vllm/stats.py). pid and mount are labels of all that have one.
import { PROTOCOL } from '../../../protocol/messages.ts';
import type { Look } from '../attached/look.ts';
import type { CapacityFigures, ClassFigures, HistogramFigures } from '../attached/shapes.ts';

type Up = Extract<Look, { up: true }>;
export type Labels = Record<string, string>;
export type Sample = { labels: Labels; value: number } | { labels: Labels; histogram: HistogramFigures; boundsMs: readonly number[] };

export interface Family {
  name: string;
  type: 'gauge' | 'counter' | 'histogram';
  help: string;
  /** Beside pid. */
  labels: readonly string[];
  read(up: Up): Sample[];
}

/** As BREAKER_… in stats.py. */
export const BREAKER_VALUES = { ok: 0, probing: 1, suspended: 2, unknown: 3 } as const;
const CLASSES = ['load', 'store', 'metadata'] as const;

const one = (value: number, labels: Labels = {}): Sample[] => [{ labels, value }];
const seconds = (ms: number): number => ms / 1000;

function perMount(read: (mount: Up['stats']['mounts'][number]) => number) {
  return (up: Up): Sample[] => up.stats.mounts.map((mount) => ({ labels: { mount: mount.name }, value: read(mount) }));
}

/** Of the mounts whose store has a limit, what is known. */
function perCapacity(read: (capacity: CapacityFigures) => number | null | undefined) {
  return (up: Up): Sample[] =>
    up.stats.mounts.flatMap(({ name, capacity }) => {
      const value = capacity === undefined ? null : read(capacity);
      return value == null ? [] : one(value, { mount: name });
    });
}

function perClass(read: (figures: ClassFigures) => number | Record<string, number>, label?: string) {
  return (up: Up): Sample[] =>
    up.stats.devices.flatMap(({ device, classes }) =>
      CLASSES.flatMap((name): Sample[] => {
        const found = read(classes[name]);
        const labels = { device, class: name };
        if (typeof found === 'number') return one(found, labels);
        return Object.entries(found).map(([word, value]) => ({ labels: { ...labels, [label!]: word }, value }));
      }),
    );
}

function perCall(read: (forMs: number[]) => number) {
  return (up: Up): Sample[] =>
    up.stats.mounts.flatMap((mount) => CLASSES.map((name) => ({ labels: { mount: mount.name, class: name }, value: read(up.stuck.filter((call) => call.mount === mount.name && call.class === name).map((call) => call.for_ms)) })));
}

/** What can be named beforehand is told from the start, as 0: a rate needs a value before the first incident. */
const REFUSALS = ['MOUNT_SUSPENDED', 'SATURATED', 'SLOT_BUSY'];
const FAILURES = ['NOT_FOUND', 'DEADLINE_EXCEEDED', 'CORRUPT', 'IO_ERROR', 'NO_SPACE', 'KEY_BUSY', 'MOUNT_SUSPENDED'];
const OPS = ['load', 'store', 'lookup', 'remove'];

const perWord = (label: string, known: readonly string[], read: (up: Up) => Record<string, number>) => (up: Up): Sample[] =>
  Object.entries({ ...Object.fromEntries(known.map((word) => [word, 0])), ...read(up) }).map(([word, value]) => ({ labels: { [label]: word }, value }));

function perOp(read: (op: string, figures: { ok: number; not_ok: number; histogram: HistogramFigures }, up: Up) => Sample[]) {
  return (up: Up): Sample[] => {
    const none = { ok: 0, not_ok: 0, histogram: { counts: new Array<number>(up.stats.histogram_bounds_ms.length + 1).fill(0), sum_ms: 0 } };
    return [...new Set([...OPS, ...Object.keys(up.stats.ops)])].flatMap((op) => read(op, up.stats.ops[op] ?? none, up));
  };
}

/** Told also of one that does not answer. */
export const UP = { name: 'kvlane_sidecar_up', help: '1 while the sidecar answers whoever is attached; 0: its socket accepts, or should, and no answer comes.', type: 'gauge' } as const;

export const FAMILIES: readonly Family[] = [
  // What a hang shows in.
  { name: 'kvlane_breaker', type: 'gauge', labels: ['mount', 'class'], help: 'State of the mount per class: 0 ok, 1 probing, 2 suspended, 3 unknown (nothing asked yet).',
    read: (up) => up.stats.mounts.flatMap((mount) => CLASSES.map((name) => ({ labels: { mount: mount.name, class: name }, value: BREAKER_VALUES[mount.classes[name]] }))) },
  { name: 'kvlane_stuck', type: 'gauge', labels: ['mount', 'class'], help: 'System calls that sit in the kernel now, over --stall-ms or given up; the oldest 256 of a sidecar are counted.', read: perCall((forMs) => forMs.length) },
  { name: 'kvlane_stuck_oldest_seconds', type: 'gauge', labels: ['mount', 'class'], help: 'How long the oldest of them has been there; 0 without any.', read: perCall((forMs) => seconds(Math.max(0, ...forMs))) },
  { name: 'kvlane_suspended_seconds', type: 'gauge', labels: ['device', 'class'], help: 'For how long operations of the class have been refused on the device; 0 while they are not.', read: perClass((figures) => seconds(figures.suspended_for_ms ?? 0)) },
  { name: 'kvlane_suspensions_total', type: 'counter', labels: ['device', 'class'], help: 'How often a class was suspended because its calls did not come back.', read: perClass((figures) => figures.suspended_times) },
  { name: 'kvlane_probes_total', type: 'counter', labels: ['device', 'class'], help: 'Questions to a suspended device, whether it answers again.', read: perClass((figures) => figures.probes) },
  { name: 'kvlane_lanes', type: 'gauge', labels: ['device', 'class', 'state'], help: 'Threads for calls on the device, by state: idle, busy, stuck.',
    read: perClass((figures) => {
      const busy = Math.min(figures.running, figures.lanes - figures.lanes_stuck);
      return { idle: figures.lanes - figures.lanes_stuck - busy, busy, stuck: figures.lanes_stuck };
    }, 'state') },
  { name: 'kvlane_lanes_stuck_max', type: 'gauge', labels: ['device', 'class'], help: 'Stuck threads that the class may have now beside its own before it is refused as SATURATED.', read: perClass((figures) => figures.lanes_stuck_max) },
  { name: 'kvlane_free_slots', type: 'gauge', labels: [], help: 'Slots of the arena that no call uses.', read: (up) => one(up.stats.slots.free) },
  { name: 'kvlane_in_flight_slots', type: 'gauge', labels: [], help: 'Slots that a call of an unanswered request uses.', read: (up) => one(up.stats.slots.in_flight) },
  { name: 'kvlane_quarantined_slots', type: 'gauge', labels: [], help: 'Slots that wait for the kernel to return, after their request was answered.', read: (up) => one(up.stats.slots.quarantined) },
  { name: 'kvlane_late_completions_total', type: 'counter', labels: [], help: 'Calls that came back after their request had been answered.', read: (up) => one(up.stats.late_completions) },

  // What is asked, and how long it takes.
  { name: 'kvlane_requests_total', type: 'counter', labels: ['op', 'outcome'], help: 'Requests answered; a miss is not_ok.',
    read: perOp((op, { ok, not_ok }) => [...one(ok, { op, outcome: 'ok' }), ...one(not_ok, { op, outcome: 'not_ok' })]) },
  { name: 'kvlane_request_duration_seconds', type: 'histogram', labels: ['op'], help: 'From the line that asks to the answer; requests that were refused at once left out.',
    read: perOp((op, { histogram }, up) => [{ labels: { op }, histogram, boundsMs: up.stats.histogram_bounds_ms }]) },
  { name: 'kvlane_refused_requests_total', type: 'counter', labels: ['code'], help: 'Requests refused at once, by code: nothing was started.', read: perWord('code', REFUSALS, (up) => up.stats.refused) },
  { name: 'kvlane_failed_blocks_total', type: 'counter', labels: ['code'], help: 'Blocks of answered requests that were not done, by code; NOT_FOUND is a miss.', read: perWord('code', FAILURES, (up) => up.stats.blocks_failed) },
  { name: 'kvlane_outstanding_requests', type: 'gauge', labels: [], help: 'Requests not answered yet.', read: (up) => one(up.stats.outstanding) },
  { name: 'kvlane_loaded_bytes_total', type: 'counter', labels: ['mount'], help: 'Bytes of blocks that were loaded.', read: perMount((mount) => mount.loaded_bytes) },
  { name: 'kvlane_stored_bytes_total', type: 'counter', labels: ['mount'], help: 'Bytes of blocks that were stored.', read: perMount((mount) => mount.stored_bytes) },
  { name: 'kvlane_loaded_blocks_total', type: 'counter', labels: ['mount'], help: 'Blocks loaded.', read: perMount((mount) => mount.blocks_loaded) },
  { name: 'kvlane_stored_blocks_total', type: 'counter', labels: ['mount'], help: 'Blocks stored.', read: perMount((mount) => mount.blocks_stored) },
  { name: 'kvlane_kept_blocks_total', type: 'counter', labels: ['mount'], help: 'Stores of blocks that were there already.', read: perMount((mount) => mount.blocks_kept) },
  { name: 'kvlane_removed_blocks_total', type: 'counter', labels: ['mount'], help: 'Blocks removed.', read: perMount((mount) => mount.blocks_removed) },

  // What keeps stores within their limits.
  { name: 'kvlane_capacity_limit_bytes', type: 'gauge', labels: ['mount'], help: 'What the store may occupy; absent where it has no limit.', read: perCapacity((capacity) => capacity.limit_bytes) },
  { name: 'kvlane_capacity_used_bytes', type: 'gauge', labels: ['mount'], help: 'What its blocks occupied when this sidecar last looked at all of them, less what it removed since; only of the one that collects.', read: perCapacity((capacity) => capacity.used_bytes) },
  { name: 'kvlane_collector', type: 'gauge', labels: ['mount'], help: '1 on the sidecar that removes blocks for room, of all that share the store; 0 on the others.', read: perCapacity((capacity) => (capacity.role === 'holder' ? 1 : 0)) },
  { name: 'kvlane_collector_passes_total', type: 'counter', labels: ['mount'], help: 'How often this sidecar has looked at all blocks of the store.', read: perCapacity((capacity) => capacity.passes) },
  { name: 'kvlane_collector_failed_passes_total', type: 'counter', labels: ['mount'], help: 'How often it began and could not: a listing or a removal failed, or the lease ended.', read: perCapacity((capacity) => capacity.failed_passes) },
  { name: 'kvlane_collector_urged_passes_total', type: 'counter', labels: ['mount'], help: 'Passes that began because a store found no room, here or on another sidecar.', read: perCapacity((capacity) => capacity.urged) },
  { name: 'kvlane_collector_wants_total', type: 'counter', labels: ['mount'], help: 'How often this sidecar, whose stores found no room, asked the one that collects for some.', read: perCapacity((capacity) => capacity.wants) },
  { name: 'kvlane_collector_last_pass_seconds', type: 'gauge', labels: ['mount'], help: 'How long its last pass took.', read: perCapacity((capacity) => (capacity.last_pass_ms === undefined ? null : seconds(capacity.last_pass_ms))) },
  { name: 'kvlane_evicted_blocks_total', type: 'counter', labels: ['mount'], help: 'Blocks that it removed for room.', read: perCapacity((capacity) => capacity.evicted_blocks) },
  { name: 'kvlane_evicted_bytes_total', type: 'counter', labels: ['mount'], help: 'What they had occupied.', read: perCapacity((capacity) => capacity.evicted_bytes) },
  { name: 'kvlane_touched_blocks_total', type: 'counter', labels: ['mount'], help: 'Blocks whose time was refreshed because they were loaded.', read: perCapacity((capacity) => capacity.touched) },
  { name: 'kvlane_orphans_removed_total', type: 'counter', labels: ['mount'], help: 'Files of stores that never ended, of writers that are gone.', read: perCapacity((capacity) => capacity.orphans_removed) },

  // What the devices do.
  { name: 'kvlane_operations_total', type: 'counter', labels: ['device', 'class', 'outcome'], help: 'Operations that lanes were given, one a block: done, failed (a miss too), late (given up before they came back).',
    read: perClass((figures) => ({ done: figures.operations_done, failed: figures.operations_failed, late: figures.operations_late }), 'outcome') },
  { name: 'kvlane_operation_bytes_total', type: 'counter', labels: ['device', 'class'], help: 'Bytes that operations read or wrote.', read: perClass((figures) => figures.done_bytes) },
  { name: 'kvlane_operation_duration_seconds', type: 'histogram', labels: ['device', 'class'], help: 'Time of an operation in the kernel; late ones left out.',
    read: (up) => up.stats.devices.flatMap(({ device, classes }) => CLASSES.map((name) => ({ labels: { device, class: name }, histogram: classes[name].kernel_time, boundsMs: up.stats.histogram_bounds_ms }))) },
  { name: 'kvlane_queued_operations', type: 'gauge', labels: ['device', 'class'], help: 'Operations that wait for a lane.', read: perClass((figures) => figures.queued) },
  { name: 'kvlane_running_operations', type: 'gauge', labels: ['device', 'class'], help: 'Operations on a lane whose request is not answered.', read: perClass((figures) => figures.running) },

  // What it is.
  { name: 'kvlane_mount_info', type: 'gauge', labels: ['mount', 'device', 'root', 'fs_type'], help: '1 for each mount, with the device on which it lies.',
    read: (up) => up.stats.mounts.map(({ name, device, root, fs_type }) => ({ labels: { mount: name, device: device ?? '', root, fs_type: fs_type ?? '' }, value: 1 })) },
  { name: 'kvlane_arena_bytes', type: 'gauge', labels: ['backing'], help: 'Size of the arena, by what it lies on: hugetlb, thp, shmem.', read: (up) => one(up.stats.arena.bytes, { backing: up.stats.arena.backing }) },
  { name: 'kvlane_arena_huge_bytes', type: 'gauge', labels: [], help: 'How much of the arena lies on huge pages.', read: (up) => one(up.stats.arena.huge_bytes) },
  { name: 'kvlane_gated_keys', type: 'gauge', labels: [], help: 'Keys whose name a call is changing; stores and removes of the same key wait.', read: (up) => one(up.stats.keys_gated) },
  { name: 'kvlane_set_aside_files_total', type: 'counter', labels: [], help: 'Damaged files that were moved out of the way.', read: (up) => one(up.stats.files_set_aside) },
  { name: 'kvlane_readers', type: 'gauge', labels: [], help: 'Tools that are attached to the sidecar, this one included.', read: (up) => one(up.stats.attached?.readers ?? 0) },
  { name: 'target_info', type: 'gauge', labels: ['service_name', 'service_version', 'process_pid', 'protocol', 'engine'], help: 'What is measured.',
    read: (up) => one(1, { service_name: 'kvlane', service_version: up.hello.version, process_pid: String(up.hello.pid), protocol: String(up.hello.protocol ?? PROTOCOL), engine: up.hello.engine ?? '' }) },
  { name: 'process_uptime_seconds', type: 'gauge', labels: [], help: 'Since the sidecar began to serve.', read: (up) => one(seconds(up.stats.uptime_ms)) },
  { name: 'process_cpu_time_seconds_total', type: 'counter', labels: ['cpu_mode'], help: 'Processor time of the sidecar.',
    read: (up) => (up.stats.process === null ? [] : [...one(seconds(up.stats.process.cpu_user_ms), { cpu_mode: 'user' }), ...one(seconds(up.stats.process.cpu_system_ms), { cpu_mode: 'system' })]) },
  { name: 'process_memory_usage_bytes', type: 'gauge', labels: [], help: 'Resident memory of the sidecar; pages of the arena that it has touched count too.', read: (up) => (up.stats.process?.resident_bytes == null ? [] : one(up.stats.process.resident_bytes)) },
];
