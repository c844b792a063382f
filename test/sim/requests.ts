// requests.ts — what a client might ask: all ops in both forms, of few keys so that they meet, in slots that are its own (now and
// then not), with deadlines of every length, and lines that are no requests at all.
import { LIMITS } from '../../protocol/messages.ts';
import { SIMULATED_OPS } from './asked.ts';
import { CLIENTS, QUARANTINED } from './checker.ts';
import type { Random } from './random.ts';
import type { Sidecar } from './sidecar.ts';

export interface Asking {
  sidecar: Sidecar;
  random: Random;
  nowUs: number;
  mounts: string[];
  slotBytes: number;
  newId(): number | string;
  newTag(): string;
  keys: number;
  timeoutMostMs: number;
  /** The client's own slots that the message names: nobody else's until it is read. */
  sent: number[];
}

const NAMESPACES = ['llama', 'qwen@3'];

function hex(number: number): string {
  return (0xa0 + number).toString(16);
}

function head(asking: Asking, op: string): Record<string, unknown> {
  const { random, mounts } = asking;
  const message: Record<string, unknown> = { id: asking.newId(), op };
  if (mounts.length > 1 || random.oneIn(2)) message['mount'] = random.pick(mounts);
  const kind = random.below(10);
  const ms = 1 + random.spread(asking.timeoutMostMs);
  if (kind < 5) message['timeout_ms'] = ms;
  else if (kind < 8) message['deadline_us'] = asking.nowUs + ms * 1000 + random.below(1000);
  else if (kind === 8 && random.oneIn(4)) message['deadline_us'] = Math.max(0, asking.nowUs - random.below(50_000));
  return message;
}

function ownSlots(asking: Asking, most: number): number[] {
  const { sidecar, random } = asking;
  const { slots } = sidecar.checker;
  const chosen = new Set<number>();
  const wrong = random.oneIn(25); // now and then what belongs to the sidecar still
  for (let tries = 0; tries < 3 * most && chosen.size < most; tries += 1) {
    const slot = random.below(slots.length);
    if (slots[slot] === CLIENTS || (wrong && slots[slot] === QUARANTINED)) chosen.add(slot);
  }
  if (wrong) {
    const other = [...sidecar.checker.asked.values()].find((asked) => asked.slots.length > 0 && asked.slots[0] !== null);
    if (other !== undefined) chosen.add(random.pick(other.slots)!);
  }
  return [...chosen];
}

export function blocks(asking: Asking, op: 'load' | 'store'): Record<string, unknown> | null {
  const { sidecar, random, slotBytes } = asking;
  const message = head(asking, op);
  const bytes = (): number => (random.oneIn(12) ? 1 + random.below(slotBytes) : 4096);
  if (op === 'store' && random.oneIn(3)) message['if_exists'] = random.pick(['replace', 'replace', 'keep']);
  if (random.oneIn(7)) {
    const count = 1 + random.below(LIMITS.inline_blocks_max);
    const list = Array.from({ length: count }, () => ({ key: `${random.pick(NAMESPACES)}/${hex(random.below(asking.keys))}` }));
    if (op === 'load') message['inline'] = true;
    message['blocks'] = op === 'load' ? list : list.map((one) => ({ ...one, text: asking.newTag() }));
    return message;
  }
  const slots = ownSlots(asking, 1 + random.spread(12));
  if (slots.length === 0) return null;
  for (const slot of slots) if (sidecar.checker.slots[slot] === CLIENTS) asking.sent.push(slot);
  if (random.oneIn(2)) message['blocks'] = slots.map((slot) => ({ key: `${random.pick(NAMESPACES)}/${hex(random.below(asking.keys))}`, slot, bytes: bytes() }));
  else {
    message['namespace'] = random.pick(NAMESPACES);
    message['keys'] = slots.map(() => hex(random.below(asking.keys)));
    message['slots'] = slots;
    message['bytes'] = random.oneIn(2) ? 4096 : slots.map(bytes);
  }
  return message;
}

