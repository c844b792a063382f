// conversation.ts — which answer belongs to which line: by id while that is unanswered, otherwise by the line's number.
import type { Id } from '../../../protocol/messages.ts';
import { idOf } from '../console/asked.ts';
import { objectOf } from './format.ts';
import type { RecordEntry } from './format.ts';

export interface Line {
  /** From 1, as the sidecar counts them. */
  number: number;
  entry: RecordEntry;
  /** null: no JSON object. */
  request: Record<string, unknown> | null;
  id: Id | null;
  op: string;
}

export class Conversation {
  readonly lines: Line[] = [];
  readonly #open = new Map<Id, Line>();

  asked(entry: RecordEntry): Line {
    const request = requestOf(entry);
    const id = request === null ? null : idOf(request);
    const line: Line = { number: this.lines.length + 1, entry, request, id, op: typeof request?.['op'] === 'string' ? request['op'] : '' };
    this.lines.push(line);
    if (id !== null && !this.#open.has(id)) this.#open.set(id, line);
    return line;
  }

  /** null: an answer to nothing that was asked. */
  answered(message: Record<string, unknown>): Line | null {
    const id = message['id'] as Id | null | undefined;
    if (id === null || id === undefined) return this.lines[(message['line'] as number) - 1] ?? null;
    const line = this.#open.get(id) ?? null;
    this.#open.delete(id);
    return line;
  }
}

function requestOf({ message, text }: RecordEntry): Record<string, unknown> | null {
  return message ?? (text === undefined ? null : objectOf(text));
}

/** A line, and not the end of a stream. */
export function isLine(entry: RecordEntry): boolean {
  return entry.message !== undefined || entry.text !== undefined || entry.base64 !== undefined;
}
