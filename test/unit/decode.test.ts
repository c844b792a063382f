// decode.test.ts — every way a request can be wrong, what is said about it, and each limit at its edge.

import { describe, expect, test } from 'vitest';
import { decode, type DecodeContext } from '../../protocol/decode.ts';
import { LIMITS, OPS } from '../../protocol/messages.ts';
import type { LoadRequest, StoreRequest } from '../../protocol/request.ts';

const context: DecodeContext = { slots: 128, slotBytes: 1048576, mounts: ['kv0'], line: 7 };
const two: DecodeContext = { ...context, mounts: ['kv0', 'kv1'] };
const hex = (i: number, digits = 64): string => i.toString(16).padStart(digits, '0');

function refusal(value: unknown, within: DecodeContext = context): string {
  const decoded = decode(value, within);
  if (decoded.ok) throw new Error(`taken: ${JSON.stringify(value)}`);
  expect(decoded.code).toBe('INVALID_REQUEST');
  return decoded.message;
}

function request<T>(value: unknown, within: DecodeContext = context): T {
  const decoded = decode(value, within);
  if (!decoded.ok) throw new Error(decoded.message);
  return decoded.request as T;
}

const store = (block: object, rest: object = {}): object => ({ id: 1, op: 'store', blocks: [block], ...rest });
const load = (block: object, rest: object = {}): object => ({ id: 1, op: 'load', blocks: [block], ...rest });
const lookup = (key: unknown, rest: object = {}): object => ({ id: 1, op: 'lookup', keys: [key], ...rest });
const B = { key: 'llama/9f3c', slot: 17, bytes: 4096 };

