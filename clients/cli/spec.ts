// spec.ts — what a command is to the command line: one object, of which --help, shell completion and the manual page are made.
//
// An object like this is loaded for every command, so it holds words and imports nothing heavy: what does the work
// is imported in run().

/** What the shell offers for a word. `mount` is NAME=DIR, `command` a program and its words. */
export type Completes = 'nothing' | 'file' | 'directory' | 'mount' | 'command';

export interface OptionSpec {
  /** As commander reads them: '--speed <N>', '-v, --verbose', '--no-attach'. */
  flags: string;
  /** One clause without a capital and a full stop. */
  does: string;
  choices?: readonly string[];
  default?: unknown;
  /** The default as people write it. */
  defaultShown?: string;
  /** Word → value; `before` is what an earlier occurrence made. Throws Wrong with a sentence that says what is wanted. */
  parse?: (word: string, before: unknown) => unknown;
  completes?: Completes;
  /** For tests: in no help, no completion, no page. */
  hidden?: boolean;
}

export interface ArgumentSpec {
  /** In capitals, as in the usage. */
  name: string;
  does: string;
  optional?: boolean;
  /** Takes all that is left. */
  variadic?: boolean;
  choices?: readonly string[];
  completes?: Completes;
}

export interface Example {
  type: string;
  shows: string;
}

export interface CommandSpec {
  name: string;
  /** In the list of commands: a clause without a capital and a full stop. */
  summary: string;
  /** Paragraphs, a blank line between two. */
  description: string;
  /** What follows the name. */
  usage: string;
  arguments?: readonly ArgumentSpec[];
  options: readonly OptionSpec[];
  /** Own options end at the last argument: what follows, also after --, is another command line. */
  rest?: { name: string; does: string; completes?: Completes };
  /** It reads its words itself (`all`): the options are here for its help and completion. */
  takesAll?: boolean;
  /** Further parts of the page, after the options. */
  sections?: readonly { title: string; text: string }[];
  examples: readonly Example[];
  exitCodes: readonly (readonly [code: number, when: string])[];
  seeAlso?: readonly string[];
  /** In no list; still a command. */
  hidden?: boolean;
  /** Resolves to the exit status. What it prints is its own business; a Wrong or an Error that it throws is told in one line. */
  run(given: Given): Promise<number> | number;
}

/** What was typed. */
export interface Given {
  /** By name in camel case, as commander makes it. */
  options: Record<string, unknown>;
  /** The arguments, in order; a variadic one is all the words at the end. */
  words: readonly string[];
  /** For `rest`; a leading -- is gone. */
  rest: readonly string[];
  /** Every word behind the command, as typed. */
  all: readonly string[];
  /** The option was typed, and is not its default. */
  typed(option: string): boolean;
}

/** What the user can put right: told in one sentence, without a trace, with status 2. */
export class Wrong extends Error {
  override name = 'Wrong';
  readonly exitCode: number;
  constructor(message: string, exitCode = EXIT_USAGE) {
    super(message);
    this.exitCode = exitCode;
  }
}

export const EXIT_OK = 0;
/** The command did its work, and what it found is not as it should be. */
export const EXIT_FOUND = 1;
export const EXIT_USAGE = 2;
/** The command could not look at all that it was to look at: a mount that hangs, a directory that may not be read. */
export const EXIT_UNSEEN = 3;
/** An error inside kvlane. */
export const EXIT_FATAL = 70;

/** For `parse`. */
export function whole(min: number, max: number): (word: string) => number {
  return (word) => {
    const value = /^[0-9]{1,15}$/.test(word) ? Number(word) : NaN;
    if (!(value >= min && value <= max)) throw new Wrong(`A whole number from ${min} to ${max} is wanted.`);
    return value;
  };
}
