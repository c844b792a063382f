// What is typed at the console: words and JSON, where each part stands, and what tab offers.
import { describe, expect, test } from 'vitest';
import { decode } from '../../protocol/decode.ts';
import { OPS } from '../../protocol/messages.ts';
import { complete } from '../../clients/cli/console/complete.ts';
import { placeOf, scanJson } from '../../clients/cli/console/json_scan.ts';
import { keysOf, RecentKeys } from '../../clients/cli/console/recent_keys.ts';
import { fieldsOf } from '../../clients/cli/console/schema.ts';
import { readShorthand, USAGE } from '../../clients/cli/console/shorthand.ts';
import { wordsOf } from '../../clients/cli/console/words.ts';

const fields = (line: string) => {
  const meant = readShorthand(line);
  if (!meant.ok) throw new Error(meant.message);
  return { op: meant.op, ...meant.fields };
};
const misread = (line: string) => {
  const meant = readShorthand(line);
  if (meant.ok) throw new Error(JSON.stringify(meant.fields));
  return [line.slice(meant.at.start, meant.at.end), meant.message];
};

describe('words', () => {
  test('blanks part words, but not within quotes and brackets', () => {
    expect(wordsOf('  a "b c"  {"d": [1, 2]} e="f \\" g"').map((word) => word.text)).toEqual(['a', '"b c"', '{"d": [1, 2]}', 'e="f \\" g"']);
    expect(wordsOf('a "b').at(-1)).toEqual({ text: '"b', start: 2, end: 4, open: true });
    expect(wordsOf('a {"b": ')).toHaveLength(2);
    expect(wordsOf('"\\')).toEqual([{ text: '"\\', start: 0, end: 2, open: true }]);
  });

  test.each<[string, object]>([
    ['store demo/00ff hello', { op: 'store', blocks: [{ key: 'demo/00ff', text: 'hello' }] }],
    ['STORE demo/00ff "two words" demo/01 x=y if_exists=replace', { op: 'store', if_exists: 'replace', blocks: [{ key: 'demo/00ff', text: 'two words' }, { key: 'demo/01', text: 'x=y' }] }],
    ['store demo/00ff demo/01 slots=[1,2] bytes=4096', { op: 'store', keys: ['demo/00ff', 'demo/01'], slots: [1, 2], bytes: 4096 }],
    ['load demo/00ff demo/01 timeout_ms=250', { op: 'load', keys: ['demo/00ff', 'demo/01'], inline: true, timeout_ms: 250 }],
    ['load demo/00ff slots=7 bytes=100', { op: 'load', keys: ['demo/00ff'], slots: [7], bytes: 100 }],
    ['lookup namespace=demo 00ff 01 mount=kv0', { op: 'lookup', namespace: 'demo', keys: ['00ff', '01'], mount: 'kv0' }],
    ['lookup keys=["demo/00ff"]', { op: 'lookup', keys: ['demo/00ff'] }],
    ['remove demo/00ff id=three', { op: 'remove', keys: ['demo/00ff'], id: 'three' }],
    ['namespace demo {"model":"tiny", "n": [1]} bump=true', { op: 'namespace', name: 'demo', fingerprint: { model: 'tiny', n: [1] }, bump: true }],
    ['cancel 12', { op: 'cancel', task: 12 }],
    ['cancel "a b"', { op: 'cancel', task: 'a b' }],
    ['shutdown timeout_ms=500', { op: 'shutdown', timeout_ms: 500 }],
    ['ping', { op: 'ping' }],
  ])('%s', (line, request) => {
    expect(fields(line)).toEqual(request);
    const context = { slots: 64, slotBytes: 65_536, mounts: ['kv0'], line: 1 };
    expect(decode({ id: 1, ...fields(line) }, context)).toMatchObject({ ok: true });
  });

  test.each<[string, string, RegExp]>([
    ['laod demo/00ff', 'laod', /did you mean load\?/],
    ['frobnicate', 'frobnicate', /there are store, load/],
    ['lookup', '', /a key is missing: lookup KEY…/],
    ['store demo/00ff', '', /the text of demo\/00ff is missing/],
    ['load demo/00ff timout_ms=5', 'timout_ms', /load has no field timout_ms; did you mean timeout_ms\?/],
    ['load demo/00ff timeout_ms=1 timeout_ms=2', '2', /timeout_ms is there twice/],
    ['namespace demo {"model":}', '{"model":}', /not JSON/],
    ['namespace demo', '', /a fingerprint is missing/],
    ['ping now', 'now', /does not know what to do with this/],
    ['store demo/00ff "open', '"open', /not closed/],
    ['cancel', '', /which task\?/],
    ['lookup keys=demo/00ff demo/01', 'demo/01', /one of them is enough/],
  ])('%s: the fault is at %j', (line, at, says) => {
    const [place, message] = misread(line);
    expect(place).toBe(at);
    expect(message).toMatch(says);
  });

  test('every request can be said in words', () => {
    expect(Object.keys(USAGE)).toEqual([...OPS]);
    for (const op of OPS) expect(USAGE[op].startsWith(op)).toBe(true);
  });
});

