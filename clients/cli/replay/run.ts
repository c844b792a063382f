// run.ts — a record, read, set on its stage and played, life after life; the report at the end.
import { constants } from 'node:os';
import { print, printError } from '../output.ts';
import { readRecord } from '../record/read.ts';
import type { Life } from '../record/format.ts';
import { EXIT_FOUND, EXIT_OK, Wrong } from '../spec.ts';
import { colours, coloursWanted, harmless } from '../text/colour.ts';
import { checkLife } from './checked.ts';
import { count } from '../text/units.ts';
import { play } from './play.ts';
import { isAlike, reportLines, reportOf } from './report.ts';
import type { LifeReport } from './report.ts';
import { seedsOf } from './seed.ts';
import { dropStage, makeStage, readyOf, seed, serveWords } from './stage.ts';

export interface ReplayOptions {
  file: string;
  speed: number;
  stores: readonly string[];
  /** From 1, in the order of the file; null: all, one after the other. */
  life: number | null;
  seedBytesMax: number;
  keep: boolean;
  json: boolean;
}

const PROGRESS_MS = 200;

export async function runReplay(options: ReplayOptions): Promise<number> {
  const { lives: all, damaged } = await readRecord(options.file);
  const chosen = options.life === null ? all : all.slice(options.life - 1, options.life);
  if (chosen.length === 0) throw new Wrong(`--life ${options.life}: ${options.file} has ${count(all.length, 'life', 'lives')}; a number from 1 to ${all.length} is wanted`);
  const lives = chosen.filter((life) => readyOf(life) !== null);
  if (lives.length === 0) throw new Wrong(`${options.file}: the sidecar never became ready, so there is nothing to replay${lastWords(chosen)}`);
  for (const life of lives) checkLife(life, `${options.file}, life ${all.indexOf(life) + 1}`);

  const stage = makeStage(lives, options.stores);
  const c = colours(coloursWanted(process.stdout.isTTY, process.env));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (!options.keep) dropStage(stage);
      process.exit(128 + constants.signals[signal]); // our sidecar sees its parent go
    });
  }
  try {
    const seeds = seedsOf(lives);
    await seed(stage, lives, seeds, options.seedBytesMax);
    const reports: LifeReport[] = [];
    for (const [i, life] of lives.entries()) {
      const ready = readyOf(life)!;
      const which = lives.length > 1 ? `life ${all.indexOf(life) + 1} of ${all.length}, ${life.head.began}: ` : '';
      const progress = createProgress(which);
      const played = await play(life, serveWords(life, ready, stage.roots), options.speed, progress.show);
      progress.end();
      if (played.ready === null) throw new Wrong(`the sidecar did not become ready${played.gone === null ? '' : `: ${played.gone}`}; its log ends with:\n${played.stderr.trimEnd().split('\n').slice(-8).join('\n')}`);
      const recordedRoots = new Map(ready.mounts.map((mount) => [mount.root, mount.name]));
      const replayedRoots = new Map([...stage.roots].map(([name, root]) => [root, name]));
      const report = reportOf(life, played, { recorded: recordedRoots, replayed: replayedRoots });
      if (i === 0) report.notes.push(...stage.notes, ...seeds.notes, ...(damaged > 0 ? [`${damaged} lines of the record cannot be read`] : []));
      reports.push(report);
      if (!options.json) await print(`${reportLines(report, c, which).join('\n')}\n`);
    }
    if (options.keep && stage.temporary !== null) await printError(`the stores are kept: ${[...stage.roots].map(([name, root]) => `${name}=${root}`).join(' ')}\n`);
    if (options.json) await print(`${JSON.stringify({ record: options.file, alike: reports.every(isAlike), lives: reports }, null, 2)}\n`);
    return reports.every(isAlike) ? EXIT_OK : EXIT_FOUND;
  } finally {
    if (!options.keep) dropStage(stage);
  }
}

function lastWords(lives: readonly Life[]): string {
  const lines = lives.flatMap((life) => life.entries.filter((entry) => entry.from === 'log')).map((entry) => harmless(entry.text ?? JSON.stringify(entry.message)));
  return lines.length === 0 ? ', and its log is empty' : `; its log ends with:\n${lines.slice(-8).join('\n')}`;
}

/** A line on the terminal that is written over; nothing where stderr is none. */
function createProgress(which: string): { show(done: number, of: number): void; end(): void } {
  if (!process.stderr.isTTY) return { show: () => {}, end: () => {} };
  let lastMs = -Infinity;
  return {
    show(done, of) {
      const nowMs = performance.now();
      if (nowMs - lastMs < PROGRESS_MS) return;
      lastMs = nowMs;
      process.stderr.write(`\r\x1b[K${which}line ${done} of ${of}`);
    },
    end: () => void process.stderr.write('\r\x1b[K'),
  };
}
