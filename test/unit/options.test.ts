// What `kvlane serve` takes, what it makes of it, and what it says of the rest.
import { expect, test } from 'vitest';
import { parseCommandLine } from '../../sidecar/options.ts';

const parse = (...words: string[]) => parseCommandLine(words, () => '/home/me');
const served = (...words: string[]) => {
  const line = parse('serve', ...words);
  if (line.do !== 'serve') throw new Error(line.text);
  return line.options;
};
const refused = (...words: string[]) => {
  const line = parse('serve', ...words);
  if (line.do !== 'say') throw new Error('it was taken');
  expect(line.exitCode).toBe(2);
  expect(line.text.trimEnd()).not.toContain('\n'); // one sentence
  return line.text.trimEnd();
};

test('one mount is enough; all else has a default', () => {
  expect(served('--mount', 'kv0=/mnt/cache')).toEqual({
    mounts: [{ name: 'kv0', root: '/mnt/cache', create: false }],
    arena: { bytes: 64 * 1024 * 1024 },
    hugePages: 'auto',
    bounce: 'loads',
    slotBytes: 1024 * 1024,
    timeoutMs: 2000,
    stallMs: 1000,
    engine: 'threads',
    lanes: 8,
    stuckMax: 64,
    stuckProcessMax: 4096,
    fsync: false,
    fileMode: 0o600,
    recycle: 'auto',
    tidy: true,
    capacity: new Map(),
    collectorHaste: 1,
    indexMs: 0,
    holdBreakerClosed: false,
    unchecked: false,
    slotsMax: null,
    attach: { directory: null },
    startWaitMs: null,
  });
});

test('everything can be said', () => {
  const words = '--mount a=/a --mount b=b/../c --create --arena-fd 7 --huge-pages require --bounce all --slot-bytes 64KiB --timeout-ms 250 --stall-ms 100 --engine aio --lanes 2 --stuck-max 1000 --stuck-process-max 2000 --fsync --file-mode 0660 --recycle off --no-tidy --capacity-bytes 500GiB --capacity-share b=80 --test-collector-haste 100 --index-ms 5000 --attach-dir sockets --test-hold-breaker-closed --test-unchecked --test-slots 12 --test-start-wait-ms 5000';
  expect(served(...words.split(' '))).toEqual({
    mounts: [
      { name: 'a', root: '/a', create: true },
      { name: 'b', root: '/home/me/c', create: true },
    ],
    arena: { fd: 7 },
    hugePages: 'require',
    bounce: 'all',
    slotBytes: 65_536,
    timeoutMs: 250,
    stallMs: 100,
    engine: 'aio',
    lanes: 2,
    stuckMax: 1000,
    stuckProcessMax: 2000,
    fsync: true,
    fileMode: 0o660,
    recycle: 'off',
    tidy: false,
    capacity: new Map<string, object>([['a', { bytes: 500 * 1024 ** 3 }], ['b', { percent: 80 }]]),
    collectorHaste: 100,
    indexMs: 5000,
    holdBreakerClosed: true,
    unchecked: true,
    slotsMax: 12,
    attach: { directory: '/home/me/sockets' },
    startWaitMs: 5000,
  });
});

test('--no-attach is no socket, wherever it would lie', () => {
  expect(served('--mount', 'kv0=/x', '--no-attach').attach).toBeNull();
  expect(served('--mount', 'kv0=/x', '--no-attach', '--attach-dir', '/d').attach).toBeNull();
  expect(refused('--mount', 'kv0=/x', '--attach-dir', '')).toContain('A directory is wanted');
});

test.each([0, 100, 60_000])('--index-ms %i is taken', (ms) => {
  expect(served('--mount', 'a=/a', '--index-ms', String(ms)).indexMs).toBe(ms);
});

test.each([
  [['--capacity-bytes', '1MiB'], { a: { bytes: 1024 ** 2 }, b: { bytes: 1024 ** 2 } }],
  [['--capacity-bytes', 'a=8192TiB'], { a: { bytes: 2 ** 53 } }],
  [['--capacity-bytes', 'a=9007199254740992'], { a: { bytes: 2 ** 53 } }],
  [['--capacity-bytes', 'a=1048576', '--capacity-bytes', 'b=2GiB'], { a: { bytes: 1024 ** 2 }, b: { bytes: 2 * 1024 ** 3 } }],
  [['--capacity-share', '1'], { a: { percent: 1 }, b: { percent: 1 } }],
  [['--capacity-share', 'b=95%'], { b: { percent: 95 } }],
  [['--capacity-share', '50', '--capacity-bytes', 'b=1TiB'], { a: { percent: 50 }, b: { bytes: 1024 ** 4 } }],
] as const)('what each store may hold: %j', (words, capacity) => {
  expect(Object.fromEntries(served('--mount', 'a=/a', '--mount', 'b=/b', ...words).capacity)).toEqual(capacity);
});

