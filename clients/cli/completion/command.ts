// completion — what a shell must know of the table, as a script that it reads at its start.
import { EXIT_OK } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'completion',
  summary: 'print the completion script for bash, zsh or fish',
  description:
    'Prints a script that teaches the shell the commands, options and values of kvlane.\n\nThe script holds all it needs: kvlane itself is not started to complete a word. Directories and files are offered by the shell, which looks for them, and waits where a mount hangs; so none are offered for the DIR of inspect and doctor, which are there for mounts that hang. Print it again after an update.',
  usage: 'bash|zsh|fish',
  arguments: [{ name: 'SHELL', does: 'the shell that reads the script', choices: ['bash', 'zsh', 'fish'] }],
  options: [],
  examples: [
    { type: 'kvlane completion bash > ~/.local/share/bash-completion/completions/kvlane', shows: 'For bash, from the next shell on:' },
    { type: 'kvlane completion zsh > "${fpath[1]}/_kvlane"', shows: 'For zsh:' },
    { type: 'kvlane completion fish > ~/.config/fish/completions/kvlane.fish', shows: 'For fish:' },
    { type: '. <(kvlane completion bash)', shows: 'For this bash only:' },
  ],
  exitCodes: [
    [0, 'printed'],
    [2, 'no such shell'],
  ],
  seeAlso: ['help', 'man'],
  async run({ words }) {
    const { COMMANDS } = await import('../commands.ts');
    const { scriptFor } = await import('./script.ts');
    const { print } = await import('../output.ts');
    await print(scriptFor(words[0]!, COMMANDS));
    return EXIT_OK;
  },
};
