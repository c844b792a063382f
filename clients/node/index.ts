// index.ts — the public names of the Node client.

export { Client, type Fields, type Left, type Result, type SpawnOptions } from './client.ts';
export { Arena } from './arena.ts';
export { ArenaError, KvlaneError, StartError, UsageError, type ClientAnswer } from './errors.ts';
export { nowUs } from './pending.ts';
export { sidecarMain, type Exit, type ProcessOptions } from './process.ts';
export type * from '../../protocol/messages.ts';
