// command_line.ts — words → which command, and what was given to it; or what to say instead. Pure, as sidecar/options.ts.
//
// commander parses, from the table: each command is a program of its own, so that only the one that is meant is built.
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { VERSION } from '../../protocol/messages.ts';
import { nearest } from '../../protocol/nearest.ts';
import { EXIT_OK, EXIT_USAGE, Wrong } from './spec.ts';
import type { CommandSpec, Given, OptionSpec } from './spec.ts';

export type Parsed = { do: 'run'; command: CommandSpec; given: Given } | { do: 'say'; text: string; exitCode: number };

const WIDTH_MIN = 60;
const WIDTH_MAX = 120;

export function parseWords(words: readonly string[], table: readonly CommandSpec[], width = 100): Parsed {
  const [first, ...others] = words;
  if (first === undefined) return { do: 'say', text: overview(table), exitCode: EXIT_USAGE };
  if (first === '-h' || first === '--help') return { do: 'say', text: overview(table), exitCode: EXIT_OK };
  if (first === '-V' || first === '--version') return { do: 'say', text: `${VERSION}\n`, exitCode: EXIT_OK };
  const command = table.find((one) => one.name === first);
  if (command === undefined) return { do: 'say', text: unknownCommand(first, table), exitCode: EXIT_USAGE };

  if (command.takesAll) {
    if (others.some((word) => word === '-h' || word === '--help')) return { do: 'say', text: helpOf(command, width), exitCode: EXIT_OK };
    return { do: 'run', command, given: { options: {}, words: [], rest: [], all: others, typed: () => false } };
  }
  let said = '';
  const program = commanderOf(command, width).exitOverride().configureOutput({
    writeOut: (text) => void (said += text),
    writeErr: (text) => void (said += text),
    outputError: (text, write) => write(text.replace(/^error: /, 'kvlane: ')),
  });
  try {
    program.parse([...others], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.missingArgument') said = `${said.trimEnd()}; usage: kvlane ${command.name} ${command.usage}\n`;
    return { do: 'say', text: said, exitCode: error.code === 'commander.helpDisplayed' ? EXIT_OK : EXIT_USAGE };
  }
  const named = command.arguments?.some((argument) => argument.variadic) ? program.args.length : (command.arguments?.length ?? 0);
  let rest = program.args.slice(named);
  if (command.rest === undefined && rest.length > 0) {
    return { do: 'say', text: `kvlane: ${command.name} does not know what to do with '${rest[0]}'; usage: kvlane ${command.name} ${command.usage}\n`, exitCode: EXIT_USAGE };
  }
  if (rest[0] === '--') rest = rest.slice(1);
  const given: Given = {
    options: program.opts(),
    words: program.args.slice(0, named),
    rest,
    all: others,
    typed: (option) => program.getOptionValueSource(option) === 'cli',
  };
  return { do: 'run', command, given };
}

/** What `kvlane CMD --help` says. */
export function helpOf(command: CommandSpec, width = 100): string {
  let said = '';
  commanderOf(command, width).configureOutput({ writeOut: (text) => void (said += text) }).outputHelp();
  return said;
}

/** What `kvlane --help` says. */
export function overview(table: readonly CommandSpec[]): string {
  const shown = table.filter((command) => !command.hidden);
  const wide = Math.max(...shown.map((command) => command.name.length)) + 2;
  const lines = [
    'Usage: kvlane COMMAND [options]',
    '',
    'KV cache blocks in and out of a mounted file system, every request answered by its deadline.',
    '',
    'Commands:',
    ...shown.map((command) => `  ${command.name.padEnd(wide)}${command.summary}`),
    '',
    'Options:',
    `  ${'-h, --help'.padEnd(Math.max(wide, 14))}print this help`,
    `  ${'-V, --version'.padEnd(Math.max(wide, 14))}print the version`,
    '',
    'More on one of them: kvlane help COMMAND, or kvlane man COMMAND for its whole page.',
    '',
  ];
  return lines.join('\n');
}

export function unknownCommand(word: string, table: readonly CommandSpec[]): string {
  const names = table.filter((command) => !command.hidden).map((command) => command.name);
  const meant = nearest(word, names);
  return `kvlane: there is no command '${word}'${meant ? `; did you mean ${meant}?` : ''} (${names.join(', ')}; kvlane --help says what they do)\n`;
}

export function commanderOf(command: CommandSpec, width: number): Command {
  const helpWidth = Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, width));
  const program = new Command(`kvlane ${command.name}`)
    .usage(command.usage)
    .description(command.description)
    .helpOption('-h, --help', 'print this help')
    .showSuggestionAfterError()
    .configureHelp({ helpWidth })
    .allowExcessArguments(true) // refused in words that help more, or the rest
    .addHelpText('after', after(command));
  if (command.rest) program.passThroughOptions();
  for (const { name, does, optional, variadic, choices } of command.arguments ?? []) {
    const inner = variadic ? `${name}...` : name;
    program.argument(optional ? `[${inner}]` : `<${inner}>`, choices ? `${does} (${choices.join(', ')})` : does);
  }
  for (const option of command.options) program.addOption(optionOf(option));
  return program;
}

function optionOf(spec: OptionSpec): Option {
  const option = new Option(spec.flags, spec.does);
  if (spec.default !== undefined) option.default(spec.default, spec.defaultShown);
  if (spec.hidden) option.hideHelp();
  if (spec.choices) option.choices([...spec.choices]);
  const { parse } = spec;
  if (parse) {
    option.argParser((word: string, before: unknown) => {
      try {
        return parse(word, before);
      } catch (error) {
        if (error instanceof Wrong) throw new InvalidArgumentError(error.message);
        throw error;
      }
    });
  }
  return option;
}

function after(command: CommandSpec): string {
  const parts: string[] = [];
  if (command.rest) parts.push(`${command.rest.name}: ${command.rest.does}`);
  for (const { title, text } of command.sections ?? []) parts.push(`${title}:\n${indented(text)}`);
  if (command.examples.length > 0) parts.push(`Examples:\n${command.examples.map(({ type, shows }) => `  ${shows}\n    $ ${type.replaceAll('\n', '\n    ')}`).join('\n')}`);
  parts.push(`Exit status:\n${command.exitCodes.map(([code, when]) => `  ${String(code).padStart(3)}  ${when}`).join('\n')}`);
  return `\n${parts.join('\n\n')}`;
}

function indented(text: string): string {
  return text.split('\n').map((line) => (line === '' ? '' : `  ${line}`)).join('\n');
}
