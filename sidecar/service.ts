// service.ts — the policy half, put together: what is promised is decided behind this door.
//
// Everything happens in turns: a request, a batch of native events or a timer comes in, consequences are
// worked out to the end, then the slots that came back are announced and one timer is armed. Completions
// of a batch count before deadlines that fell due in the same instant.
import type { NativeEvent } from '../native/index.ts';
import type { MountInfo } from '../protocol/messages.ts';
import type { Request } from '../protocol/request.ts';
import { BlockIndex } from './block_index.ts';
import { Capacity } from './capacity.ts';
import { Damage } from './damage.ts';
import { Deadlines } from './deadlines.ts';
import { Devices } from './devices.ts';
import { Dispatcher } from './dispatcher.ts';
import type { GroupContext } from './lane_group.ts';
import { Lanes } from './lanes.ts';
import { Lateness } from './lateness.ts';
import { Mounts, START_WAIT_MS } from './mounts.ts';
import type { Operation } from './operation.ts';
import type { MountTable } from './mount_table.ts';
import type { Service, ServiceDeps, ServiceOptions } from './service_types.ts';
import { Recycling } from './recycling.ts';
import { Remounts } from './remounts.ts';
import { Slots } from './slots.ts';
import { STAGING_AREAS, STAGING_AREA_BYTES, Staging } from './staging.ts';
import { paint, Stats } from './stats.ts';
import { stuckEntry } from './stuck_report.ts';
import { TaskTable } from './task_table.ts';
import { Watchkeeping } from './watchkeeping.ts';

/** A lease is given back in a millisecond by a file system that is well; the next holder is worth no more. */
const LEASE_BACK_US = 200_000;

/** Without a table remounts are noticed by probes and new lanes alone. */
const NO_MOUNT_TABLE: MountTable = { read() {} };

