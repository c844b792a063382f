// fake_sidecar.mjs — a peer for the Node client's own tests: says ready, and does with each request what the
// request's mount name tells it. Its last two words are its mode and a directory for the arena.

import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const [mode, directory] = process.argv.slice(-2);
const arena = join(directory, `arena-${process.pid}`);
writeFileSync(arena, '');
truncateSync(arena, 4 * 4096);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);
const nowUs = () => Number(process.hrtime.bigint() / 1000n);

/** What was held back until the test sends SIGUSR2. */
const held = [];
process.on('SIGUSR2', () => held.splice(0).forEach(say));

process.stderr.write('fake: here\n');
if (mode === 'dies') process.exit(3);
if (mode !== 'mute') {
  say({ event: 'ready', protocol: mode === 'old' ? 0 : 1, version: '0.0.0', pid: process.pid, now_us: mode === 'skewed' ? 5 : nowUs(), engine: 'threads', timeout_ms: 100, stall_ms: 1000,
    arena: { owner: 'sidecar', path: arena, bytes: 16384, slot_bytes: 4096, slots: 4, page_bytes: 4096, backing: 'shmem' }, mounts: [], limits: {} });
}

createInterface({ input: process.stdin }).on('line', (line) => {
  const { id, op, mount, slots } = JSON.parse(line);
  if (op === 'shutdown') {
    say({ id, ok: true });
    if (mode !== 'stays') process.exit(0);
  } else if (op === 'stuck') say({ id, ok: true, stuck: [] });
  else if (mount === 'quarantines') {
    held.push({ event: 'slots_freed', slots });
    say({ id, ok: false, done: 0, failed: [{ blocks: [[0, slots.length - 1]], code: 'DEADLINE_EXCEEDED', phase: 'read', waited_ms: 1, slot: 'quarantined' }] });
  } else if (mount === 'late') held.push({ id, ok: true, done: slots.length });
  else if (mount === 'garbage') process.stdout.write('not json\n');
  else if (mount === 'dies') process.exit(9);
  else say({ id, ok: true, now_us: nowUs(), got: JSON.parse(line) });
});
process.stdin.on('end', () => { if (mode !== 'stays') process.exit(0); });
setInterval(() => {}, 1000);
