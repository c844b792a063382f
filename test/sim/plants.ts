// plants.ts — bugs that are put into the policy half on purpose, each of which the simulation has to find.
//
// None of them is a switch in the product: a method of one of its classes is replaced while the run lasts, or the native
// half that the service is given lies to it. A plant whose method is gone fails aloud instead of planting nothing.
import type { Native } from '../../native/index.ts';
import { BlockIndex } from '../../sidecar/block_index.ts';
import { BlockTask } from '../../sidecar/block_ops.ts';
import { Breaker } from '../../sidecar/breaker.ts';
import { Deadlines } from '../../sidecar/deadlines.ts';
import { Device, Devices } from '../../sidecar/devices.ts';
import { KeyGate } from '../../sidecar/key_gate.ts';
import { LaneGroup } from '../../sidecar/lane_group.ts';
import { Lanes } from '../../sidecar/lanes.ts';
import { Mounts } from '../../sidecar/mounts.ts';
import { NamespaceTask } from '../../sidecar/namespace_op.ts';
import { Prober } from '../../sidecar/prober.ts';
import { Slots } from '../../sidecar/slots.ts';
import { Staging } from '../../sidecar/staging.ts';
import { TaskTable } from '../../sidecar/task_table.ts';
import type { SimNative } from './native.ts';
import type { Rule } from './rules.ts';

export interface Plant {
  /** What is wrong, as one would say it. */
  says: string;
  /** Rules, one of which has to be broken. */
  breaks: Rule[];
  /** More than the others need, where it takes a rare world to show: a mount exchanged while it is identified, a block removed elsewhere that is asked for again. */
  seeds?: number;
  /** Returns how to take it out again. */
  plant?(): () => void;
  tampered?(native: SimNative): SimNative;
}

type Method = (this: never, ...words: never[]) => unknown;

function replaced(owner: { prototype: object }, name: string, make: (real: (self: unknown, words: unknown[]) => unknown) => (this: unknown, ...words: unknown[]) => unknown): () => void {
  const prototype = owner.prototype as Record<string, Method | undefined>;
  const real = prototype[name];
  if (typeof real !== 'function') throw new Error(`the plant's method ${name} is gone; plant the bug where its work is done now`);
  prototype[name] = make((self, words) => real.apply(self as never, words as never[])) as Method;
  return () => void (prototype[name] = real);
}

/** The native half with one function of another kind. */
function lying<K extends keyof Native>(native: SimNative, name: K, make: (real: Native[K]) => Native[K]): SimNative {
  return new Proxy(native, {
    get(target, wanted) {
      const value = (target as unknown as Record<PropertyKey, unknown>)[wanted];
      const bound = typeof value === 'function' ? (value as Method).bind(target as never) : value;
      return wanted === name ? make(bound as Native[K]) : bound;
    },
  });
}