export function createService(deps: ServiceDeps, options: ServiceOptions): Service {
  const { native, clock, log } = deps;
  const nowUs = (): number => clock.nowUs();
  const startedUs = nowUs();
  const deadlines = new Deadlines(clock);
  const lateness = new Lateness();
  const stats = new Stats();
  const slots = new Slots(options.slots);
  const staging = new Staging();
  const lanes = new Lanes(native, slots, options.fileMode, options.fsync);
  const index = new BlockIndex(options.indexMs * 1000);
  const damage = new Damage(lanes, deadlines, index, log);
  const recycling = new Recycling(options, native, lanes, deadlines, log);
  const capacity = new Capacity(options.capacity, { native, lanes, deadlines, index, damage, log, nowUs, haste: options.collectorHaste });
  const send = deps.send;
  const groupContext: GroupContext = {
    native,
    lanes,
    deadlines,
    lateness,
    nowUs,
    noMoreThreads: () => devices.noMoreThreads(),
    storeLost: (mount, done) => mounts.lost(mount, done),
    announce: (device, laneClass) => mounts.announce(device, laneClass),
  };
  const { engine, stuckMax, holdBreakerClosed } = options;
  const devices = new Devices({ engine, lanes: options.lanes, stuckMax, stallUs: options.stallMs * 1000, holdBreakerClosed }, options.stuckProcessMax, groupContext);
  const mountTable = deps.mountTable ?? NO_MOUNT_TABLE;
  const mounts = new Mounts(options.mounts, devices, { native, engine, lanes, deadlines, log, mountTable, nowUs, send, identified: (mount) => {
    recycling.identified(mount, nowUs());
    capacity.identified(mount, nowUs());
  }, learnt: () => {
    index.somethingElse();
    remounts.lookNow(nowUs());
  } });
  const tasks = new TaskTable(deadlines, stats, send);
  const dispatcher = new Dispatcher({
    tasks: { native, lanes, tasks, slots, slotBytes: options.slotBytes, staging, damage, capacity, index, stats, nowUs },
    native,
    mounts,
    timeoutMs: options.timeoutMs,
    stats: () => paint({ stats, native, mounts, devices, lanes, slots, staging, damage, capacity, index, recycling, usage: deps.usage, mountListReads: remounts.reads, tasks: tasks.size(), startedUs, nowUs: nowUs() }),
    send,
    onShutdown: (timeoutMs) => deps.onShutdown(timeoutMs),
  });
  const watchkeeping = new Watchkeeping(deadlines, () => tasks.size() > 0);
  const remounts = new Remounts({
    table: mountTable,
    deadlines,
    mounts: () => mounts.all,
    probed: (mount) => mounts.probed(mount),
    work: () => ({ outstanding: tasks.size(), added: tasks.added }),
    listed: (mount, device, now) => mounts.listed(mount, device, now),
    changed: (mount, moved, sinceUs, now) => mounts.listChanged(mount, moved, sinceUs, now),
    turn: (work) => turn(work),
  });
  native.createStaging(STAGING_AREAS * STAGING_AREA_BYTES);

  let depth = 0;
  /** Runs one turn; a turn that comes up inside another (main calling back from send) is part of it. */
  function turn(work: (now: number) => void, now = nowUs()): void {
    depth += 1;
    try {
      if (depth === 1) lateness.observe(now, deadlines.earliestUs());
      work(now);
    } finally {
      depth -= 1;
    }
    if (depth > 0) return;
    const end = nowUs();
    lateness.turnTook(now, end);
    ringDue(end);
    devices.endTurn(end);
    capacity.endTurn(end);
    const freed = lanes.endTurn(end);
    if (freed.length > 0) {
      stats.slotsFreed += freed.length;
      send({ event: 'slots_freed', slots: freed });
    }
    mounts.endTurn();
    watchkeeping.endTurn(end);
    remounts.endTurn(end);
    deadlines.arm();
  }

  /** What came by its deadline counts: completions that wait for company are heard before anything is settled by its time. */
  function ringDue(atUs: number): void {
    const earliestUs = deadlines.earliestUs();
    if (earliestUs === 0 || earliestUs > atUs) return;
    for (const event of native.collect()) take(event, atUs);
    deadlines.ringDue(atUs);
  }

  /** So that the next collector needs not wait until ours is taken for dead. It is waited for so long, and not at all by who leaves at once. */
  function giveLeasesBack(waitUs: number, now: number, done: () => void): void {
    if (waitUs <= 0) return done();
    let over = false;
    const bound = { atUs: 0, heapIndex: -1, ring: () => end() };
    const end = (): void => {
      if (over) return;
      over = true;
      deadlines.clear(bound);
      done();
    };
    deadlines.set(bound, now + waitUs);
    capacity.leave(now, end);
  }

  function stallEvent(event: Extract<NativeEvent, { type: 'stalled' | 'recovered' }>): void {
    const operation: Operation | null = lanes.operation(event.call.id);
    if (operation === null) return;
    if (event.type === 'stalled') operation.group?.noteStalled(operation, event.call);
    else operation.group?.noteRecovered(operation.id);
    send({ event: event.type, ...stuckEntry(event.call, operation) });
  }

  function take(event: NativeEvent, now: number): void {
    switch (event.type) {
      case 'done':
        lanes.finished(event, now);
        return;
      case 'stalled':
      case 'recovered':
        stallEvent(event);
        return;
      case 'timer':
        deadlines.fired();
        return;
      case 'notice':
        log.warn('native', { text: event.text });
        return;
      case 'parent_gone':
        return; // main watches for that
    }
  }

  return {
    look: {
      stats: () => dispatcher.stats(),
      stuck: (overMs, listedMax) => dispatcher.stuck(overMs, listedMax),
      help: () => dispatcher.help(),
      mounts: () => mounts.all.map((mount) => mounts.facts(mount)),
    },
    start: (waitMs) =>
      new Promise<MountInfo[]>((resolve) => {
        turn(() => mounts.start(waitMs ?? START_WAIT_MS, () => resolve(mounts.all.map((mount) => mounts.facts(mount)))));
      }),
    engine: () => mounts.engine(),
    handle(request: Request): void {
      // What is due is settled in a turn of its own, with what was collected for it: a slot that came back is announced before a request may have it again.
      const earliestUs = deadlines.earliestUs();
      const readUs = nowUs();
      if (earliestUs !== 0 && earliestUs <= readUs) turn(() => {}, readUs);
      turn((now) => {
        deadlines.ringDue(now);
        dispatcher.handle(request, now);
      }, readUs);
    },
    onNative(batch: NativeEvent[]): void {
      turn((now) => {
        for (const event of batch) take(event, now);
      });
    },
    holdsId: (id) => tasks.has(id),
    outstanding: () => tasks.size(),
    drain(timeoutMs: number, done: () => void): void {
      turn((now) => {
        dispatcher.leaving = true;
        const giveBack = (atUs: number): void => giveLeasesBack(Math.min(LEASE_BACK_US, timeoutMs * 1000), atUs, done);
        if (tasks.size() === 0) {
          giveBack(now);
          return;
        }
        const bound = { atUs: 0, heapIndex: -1, ring: (ringUs: number) => tasks.concludeAll('SHUTTING_DOWN', ringUs) };
        tasks.onEmpty = () => {
          tasks.onEmpty = null;
          deadlines.clear(bound);
          giveBack(nowUs());
        };
        deadlines.set(bound, now + Math.max(1, timeoutMs * 1000));
      });
    },
    createStore(name: string): void {
      turn(() => mounts.createStore(name));
    },
  };
}
