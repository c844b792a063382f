// store_paths.ts — what kvlane calls its own files and directories below a root, and which of them list and sweep may be given.
//
// Strict on purpose: a name that is not exactly as kvlane makes it is somebody else's, is never removed, and no directory of such a
// name is entered. In the sidecar it is the only judge of a path; the core checks its shape once more.

const NAMESPACE = '[A-Za-z0-9][A-Za-z0-9._-]{0,63}(?:@[0-9]{1,10})?';
const HEX = '[0-9a-f]{2,128}';
const WRITER = '[0-9a-f]{16}';
/** Random, a dash and a number: unique among all writers of all hosts. */
const UNIQUE = `${WRITER}-[0-9]{1,20}`;

const DIRECTORY = new RegExp(`^(?:blocks(?:/${NAMESPACE}(?:/[0-9a-f]{2})?)?|recycle(?:/${WRITER})?|aside|namespaces|collector|probe(?:/[0-9]{1,10})?)$`);
const LEFTOVER = new RegExp(`^(?:blocks/${NAMESPACE}/([0-9a-f]{2})/(${HEX})\\.${UNIQUE}\\.tmp|recycle/${WRITER}/[0-9]{1,20}|aside/${NAMESPACE}\\.${HEX}\\.[0-9]{1,20}\\.${UNIQUE})$`);

export const DIRECTORIES = 'blocks, blocks/NAMESPACE, blocks/NAMESPACE/XX, recycle, recycle/WRITER, aside, namespaces, collector, probe or probe/N';
export const LEFTOVERS = 'a file that kvlane left behind: blocks/NAMESPACE/XX/HEX.WRITER-N.tmp, recycle/WRITER/N or aside/NAMESPACE.HEX.INODE.WRITER-N';

export function isDirectoryPath(path: string): boolean {
  return DIRECTORY.test(path);
}

export function isLeftoverPath(path: string): boolean {
  const found = LEFTOVER.exec(path);
  return found !== null && (found[1] === undefined || found[2]!.startsWith(found[1]));
}

export const NAMESPACE_NAME = new RegExp(`^${NAMESPACE}$`);
export const WRITER_NAME = new RegExp(`^${WRITER}$`);
export const BLOCK_FILE = new RegExp(`^(${HEX})\\.kvb$`);
/** Which namespace, hex and inode a file that was set aside had. */
export const ASIDE_FILE = new RegExp(`^(${NAMESPACE})\\.(${HEX})\\.([0-9]{1,20})\\.(${UNIQUE})$`);
export const TEMPORARY_FILE = new RegExp(`^(${HEX})\\.(${WRITER})-[0-9]{1,20}\\.tmp$`);
/** A namespace's record, or that a generation of it is taken. */
export const RECORD_FILE = new RegExp(`^(${NAMESPACE})\\.json$`);
export const DRAFT_OF_RECORD_FILE = new RegExp(`^${NAMESPACE}\\.json\\.${UNIQUE}\\.tmp$`);
/** Who may remove blocks for room: 15 digits, so that the next number is still exact wherever it goes. */
export const LEASE_FILE = /^[1-9][0-9]{0,14}$/;
export const DRAFT_OF_LEASE_FILE = new RegExp(`^[1-9][0-9]{0,14}\\.${UNIQUE}\\.tmp$`);
/** What probes read, and what they make and remove again. */
export const PROBE_DIRECTORY = /^[0-9]{1,10}$/;
export const PROBE_FILE = new RegExp(`^(?:block|${WRITER}|(?:block|probe)\\.${UNIQUE}\\.tmp)$`);
/** Empty; its time says that a store found no room, or that such stores are to try again. */
export const SIGN_FILE = /^(?:want|made)$/;
export const DRAFT_OF_IDENTITY_FILE = new RegExp(`^kvlane\\.json\\.${UNIQUE}\\.tmp$`);
