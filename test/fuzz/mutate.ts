// mutate.ts — new inputs from old ones: bytes changed as any fuzzer does it, JSON changed where it is JSON, and requests with one
// field made wrong, of which it is known what the refusal must name.
import type { Input } from './target.ts';
import { pick, type Random } from './random.ts';

const INPUT_BYTES_MAX = 4096;

const TOKENS = [
  '{', '}', '[', ']', ',', ':', '"', '\n', '\r\n', '\t', ' ', 'null', 'true', 'false', '0', '-1', '-0', '1e400', '1.5', '9007199254740993', '"\\u0000"', '"\\ud800"', '\\',
  '\ufeff', '\u2028', '{}', '[]', '""', '"__proto__"', '"constructor"', '"id":1', '"id":"x"', '"op":"ping"', '"op":"load"', '"op":"store"', '"keys":[', '"blocks":[{', '"slot":0',
  '"bytes":4096', '"namespace":"llama"', '"key":"llama/00ff"', '"deadline_us":5', '"timeout_ms":250', '"mount":"kv0"', '"inline":true', '"fingerprint":{', '{"a":'.repeat(20), '['.repeat(40),
].map((text) => Buffer.from(text));
const BYTES = [Buffer.from([0xff]), Buffer.from([0xc3]), Buffer.from([0xed, 0xa0, 0x80]), Buffer.from([0xf0, 0x9f, 0x98]), Buffer.from([0]), Buffer.from('\u009b'), Buffer.from('\nnull\n')];
const VALUES: unknown[] = [null, true, 0, -1, 1, 64, 65_537, 1.5, 2 ** 53, 1e300, '', 'x', 'kv0', 'llama', 'llama@3', 'llama/00ff', '../x', 'é'.repeat(40), [], {}, [0, 0], [1, 2], ['00'], { a: 1 }];

export function mutate(parent: Buffer, other: Buffer, random: Random): Input {
  const lines = parent.toString('utf8').split('\n');
  const kind = random(10);
  if (kind < 3) {
    const at = random(lines.length);
    const damaged = damage(lines[at]!, random);
    if (damaged !== null) {
      lines[at] = damaged.text;
      return { bytes: Buffer.from(lines.join('\n') + '\n'), damaged: { line: at + 1, field: damaged.field } };
    }
  }
  if (kind < 6) {
    const at = random(lines.length);
    const changed = changeJson(lines[at]!, random);
    if (changed !== null) {
      lines[at] = changed;
      return { bytes: Buffer.from(lines.join('\n')).subarray(0, INPUT_BYTES_MAX) };
    }
  }
  let bytes = parent;
  for (let n = 1 + random(4); n > 0; n -= 1) bytes = changeBytes(bytes, other, random);
  return { bytes: bytes.subarray(0, INPUT_BYTES_MAX) };
}

function changeBytes(bytes: Buffer, other: Buffer, random: Random): Buffer {
  const at = random(bytes.length + 1);
  const end = Math.min(bytes.length, at + 1 + random(random(8) === 0 ? 200 : 8));
  const between = (middle: Buffer, to = at): Buffer => Buffer.concat([bytes.subarray(0, at), middle, bytes.subarray(to)]);
  switch (random(7)) {
    case 0: return between(Buffer.from([random(256)]), end);
    case 1: return between(Buffer.alloc(0), end);
    case 2: return between(pick(random(4) === 0 ? BYTES : TOKENS, random));
    case 3: return between(bytes.subarray(at, end));
    case 4: return between(other.subarray(random(other.length + 1)));
    case 5: return between(Buffer.alloc(1 + random(1200), 0x61 + random(3)));
    default: {
      const flipped = Buffer.from(bytes);
      if (at < flipped.length) flipped[at]! ^= 1 << random(8);
      return flipped;
    }
  }
}

type Fields = Record<string, unknown>;

function parsed(line: string): Fields | null {
  try {
    const value = JSON.parse(line) as unknown;
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Fields) : null;
  } catch {
    return null;
  }
}

function changeJson(line: string, random: Random): string | null {
  const value = parsed(line);
  if (value === null) return null;
  for (let n = 1 + random(2); n > 0; n -= 1) changeIn(value, random, 0);
  return JSON.stringify(value);
}

