// zsh.ts — by _arguments, which knows where each word stands; #compdef makes it work from a folder in fpath and from `eval`.
import { quoted } from './quoted.ts';
import type { ShellCommand, ShellOption, ShellValue } from './words.ts';

export function zsh(commands: readonly ShellCommand[]): string {
  return `#compdef kvlane
# Completion of kvlane for zsh; made by: kvlane completion zsh
_kvlane_mount() {
  if compset -P '*='; then _files -/; else _message -e name 'NAME=DIR'; compadd -S '' -- kv0=; fi
}
_kvlane() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -C '(- *)'{-h,--help}'[print this help]' '(- *)'{-V,--version}'[print the version]' '1: :->command' '*:: :->words' && return
  case $state in
    command)
      local -a commands=(
${commands.map((command) => `        ${quoted(`${command.name}:${command.summary}`)}`).join('\n')}
      )
      _describe -t commands 'command' commands ;;
    words)
      case $words[1] in
${commands.map(one).join('\n')}
      esac ;;
  esac
}
if [[ $funcstack[1] == _kvlane ]]; then _kvlane "$@"; else compdef _kvlane kvlane; fi
`;
}

function one(command: ShellCommand): string {
  const options = command.options.map((option) => optionSpec(option));
  const named = command.arguments.map((argument, i) => quoted(`${i + 1}:${safe(argument.name)}:${action(argument)}`));
  const rest = command.rest ? [quoted('*:: :_normal')] : [];
  return `        ${command.name})
          _arguments -S${command.rest ? ' -A "-*"' : ''} ${[...options, ...named, ...rest].join(' \\\n            ')} ;;`;
}

function optionSpec(option: ShellOption): string {
  const tail = `[${safe(option.does)}]${option.value === null ? '' : `:${safe(option.value.name)}:${action(option.value)}`}`;
  if (option.names.length === 1) return quoted(`${option.repeats ? '*' : ''}${option.names[0]}${tail}`);
  return `${option.repeats ? "'*'" : quoted(`(${option.names.join(' ')})`)}{${option.names.join(',')}}${quoted(tail)}`;
}

function action(value: ShellValue): string {
  if (value.choices.length > 0) return `(${value.choices.join(' ')})`;
  return { file: '_files', directory: '_files -/', mount: '_kvlane_mount', command: '_command_names -e', nothing: ' ' }[value.completes];
}

/** Within a spec a colon ends a part, and a bracket a description. */
function safe(text: string): string {
  return text.replace(/[[\]:\\]/g, '\\$&');
}
