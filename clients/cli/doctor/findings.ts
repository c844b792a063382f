// findings.ts — what `kvlane doctor` has to say: one thing found, how bad it is, and what to do.

/** `bad` alone makes a mount unfit. `warn`: it works, and something will be slow, lost or awkward. `note`: to be known. */
export type Level = 'ok' | 'note' | 'warn' | 'bad';

export interface Finding {
  /** Stable, for scripts: group.thing, in lower case. */
  id: string;
  level: Level;
  /** What was seen, with its number and unit. */
  what: string;
  /** What follows from it for a cache; empty where nothing does. */
  why: string;
  /** A command or an option where there is one; empty where there is nothing to do. */
  do: string;
}

const WORST_FIRST: readonly Level[] = ['bad', 'warn', 'note', 'ok'];

/** `mount.nfs` is of the group `mount`. */
export function groupOf(id: string): string {
  return id.slice(0, id.indexOf('.'));
}

/** Among equals in the order in which they were found. */
export function worstFirst(findings: readonly Finding[]): Finding[] {
  return WORST_FIRST.flatMap((level) => findings.filter((finding) => finding.level === level));
}

export function isFit(findings: readonly Finding[]): boolean {
  return findings.every((finding) => finding.level !== 'bad');
}

export function found(id: string, level: Level, what: string, why = '', todo = ''): Finding {
  return { id, level, what, why, do: todo };
}
