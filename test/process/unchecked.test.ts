// --test-unchecked, which is there so that `npm run bench` can say what the checksum costs: it must be off by default, loud, and a
// block that was stored without one must never pass for a good block elsewhere.

import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { keysOf, patternOf } from '../support/rig.ts';
import { HEADER_BYTES, startStore } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 10_000;

test('without checksums a block comes back as it was stored, says so on stderr, and is damaged in the eyes of every other sidecar', async () => {
  const root = freshDirectory();
  const keys = keysOf('u', 2);
  const unchecked = await startStore(root, { args: ['--test-unchecked'] });
  for (const one of await unchecked.put(keys, BYTES)) expect(one.code).toBe('OK');
  const [first] = await unchecked.get(keys, BYTES);
  expect(first!.data!.equals(patternOf(keys[0]!, BYTES))).toBe(true);
  expect(unchecked.client.stderr).toContain('payloads_unchecked');

  const file = readFileSync(unchecked.path(keys[0]!));
  file[HEADER_BYTES + 5] = file[HEADER_BYTES + 5]! ^ 1;
  writeFileSync(unchecked.path(keys[0]!), file);
  const [flipped] = await unchecked.get([keys[0]!], BYTES);
  expect(flipped!.code).toBe('OK'); // so nothing was computed

  const usual = await startStore(root);
  expect((await usual.get(keys, BYTES)).map((one) => one.code)).toEqual(['CORRUPT', 'CORRUPT']);
  expect(usual.client.stderr).not.toContain('payloads_unchecked');
});
