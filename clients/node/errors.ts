// errors.ts — what this client throws, and the answers it gives itself.
//
//   Error
//   └── KvlaneError
//       ├── StartError      the sidecar did not become ready; carries the end of its stderr
//       ├── ArenaError      the arena cannot be reached, or not this way
//       └── UsageError      a call that no sidecar could make sense of (a slot out of range)
//
// A request never throws: whatever happens to the sidecar, its promise resolves with an answer.

import type { Code, Id } from '../../protocol/messages.ts';

export class KvlaneError extends Error {
  override name = 'KvlaneError';
}

export class StartError extends KvlaneError {
  override name = 'StartError';
  readonly stderr: string;
  constructor(message: string, stderr: string) {
    super(stderr === '' ? message : `${message}; its stderr ends with:\n${stderr.trimEnd().split('\n').slice(-8).join('\n')}`);
    this.stderr = stderr;
  }
}

export class ArenaError extends KvlaneError {
  override name = 'ArenaError';
}

export class UsageError extends KvlaneError {
  override name = 'UsageError';
}

/** The client had the last word: the sidecar was late, gone, or not listening. */
export interface ClientAnswer {
  id: Id;
  ok: false;
  source: 'client';
  error: { code: Code | 'SIDECAR_GONE'; message: string };
}

export function clientAnswer(id: Id, code: ClientAnswer['error']['code'], message: string): ClientAnswer {
  return { id, ok: false, source: 'client', error: { code, message } };
}
