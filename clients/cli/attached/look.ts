// look.ts — what a tool needs of one sidecar at one moment, from all that run, side by side and each within its bounds.
import type { StuckEntry } from '../../../protocol/messages.ts';
import { AttachError, Connection, type Bounds, type Trouble } from './connection.ts';
import type { Found } from './find.ts';
import { SHAPES, type Hello, type SidecarStats } from './shapes.ts';
import { fits } from './tame.ts';

export type Look =
  | { found: Found; up: true; hello: Hello; stats: SidecarStats; stuck: StuckEntry[]; more: number; tookMs: number }
  | { found: Found; up: false; trouble: Trouble; reason: string };

/** Connects, asks once, hangs up. */
export async function lookAt(found: Found, bounds?: Bounds): Promise<Look> {
  let connection: Connection | null = null;
  try {
    connection = await Connection.open(found.path, bounds);
    return await lookThrough(found, connection);
  } catch (error) {
    return failed(found, error);
  } finally {
    connection?.close();
  }
}

/** `overMs`: calls that are not late, too. */
export async function lookThrough(found: Found, connection: Connection, overMs?: number): Promise<Look> {
  const began = performance.now();
  const answer = await connection.ask('stats');
  const calls = await connection.ask('stuck', overMs === undefined ? {} : { over_ms: overMs });
  const { hello } = connection;
  const { stats, stuck, more } = { ...answer, ...calls } as { stats?: unknown; stuck?: unknown; more?: unknown };
  if (!fits({ hello, stats, stuck, more }, SHAPES)) throw new AttachError('odd', 'it does not answer as a sidecar of this version does');
  return { found, up: true, hello: hello as unknown as Hello, stats: stats as SidecarStats, stuck: stuck as StuckEntry[], more: (more as number | undefined) ?? 0, tookMs: performance.now() - began };
}

export function failed(found: Found, error: unknown): Look {
  if (error instanceof AttachError) return { found, up: false, trouble: error.trouble, reason: error.message };
  return { found, up: false, trouble: 'odd', reason: (error as Error).message };
}