test('what is quoted in a refusal moves no terminal', () => {
  for (const wild of ['\u001b[2J', '\u007f', '\u0085', '\u009b2J']) {
    const said = [
      decode({ id: 1, op: `pi${wild}ng` }, context),
      decode({ id: 1, op: 'ping', [`x${wild}`]: 1 }, context),
      decode({ id: 1, op: 'lookup', mount: `kv${wild}`, keys: ['a/00'] }, context),
      decode({ id: 1, op: 'lookup', keys: [`a/0${wild}`] }, context),
    ];
    for (const one of said) {
      if (one.ok) throw new Error('taken');
      expect(one.message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
      expect(one.message).toContain(`\\u00${wild.charCodeAt(0).toString(16).padStart(2, '0')}`);
    }
  }
});

describe('what is no request at all', () => {
  test.each([
    [null, 'null'], [12, '12'], ['ping', '"ping"'], [true, 'true'], [[], 'an empty array'], [[{ id: 1, op: 'ping' }], 'an array of 1'],
  ])('%j is answered with id null', (value, shown) => {
    expect(decode(value, context)).toEqual({ ok: false, id: null, code: 'INVALID_REQUEST', message: `a request is one JSON object, got ${shown}` });
  });

  test('a missing or unreadable id is null in the answer', () => {
    expect(decode({ op: 'ping' }, context)).toMatchObject({ id: null, message: 'id is missing; give each request one of its own, for example "id":1' });
    for (const id of [-1, 1.5, 2 ** 53, null, {}, [], true]) {
      expect(decode({ id, op: 'ping' }, context)).toMatchObject({ id: null, message: expect.stringMatching(/^id must be an integer from 0 to 9007199254740991 or a string of at most 64 bytes, got /) });
    }
  });

  test('an id may be as long as its limit, in bytes of UTF-8, and no longer', () => {
    expect(decode({ id: 'ä'.repeat(32), op: 'ping' }, context)).toMatchObject({ ok: true });
    expect(decode({ id: 'ä'.repeat(32) + 'x', op: 'ping' }, context)).toMatchObject({ ok: false, id: null });
    expect(decode({ id: 2 ** 53 - 1, op: 'ping' }, context)).toMatchObject({ ok: true, request: { id: 2 ** 53 - 1 } });
    expect(decode({ id: 0, op: 'ping' }, context)).toMatchObject({ ok: true });
  });
});

describe('ops and fields', () => {
  test('a misspelt op gets the nearest one, a strange one the whole list', () => {
    expect(decode({ id: 'a', op: 'laod' }, context)).toEqual({ ok: false, id: 'a', code: 'UNKNOWN_OP', message: 'unknown op "laod" (did you mean "load"?)' });
    expect(decode({ id: 2, op: 'constructor' }, context)).toMatchObject({ id: 2, code: 'UNKNOWN_OP', message: `unknown op "constructor"; known: ${OPS.join(', ')}` });
    expect(refusal({ id: 2 })).toBe(`op is missing; known: ${OPS.join(', ')}`);
    expect(refusal({ id: 2, op: 7 })).toBe(`op must be a string, got 7; known: ${OPS.join(', ')}`);
  });

  test('an unknown field names the nearest, at the top and inside a block', () => {
    expect(refusal(load(B, { timout_ms: 5 }))).toBe('unknown field "timout_ms" (did you mean "timeout_ms"?)');
    expect(refusal(load({ ...B, solt: 1 }))).toBe('unknown field "solt" in blocks[0] (did you mean "slot"?)');
    expect(refusal(load({ ...B, text: 'a' }))).toBe('unknown field "text"; blocks[0] takes key, slot, bytes');
    expect(refusal({ id: 1, op: 'lookup', key: 'a/00' })).toBe('unknown field "key" (did you mean "keys"?)');
    expect(refusal({ id: 1, op: 'ping', verbose: true })).toBe('unknown field "verbose"; ping takes id, op');
    expect(refusal(JSON.parse('{"id":1,"op":"ping","__proto__":{"a":1}}'))).toBe('unknown field "__proto__"; ping takes id, op');
  });

  test('a missing field is named with its place', () => {
    expect(refusal({ id: 1, op: 'lookup' })).toBe('keys is missing');
    expect(refusal({ id: 1, op: 'cancel' })).toBe('task is missing');
    expect(refusal(load({ slot: 1, bytes: 1 }))).toBe('blocks[0].key is missing');
    expect(refusal({ id: 1, op: 'load' })).toBe('blocks is missing (or keys, slots and bytes)');
    expect(refusal({ id: 1, op: 'load', slots: [1] })).toBe('keys is missing (slots is one column of several)');
    expect(refusal({ id: 1, op: 'namespace', name: 'llama' })).toBe('fingerprint is missing');
  });

  test('a value is quoted, but never more than 60 characters of it', () => {
    const said = refusal(load(B, { mount: 'x'.repeat(61) }));
    expect(said).toBe(`mount must be "kv0", got "${'x'.repeat(60)}"…`);
    expect(refusal(load(B, { mount: 'x'.repeat(60) }))).toBe(`mount must be "kv0", got "${'x'.repeat(60)}"`);
  });

  test.each([
    [{ if_exists: 'overwrite' }, 'if_exists must be "keep" or "replace", got "overwrite"'],
    [{ timeout_ms: 0 }, 'timeout_ms must be an integer from 1 to 3600000, got 0'],
    [{ timeout_ms: LIMITS.timeout_ms_max + 1 }, 'timeout_ms must be an integer from 1 to 3600000, got 3600001'],
    [{ timeout_ms: '250' }, 'timeout_ms must be an integer from 1 to 3600000, got "250"'],
    [{ deadline_us: -5 }, 'deadline_us must be CLOCK_MONOTONIC in microseconds, an integer from 0 to 9007199254740991, got -5'],
    [{ timeout_ms: 5, deadline_us: 5 }, 'timeout_ms and deadline_us say the same twice; give one'],
  ])('store with %j is refused', (rest, said) => {
    expect(refusal(store(B, rest))).toBe(said);
  });

  test('a time is taken up to its limit, and a deadline in the wrong unit is noticed', () => {
    expect(request(load(B, { timeout_ms: LIMITS.timeout_ms_max }))).toMatchObject({ timeoutMs: LIMITS.timeout_ms_max });
    const soon = { ...context, nowUs: 1_000_000 };
    expect(request(load(B, { deadline_us: 1_000_000 + 3_600_000_000 }), soon)).toMatchObject({ deadlineUs: 3_601_000_000 });
    expect(refusal(load(B, { deadline_us: 3_601_000_001 }), soon)).toContain('at most 3600000 ms ahead of it (now 1000000), got 3601000001');
  });
});

describe('mounts', () => {
  test('one mount need not be named, several must be', () => {
    expect(request(load(B))).toMatchObject({ mount: 'kv0', line: 7 });
    expect(request(load(B, { mount: 'kv1' }), two)).toMatchObject({ mount: 'kv1' });
    expect(refusal(load(B), two)).toBe('mount is missing; there are "kv0", "kv1"');
    expect(refusal(load(B, { mount: 'kv9' }), two)).toBe('mount must be one of "kv0", "kv1", got "kv9"');
    expect(refusal(load(B, { mount: '' }), two)).toBe('mount must be one of "kv0", "kv1", got ""');
  });
});

describe('keys', () => {
  test('a hex alone is told of the namespace field only where there can be one', () => {
    expect(refusal(load({ ...B, key: '9f3c' }))).toBe('blocks[0].key must be namespace/hex, got "9f3c": there is no "/"; give the whole key');
    expect(refusal({ id: 1, op: 'lookup', keys: ['9f3c'] })).toBe('keys[0] must be namespace/hex, got "9f3c": there is no "/"; give the whole key, or a namespace field');
  });

  test.each([
    ['llama/9F3C', 'the hex must be lower case'],
    ['llama/xyz0', '"x" is no hex digit (0-9, a-f)'],
    ['llama/9', 'the hex has 1 digits, it must have 2 to 128'],
    [`llama/${'a'.repeat(129)}`, 'the hex has 129 digits, it must have 2 to 128'],
    ['../9f3c', 'a namespace begins with a letter or a digit'],
    ['llama/../9f3c', 'there is more than one "/"'],
    ['llama/..', '"." is no hex digit (0-9, a-f)'],
    ['/9f3c', 'the namespace is empty'],
    ['.hidden/9f3c', 'a namespace begins with a letter or a digit'],
    ['lla ma/9f3c', 'a namespace holds letters, digits, ".", "_" and "-", not " "'],
    ['llama@/9f3c', 'after the "@" comes a generation, a number'],
    ['llama@x/9f3c', 'after the "@" comes a generation, a number'],
    ['llama@12345678901/9f3c', 'a generation has at most 10 digits'],
    [`${'n'.repeat(65)}/9f3c`, 'the namespace has 65 characters, the limit is 64'],
    ['llama/9f3c\n', '"\\n" is no hex digit (0-9, a-f)'],
  ])('%j is refused and told why', (key, why) => {
    const said = refusal(load({ ...B, key }));
    expect(said).toMatch(/^blocks\[0\]\.key must be namespace\/hex, got /);
    expect(said.endsWith(`: ${why}`)).toBe(true);
    expect(refusal(lookup(key)).endsWith(`: ${why}`)).toBe(true);
  });

  test('a key that is no string is shown', () => {
    expect(refusal(lookup(12))).toBe('keys[0] must be namespace/hex, got 12');
    expect(refusal(lookup(null, { namespace: 'llama' }))).toBe('keys[0] must be a hex (the namespace is given beside it), got null');
  });

  test('a key may have 160 bytes and not one more, however it is written', () => {
    const namespace = `${'n'.repeat(20)}@1234567890`;
    expect(request(lookup(`${namespace}/${'a'.repeat(128)}`))).toMatchObject({ blocks: { namespaces: [namespace], hexes: ['a'.repeat(128)] } });
    expect(refusal(lookup(`x${namespace}/${'a'.repeat(128)}`))).toMatch(/: it has 161 bytes, the limit is 160$/);
    expect(request(lookup('a'.repeat(128), { namespace }))).toMatchObject({ blocks: { namespaces: [namespace] } });
    expect(refusal(lookup('a'.repeat(128), { namespace: `x${namespace}` }))).toBe('keys[0] with its namespace has 161 bytes, the limit is 160');
  });

  test('keys beside a namespace are bare, keys without one are whole', () => {
    expect(request(lookup('00', { namespace: 'llama@3' }))).toMatchObject({ blocks: { namespaces: ['llama@3'], hexes: ['00'] } });
    expect(request(lookup('llama/00'))).toMatchObject({ blocks: { namespaces: ['llama'], hexes: ['00'] } });
    expect(refusal(lookup('llama/00', { namespace: 'llama' }))).toMatch(/: leave the namespace out of the key, or leave out the namespace field$/);
    expect(refusal(lookup('00', { namespace: 'a/b' }))).toBe('namespace must be a namespace, with or without @generation, got "a/b": a namespace holds letters, digits, ".", "_" and "-", not "/"');
  });
});

describe('slots and bytes', () => {
  test('a slot is one of this sidecar, and the last one is', () => {
    expect(request<LoadRequest>(load({ ...B, slot: 127 })).blocks.slots).toEqual([127]);
    expect(refusal({ id: 1, op: 'load', blocks: [0, 1, 2, 128].map((slot, i) => ({ key: `a/0${i}`, slot, bytes: 1 })) })).toBe('blocks[3].slot must be an integer from 0 to 127, got 128');
    expect(refusal(load({ ...B, slot: -1 }))).toBe('blocks[0].slot must be an integer from 0 to 127, got -1');
    expect(refusal(load({ ...B, slot: 1.5 }))).toBe('blocks[0].slot must be an integer from 0 to 127, got 1.5');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: [128], bytes: 1 })).toBe('slots[0] must be an integer from 0 to 127, got 128');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: ['1'], bytes: 1 })).toBe('slots[0] must be an integer from 0 to 127, got "1"');
  });

  test('bytes go up to the slot and not one past it', () => {
    expect(request<LoadRequest>(load({ ...B, bytes: 1048576 })).blocks.bytes).toEqual([1048576]);
    expect(refusal(load({ ...B, bytes: 1048577 }))).toBe('blocks[0].bytes must be an integer from 1 to 1048576, got 1048577');
    expect(refusal(load({ ...B, bytes: 0 }))).toBe('blocks[0].bytes must be an integer from 1 to 1048576, got 0');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: [1], bytes: [1048577] })).toBe('bytes[0] must be an integer from 1 to 1048576, got 1048577');
    expect(refusal(load({ key: 'a/00', slot: 1 }))).toBe('blocks[0].bytes is missing');
  });

  test('a slot twice in one request is refused', () => {
    expect(refusal({ id: 1, op: 'load', keys: ['a/00', 'a/01', 'a/02'], slots: [4, 9, 4], bytes: 8 })).toBe('slots[2] is 4, as slots[0]: a slot serves one block of a request');
    expect(refusal({ id: 1, op: 'store', blocks: [B, { ...B, key: 'a/01' }] })).toBe('blocks[1].slot is 17, as blocks[0].slot: a slot serves one block of a request');
  });

  test('columns are as long as the keys, and bytes may be one number', () => {
    expect(request<LoadRequest>({ id: 1, op: 'load', namespace: 'a', keys: ['00', '01'], slots: [1, 2], bytes: 8 }).blocks).toEqual({ namespaces: ['a', 'a'], hexes: ['00', '01'], slots: [1, 2], bytes: [8, 8] });
    expect(request<StoreRequest>({ id: 1, op: 'store', keys: ['a/00', 'b/01'], slots: [1, 2], bytes: [8, 9] }).blocks).toEqual({ namespaces: ['a', 'b'], hexes: ['00', '01'], slots: [1, 2], bytes: [8, 9], inlineData: null });
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: [1, 2], bytes: 8 })).toBe('slots must have as many entries as keys (1), got 2');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: [1], bytes: [8, 8] })).toBe('bytes must be one number, or have as many entries as keys (1), got 2');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], slots: [1] })).toBe('bytes is missing');
    expect(refusal({ id: 1, op: 'load', keys: ['a/00'], bytes: 1 })).toBe('slots is missing (or ask for "inline":true)');
    expect(refusal(load(B, { keys: ['a/00'] }))).toBe('blocks and keys are two forms of the same; give blocks, or keys, slots and bytes');
  });

  test('4096 blocks are taken, 4097 and none are not', () => {
    const columns = (n: number): object => ({ id: 1, op: 'lookup', namespace: 'a', keys: Array.from({ length: n }, (_, i) => hex(i)) });
    expect(decode(columns(4096), context).ok).toBe(true);
    expect(refusal(columns(4097))).toBe('keys must be an array of 1 to 4096 keys, got an array of 4097');
    expect(refusal(columns(0))).toBe('keys must be an array of 1 to 4096 keys, got an empty array');
    expect(refusal({ id: 1, op: 'load', blocks: {} })).toBe('blocks must be an array of 1 to 4096 blocks, got an object');
    expect(refusal({ id: 1, op: 'load', blocks: [null] })).toBe('blocks[0] must be an object, got null');
  });

  test('the largest request, in its longest form, fits one line', () => {
    const blocks = Array.from({ length: LIMITS.blocks_max }, (_, i) => ({ key: `${'n'.repeat(31)}/${hex(i, 128)}`, slot: 100000 + i, bytes: 67108864 }));
    const text = JSON.stringify({ id: 'i'.repeat(64), op: 'store', mount: 'm'.repeat(64), deadline_us: LIMITS.id_max, blocks, if_exists: 'replace' });
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(LIMITS.line_bytes_max);
    expect(decode(JSON.parse(text), { slots: 200000, slotBytes: 67108864, mounts: ['m'.repeat(64)], line: 1 }).ok).toBe(true);
  });
});

