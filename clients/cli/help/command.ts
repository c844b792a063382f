// help — `kvlane help COMMAND`, which is `kvlane COMMAND --help`.
import { EXIT_OK, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'help',
  summary: 'say what a command does, with its options',
  description: 'Says what a command does, with its options, examples and exit status; without a name, which commands there are.',
  usage: '[COMMAND]',
  arguments: [{ name: 'COMMAND', does: 'the name of a command', optional: true }],
  options: [],
  examples: [{ type: 'kvlane help record', shows: 'What can be told to record:' }],
  exitCodes: [
    [0, 'said'],
    [2, 'there is no such command'],
  ],
  seeAlso: ['man', 'completion'],
  async run({ words }) {
    const { COMMANDS } = await import('../commands.ts');
    const { helpOf, overview, unknownCommand } = await import('../command_line.ts');
    const { print } = await import('../output.ts');
    const [name] = words;
    const meant = COMMANDS.find((one) => one.name === name);
    if (name !== undefined && meant === undefined) throw new Wrong(unknownCommand(name, COMMANDS).replace(/^kvlane: /, '').trimEnd());
    await print(meant === undefined ? overview(COMMANDS) : helpOf(meant, process.stdout.columns));
    return EXIT_OK;
  },
};
