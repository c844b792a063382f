// shrink.ts — the shortest run that still breaks the same rule: first fewer steps, then without those that do not matter.
//
// Each step draws from its own numbers, so leaving one out leaves the others as they were, as far as the world lets them.
import { run, type Outcome, type Plan } from './run.ts';

/** Some seconds on a slow machine; what is found until then is shown. */
const RUNS_MAX = 400;

export interface Shrunk {
  plan: Plan;
  outcome: Outcome;
  runs: number;
}

export async function shrink(plan: Plan, first: Outcome): Promise<Shrunk> {
  const { rule } = first.broken!;
  let runs = 0;
  const breaks = async (steps: number, skip: ReadonlySet<number>): Promise<Outcome | null> => {
    if (runs >= RUNS_MAX) return null;
    runs += 1;
    const outcome = await run({ ...plan, steps, skip });
    return outcome.broken?.rule === rule ? outcome : null;
  };
  let steps = Math.min(first.steps, first.at + 1);
  let skip: ReadonlySet<number> = new Set();
  // Broken at the end: the steps may be far too many.
  for (let less = steps >> 1; less > 0 && first.at === first.steps; less >>= 1) while (steps > less && (await breaks(steps - less, skip)) !== null) steps -= less;
  for (let chunk = Math.max(1, steps >> 1); ; chunk = chunk >> 1) {
    for (let from = 0; from < steps; from += chunk) {
      const more = new Set(skip);
      for (let step = from; step < Math.min(steps, from + chunk); step += 1) more.add(step);
      if (more.size === skip.size) continue;
      const outcome = await breaks(steps, more);
      if (outcome === null) continue;
      skip = more;
      if (outcome.at < steps) steps = outcome.at + 1;
    }
    if (chunk <= 1 || runs >= RUNS_MAX) break;
  }
  const shortest = { ...plan, steps, skip };
  return { plan: shortest, outcome: await run({ ...shortest, told: true }), runs };
}