describe('where things stand in a line of JSON', () => {
  const line = '{"id":1,"op":"load","blocks":[{"key":"a/00","slot":3},{"key":"a\\"b", "slot" : 128 }],"x":{"y":[true,[1,2]]}}';
  test.each<[string, string]>([
    ['', line],
    ['op', '"load"'],
    ['blocks[0].key', '"a/00"'],
    ['blocks[1]', '{"key":"a\\"b", "slot" : 128 }'],
    ['blocks[1].key', '"a\\"b"'],
    ['blocks[1].slot', '128'],
    ['x.y[1][0]', '1'],
  ])('%s', (path, text) => {
    const at = placeOf(line, path)!;
    expect(line.slice(at.start, at.end)).toBe(text);
  });

  test('half a line has places too, and nothing makes it stumble', () => {
    expect(placeOf('{"op":"load","blocks":[{"slot":12', 'blocks[0].slot')).toEqual({ start: 31, end: 33 });
    expect(placeOf('{"op":"load"', 'keys')).toBeNull();
    for (let cut = 0; cut <= line.length; cut += 1) scanJson(line.slice(0, cut));
    for (const wild of [']]}}', '{{{[[[', ',,,:::', '"', '{"a', '{"a\\', '[}{]', '{"a":"b" "c"}']) scanJson(wild);
  });
});

describe('what tab offers', () => {
  const known = { mounts: ['kv0', 'far'], keys: ['demo/00ff', 'llama@3/01', 'demo/0100'], tasks: [3, 'x'], commands: ['.wire', '.quit'] };
  const hits = (line: string) => complete(line, known).hits;

  test.each<[string, string[]]>([
    ['lo', ['load ', 'lookup ']],
    ['.w', ['.wire']],
    ['load de', ['demo/00ff ', 'demo/0100 ']],
    ['load demo/00ff t', ['timeout_ms=']],
    ['load demo/00ff timeout_ms=1 t', []],
    ['load demo/00ff mount=', ['mount=kv0 ', 'mount=far ']],
    ['store x/00 if_exists=r', ['if_exists=replace ']],
    ['store if_exists=r', ['if_exists=replace ']],
    ['lookup namespace=d', ['namespace=demo ']],
    ['cancel ', ['3 ', 'x '].map((one) => one.trim())],
    ['load inline=', ['inline=true ', 'inline=false ']],
    ['nonsense de', []],
  ])('%j', (line, offered) => expect(hits(line)).toEqual(offered));

  test.each<[string, string[]]>([
    ['{', ['"op":', '"id":']],
    ['{"o', ['"op":']],
    ['{"op":"lo', ['"load"', '"lookup"']],
    ['{"op":', OPS.map((op) => `"${op}"`)],
    ['{"op":"lookup",', ['"id":', '"mount":', '"timeout_ms":', '"deadline_us":', '"namespace":', '"keys":']],
    ['{"op":"lookup","keys":', ['[']],
    ['{"op":"lookup","keys":["demo/0', ['"demo/00ff"', '"demo/0100"']],
    ['{"op":"lookup","namespace":"demo","keys":["', ['"00ff"', '"0100"']],
    ['{"op":"store","blocks":[{"key":"demo/00ff","', ['"slot":', '"bytes":', '"text":', '"base64":']],
    ['{"op":"store","blocks":[', ['{']],
    ['{"op":"store","blocks":[{"key":"ll', ['"llama@3/01"']],
    ['{"mount":"f', []],
    ['{"op":"load","mount":"f', ['"far"']],
    ['{"op":"load","inline":t', ['true']],
    ['{"op":"load"', []],
  ])('%s', (line, offered) => expect(hits(line)).toEqual(offered));

  test('what it offers continues what was typed', () => {
    for (const line of ['lo', 'load de', 'load x mount=', '{"op":"lo', '{"op":"lookup","keys":["demo/0']) {
      const { hits: offered, word } = complete(line, known);
      expect(line.endsWith(word)).toBe(true);
      for (const hit of offered) expect(hit.startsWith(word)).toBe(true);
    }
  });
});

test('the tables know the protocol: every field of every request', () => {
  for (const op of OPS) expect(fieldsOf(op).map((field) => field.name)).toEqual(expect.arrayContaining(['id', 'op']) as string[]);
  expect(fieldsOf('store').find((field) => field.name === 'blocks')).toMatchObject({ kind: 'array', fields: [{ name: 'key', names: 'key' }, { name: 'slot', kind: 'integer' }, { name: 'bytes' }, { name: 'text', kind: 'string' }, { name: 'base64' }] });
  expect(fieldsOf('store').find((field) => field.name === 'if_exists')?.values).toEqual(['keep', 'replace']);
});

test('recent keys: the latest first, each once, and so many', () => {
  const keys = new RecentKeys();
  keys.useAllOf({ namespace: 'demo', keys: ['00', '01'] });
  keys.useAllOf({ blocks: [{ key: 'demo/00' }] });
  expect(keys.all).toEqual(['demo/00', 'demo/01']);
  for (let i = 0; i < 1000; i += 1) keys.use(`many/${i}`);
  expect(keys.all).toHaveLength(500);
  expect(keys.all[0]).toBe('many/999');
  expect(keysOf({ keys: [1, 'a/00'] })).toEqual(['', 'a/00']);
});
