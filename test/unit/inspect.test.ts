// kvlane inspect without a sidecar: what is typed, what a name is, what is shown of hostile ones, bounds of sorting, pace of a scrub.
import { describe, expect, test } from 'vitest';
import { parseWords } from '../../clients/cli/command_line.ts';
import { COMMANDS } from '../../clients/cli/commands.ts';
import { age, asked, KEYS_MAX, rate, type Asked } from '../../clients/cli/inspect/asked.ts';
import { df } from '../../clients/cli/inspect/df.ts';
import { explain, pathOf } from '../../clients/cli/inspect/explain.ts';
import { GENERATIONS_SHOWN_MAX } from '../../clients/cli/inspect/explain_namespace.ts';
import { found, isInTheWay, LEFTOVER } from '../../clients/cli/inspect/kinds.ts';
import { dated, ls } from '../../clients/cli/inspect/ls.ts';
import type { Out } from '../../clients/cli/inspect/out.ts';
import { SHUT_NAMED_MAX } from '../../clients/cli/inspect/open_names.ts';
import { Progress } from '../../clients/cli/inspect/progress.ts';
import { FAILED_NAMED_MAX, rm } from '../../clients/cli/inspect/rm.ts';
import { json, shown } from '../../clients/cli/inspect/shown.ts';
import { Sorted } from '../../clients/cli/inspect/sorted.ts';
import { Unanswered, type Store } from '../../clients/cli/inspect/store.ts';
import { BATCH_BLOCKS_MAX, restOf, verify } from '../../clients/cli/inspect/verify.ts';
import type { ListEntry, SweepState, VerifiedBlock } from '../../protocol/messages.ts';

const WRITER = '0123456789abcdef';
const HOUR_MS = 3_600_000;

function entry(name: string, more: Partial<ListEntry> = {}): ListEntry {
  return { name, type: 'file', bytes: 8192, allocated_bytes: 8192, modified_ms: 1_700_000_000_000, changed_ms: 1_700_000_000_000, inode: '7', changed_ns: '1700000000000000000', ...more };
}
const directory = (name: string): ListEntry => entry(name, { type: 'directory', bytes: 4096 });

