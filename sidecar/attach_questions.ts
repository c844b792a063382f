// attach_questions.ts — what one line of a reader is answered with. He may look and nothing else, whatever he says.
import { decode } from '../protocol/decode.ts';
import { OPS, type Op } from '../protocol/messages.ts';
import { quoteStart } from './quote.ts';
import type { Service } from './service_types.ts';

/** Of calls in one answer: 64 KiB. Those over the pipes list 3,000. */
export const CALLS_LISTED_MAX = 256;
const LOOKS: ReadonlySet<Op> = new Set(['stats', 'stuck', 'ping', 'help']);

export interface Answer {
  message: object;
  /** It was no question that may be asked here. */
  fault: boolean;
  /** From now on he hears of events, or no more. */
  watching?: boolean;
}

export function answerTo(text: string, line: number, look: Service['look'], nowUs: number, attached: () => object): Answer {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return refusal(null, 'INVALID_REQUEST', `line ${line}: not JSON: '${quoteStart(text)}'; ask for example {"id":1,"op":"stats"}`);
  }
  if (isWatch(value)) return { message: { id: value.id, ok: true }, fault: false, watching: value.op === 'watch' };
  const decoded = decode(value, { slots: 0, slotBytes: 0, mounts: [], line, nowUs });
  const { op } = (value ?? {}) as { op?: Op };
  if (op !== undefined && OPS.includes(op) && !LOOKS.has(op)) {
    // Whatever else is wrong with it.
    return refusal(decoded.ok ? decoded.request.id : decoded.id, 'INVALID_REQUEST', `${op} is for the client that started this sidecar; whoever is attached may ask stats, stuck, ping, help, watch, unwatch`);
  }
  if (!decoded.ok) return refusal(decoded.id, decoded.code, decoded.message);
  const { request } = decoded;
  const { id } = request;
  const said = (more: object): Answer => ({ message: { id, ok: true, ...more }, fault: false });
  switch (request.op) {
    case 'stats':
      return said({ stats: { ...look.stats(), attached: attached() } });
    case 'stuck':
      return said(look.stuck(request.overMs, CALLS_LISTED_MAX));
    case 'ping':
      return said({ now_us: nowUs });
    case 'help':
      return said({ help: { ...look.help(), attached: 'you may look and nothing else: stats, stuck, ping, help; watch for events, unwatch' } });
    default:
      throw new Error(`${request.op} is no look`); // refused above
  }
}

export function refusal(id: unknown, code: string, message: string): Answer {
  return { message: { id, ok: false, error: { code, message } }, fault: true };
}

function isWatch(value: unknown): value is { id: number | string; op: 'watch' | 'unwatch' } {
  if (typeof value !== 'object' || value === null) return false;
  const { id, op, ...more } = value as Record<string, unknown>;
  if (op !== 'watch' && op !== 'unwatch') return false;
  return Object.keys(more).length === 0 && (Number.isSafeInteger(id) || (typeof id === 'string' && id.length <= 64));
}
