// page.ts — a manual page as a tree: sections of paragraphs, literal text and lists of terms. roff.ts and plain.ts lay it out.
import { VERSION } from '../../../protocol/messages.ts';
import type { ArgumentSpec, CommandSpec, OptionSpec } from '../spec.ts';

export type Part =
  | { kind: 'paragraph'; text: string }
  | { kind: 'literal'; text: string }
  /** A term, and what it means. */
  | { kind: 'term'; term: string; text: string };

export interface Page {
  /** kvlane-serve; section 1 always. */
  name: string;
  version: string;
  summary: string;
  sections: { title: string; parts: Part[] }[];
}

export function pageOf(command: CommandSpec): Page {
  const sections: Page['sections'] = [
    { title: 'SYNOPSIS', parts: [{ kind: 'literal', text: `kvlane ${command.name} ${command.usage}`.trimEnd() }] },
    { title: 'DESCRIPTION', parts: paragraphs(command.description) },
  ];
  const named = command.arguments ?? [];
  const words = [...named.map((argument): Part => ({ kind: 'term', term: argument.name, text: meaning(argument) })), ...(command.rest ? [{ kind: 'term' as const, term: command.rest.name, text: sentence(command.rest.does) }] : [])];
  if (words.length > 0) sections.push({ title: 'ARGUMENTS', parts: words });
  const shown = command.options.filter((option) => !option.hidden);
  sections.push({ title: 'OPTIONS', parts: [...shown.map((option): Part => ({ kind: 'term', term: option.flags, text: meaning(option) })), { kind: 'term', term: '-h, --help', text: 'Print a short help.' }] });
  for (const { title, text } of command.sections ?? []) sections.push({ title: title.toUpperCase(), parts: [{ kind: 'literal', text }] });
  if (command.examples.length > 0) {
    const parts = command.examples.flatMap(({ shows, type }): Part[] => [{ kind: 'paragraph', text: shows }, { kind: 'literal', text: `$ ${type}` }]);
    sections.push({ title: 'EXAMPLES', parts });
  }
  sections.push({ title: 'EXIT STATUS', parts: command.exitCodes.map(([code, when]) => ({ kind: 'term', term: String(code), text: sentence(when) })) });
  const also = ['kvlane(1)', ...(command.seeAlso ?? []).map((name) => `kvlane-${name}(1)`)];
  sections.push({ title: 'SEE ALSO', parts: [{ kind: 'paragraph', text: also.join(', ') }] });
  return { name: `kvlane-${command.name}`, version: VERSION, summary: command.summary, sections };
}

/** kvlane(1). */
export function pageOfAll(table: readonly CommandSpec[]): Page {
  const shown = table.filter((command) => !command.hidden);
  return {
    name: 'kvlane',
    version: VERSION,
    summary: "keep an inference engine's KV cache on a mount that may hang",
    sections: [
      { title: 'SYNOPSIS', parts: [{ kind: 'literal', text: 'kvlane COMMAND [options]\nkvlane --help | --version' }] },
      {
        title: 'DESCRIPTION',
        parts: paragraphs(
          'A KV cache on a mounted file system makes an inference engine faster until the mount stops answering; then the engine stops too. kvlane moves every file operation into a process of its own with hard deadlines: the engine gets an answer in time, always, and a stuck mount costs it a recompute, never a hang, never a wrong byte.',
        ),
      },
      { title: 'COMMANDS', parts: shown.map((command) => ({ kind: 'term', term: command.name, text: sentence(command.summary) })) },
      {
        title: 'EXIT STATUS',
        parts: [
          { kind: 'paragraph', text: 'Each command says its own on its page. In common they have:' },
          { kind: 'term', term: '0', text: 'All is as it should be.' },
          { kind: 'term', term: '1', text: 'The command did its work and found something that should not be so.' },
          { kind: 'term', term: '2', text: 'The command line is wrong, or what it names cannot be used; nothing was done.' },
          { kind: 'term', term: '3', text: 'Not all could be looked at: a mount that hangs, a directory that may not be read.' },
          { kind: 'term', term: '70', text: 'An error inside kvlane.' },
        ],
      },
      { title: 'SEE ALSO', parts: [{ kind: 'paragraph', text: shown.map((command) => `kvlane-${command.name}(1)`).join(', ') }] },
    ],
  };
}

function meaning(spec: OptionSpec | ArgumentSpec): string {
  const does = sentence(spec.does);
  const choices = spec.choices ? ` One of: ${spec.choices.join(', ')}.` : '';
  const fallback = 'default' in spec && spec.default !== undefined ? ` Without it: ${spec.defaultShown ?? String(spec.default)}.` : '';
  return `${does}${choices}${fallback}`;
}

function sentence(clause: string): string {
  const text = `${clause.charAt(0).toUpperCase()}${clause.slice(1)}`;
  return /[.?!:)]$/.test(text) && !text.endsWith(')') ? text : `${text}.`;
}

function paragraphs(text: string): Part[] {
  return text.split('\n\n').map((one) => ({ kind: 'paragraph', text: one }));
}