/** A store of names alone. */
class Names implements Store {
  readonly directory = '/store';
  readonly mount = { name: 'kv0', root: '/store', device: '1:1', state: 'ok' as const, store_id: 'ab', fs_type: 'ext4' };
  readonly asked: string[] = [];
  readonly tree: Record<string, ListEntry[]>;
  findings: Record<string, VerifiedBlock[]> = {};
  swept: SweepState = 'removed';
  /** A directory that gives no answer. */
  mute = '';
  /** Directories that may not be looked into, after the names that they hold by then. */
  shut: string[] = [];
  unswept: string[] = [];
  /** Given up from this request on. */
  hangsAt = Infinity;
  constructor(tree: Record<string, ListEntry[]>) {
    this.tree = tree;
  }
  async *list(path: string): AsyncGenerator<ListEntry> {
    if (path === this.mute) throw new Unanswered(`listing ${path}: DEADLINE_EXCEEDED`, 'DEADLINE_EXCEEDED');
    for (const one of this.tree[path] ?? []) yield one;
    if (this.shut.includes(path)) throw new Unanswered(`listing ${path}: IO_ERROR: EACCES`, 'IO_ERROR');
  }
  verify(keys: readonly string[]): Promise<VerifiedBlock[]> {
    this.asked.push(`verify ${keys.length}`);
    if (this.asked.length >= this.hangsAt) throw new Unanswered('reading a/00: DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED');
    return Promise.resolve(keys.map((key) => this.findings[key]?.shift() ?? { finding: 'sound', stored_bytes: 4096 }));
  }
  present(keys: readonly string[]): Promise<boolean[]> {
    return Promise.resolve(keys.map((key) => !/\/00(?:ee|cc|0f)$/.test(key)));
  }
  remove(keys: readonly string[]) {
    this.asked.push(`remove ${keys.join(' ')}`);
    for (const key of keys) {
      const path = `blocks/${key.split('/')[0]}/${key.split('/')[1]!.slice(0, 2)}`;
      this.tree[path] = (this.tree[path] ?? []).filter((one) => one.name !== `${key.split('/')[1]}.kvb`);
    }
    return Promise.resolve({ done: keys.length, failed: [] });
  }
  sweep(path: string, { inode, changed_ns }: ListEntry): Promise<SweepState> {
    this.asked.push(`sweep ${path} ${inode} ${changed_ns}`);
    if (this.unswept.includes(path)) throw new Unanswered(`removing ${path}: IO_ERROR: EACCES`, 'IO_ERROR');
    if (this.swept === 'removed') this.tree[path.replace(/\/[^/]*$/, '')] = this.tree[path.replace(/\/[^/]*$/, '')]!.filter((one) => !path.endsWith(`/${one.name}`));
    return Promise.resolve(this.swept);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

function heard(): Out & { lines: string[]; notes: string[] } {
  const lines: string[] = [];
  const notes: string[] = [];
  return { lines, notes, line: (text) => Promise.resolve(void lines.push(text)), note: (text) => void notes.push(text), flush: () => Promise.resolve() };
}

function typed(...words: string[]): Asked {
  const parsed = parseWords(['inspect', ...words], COMMANDS);
  if (parsed.do !== 'run') throw new Error(parsed.text);
  return asked(parsed.given, '/here');
}
const as = <A extends Asked['action']>(action: A, ...words: string[]): Asked & { action: A } => typed(action, ...words) as Asked & { action: A };

describe('what is typed', () => {
  test('becomes what is to be done', () => {
    expect(typed('ls', '/s', 'llama@3/9f', '--long', '--sort', 'age')).toEqual({ action: 'ls', directory: '/s', timeoutMs: 10_000, json: false, namespace: 'llama@3', prefix: '9f', leftovers: false, long: true, sort: 'age' });
    expect(typed('df', 's', '--json')).toEqual({ action: 'df', directory: '/here/s', timeoutMs: 10_000, json: true });
    expect(typed('verify', '/s', 'a', 'b@2', '--rate', '50M', '--timeout-ms', '5')).toEqual({ action: 'verify', directory: '/s', timeoutMs: 5, json: false, namespaces: ['a', 'b@2'], rate: 50 * 1024 * 1024 });
    expect(typed('rm', '/s', 'a/00ff', 'a/00ff', 'b@1/ab', '--yes')).toMatchObject({ what: { keys: ['a/00ff', 'b@1/ab'] }, yes: true, dryRun: false });
    expect(typed('rm', '/s', '--leftovers')).toMatchObject({ what: { olderMs: HOUR_MS } });
    expect(typed('rm', '/s', '--leftovers', '--older-than', '7d', '--dry-run')).toMatchObject({ what: { olderMs: 7 * 24 * HOUR_MS }, dryRun: true });
  });

  test.each<[string[], RegExp]>([
    [[], /missing required argument 'ACTION'/],
    [['list', '/s'], /one of ls, df, explain, verify, rm; got 'list'/],
    [['/mnt/cache', 'ls'], /got '\/mnt\/cache': kvlane inspect ls \/mnt\/cache\?/],
    [['df', '/s', 'a'], /df does not know what to do with 'a'/],
    [['df', '/s', '--rate', '5M'], /--rate says nothing to df: df takes --timeout-ms, --json/],
    [['ls', '/s', '-x'], /unknown option '-x'/],
    [['ls', '/s', '../etc'], /'\.\.' is no namespace: a namespace begins with a letter or a digit/],
    [['ls', '/s', 'a/ZZ'], /comes the beginning of a hash, of 0-9 a-f/],
    [['ls', '/s', 'a/b/c'], /comes the beginning of a hash/],
    [['ls', '/s', '--sort', 'size'], /kvlane inspect df DIR/],
    [['ls', '/s', '--sort', 'colour'], /Allowed choices are age, size, name/],
    [['explain', '/s'], /which key, namespace or file\?/],
    [['rm', '/s'], /what is to go\?/],
    [['rm', '/s', 'a/00', '--leftovers'], /three ways to say what goes/],
    [['rm', '/s', 'a'], /'a' is no key: NAMESPACE\/HASH is wanted/],
    [['rm', '/s', 'a/00', '--older-than', '1h', '--yes'], /--older-than goes with --leftovers/],
    [['rm', '/s', '--leftovers', '--older-than', 'soon'], /A time is wanted: 90s, 30min, 1h or 7d/],
    [['verify', '/s', '--rate', 'fast'], /Bytes a second are wanted/],
    [['rm', '/s', '--json', 'a/00'], /--json says nothing to rm/],
  ])('%j is refused in words', (words, says) => {
    expect(() => typed(...words)).toThrow(says);
  });

  test('limits hold at their value and refuse one past it', () => {
    const keys = (count: number): string[] => Array.from({ length: count }, (_, i) => `a/${(i + 65536).toString(16)}`);
    expect(typed('rm', '/s', ...keys(KEYS_MAX))).toMatchObject({ what: { keys: { length: KEYS_MAX } } });
    expect(() => typed('rm', '/s', ...keys(KEYS_MAX + 1))).toThrow('4097 keys, the limit is 4096');
    expect([rate('4096'), rate('4K'), rate('1MiB/s'), rate('1g')]).toEqual([4096, 4096, 2 ** 20, 2 ** 30]);
    expect(() => rate('4095')).toThrow('from 4K');
    expect([age('0s'), age('90s'), age('30min'), age('2m')]).toEqual([0, 90_000, 1_800_000, 120_000]);
  });
});

describe('what a name is', () => {
  test.each([
    ['blocks/demo/00', '00ff.kvb', 'block', 'demo/00ff'],
    ['blocks/demo/00', `00ff.${WRITER}-3.tmp`, 'temporary', 'demo/00ff'],
    ['recycle/0123456789abcdef', '17', 'recycled', undefined],
    ['aside', `a.b@2.00ff.99.${WRITER}-1`, 'aside', 'a.b@2/00ff'],
    ['namespaces', 'demo.json', 'record', undefined],
    ['namespaces', 'demo@3.json', 'record', undefined],
    ['blocks/demo/00', '01ff.kvb', 'foreign', undefined],
    ['blocks/demo/00', '00FF.kvb', 'foreign', undefined],
    ['blocks/demo/00', '00ff.kvb\n', 'foreign', undefined],
    ['blocks/demo/00', '00ff.tmp', 'foreign', undefined],
    ['blocks/demo/00', `00ff.${WRITER}-3.tmp~`, 'foreign', undefined],
    ['recycle', 'x', 'foreign', undefined],
    ['recycle/0123456789abcdef', '17.bak', 'foreign', undefined],
    ['aside', 'notes.txt', 'foreign', undefined],
    ['namespaces', '.hidden.json', 'foreign', undefined],
    ['collector', '8', 'lease', undefined],
    ['collector', '999999999999999', 'lease', undefined],
    ['collector', '1000000000000000', 'foreign', undefined], // native takes 15 digits
    ['collector', `1000000000000000.${WRITER}-3.tmp`, 'foreign', undefined],
    ['collector', 'want', 'sign', undefined],
    ['collector', 'made', 'sign', undefined],
    ['collector', 'wanted', 'foreign', undefined],
    ['probe', 'block', 'probe', undefined],
    ['probe', `block.${WRITER}-3.tmp`, 'probe', undefined],
    ['probe/0', WRITER, 'probe', undefined],
    ['probe/0', `probe.${WRITER}-3.tmp`, 'probe', undefined],
    ['probe', '0', 'foreign', undefined],
    ['probe/0', '1', 'foreign', undefined],
    ['collector', `8.${WRITER}-3.tmp`, 'draft', undefined],
    ['namespaces', `demo@3.json.${WRITER}-3.tmp`, 'draft', undefined],
    ['collector', '08', 'foreign', undefined],
    ['collector', '8.tmp', 'foreign', undefined],
    ['namespaces', 'demo.json.tmp', 'foreign', undefined],
  ] as const)('%s/%s: %s', (where, name, kind, key) => {
    expect(found(where, entry(name))).toMatchObject({ kind, path: `${where}/${name}` });
    expect(found(where, entry(name)).key).toBe(key);
  });

  test('only a plain file is a block or a leftover; a link, pipe or directory in the place of a block is in the way', () => {
    for (const type of ['link', 'other', 'directory', 'escaped'] as const) {
      for (const [where, name] of [['blocks/demo/00', '00ff.kvb'], ['blocks/demo/00', `00ff.${WRITER}-3.tmp`], ['aside', `a.00ff.9.${WRITER}-1`], ['recycle/0123456789abcdef', '1']] as const) {
        const one = found(where, entry(name, { type }));
        expect(one.kind, `${type} ${name}`).toBe('foreign');
        expect(LEFTOVER.has(one.kind)).toBe(false);
        expect(isInTheWay(one)).toBe(name.endsWith('.kvb'));
      }
    }
    expect(isInTheWay(found('blocks/demo/00', entry('00ff.kvb')))).toBe(false);
  });

  test('a key or a file is found below the root, and nowhere else', () => {
    expect(pathOf('demo@2/00ff', '/s', '/here')).toBe('blocks/demo@2/00/00ff.kvb');
    expect(pathOf('aside/x', '/s', '/here')).toBe('aside/x');
    expect(pathOf('/s/blocks/demo/00/x', '/s/', '/here')).toBe('blocks/demo/00/x');
    expect(pathOf('s/kvlane.json', '/here/s', '/here')).toBe('kvlane.json');
    expect(pathOf('/x', '/', '/here')).toBe('x');
    for (const outside of ['/s', '/s2/x', '/etc/passwd', '../x', '']) expect(() => pathOf(outside, '/s', '/here'), outside).toThrow(/no key \(NAMESPACE\/HASH\), no namespace, and no file below \/s/);
    expect([pathOf('demo@2', '/s', '/here'), pathOf('demo', '/s', '/s'), pathOf('00ff.kvb', '/s', '/s/blocks/demo/00')]).toEqual(['blocks/demo@2', 'blocks/demo', 'blocks/demo/00/00ff.kvb']);
  });
});

describe('names on a terminal', () => {
  test('what a terminal would obey is made visible, on one line, and no two names look alike', () => {
    const wild = 'a\x1b[2J\n\t\r\x07\x7f\x9bK\u202eb\\x1b';
    expect(shown(wild)).toBe('a\\x1b[2J\\x0a\\x09\\x0d\\x07\\x7f\\x9bK\\u202eb\\\\x1b');
    expect(shown('schön 漢字 00ff.kvb')).toBe('schön 漢字 00ff.kvb');
    expect(shown('\\n')).not.toBe(shown('\n'));
    expect(json({ name: wild })).toMatch(/^[\x20-\x7e]+$/);
    expect(JSON.parse(json({ name: wild }))).toEqual({ name: wild });
  });

  test('a date that is none does not end the listing', () => {
    expect(dated(1_700_000_000_123)).toBe('2023-11-14T22:13:20Z');
    for (const far of [9e15, -9e15, 253_402_300_800_000, NaN]) expect(dated(far)).toMatch(/^\? +$/);
  });
});

describe('ls', () => {
  const tree = () => ({
    blocks: [directory('demo'), directory('other@2'), directory('.evil\x1b[2J'), entry('file')],
    'blocks/demo': [directory('0f'), directory('00'), entry('zz')],
    'blocks/demo/00': [entry('00ff.kvb', { bytes: 5, modified_ms: 2000 }), entry('00aa.kvb', { bytes: 9, modified_ms: 1000 }), entry('00bb.kvb', { type: 'link' }), entry('\x1b]0;x\x07')],
    'blocks/demo/0f': [entry('0f01.kvb', { bytes: 7, modified_ms: 3000 })],
    aside: [entry(`demo.00cc.9.${WRITER}-1`)],
  });

  test('without a namespace: the namespaces; what is none is counted', async () => {
    const out = heard();
    expect(await ls(new Names(tree()), as('ls', '/store'), out)).toBe(0);
    expect(out.lines).toEqual(['demo', 'other@2']);
    expect(out.notes).toEqual(['2 names beside them are no namespace; --long shows them']);
  });

  test('keys one a line, of all or of a prefix; sorted where asked', async () => {
    const lines = async (...words: string[]): Promise<string[]> => {
      const out = heard();
      expect(await ls(new Names(tree()), as('ls', '/store', ...words), out)).toBe(0);
      return out.lines;
    };
    expect(await lines('demo')).toEqual(['demo/00ff', 'demo/00aa', 'demo/0f01']);
    expect(await lines('demo/0')).toEqual(['demo/00ff', 'demo/00aa', 'demo/0f01']);
    expect(await lines('demo/00a')).toEqual(['demo/00aa']);
    expect(await lines('demo', '--sort', 'size')).toEqual(['demo/00aa', 'demo/0f01', 'demo/00ff']);
    expect(await lines('demo', '--sort', 'age')).toEqual(['demo/0f01', 'demo/00ff', 'demo/00aa']);
    expect(await lines('demo', '--sort', 'name')).toEqual(['demo/00aa', 'demo/00ff', 'demo/0f01']);
    expect(await lines('--leftovers')).toEqual([`aside/demo.00cc.9.${WRITER}-1`]);
    expect(await lines('demo/00f', '--long')).toEqual(['   5 bytes  1970-01-01T00:00:02Z  block      demo/00ff']);
    expect((await lines('demo', '--long')).join('')).toContain('foreign    blocks/demo/00/\\x1b]0;x\\x07');
    expect(JSON.parse((await lines('demo/00a', '--json'))[0]!)).toMatchObject({ kind: 'block', key: 'demo/00aa', bytes: 9 });
  });

  test('a namespace that is not there is said, with status 1', async () => {
    const out = heard();
    expect(await ls(new Names(tree()), as('ls', '/store', 'nobody'), out)).toBe(1);
    expect(out.notes).toEqual(['there is no block of nobody in /store']);
  });

  test('sorting keeps so many and says how many are left out; what it keeps is the first in the order', async () => {
    const many = Array.from({ length: 70_000 }, (_, i) => entry(`00${(i * 7919) % 70_000}.kvb`.replace(/\.kvb$/, 'a.kvb'), { bytes: (i * 7919) % 70_000 }));
    const out = heard();
    await ls(new Names({ 'blocks/demo': [directory('00')], 'blocks/demo/00': many }), as('ls', '/store', 'demo', '--sort', 'size'), out, 3);
    expect(out.lines).toEqual(['demo/0069999a', 'demo/0069998a', 'demo/0069997a']);
    expect(out.notes).toEqual(['69997 names left out: sorting keeps the first 3 in the order that was asked for; without --sort all are listed']);
    const at = new Sorted('name', 3);
    for (const name of ['c', 'a', 'b']) at.add(found('aside', entry(name)));
    const kept = (sorted: Sorted): string[] => [...sorted.rows()].map((one) => one.path);
    expect([kept(at), at.leftOut]).toEqual([['aside/a', 'aside/b', 'aside/c'], 0]);
    at.add(found('aside', entry('d')));
    expect([kept(at), at.leftOut]).toEqual([['aside/a', 'aside/b', 'aside/c'], 1]);
    const all = new Sorted('age');
    const odd = found('blocks/demo/00', entry('00ff.kvb', { type: 'link', bytes: 2 ** 53 - 1, inode: '18446744073709551615', modified_ms: -1 }));
    all.add(odd);
    expect([...all.rows()]).toEqual([{ ...odd, entry: { ...odd.entry, changed_ns: '' } }]);
  });
});

describe('df', () => {
  const store = () =>
    new Names({
      blocks: [directory('a'), directory('b'), directory('c')],
      'blocks/a': [directory('00')],
      'blocks/a/00': [entry('00ff.kvb', { bytes: 1024 }), entry(`00ff.${WRITER}-1.tmp`, { bytes: 1024 })],
      'blocks/b': [directory('00')],
      'blocks/b/00': [entry('00ff.kvb', { bytes: 2048, allocated_bytes: 40_960 }), entry('00aa.kvb', { type: 'link', bytes: 10 })],
      'blocks/c': [directory('00')],
      'blocks/c/00': [entry('00ff.kvb', { bytes: 1024 })],
      recycle: [directory(WRITER), directory('foreign')],
      [`recycle/${WRITER}`]: [entry('1', { bytes: 4096 })],
      aside: [entry(`a.00cc.9.${WRITER}-1`, { bytes: 4096 })],
    });

  test('adds up by namespace, the largest first, and what was left behind', async () => {
    const out = heard();
    expect(await df(store(), as('df', '/store'), out)).toBe(0);
    expect(out.lines.map((line) => line.trim().replace(/ {2,}/g, ' | '))).toEqual([
      'FILES | BYTES | ON DISK',
      '1 | 2 KiB | 40 KiB | b',
      '1 | 1 KiB | 8 KiB | a',
      '1 | 1 KiB | 8 KiB | c',
      '1 | 1 KiB | 8 KiB | temporaries of stores that ended, or are under way',
      '1 | 4 KiB | 8 KiB | waiting to be overwritten',
      '1 | 4 KiB | 8 KiB | damaged, set aside',
      '2 | 0 bytes | 0 bytes | not made by kvlane',
      '8 | 13 KiB | 80 KiB | in all, on ext4 at /store',
    ]);
  });

  test('where the mount stops answering, what was seen by then is told, and that it is not all', async () => {
    for (const words of [[], ['--json']]) {
      const names = store();
      names.mute = 'blocks/b/00';
      const out = heard();
      await expect(df(names, as('df', '/store', ...words), out)).rejects.toMatchObject({ message: 'listing blocks/b/00: DEADLINE_EXCEEDED', exitCode: 3 });
      if (words.length > 0) expect(JSON.parse(out.lines[0]!)).toMatchObject({ complete: false, namespaces: { a: { files: 1 } }, total: { files: 2 } });
      else expect(out.lines.at(-1)).toMatch(/as far as was looked, on ext4/);
    }
  });

  test('a directory that cannot be looked into is told, the rest is added up, and it is status 3', async () => {
    for (const words of [[], ['--json']]) {
      const names = store();
      names.shut = ['blocks/b', `recycle/${WRITER}`];
      names.tree['blocks/b'] = [];
      const out = heard();
      expect(await df(names, as('df', '/store', ...words), out)).toBe(3);
      expect(out.notes).toEqual(names.shut.map((path) => `listing ${path}: IO_ERROR: EACCES: passed over`));
      if (words.length > 0) expect(JSON.parse(out.lines[0]!)).toMatchObject({ complete: false, shut: 2, namespaces: { a: { files: 1 }, c: { files: 1 } } });
      else expect(out.lines.at(-1)).toMatch(/^ +6 .*as far as was looked, without 2 directories, on ext4/);
    }
  });

  test('so many that cannot be looked into are named, of the others the first, and all are counted', async () => {
    for (const past of [0, 2]) {
      const hexes = Array.from({ length: SHUT_NAMED_MAX + past }, (_, i) => i.toString(16).padStart(2, '0'));
      const names = new Names({ blocks: [directory('a')], 'blocks/a': hexes.map(directory) });
      names.shut = hexes.map((hex) => `blocks/a/${hex}`);
      const out = heard();
      expect(await df(names, as('df', '/store', '--json'), out)).toBe(3);
      expect(JSON.parse(out.lines[0]!)).toMatchObject({ shut: SHUT_NAMED_MAX + past });
      expect(out.notes.slice(SHUT_NAMED_MAX)).toEqual(past === 0 ? [] : ['blocks/a/64 and perhaps more cannot be looked into either: the first 100 were named']);
    }
  });

  test('records, leases, signs, probes and what they are made of are kvlane\'s, and counted', async () => {
    const names = new Names({ namespaces: [entry('a.json'), entry('a@1.json'), entry(`a.json.${WRITER}-1.tmp`)], collector: [entry('8'), entry('want'), entry(`9.${WRITER}-1.tmp`), entry('notes')], probe: [entry('block'), entry('0', { type: 'directory' })], 'probe/0': [entry(`probe.${WRITER}-1.tmp`)] });
    const out = heard();
    expect(await df(names, as('df', '/store', '--json'), out)).toBe(0);
    expect(JSON.parse(out.lines[0]!)).toMatchObject({ record: { files: 2 }, lease: { files: 1 }, sign: { files: 1 }, draft: { files: 2 }, probe: { files: 2 }, foreign: { files: 1 }, total: { files: 9 } });
  });

  test('more namespaces than it keeps are one row', async () => {
    const out = heard();
    await df(store(), as('df', '/store', '--json'), out, 2);
    expect(JSON.parse(out.lines[0]!)).toMatchObject({ store_id: 'ab', namespaces: { a: { files: 1 }, b: { files: 1 } }, other_namespaces: { namespaces: 1, files: 1 }, temporary: { files: 1 }, total: { files: 8 } });
  });
});

describe('verify', () => {
  const silent = (): Progress => new Progress(() => {}, null, 0);
  const blocks = (count: number, more: Partial<ListEntry> = {}) => ({
    blocks: [directory('a')],
    'blocks/a': [directory('00')],
    'blocks/a/00': Array.from({ length: count }, (_, i) => entry(`00${i.toString(16).padStart(4, '0')}.kvb`, more)),
  });

  test('all sound is status 0; so many are read at a time', async () => {
    const store = new Names(blocks(BATCH_BLOCKS_MAX + 1));
    const out = heard();
    expect(await verify(store, as('verify', '/store'), out, silent())).toBe(0);
    expect(store.asked).toEqual([`verify ${BATCH_BLOCKS_MAX}`, 'verify 1']);
    expect(out.lines).toEqual([expect.stringMatching(/^65 blocks sound, 0 damaged, 520 KiB in /)]);
  });

  test('damage is status 1, and told with what it is; a block that went meanwhile and a newer one are none', async () => {
    const store = new Names(blocks(4));
    store.tree['blocks/a/00']!.push(entry('00ffff.kvb', { type: 'other' }), entry('\x1b[2J'));
    store.findings = { 'a/000000': [{ finding: 'corrupt', message: 'the payload does not fit its checksum' }], 'a/000001': [{ finding: 'not_found' }], 'a/000002': [{ finding: 'newer_format' }] };
    const out = heard();
    expect(await verify(store, as('verify', '/store'), out, silent())).toBe(1);
    expect(out.lines).toEqual([
      'no file       a/00ffff  a device, pipe or socket stands in the place of the block',
      'corrupt       a/000000  the payload does not fit its checksum',
      'newer format  a/000002  a later version of kvlane stored it',
      expect.stringMatching(/^1 block sound, 2 damaged, 1 of a newer format, 1 gone meanwhile, 1 name not made by kvlane, /),
    ]);
  });

  test('what was not read is asked for once more, and then it is status 3', async () => {
    const store = new Names(blocks(3));
    store.findings = { 'a/000000': [{ finding: 'unknown', code: 'MOUNT_SUSPENDED' }], 'a/000001': [{ finding: 'unknown', code: 'IO_ERROR', errno: 'EIO' }, { finding: 'unknown', code: 'IO_ERROR', errno: 'EIO' }] };
    const out = heard();
    expect(await verify(store, as('verify', '/store', '--json'), out, silent())).toBe(3);
    expect(store.asked).toEqual(['verify 3', 'verify 2']);
    expect(out.lines.map((line) => JSON.parse(line) as object)).toEqual([
      { key: 'a/000001', path: 'blocks/a/00/000001.kvb', finding: 'not_read', message: 'IO_ERROR: EIO' },
      { summary: expect.objectContaining({ sound: 2, unseen: 1, complete: false }) as object },
    ]);
  });

  test('a mount that stops answering ends it with what is known by then', async () => {
    const store = new Names(blocks(3 * BATCH_BLOCKS_MAX));
    store.hangsAt = 2;
    const out = heard();
    expect(await verify(store, as('verify', '/store'), out, silent())).toBe(3);
    expect(out.lines.at(-1)).toMatch(/^64 blocks sound, 0 damaged, 64 not read, .*, given up before the end$/);
    expect(out.notes).toEqual(['reading a/00: DEADLINE_EXCEEDED']);
  });

  test('a namespace that is not there is refused before anything is read', async () => {
    const store = new Names(blocks(1));
    const out = heard();
    await expect(verify(store, as('verify', '/store', 'a', 'b', 'c'), out, silent())).rejects.toThrow('there is no namespace b, c in /store; nothing was verified');
    expect([store.asked, out.lines]).toEqual([[], []]);
  });

  test('a namespace that is named twice is verified once', async () => {
    const out = heard();
    expect(await verify(new Names(blocks(2)), as('verify', '/store', 'a', 'a'), out, silent())).toBe(0);
    expect(out.lines).toEqual([expect.stringMatching(/^2 blocks sound/)]);
  });

  test('a directory that cannot be looked into is told, the others are verified, and it is status 3', async () => {
    const store = new Names(blocks(2));
    store.tree['blocks/a']!.unshift(directory('ff'));
    store.shut = ['blocks/a/ff'];
    const out = heard();
    expect(await verify(store, as('verify', '/store'), out, silent())).toBe(3);
    expect(out.lines).toEqual([expect.stringMatching(/^2 blocks sound, 0 damaged, 1 directory not looked into, /)]);
    expect(out.notes).toEqual(['listing blocks/a/ff: IO_ERROR: EACCES: passed over']);
  });

  test('as many namespaces as one scrub takes are verified; one more is said to be left out, with status 3', async () => {
    const store = new Names({ ...blocks(1), blocks: [directory('a'), directory('b')] });
    const all = heard();
    expect(await verify(store, as('verify', '/store'), all, silent(), undefined, 2)).toBe(0);
    expect(all.notes).toEqual([]);
    const out = heard();
    expect(await verify(store, as('verify', '/store'), out, silent(), undefined, 1)).toBe(3);
    expect(out.notes).toEqual(['1 namespace not verified: one scrub takes 1; the others by name']);
  });

  test('the rate is kept on average, from one request to the next', async () => {
    let nowMs = 0;
    const rests: number[] = [];
    const watch = { nowMs: () => nowMs, rest: (ms: number) => Promise.resolve(((nowMs += ms), rests.push(ms))) };
    await verify(new Names(blocks(10, { bytes: 1024 * 1024, allocated_bytes: 1024 * 1024 })), as('verify', '/store', '--rate', '4M'), heard(), silent(), watch);
    expect(nowMs).toBe(2_500);
    expect(rests.every((ms) => ms <= 500), 'two requests a second at least').toBe(true);
    expect([restOf(0, 1e9, 0), restOf(1000, 500, 100), restOf(1000, 500, 600)]).toEqual([0, 400, 0]);
  });

  test('a huge file of holes takes no longer for it', async () => {
    let nowMs = 0;
    const watch = { nowMs: () => nowMs, rest: (ms: number) => Promise.resolve((nowMs += ms)) };
    const store = new Names(blocks(1, { bytes: 2 ** 50, allocated_bytes: 0 }));
    store.findings = { 'a/000000': [{ finding: 'corrupt', message: 'its length is not what its header says' }] };
    expect(await verify(store, as('verify', '/store', '--rate', '1M'), heard(), silent(), watch)).toBe(1);
    expect(nowMs).toBeLessThan(10);
  });
});

describe('explain a namespace', () => {
  const store = () =>
    new Names({
      blocks: [directory('demo'), directory('demo@2'), directory('other')],
      'blocks/demo': [directory('00')],
      'blocks/demo/00': [entry('00ff.kvb'), entry('00aa.kvb'), entry(`00bb.${WRITER}-1.tmp`)],
      namespaces: [entry('demo.json'), entry('demo@1.json'), entry('demo@2.json'), entry('other@7.json')],
    });
  const told = async (names: Names, target: string): Promise<[number, string]> => {
    const out = heard();
    return [await explain(names, as('explain', '/store', target), out, '/here', 0), out.lines.map((line) => line.trim().replace(/ {2,}/g, ' | ')).join('\n')];
  };

  test('it says what is recorded, taken and held, what is beside it, and how it goes', async () => {
    for (const target of ['demo', 'blocks/demo', '/store/blocks/demo/']) {
      expect(await told(store(), target)).toEqual([
        0,
        [
          'demo',
          'what | a namespace',
          'record | namespaces/demo.json: what the current generation holds',
          'taken | generation 1-2',
          'holds | 2 blocks, 16 KiB, 16 KiB on the disk, and 1 name that is no block',
          'beside it | demo@2',
          'so | its blocks go by: kvlane inspect rm DIR --namespace demo; its record stays, so that no generation is given out twice',
        ].join('\n'),
      ]);
    }
  });

  test('so many generations are told, of more how many', async () => {
    for (const [generations, end] of [[GENERATIONS_SHOWN_MAX, '199'], [GENERATIONS_SHOWN_MAX + 1, '199 and 1 more']] as const) {
      const names = new Names({ namespaces: Array.from({ length: generations }, (_, i) => entry(`demo@${2 * i + 1}.json`)) });
      expect((await told(names, 'demo'))[1]).toMatch(new RegExp(`taken \\| generation 1, 3, .*, ${end}$`, 'm'));
    }
  });

  test('with a generation, without a record, empty, and not there', async () => {
    expect(await told(store(), 'demo@2')).toEqual([0, expect.stringMatching(/what \| generation 2 of the namespace demo\n[^]*holds \| 0 blocks[^]*beside it \| demo\nso \| nothing is in it/)]);
    expect(await told(store(), 'other')).toEqual([0, expect.stringMatching(/record \| none: nobody asked for other by its fingerprint\ntaken \| generation 7/)]);
    expect(await told(store(), 'demo@3')).toEqual([1, expect.stringMatching(/what \| no such namespace\n/)]);
    expect(await told(store(), 'nobody')).toEqual([1, expect.stringMatching(/so \| nothing was stored in it/)]);
    const out = heard();
    await explain(store(), as('explain', '/store', 'demo', '--json'), out, '/here', 0);
    expect(JSON.parse(out.lines[0]!)).toMatchObject({ path: 'blocks/demo', kind: 'namespace', there: true, recorded: true, taken: [1, 2], blocks: 2, bytes: 16384, others: 1, others_of_name: ['demo@2'], complete: true });
  });
});

describe('progress', () => {
  const at = { share: 0.5, blocks: 12, bytes: 3 * 1024 * 1024, damaged: 1 };

  test('on a terminal a bar is painted over, no wider than it, not more than five times a second, and cleared', () => {
    let written = '';
    const progress = new Progress((text) => (written += text), 60, 0);
    progress.tell(at, 1000);
    expect(written).toBe('\r\x1b[K[############------------]  50 %  12 blocks, 3 MiB, 3 MiB/s');
    expect(written.length - '\r\x1b[K'.length).toBe(59);
    progress.tell(at, 1199);
    progress.clear();
    progress.clear();
    expect(written.split('\r\x1b[K')).toHaveLength(3);
  });

  test('elsewhere it is a plain line now and then', () => {
    let written = '';
    const progress = new Progress((text) => (written += text), null, 0);
    for (let ms = 0; ms <= 20_000; ms += 1000) progress.tell(at, ms);
    progress.clear();
    expect(written).toBe('kvlane inspect:  50 %  12 blocks, 3 MiB, 307.2 KiB/s, 1 damaged, about 10 s left\nkvlane inspect:  50 %  12 blocks, 3 MiB, 153.6 KiB/s, 1 damaged, about 20 s left\n');
  });
});

describe('rm', () => {
  const NOW_MS = 1_700_000_000_000;
  const nobody = { ask: null, nowMs: () => NOW_MS };
  const says = (word: boolean) => {
    const questions: string[] = [];
    return { questions, ask: (question: string) => Promise.resolve((questions.push(question), word)), nowMs: () => NOW_MS };
  };
  const store = () =>
    new Names({
      blocks: [directory('a')],
      'blocks/a': [directory('00')],
      'blocks/a/00': [entry('00aa.kvb'), entry('00bb.kvb'), entry('00cc.kvb', { type: 'link' }), entry(`00dd.${WRITER}-1.tmp`, { changed_ms: NOW_MS - HOUR_MS, inode: '42', changed_ns: '99' }), entry('editor.tmp')],
      recycle: [directory(WRITER)],
      [`recycle/${WRITER}`]: [entry('1', { changed_ms: NOW_MS - HOUR_MS + 1 })],
      aside: [entry(`a.00cc.9.${WRITER}-1`, { changed_ms: NOW_MS + 60_000 })],
    });

  test('one key goes without a question, more only after one', async () => {
    const one = store();
    expect(await rm(one, as('rm', '/store', 'a/00aa'), heard(), nobody)).toBe(0);
    expect(one.asked).toEqual(['remove a/00aa']);
    const no = says(false);
    const two = store();
    const out = heard();
    expect(await rm(two, as('rm', '/store', 'a/00aa', 'a/00bb'), out, no)).toBe(0);
    expect([no.questions, two.asked, out.notes]).toEqual([['Remove 2 blocks of /store?'], [], ['nothing was removed']]);
    expect(await rm(two, as('rm', '/store', 'a/00aa', 'a/00bb'), heard(), says(true))).toBe(0);
    expect(two.asked).toEqual(['remove a/00aa a/00bb']);
  });

  test('where nobody can be asked, more than one needs --yes', async () => {
    for (const words of [['a/00aa', 'a/00bb'], ['--namespace', 'a'], ['--leftovers']]) {
      const names = store();
      await expect(rm(names, as('rm', '/store', ...words), heard(), nobody)).rejects.toThrow(/Nobody can be asked here: say --yes/);
      expect(names.asked).toEqual([]);
      expect(await rm(names, as('rm', '/store', ...words, '--yes'), heard(), nobody)).toBeLessThanOrEqual(1);
      expect(names.asked.length).toBeGreaterThan(0);
    }
  });

  test('--dry-run removes nothing, whatever else is said', async () => {
    for (const words of [['a/00aa', 'a/00ee'], ['--namespace', 'a'], ['--leftovers']]) {
      const names = store();
      const out = heard();
      await rm(names, as('rm', '/store', ...words, '--dry-run', '--yes'), out, nobody);
      expect(names.asked).toEqual([]);
      expect(out.lines.every((line) => line.startsWith('would remove ')) && out.lines.length > 0).toBe(true);
    }
  });

  test('a namespace loses its blocks, and neither links nor what is foreign', async () => {
    const names = store();
    const out = heard();
    expect(await rm(names, as('rm', '/store', '--namespace', 'a', '--yes'), out, nobody)).toBe(0);
    expect(names.asked).toEqual(['remove a/00aa a/00bb']);
    expect(out.lines).toEqual(['removed 2 blocks of a; its record stays, so that no generation is given out twice']);
  });

  test('a leftover goes when it is old enough to the millisecond, with the inode and time that were listed; what is dated in the future stays and is said', async () => {
    const names = store();
    const out = heard();
    expect(await rm(names, as('rm', '/store', '--leftovers', '--yes'), out, nobody)).toBe(1);
    expect(names.asked).toEqual([`sweep blocks/a/00/00dd.${WRITER}-1.tmp 42 99`]);
    expect(out.lines).toEqual(['removed 1 file']);
    expect(out.notes).toEqual([
      `aside/a.00cc.9.${WRITER}-1 is dated 60 s in the future by this machine's clock: left alone`,
      '1 file dated in the future: are the clocks of this machine and of the file system alike?',
      '1 file changed within the last 1 h: left alone',
    ]);
  });

  test('where the mount stops answering, what has gone by then is told', async () => {
    const names = store();
    names.sweep = () => Promise.reject(new Unanswered('removing: DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED'));
    names.remove = () => Promise.reject(new Unanswered('removing: DEADLINE_EXCEEDED', 'DEADLINE_EXCEEDED'));
    for (const [words, says] of [[['--leftovers'], 'removed 0 files'], [['--namespace', 'a'], 'removed 0 blocks of a']] as const) {
      const out = heard();
      await expect(rm(names, as('rm', '/store', ...words, '--yes'), out, nobody)).rejects.toMatchObject({ exitCode: 3 });
      expect(out.lines.at(-1)).toContain(says);
    }
  });

  test('a leftover that cannot be removed is told, the others go, and it is status 1', async () => {
    const names = store();
    names.unswept = [`recycle/${WRITER}/1`];
    const out = heard();
    expect(await rm(names, as('rm', '/store', '--leftovers', '--older-than', '0s', '--yes'), out, { ...nobody, nowMs: () => NOW_MS + HOUR_MS })).toBe(1);
    expect(out.lines).toEqual(['removed 2 files']);
    expect(out.notes).toEqual([`removing recycle/${WRITER}/1: IO_ERROR: EACCES`, '1 file could not be removed']);
  });

  test('so many that cannot be removed are named, all are counted', async () => {
    for (const past of [0, 1]) {
      const names = new Names({ recycle: [directory(WRITER)], [`recycle/${WRITER}`]: Array.from({ length: FAILED_NAMED_MAX + past }, (_, i) => entry(String(i), { changed_ms: 0 })) });
      names.unswept = Array.from({ length: FAILED_NAMED_MAX + past }, (_, i) => `recycle/${WRITER}/${i}`);
      const out = heard();
      expect(await rm(names, as('rm', '/store', '--leftovers', '--yes'), out, nobody)).toBe(1);
      expect(out.notes.slice(FAILED_NAMED_MAX)).toEqual([`${FAILED_NAMED_MAX + past} files could not be removed`]);
      expect(out.lines).toEqual(['removed 0 files']);
    }
  });

  test('leftovers that a listing passed over while others went are removed by the next', async () => {
    const names = store();
    const list = names.list.bind(names);
    let looks = 0;
    names.list = async function* (path: string) {
      if (path === `recycle/${WRITER}`) looks += 1;
      for await (const one of list(path)) if (looks !== 2 || one.name !== '2') yield one;
    };
    names.tree[`recycle/${WRITER}`] = ['1', '2', '3'].map((name) => entry(name, { changed_ms: 0 }));
    names.tree['blocks/a/00'] = [];
    names.tree['aside'] = [];
    const out = heard();
    expect(await rm(names, as('rm', '/store', '--leftovers', '--yes'), out, nobody)).toBe(0);
    expect([out.lines, names.tree[`recycle/${WRITER}`]]).toEqual([['removed 3 files'], []]);
  });

  test('a directory that cannot be looked into is told once, what is elsewhere goes, and it is status 3', async () => {
    for (const [words, line] of [[['--leftovers', '--older-than', '0s'], 'removed 2 files'], [['--namespace', 'a'], 'removed 2 blocks of a; its record stays, so that no generation is given out twice']] as const) {
      const names = store();
      names.tree['aside'] = [];
      names.tree['blocks/a']!.push(directory('ff'));
      names.shut = ['blocks/a/ff'];
      const out = heard();
      expect(await rm(names, as('rm', '/store', ...words, '--yes'), out, { ...nobody, nowMs: () => NOW_MS + HOUR_MS })).toBe(3);
      expect(out.lines).toEqual([line]);
      expect(out.notes).toEqual(['listing blocks/a/ff: IO_ERROR: EACCES: passed over']);
    }
  });

  test('what is not there is status 1; a link in the place is told as that, and a file too short for a block goes as one', async () => {
    const names = store();
    names.tree['blocks/a/00']!.push(entry('000f.kvb', { bytes: 0 }));
    const out = heard();
    expect(await rm(names, as('rm', '/store', 'a/00ee', 'a/00cc', 'a/000f'), out, nobody)).toBe(1);
    expect([names.asked, out.lines]).toEqual([['remove a/000f'], ['removed 1 block']]);
    expect(out.notes).toEqual(['a/00ee: there is no such block', 'a/00cc: a link stands in the place of the block: left alone']);
    for (const words of [['a/00ee'], ['a/00ee', '--dry-run'], ['--namespace', 'b'], ['--namespace', 'b', '--dry-run']]) expect(await rm(store(), as('rm', '/store', ...words, '--yes'), heard(), nobody), words.join(' ')).toBe(1);
  });

  test('one that changed meanwhile is left alone, and said', async () => {
    const names = store();
    names.swept = 'changed';
    const out = heard();
    await rm(names, as('rm', '/store', '--leftovers', '--yes'), out, nobody);
    expect(out.notes.at(-1)).toBe('1 file changed meanwhile: left alone');
    expect(out.lines).toEqual(['removed 0 files']);
  });
});
