// decode.ts — unknown JSON to a typed request, or a coded refusal; pure.

import type { Id } from './messages.ts';
import type { Request } from './request.ts';

export interface DecodeContext {
  slots: number;
  slotBytes: number;
  mounts: readonly string[];
  /** The line's number, from 1. */
  line: number;
  /** CLOCK_MONOTONIC; when given, a deadline_us absurdly far ahead is refused. */
  nowUs?: number;
}

export type Decoded =
  | { ok: true; request: Request }
  | { ok: false; id: Id | null; code: 'INVALID_REQUEST' | 'UNKNOWN_OP'; message: string };

export function decode(_value: unknown, _context: DecodeContext): Decoded {
  return { ok: false, id: null, code: 'INVALID_REQUEST', message: 'not written yet' };
}
