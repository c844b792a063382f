// asked.ts — what was typed after `kvlane inspect` → what is to be done, or a sentence that says what would be right. Pure.
import { namespaceFault } from '../../../protocol/key.ts';
import type { Given } from '../spec.ts';
import { Wrong } from '../spec.ts';
import type { Order } from './sorted.ts';

export const ACTIONS = ['ls', 'df', 'explain', 'verify', 'rm'] as const;
export type Action = (typeof ACTIONS)[number];

interface Common {
  directory: string;
  timeoutMs: number;
  json: boolean;
}
export type Asked = Common &
  (
    | { action: 'ls'; namespace: string | null; prefix: string; leftovers: boolean; long: boolean; sort: Order | null }
    | { action: 'df' }
    | { action: 'explain'; target: string }
    | { action: 'verify'; namespaces: readonly string[]; rate: number }
    | { action: 'rm'; what: { keys: readonly string[] } | { namespace: string } | { olderMs: number }; dryRun: boolean; yes: boolean }
  );

/** Leftovers younger than this may belong to a store that is under way: hardly one takes longer than minutes. */
export const OLDER_DEFAULT_MS = 3_600_000;
/** Keys on one command line; more are removed by their namespace. */
export const KEYS_MAX = 4_096;

const KEY = /^([^/]+)\/([0-9a-f]{2,128})$/;
/** Which options say something to which action; --json and --timeout-ms to all but rm, and to all. */
const OPTIONS: Record<Action, readonly string[]> = { ls: ['long', 'sort', 'leftovers', 'json'], df: ['json'], explain: ['json'], verify: ['rate', 'json'], rm: ['namespace', 'leftovers', 'olderThan', 'dryRun', 'yes'] };
const ALL = ['long', 'sort', 'leftovers', 'json', 'rate', 'namespace', 'olderThan', 'dryRun', 'yes'];

export function asked({ words, options, typed }: Given, cwd: string): Asked {
  const [first = '', directory, ...targets] = words;
  const action = ACTIONS.find((one) => one === first);
  if (action === undefined) throw new Wrong(`the first word says what to do, one of ${ACTIONS.join(', ')}; got '${first}'${first.includes('/') || first.startsWith('.') ? `: kvlane inspect ls ${first}?` : ''}`);
  if (directory === undefined || directory === '') throw new Wrong(`the directory of the store is missing: kvlane inspect ${action} DIR`);
  const other = ALL.find((name) => typed(name) && !OPTIONS[action].includes(name));
  if (other !== undefined) throw new Wrong(`--${other.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)} says nothing to ${action}: ${action} takes ${['timeout-ms', ...OPTIONS[action]].map((name) => `--${name.replace(/[A-Z]/g, (capital) => `-${capital.toLowerCase()}`)}`).join(', ')}`);
  const common: Common = { directory: directory.startsWith('/') ? directory : `${cwd}/${directory}`, timeoutMs: options['timeoutMs'] as number, json: options['json'] === true };
  switch (action) {
    case 'ls': {
      const leftovers = options['leftovers'] === true;
      const [where = null] = targets;
      upTo(targets, 1, 'ls', 'NAMESPACE[/PREFIX]');
      if (leftovers && where !== null) throw new Wrong('--leftovers lists those of the whole store: leave the namespace out');
      const [namespace = '', prefix = '', more] = (where ?? '').split('/');
      if (where !== null) checkNamespace(namespace);
      if (more !== undefined || !/^[0-9a-f]{0,128}$/.test(prefix)) throw new Wrong(`'${where}': after the namespace comes the beginning of a hash, of 0-9 a-f`);
      const sort = (options['sort'] as Order | undefined) ?? null;
      if (where === null && !leftovers && sort === 'size') throw new Wrong('without a namespace ls lists the namespaces, and what they take is in: kvlane inspect df DIR');
      return { ...common, action, namespace: where === null ? null : namespace, prefix, leftovers, long: options['long'] === true, sort };
    }
    case 'df':
      upTo(targets, 0, 'df', 'nothing');
      return { ...common, action };
    case 'explain': {
      const [target] = targets;
      upTo(targets, 1, 'explain', 'one KEY, NAMESPACE or FILE');
      if (target === undefined || target === '') throw new Wrong('which key, namespace or file? kvlane inspect explain DIR KEY|NAMESPACE|FILE');
      return { ...common, action, target };
    }
    case 'verify':
      for (const namespace of targets) checkNamespace(namespace);
      return { ...common, action, namespaces: targets, rate: (options['rate'] as number | undefined) ?? 0 };
    case 'rm': {
      const namespace = options['namespace'] as string | undefined;
      const leftovers = options['leftovers'] === true;
      const ways = [targets.length > 0, namespace !== undefined, leftovers].filter(Boolean).length;
      if (ways !== 1) throw new Wrong(ways === 0 ? 'what is to go? give keys, --namespace NS or --leftovers' : 'keys, --namespace and --leftovers are three ways to say what goes: give one');
      if (typed('olderThan') && !leftovers) throw new Wrong('--older-than goes with --leftovers: blocks are removed whatever their age');
      if (namespace !== undefined) checkNamespace(namespace);
      if (targets.length > KEYS_MAX) throw new Wrong(`${targets.length} keys, the limit is ${KEYS_MAX}: give them in several commands, or a whole --namespace`);
      for (const key of targets) checkKey(key);
      const what = namespace !== undefined ? { namespace } : leftovers ? { olderMs: options['olderThan'] as number } : { keys: [...new Set(targets)] };
      return { ...common, action, what, dryRun: options['dryRun'] === true, yes: options['yes'] === true };
    }
  }
}

export function isKey(word: string): boolean {
  const [, namespace] = KEY.exec(word) ?? [];
  return namespace !== undefined && namespaceFault(namespace) === null;
}

function checkKey(word: string): void {
  if (!isKey(word)) throw new Wrong(`'${word}' is no key: NAMESPACE/HASH is wanted, as kvlane inspect ls DIR NAMESPACE prints it`);
}

function checkNamespace(word: string): void {
  const fault = namespaceFault(word);
  if (fault !== null) throw new Wrong(`'${word}' is no namespace: ${fault}`);
}

function upTo(words: readonly string[], max: number, action: Action, wanted: string): void {
  if (words.length > max) throw new Wrong(`${action} does not know what to do with '${words[max]}': after the directory comes ${wanted}`);
}

const SIZE_UNITS: Record<string, number> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 };
const TIME_UNITS: Record<string, number> = { s: 1_000, min: 60_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** 50M, 100MiB/s, 1048576. */
export function rate(word: string): number {
  const [, digits = '', unit = ''] = /^([0-9]{1,15})([kmg]?)(?:i?b)?(?:\/s)?$/i.exec(word) ?? [];
  const bytes = digits === '' ? NaN : Number(digits) * SIZE_UNITS[unit.toLowerCase()]!;
  if (!(bytes >= RATE_MIN && bytes <= 2 ** 50)) throw new Wrong('Bytes a second are wanted, from 4K: 50M, or 104857600.');
  return bytes;
}
/** A page: below it the first block would take minutes. */
export const RATE_MIN = 4_096;

/** 90s, 30min, 1h, 7d. */
export function age(word: string): number {
  const [, digits = '', unit = ''] = /^([0-9]{1,6})(s|min|m|h|d)$/.exec(word) ?? [];
  if (digits === '') throw new Wrong('A time is wanted: 90s, 30min, 1h or 7d.');
  return Number(digits) * TIME_UNITS[unit]!;
}
