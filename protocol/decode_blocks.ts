// decode_blocks.ts — the blocks of a store, load, lookup or remove: two forms on the wire, columns afterwards.
// The validator has been here before: types, key grammar and counts are right. What is left is what a schema
// cannot say: which fields go together, this sidecar's slots, and that no slot comes twice.

import { expected, type Bounds } from './explain.ts';
import { inlineBytes } from './inline.ts';
import { explainKey } from './key.ts';
import { LIMITS } from './messages.ts';
import type { LoadMessage, LookupMessage, RemoveMessage, StoreMessage, VerifyMessage } from './messages.ts';
import { show } from './nearest.ts';
import type { KeyColumns, LoadRequest, StoreRequest } from './request.ts';

/** Thrown inside decode only. Not an Error: a refusal needs no stack. */
export class Refusal {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}

export function keyColumns(keys: readonly string[], namespace: string | undefined, pathOf: (i: number) => string): KeyColumns {
  const namespaces = new Array<string>(keys.length);
  const hexes = new Array<string>(keys.length);
  for (let i = 0; i < keys.length; i += 1) {
    const key = keys[i]!;
    const slash = key.indexOf('/');
    if ((slash < 0) !== (namespace !== undefined)) throw new Refusal(explainKey(pathOf(i), key, namespace !== undefined));
    namespaces[i] = namespace ?? key.slice(0, slash);
    hexes[i] = key.slice(slash + 1);
    if (namespaces[i]!.length + 1 + hexes[i]!.length > LIMITS.key_bytes_max) {
      throw new Refusal(`${pathOf(i)} with its namespace has ${namespaces[i]!.length + 1 + hexes[i]!.length} bytes, the limit is ${LIMITS.key_bytes_max}`);
    }
  }
  return { namespaces, hexes };
}

export function onlyKeys(message: LookupMessage | RemoveMessage | VerifyMessage): KeyColumns {
  return keyColumns(message.keys, message.namespace, (i) => `keys[${i}]`);
}

export function storeBlocks(message: StoreMessage, bounds: Bounds): StoreRequest['blocks'] {
  const form = formOf(message, 'keys, slots and bytes');
  if (form === 'columns') {
    const keys = columnKeys(message);
    const { slots, bytes } = slotColumns(message, message.keys!.length, bounds);
    return { ...keys, slots, bytes, inlineData: null };
  }
  const blocks = message.blocks!;
  const slots: (number | null)[] = [];
  const bytes: number[] = [];
  const inlineData: (Uint8Array | null)[] = [];
  let inline = 0;
  for (const [i, block] of blocks.entries()) {
    const given = (['slot', 'text', 'base64'] as const).filter((name) => block[name] !== undefined);
    const [kind] = given;
    if (kind === undefined) throw new Refusal(`blocks[${i}] has no data: give slot and bytes, or text, or base64`);
    if (given.length > 1) throw new Refusal(`blocks[${i}] has both ${given[0]} and ${given[1]}; give one`);
    if (kind === 'slot') {
      slots.push(slotOf(block.slot!, `blocks[${i}].slot`, bounds));
      bytes.push(bytesOf(block.bytes, `blocks[${i}].bytes`, bounds));
      inlineData.push(null);
      continue;
    }
    inline += 1;
    if (block.bytes !== undefined) throw new Refusal(`blocks[${i}].bytes goes with slot; ${kind} has its own length`);
    const data = inlineBytes(kind, block[kind]!);
    if (typeof data === 'string') throw new Refusal(`blocks[${i}].${kind} ${data}`);
    slots.push(null);
    bytes.push(data.length);
    inlineData.push(data);
  }
  inlineCount(inline);
  noSlotTwice(slots, (i) => `blocks[${i}].slot`);
  return { ...blockKeys(blocks), slots, bytes, inlineData: inline > 0 ? inlineData : null };
}

