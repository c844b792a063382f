// Several sidecars on one store: each load sees one whole version of a block, whoever writes, whoever is killed in the middle of it,
// and whoever moves a damaged file of the same name aside at that moment.

import { copyFileSync, existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ENGINES, keysOf, measured } from '../support/rig.ts';
import { HEADER_BYTES, namesIn, type Outcome, startStore, temporariesIn, until } from '../support/plain_store.ts';
import { freshDirectory } from '../support/sidecar_process.ts';

const BYTES = 40_000;

/** A version of a block: its number, over and over. Two versions mixed are seen at a glance. */
function version(number: number, bytes = BYTES): Buffer {
  const data = Buffer.alloc(bytes);
  data.writeUInt32LE(number, 0);
  data.copyWithin(4, 0);
  for (let filled = 4; filled < bytes; filled *= 2) data.copyWithin(filled, 0, Math.min(filled, bytes - filled));
  return data;
}

/** The number of the version, or a failure when it is not one from end to end. */
function versionOf(one: Outcome, what: string): number {
  if (!one.data) throw new Error(`${what}: ${one.code}`);
  const number = one.data.readUInt32LE(0);
  if (!one.data.equals(version(number, one.data.length))) throw new Error(`${what}: a mixture of versions was given out as good`);
  return number;
}

test('the versions of this test are what they say', () => {
  expect([...version(0x01020304, 10)]).toEqual([4, 3, 2, 1, 4, 3, 2, 1, 4, 3]);
});

describe.each(ENGINES)('two writers (%s)', (engine) => {
  test('two sidecars replace the same blocks at once, hundreds of times: each load gets one whole version', async () => {
    const root = freshDirectory();
    const a = await startStore(root, { engine, slots: 32 });
    const b = await startStore(root, { engine, slots: 32 });
    const reader = await startStore(root, { engine, slots: 32 });
    const keys = keysOf('w', 6);
    await a.put(keys, BYTES, { data: () => version(0) });
    const seen = new Set<number>();
    let loads = 0;
    const rounds = 200;
    for (let round = 1; round <= rounds; round += 1) {
      const writes = [a.put(keys, BYTES, { replace: true, data: () => version(2 * round) }), b.put(keys, BYTES, { replace: true, data: () => version(2 * round + 1) })];
      const read = await reader.get(keys, BYTES);
      loads += read.length;
      for (const one of read) {
        const number = versionOf(one, `round ${round}`);
        expect(number).toBeGreaterThanOrEqual(round === 1 ? 0 : 2 * round - 2); // never an older one than the last that was answered
        expect(number).toBeLessThanOrEqual(2 * round + 1);
        seen.add(number);
      }
      for (const one of (await Promise.all(writes)).flat()) expect(one.code, one.entry?.message ?? '').toBe('OK');
      for (const one of await reader.get(keys, BYTES)) expect(versionOf(one, `after round ${round}`) >> 1).toBe(round);
    }
    measured(`${engine}: ${rounds} rounds, ${loads} loads beside the writers saw ${seen.size} versions`);
    expect(namesIn(join(root, 'aside'))).toEqual([]);
    for (const key of keys) expect(namesIn(dirname(a.path(key)))).toEqual([`${key.slice(2)}.kvb`]);
  });

  test('two sidecars store the same new blocks at once: one writes, the other keeps, nobody fails', async () => {
    const root = freshDirectory();
    const a = await startStore(root, { engine });
    const b = await startStore(root, { engine });
    let kept = 0;
    for (let round = 0; round < 100; round += 1) {
      const [key] = keysOf('k', 1, round) as [string];
      const [one, two] = (await Promise.all([a.put([key], BYTES, { data: () => version(1) }), b.put([key], BYTES, { data: () => version(2) })])).flat() as [Outcome, Outcome];
      expect([one.code, two.code]).toEqual(['OK', 'OK']);
      expect(Number(one.kept) + Number(two.kept)).toBe(1);
      kept += Number(two.kept);
      expect(versionOf((await b.get([key], BYTES))[0]!, key)).toBe(one.kept ? 2 : 1); // the one that was not kept has written
    }
    measured(`${engine}: 100 races, won by the first sidecar ${kept} times`);
  });

  test('a block that is stored while a damaged one of its name is moved aside is not lost', async () => {
    const root = freshDirectory();
    const a = await startStore(root, { engine });
    const b = await startStore(root, { engine });
    const key = 'r/00aa';
    await a.put([key], BYTES, { data: () => version(1) });
    const damaged = join(root, 'damaged');
    const file = readFileSync(a.path(key));
    file[HEADER_BYTES + 99] = file[HEADER_BYTES + 99]! ^ 1;
    writeFileSync(damaged, file);
    let met = 0;
    const rounds = 200;
    for (let round = 1; round <= rounds; round += 1) {
      // A fresh damaged file under the name, by rename as a host would: its inode number is often that of a file just replaced.
      copyFileSync(damaged, `${damaged}.now`);
      renameSync(`${damaged}.now`, a.path(key));
      const load = a.get([key], BYTES);
      let last: Outcome | undefined;
      for (let again = 0; again <= round % 4; again += 1) [last] = await b.put([key], BYTES, { replace: true, data: () => version(round) });
      expect(last).toMatchObject({ code: 'OK', kept: false });
      const [one] = (await load) as [Outcome];
      if (one.code === 'CORRUPT') met += 1;
      else expect([round - 1, round], one.code).toContain(one.data ? versionOf(one, 'beside') : round);
      // Between the move and the way back of a good file there may be a miss, and nothing else.
      await until(`round ${round} is there`, async () => {
        const [now] = (await b.get([key], BYTES)) as [Outcome];
        if (now.code !== 'NOT_FOUND') expect(versionOf(now, `round ${round}`)).toBe(round);
        return now.code === 'OK';
      }, () => JSON.stringify(namesIn(join(root, 'aside'))));
    }
    // All moves are over once a leaves. The last store is still there.
    await a.client.shutdown(5_000);
    expect(versionOf((await b.get([key], BYTES))[0]!, 'in the end')).toBe(rounds);
    const aside = namesIn(join(root, 'aside'));
    const good = aside.filter((name) => !readFileSync(join(root, 'aside', name)).equals(file)).length;
    measured(`${engine}: the damaged file was met in ${met} of ${rounds} rounds; ${aside.length} files are in aside/, ${good} of them good ones that another had replaced meanwhile`);
  });
});

