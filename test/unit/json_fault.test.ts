// Where a line stops being JSON, and what would be right there.
import { expect, test } from 'vitest';
import { findJsonFault } from '../../sidecar/json_fault.ts';

test.each([
  ['{id:1}', 1, 'a name in double quotes'],
  ["{'id':1}", 1, 'a name in double quotes'],
  ['{"id":1,}', 8, 'no comma before }'],
  ['[1,]', 3, 'no comma before ]'],
  ['{"id" 1}', 6, 'a colon after the name'],
  ['{"id":1 "op":2}', 8, 'a comma or } after the value'],
  ['[1 2]', 3, 'a comma or ] after the value'],
  ["{\"id\":'x'}", 6, 'a string in double quotes'],
  ['{"inline":True}', 10, 'true, false or null (JSON knows no other words)'],
  ['{"bytes":NaN}', 9, 'true, false or null (JSON knows no other words)'],
  ['{"id":01}', 7, 'a comma or } after the value'],
  ['{"id":}', 6, 'a value'],
  ['{"a":"\\x"}', 6, 'an escape that JSON knows (\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0000)'],
  ['{"a":"\t"}', 6, 'no control character in a string (write it as \\u0000)'],
  ['{"a":"x', 7, 'the closing double quote of a string'],
  ['{"a":1', 6, 'a comma or }'],
  ['{"a"', 4, 'a colon and a value'],
  ['{', 1, 'a name in double quotes or }'],
  ['[', 1, 'a value'],
  ['{"id":1}{"id":2}', 8, 'the end of the line (one object a line)'],
])('in %s the fault is at %i: expected %s', (text, at, expected) => {
  expect(() => { JSON.parse(text); }).toThrow();
  expect(findJsonFault(text)).toEqual({ at, expected });
});

test('it agrees with JSON.parse about what is JSON, over thousands of damaged lines', () => {
  const good = '{"id":1,"op":"store","x":[1,-2.5e3,true,null,{"é":"\\u00e9\\n"}],"y":{}} ';
  const letters = '{}[]",:\\0-1eE.+tnfu \té';
  let random = 12345; // a fixed seed: the same lines every time
  const next = (below: number): number => (random = (random * 1103515245 + 12345) % 2 ** 31) % below;
  for (let turn = 0; turn < 20_000; turn += 1) {
    const at = next(good.length);
    const text = good.slice(0, at) + letters[next(letters.length)]! + good.slice(at + next(3));
    let right = true;
    try {
      JSON.parse(text);
    } catch {
      right = false;
    }
    expect(findJsonFault(text) === null, text).toBe(right);
  }
});