describe('inline blocks', () => {
  test('text and base64 become bytes', () => {
    const { blocks } = request<StoreRequest>({ id: 1, op: 'store', blocks: [{ key: 'a/00', text: 'hällo' }, { key: 'a/01', base64: 'AAH/' }, { key: 'a/02', slot: 3, bytes: 9 }] });
    expect(blocks.slots).toEqual([null, null, 3]);
    expect(blocks.bytes).toEqual([6, 3, 9]);
    expect(blocks.inlineData?.map((data) => data && Buffer.from(data).toString('hex'))).toEqual(['68c3a46c6c6f', '0001ff', null]);
  });

  test.each([
    [{}, 'blocks[0] has no data: give slot and bytes, or text, or base64'],
    [{ slot: 1, text: 'a' }, 'blocks[0] has both slot and text; give one'],
    [{ text: 'a', bytes: 1 }, 'blocks[0].bytes goes with slot; text has its own length'],
    [{ text: '' }, 'blocks[0].text is empty; a block has at least one byte'],
    [{ text: '\ud800' }, 'blocks[0].text holds half of a surrogate pair; use base64 for bytes that are not text'],
    [{ base64: 'AA' }, 'blocks[0].base64 is not base64 (A-Z a-z 0-9 + /, padded with = to a multiple of 4)'],
    [{ base64: 'A_==' }, 'blocks[0].base64 is not base64 (A-Z a-z 0-9 + /, padded with = to a multiple of 4)'],
    [{ text: 5 }, 'blocks[0].text must be a string, got 5'],
    [{ text: 'x'.repeat(65537) }, 'blocks[0].text has 65537 bytes, the limit of an inline block is 65536; use a slot'],
  ])('store of %j is refused', (data, said) => {
    expect(refusal(store({ key: 'a/00', ...data }))).toBe(said);
  });

  test('an inline block may have 65536 bytes, and a request 8 of them', () => {
    expect(decode(store({ key: 'a/00', text: 'x'.repeat(65536) }), context).ok).toBe(true);
    const many = (n: number): object => ({ id: 1, op: 'load', inline: true, blocks: Array.from({ length: n }, (_, i) => ({ key: `a/0${i}` })) });
    expect(request<LoadRequest>(many(8))).toMatchObject({ inline: true, blocks: { slots: Array(8).fill(null), bytes: Array(8).fill(null) } });
    expect(refusal(many(9))).toBe('9 inline blocks, the limit is 8; use slots');
  });

  test('an inline load takes no slot, and another load needs one', () => {
    expect(refusal(load(B, { inline: true }))).toBe('blocks[0].slot cannot go with "inline":true; the bytes come in the answer');
    expect(refusal(load({ key: 'a/00' }))).toBe('blocks[0].slot is missing (or ask for "inline":true)');
    expect(request<LoadRequest>({ id: 1, op: 'load', inline: true, namespace: 'a', keys: ['00'], bytes: 5 }).blocks).toMatchObject({ slots: [null], bytes: [5] });
    expect(refusal({ id: 1, op: 'load', inline: true, keys: ['a/00'], slots: [1] })).toBe('slots cannot go with "inline":true; the bytes come in the answer');
    expect(refusal(load({ key: 'a/00', bytes: 65537 }, { inline: true }))).toBe('blocks[0].bytes must be an integer from 1 to 65536, got 65537');
    expect(refusal(load(B, { inline: 'yes' }))).toBe('inline must be true or false, got "yes"');
  });
});

