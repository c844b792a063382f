// late.ts — what tests of late completion look at: the files themselves, by another sidecar or behind the gates, and whether
// a block that must not come really stays away.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { expect } from 'vitest';
import type { FailedEntry } from '../../protocol/messages.ts';
import { type Asked, failuresOf, type Rig, startOn } from './rig.ts';
import { LATE_MS } from './promptness.ts';

export const PLACES = ['mnt', 'blk'] as const;
export type Place = (typeof PLACES)[number];
const HEADER_BYTES = 4_096;
const POLLS = 30;
const POLL_MS = 10;
const CALM_MS = 5_000;
const FIND_MS = 5_000;

/** Where the block of this key lies, below a root. */
export function blockFile(root: string, key: string): string {
  const [namespace = '', hex = ''] = key.split('/');
  return path.join(root, 'blocks', namespace, hex.slice(0, 2), `${hex}.kvb`);
}

/** The payload as it lies in the file, behind the gates: of a block, or of a temporary. */
export function payloadBehind(file: string, bytes: number): Buffer {
  return readFileSync(file).subarray(HEADER_BYTES, HEADER_BYTES + bytes);
}

/** Files below a directory whose names end so; by a process of its own, since the directory may lie on a mount. */
export async function filesBelow(directory: string, ending: string): Promise<string[]> {
  const found = await promisify(execFile)('find', [directory, '-type', 'f', '-name', `*${ending}`], { timeout: FIND_MS, encoding: 'utf8' });
  return found.stdout.split('\n').filter((line) => line !== '');
}

/** The one failure of a request for one block. */
export function onlyFailure(asked: Asked<'store'> | Asked<'load'> | Asked<'remove'>): FailedEntry {
  const all = [...failuresOf(asked.answer).values()];
  expect(all, JSON.stringify(asked.answer)).toHaveLength(1);
  return all[0]!;
}

/** Ended by its deadline: not before it, and not noticeably after. */
export function expectAtDeadline(asked: { overshootMs: number; answer: object }): void {
  expect(asked.overshootMs, JSON.stringify(asked.answer)).toBeGreaterThanOrEqual(0);
  expect(asked.overshootMs, JSON.stringify(asked.answer)).toBeLessThan(LATE_MS);
}

/** A second sidecar on the same store: what it sees is what any other host sees. */
export async function withOther<T>(rig: Rig, place: Place, body: (other: Rig) => Promise<T>): Promise<T> {
  const other = await startOn(rig.lab, { engine: rig.engine, on: place, slotBytes: rig.slotBytes });
  try {
    return await body(other);
  } finally {
    await other.client.shutdown(300);
  }
}

/** Some time after everything has come back, none of these blocks is there, and no temporary either. */
export async function expectNeverThere(rig: Rig, place: Place, keys: readonly string[]): Promise<void> {
  await withOther(rig, place, async (other) => {
    for (let i = 0; i < POLLS; i += 1) {
      for (const looker of [rig, other]) {
        let present: unknown;
        await looker.until('a look-up is answered', async () => {
          const { answer } = await looker.lookup(keys, CALM_MS);
          present = 'present' in answer && answer.complete ? answer.present : null;
          return present !== null;
        });
        expect(present, 'a store that was given up appeared later').toEqual(keys.map(() => false));
      }
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  });
  await expectNoTemporaries(rig, place);
}

export async function expectNoTemporaries(rig: Rig, place: Place): Promise<void> {
  expect(await filesBelow(path.join(place === 'blk' ? rig.lab.blk : rig.lab.back, 'blocks'), '.tmp'), 'temporaries left behind').toEqual([]);
}

/** This block is there with these bytes, for both sidecars and (behind FUSE) in the file, and goes on being there. */
export async function expectStays(rig: Rig, place: Place, key: string, bytes: Buffer): Promise<void> {
  await withOther(rig, place, async (other) => {
    for (let i = 0; i < POLLS; i += 1) {
      for (const looker of [other, rig]) expect(await differs(looker, key, bytes), `${key}, look ${i}`).toBe('');
      await new Promise((go) => setTimeout(go, POLL_MS));
    }
  });
  if (place === 'mnt') expect(payloadBehind(blockFile(rig.lab.back, key), bytes.length).equals(bytes)).toBe(true);
  await expectNoTemporaries(rig, place);
}

/** Empty when it loads with these bytes (asked again while its class is still suspended); else what came instead. */
async function differs(rig: Rig, key: string, bytes: Buffer): Promise<string> {
  const slots = rig.lease(1);
  try {
    let answer: { ok?: boolean; error?: { code: string } } = {};
    await rig.until(`${key} is answered`, async () => {
      answer = (await rig.load([key], slots, CALM_MS, bytes.length)).answer as typeof answer;
      return answer.error?.code !== 'MOUNT_SUSPENDED';
    });
    if (!answer.ok) return JSON.stringify(answer);
    const found = rig.client.readSlot(slots[0]!, bytes.length);
    return found.equals(bytes) ? '' : `other bytes, beginning with ${found.subarray(0, 32).toString('hex')}`;
  } finally {
    rig.client.arena.release(slots);
  }
}

/** One block stored with these bytes; the slot is released whatever the answer says (a quarantined one stays quarantined). */
export async function storeBytes(rig: Rig, key: string, bytes: Buffer, timeoutMs = CALM_MS, o: { replace?: boolean } = {}): Promise<{ asked: Asked<'store'>; slot: number }> {
  const slots = rig.lease(1);
  rig.client.writeSlot(slots[0]!, bytes);
  const asked = await rig.store([key], slots, timeoutMs, { ...o, bytes: bytes.length });
  rig.client.arena.release(slots);
  return { asked, slot: slots[0]! };
}
