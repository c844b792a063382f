// fish.ts — a `complete` for each word; fish shows what each does beside it.
import { quotedForFish } from './quoted.ts';
import type { ShellCommand, ShellOption, ShellValue } from './words.ts';

export function fish(commands: readonly ShellCommand[]): string {
  const lines = [
    '# Completion of kvlane for fish; made by: kvlane completion fish',
    'function __kvlane_mount',
    "    set -l typed (commandline -ct | string replace -r '^--mount=' '')",
    "    if string match -q '*=*' -- $typed",
    "        set -l name (string replace -r '=.*' '=' -- $typed)",
    "        for folder in (__fish_complete_directories (string replace -r '^[^=]*=' '' -- $typed) '')",
    '            echo $name$folder',
    '        end',
    '    else',
    '        echo kv0=',
    '    end',
    'end',
    'complete -c kvlane -f',
    "complete -c kvlane -n __fish_use_subcommand -s h -l help -d 'print this help'",
    "complete -c kvlane -n __fish_use_subcommand -s V -l version -d 'print the version'",
    ...commands.map((command) => `complete -c kvlane -n __fish_use_subcommand -a ${command.name} -d ${quotedForFish(command.summary)}`),
    ...commands.flatMap(one),
  ];
  return `${lines.join('\n')}\n`;
}

function one(command: ShellCommand): string[] {
  const seen = quotedForFish(`__fish_seen_subcommand_from ${command.name}`);
  const options = command.options.map((option) => `complete -c kvlane -n ${seen}${names(option)}${value(option.value)} -d ${quotedForFish(option.does)}`);
  // Which of several arguments a word is, fish does not say: what each may be is offered for all.
  const words = command.arguments.filter((argument) => argument.choices.length > 0 || argument.completes !== 'nothing').map((argument) => `complete -c kvlane -n ${seen}${offer(argument)}`);
  const typed = command.arguments.length + 2;
  const begun = quotedForFish(`__fish_seen_subcommand_from ${command.name}; and test (count (commandline -opc)) -gt ${typed - 1}`);
  return [...options, ...words, ...(command.rest ? [`complete -c kvlane -n ${begun} -a '(__fish_complete_subcommand --fcs-skip=${typed})'`] : [])];
}

function names(option: ShellOption): string {
  return option.names.map((name) => (name.startsWith('--') ? ` -l ${name.slice(2)}` : ` -s ${name.slice(1)}`)).join('');
}

function value(of: ShellValue | null): string {
  if (of === null) return '';
  const offered = offer(of);
  return offered === ' -F' ? ' -r -F' : ` -x${offered}`;
}

function offer(of: ShellValue): string {
  if (of.choices.length > 0) return ` -a ${quotedForFish(of.choices.join(' '))}`;
  return { file: ' -F', directory: " -a '(__fish_complete_directories)'", mount: " -a '(__kvlane_mount)'", command: " -a '(__fish_complete_command)'", nothing: '' }[of.completes];
}