export function loadBlocks(message: LoadMessage, bounds: Bounds): LoadRequest['blocks'] {
  const inline = message.inline === true;
  const form = formOf(message, inline ? 'keys' : 'keys, slots and bytes');
  const limits = inline ? { ...bounds, slotBytes: LIMITS.inline_bytes_max } : bounds;
  if (form === 'columns') {
    const keys = columnKeys(message);
    const count = message.keys!.length;
    if (!inline) return { ...keys, ...slotColumns(message, count, bounds) };
    inlineCount(count);
    if (message.slots !== undefined) throw new Refusal('slots cannot go with "inline":true; the bytes come in the answer');
    const bytes = message.bytes === undefined ? new Array<null>(count).fill(null) : bytesColumn(message.bytes, count, limits);
    return { ...keys, slots: new Array<null>(count).fill(null), bytes };
  }
  const blocks = message.blocks!;
  const slots: (number | null)[] = [];
  const bytes: (number | null)[] = [];
  for (const [i, block] of blocks.entries()) {
    if (inline) {
      if (block.slot !== undefined) throw new Refusal(`blocks[${i}].slot cannot go with "inline":true; the bytes come in the answer`);
      slots.push(null);
      bytes.push(block.bytes === undefined ? null : bytesOf(block.bytes, `blocks[${i}].bytes`, limits));
    } else {
      if (block.slot === undefined) throw new Refusal(`blocks[${i}].slot is missing (or ask for "inline":true)`);
      slots.push(slotOf(block.slot, `blocks[${i}].slot`, bounds));
      bytes.push(bytesOf(block.bytes, `blocks[${i}].bytes`, bounds));
    }
  }
  if (inline) inlineCount(blocks.length);
  else noSlotTwice(slots, (i) => `blocks[${i}].slot`);
  return { ...blockKeys(blocks), slots, bytes };
}

function formOf(message: StoreMessage | LoadMessage, columns: string): 'blocks' | 'columns' {
  const column = (['keys', 'slots', 'bytes', 'namespace'] as const).find((name) => message[name] !== undefined);
  if (message.blocks === undefined) {
    if (message.keys !== undefined) return 'columns';
    throw new Refusal(column === undefined ? `blocks is missing (or ${columns})` : `keys is missing (${column} is one column of several)`);
  }
  if (column !== undefined) throw new Refusal(`blocks and ${column} are two forms of the same; give blocks, or ${columns}`);
  return 'blocks';
}

const blockKeys = (blocks: readonly { key: string }[]): KeyColumns => keyColumns(blocks.map((block) => block.key), undefined, (i) => `blocks[${i}].key`);
const columnKeys = (message: StoreMessage | LoadMessage): KeyColumns => keyColumns(message.keys!, message.namespace, (i) => `keys[${i}]`);

function slotColumns(message: StoreMessage | LoadMessage, count: number, bounds: Bounds): { slots: number[]; bytes: number[] } {
  const { slots, bytes } = message;
  if (slots === undefined) throw new Refusal(message.op === 'load' ? 'slots is missing (or ask for "inline":true)' : 'slots is missing');
  if (bytes === undefined) throw new Refusal('bytes is missing');
  if (slots.length !== count) throw new Refusal(`slots must have as many entries as keys (${count}), got ${slots.length}`);
  for (let i = 0; i < count; i += 1) if (slots[i]! >= bounds.slots) slotOf(slots[i]!, `slots[${i}]`, bounds);
  noSlotTwice(slots, (i) => `slots[${i}]`);
  return { slots, bytes: bytesColumn(bytes, count, bounds) };
}

function bytesColumn(bytes: number | number[], count: number, bounds: Bounds): number[] {
  if (typeof bytes === 'number') return new Array<number>(count).fill(bytesOf(bytes, 'bytes', bounds));
  if (bytes.length !== count) throw new Refusal(`bytes must be one number, or have as many entries as keys (${count}), got ${bytes.length}`);
  for (let i = 0; i < count; i += 1) if (bytes[i]! > bounds.slotBytes) bytesOf(bytes[i], `bytes[${i}]`, bounds);
  return bytes;
}

function slotOf(slot: number, path: string, bounds: Bounds): number {
  if (slot < bounds.slots) return slot;
  throw new Refusal(`${path} must be ${expected('slot', 1, bounds)}, got ${show(slot)}`);
}

function bytesOf(bytes: number | undefined, path: string, bounds: Bounds): number {
  if (bytes === undefined) throw new Refusal(`${path} is missing`);
  if (bytes <= bounds.slotBytes) return bytes;
  throw new Refusal(`${path} must be ${expected('bytes', 2, bounds)}, got ${show(bytes)}`);
}

function noSlotTwice(slots: readonly (number | null)[], pathOf: (i: number) => string): void {
  const seen = new Set<number>();
  for (let i = 0; i < slots.length; i += 1) {
    const slot = slots[i]!;
    if (slot === null) continue;
    if (seen.has(slot)) throw new Refusal(`${pathOf(i)} is ${slot}, as ${pathOf(slots.indexOf(slot))}: a slot serves one block of a request`);
    seen.add(slot);
  }
}

function inlineCount(count: number): void {
  if (count > LIMITS.inline_blocks_max) throw new Refusal(`${count} inline blocks, the limit is ${LIMITS.inline_blocks_max}; use slots`);
}
