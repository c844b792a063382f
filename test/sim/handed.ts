// handed.ts — what the lanes are given, and what must follow from what they are stuck in: held against the promises about lanes,
// devices, probes and breakers. It knows the mounts as the sidecar was told of them, and nothing of its books.
import type { LaneClass, OpSpec } from '../../native/index.ts';
import { LANE_CLASSES, type MountState } from '../../protocol/messages.ts';
import { STAGING_AREAS, STAGING_AREA_BYTES } from '../../sidecar/staging.ts';
import type { Pool, Seated } from './lanes.ts';
import type { SimNative } from './native.ts';
import { Broken, type Story } from './story.ts';

export interface HandedHost {
  nowUs(): number;
  story: Story;
  native: SimNative;
  mounts: string[];
  stuckMax: number;
  lanes: number;
  stallUs: number;
  saidOf(mount: string, laneClass: LaneClass): MountState;
  /** When that was said last; -1: never. */
  saidUs(mount: string, laneClass: LaneClass): number;
  isLost(mount: string): boolean;
  /** For how long the process did not run since then; each time but for so long. */
  awayUs(sinceUs: number, butUs?: number): number;
  /** Runs in the life of this sidecar only. */
  later(atUs: number, work: () => void): void;
}

const AREAS_FOR_STORES = STAGING_AREAS / 2;
const OPERATIONS_MAX = 65_536 + 4_096;
/** Stuck probes, also in mounts that are gone. */
const PROBES_HELD_MAX = 32;
const PROBES_QUICK = 3;
const PROBE_SLOW_US = 9_900_000;
/** No shorter deadline that passes inside a call proves anything. */
const EVIDENCE_US = 20_000;
/** A stop is noticed by a tick of 100 ms that comes late by 20 at least: what is shorter, or was before the tick, is not taken off. */
const UNNOTICED_US = 120_000;
/** What is in flight at once is read in this time by anything that is not as good as stuck. */
const PATIENCE_LEAST_US = 500_000;

/** Kinds of work, and whose lanes do it. */
const CLASS_OF_KIND: Partial<Record<OpSpec['kind'], LaneClass>> = { load: 'load', store: 'store', lookup: 'metadata', remove: 'metadata', namespace: 'metadata', aside: 'metadata', tidy: 'metadata', list: 'metadata', remove_file: 'metadata', touch: 'metadata', lease: 'metadata' };

export class Handed {
  /** On which device each mount was said to lie, by the lane that looked. */
  #device = new Map<number, { label: string; before: string; atUs: number }>();
  #heard = new Map<number, { storeId: string; device: string; atUs: number }>();
  #poolOf = new Map<string, Pool>();
  #labelOf = new Map<Pool, string>();
  /** The last of them, and the last that came back; of pools for probes. */
  #asked = new Map<Pool, number>();
  #returned = new Map<Pool, number>();
  /** The last completion that counts, and the longest; of pools for work. */
  #health = new Map<Pool, number>();
  #longest = new Map<Pool, number>();
  /** From then on what is stuck may be in a mount that is gone. */
  #forgetUs = 0;
  #looked = -1;
  #settled = false;
  #withoutLanesUs: Record<LaneClass, number> = { load: -1, store: -1, metadata: -1 };
  #host: HandedHost;

  constructor(host: HandedHost) {
    this.#host = host;
  }

  // ---- what happens ----

  /** The sidecar has read the list of mounts; it is another one than before. */
  listed(): void {
    this.#forgetUs = this.#host.nowUs();
  }

  /** The sidecar is being told. */
  delivered(one: Seated, late: boolean, uncached: boolean, kernelUs: number, identity: string): void {
    const { pool, spec } = one;
    const nowUs = this.#host.nowUs();
    if (pool.options.forProbes) {
      this.#returned.set(pool, nowUs);
      if (spec.kind !== 'identify' || late || identity === '') return;
      this.#forgetUs = nowUs;
      this.#deviceOf(spec.mount); // what was heard before
      const { store_id: storeId, device } = JSON.parse(identity) as { store_id: string; device: string };
      this.#heard.set(spec.mount, { storeId, device, atUs: nowUs });
      return;
    }
    if (late || !uncached) return;
    this.#health.set(pool, nowUs);
    this.#longest.set(pool, Math.max(this.#longest.get(pool) ?? 0, kernelUs));
  }

