// schema.ts — what each field of each request takes, from protocol.json: for completion, and to read what was typed without quotes.
import protocol from '../../../protocol/protocol.json' with { type: 'json' };
import { OPS } from '../../../protocol/messages.ts';
import type { Op } from '../../../protocol/messages.ts';

export interface FieldSpec {
  name: string;
  kind: 'string' | 'integer' | 'boolean' | 'array' | 'object';
  required: boolean;
  /** All the values there are, where they can be counted. */
  values: readonly string[];
  /** What the words in it name. */
  names: 'key' | 'mount' | 'namespace' | 'op' | 'task' | null;
  description: string;
  /** Of an array: what its entries are. */
  entry: FieldSpec | null;
  /** Of an object, or of an array's entries: its fields. */
  fields: readonly FieldSpec[];
}

interface Node {
  $ref?: string;
  $keys?: string;
  const?: unknown;
  enum?: string[];
  type?: string | string[];
  description?: string;
  items?: Node;
  properties?: Record<string, Node>;
  required?: string[];
}

const TYPES = protocol.messages.types as unknown as Record<string, Node>;
const REQUESTS = protocol.messages.requests as unknown as Record<Op, Node>;
const NAMES: Record<string, FieldSpec['names']> = { Key: 'key', KeyOrHex: 'key', MountName: 'mount', NamespaceWithGeneration: 'namespace', NamespaceName: 'namespace' };

const made = new Map<Op, readonly FieldSpec[]>();

/** In the order of the protocol; `op` among them. */
export function fieldsOf(op: Op): readonly FieldSpec[] {
  let fields = made.get(op);
  if (fields === undefined) made.set(op, (fields = fieldsIn(REQUESTS[op])));
  return fields;
}

export function isOp(word: unknown): word is Op {
  return typeof word === 'string' && (OPS as readonly string[]).includes(word);
}

function fieldsIn(node: Node): FieldSpec[] {
  return Object.entries(node.properties ?? {}).map(([name, inside]) => fieldOf(name, inside, node.required?.includes(name) ?? false));
}

function fieldOf(name: string, node: Node, required: boolean): FieldSpec {
  const type = node.$ref === undefined ? node : { ...TYPES[node.$ref], ...(node.description === undefined ? {} : { description: node.description }) };
  const kind = kindOf(type);
  const words = name === 'op' ? OPS : kind === 'boolean' ? ['true', 'false'] : (type.enum ?? []);
  const entry = type.items === undefined ? null : fieldOf(name, type.items, true);
  return {
    name,
    kind,
    required,
    values: words,
    names: name === 'op' ? 'op' : name === 'task' ? 'task' : (NAMES[node.$ref ?? ''] ?? null),
    description: type.description ?? '',
    entry,
    fields: entry === null ? fieldsIn(type) : entry.fields,
  };
}

function kindOf(node: Node): FieldSpec['kind'] {
  const [type = node.properties ? 'object' : 'string'] = Array.isArray(node.type) ? node.type : node.type === undefined ? [] : [node.type];
  return type as FieldSpec['kind'];
}
