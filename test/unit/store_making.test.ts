// When a missing store may be made: on what lay there when --create was said, and nowhere else.
import { expect, test } from 'vitest';
import { StoreMaking } from '../../sidecar/store_making.ts';
import { harness } from '../support/service_harness.ts';

const AT_START = '20 1 254:0 / / rw - ext4 /dev/root rw\n31 20 0:45 / /mnt/kv0 rw - fuse lab rw\n';
const UNMOUNTED = '20 1 254:0 / / rw - ext4 /dev/root rw\n';

function making(): { making: StoreMaking; table: { text: string | null }; warnings: object[] } {
  const table = { text: AT_START as string | null };
  const warnings: object[] = [];
  const log = { info() {}, error() {}, warn: (event: string, fields?: object) => void warnings.push({ event, ...fields }) };
  return { making: new StoreMaking({ read: (take) => take(table.text) }, log, '/mnt/kv0'), table, warnings };
}

test('nobody asked for it: it is not made', () => {
  const { making: store } = making();
  expect(store.take()).toBe(false);
  store.missing();
  expect(store.take()).toBe(false);
});

test('asked for: the first question makes it, later ones look', () => {
  const { making: store } = making();
  store.want();
  expect([store.take(), store.take(), store.take()]).toEqual([true, false, false]);
});

test('the first question was not answered and the mounts are as they were: a later one makes it after a look', () => {
  const { making: store, warnings } = making();
  store.want();
  store.take();
  expect(store.missing(), 'the next one decides').toBe(true);
  expect(store.take()).toBe(true);
  expect(warnings).toEqual([]);
});

test('the mount went away meanwhile: never again, and it says so once', () => {
  const { making: store, table, warnings } = making();
  store.want();
  store.take();
  table.text = UNMOUNTED;
  store.missing();
  expect(store.missing()).toBe(false);
  table.text = AT_START;
  expect(store.missing()).toBe(false);
  expect(store.take()).toBe(false);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toMatchObject({ event: 'no store is made', root: '/mnt/kv0' });
});

test('the list of mounts cannot be read: only the first question makes one', () => {
  const { making: store, table } = making();
  table.text = null;
  store.want();
  expect(store.take()).toBe(true);
  table.text = AT_START;
  expect(store.missing()).toBe(false);
  expect(store.take()).toBe(false);
});

test('the list of mounts can be read no more: likewise', () => {
  const { making: store, table } = making();
  store.want();
  store.take();
  table.text = null;
  store.missing();
  table.text = AT_START;
  expect(store.missing()).toBe(false);
  expect(store.take()).toBe(false);
});

test('a mount that was too slow for the first question is not called one without a store while it is being made', () => {
  const { native, service, deliver, advance, lookup, answer } = harness({ mounts: [{ name: 'kv0', root: '/mnt/kv0', create: true }] }, () => null);
  void service.start();
  deliver();
  advance(1000); // given up, and joined by one that only looks
  const looks = native.held('identify').filter(({ spec, abandoned }) => spec.kind === 'identify' && !spec.create && !abandoned);
  expect(looks).toHaveLength(1);
  native.onSubmit = (spec) => (spec.kind === 'identify' && spec.create ? { status: 'io_error', errno: 13, phase: 'open' } : { status: 'not_found', errno: 2 });
  native.release(looks[0]!, { status: 'not_found', errno: 2 });
  deliver();
  lookup(1, ['00']);
  expect(answer(1)).toMatchObject({ error: { code: 'MOUNT_SUSPENDED' } });
  advance(1000);
  lookup(2, ['00']);
  expect(answer(2)).toMatchObject({ error: { code: 'IO_ERROR', errno: 'EACCES' } });
});

test('a person who says yes later means what is there then', () => {
  const { making: store, table } = making();
  store.want();
  store.take();
  table.text = UNMOUNTED;
  store.missing();
  store.want();
  expect(store.take()).toBe(true);
});
