// stats.ts — counters since the start, and the picture a `stats` request gets.
import type { Native } from '../native/index.ts';
import { LANE_CLASSES, type Code, type Op } from '../protocol/messages.ts';
import type { BlockIndex } from './block_index.ts';
import type { Capacity } from './capacity.ts';
import type { Damage } from './damage.ts';
import type { Devices } from './devices.ts';
import { BOUNDS_MS, Histogram } from './histogram.ts';
import type { LaneGroup } from './lane_group.ts';
import { Recent } from './latency.ts';
import type { Lanes } from './lanes.ts';
import type { Mounts } from './mounts.ts';
import type { Recycling } from './recycling.ts';
import type { Usage } from './service_types.ts';
import { FREE, IN_FLIGHT, QUARANTINED, type Slots } from './slots.ts';
import type { Staging } from './staging.ts';

interface OpFigures {
  requests: number;
  ok: number;
  not_ok: number;
  latency: Recent;
  histogram: Histogram;
}

export class Stats {
  bytesLoaded = 0;
  bytesStored = 0;
  blocksDone = 0;
  slotsFreed = 0;
  refused = new Map<Code, number>();
  #failed = new Map<Code, number>();
  #ops = new Map<Op, OpFigures>();

  received(op: Op): void {
    this.#of(op).requests += 1;
  }

  answered(op: Op, ok: boolean, us: number): void {
    const figures = this.#of(op);
    if (ok) figures.ok += 1;
    else figures.not_ok += 1;
    figures.latency.record(us);
    figures.histogram.record(us);
  }

  refusedWith(op: Op, code: Code): void {
    this.#of(op).not_ok += 1;
    this.refused.set(code, (this.refused.get(code) ?? 0) + 1);
  }

  blockFailed(code: Code): void {
    this.#failed.set(code, (this.#failed.get(code) ?? 0) + 1);
  }

  counters(): object {
    const ops: Record<string, object> = {};
    for (const [op, { requests, ok, not_ok, latency, histogram }] of this.#ops) {
      ops[op] = { requests, ok, not_ok, p50_ms: inMs(latency.quantileUs(0.5)), p99_ms: inMs(latency.quantileUs(0.99)), max_ms: inMs(latency.quantileUs(1)), histogram: histogram.picture() };
    }
    return {
      ops,
      refused: Object.fromEntries(this.refused),
      blocks_done: this.blocksDone,
      blocks_failed: Object.fromEntries(this.#failed),
      loaded_bytes: this.bytesLoaded,
      stored_bytes: this.bytesStored,
      slots_freed: this.slotsFreed,
      histogram_bounds_ms: BOUNDS_MS,
    };
  }

  #of(op: Op): OpFigures {
    let figures = this.#ops.get(op);
    if (figures === undefined) this.#ops.set(op, (figures = { requests: 0, ok: 0, not_ok: 0, latency: new Recent(), histogram: new Histogram() }));
    return figures;
  }
}

export interface Picture {
  stats: Stats;
  native: Native;
  mounts: Mounts;
  devices: Devices;
  lanes: Lanes;
  slots: Slots;
  staging: Staging;
  damage: Damage;
  capacity: Capacity;
  index: BlockIndex;
  recycling: Recycling;
  usage: Usage | undefined;
  mountListReads: number;
  tasks: number;
  startedUs: number;
  nowUs: number;
}

export function paint(picture: Picture): Record<string, unknown> {
  const { stats, native, mounts, devices, lanes, slots, staging, damage, capacity, index, recycling, usage } = picture;
  return {
    uptime_ms: Math.round((picture.nowUs - picture.startedUs) / 1000),
    outstanding: picture.tasks,
    ...stats.counters(),
    late_completions: lanes.lateCompletions,
    arena: arenaPicture(native),
    slots: { free: slots.counts[FREE], in_flight: slots.counts[IN_FLIGHT], quarantined: slots.counts[QUARANTINED] },
    staging: staging.figures(),
    keys_gated: lanes.gate.size(),
    keys_bad: damage.badKeys(),
    files_set_aside: damage.setAside,
    index: index.picture(),
    mount_list_reads: picture.mountListReads,
    mounts: mounts.all.map((mount) => ({ ...mounts.facts(mount), ...mount.traffic, recycling: recycling.picture(mount), ...capacityPicture(capacity.picture(mount, picture.nowUs)), classes: Object.fromEntries(LANE_CLASSES.map((laneClass) => [laneClass, mount.state(laneClass)])) })),
    devices: devices.all.map((device) => ({
      device: device.label,
      mounts: device.mounts.map((mount) => mount.name),
      classes: Object.fromEntries(LANE_CLASSES.map((laneClass) => [laneClass, groupPicture(native, device.groups[laneClass], device.stuckLimit(laneClass), picture.nowUs)])),
    })),
    process: usage?.latest() ?? null,
  };
}

function capacityPicture(capacity: object | null): object {
  return capacity === null ? {} : { capacity };
}

function arenaPicture(native: Native): object {
  const { bytes, backing, pageBytes, hugeBytes } = native.observeArena();
  return { bytes, backing, page_bytes: pageBytes, huge_bytes: hugeBytes };
}

function groupPicture(native: Native, group: LaneGroup, stuckLimit: number, nowUs: number): object {
  const { queued, running, stuck, lanes, oldestSinceUs } = native.poolState(group.pool);
  const { state, reason, opened, openedUs, heldClosed } = group.breaker;
  const { done, failed, late, doneBytes, kernelTime } = group.figures;
  return {
    state,
    ...(reason === '' ? {} : { reason }),
    ...(group.breaker.isOpen() ? { suspended_for_ms: Math.round((nowUs - openedUs) / 1000) } : {}),
    engine: native.engineOf(group.pool),
    queued,
    running,
    lanes,
    lanes_stuck: stuck,
    lanes_stuck_max: stuckLimit,
    oldest_in_kernel_ms: oldestSinceUs === 0 ? 0 : Math.max(0, Math.round((nowUs - oldestSinceUs) / 1000)),
    operations_abandoned: group.abandoned,
    operations_done: done,
    operations_failed: failed,
    operations_late: late,
    done_bytes: doneBytes,
    kernel_time: kernelTime.picture(),
    suspended_times: opened,
    ...(heldClosed === 0 ? {} : { held_closed_times: heldClosed }),
    probes: group.prober.asked,
    probes_stuck: group.prober.stuck(),
  };
}

function inMs(us: number): number {
  return Math.round(us / 10) / 100;
}