/** Twelve sidecars one after the other and 7,000 blocks: 10 s on a quiet machine, over 30 s were seen on a busy one. Every wait within has a bound of its own. */
const KILLED_MS = 120_000;

describe.each(ENGINES)('killed (%s)', (engine) => {
  test('a sidecar killed in the middle of its stores leaves each block whole or absent, and the old one where there was one', { timeout: KILLED_MS }, async () => {
    const root = freshDirectory();
    const [old, fresh] = [keysOf('o', 100), keysOf('f', 100)];
    const both = old.flatMap((key, i) => [key, fresh[i]!]);
    const watcher = await startStore(root, { engine, slots: 256 });
    await watcher.put(old, BYTES, { data: () => version(0) });
    let written = 0;
    let leftovers = 0;
    const rounds = 12;
    for (let round = 1; round <= rounds; round += 1) {
      await Promise.all(fresh.map((key) => watcher.drop(key)));
      const victim = await startStore(root, { engine, slots: 256 });
      let over = false;
      const storing = victim.put(both, BYTES, { replace: true, data: () => version(round) }).finally(() => (over = true));
      // Once a random one has got its name: in the middle, on any machine.
      const wanted = victim.path(fresh[Math.floor(Math.random() * fresh.length)]!);
      while (!over && !existsSync(wanted)) await new Promise((go) => setImmediate(go));
      victim.client.kill('SIGKILL');
      await storing;
      await until('it is dead', () => victim.client.isGone);

      const [after, made] = [await watcher.get(old, BYTES), await watcher.get(fresh, BYTES)];
      for (const [i, one] of after.entries()) expect(versionOf(one, `${old[i]} after kill ${round}`)).toBeLessThanOrEqual(round);
      for (const [i, one] of made.entries()) {
        if (one.code !== 'NOT_FOUND') expect(versionOf(one, `${fresh[i]} after kill ${round}`)).toBe(round);
      }
      const there = made.map((one) => one.code === 'OK');
      expect(await watcher.has(fresh)).toEqual(there);
      written += there.filter(Boolean).length + after.filter((one) => versionOf(one, '') === round).length;
      leftovers = temporariesIn(root).length;
    }
    measured(`${engine}: ${rounds} kills, ${written} of ${rounds * both.length} blocks were written before; ${leftovers} temporaries are left`);
    expect(written).toBeGreaterThan(0);
    expect(written).toBeLessThan(rounds * both.length);
    // What the dead left is in nobody's way.
    for (const one of await watcher.put(both, BYTES, { replace: true, data: () => version(99) })) expect(one.code).toBe('OK');
    for (const one of await watcher.get(both, BYTES)) expect(versionOf(one, 'afterwards')).toBe(99);
    expect(namesIn(join(root, 'aside'))).toEqual([]);
  });
});
