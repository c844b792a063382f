// serve.ts — `serve` as the table shows it: its options are those that sidecar/options.ts gives commander, and no others.
//
// It runs here only on a terminal, where it is the console: launch.cjs takes the sidecar's own script for it otherwise, which is
// why it is ready so soon.
import type { Option } from 'commander';
import { serveProgram } from '../../sidecar/options.ts';
import { SERVE_BY_HAND, SERVE_DESCRIPTION, SERVE_EXAMPLES, SERVE_EXIT_CODES, SERVE_SIZES, SERVE_SPEAKS, SERVE_SUMMARY, SERVE_USAGE } from '../../sidecar/serve_words.ts';
import type { CommandSpec, OptionSpec } from './spec.ts';

const { serve } = serveProgram(process.cwd, () => {}, () => {});

export const command: CommandSpec = {
  name: 'serve',
  summary: SERVE_SUMMARY,
  description: `${SERVE_DESCRIPTION}\n\n${SERVE_SPEAKS}\n\n${SERVE_SIZES}`,
  usage: SERVE_USAGE,
  options: serve.options.map(specOf),
  sections: [{ title: 'By hand', text: SERVE_BY_HAND }],
  examples: SERVE_EXAMPLES,
  exitCodes: SERVE_EXIT_CODES,
  seeAlso: ['console', 'record'],
  takesAll: true,
  async run({ all }) {
    const { runConsole } = await import('./console/run.ts');
    return runConsole(all, { keepHistory: true, attach: null, record: null });
  },
};

function specOf(option: Option): OptionSpec {
  return {
    flags: option.flags,
    does: option.description,
    ...(option.argChoices ? { choices: option.argChoices } : {}),
    ...(option.defaultValue !== undefined ? { default: option.defaultValue as unknown } : {}),
    ...(option.defaultValueDescription !== undefined ? { defaultShown: option.defaultValueDescription } : {}),
    completes: option.long === '--mount' ? 'mount' : option.long === '--attach-dir' ? 'directory' : 'nothing',
    hidden: option.long?.startsWith('--test-') ?? false,
  };
}
