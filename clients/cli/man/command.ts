// man — the manual page of a command: shown, or written as files.
import { EXIT_OK, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'man',
  summary: 'show the manual page of a command',
  description:
    'Shows the manual page of a command, or of kvlane itself, laid out for the width of the terminal.\n\nThe pages are made of the same table as --help and the completion of the shell, so they describe the version that prints them.',
  usage: '[COMMAND] [--roff] [--all DIR]',
  arguments: [{ name: 'COMMAND', does: 'the name of a command; without it, the page kvlane(1)', optional: true }],
  options: [
    { flags: '--roff', does: 'print the source of the page, for man(1), instead of text' },
    { flags: '--all <DIR>', does: 'write every page into this directory, as kvlane.1, kvlane-serve.1 and so on', completes: 'directory' },
  ],
  examples: [
    { type: 'kvlane man record | less', shows: 'Read the page of record:' },
    { type: 'kvlane man --roff record | man -l -', shows: 'The same with the fonts of man:' },
    { type: 'kvlane man --all ~/.local/share/man/man1 && man kvlane-serve', shows: 'Have them found by man:' },
  ],
  exitCodes: [
    [0, 'shown or written'],
    [2, 'there is no such command, or the directory cannot be written'],
  ],
  seeAlso: ['help', 'completion'],
  async run({ words, options }) {
    const { COMMANDS } = await import('../commands.ts');
    const { unknownCommand } = await import('../command_line.ts');
    const { pageOf, pageOfAll } = await import('./page.ts');
    const { roff } = await import('./roff.ts');
    const { plain } = await import('./plain.ts');
    const { print } = await import('../output.ts');
    const [name] = words;
    if (typeof options['all'] === 'string') {
      if (name !== undefined) throw new Wrong('--all writes every page: leave the name out');
      const { writePages } = await import('./files.ts');
      await print(`${writePages(options['all'], COMMANDS).join('\n')}\n`);
      return EXIT_OK;
    }
    const meant = COMMANDS.find((one) => one.name === name);
    if (name !== undefined && meant === undefined) throw new Wrong(unknownCommand(name, COMMANDS).replace(/^kvlane: /, '').trimEnd());
    const page = meant === undefined ? pageOfAll(COMMANDS) : pageOf(meant);
    await print(options['roff'] === true ? roff(page) : plain(page, process.stdout.columns ?? 80));
    return EXIT_OK;
  },
};