test('paths are made absolute by text alone, also where the working directory is gone', () => {
  expect(served('--mount', 'kv0=//mnt/./x/../cache/').mounts[0]?.root).toBe('/mnt/cache');
  const gone = (): string => {
    throw new Error('ENOENT: uv_cwd');
  };
  expect(parseCommandLine(['serve', '--mount', 'kv0=/x'], gone)).toMatchObject({ do: 'serve' });
  expect(parseCommandLine(['serve', '--mount', 'kv0=x'], gone)).toMatchObject({ do: 'say', exitCode: 2, text: expect.stringContaining('give a path that starts with /') as string });
});

test.each([
  [[], '--mount is missing: name at least one store, for example --mount kv0=/mnt/cache'],
  [['--mount', '/mnt/cache'], 'Name and directory are wanted, for example kv0=/mnt/cache.'],
  [['--mount', '=x'], 'The name before = has 1 to 64'],
  [['--mount', 'kv0='], 'The directory after = is missing.'],
  [['--mount', 'a=/a', '--mount', 'a=/b'], 'The name a is taken by an earlier --mount.'],
  [['--mount', 'a=/a', '--capacity-bytes', '1048575'], 'A size from 1MiB to 8192TiB is wanted, for example 500GiB, or kv0=500GiB'],
  [['--mount', 'a=/a', '--capacity-bytes', '8193TiB'], 'A size from 1MiB to 8192TiB'],
  [['--mount', 'a=/a', '--capacity-bytes', '9007199254740993'], 'A size from 1MiB to 8192TiB'],
  [['--mount', 'a=/a', '--capacity-bytes', '80%'], 'A size from 1MiB to 8192TiB'],
  [['--mount', 'a=/a', '--capacity-share', '0'], 'A whole number of per cent from 1 to 95 is wanted, for example 80'],
  [['--mount', 'a=/a', '--capacity-share', '96'], 'A whole number of per cent from 1 to 95'],
  [['--mount', 'a=/a', '--capacity-share', '0.5'], 'A whole number of per cent from 1 to 95'],
  [['--mount', 'a=/a', '--capacity-share', 'b=80'], '--capacity-share names the mount "b"; there is a'],
  [['--mount', 'a=/a', '--capacity-bytes', 'a=1GiB', '--capacity-share', 'a=80'], 'the capacity of mount a is given twice'],
  [['--mount', 'a=/a', '--capacity-bytes', '1GiB', '--capacity-bytes', '2GiB'], 'the capacity of all mounts is given twice'],
  [['--mount', 'a=/a', '--slot-bytes', '5000'], 'A multiple of 4096 is wanted; the next one is 8192.'],
  [['--mount', 'a=/a', '--slot-bytes', '1MB'], 'for example 1048576 or 1MiB'],
  [['--mount', 'a=/a', '--arena-mib', '1', '--slot-bytes', '2MiB'], '--arena-mib 1 holds no slot of 2097152 bytes'],
  [['--mount', 'a=/a', '--arena-mib', '8', '--arena-fd', '5'], '--arena-fd and --arena-mib exclude each other'],
  [['--mount', 'a=/a', '--arena-fd', '2'], 'A whole number from 3'],
  [['--mount', 'a=/a', '--timeout-ms', '0'], 'A whole number from 1 to 3600000'],
  [['--mount', 'a=/a', '--timeout-ms', '1e3'], 'A whole number from 1 to 3600000'],
  [['--mount', 'a=/a', '--engine', 'uring'], 'Allowed choices are threads, aio.'],
  [['--mount', 'a=/a', '--file-mode', '0400'], 'The owner must be able to read and write'],
  [['--mount', 'a=/a', '--file-mode', '0755'], 'no execute bits'],
  ...['99', '60001', '1s'].map((word): [string[], string] => [['--mount', 'a=/a', '--index-ms', word], '0 is wanted, or milliseconds from 100 to 60000.']),
  [['--mount', 'a=/a', 'more'], "serve takes options only, got 'more'"],
  [['kv0=/mnt/a'], 'did you mean --mount kv0=/mnt/a?'],
  [['/mnt/a'], 'did you mean --mount kv0=/mnt/a?'],
])('serve %j is refused in one sentence', (words, sentence) => {
  const text = refused(...words);
  expect(text).toMatch(/^kvlane: /);
  expect(text).toContain(sentence);
});

test('a misspelt option names the near one', () => {
  const line = parse('serve', '--mount', 'a=/a', '--timeout', '5');
  expect(line).toMatchObject({ do: 'say', exitCode: 2, text: expect.stringContaining('--timeout-ms') as string });
});

test('help and version go to people with status 0, nothing at all with status 2', () => {
  const help = parse('serve', '--help');
  expect(help).toMatchObject({ do: 'say', exitCode: 0 });
  for (const word of ['--mount <NAME=DIR>', '--stuck-max <K>', 'By hand:', 'Exit status:', '"op":"stuck"']) {
    expect(help).toMatchObject({ text: expect.stringContaining(word) as string });
  }
  expect(parse('--version')).toEqual({ do: 'say', text: '0.1.0\n', exitCode: 0 });
  expect(parse('--help')).toMatchObject({ do: 'say', exitCode: 0, text: expect.stringContaining('kvlane serve --help') as string });
  expect(parse()).toMatchObject({ do: 'say', exitCode: 2 });
  expect(parse('sevre')).toMatchObject({ do: 'say', exitCode: 2, text: expect.stringContaining('serve') as string });
});
