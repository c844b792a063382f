// explain.ts — what the compiled validator found, as a sentence for the person who wrote the client:
// which field, what it must be, what it was. Runs only for requests that are refused.

import { explainKey, namespaceFault } from './key.ts';
import { LIMITS, REQUEST_FIELDS } from './messages.ts';
import type { Op } from './messages.ts';
import { list, nearest, show } from './nearest.ts';

export interface Fault {
  instancePath: string;
  keyword: string;
  params: { missingProperty?: string; additionalProperty?: string };
}
export interface Bounds {
  slots: number;
  slotBytes: number;
  mounts: readonly string[];
}
type Fields = Record<string, unknown>;

const BLOCK_FIELDS: Partial<Record<Op, readonly string[]>> = { store: ['key', 'slot', 'bytes', 'text', 'base64'], load: ['key', 'slot', 'bytes'] };

export function explain(op: Op, request: Fields, fault: Fault, bounds: Bounds): string {
  const steps = fault.instancePath.split('/').slice(1);
  const path = steps.map((step, i) => (/^\d+$/.test(step) ? `[${step}]` : i === 0 ? step : `.${step}`)).join('');
  const value = steps.reduce<unknown>((inside, step) => (inside as Fields)[step], request);
  const inside = path === '' ? '' : `${path}.`;

  if (fault.keyword === 'required' || fault.keyword === 'additionalProperties') {
    const known = path === '' ? REQUEST_FIELDS[op] : (BLOCK_FIELDS[op] ?? []);
    // An unknown field first: "key" for "keys" is better called misspelt than "keys" called missing.
    const unknown = Object.keys(value as Fields).find((name) => !known.includes(name));
    if (unknown !== undefined) return unknownField(path === '' ? op : path, unknown, known, path !== '');
    return `${inside}${fault.params.missingProperty ?? 'a field'} is missing`;
  }
  const name = steps.findLast((step) => !/^\d+$/.test(step)) ?? '';
  if (name === 'key' || (name === 'keys' && steps.length > 1)) return explainKey(path, value, name === 'keys' && 'namespace' in request);
  const namespaceWrong = (name === 'namespace' || name === 'name') && typeof value === 'string' ? namespaceFault(value) : null;
  return `${path} must be ${expected(name, steps.length, bounds)}, got ${show(value)}${namespaceWrong ? `: ${namespaceWrong}` : ''}`;
}

export function unknownField(where: string, name: string, known: readonly string[], nested = false): string {
  const near = nearest(name, known);
  const found = `unknown field ${show(name)}`;
  return near ? `${found}${nested ? ` in ${where}` : ''} (did you mean "${near}"?)` : `${found}; ${where} takes ${known.join(', ')}`;
}

/** What a field must be; `depth` 1 is the field itself, 2 an entry of it. */
export function expected(name: string, depth: number, { slots, slotBytes, mounts }: Bounds): string {
  const ofBlocks = `an array of 1 to ${LIMITS.blocks_max}`;
  const bytes = `an integer from 1 to ${slotBytes}`;
  const slot = `an integer from 0 to ${slots - 1}`;
  switch (name) {
    case 'id': case 'task': return `an integer from 0 to ${LIMITS.id_max} or a string of at most ${LIMITS.id_bytes_max} bytes`;
    case 'mount': return mounts.length === 1 ? list(mounts) : `one of ${list(mounts)}`;
    case 'timeout_ms': return `an integer from 1 to ${LIMITS.timeout_ms_max}`;
    case 'deadline_us': return `CLOCK_MONOTONIC in microseconds, an integer from 0 to ${LIMITS.id_max}`;
    case 'blocks': return depth === 1 ? `${ofBlocks} blocks` : 'an object';
    case 'keys': return `${ofBlocks} keys`;
    case 'slots': return depth === 1 ? `${ofBlocks} slots` : slot;
    case 'slot': return slot;
    case 'bytes': return depth === 1 ? `${bytes}, or ${ofBlocks} of these` : bytes;
    case 'namespace': return 'a namespace, with or without @generation';
    case 'name': return 'a namespace without a generation';
    case 'fingerprint': return 'a JSON object';
    case 'if_exists': return '"keep" or "replace"';
    case 'path': return `a path below the root of at most ${LIMITS.path_chars_max} characters`;
    case 'cookie': return 'the cookie of the answer before, a decimal number as a string';
    case 'entries_max': return `an integer from 1 to ${LIMITS.list_entries_max}`;
    case 'inode': case 'changed_ns': return 'a decimal number as a string, as list told it';
    case 'inline': case 'bump': return 'true or false';
    default: return 'a string';
  }
}