describe('the other ops', () => {
  test('a fingerprint is canonical: the order of its keys and its spaces say nothing', () => {
    const of = (fingerprint: unknown): unknown => ({ id: 1, op: 'namespace', name: 'llama', fingerprint });
    expect(request(of({ b: [1, { d: null, c: 'ä' }], a: true }))).toMatchObject({ name: 'llama', bump: false, fingerprint: '{"a":true,"b":[1,{"c":"ä","d":null}]}' });
    expect(refusal(of([]))).toBe('fingerprint must be a JSON object, got an empty array');
    expect(refusal(of({ a: 'x'.repeat(16384) }))).toBe('fingerprint has 16392 bytes as JSON, the limit is 16384; send a hash of it');
    expect(refusal(of(JSON.parse(`${'{"a":'.repeat(20000)}1${'}'.repeat(20000)}`)))).toBe('fingerprint nests deeper than 16 levels');
    expect(refusal({ id: 1, op: 'namespace', name: 'llama@3', fingerprint: {} })).toMatch(/^name must be a namespace without a generation, got "llama@3"/);
  });

  test('cancel takes an id, shutdown a time, the rest nothing', () => {
    expect(request({ id: 1, op: 'cancel', task: 'x' })).toEqual({ op: 'cancel', id: 1, line: 7, task: 'x' });
    expect(refusal({ id: 1, op: 'cancel', task: 1.5 })).toMatch(/^task must be an integer from 0 /);
    expect(refusal({ id: 1, op: 'cancel', task: 'ä'.repeat(33) })).toMatch(/^task must be an integer from 0 /);
    expect(request({ id: 1, op: 'shutdown', timeout_ms: 500 })).toEqual({ op: 'shutdown', id: 1, line: 7, timeoutMs: 500 });
    for (const op of ['stats', 'stuck', 'ping', 'help']) expect(request({ id: 1, op })).toEqual({ op, id: 1, line: 7 });
    expect(request({ id: 1, op: 'stuck', over_ms: 0 })).toEqual({ op: 'stuck', id: 1, line: 7, overMs: 0 });
  });
});