function changeIn(inside: Fields | unknown[], random: Random, depth: number): void {
  const names = Object.keys(inside);
  const name = names.length > 0 ? pick(names, random) : 'x';
  const fields = inside as Fields;
  const here = fields[name];
  if (depth < 5 && random(2) === 0 && typeof here === 'object' && here !== null) return changeIn(here as Fields, random, depth + 1);
  switch (random(5)) {
    case 0: delete fields[name]; return;
    case 1: fields[`${name}${pick(['s', '_', 'x'], random)}`] = here; return;
    case 2: if (Array.isArray(inside)) inside.push(...(inside as unknown[]).slice(0, 20)); else fields[pick(['id', 'op', 'mount', 'keys', 'slots', 'bytes', 'blocks'], random)] = structuredClone(pick(VALUES, random)); return;
    default: fields[name] = structuredClone(pick(VALUES, random));
  }
}

/** What is certainly wrong in each field, whatever the rest says. */
const WRONG: Record<string, unknown[]> = {
  id: [-1, 1.5, null, {}, 'x'.repeat(65)], op: [7, 'sotre', null], mount: [7, 'kv9', null], timeout_ms: [0, -1, '5', 1.5], deadline_us: ['x', -1, null], namespace: ['..', 7, '', 'a@'],
  keys: [5, [], 'x'], slots: ['x', [], [-1], [1, 1], [64, 0]], bytes: [-5, 'x', 1.5, 65_537], blocks: [5, [], [7]], if_exists: ['maybe', 1], inline: [3, 'x'], bump: [3], task: [{}, -1, null], name: [9, '../x', 'a@1'],
  fingerprint: [7, null, []],
};
const WRONG_IN_BLOCK: Record<string, unknown[]> = { key: ['../00', 7, 'a/0G', 'a/'], slot: [-1, 64, '0', 0.5], bytes: [-1, 65_537, 'x'], text: [7], base64: ['*', 7] };
const REQUESTS: Fields[] = [
  { id: 1, op: 'ping' }, { id: 'a', op: 'stats' }, { id: 2, op: 'cancel', task: 1 }, { id: 3, op: 'shutdown', timeout_ms: 500 },
  { id: 4, op: 'load', mount: 'kv0', timeout_ms: 250, namespace: 'llama@3', keys: ['00', '0011'], slots: [1, 2], bytes: 4096 },
  { id: 5, op: 'load', mount: 'kv1', blocks: [{ key: 'llama/00', slot: 3, bytes: 4096 }, { key: 'b/11', slot: 4, bytes: 1 }] },
  { id: 6, op: 'store', mount: 'kv0', if_exists: 'replace', blocks: [{ key: 'llama/00', slot: 3, bytes: 4096 }, { key: 'llama/01', text: 'hello' }, { key: 'llama/02', base64: 'aGk=' }] },
  { id: 7, op: 'store', mount: 'kv0', deadline_us: 2_000_000, namespace: 'llama', keys: ['00'], slots: [9], bytes: [77] },
  { id: 8, op: 'lookup', mount: 'kv1', keys: ['llama/00', 'x/11'] }, { id: 9, op: 'remove', mount: 'kv0', namespace: 'l', keys: ['00'] },
  { id: 10, op: 'namespace', mount: 'kv0', name: 'llama', fingerprint: { a: [1, { b: 2 }] }, bump: true }, { id: 11, op: 'load', mount: 'kv0', inline: true, keys: ['a/00'] },
];
export const REQUEST_LINES = REQUESTS.map((request) => JSON.stringify(request));

/** A good request with one field made wrong. Not from the line itself: of that nobody knows whether it is good. */
function damage(line: string, random: Random): { text: string; field: string } | null {
  const request = structuredClone(REQUESTS.find((one) => JSON.stringify(one) === line) ?? pick(REQUESTS, random));
  const { blocks, keys } = request;
  const kind = random(5);
  if (kind === 0) return { text: JSON.stringify({ ...request, zzz: 1 }), field: 'zzz' };
  if (kind === 1 && Array.isArray(blocks)) {
    const at = random(blocks.length);
    const block = blocks[at] as Fields;
    const other = blocks[(at + 1) % blocks.length] as Fields;
    if (other !== block && typeof other.slot === 'number' && typeof block.slot === 'number' && random(3) === 0) {
      block.slot = other.slot; // the later one is refused
      return { text: JSON.stringify(request), field: `blocks[${Math.max(at, (at + 1) % blocks.length)}].slot` };
    }
    const name = pick(Object.keys(block), random);
    block[name] = pick(WRONG_IN_BLOCK[name]!, random);
    return { text: JSON.stringify(request), field: `blocks[${at}].${name}` };
  }
  if (kind === 2 && Array.isArray(keys)) {
    const at = random(keys.length);
    keys[at] = pick([7, '../x', 'G', '', null], random);
    return { text: JSON.stringify(request), field: `keys[${at}]` };
  }
  const name = pick(Object.keys(request), random);
  request[name] = pick(WRONG[name]!, random);
  return { text: JSON.stringify(request), field: name };
}
