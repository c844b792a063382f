// seed.ts — what must have been in the stores before a record began: what was found there and had not been stored within it.
//
// Contents of blocks in slots are not in a record; such a block becomes one of that length, of zeros.
import type { FailedEntry, InlineBlock } from '../../../protocol/messages.ts';
import { keysOf } from '../console/recent_keys.ts';
import { Conversation, isLine } from '../record/conversation.ts';
import type { Life } from '../record/format.ts';
import { blocksOf } from './compare.ts';

export interface SeedBlock {
  mount: string;
  key: string;
  bytes: number;
  /** As typed, where an answer showed it. */
  text?: string;
  base64?: string;
}
export interface SeedNamespace {
  mount: string;
  name: string;
  fingerprint: object;
  generation: number;
}
export interface Seeds {
  blocks: SeedBlock[];
  namespaces: SeedNamespace[];
  /** In words: what could not be told. */
  notes: string[];
}

/** A look-up alone says nothing of the length. */
const BYTES_UNKNOWN = 4096;

type Message = Record<string, unknown>;
interface Found {
  block: SeedBlock | null;
  /** A later answer may still say how long it is. */
  unchanged: boolean;
  sized: boolean;
}

export function seedsOf(lives: readonly Life[]): Seeds {
  const blocks = new Map<string, Found>();
  const namespaces = new Map<string, SeedNamespace | null>();
  let partly = 0;

  for (const life of lives) {
    const conversation = new Conversation();
    let onlyMount = '';
    for (const entry of life.entries) {
      if (entry.from === 'client' && isLine(entry)) conversation.asked(entry);
      if (entry.from !== 'sidecar' || entry.message === undefined) continue;
      const { message } = entry;
      if (message['event'] === 'ready') onlyMount = String(((message['mounts'] ?? []) as { name: string }[])[0]?.name ?? '');
      if (message['event'] !== undefined) continue;
      const line = conversation.answered(message);
      if (line?.request == null) continue;
      const mount = typeof line.request['mount'] === 'string' ? line.request['mount'] : onlyMount;
      if (message['error'] === undefined) learn(line.op, mount, line.request, message);
    }
  }

  function learn(op: string, mount: string, request: Message, answer: Message): void {
    if (op === 'namespace') return namespace(mount, request, answer);
    const keys = keysOf(request);
    const failed = new Map<number, FailedEntry>();
    for (const entry of (answer['failed'] ?? []) as FailedEntry[]) for (const block of blocksOf(entry)) failed.set(block, entry);
    const inline = new Map(((op === 'load' ? answer['blocks'] : undefined) as InlineBlock[] | undefined ?? []).map((block) => [block.block, block]));
    const kept = Number(answer['kept'] ?? 0);
    if (op === 'store' && kept > 0 && kept < keys.length - failed.size) partly += kept;
    for (const [i, key] of keys.entries()) {
      const at = `${mount}\n${key}`;
      const bad = failed.get(i);
      switch (op) {
        case 'load':
          if (bad === undefined) there(at, mount, key, inline.get(i)?.bytes ?? bytesOf(request, i), inline.get(i));
          else if (bad.code === 'LENGTH_MISMATCH' && bad.stored_bytes !== undefined) there(at, mount, key, bad.stored_bytes);
          else if (bad.code === 'NOT_FOUND') touched(at, true);
          break;
        case 'lookup': {
          const present = (answer['present'] as (boolean | null)[] | undefined)?.[i];
          if (present === true) there(at, mount, key, null);
          else if (present === false) touched(at, true);
          break;
        }
        case 'store':
          if (bad === undefined && kept === keys.length - failed.size && kept > 0) there(at, mount, key, bytesOf(request, i));
          else touched(at, false);
          break;
        case 'remove':
          touched(at, false);
          break;
        default:
      }
    }
  }

  function there(at: string, mount: string, key: string, bytes: number | null, content?: InlineBlock): void {
    const found = blocks.get(at);
    if (found === undefined) {
      const block: SeedBlock = { mount, key, bytes: bytes ?? BYTES_UNKNOWN, ...shown(content) };
      blocks.set(at, { block, unchanged: true, sized: bytes !== null });
    } else if (found.unchanged && found.block !== null) {
      if (!found.sized && bytes !== null) found.block.bytes = bytes;
      found.sized ||= bytes !== null;
      Object.assign(found.block, shown(content));
    }
  }

  /** `absent`: it was not there; otherwise what was is not known, and from now on it is the record's own. */
  function touched(at: string, absent: boolean): void {
    const found = blocks.get(at);
    if (found === undefined) blocks.set(at, { block: null, unchanged: false, sized: false });
    else if (!absent) found.unchanged = false;
  }

  function namespace(mount: string, request: Message, answer: Message): void {
    const at = `${mount}\n${String(answer['name'])}`;
    if (namespaces.has(at)) return;
    const seen = answer['state'] === 'matches' || answer['state'] === 'differs';
    const fingerprint = answer['state'] === 'differs' ? answer['fingerprint'] : request['fingerprint'];
    namespaces.set(at, seen && request['bump'] !== true ? { mount, name: String(answer['name']), fingerprint: fingerprint as object, generation: Number(answer['generation']) } : null);
  }

  return {
    blocks: [...blocks.values()].flatMap(({ block }) => (block === null ? [] : [block])),
    namespaces: [...namespaces.values()].filter((one) => one !== null),
    notes: partly > 0 ? [`${partly} of the blocks that were stored had been there before; which, their answers do not say`] : [],
  };
}

function bytesOf(request: Message, block: number): number | null {
  const { bytes, blocks } = request;
  if (typeof bytes === 'number') return bytes;
  if (Array.isArray(bytes)) return (bytes as number[])[block] ?? null;
  const one = (blocks as { bytes?: number; text?: string; base64?: string }[] | undefined)?.[block];
  if (one?.text !== undefined) return Buffer.byteLength(one.text);
  if (one?.base64 !== undefined) return Buffer.from(one.base64, 'base64').length;
  return one?.bytes ?? null;
}

function shown(content: InlineBlock | undefined): { text?: string; base64?: string } {
  if (content?.text !== undefined) return { text: content.text };
  return content?.base64 !== undefined ? { base64: content.base64 } : {};
}
