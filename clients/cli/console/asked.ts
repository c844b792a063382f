// asked.ts — what was typed and is not answered yet; answers find back to the place in the line that they speak of.
import { LIMITS } from '../../../protocol/messages.ts';
import type { Id } from '../../../protocol/messages.ts';
import type { Span } from './json_scan.ts';

/** An id that an answer will carry: any other is answered with null, and the number of the line. */
export function idOf(request: Record<string, unknown>): Id | null {
  const { id } = request;
  if (typeof id === 'string') return Buffer.byteLength(id) <= LIMITS.id_bytes_max ? id : null;
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) <= LIMITS.id_max ? (id as number) : null;
}

export interface Asked {
  /** null: no request that could be read. */
  id: Id | null;
  op: string;
  /** As it was sent; null where it is no JSON object. */
  request: Record<string, unknown> | null;
  typed: string;
  /** For words: path → where it was typed. null: JSON, where the path is looked for. */
  spans: Map<string, Span> | null;
  atMs: number;
}
