// On which mounts files are recycled, within which limits, and when what others left is looked for.
import { expect, test } from 'vitest';
import type { OpSpec } from '../../native/index.ts';
import { LIMITS } from '../../protocol/messages.ts';
import { LEFT_US, LOOK_AGAIN_US, RECYCLE_BYTES_MAX, RECYCLE_FILES_MAX, RECYCLE_REST_US } from '../../sidecar/recycling.ts';
import { identity, STORE_ID, started } from '../support/service_harness.ts';

const on = (fsType: string) => (spec: OpSpec) => (spec.kind === 'identify' ? identity('254:1', STORE_ID, fsType) : null);

test.each([
  ['auto', 'ext4', true],
  ['auto', 'xfs', true],
  ['auto', 'tmpfs', true],
  ['auto', 'fuse', false],
  ['auto', 'nfs', false],
  ['auto', 'btrfs', false],
  ['auto', 'overlay', false],
  ['on', 'ext4', true],
  ['on', 'btrfs', true],
  ['on', 'overlay', true],
  ['on', 'nfs', false],
  ['on', 'cifs', false],
  ['on', 'fuse', false],
  ['on', '0x12345678', false],
  ['off', 'ext4', false],
] as const)('--recycle %s on %s: %s', async (recycle, fsType, yes) => {
  const { native } = await started({ recycle, fileMode: 0o640 }, on(fsType));
  const some = { files: RECYCLE_FILES_MAX, bytes: RECYCLE_BYTES_MAX, restUs: RECYCLE_REST_US };
  expect(native.recycleLimits).toEqual([{ ...(yes ? some : { files: 0, bytes: 0, restUs: 0 }), fileMode: 0o640 }]);
  if (yes) expect(native.held('tidy')).toHaveLength(1);
});

test.each([
  ['off', 'ext4', 1], // it was on before, or is so in another sidecar
  ['auto', 'btrfs', 1],
  ['off', 'nfs', 0],
  ['auto', 'fuse', 0],
] as const)('what others left is looked for wherever somebody may recycle: --recycle %s on %s, looks: %i', async (recycle, fsType, looks) => {
  const { native } = await started({ recycle }, on(fsType));
  expect(native.held('tidy')).toHaveLength(looks);
});

test('with --no-tidy nothing is looked for, then or later', async () => {
  const { native, advance } = await started({ recycle: 'auto', tidy: false }, on('ext4'));
  advance(LOOK_AGAIN_US / 1000);
  expect(native.submitted.filter((spec) => spec.kind === 'tidy')).toEqual([]);
});

test('while a mount is suspended nobody looks, and one more lane is not stuck for it', async () => {
  const { native, lookup, advance, events } = await started({ recycle: 'auto' }, (spec) => (spec.kind === 'tidy' ? { text: '0' } : on('ext4')(spec)));
  const looks = (): number => native.submitted.filter((spec) => spec.kind === 'tidy').length;
  lookup(1, ['aa'], { timeoutMs: 250 });
  advance(250);
  expect(events('mount')).toMatchObject([{ class: 'metadata', state: 'suspended' }]);
  advance(LOOK_AGAIN_US / 1000);
  expect(looks()).toBe(1);
  native.onSubmit = (spec) => (spec.kind === 'probe' || spec.kind === 'tidy' ? {} : null);
  for (const stuck of native.held('probe')) native.release(stuck);
  for (let i = 0; i < 20; i += 1) advance(1000);
  expect(events('mount').at(-1)).toMatchObject({ class: 'metadata', state: 'ok' });
  advance(LOOK_AGAIN_US / 1000);
  expect(looks()).toBe(2);
});

test.each([
  ['off', 'ext4', /^--recycle off$/],
  ['on', 'nfs', /^nfs is not a file system of this machine alone/],
  ['auto', 'btrfs', /--recycle on does it all the same$/],
  ['auto', 'ext4', /^the file system refused/], // allowed, and the lanes found otherwise: the fake native recycles nothing
] as const)('stats say why nothing is recycled: --recycle %s on %s', async (recycle, fsType, why) => {
  const { ask, answer } = await started({ recycle }, on(fsType));
  ask({ id: 1, op: 'stats' });
  const { stats } = answer(1) as unknown as { stats: { mounts: { recycling: { on: boolean; reason: string } }[] } };
  expect(stats.mounts[0]!.recycling).toMatchObject({ on: false, reason: expect.stringMatching(why) });
});

test('what a sidecar left that ended just before is looked for once more when it is old enough', async () => {
  const { native, advance } = await started({ recycle: 'auto' }, (spec) => (spec.kind === 'tidy' ? { text: '3' } : on('ext4')(spec)));
  expect(LOOK_AGAIN_US).toBeGreaterThan(LEFT_US);
  const looks = (): number => native.submitted.filter((spec) => spec.kind === 'tidy').length;
  expect(looks()).toBe(1);
  advance(LEFT_US / 1000);
  expect(looks()).toBe(1);
  advance((LOOK_AGAIN_US - LEFT_US) / 1000 + 1);
  expect(looks()).toBe(2);
  advance(10 * (LOOK_AGAIN_US / 1000));
  expect(looks()).toBe(2);
});

test('what others left is looked for at the start, and never for longer than its time', async () => {
  const { native, advance, lookup, answers } = await started({ recycle: 'auto', lanes: 1 }, on('ext4'));
  expect(native.held('tidy')).toMatchObject([{ spec: { olderUs: 600_000_000 } }]);
  advance(5_001);
  expect(native.held('tidy')).toMatchObject([{ abandoned: true }]);
  native.release(native.held('tidy')[0]!);
  advance(1);
  lookup(1, ['aa']);
  native.release(native.held('lookup')[0]!, { found: Uint8Array.of(1) });
  advance(1);
  expect(answers(1)).toHaveLength(1);
  expect(native.held('tidy')).toHaveLength(0);
});

test('while metadata calls are suspended nothing is looked for, and the later look waits until they are not', async () => {
  const { native, advance, remove, events, mountTable, deliver } = await started({ recycle: 'auto' }, (spec) => (spec.kind === 'remove' || spec.kind === 'probe' ? null : on('ext4')(spec)));
  native.releaseAll('tidy');
  deliver();
  advance(1);
  remove(1, ['aa'], { timeoutMs: 500 });
  advance(501);
  expect(events('mount')).toMatchObject([{ class: 'metadata', state: 'suspended' }]);
  const looks = (): number => native.submitted.filter((spec) => spec.kind === 'tidy').length;
  expect(looks()).toBe(1);
  mountTable.text = 'something is mounted';
  deliver();
  advance(LOOK_AGAIN_US / 1000 + 1);
  expect(looks()).toBe(1);
  native.onSubmit = on('ext4'); // it answers again: probes, too
  for (let round = 0; round < 40; round += 1) {
    native.releaseAll();
    advance(500);
  }
  expect(events('mount').at(-1)).toMatchObject({ class: 'metadata', state: 'ok' });
  advance(LOOK_AGAIN_US / 1000 + 1);
  expect(looks()).toBe(2);
});

test('the limits are those of a cache, not of its store', () => {
  expect(RECYCLE_BYTES_MAX).toBeLessThanOrEqual(2 ** 28);
  expect(RECYCLE_REST_US / 1000).toBeLessThan(LIMITS.timeout_ms_max);
});
