// What is no request, too long, too much or never read, over real pipes: one answer each, in bounded memory.
import { once } from 'node:events';
import type { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import { LIMITS } from '../../protocol/messages.ts';
import { startSidecar, within, type Message } from '../support/sidecar_process.ts';

const store = (block: object): string => JSON.stringify({ id: 7, op: 'store', blocks: [block] });

/** Line, id of the answer, code, a part of what it says. The arena has 8 slots of 1 MiB. */
const TABLE: [string, number | null, string, string][] = [
  ['{"id":7,"op":"ping"', null, 'INVALID_REQUEST', 'line 1: not JSON at character 20: expected a comma or }'],
  ['{id:7}', null, 'INVALID_REQUEST', 'a name in double quotes'],
  ['hello', null, 'INVALID_REQUEST', 'expected a value'],
  ['null', null, 'INVALID_REQUEST', 'null'],
  ['7', null, 'INVALID_REQUEST', '7'],
  ['"x"', null, 'INVALID_REQUEST', '"x"'],
  ['true', null, 'INVALID_REQUEST', 'true'],
  ['[]', null, 'INVALID_REQUEST', 'array'],
  ['[{"id":7,"op":"ping"}]', null, 'INVALID_REQUEST', 'array'],
  ['\ufeff{"id":7,"op":"ping"}', null, 'INVALID_REQUEST', 'byte order mark'],
  ['\u0000\u0000', null, 'INVALID_REQUEST', 'expected a value'],
  ['{"id":7,"op":"ping"}\u0000', null, 'INVALID_REQUEST', 'the end of the line'],
  ['{"id":7,"op":"ping"} {"id":8,"op":"ping"}', null, 'INVALID_REQUEST', 'one object a line'],
  ['{}', null, 'INVALID_REQUEST', 'id'],
  ['{"op":"ping"}', null, 'INVALID_REQUEST', 'id'],
  ['{"id":-1,"op":"ping"}', null, 'INVALID_REQUEST', 'id'],
  ['{"id":1.5,"op":"ping"}', null, 'INVALID_REQUEST', 'id'],
  ['{"id":9007199254740993,"op":"ping"}', null, 'INVALID_REQUEST', 'id'],
  [`{"id":"${'x'.repeat(65)}","op":"ping"}`, null, 'INVALID_REQUEST', '64'],
  ['{"id":7}', 7, 'INVALID_REQUEST', 'op'],
  ['{"id":7,"op":"sotre"}', 7, 'UNKNOWN_OP', 'store'],
  ['{"id":7,"op":"__proto__"}', 7, 'UNKNOWN_OP', '__proto__'],
  ['{"id":7,"op":"ping","timout_ms":5}', 7, 'INVALID_REQUEST', 'timout_ms'],
  ['{"id":7,"op":"lookup","keys":["a/00"],"timeout_ms":5,"deadline_us":5}', 7, 'INVALID_REQUEST', 'deadline_us'],
  ['{"id":7,"op":"lookup","keys":["a/00"],"mount":"kv9"}', 7, 'INVALID_REQUEST', 'kv9'],
  ['{"id":7,"op":"lookup","keys":["a/00"],"timeout_ms":0}', 7, 'INVALID_REQUEST', 'timeout_ms'],
  ['{"id":7,"op":"lookup","keys":[]}', 7, 'INVALID_REQUEST', 'keys'],
  [store({ key: 'a/00', slot: 8, bytes: 4096 }), 7, 'INVALID_REQUEST', 'slot'],
  [store({ key: 'a/00', slot: -1, bytes: 4096 }), 7, 'INVALID_REQUEST', 'slot'],
  [store({ key: 'a/00', slot: 0, bytes: 1024 * 1024 + 1 }), 7, 'INVALID_REQUEST', 'bytes'],
  [store({ key: 'a/00', slot: 0, bytes: 0 }), 7, 'INVALID_REQUEST', 'bytes'],
  [store({ key: 'a/00', slot: 0, bytes: 1, sloot: 1 }), 7, 'INVALID_REQUEST', 'unknown field "sloot" in blocks[0]'],
  [store({ key: 'a/00', slot: '0', bytes: 1 }), 7, 'INVALID_REQUEST', 'slot'],
  [store({ key: 'a/00', slot: 0.5, bytes: 1 }), 7, 'INVALID_REQUEST', 'slot'],
  [store({ key: 'a/00', text: 'x', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'both slot and text'],
  ['{"id":7,"op":"lookup","keys":["a/00",7]}', 7, 'INVALID_REQUEST', 'keys[1]'],
  ['{"id":7,"op":"remove","keys":["a/00"],"blocks":[]}', 7, 'INVALID_REQUEST', 'blocks'],
  [store({ key: '../00', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  [store({ key: 'a/../../00', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  [store({ key: 'a/00/', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  [store({ key: '/etc/00', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  [store({ key: 'a/0G', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  [store({ key: 'a\u0000/00', slot: 0, bytes: 1 }), 7, 'INVALID_REQUEST', 'key'],
  ['{"id":7,"op":"load","namespace":"..","keys":["00"],"slots":[0],"bytes":1}', 7, 'INVALID_REQUEST', 'namespace'],
  ['{"id":7,"op":"load","namespace":"a","keys":["00","01"],"slots":[0],"bytes":1}', 7, 'INVALID_REQUEST', 'slots'],
  ['{"id":7,"op":"load","namespace":"a","keys":["00","01"],"slots":[3,3],"bytes":1}', 7, 'INVALID_REQUEST', '3'],
  [`{"id":7,"op":"namespace","name":"a","fingerprint":${'{"a":'.repeat(20)}1${'}'.repeat(20)}}`, 7, 'INVALID_REQUEST', '16'],
  [`{"id":7,"op":"ping","x":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, null, 'INVALID_REQUEST', 'nests deeper'],
];

test('each kind of garbage gets one clear answer, and the sidecar goes on', async () => {
  const sidecar = startSidecar();
  const ready = await sidecar.ready();
  expect(ready.arena.slots).toBe(8);
  for (const [index, [line, id, code, part]] of TABLE.entries()) {
    const before = sidecar.messages.length;
    // The line under test is always the odd one: a ping follows it, and says that all before it has been read.
    sidecar.write(`${line}\n`);
    sidecar.send({ id: 'after', op: 'ping' });
    await sidecar.message((message) => message['id'] === 'after' && sidecar.messages.indexOf(message) >= before, `the ping after ${line.slice(0, 80)}`);
    const [answer, ping, ...more] = sidecar.messages.slice(before) as [Message, Message, ...Message[]];
    const text = `${line.slice(0, 80)} → ${JSON.stringify(answer)}`;
    expect(more, text).toEqual([]);
    expect(ping['id'], text).toBe('after');
    expect({ id: answer['id'], ok: answer['ok'], code: answer['error']?.code }, text).toEqual({ id, ok: false, code });
    expect(answer['error'].message, text).toContain(part.replace('line 1', `line ${2 * index + 1}`));
    if (id === null) expect(answer['line'], text).toBe(2 * index + 1);
    expect(answer['error'].message.length, text).toBeLessThan(600);
  }
});

test('an id that is in use is refused without being answered twice, also by a line that is bad besides', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  // One write, so that the first is surely not answered when the others are read.
  sidecar.write(
    '{"id":2,"op":"store","blocks":[{"key":"a/00","text":"x"}]}\n' +
      '{"id":2,"op":"store","blocks":[{"key":"a/01","text":"y"}]}\n' +
      '{"id":2,"op":"store","bocks":[]}\n',
  );
  expect(await sidecar.answer(2)).toMatchObject({ ok: true, done: 1 });
  const refused = sidecar.messages.filter((message) => message['id'] === null);
  expect(refused).toMatchObject([
    { ok: false, error: { code: 'DUPLICATE_ID' }, duplicate_of: 2, line: 2 },
    { ok: false, error: { code: 'INVALID_REQUEST' }, duplicate_of: 2, line: 3 },
  ]);
  sidecar.send({ id: 2, op: 'lookup', keys: ['a/00', 'a/01'] }); // free again
  expect(await sidecar.message((message) => message['present'] !== undefined, 'the look-up')).toMatchObject({ id: 2, present: [true, false] });
});

test('a line of exactly 1 MiB is a request, one byte more is refused, and both leave the next line alone', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  const padded = (id: number, bytes: number) => `{"id":${id},"op":"ping"}`.padEnd(bytes, ' ') + '\n';
  sidecar.write(padded(1, LIMITS.line_bytes_max) + padded(2, LIMITS.line_bytes_max + 1) + padded(3, 30));
  expect(await sidecar.answer(1)).toMatchObject({ ok: true });
  expect(await sidecar.answer(3)).toMatchObject({ ok: true });
  const refused = sidecar.messages.filter((message) => message['ok'] === false);
  expect(refused).toMatchObject([{ id: null, line: 2, error: { code: 'LINE_TOO_LONG' } }]);
  expect(refused[0]!['error'].message).toContain('1048576');
});

test('a line without an end is answered while it comes, and costs no memory', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  const stdin = sidecar.child.stdin as Writable;
  const before = sidecar.statusKib('VmRSS')!;
  for (let sent = 0; sent < 64; sent += 1) {
    if (!stdin.write(Buffer.alloc(1024 * 1024, 'z'))) await once(stdin, 'drain');
  }
  expect(await sidecar.message((message) => message['ok'] === false, 'a refusal')).toMatchObject({ line: 1, error: { code: 'LINE_TOO_LONG' } });
  sidecar.write('\n{"id":1,"op":"ping"}\n');
  await sidecar.answer(1);
  expect(sidecar.messages.filter((message) => message['ok'] === false)).toHaveLength(1);
  expect(sidecar.statusKib('VmRSS')! - before).toBeLessThan(64 * 1024); // 64 MiB were sent; they would all be there
});

test('half a line at the end of stdin is refused, what came before it is answered', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  sidecar.write('{"id":1,"op":"store","blocks":[{"key":"a/00","text":"x"}]}\n{"id":2,"op":"ping"}');
  sidecar.end();
  expect(await sidecar.exited).toEqual({ code: 0, signal: null });
  await sidecar.ended;
  const answers = sidecar.messages.filter((message) => 'ok' in message);
  expect(answers).toHaveLength(2);
  expect(answers).toContainEqual({ id: null, ok: false, line: 2, error: { code: 'INVALID_REQUEST', message: expect.stringContaining('stdin ended after 20 bytes without a newline') as string } });
  expect(await sidecar.answer(1)).toMatchObject({ ok: true });
});

test('100,000 lines at once get 100,000 answers in order and in bounded memory', async () => {
  const sidecar = startSidecar();
  await sidecar.ready();
  const count = 100_000;
  let text = '';
  for (let id = 0; id < count; id += 1) text += `{"id":${id},"op":"ping"}\n`;
  const before = performance.now();
  sidecar.write(text);
  await within(sidecar.answer(count - 1), () => 'no last answer', 25_000);
  console.log(`${count} pings in ${(performance.now() - before).toFixed(0)} ms, peak ${sidecar.statusKib('VmHWM')} KiB`);
  const ids = sidecar.messages.filter((message) => 'id' in message).map((message) => message['id'] as number);
  expect(ids).toEqual([...Array(count).keys()]);
  expect(sidecar.statusKib('VmHWM')).toBeLessThan(300 * 1024);
});

test('a reader that never reads is left, in bounded memory and with a status that says so', async () => {
  const sidecar = startSidecar({ read: false });
  const stdin = sidecar.child.stdin as Writable;
  const pings = Array.from({ length: 2_000 }, (_, id) => `{"id":"${String(id).padStart(64, '-')}","op":"ping"}\n`).join(''); // the longest ids: the fewest answers
  let peakKib = 0;
  let left = false;
  const gone = once(sidecar.child, 'exit').then(() => (left = true));
  const drained = (): Promise<unknown> => Promise.race([once(stdin, 'drain'), gone]).catch(() => undefined);
  for (let turn = 0; turn < 1_000 && !left; turn += 1) {
    if (!stdin.write(pings)) await within(drained(), () => 'stdin is not read, and the sidecar does not leave');
    peakKib = Math.max(peakKib, sidecar.statusKib('VmHWM') ?? 0);
  }
  expect(await sidecar.exited).toEqual({ code: 74, signal: null }); // to be waited for from here on: how long the flood took is the machine's affair
  console.log(`left a reader that does not read; peak ${peakKib} KiB`);
  expect(peakKib).toBeGreaterThan(0);
  expect(peakKib).toBeLessThan(300 * 1024);
  expect(sidecar.stderr()).toContain('stdout is read too slowly');
});
