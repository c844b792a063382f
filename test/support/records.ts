// records.ts — records that nobody made with a sidecar: lines as `kvlane record` writes them.
export const BEGAN_US = 1_000_000;
export const SECOND = 1_000_000;

export type Line = readonly [atUs: number, from: 'client' | 'sidecar' | 'log' | 'recorder', fields: object];

/** Of one life, from what was said when. */
export function linesOf(...said: readonly Line[]): string[] {
  const head = { kvlane_record: 1, life: 7, version: '0.1.0', began: '2026-01-02T03:04:05.000Z', began_us: BEGAN_US, command: ['kvlane', 'serve', '--mount', 'kv0=/mnt/<a>&b'], system: 'Linux 6.18 x86_64', node: 'v20.19.0' };
  return [JSON.stringify(head), ...said.map(([atUs, from, fields]) => JSON.stringify({ life: 7, at_us: atUs, from, ...fields }))];
}

export const message = (fields: object): { message: object } => ({ message: fields });

/** Two loads hang, the class is suspended, the next is refused, a ping is never answered, and somebody ends it. */
export const HANG_LINES: readonly Line[] = [
  [10_000, 'sidecar', message({ event: 'ready', pid: 9 })],
  [SECOND, 'client', message({ id: 1, op: 'load', mount: 'kv0', namespace: 'n', keys: ['00', '01'], slots: [3, 4], bytes: 4096 })],
  [SECOND + 2_000, 'sidecar', message({ id: 1, ok: true, done: 2 })],
  [2 * SECOND, 'client', message({ id: 'two', op: 'load', mount: 'kv0', blocks: [{ key: 'n/02', slot: 5, bytes: 1 }, { key: 'n/03', slot: 6, bytes: 1 }] })],
  [2.3 * SECOND, 'sidecar', message({ id: 'two', ok: false, done: 0, failed: [{ blocks: [[0, 1]], code: 'DEADLINE_EXCEEDED', slot: 'quarantined' }] })],
  [2.3 * SECOND, 'sidecar', message({ event: 'mount', mount: 'kv0', class: 'load', state: 'suspended', was: 'ok', reason: '2 loads in flight, none completed' })],
  [2.4 * SECOND, 'sidecar', message({ event: 'stalled', mount: 'kv0', class: 'load', phase: 'read', syscall: 'preadv', key: 'n/02', tid: 100, since_us: BEGAN_US + 2 * SECOND, for_ms: 400 })],
  [3 * SECOND, 'client', message({ id: 3, op: 'load', mount: 'kv0', keys: ['n/04'], slots: [7], bytes: 1 })],
  [3 * SECOND + 100, 'sidecar', message({ id: 3, ok: false, error: { code: 'MOUNT_SUSPENDED', message: 'no' } })],
  [4 * SECOND, 'log', message({ time: 'x', level: 'warn', event: 'mount', state: 'suspended' })],
  [9 * SECOND, 'sidecar', message({ event: 'recovered', tid: 100, for_ms: 7000 })],
  [9 * SECOND, 'sidecar', message({ event: 'slots_freed', slots: [5, 6] })],
  [9.1 * SECOND, 'sidecar', message({ event: 'mount', mount: 'kv0', class: 'load', state: 'ok', was: 'suspended', reason: '' })],
  [9.5 * SECOND, 'client', message({ id: 4, op: 'ping' })],
  [10 * SECOND, 'recorder', { exit: { code: null, signal: 'SIGKILL' } }],
];
