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
      return { op: 'list', path: message.path, cookie: message.cookie ?? '', entriesMax: message.entries_max ?? LIMITS.list_entries_max };
    case 'verify':
      if (message.keys.length > LIMITS.verify_blocks_max) throw new Refusal(`keys has ${message.keys.length} entries, of verify the limit is ${LIMITS.verify_blocks_max}; ask for them in several requests`);
      return { op: 'verify', blocks: onlyKeys(message) };
    case 'sweep':
      if (!isLeftoverPath(message.path)) throw new Refusal(`path must be ${LEFTOVERS}, got ${show(message.path)}; blocks are removed with remove`);
      return { op: 'sweep', path: message.path, inode: message.inode, changedNs: message.changed_ns };
  }
}
