// What a person at a terminal is told to type, and the offer to make a missing store.
import { expect, test } from 'vitest';
import type { MountInfo } from '../../protocol/messages.ts';
import { offerStores, whatToType, withoutStore } from '../../sidecar/hints.ts';

const kv0: MountInfo = { name: 'kv0', root: '/mnt/a', device: '254:1', state: 'ok', store_id: '0'.repeat(32) };
const kv1: MountInfo = { name: 'kv1', root: '/mnt/b', device: '254:2', state: 'suspended', code: 'WRONG_STORE', reason: 'no kvlane.json' };

test('each line to type is a request, with the mount where there are several', () => {
  const typed = (mounts: MountInfo[]) =>
    whatToType(mounts)
      .map((line) => /^ {2}(\{.*\})/.exec(line)?.[1])
      .filter((line) => line !== undefined)
      .map((line) => JSON.parse(line) as { op: string; mount?: string });
  expect(typed([kv0]).map(({ op, mount }) => [op, mount])).toEqual([['store', undefined], ['load', undefined], ['lookup', undefined], ['stuck', undefined], ['help', undefined]]);
  expect(typed([kv0, kv1]).slice(0, 3).map(({ mount }) => mount)).toEqual(['kv0', 'kv0', 'kv0']);
});

test('a mount that nobody has used yet is not said to be unknown', () => {
  const lines = whatToType([{ ...kv0, state: 'unknown', created: true, fs_type: 'ext4', direct: true }, { ...kv0, name: 'far', direct: false }, { ...kv0, name: 'ill', state: 'suspended' }, kv1]);
  expect(lines.filter((line) => line.includes('/mnt/'))).toEqual([
    '  kv0: /mnt/a (a new store on ext4)',
    '  far: /mnt/a (a store, without O_DIRECT)',
    '  ill: /mnt/a (a store, suspended)',
    '  kv1: /mnt/b (suspended: no kvlane.json)',
  ]);
});

function offering(mounts: MountInfo[]) {
  const said: string[] = [];
  const made: string[] = [];
  const offer = offerStores(mounts, { say: (text) => void said.push(text), create: (mount) => void made.push(mount) });
  return { said, made, offer, type: (text: string) => offer.take(Buffer.from(text)).toString() };
}

test('a mount without a store is offered one; only y or yes makes it', () => {
  expect(withoutStore([kv0, kv1])).toEqual([kv1]);
  for (const [typed, count] of [['y\n', 1], ['YES\n', 1], ['n\n', 0], ['\n', 0], ['maybe\n', 0]] as const) {
    const { said, made, offer, type } = offering([kv1]);
    expect(said[0]).toBe('kv1: there is no store in /mnt/b. Make one? [y/N]');
    expect(type(typed)).toBe('');
    expect(made).toHaveLength(count);
    expect(offer.open()).toBe(false);
  }
});

test('a request typed instead of an answer is a no, and is read', () => {
  const { made, type } = offering([kv1, { ...kv1, name: 'kv2' }]);
  expect(type('{"id":1,"op":"ping"}\n')).toBe('{"id":1,"op":"ping"}\n');
  expect(made).toEqual([]);
});

test('several mounts are asked for in turn, and what was pasted behind the answers is read', () => {
  const { said, made, offer, type } = offering([kv1, { ...kv1, name: 'kv2' }]);
  expect(type('y')).toBe('');
  expect(offer.typed().toString()).toBe('y');
  expect(type('es\nn\n{"id":1}\n')).toBe('{"id":1}\n');
  expect(made).toEqual(['kv1']);
  expect(said).toHaveLength(3);
});
