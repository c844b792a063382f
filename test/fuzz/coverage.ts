// coverage.ts — which parts of this script have run, as V8 counts it. An input that reaches a new one is worth changing further.
//
// One look costs milliseconds, so whole batches are looked at together; only when one has reached something new is it run again
// in halves, to find who did.
import { Session } from 'node:inspector';

interface Range { startOffset: number; endOffset: number; count: number }
interface Script { url: string; functions: { ranges: Range[] }[] }

export interface Coverage {
  /** Parts that ran since the last look and never before. */
  fresh(): string[];
  /** They count as seen from now on. */
  keep(parts: string[]): void;
  parts(): number;
}

export function startCoverage(): Coverage {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });
  const seen = new Set<string>();
  return {
    fresh() {
      const found: string[] = [];
      session.post('Profiler.takePreciseCoverage', (error, answer) => {
        if (error !== null) throw error;
        for (const script of answer.result as Script[]) {
          if (!script.url.endsWith('/lines.mjs')) continue;
          for (const { ranges } of script.functions) {
            for (const { startOffset, endOffset, count } of ranges) {
              const part = count === 0 ? '' : `${startOffset}-${endOffset}`;
              if (part !== '' && !seen.has(part)) found.push(part);
            }
          }
        }
      });
      return found;
    },
    keep: (parts) => parts.forEach((part) => seen.add(part)),
    parts: () => seen.size,
  };
}