  submitted(spec: OpSpec, pool: Pool): void {
    if (spec.kind === 'probe' || spec.kind === 'identify') {
      this.#probe(pool);
      return;
    }
    const { mounts } = this.#host;
    const { laneClass } = pool.options;
    if (pool.queue.length > OPERATIONS_MAX) throw new Broken('caps', `${pool.queue.length} operations wait in one pool`);
    if (CLASS_OF_KIND[spec.kind] !== laneClass) throw new Broken('pools', `a ${spec.kind} was handed to a lane for ${laneClass}`);
    this.#ownDevice(spec, pool);
    const mount = mounts[spec.mount]!;
    const state = this.#host.saidOf(mount, laneClass);
    if ((state === 'suspended' || state === 'probing') && !this.#host.isLost(mount)) throw new Broken('suspended', `a ${spec.kind} was handed to a lane for ${mount}, which is ${state} for ${laneClass}`);
    if ((spec.kind === 'load' || spec.kind === 'store') && spec.region === 1) this.#staging(spec);
  }

  /** A call is over stall_ms. If nothing else of its class completes, the class has to be suspended in time. */
  stalled(one: Seated): void {
    const { pool, sinceUs, spec } = one;
    if (pool.options.forProbes) return;
    const patienceUs = Math.max(this.#host.stallUs, 8 * (this.#longest.get(pool) ?? 0), PATIENCE_LEAST_US) + 150_000;
    this.#host.later(sinceUs + patienceUs, () => {
      if (one.state === 'done' || one.sinceUs !== sinceUs || this.#host.awayUs(sinceUs) > 0) return;
      const mount = this.#host.mounts[spec.mount]!;
      const { laneClass } = pool.options;
      const state = this.#host.saidOf(mount, laneClass);
      if (state === 'suspended' || state === 'probing') return;
      // Not where others completed, where it was there when the class was used again, or where its mount lies elsewhere by now.
      if ((this.#health.get(pool) ?? -1) >= sinceUs || this.#host.saidUs(mount, laneClass) >= sinceUs || this.#forgetUs >= one.submittedUs) return;
      throw new Broken('sick is refused', `${spec.kind} ${spec.id} has been in ${one.phase} for ${(this.#host.nowUs() - sinceUs) / 1000} ms, no ${laneClass} of ${mount} has completed since, and it is ${state}`);
    });
  }

  /** A class of a mount is suspended for what its lanes are stuck in. */
  suspended(mount: string, laneClass: LaneClass, reason: string): void {
    const nowUs = this.#host.nowUs();
    const isEvidence = (one: Seated): boolean => {
      const { pool, sinceUs } = one;
      if (pool.options.forProbes || pool.options.laneClass !== laneClass || one.state === 'queued') return false;
      if (nowUs - sinceUs - this.#host.awayUs(sinceUs, UNNOTICED_US) < EVIDENCE_US) return false;
      const healthUs = this.#health.get(pool) ?? -1;
      return healthUs <= sinceUs || nowUs - healthUs >= this.#host.stallUs;
    };
    for (const one of this.#host.native.operations.values()) if (isEvidence(one)) return;
    if (this.#host.native.isUndelivered(isEvidence)) return;
    throw new Broken('suspended for nothing', `${mount} was suspended for ${laneClass} (${reason}), but no lane is in a call of it for ${EVIDENCE_US / 1000} ms with nothing completed since`);
  }

  wasWithoutLanes(laneClass: LaneClass, sinceUs: number): boolean {
    this.#lookForLanes();
    return this.#withoutLanesUs[laneClass] >= sinceUs;
  }

  // ---- at the end of every turn ----

  turnEnded(): void {
    this.#lookForLanes();
    const { native, stuckMax, lanes, mounts } = this.#host;
    const settled = native.events.length === 0;
    if (native.limits === this.#looked && settled === this.#settled) return; // nothing of this has changed
    this.#looked = native.limits;
    this.#settled = settled;
    const identifying = mounts.length;
    for (let first = identifying; first + 5 < native.pools.length; first += 6) {
      let stuck = 0;
      for (let i = 0; i < 3; i += 1) stuck += native.pools[first + 2 * i]!.stuck;
      for (let i = 0; i < 3; i += 1) {
        const pool = native.pools[first + 2 * i]!;
        const others = stuck - pool.stuck;
        const most = pool.options.laneClass === 'load' ? stuckMax : Math.floor(stuckMax / 2);
        const share = settled ? Math.max(0, Math.min(most, stuckMax - others)) : most;
        if (pool.limit > share) throw new Broken('caps', `${pool.options.laneClass} may have ${pool.limit} lanes beside its own, ${share} are its share of ${stuckMax} with ${others} stuck in the other classes`);
        if (pool.options.lanes !== lanes) throw new Broken('caps', `a pool of ${pool.options.lanes} lanes, --lanes is ${lanes}`);
        const probes = native.pools[first + 2 * i + 1]!;
        if (probes.lanes.length > PROBES_HELD_MAX) throw new Broken('caps', `${probes.lanes.length} probes are held`);
      }
    }
    for (let pool = 0; pool < identifying && pool < native.pools.length; pool += 1) {
      if (native.pools[pool]!.lanes.length > PROBES_HELD_MAX) throw new Broken('caps', `${native.pools[pool]!.lanes.length} lanes identify one mount`);
    }
  }

  // ---- one by one ----

  #lookForLanes(): void {
    for (const pool of this.#host.native.pools) if (pool.stuck > 0 && !pool.options.forProbes && pool.alive() === 0) this.#withoutLanesUs[pool.options.laneClass] = this.#host.nowUs();
  }

  // Each device has lanes of its own; mounts on one device share them.
  #ownDevice(spec: OpSpec, pool: Pool): void {
    const known = this.#deviceOf(spec.mount);
    if (known === undefined) return; // what it must be known for is judged by the lanes
    const label = this.#labelOf.get(pool);
    if (label === undefined) {
      this.#labelOf.set(pool, known.label);
      const name = `${known.label} ${pool.options.laneClass}`;
      const other = this.#poolOf.get(name);
      if (other !== undefined && !other.closed) throw new Broken('pools', `two queues for ${pool.options.laneClass} of device ${known.label}`);
      this.#poolOf.set(name, pool);
      return;
    }
    // What was told in this very batch may not have been read yet.
    if (label === known.label || (label === known.before && known.atUs === this.#host.nowUs())) return;
    throw new Broken('pools', `a ${spec.kind} of ${this.#host.mounts[spec.mount]} was handed to the lanes of device ${label}; it lies on ${known.label}`);
  }

  // By the last lane that found there what the sidecar takes the mount for.
  /** As far as the sidecar was told. */
  areOnOneDevice(one: string, other: string): boolean {
    const [first, second] = [one, other].map((name) => this.#deviceOf(this.#host.mounts.indexOf(name))?.label);
    return first !== undefined && first === second;
  }

  #deviceOf(mount: number): { label: string; before: string; atUs: number } | undefined {
    const heard = this.#heard.get(mount);
    const known = this.#device.get(mount);
    if (heard === undefined || heard.storeId !== this.#host.native.identities[mount] || known?.label === heard.device) return known;
    const now = { label: heard.device, before: known?.label ?? heard.device, atUs: heard.atUs };
    this.#device.set(mount, now);
    return now;
  }

  // Three at most are sent quickly; beyond them one comes every ten seconds, or when one of them is back.
  #probe(pool: Pool): void {
    const nowUs = this.#host.nowUs();
    const lastUs = this.#asked.get(pool);
    this.#asked.set(pool, nowUs);
    if (pool.lanes.length > PROBES_QUICK) this.#host.story.saw('probes beyond three');
    if (lastUs === undefined || nowUs - lastUs >= PROBE_SLOW_US || (this.#returned.get(pool) ?? -1) >= lastUs) return;
    let stuck = 0;
    for (const one of this.#host.native.operations.values()) if (one.pool === pool && one.abandoned && one.submittedUs >= this.#forgetUs) stuck += 1;
    if (stuck < PROBES_QUICK) return;
    for (const mount of this.#host.mounts) for (const laneClass of LANE_CLASSES) if (this.#host.saidUs(mount, laneClass) >= lastUs) return; // a class that is suspended anew is asked at once
    throw new Broken('caps', `a probe joins ${stuck} that are stuck, ${(nowUs - lastUs) / 1000} ms after the last`);
  }

  #staging(spec: OpSpec & { kind: 'load' | 'store' }): void {
    if (spec.offset % STAGING_AREA_BYTES !== 0 || spec.offset >= STAGING_AREAS * STAGING_AREA_BYTES || spec.bytes > STAGING_AREA_BYTES) throw new Broken('memory', `${spec.kind} ${spec.id} was given ${spec.bytes} bytes of staging at ${spec.offset}`);
    if (spec.kind !== 'store') return;
    let stores = 1;
    for (const one of this.#host.native.holdersOfStaging()) if (one.spec.kind === 'store') stores += 1;
    if (stores > AREAS_FOR_STORES) throw new Broken('caps', `stores have ${stores} staging areas, ${AREAS_FOR_STORES} are theirs`);
  }
}
