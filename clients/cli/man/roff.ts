// roff.ts — a page as man(1) reads it: the an macros, no others, so that groff, mandoc and old troffs agree.
import type { Page, Part } from './page.ts';

export function roff(page: Page): string {
  const lines = [
    `.TH ${page.name.toUpperCase()} 1 "" "kvlane ${page.version}" "kvlane"`,
    '.SH NAME',
    `${escaped(page.name)} \\- ${escaped(page.summary)}`,
    ...page.sections.flatMap(({ title, parts }) => [`.SH ${quoted(title)}`, ...parts.flatMap(macros)]),
  ];
  return `${lines.join('\n')}\n`;
}

function macros(part: Part): string[] {
  switch (part.kind) {
    case 'paragraph':
      return ['.PP', ...text(part.text)];
    case 'literal':
      return ['.PP', '.RS 4', '.nf', ...text(part.text), '.fi', '.RE'];
    case 'term':
      return ['.TP', `\\fB${escaped(part.term)}\\fR`, ...text(part.text)];
  }
}

function text(words: string): string[] {
  return words.split('\n').map((line) => escaped(line).replace(/^([.'])/, '\\&$1'));
}

/** A hyphen is a line break for roff and a minus for whoever copies an option. */
function escaped(words: string): string {
  return words
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/[^\0-\x7f]/gu, (wide) => `\\[u${wide.codePointAt(0)!.toString(16).toUpperCase().padStart(4, '0')}]`);
}

function quoted(title: string): string {
  return `"${escaped(title).replaceAll('"', '\\(dq')}"`;
}
