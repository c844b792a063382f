// decode.ts — unknown JSON to a typed request, or a coded refusal that says which field, what it must be and
// what it was. Pure, and the only judge of a request's form: whoever gets a Request checks no field again.

import { inspectRequest } from './decode_inspect.ts';
import { loadBlocks, onlyKeys, Refusal, storeBlocks } from './decode_blocks.ts';
import { expected, explain, type Bounds, type Fault } from './explain.ts';
import { canonical } from './fingerprint.ts';
import { LIMITS, OPS } from './messages.ts';
import type { Id, Op, RequestMessage, RequestMessages } from './messages.ts';
import { list, nearest, show } from './nearest.ts';
import type { MountRequestHead, Request } from './request.ts';
import { requestValidators } from './validate_requests.generated.ts';

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

type Validator = ((value: unknown) => boolean) & { errors?: Fault[] | null };
const validators = requestValidators as unknown as Record<Op, Validator>;
type MountMessage = RequestMessages['store' | 'load' | 'lookup' | 'remove' | 'namespace' | 'list' | 'verify' | 'sweep'];

export function decode(value: unknown, context: DecodeContext): Decoded {
  const invalid = (id: Id | null, message: string): Decoded => ({ ok: false, id, code: 'INVALID_REQUEST', message });
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return invalid(null, `a request is one JSON object, got ${show(value)}`);
  }
  const fields = value as Record<string, unknown>;
  if (!Object.hasOwn(fields, 'id')) return invalid(null, 'id is missing; give each request one of its own, for example "id":1');
  const id = fields['id'];
  if (!isId(id)) return invalid(null, wrong('id', id, context));
  if (!Object.hasOwn(fields, 'op')) return invalid(id, `op is missing; known: ${OPS.join(', ')}`);
  const op = fields['op'];
  if (typeof op !== 'string') return invalid(id, `op must be a string, got ${show(op)}; known: ${OPS.join(', ')}`);
  if (!isOp(op)) {
    const near = nearest(op, OPS);
    const hint = near ? ` (did you mean "${near}"?)` : `; known: ${OPS.join(', ')}`;
    return { ok: false, id, code: 'UNKNOWN_OP', message: `unknown op ${show(op)}${hint}` };
  }
  const validate = validators[op];
  if (!validate(fields)) return invalid(id, explain(op, fields, validate.errors![0]!, context));
  try {
    return { ok: true, request: normalise(fields as unknown as RequestMessage, context) };
  } catch (refusal) {
    if (refusal instanceof Refusal) return invalid(id, refusal.message);
    throw refusal;
  }
}

function normalise(message: RequestMessage, context: DecodeContext): Request {
  const { id } = message;
  const { line } = context;
  switch (message.op) {
    case 'store': return { op: 'store', ...mountHead(message, context), blocks: storeBlocks(message, context), replace: message.if_exists === 'replace' };
    case 'load': return { op: 'load', ...mountHead(message, context), blocks: loadBlocks(message, context), inline: message.inline === true };
    case 'lookup': return { op: 'lookup', ...mountHead(message, context), blocks: onlyKeys(message) };
    case 'remove': return { op: 'remove', ...mountHead(message, context), blocks: onlyKeys(message) };
    case 'namespace': {
      const fingerprint = canonical(message.fingerprint);
      if (fingerprint === null) throw new Refusal(`fingerprint nests deeper than ${LIMITS.fingerprint_depth_max} levels`);
      const bytes = Buffer.byteLength(fingerprint);
      if (bytes > LIMITS.fingerprint_bytes_max) throw new Refusal(`fingerprint has ${bytes} bytes as JSON, the limit is ${LIMITS.fingerprint_bytes_max}; send a hash of it`);
      return { op: 'namespace', ...mountHead(message, context), name: message.name, fingerprint, bump: message.bump === true };
    }
    case 'list': case 'verify': case 'sweep': return { ...mountHead(message, context), ...inspectRequest(message) };
    case 'cancel':
      if (!isId(message.task)) throw new Refusal(wrong('task', message.task, context));
      return { op: 'cancel', id, line, task: message.task };
    case 'shutdown': return { op: 'shutdown', id, line, ...(message.timeout_ms === undefined ? {} : { timeoutMs: message.timeout_ms }) };
    case 'stuck': return { op: 'stuck', id, line, ...(message.over_ms === undefined ? {} : { overMs: message.over_ms }) };
    case 'stats': case 'ping': case 'help': return { op: message.op, id, line };
  }
}

function mountHead(message: MountMessage, context: DecodeContext): MountRequestHead {
  const { mounts, nowUs } = context;
  const head: MountRequestHead = { id: message.id, line: context.line, mount: '' };
  if (message.mount === undefined) {
    if (mounts.length !== 1) throw new Refusal(`mount is missing; there are ${list(mounts)}`);
    head.mount = mounts[0]!;
  } else {
    if (!mounts.includes(message.mount)) throw new Refusal(wrong('mount', message.mount, context));
    head.mount = message.mount;
  }
  const { timeout_ms: timeoutMs, deadline_us: deadlineUs } = message;
  if (timeoutMs !== undefined && deadlineUs !== undefined) throw new Refusal('timeout_ms and deadline_us say the same twice; give one');
  if (timeoutMs !== undefined) head.timeoutMs = timeoutMs;
  if (deadlineUs !== undefined) {
    if (nowUs !== undefined && deadlineUs > nowUs + LIMITS.timeout_ms_max * 1000) {
      throw new Refusal(`deadline_us must be CLOCK_MONOTONIC in microseconds and at most ${LIMITS.timeout_ms_max} ms ahead of it (now ${nowUs}), got ${deadlineUs}`);
    }
    head.deadlineUs = deadlineUs;
  }
  return head;
}

/** A string's limit is in bytes of UTF-8, which the schema cannot count. */
function isId(value: unknown): value is Id {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0;
  return typeof value === 'string' && value.length <= LIMITS.id_bytes_max && Buffer.byteLength(value) <= LIMITS.id_bytes_max;
}

const isOp = (word: string): word is Op => (OPS as readonly string[]).includes(word);
const wrong = (field: string, value: unknown, bounds: Bounds): string => `${field} must be ${expected(field, 1, bounds)}, got ${show(value)}`;