export function names(asking: Asking, op: 'lookup' | 'remove'): Record<string, unknown> {
  const { random } = asking;
  const message = head(asking, op);
  const count = op === 'lookup' && random.oneIn(40) ? 257 + random.below(300) : 1 + random.below(6);
  if (random.oneIn(2)) {
    message['namespace'] = random.pick(NAMESPACES);
    message['keys'] = Array.from({ length: count }, () => hex(random.below(asking.keys)));
  } else message['keys'] = Array.from({ length: count }, () => `${random.pick(NAMESPACES)}/${hex(random.below(asking.keys))}`);
  return message;
}

export function namespace(asking: Asking): Record<string, unknown> {
  const { random } = asking;
  return { ...head(asking, 'namespace'), name: random.pick(['llama', 'qwen']), fingerprint: { model: random.pick(['one', 'two']) }, ...(random.oneIn(3) ? { bump: random.oneIn(2) } : {}) };
}

export function question(asking: Asking): Record<string, unknown> {
  return { id: asking.newId(), op: asking.random.pick(['stats', 'stats', 'stuck', 'ping', 'help']) };
}

export function cancel(asking: Asking): Record<string, unknown> {
  const { random, sidecar } = asking;
  const ids = [...sidecar.checker.asked.keys()];
  const task = ids.length > 0 && !random.oneIn(5) ? random.pick(ids) : random.oneIn(3) ? 'nobody' : random.below(40);
  return { id: asking.newId(), op: 'cancel', task };
}

/** A request with one thing wrong, or something that is none. */
export function malformed(asking: Asking): unknown {
  const { random } = asking;
  const good: Record<string, unknown> = (random.oneIn(2) ? blocks(asking, random.pick(['load', 'store'])) : names(asking, 'lookup')) ?? names(asking, 'remove');
  const fields = Object.keys(good);
  const field = random.pick(fields);
  switch (random.below(12)) {
    case 0:
      return random.pick([null, 7, 'load', [], [good], true]);
    case 1:
      delete good[field];
      return good;
    case 2:
      return { ...good, [field]: random.pick([null, -1, 1.5, '', {}, [], 'ü'.repeat(70), 2 ** 53, true]) };
    case 3:
      return { ...good, [`${field}s`]: 1 };
    case 4:
      return { ...good, op: random.pick(['lod', 'LOAD', 'delete', '', 'x'.repeat(300)]) };
    case 5:
      return { ...good, id: random.pick([-1, 1.5, null, 'x'.repeat(65), {}, 2 ** 53]) };
    case 6:
      return { ...good, timeout_ms: 5, deadline_us: asking.nowUs };
    case 7:
      return { ...good, mount: random.pick(['kv9', '', 'KV0', 0]) };
    case 8:
      return { ...good, namespace: 'llama', keys: ['0'], slots: [100_000], bytes: 4096 };
    case 9:
      return { ...good, timeout_ms: random.pick([0, -1, LIMITS.timeout_ms_max + 1, 0.5, '5']) };
    case 10:
      return { ...good, keys: random.pick([[], ['../x'], ['llama/ZZ'], ['a'], 'llama/aa', [null]]) };
    default:
      return { ...good, id: random.pick([...asking.sidecar.checker.asked.keys(), 0]), op: random.pick([...SIMULATED_OPS, 'nothing']) };
  }
}

/** Text for the line reader: it ends its line. */
export function garbage(random: Random): string {
  switch (random.below(6)) {
    case 0:
      return '{"id":1,\n';
    case 1:
      return 'hello?\n';
    case 2:
      return '[1,2\n{"id":2\n';
    case 3:
      return '\u0000\u0001\n';
    case 4:
      return `${'['.repeat(60)}${']'.repeat(60)}\n`;
    default:
      return random.oneIn(20) ? `${'x'.repeat(LIMITS.line_bytes_max + 1)}\n` : 'null\n';
  }
}
