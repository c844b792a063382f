// handshake.ts — the `ready` event: the first line out, before anything is asked.
//
// A client checks it against what it was built for (protocol, limits) and what it sees itself (the
// clock, the arena); so everything in it is as observed, not as asked for.
import type { ArenaInfo } from '../native/index.ts';
import { LIMITS, PROTOCOL, VERSION } from '../protocol/messages.ts';
import type { MountInfo, ReadyEvent } from '../protocol/messages.ts';

export interface ReadyFacts {
  nowUs: number;
  engine: string;
  timeoutMs: number;
  stallMs: number;
  arena: ArenaInfo;
  arenaOwner: 'client' | 'sidecar';
  slotBytes: number;
  slots: number;
  mounts: MountInfo[];
}

export function readyEvent(facts: ReadyFacts): ReadyEvent {
  const { arena } = facts;
  return {
    event: 'ready',
    protocol: PROTOCOL,
    version: VERSION,
    pid: process.pid,
    now_us: facts.nowUs,
    engine: facts.engine,
    timeout_ms: facts.timeoutMs,
    stall_ms: facts.stallMs,
    arena: {
      owner: facts.arenaOwner,
      path: `/proc/${process.pid}/fd/${arena.fd}`,
      bytes: arena.bytes,
      slot_bytes: facts.slotBytes,
      slots: facts.slots,
      page_bytes: arena.pageBytes,
      backing: arena.backing,
      huge_bytes: arena.hugeBytes,
      ...(arena.advice === '' ? {} : { advice: arena.advice }),
    },
    mounts: facts.mounts,
    limits: { ...LIMITS },
  };
}
