// script.ts — which shell gets which script.
import { Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';
import { bash } from './bash.ts';
import { fish } from './fish.ts';
import { shellCommands } from './words.ts';
import { zsh } from './zsh.ts';

const SHELLS: Record<string, typeof bash> = { bash, zsh, fish };

export function scriptFor(shell: string, table: readonly CommandSpec[]): string {
  const make = Object.hasOwn(SHELLS, shell) ? SHELLS[shell] : undefined;
  if (make === undefined) throw new Wrong(`there is a script for ${Object.keys(SHELLS).join(', ')}, none for '${shell}'`);
  return make(shellCommands(table));
}

