// checked.ts — a record comes from somebody else: what its sidecar said must be of the protocol before stores and a sidecar are made of it.
//
// Fields that are not known are passed over, since a newer sidecar may say more; and so are words that are not in a list of words.
import protocol from '../../../protocol/protocol.json' with { type: 'json' };
import { MOUNT_NAME, MOUNT_NAME_WORDS } from '../../../sidecar/options.ts';
import { Conversation, isLine } from '../record/conversation.ts';
import type { Life } from '../record/format.ts';
import { Wrong } from '../spec.ts';
import { duration } from '../text/units.ts';

interface Node {
  $ref?: string;
  $extends?: string;
  type?: string | string[];
  minimum?: number | object;
  items?: Node;
  required?: string[];
  properties?: Record<string, Node>;
}

const { types: TYPES, answers: ANSWERS, events: EVENTS } = protocol.messages as unknown as Record<'types' | 'answers' | 'events', Record<string, Node>>;

/** Throws Wrong, which begins with `where`: when it was said, and what would be right. */
export function checkLife(life: Life, where: string): void {
  const conversation = new Conversation();
  for (const entry of life.entries) {
    if (entry.from === 'client' && isLine(entry)) conversation.asked(entry);
    if (entry.from !== 'sidecar' || entry.message === undefined) continue;
    const fault = faultOf(entry.message, conversation);
    if (fault !== null) throw new Wrong(`${where}, at ${duration(entry.at_us / 1000)}: no sidecar of kvlane says this: ${fault}`);
  }
}

function faultOf(message: Record<string, unknown>, conversation: Conversation): string | null {
  const { event } = message;
  if (typeof event === 'string') {
    const node = Object.hasOwn(EVENTS, event) ? EVENTS[event]! : {};
    return unlike(node, message, '') ?? (event === 'ready' ? misnamed(message['mounts'] as { name: string }[]) : null);
  }
  const op = conversation.answered(message)?.op ?? '';
  const node = message['error'] !== undefined ? ANSWERS['error']! : Object.hasOwn(ANSWERS, op) ? ANSWERS[op]! : {};
  return unlike(node, message, '');
}

/** Names become directories, and words of a command line. */
function misnamed(mounts: readonly { name: string }[]): string | null {
  if (mounts.length === 0) return 'mounts must not be empty';
  const bad = mounts.findIndex(({ name }) => !MOUNT_NAME.test(name));
  if (bad >= 0) return `mounts[${bad}].name must be a name that has ${MOUNT_NAME_WORDS}; got ${JSON.stringify(mounts[bad]!.name)}`;
  return new Set(mounts.map(({ name }) => name)).size === mounts.length ? null : 'mounts must have different names';
}

/** null: it is what the protocol says. */
function unlike(node: Node, value: unknown, path: string): string | null {
  const base = node.$ref ?? node.$extends;
  if (base !== undefined) {
    const fault = unlike(TYPES[base]!, value, path);
    if (fault !== null) return fault;
  }
  const wanted = node.type !== undefined ? [node.type].flat() : node.properties !== undefined ? ['object'] : [];
  const wrong = (what: string): string => `${path === '' ? 'the message' : path} must be ${what}, got ${shown(value)}`;
  if (wanted.length > 0 && !wanted.some((type) => isOf(type, value))) return wrong(wanted.join(' or '));
  if (typeof value === 'number' && typeof node.minimum === 'number' && value < node.minimum) return wrong(`${node.minimum} or more`);
  if (Array.isArray(value)) {
    for (const [i, one] of value.entries()) {
      const fault = node.items === undefined ? null : unlike(node.items, one, `${path}[${i}]`);
      if (fault !== null) return fault;
    }
  } else if (typeof value === 'object' && value !== null) {
    const fields = value as Record<string, unknown>;
    for (const name of node.required ?? []) if (fields[name] === undefined) return `${at(path, name)} is missing`;
    for (const [name, inside] of Object.entries(node.properties ?? {})) {
      const fault = fields[name] === undefined ? null : unlike(inside, fields[name], at(path, name));
      if (fault !== null) return fault;
    }
  }
  return null;
}

function at(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

function isOf(type: string, value: unknown): boolean {
  switch (type) {
    case 'integer':
      return Number.isSafeInteger(value);
    case 'array':
      return Array.isArray(value);
    case 'null':
      return value === null;
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    default:
      return typeof value === type;
  }
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing';
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}
