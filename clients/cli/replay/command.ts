// replay — a record played again, against a sidecar and stores of its own; what differs is told.
import { whole, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

function speed(word: string): number {
  const value = /^[0-9]+(\.[0-9]+)?$/.test(word) ? Number(word) : NaN;
  if (!(value >= 0.01 && value <= 10_000)) throw new Wrong('A number from 0.01 to 10000 is wanted: 2 is twice as fast.');
  return value;
}

export const command: CommandSpec = {
  name: 'replay',
  summary: 'play a record against a fresh sidecar and tell what differs',
  description:
    'Starts a sidecar with an arena and options as those of the record, sends it the same lines in the same order, and compares each answer with the one that was recorded. A line that was sent after an answer had come waits for that answer; besides, lines keep their times.\n\nThe stores are temporary ones. What the record found in its stores and had not stored itself is put there first; a block whose contents it does not show becomes one of zeros, of the same length. With --store a directory of yours is used as it is.\n\nLeft out of the comparison is what must differ: times, process and thread ids, how long something waited, what stats count, and the paths of the stores. A hang is not replayed: what was refused or late because of one is reported as a difference.\n\nSeveral lives in one file are played one after the other, over the same stores.',
  usage: 'FILE [--speed N | --fast] [--store NAME=DIR]…',
  arguments: [{ name: 'FILE', does: 'a record, made by kvlane record', completes: 'file' }],
  options: [
    { flags: '--speed <N>', does: 'so many times as fast as it was recorded', parse: speed, default: 1 },
    { flags: '--fast', does: 'as fast as the answers come' },
    { flags: '--store <NAME=DIR>', does: 'use this directory for the mount NAME; repeat for more', parse: (word, before) => [...((before as string[] | undefined) ?? []), word], completes: 'mount' },
    { flags: '--life <N>', does: 'only the Nth of several lives, from 1', parse: whole(1, 1_000_000) },
    { flags: '--seed-mib <M>', does: 'put no more than this into temporary stores', parse: whole(0, 2 ** 30), default: 1024 },
    { flags: '--keep', does: 'keep the temporary stores, and say where they are' },
    { flags: '--json', does: 'report as JSON' },
  ],
  examples: [
    { shows: 'As it was, and what differs:', type: 'kvlane replay bug.ndjson' },
    { shows: 'As fast as it goes, on the mount in question:', type: 'kvlane replay bug.ndjson --fast --store kv0=/mnt/cache' },
    { shows: 'In a script:', type: "kvlane replay bug.ndjson --fast --json | jq '.lives[].differ'" },
  ],
  exitCodes: [
    [0, 'every answer as recorded'],
    [1, 'something differs; the report says what'],
    [2, 'a bad option, a file that is no record, or one whose sidecar cannot be started again; the message says why'],
    [70, 'an error inside kvlane'],
    [130, 'interrupted by ctrl-C; 143 by SIGTERM, 129 by SIGHUP: the temporary stores are gone then, too'],
  ],
  seeAlso: ['record'],
  async run({ words, options, typed }) {
    if (options['fast'] === true && typed('speed')) throw new Wrong('--fast and --speed are two ways to say how fast: give one');
    const { runReplay } = await import('./run.ts');
    return runReplay({
      file: words[0]!,
      speed: options['fast'] === true ? Infinity : (options['speed'] as number),
      stores: (options['store'] as string[] | undefined) ?? [],
      life: (options['life'] as number | undefined) ?? null,
      seedBytesMax: (options['seedMib'] as number) * 1024 * 1024,
      keep: options['keep'] === true,
      json: options['json'] === true,
    });
  },
};
