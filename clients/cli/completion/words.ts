// words.ts — the table as a shell sees it: for each command its options, what each takes, and what stands where.
import type { CommandSpec, Completes, OptionSpec } from '../spec.ts';

export interface ShellOption {
  /** '--speed', and '-s' where there is one. */
  names: string[];
  does: string;
  /** null: takes no value. */
  value: ShellValue | null;
  repeats: boolean;
}

export interface ShellValue {
  /** What is shown for it, without brackets. */
  name: string;
  choices: readonly string[];
  completes: Completes;
}

export interface ShellCommand {
  name: string;
  summary: string;
  options: ShellOption[];
  arguments: ShellValue[];
  /** What follows the arguments is another command line. */
  rest: boolean;
}

const HELP: ShellOption = { names: ['--help', '-h'], does: 'print this help', value: null, repeats: false };

/** The arguments that are names of commands are given them: help and man know no others. */
export function shellCommands(table: readonly CommandSpec[]): ShellCommand[] {
  const shown = table.filter((command) => !command.hidden);
  const names = shown.map((command) => command.name);
  return shown.map((command) => ({
    name: command.name,
    summary: command.summary,
    options: [...command.options.filter((option) => !option.hidden).map(shellOption), HELP],
    arguments: (command.arguments ?? []).map(({ name, choices, completes }) => ({ name, choices: name === 'COMMAND' ? names : (choices ?? []), completes: completes ?? 'nothing' })),
    rest: command.rest !== undefined,
  }));
}

function shellOption(spec: OptionSpec): ShellOption {
  const names = spec.flags.match(/(?<![A-Za-z0-9])--?[A-Za-z0-9][A-Za-z0-9-]*/g) ?? [];
  const value = /[<[]([^\]>]+)[\]>]/.exec(spec.flags)?.[1];
  return {
    names: names.sort((a, b) => b.length - a.length),
    does: spec.does,
    value: value === undefined ? null : { name: value.replace('...', ''), choices: spec.choices ?? [], completes: spec.completes ?? 'nothing' },
    repeats: spec.completes === 'mount' || (value?.endsWith('...') ?? false),
  };
}
