// mount_stage.ts — labs, a mount point between them and the sidecars, and any number of sidecars in a row: for tests of starting and
// of mounts that come and go.

import { Client } from '../../clients/node/client.ts';
import type { Engine } from '../../native/index.ts';
import type { Code } from '../../protocol/messages.ts';
import { MountPoint } from './mount_point.ts';
import { identified, Rig } from './rig.ts';
import { KNOWN_AT_READY } from './sidecar_process.ts';
import { type Lab, startLab } from './stall.ts';

const SLOT_BYTES = 16_384;
const STALL_MS = 100;
const LEAVE_MS = 300;

export interface Started extends Rig {
  readyMs: number;
}

/** Labs, a mount point, and the sidecars of one test; all of it goes, whatever becomes of the test. */
export class Stage {
  readonly labs: readonly Lab[];
  readonly point = new MountPoint();
  readonly #rigs = new Set<Rig>();

  constructor(labs: readonly Lab[]) {
    this.labs = labs;
  }

  async start(engine: Engine, root: string, o: { create?: boolean; known?: boolean; stallMs?: number } = {}): Promise<Started> {
    const args = [...((o.known ?? true) ? KNOWN_AT_READY : []), '--engine', engine, '--slot-bytes', String(SLOT_BYTES), '--arena-mib', '2', '--stall-ms', String(o.stallMs ?? STALL_MS), '--lanes', '2'];
    const beganMs = performance.now();
    const client = await Client.spawn({ mounts: { kv0: root }, create: o.create ?? true, args });
    const rig = Object.assign(new Rig(this.labs[0]!, client, engine, SLOT_BYTES), { readyMs: performance.now() - beganMs });
    this.#rigs.add(rig);
    if (o.known ?? true) await identified(rig);
    return rig;
  }

  async end(rig: Rig): Promise<void> {
    this.#rigs.delete(rig);
    await rig.client.shutdown(LEAVE_MS);
  }

  /** These blocks are in the lab's store, made by a sidecar that has left. */
  async fill(engine: Engine, keys: readonly string[], lab = this.labs[0]!): Promise<void> {
    const rig = await this.start(engine, lab.mnt);
    await rig.fill(keys);
    await this.end(rig);
  }

  async strike(): Promise<void> {
    for (const lab of this.labs) await lab.cont().then(() => lab.resume());
    for (const rig of this.#rigs) await this.end(rig);
    await this.point.remove();
    for (const lab of this.labs) await lab.down();
  }
}

export async function onStage(body: (stage: Stage) => Promise<void>, labs = 1): Promise<void> {
  const stage = new Stage(await Promise.all(Array.from({ length: labs }, () => startLab({ maxHangS: 25 }))));
  try {
    await body(stage);
  } catch (error) {
    await stage.strike().catch((also: unknown) => process.stderr.write(`stage: ${String(also)}\n`));
    throw error;
  }
  await stage.strike();
}

export interface MountPicture {
  device: string | null;
  reason?: string;
  code?: Code;
  store_id?: string;
}
export async function mountOf(rig: Rig): Promise<MountPicture> {
  return ((await rig.stats()).whole['mounts'] as MountPicture[])[0]!;
}
/** It has answered since the start, well or not. */
export const isNamed = (mount: MountPicture): boolean => mount.store_id !== undefined || mount.code === 'WRONG_STORE';
