// decode_inspect.ts — list, verify and sweep: what a schema cannot say of them, which is the shape of their paths.

import { onlyKeys, Refusal } from './decode_blocks.ts';
import { LIMITS } from './messages.ts';
import type { ListMessage, SweepMessage, VerifyMessage } from './messages.ts';
import { show } from './nearest.ts';
import type { ListRequest, MountRequestHead, SweepRequest, VerifyRequest } from './request.ts';
import { DIRECTORIES, isDirectoryPath, isLeftoverPath, LEFTOVERS } from './store_paths.ts';

type Own<R extends MountRequestHead> = Omit<R, keyof MountRequestHead>;

export function inspectRequest(message: ListMessage | VerifyMessage | SweepMessage): Own<ListRequest> | Own<VerifyRequest> | Own<SweepRequest> {
  switch (message.op) {
    case 'list':
      if (!isDirectoryPath(message.path)) throw new Refusal(`path must be ${DIRECTORIES}, got ${show(message.path)}`);
      if (message.cookie !== undefined) whole64('cookie', message.cookie);
      return { op: 'list', path: message.path, cookie: message.cookie ?? '', entriesMax: message.entries_max ?? LIMITS.list_entries_max };
    case 'verify':
      if (message.keys.length > LIMITS.verify_blocks_max) throw new Refusal(`keys has ${message.keys.length} entries, of verify the limit is ${LIMITS.verify_blocks_max}; ask for them in several requests`);
      return { op: 'verify', blocks: onlyKeys(message) };
    case 'sweep':
      if (!isLeftoverPath(message.path)) throw new Refusal(`path must be ${LEFTOVERS}, got ${show(message.path)}; blocks are removed with remove`);
      whole64('inode', message.inode);
      whole64('changed_ns', message.changed_ns);
      return { op: 'sweep', path: message.path, inode: message.inode, changedNs: message.changed_ns };
  }
}

const U64_MAX = 2n ** 64n - 1n;

/** Digits by the schema. Native takes 64 bits, and takes more for a fault of ours. */
function whole64(field: string, digits: string): void {
  if (BigInt(digits) > U64_MAX) throw new Refusal(`${field} must be at most ${U64_MAX}, got ${show(digits)}`);
}
