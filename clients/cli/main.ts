// main.ts — the entry of dist/kvlane-tools.cjs: every command but `serve`, which launch.cjs starts from a script of its own.
//
// The table of commands is built here and handed on, so that help, man and completion see the whole of it.
import { KvlaneError } from '../node/errors.ts';
import { COMMANDS } from './commands.ts';
import { parseWords } from './command_line.ts';
import { print, printError, terminalColumns } from './output.ts';
import { EXIT_FATAL, Wrong } from './spec.ts';

void main(process.argv.slice(2));

async function main(words: readonly string[]): Promise<void> {
  const parsed = parseWords(words, COMMANDS, terminalColumns());
  if (parsed.do === 'say') {
    await (parsed.exitCode === 0 ? print : printError)(parsed.text);
    return process.exit(parsed.exitCode);
  }
  let exitCode: number;
  try {
    exitCode = await parsed.command.run(parsed.given);
  } catch (error) {
    exitCode = error instanceof Wrong ? error.exitCode : EXIT_FATAL;
    // What nobody meant to happen is told with the place where it did.
    const meant = error instanceof Wrong || error instanceof KvlaneError;
    await printError(`kvlane ${parsed.command.name}: ${(meant ? (error as Error).message : (error as Error).stack) ?? String(error)}\n`);
  }
  process.exit(exitCode);
}