export const PLANTS: Record<string, Plant> = {
  'no-quarantine': {
    says: 'a slot whose call is in the kernel is free as soon as its request is answered',
    breaks: ['slots', 'memory', 'it threw', 'books'],
    plant: () => {
      const undo = [
        replaced(Slots, 'quarantine', () => function (this: unknown, slot) {
          (this as Slots).release(slot as number);
        }),
        replaced(Slots, 'release', (real) => function (this: unknown, slot) {
          return (this as Slots).state(slot as number) === 0 ? false : real(this, [slot]);
        }),
      ];
      return () => undo.forEach((one) => one());
    },
  },
  'deadline-late': {
    says: 'a deadline rings one microsecond late',
    breaks: ['in time', 'time goes on'],
    plant: () => replaced(Deadlines, 'ringDue', (real) => function (this: unknown, nowUs) {
      return real(this, [(nowUs as number) - 1]);
    }),
  },
  'deadline-early': {
    says: 'a deadline rings a millisecond early',
    breaks: ['not early', 'at once', 'refused for nothing'],
    plant: () => {
      const undo = [
        replaced(Deadlines, 'ringDue', (real) => function (this: unknown, nowUs) {
          return real(this, [(nowUs as number) + 1_000]);
        }),
        replaced(Deadlines, 'set', (real) => function (this: unknown, alarm, atUs) {
          return real(this, [alarm, Math.max(atUs as number, 2_000)]);
        }),
      ];
      return () => undo.forEach((one) => one());
    },
  },
  'answered-twice': {
    says: 'a task that is cancelled is answered again by its last completion',
    breaks: ['one answer', 'it threw'],
    plant: () => replaced(TaskTable, 'answer', (real) => function (this: unknown, ...words) {
      const [task, answer] = words as [{ id: unknown }, { failed?: { code: string }[] }];
      real(this, words);
      if (answer.failed?.[0]?.code !== 'CANCELLED') return;
      (this as { add(task: unknown): void }).add(task);
      real(this, words);
    }),
  },
  'never-answered': {
    says: 'the last completion of a task does not answer it when it is a NOT_FOUND of several blocks',
    breaks: ['in time', 'cancel', 'drain', 'books', 'it threw'],
    plant: () => replaced(TaskTable, 'answer', (real) => function (this: unknown, ...words) {
      const failed = (words[1] as { failed?: { code: string; blocks?: number[][] }[] }).failed;
      return failed?.[0]?.code === 'NOT_FOUND' && failed[0].blocks !== undefined ? undefined : real(this, words);
    }),
  },
  'cap-off-by-one': {
    says: 'a class may have one stuck lane more than its share',
    breaks: ['caps'],
    tampered: (native) => lying(native, 'setStuckLimit', (real) => (pool, lanes) => real(pool, native.pools[pool]!.options.forProbes ? lanes : lanes + 1)),
  },
  'breaker-never-closes': {
    says: 'good answers never close a breaker',
    breaks: ['back within a second'],
    plant: () => replaced(Breaker, 'answeredWell', () => () => false),
  },
  'no-probes': {
    says: 'a suspended class is not probed',
    breaks: ['back within a second'],
    plant: () => replaced(LaneGroup, 'mountsChanged', () => () => undefined),
  },
  'breaker-opens-for-nothing': {
    says: 'any deadline that passes inside a call is evidence against the mount, however short it was',
    breaks: ['suspended for nothing'],
    plant: () => replaced(Breaker, 'overrunCounts', () => () => true),
  },
  'gate-leaks': {
    says: 'every tenth holder of a key never gives it up',
    breaks: ['nothing is left', 'it threw', 'in time', 'back within a second'],
    plant: () => {
      let leaves = 0;
      return replaced(KeyGate, 'leave', (real) => function (this: unknown, operation) {
        leaves += 1;
        return leaves % 10 === 0 ? null : real(this, [operation]);
      });
    },
  },
  'no-gate': {
    says: 'two operations may change a name at the same time',
    breaks: ['two writers', 'it threw'],
    plant: () => {
      const undo = [replaced(KeyGate, 'enter', () => () => true), replaced(KeyGate, 'leave', () => () => null)];
      return () => undo.forEach((one) => one());
    },
  },
  'late-completion-answers': {
    says: 'what comes back late is taken for what its task waited for',
    breaks: ['it threw', 'one answer', 'books', 'refused for nothing', 'nothing is left'],
    plant: () => replaced(Lanes, 'finished', (real) => function (this: unknown, ...words) {
      const operation = (this as Lanes).operation((words[0] as { id: number }).id);
      if (operation?.state === 'abandoned') operation.state = 'submitted';
      return real(this, words);
    }),
  },
  'staging-leaks': {
    says: 'an area of staging that was quarantined is never given back',
    breaks: ['nothing is left'],
    plant: () => replaced(Staging, 'release', (real) => {
      const lost = new WeakMap<object, Set<number>>();
      return function (this: unknown, area) {
        const quarantined = lost.get(this as object) ?? new Set<number>();
        lost.set(this as object, quarantined);
        const before = (this as Staging).figures().quarantined;
        if (before > 0 && quarantined.size < before) {
          quarantined.add(area as number);
          return false;
        }
        return real(this, [area]);
      };
    }),
  },
  'quarantine-forgotten': {
    says: 'a slot is called quarantined, but taken for free from then on, and slots_freed never names it',
    breaks: ['slots', 'memory', 'it threw', 'books', 'nothing is left'],
    plant: () => replaced(Lanes, 'settle', (real) => function (this: unknown, ...words) {
      const operation = words[0] as { memory: { release(area: number): boolean } | null; area: number };
      const { memory } = operation;
      const settled = real(this, words) as { quarantined: boolean };
      if (settled.quarantined && memory !== null) {
        operation.memory = null;
        memory.release(operation.area);
      }
      return settled;
    }),
  },
  'suspended-still-asked': {
    says: 'what waits for a lane stays in the queue of a class that is suspended, and what comes is let in',
    breaks: ['suspended', 'at once'],
    plant: () => replaced(Breaker, 'isOpen', () => () => false),
  },
  'device-never-over': {
    says: 'a device that no mount lies on is kept for ever',
    breaks: ['nothing is left'],
    plant: () => replaced(Device, 'isOver', () => () => false),
  },
  'slot-given-up-early': {
    says: 'a slot may be taken by another request as soon as its own block is through',
    breaks: ['slots', 'memory', 'wrong bytes'],
    plant: () => replaced(Slots, 'ask', () => () => undefined),
  },
  'breaker-never-opens': {
    says: 'no evidence suspends a class',
    breaks: ['sick is refused'],
    plant: () => replaced(Breaker, 'trip', () => () => false),
  },
  'always-replaces': {
    says: 'a store replaces what is there, whatever it was asked',
    breaks: ['facts'],
    tampered: (native) => lying(native, 'submitBlocks', (real) => (pool, shared, blocks) => real(pool, shared, blocks.map(({ id, hex, region, offset, bytes }) => ({ id, hex, region, offset, bytes, replace: true })))),
  },
  'never-replaces': {
    says: 'a store keeps what is there, whatever it was asked',
    breaks: ['facts'],
    tampered: (native) => lying(native, 'submitBlocks', (real) => (pool, shared, blocks) => real(pool, shared, blocks.map(({ id, hex, region, offset, bytes }) => ({ id, hex, region, offset, bytes, replace: false })))),
  },
  'says-not-found': {
    says: 'every twentieth block that was loaded is called a miss',
    breaks: ['facts'],
    plant: () => {
      let loads = 0;
      return replaced(BlockTask, 'completed', (real) => function (this: unknown, ...words) {
        const [operation, done, nowUs] = words as [{ kind: string }, { status: string }, number];
        if (operation.kind !== 'load' || done.status !== 'ok') return real(this, words);
        loads += 1;
        return real(this, [operation, loads % 20 === 0 ? { ...done, status: 'not_found' } : done, nowUs]);
      });
    },
  },
  'saturated-for-nothing': {
    says: 'every fiftieth request is SATURATED, though lanes are there',
    breaks: ['refused for nothing'],
    plant: () => {
      let asked = 0;
      return replaced(LaneGroup, 'saturated', (real) => function (this: unknown) {
        asked += 1;
        return asked % 50 === 0 || real(this, []) as boolean;
      });
    },
  },
  'stale-roots': {
    says: 'lanes go on in what was mounted before',
    breaks: ['old mount', 'back within a second', 'facts'],
    plant: () => replaced(Mounts, 'listChanged', () => () => undefined),
  },
  'cancel-lies': {
    says: 'a cancel that settled its task says that the task is unknown',
    breaks: ['cancel'],
    plant: () => replaced(TaskTable, 'cancel', (real) => function (this: unknown, ...words) {
      return real(this, words) === 'cancelled' ? 'unknown' : 'already_settled';
    }),
  },
  'stores-in-lanes-of-loads': {
    says: 'stores wait in the queue of loads',
    breaks: ['pools'],
    tampered: (native) => lying(native, 'submitBlocks', (real) => (pool, shared, blocks) => real(shared.kind === 'store' ? pool - 2 : pool, shared, blocks)),
  },
  'one-device-for-all': {
    says: 'mounts on different devices share lanes and breakers',
    breaks: ['pools'],
    plant: () => replaced(Devices, 'of', (real) => function (this: unknown, label) {
      return (this as Devices).all.find((one) => !one.closed) ?? real(this, [label]);
    }),
  },
  'what-was-there-first': {
    says: 'what a mount was when the first lane opened it is what it is to be, though something else was mounted meanwhile',
    seeds: 700,
    breaks: ['old mount', 'back within a second'],
    plant: () => replaced(Mounts, 'listChanged', (real) => function (this: unknown, ...words) {
      const [mount] = words as [{ learntUs: number }];
      mount.learntUs = 0;
      return real(this, words);
    }),
  },
  'lost-on-the-way': {
    says: 'every thirtieth load is never handed to a lane',
    breaks: ['hurts nobody else', 'back within a second'],
    tampered: (native) => {
      let loads = 0;
      return lying(native, 'submitBlocks', (real) => (pool, shared, blocks) => real(pool, shared, blocks.filter(() => shared.kind !== 'load' || (loads += 1) % 30 !== 0)));
    },
  },
  'left-behind': {
    says: 'what waits when its mount goes to another device stays where it is',
    breaks: ['suspended', 'pools'],
    plant: () => replaced(Lanes, 'moveQueued', () => () => undefined),
  },
  'probes-pile-up': {
    says: 'a stuck probe is joined by others without end',
    breaks: ['caps'],
    plant: () => replaced(Prober, 'ring', () => function (this: unknown, nowUs) {
      const self = this as { stop(): void; start(nowUs: number): void };
      self.stop();
      self.start(nowUs as number);
    }),
  },
  'index-never-forgets': {
    says: 'what a look-up once knew to be there it knows for ever',
    seeds: 300,
    breaks: ['facts'],
    plant: () => {
      const undo = [
        replaced(BlockIndex, 'has', (real) => function (this: unknown, ...words) {
          return real(this, [...words.slice(0, 3), 0]);
        }),
        replaced(BlockIndex, 'note', (real) => function (this: unknown, ...words) {
          return real(this, [...words.slice(0, 4), 0, 0]);
        }),
      ];
      return () => undo.forEach((one) => one());
    },
  },
  'index-keeps-the-removed': {
    says: 'a look-up knows a block to be there that this sidecar itself removed',
    breaks: ['facts'],
    plant: () => replaced(BlockIndex, 'removing', () => () => undefined),
  },
  'index-of-all-stores': {
    says: 'a look-up knows of one store what is in another',
    breaks: ['facts'],
    plant: () => {
      const undo = [
        replaced(BlockIndex, 'has', (real) => function (this: unknown, mount, ...words) {
          return real(this, [{ ...(mount as object), storeId: 'any' }, ...words]);
        }),
        replaced(BlockIndex, 'note', (real) => function (this: unknown, mount, ...words) {
          return real(this, [{ ...(mount as object), storeId: 'any' }, ...words]);
        }),
      ];
      return () => undo.forEach((one) => one());
    },
  },
  'namespace-lies': {
    says: 'a namespace that differs is said to match',
    breaks: ['facts'],
    plant: () => replaced(NamespaceTask, 'completed', (real) => function (this: unknown, ...words) {
      const [operation, done] = words as [unknown, { text: string }];
      return real(this, [operation, { ...done, text: done.text.replace('"differs"', '"matches"') }]);
    }),
  },
  'not-abandoned': {
    says: 'an operation in the queue is not taken out of it when its task is answered',
    breaks: ['slots', 'memory', 'late store', 'it threw', 'two writers'],
    tampered: (native) => lying(native, 'abandon', (real) => (id) => {
      const one = native.operations.get(id);
      return one?.state === 'queued' ? { state: 'queued', phase: 'queue', sinceUs: 0 } : real(id);
    }),
  },
};