test('whatever JSON comes in, decode says yes or says why, and never throws', () => {
  const seeds = [store(B, { if_exists: 'keep' }), load(B, { inline: true }), { id: 1, op: 'load', namespace: 'a', keys: ['00', '01'], slots: [1, 2], bytes: 8 }, lookup('a/00', { deadline_us: 5 }), { id: 1, op: 'namespace', name: 'a', fingerprint: { a: [1] }, bump: true }, { id: 1, op: 'cancel', task: 2 }];
  const odd: unknown[] = [null, true, -1, 1.5, 1e300, '', 'x', '../x', '\ud800', [], {}, [null], { key: 5 }, [[1]], { __proto__: null, key: {} }];
  const mutated = (value: unknown, at: number, instead: unknown, count = { seen: 0 }): unknown => {
    if (count.seen++ === at) return instead;
    if (Array.isArray(value)) return value.map((item) => mutated(item, at, instead, count));
    if (typeof value !== 'object' || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, mutated(item, at, instead, count)]));
  };
  for (const seed of seeds) for (let at = 0; at < 12; at += 1) for (const instead of odd) {
    const decoded = decode(mutated(seed, at, instead), context);
    if (!decoded.ok) expect(decoded.message).toMatch(/^[\x20-\x7e…]{5,400}$/);
  }
});

test('4096 blocks are decoded in a few milliseconds', () => {
  const blocks = Array.from({ length: 4096 }, (_, i) => ({ key: `llama@3/${hex(i)}`, slot: i, bytes: 1048576 }));
  const big: DecodeContext = { ...context, slots: 4096 };
  const times: number[] = [];
  for (let round = 0; round < 15; round += 1) {
    const before = performance.now();
    decode({ id: round, op: 'load', blocks }, big);
    times.push(performance.now() - before);
  }
  // A few ms measured; the bound only catches a decoder that became quadratic.
  expect(times.sort((a, b) => a - b)[7]!).toBeLessThan(50);
});
