// stage.ts — where a record is played: stores that hold what it found, and a sidecar of the same shape.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { ReadyEvent } from '../../../protocol/messages.ts';
import { LIMITS } from '../../../protocol/messages.ts';
import { Client } from '../../node/client.ts';
import { thisLauncher } from '../console/link.ts';
import type { Life } from '../record/format.ts';
import { Wrong } from '../spec.ts';
import { count, size } from '../text/units.ts';
import type { SeedBlock, Seeds } from './seed.ts';

/** Options of serve that a replay takes over; the others are in `ready`, or belong to the place. */
const KEPT = new Set(['--lanes', '--stuck-max', '--stuck-process-max', '--file-mode', '--recycle', '--index-ms', '--bounce']);
const KEPT_ALONE = new Set(['--fsync', '--test-hold-breaker-closed', '--test-unchecked']);
/** A busy disk must not make the first requests differ. */
const START_WAIT_MS = 10_000;
const SEED_MS = 60_000;
/** In one request; of large blocks as many as fit this much memory. */
const SEED_BLOCKS_MAX = 32;
const SEED_ARENA_BYTES = 64 * 1024 * 1024;

export interface Stage {
  roots: Map<string, string>;
  /** To be removed at the end. */
  temporary: string | null;
  notes: string[];
}

export function readyOf(life: Life): ReadyEvent | null {
  const found = life.entries.find((entry) => entry.from === 'sidecar' && entry.message?.['event'] === 'ready');
  return (found?.message as unknown as ReadyEvent | undefined) ?? null;
}

/** Directories for all mounts of these lives: those given, and temporary ones for the others. */
export function makeStage(lives: readonly Life[], given: readonly string[]): Stage {
  const names = [...new Set(lives.flatMap((life) => readyOf(life)?.mounts.map((mount) => mount.name) ?? []))];
  const roots = new Map<string, string>();
  for (const word of given) {
    const equals = word.indexOf('=');
    const name = equals < 0 ? (names.length === 1 ? names[0]! : '') : word.slice(0, equals);
    if (!names.includes(name)) throw new Wrong(`--store ${word}: the record has the mounts ${names.join(', ')}; name one, for example --store ${names[0] ?? 'kv0'}=${word.slice(equals + 1)}`);
    roots.set(name, resolve(word.slice(equals + 1)));
  }
  const left = names.filter((name) => !roots.has(name));
  const temporary = left.length === 0 ? null : mkdtempSync(join(tmpdir(), 'kvlane-replay-'));
  for (const name of left) {
    const root = join(temporary!, name);
    mkdirSync(root);
    roots.set(name, root);
  }
  return { roots, temporary, notes: [] };
}

export function dropStage({ temporary }: Stage): void {
  // The sidecar may still be at work in it.
  if (temporary !== null) rmSync(temporary, { recursive: true, force: true, maxRetries: 5 });
}

/** The words behind `serve`. */
export function serveWords(life: Life, ready: ReadyEvent, roots: ReadonlyMap<string, string>): string[] {
  const { arena } = ready;
  return [
    ...ready.mounts.flatMap((mount) => ['--mount', `${mount.name}=${roots.get(mount.name)!}`]),
    ...takenOver(life.head.command),
    ...['--timeout-ms', String(ready.timeout_ms), '--stall-ms', String(ready.stall_ms), '--engine', ready.engine],
    ...['--slot-bytes', String(arena.slot_bytes), '--arena-mib', String(Math.ceil((arena.slots * arena.slot_bytes) / 2 ** 20)), '--test-slots', String(arena.slots)],
    ...['--huge-pages', 'off', '--test-start-wait-ms', String(START_WAIT_MS)],
  ];
}

function takenOver(command: readonly string[]): string[] {
  const words = command.slice(command.indexOf('serve') + 1);
  return words.flatMap((word, i) => {
    const [name = '', value] = word.split('=', 2);
    if (KEPT_ALONE.has(word)) return [word];
    if (!KEPT.has(name)) return [];
    return value !== undefined ? [word] : words[i + 1] !== undefined ? [word, words[i + 1]!] : [];
  });
}

