// compare.ts — what differs between an answer that was recorded and one that came now, and matters.
//
// Left out is what cannot be the same: times, process and thread ids, how long something waited and where it was when its time was
// over, what stats count. Paths of mounts are said by the mount's name.
import { LIMITS } from '../../../protocol/messages.ts';
import type { FailedEntry } from '../../../protocol/messages.ts';

type Message = Record<string, unknown>;

export interface Roots {
  /** Root → name of the mount, of each side. */
  recorded: ReadonlyMap<string, string>;
  replayed: ReadonlyMap<string, string>;
}

/** One clause each; none: they say the same. */
export function differences(op: string, recorded: Message, replayed: Message | null, roots: Roots): string[] {
  if (replayed === null) return ['no answer came'];
  const was = essence(op, recorded, roots.recorded);
  const is = essence(op, replayed, roots.replayed);
  return [...new Set([...was.keys(), ...is.keys()])].filter((name) => was.get(name) !== is.get(name)).map((name) => `${name}: ${was.get(name) ?? 'nothing'} → ${is.get(name) ?? 'nothing'}`);
}

/** What an answer says, as names and words. */
function essence(op: string, message: Message, roots: ReadonlyMap<string, string>): Map<string, string> {
  const said = new Map<string, string>();
  const put = (name: string, value: unknown): void => void said.set(name, typeof value === 'string' ? value : JSON.stringify(value));
  put('ok', message['ok'] ?? null);
  const error = message['error'] as { code?: string; message?: string; errno?: string } | undefined;
  if (error !== undefined) {
    put('error', [error.code, error.errno].filter((one) => one !== undefined).join(' '));
    put('message', timeless(error.message ?? '', roots));
    if (message['line'] !== undefined) put('line', message['line']);
    if (message['duplicate_of'] !== undefined) put('duplicate_of', message['duplicate_of']);
    return said;
  }
  for (const name of ['done', 'kept', 'prefix', 'complete', 'state', 'name', 'generation', 'key_namespace', 'fingerprint'] as const) if (message[name] !== undefined) put(name, message[name]);
  for (const [i, present] of ((message['present'] ?? []) as (boolean | null)[]).entries()) put(`present[${i}]`, present);
  if (op === 'load') for (const { block, ...content } of (message['blocks'] ?? []) as { block: number }[]) put(`block ${block}`, content);
  for (const entry of (message['failed'] ?? []) as FailedEntry[]) {
    for (const block of blocksOf(entry)) put(`block ${block}`, [entry.code, entry.errno, entry.outcome && `outcome ${entry.outcome}`, entry.slot === 'quarantined' ? 'slot quarantined' : undefined, entry.stored_bytes === undefined ? undefined : `it has ${entry.stored_bytes} bytes`].filter((one) => one !== undefined).join(', '));
  }
  return said;
}

export function blocksOf(entry: FailedEntry): number[] {
  const ranges = entry.block === undefined ? (entry.blocks ?? []) : [[entry.block, entry.block]];
  return ranges.flatMap(([first = 0, last = first]) => Array.from({ length: Math.min(LIMITS.blocks_max, last - first + 1) }, (_, i) => first + i));
}

export function timeless(text: string, roots: ReadonlyMap<string, string>): string {
  let said = text;
  for (const [root, name] of roots) if (root !== '/') said = said.replaceAll(root, `<${name}>`);
  return said.replace(/\d+(?:\.\d+)? ?(ms|us|s)\b/g, 'N $1').replace(/\b(now|got) \d{7,}\b/g, '$1 N');
}

/** What happened unasked, in words that can be the same. null: it never can. */
export function eventWords(message: Message, roots: ReadonlyMap<string, string>): string | null {
  switch (message['event']) {
    case 'mount':
      return `mount ${String(message['mount'])}, ${String(message['class'])}: ${String(message['was'])} → ${String(message['state'])}`;
    case 'stalled':
    case 'recovered':
      return `${message['event']}: ${String(message['phase'])} of ${String(message['key'] ?? message['kind'] ?? message['class'])} on ${String(message['mount'])}`;
    case 'slots_freed':
      return null; // how many of them come in one line is a matter of time
    case 'ready':
      return null;
    default:
      return timeless(JSON.stringify(message), roots);
  }
}

/** What one list has and the other has not, each as often as that. */
export function unlike(recorded: readonly string[], replayed: readonly string[]): { only: 'recorded' | 'replayed'; what: string; times: number }[] {
  const count = new Map<string, number>();
  for (const what of recorded) count.set(what, (count.get(what) ?? 0) + 1);
  for (const what of replayed) count.set(what, (count.get(what) ?? 0) - 1);
  return [...count].filter(([, n]) => n !== 0).map(([what, n]) => ({ only: n > 0 ? 'recorded' : 'replayed', what, times: Math.abs(n) }));
}

/** Of `ready`: what a client builds on, and what only says where it was. */
export function readyDifferences(recorded: Message, replayed: Message): { differ: string[]; notes: string[] } {
  const pick = (message: Message, path: string): unknown => path.split('.').reduce<unknown>((inside, step) => (inside as Message | undefined)?.[step], message);
  const compare = (paths: readonly string[]): string[] =>
    paths.flatMap((path) => {
      const [was, is] = [pick(recorded, path), pick(replayed, path)].map((value) => JSON.stringify(value) ?? 'nothing');
      return was === is ? [] : [`${path}: ${was} → ${is}`];
    });
  const mounts = (message: Message): Message => Object.fromEntries(((message['mounts'] ?? []) as { name: string; fs_type?: string; direct?: boolean; state: string }[]).map((mount) => [mount.name, mount]));
  const [was, is] = [mounts(recorded), mounts(replayed)];
  const places = Object.keys(was).flatMap((name) => ['fs_type', 'direct'].map((field) => [name, field, (was[name] as Message)[field], (is[name] as Message | undefined)?.[field]] as const).filter(([, , a, b]) => a !== b));
  return {
    differ: compare(['protocol', 'engine', 'timeout_ms', 'stall_ms', 'arena.slots', 'arena.slot_bytes', 'limits']),
    notes: [...compare(['version', 'arena.backing']), ...places.map(([name, field, a, b]) => `mount ${name}, ${field}: ${JSON.stringify(a) ?? 'not known'} → ${JSON.stringify(b) ?? 'not known'}`)],
  };
}
