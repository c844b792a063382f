// An hour of hang, on a clock moved by hand: the real policy with its real schedule of probes, timers and refusals, lanes that never come
// back. What it holds, submits and says must not grow with the time; and after the hour the mount is used again within a second.

import { expect, test } from 'vitest';
import { started, identifies, type Harness } from '../support/service_harness.ts';
import { complaint, row } from './costs.ts';

const MINUTES = [5, 10, 20, 40, 60];
const DEVICES = process.env['KVLANE_SCALE_FULL'] ? 64 : 8;

interface Seen {
  probes: number;
  inKernel: number;
  timers: number;
  events: number;
}

async function hangFor(mounts: number): Promise<{ seen: Seen[]; made: Harness; hung: { value: boolean } }> {
  const hung = { value: false };
  const names = Array.from({ length: mounts }, (_, i) => ({ name: `kv${i}`, root: `/mnt/kv${i}`, create: false }));
  let identified = 0;
  const made = await started({ mounts: names, slots: 16 * mounts }, (spec) => {
    if (spec.kind === 'identify' && !hung.value) return { ...identifies(spec), text: JSON.stringify({ store_id: '0123456789abcdef0123456789abcdef', device: `254:${(identified += 1)}`, fs_type: 'ext4', direct: true, created: false }) };
    return hung.value ? null : {};
  });
  hung.value = true;
  const total: Seen = { probes: 0, inKernel: 0, timers: 0, events: 0 };
  const onTimer = made.clock.onTimer;
  made.clock.onTimer = () => {
    total.timers += 1;
    onTimer();
  };
  const seen: Seen[] = [];
  let refusedInTime = 0;
  for (let second = 0; second < 3600; second += 1) {
    const mount = `kv${second % mounts}`;
    const slot = 16 * (second % mounts) + (second % 8);
    made.load(`l${second}`, [slot], { timeoutMs: 500, mount });
    made.advance(1000);
    expect(made.answers(`l${second}`)).toHaveLength(1); // by its deadline, whatever hangs
    if (JSON.stringify(made.answers(`l${second}`)).includes('MOUNT_SUSPENDED')) refusedInTime += 1;
    total.probes += made.native.submitted.filter((one) => one.kind === 'probe').length;
    total.events += made.sent.filter((one) => 'event' in one).length;
    total.inKernel = made.native.inKernel().length;
    made.native.submitted.length = 0; // ours, not the service's
    made.sent.length = 0;
    if (MINUTES.includes((second + 1) / 60)) seen.push({ ...total });
  }
  expect(refusedInTime).toBeGreaterThan(3600 - 60 - 20 * mounts);
  return { seen, made, hung };
}

test.each([1, DEVICES])('of %i devices: probes, timers and what is in the kernel grow with neither time nor requests', async (mounts) => {
  const { seen, made, hung } = await hangFor(mounts);
  seen.forEach(({ probes, inKernel, timers, events }, i) => row(`an hour of hang, ${mounts} devices`, `${MINUTES[i]} min`, null, `${inKernel} in the kernel, ${probes} probes, ${timers} wake-ups, ${events} events`));
  const points = (what: keyof Seen) => seen.map((one, i) => ({ n: MINUTES[i]!, value: one[what] }));
  expect([
    complaint('what is in the kernel', points('inKernel'), { perUnit: 0, slack: 16 * mounts }),
    complaint('probes', points('probes'), { perUnit: 60 * mounts, slack: 32 * mounts }),
    complaint('wake-ups', points('timers'), { perUnit: 60 * 8, slack: 64 * mounts }),
    complaint('events', points('events'), { perUnit: 60 * mounts, slack: 64 * mounts }),
  ].filter(Boolean)).toEqual([]);

  hung.value = false;
  made.native.releaseAll();
  made.deliver();
  made.advance(1000);
  for (let i = 0; i < mounts; i += 1) made.load(`after${i}`, [16 * i + 9], { mount: `kv${i}` });
  made.deliver();
  for (let i = 0; i < mounts; i += 1) expect(made.answer(`after${i}`), `kv${i}`).toMatchObject({ ok: true });
});
