// random_walk.test.ts — thousands of random steps on the whole policy, and what must hold after each.
//
// Faults that must be survived: any call stays in the kernel for any time, comes back well, badly or in
// its rename; whole devices hang and resume; the process stops and goes on; clients cancel, ask for busy
// slots and repeat ids. A failing seed is printed and replays exactly.
import { describe, expect, test } from 'vitest';
import type { NativeStatus, OpSpec } from '../../native/index.ts';
import type { FailedEntry } from '../../protocol/messages.ts';
import { PROBES_HELD_MAX } from '../../sidecar/prober.ts';
import type { Ending } from '../support/fake_native.ts';
import { identity, started, type Harness } from '../support/service_harness.ts';

const SLOTS = 32;
const LANES = 3;
const STUCK_MAX = 10;
const STEPS = 700;

function random(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

interface Asked {
  deadlineUs: number;
  slots: number[];
}

class Walk {
  readonly asked = new Map<number, Asked>();
  /** Slots the client may use: never asked for, answered as free, or named by slots_freed. */
  readonly leased = new Set<number>();
  readonly quarantined = new Set<number>();
  readonly hung = [false, false];
  #nextId = 1;
  #read = 0;
  #h: Harness;
  #pick: (below: number) => number;

  constructor(h: Harness, pick: (below: number) => number) {
    this.#h = h;
    this.#pick = pick;
    h.native.onSubmit = (spec) => (this.hung[spec.mount] || pick(4) === 0 ? null : this.#ending(spec));
  }

  step(): void {
    const { clock } = this.#h;
    switch (this.#pick(14)) {
      case 0:
      case 1:
      case 2:
      case 3:
        this.#blocks(this.#pick(2) === 0 ? 'load' : 'store');
        break;
      case 4:
        this.#h.lookup(this.#id([]), this.#hexes(1 + this.#pick(600)), { timeoutMs: this.#timeout() });
        break;
      case 5:
        this.#h.remove(this.#id([]), this.#hexes(1 + this.#pick(3)), { timeoutMs: this.#timeout() });
        break;
      case 6:
      case 7:
        this.#releaseSome();
        break;
      case 8: {
        const calls = this.#h.native.inKernel().filter((one) => !one.stalled && clock.nowUs() - one.sinceUs >= 1_000_000);
        for (const one of calls) this.#h.native.stall(one);
        break;
      }
      case 9:
        for (const one of this.#h.native.inKernel()) {
          const changes = one.spec.kind === 'store' || one.spec.kind === 'remove';
          if (changes && one.state === 'running' && !one.abandoned && this.#pick(2) === 0) this.#h.native.reach(one, one.spec.kind === 'store' ? 'rename' : 'unlink', true);
        }
        break;
      case 10:
        if (this.#pick(4) === 0) this.#flip();
        break;
      case 11: {
        const ids = [...this.asked.keys()];
        if (ids.length > 0) {
          const task = ids[this.#pick(ids.length)]!;
          this.#h.ask({ id: `c${this.#nextId++}`, op: 'cancel', task });
        }
        break;
      }
      case 12:
        if (this.#pick(10) === 0) clock.jump(3000);
        else if (this.#pick(8) === 0) this.#remount(this.#pick(2));
        break;
      default:
        this.#h.advance(this.#pick(120));
    }
    this.#h.deliver();
    this.check();
  }

  /** Everything that must hold at the end of a turn. */
  check(): void {
    const { sent, clock, native } = this.#h;
    for (; this.#read < sent.length; this.#read += 1) this.#take(sent[this.#read]!);
    for (const [id, { deadlineUs }] of this.asked) expect(deadlineUs, `request ${id} is not answered at its deadline`).toBeGreaterThan(clock.nowUs());
    const held = new Set<number>();
    for (const { spec } of native.inKernel()) {
      if (spec.kind !== 'load' && spec.kind !== 'store') continue;
      const slot = spec.offset / 65536;
      expect(held.has(slot), `slot ${slot} is in the kernel twice`).toBe(false);
      held.add(slot);
      expect(this.leased.has(slot), `slot ${slot} was given back to the client while the kernel has it`).toBe(false);
    }
    native.pools.forEach(({ laneClass }, pool) => {
      const threads = native.inKernel().filter((one) => one.pool === pool).length;
      expect(threads, `lanes of ${laneClass}`).toBeLessThanOrEqual(Math.max(LANES + STUCK_MAX, PROBES_HELD_MAX));
    });
    const changing = new Set<string>();
    for (const { spec, state, abandoned } of native.inKernel()) {
      if (!(spec.kind === 'store' || spec.kind === 'remove') || (abandoned && state === 'running')) continue;
      const key = `${spec.mount}:${spec.namespace}/${spec.hex}`;
      expect(changing.has(key), `${key} is being changed twice`).toBe(false);
      changing.add(key);
    }
  }

  #take(message: Harness['sent'][number]): void {
    if ('event' in message) {
      if (message.event !== 'slots_freed') return;
      for (const slot of message.slots) {
        expect(this.quarantined.delete(slot), `slot ${slot} was freed without having been quarantined in an answer`).toBe(true);
        this.leased.add(slot);
      }
      return;
    }
    if (typeof message.id !== 'number') return;
    const asked = this.asked.get(message.id);
    expect(asked, `request ${message.id} is answered twice`).toBeDefined();
    this.asked.delete(message.id);
    const lost = new Set<number>();
    for (const entry of ('failed' in message ? (message.failed ?? []) : []) as FailedEntry[]) {
      if (entry.slot !== 'quarantined') continue;
      for (const [first, last] of entry.blocks ?? [[entry.block!, entry.block!]]) for (let block = first!; block <= last!; block += 1) lost.add(asked!.slots[block]!);
    }
    for (const slot of asked!.slots) (lost.has(slot) ? this.quarantined : this.leased).add(slot);
  }

  #id(slots: number[], timeoutMs = this.#lastTimeout): number {
    const id = this.#nextId++;
    this.asked.set(id, { deadlineUs: this.#h.clock.nowUs() + timeoutMs * 1000, slots });
    return id;
  }
  #lastTimeout = 0;
  #timeout(): number {
    return this.#lastTimeout;
  }

  #blocks(op: 'load' | 'store'): void {
    this.#lastTimeout = 1 + this.#pick(800);
    const free = [...this.leased];
    const slots: number[] = [];
    for (let count = Math.min(free.length, 1 + this.#pick(6)); slots.length < count; ) slots.push(...free.splice(this.#pick(free.length), 1));
    if (slots.length === 0) return;
    for (const slot of slots) this.leased.delete(slot);
    const mount = `kv${this.#pick(2)}`;
    this.#h[op](this.#id(slots), slots, { hexes: this.#hexes(slots.length), timeoutMs: this.#lastTimeout, mount });
  }

  #hexes(count: number): string[] {
    this.#lastTimeout = Math.max(1, this.#lastTimeout);
    return Array.from({ length: count }, () => this.#pick(12).toString(16).padStart(2, '0'));
  }

  #releaseSome(): void {
    for (const one of this.#h.native.inKernel()) if (!this.hung[one.spec.mount] && this.#pick(3) === 0) this.#h.native.release(one, one.abandoned ? {} : this.#ending(one.spec));
  }

  /** Something else is mounted there; every other time it lies on another device. What is in the kernel stays there. */
  #remount(mount: number): void {
    this.#mounted[mount]! += 1;
    const line = (at: number): string => `${100 * (at + 1) + this.#mounted[at]!} 1 ${this.#device(at)} / /mnt/kv${at} rw - ext4 /dev/kv rw\n`;
    this.#h.mountTable.text = line(0) + line(1);
  }
  #mounted = [0, 0];
  #device(mount: number): string {
    return `254:${2 * (this.#mounted[mount]! >> 1) + mount}`;
  }

  /** A device hangs, or everything that hung comes back. */
  #flip(): void {
    const mount = this.#pick(2);
    this.hung[mount] = !this.hung[mount];
    if (!this.hung[mount]) this.resume(mount);
  }

  resume(mount: number): void {
    this.hung[mount] = false;
    for (const one of this.#h.native.inKernel()) if (one.spec.mount === mount) this.#h.native.release(one, one.abandoned ? {} : this.#ending(one.spec));
  }

  #ending(spec: OpSpec): Ending {
    if (spec.kind === 'identify') return identity(this.#device(spec.mount));
    if (spec.kind === 'lookup') return { found: Uint8Array.from(spec.names, () => this.#pick(3)) };
    const statuses: NativeStatus[] = ['ok', 'ok', 'ok', 'ok', 'ok', 'ok', 'not_found', 'corrupt', 'io_error', 'wrong_store'];
    const status = spec.kind === 'probe' ? 'ok' : statuses[this.#pick(statuses.length - (this.#pick(20) === 0 ? 0 : 1))]!;
    return { status, errno: status === 'io_error' ? 5 : 0, inode: status === 'corrupt' && this.#pick(2) === 0 ? '99' : '' };
  }
}

describe('a random walk', () => {
  test.each([1, 2, 3, 4])('with seed %i keeps every promise, and everything is back when the mounts are', async (seed) => {
    const mounts = ['kv0', 'kv1'].map((name) => ({ name, root: `/mnt/${name}`, create: false }));
    const h = await started({ mounts, slots: SLOTS, lanes: LANES, stuckMax: STUCK_MAX, stuckProcessMax: 100 }, (spec) => (spec.kind === 'identify' ? identity(`254:${spec.mount}`) : null));
    const walk = new Walk(h, random(seed));
    for (let slot = 0; slot < SLOTS; slot += 1) walk.leased.add(slot);
    for (let step = 0; step < STEPS; step += 1) walk.step();

    for (let round = 0; round < 40; round += 1) {
      walk.resume(0);
      walk.resume(1);
      h.deliver();
      h.advance(100);
      walk.check();
    }
    expect(h.service.outstanding()).toBe(0);
    expect([...walk.asked.keys()]).toEqual([]);
    expect(walk.leased.size).toBe(SLOTS);
    expect([...walk.quarantined]).toEqual([]);
    expect(h.native.inKernel()).toEqual([]);
    h.ask({ id: 'end', op: 'stats' });
    const { stats } = h.answer('end') as unknown as { stats: { slots: object; keys_gated: number; mounts: { classes: Record<string, string> }[] } };
    expect(stats).toMatchObject({ slots: { free: SLOTS, in_flight: 0, quarantined: 0 }, keys_gated: 0 });
    for (const mount of stats.mounts) for (const state of Object.values(mount.classes)) expect(['ok', 'unknown']).toContain(state);
    expect(h.events('mount').length, 'the walk did suspend something').toBeGreaterThan(0);
  });
});
