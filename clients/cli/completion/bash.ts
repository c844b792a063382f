// bash.ts — for bash 4 and later, with or without the package bash-completion.
//
// bash takes `=` for the end of a word (COMP_WORDBREAKS), so --mount kv0=/mnt is three words to us, and what is offered
// after the `=` is the path alone.
import { quoted } from './quoted.ts';
import type { ShellCommand, ShellOption, ShellValue } from './words.ts';

export function bash(commands: readonly ShellCommand[]): string {
  return `# Completion of kvlane for bash; made by: kvlane completion bash
_kvlane() {
  local cur=\${COMP_WORDS[COMP_CWORD]} prev=\${COMP_WORDS[COMP_CWORD-1]} command= place=0 skip=0 word i
  COMPREPLY=()
  # NAME=DIR: three words here, or two while DIR is empty.
  if [[ $cur == = ]]; then cur=; prev==; fi
  if [[ $prev == = ]]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -d -- "$cur")
    return
  fi
  if (( COMP_CWORD == 1 )); then
    mapfile -t COMPREPLY < <(compgen -W ${quoted([...commands.map((command) => command.name), '--help', '--version'].join(' '))} -- "$cur")
    return
  fi
  command=\${COMP_WORDS[1]}
  # Which argument is this: words before it that are no options and no values of options.
  for (( i = 2; i < COMP_CWORD; i++ )); do
    word=\${COMP_WORDS[i]}
    if (( skip )); then skip=0; continue; fi
    if [[ $word == -- ]]; then place=$(( place + 1 )); continue; fi
    if [[ $word == -* ]]; then
      case "$command $word" in
${cases(commands.flatMap((command) => valued(command).map((option) => `${each(command, option)}) skip=1;;`)), 8)}
      esac
    elif [[ $word != = && \${COMP_WORDS[i-1]} != = ]]; then
      place=$(( place + 1 ))
      _kvlane_rest "$command" "$place" "$i" && return
    fi
  done
  case "$command $prev" in
${cases(commands.flatMap((command) => valued(command).map((option) => `${each(command, option)}) ${offer(option.value!)}; return;;`)), 4)}
  esac
  if [[ $cur == -* ]]; then
    case $command in
${cases(commands.map((command) => `${command.name}) ${offer({ name: '', choices: command.options.flatMap((option) => option.names.slice(0, 1)), completes: 'nothing' })};;`), 6)}
    esac
    return
  fi
  case "$command $place" in
${cases(commands.flatMap((command) => command.arguments.map((argument, place) => `'${command.name} ${place}') ${offer(argument)};;`)), 4)}
  esac
}
# True when another command line begins after this word: bash-completion completes it, where it is.
_kvlane_rest() {
  case $1 in
${cases(commands.filter((command) => command.rest).map((command) => `${command.name}) (( $2 == ${command.arguments.length} )) || return 1;;`), 4)}
    *) return 1;;
  esac
  local first=$(( $3 + 1 ))
  [[ \${COMP_WORDS[first]} == -- ]] && first=$(( first + 1 ))
  (( COMP_CWORD >= first )) || return 1
  if declare -F _command_offset >/dev/null; then _command_offset "$first"
  elif (( COMP_CWORD == first )); then mapfile -t COMPREPLY < <(compgen -c -- "\${COMP_WORDS[COMP_CWORD]}")
  else compopt -o default 2>/dev/null; fi
  return 0
}
complete -F _kvlane kvlane
`;
}

function valued(command: ShellCommand): ShellOption[] {
  return command.options.filter((option) => option.value !== null);
}

function each(command: ShellCommand, option: ShellOption): string {
  return option.names.map((name) => `'${command.name} ${name}'`).join('|');
}

function offer(value: ShellValue): string {
  if (value.choices.length > 0) return `mapfile -t COMPREPLY < <(compgen -W ${quoted(value.choices.join(' '))} -- "$cur")`;
  switch (value.completes) {
    case 'file':
      return 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")';
    case 'directory':
      return 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur")';
    case 'mount': // the name is the user's to choose; kv0= is what the manual uses
      return 'compopt -o nospace 2>/dev/null; mapfile -t COMPREPLY < <(compgen -W kv0= -- "$cur")';
    case 'command':
      return 'mapfile -t COMPREPLY < <(compgen -c -- "$cur")';
    case 'nothing':
      return ':';
  }
}

function cases(lines: readonly string[], indent: number): string {
  return lines.map((line) => `${' '.repeat(indent)}${line}`).join('\n');
}