/** Makes the stores that there were, with what they held. Only in temporary places: what somebody names is theirs. */
export async function seed(stage: Stage, lives: readonly Life[], seeds: Seeds, bytesMax: number): Promise<void> {
  if (stage.temporary === null) return;
  const first = lives.map(readyOf).find((ready) => ready !== null);
  if (first == null) return;
  const own = [...stage.roots].filter(([name, root]) => root.startsWith(stage.temporary!) && !hadNoStore(lives, name));
  if (own.length === 0) return;
  const names = new Set(own.map(([name]) => name));
  let room = bytesMax;
  const blocks = seeds.blocks.filter((block) => names.has(block.mount));
  const taken = blocks.filter((block) => (room -= block.bytes) >= 0);
  if (taken.length < blocks.length) {
    stage.notes.push(`${blocks.length - taken.length} of ${blocks.length} blocks that had been there are not, since all of them would take ${size(blocks.reduce((sum, block) => sum + block.bytes, 0))}: raise --seed-mib, or give a --store`);
  }
  if (taken.length > 0) stage.notes.push(`${count(taken.length, 'block')} that the record found and had not stored ${taken.length === 1 ? 'was' : 'were'} put into the stores first`);
  const slotBytes = Math.max(65_536, ...taken.map((block) => Math.ceil(block.bytes / 4096) * 4096));
  const atOnce = Math.max(1, Math.min(SEED_BLOCKS_MAX, Math.floor(SEED_ARENA_BYTES / slotBytes)));
  const client = await Client.spawn({
    mounts: Object.fromEntries(own),
    create: true,
    main: thisLauncher(),
    args: ['--slot-bytes', String(slotBytes), '--arena-mib', String(Math.max(1, Math.ceil((slotBytes * atOnce) / 2 ** 20))), '--test-start-wait-ms', String(START_WAIT_MS)],
    ...(process.env['KVLANE_NATIVE'] === undefined ? {} : { env: { KVLANE_NATIVE: process.env['KVLANE_NATIVE'] } }),
  });
  try {
    const said = (answer: { ok: boolean }): void => {
      if (!answer.ok) throw new Error(`the store could not be filled: ${JSON.stringify(answer)}`);
    };
    for (const { mount, name, fingerprint, generation } of seeds.namespaces.filter((one) => names.has(one.mount))) {
      for (let bumps = 0; bumps <= 1000; bumps += 1) {
        const answer = await client.request('namespace', { mount, name, fingerprint, bump: bumps > 0, timeout_ms: SEED_MS } as never);
        said(answer);
        if (!('generation' in answer) || answer.generation >= generation) break;
      }
    }
    for (const mount of names) {
      const here = taken.filter((block) => block.mount === mount);
      const typed = here.filter((block) => (block.text ?? block.base64) !== undefined && block.bytes <= LIMITS.inline_bytes_max);
      const others = here.filter((block) => !typed.includes(block));
      for (const block of typed) said(await client.request('store', { mount, timeout_ms: SEED_MS, blocks: [{ key: block.key, ...contentOf(block) }] }));
      for (let at = 0; at < others.length; at += atOnce) {
        const some = others.slice(at, at + atOnce);
        said(await client.request('store', { mount, timeout_ms: SEED_MS, keys: some.map((block) => block.key), slots: some.map((_, i) => i), bytes: some.map((block) => block.bytes) }));
      }
    }
  } finally {
    await client.shutdown(2_000);
  }
}

/** As it was found at the start: a directory without a store, and nobody asked for one. */
function hadNoStore(lives: readonly Life[], name: string): boolean {
  const mount = lives.map((life) => readyOf(life)?.mounts.find((one) => one.name === name)).find((one) => one !== undefined);
  return mount?.store_id === undefined && mount?.code === 'WRONG_STORE';
}

function contentOf(block: SeedBlock): { text: string } | { base64: string } {
  return block.text === undefined ? { base64: block.base64! } : { text: block.text };
}
