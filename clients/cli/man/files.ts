// files.ts — every page as a file of its own, as man(1) looks for them.
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';
import { pageOf, pageOfAll } from './page.ts';
import { roff } from './roff.ts';

/** Returns the paths. */
export function writePages(folder: string, table: readonly CommandSpec[]): string[] {
  const pages = [pageOfAll(table), ...table.filter((command) => !command.hidden).map(pageOf)];
  try {
    makeFolder(resolve(folder));
    return pages.map((page) => {
      const file = join(folder, `${page.name}.1`);
      writeFileSync(file, roff(page));
      return file;
    });
  } catch (error) {
    throw new Wrong(`the pages cannot be written: ${(error as Error).message}`);
  }
}

/** mkdirSync's own way to make those above tries for ever where the kernel says ENOENT of what it lists, as in /proc. */
function makeFolder(folder: string): void {
  if (existsSync(folder)) return;
  if (dirname(folder) !== folder) makeFolder(dirname(folder));
  mkdirSync(folder);
}
