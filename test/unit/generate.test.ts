// generate.test.ts — what is checked in is what protocol.json says, and a file that drifted is named.

import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CODE_TABLE, CODES, LIMITS, OPS, REQUEST_FIELDS } from '../../protocol/messages.ts';
import { answerValidators, eventValidators } from '../../protocol/validate_answers.generated.ts';

const root = join(import.meta.dirname, '../..');
const PYTHON = 'clients/python/src/kvlane/_messages.py';
let copy: string;

beforeAll(() => {
  copy = mkdtempSync(join(tmpdir(), 'kvlane-protocol-'));
  mkdirSync(join(copy, 'clients/python/src/kvlane'), { recursive: true });
  for (const path of ['protocol', 'package.json', PYTHON]) cpSync(join(root, path), join(copy, path), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
});
afterAll(() => rmSync(copy, { recursive: true, force: true }));

const generate = (at: string, ...args: string[]): { status: number | null; stderr: string } =>
  spawnSync(process.execPath, [join(at, 'protocol/generate.mjs'), ...args], { encoding: 'utf8', timeout: 20_000 });

test('everything generated is up to date', () => {
  expect(generate(root, '--check')).toMatchObject({ status: 0, stderr: '' });
});

test.each(['protocol/messages.ts', 'protocol/validate_requests.generated.ts', 'protocol/validate_answers.generated.ts', 'protocol/README.md', PYTHON])('%s edited by hand is named by the check, and put right by the generator', (path) => {
  const before = readFileSync(join(copy, path), 'utf8');
  writeFileSync(join(copy, path), before.replace(/[`'"]CORRUPT[`'"]|"type":"string"/, 'EDITED'));
  const checked = generate(copy, '--check');
  expect(checked.status).toBe(1);
  expect(checked.stderr).toBe(`${path} is not what protocol/protocol.json says; run: npm run protocol:generate\n`);
  expect(generate(copy).status).toBe(0);
  expect(readFileSync(join(copy, path), 'utf8')).toBe(before);
});

test('a limit that nobody wrote down stops the generator', () => {
  const path = join(copy, 'protocol/protocol.json');
  const before = readFileSync(path, 'utf8');
  writeFileSync(path, before.replace('"$limit": "blocks_max"', '"$limit": "block_max"'));
  const result = generate(copy, '--check');
  writeFileSync(path, before);
  expect(result.status).not.toBe(0);
  expect(result.stderr).toContain('no limit is called block_max');
});

test('every code says what to do next, every limit is a number, every op has its messages', () => {
  for (const code of CODES) expect(CODE_TABLE[code].next.length).toBeGreaterThan(4);
  for (const value of Object.values(LIMITS)) expect(Number.isSafeInteger(value)).toBe(true);
  expect(Object.keys(REQUEST_FIELDS)).toEqual([...OPS]);
  expect(Object.keys(answerValidators)).toEqual(['error', ...OPS]);
});

test('the examples of the design are messages', () => {
  const is = (validate: (value: unknown) => boolean, value: unknown): void => expect(validate(value), JSON.stringify(value)).toBe(true);
  is(answerValidators.load, { id: 2, ok: false, done: 63, failed: [{ block: 3, code: 'DEADLINE_EXCEEDED', phase: 'read', waited_ms: 250, slot: 'quarantined' }] });
  is(answerValidators.load, { id: 2, ok: false, done: 0, failed: [{ blocks: [[3, 9], [12, 12]], code: 'MOUNT_SUSPENDED', phase: 'queue', waited_ms: 0, slot: 'free' }] });
  is(answerValidators.lookup, { id: 3, ok: true, present: [true, true, null], prefix: 2, complete: false });
  is(answerValidators.stuck, { id: 8, ok: true, stuck: [{ mount: 'kv0', class: 'load', phase: 'read', key: 'llama/9f3c', slot: 17, task: 2, tid: 4720, syscall: 'preadv2', since_us: 98123456, for_ms: 1843, settled: true }] });
  is(answerValidators.error, { id: 12, ok: false, error: { code: 'INVALID_REQUEST', message: 'blocks[3].slot must be an integer from 0 to 127, got 128' } });
  is(answerValidators.error, { id: null, ok: false, error: { code: 'DUPLICATE_ID', message: 'id 2 is taken' }, duplicate_of: 2, line: 17 });
  is(eventValidators.mount, { event: 'mount', mount: 'kv0', class: 'load', state: 'suspended', was: 'ok', reason: '3 reads in flight, none completed for 1000 ms' });
  is(eventValidators.slots_freed, { event: 'slots_freed', slots: [17] });
  expect(eventValidators.slots_freed({ event: 'slots_freed', slot: 17 })).toBe(false);
});
