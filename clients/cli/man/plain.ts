// plain.ts — a page as text, for where there is no man(1), as in most containers.
import type { Page, Part } from './page.ts';

const INDENT = 7;
const TERM_INDENT = 14;
const WIDTH_MIN = 50;
const WIDTH_MAX = 100; // longer lines are hard to read

export function plain(page: Page, columns: number): string {
  const width = Math.min(WIDTH_MAX, Math.max(WIDTH_MIN, columns));
  const title = `${page.name.toUpperCase()}(1)`;
  const lines = [
    `${title}${'kvlane'.padStart(width - title.length)}`,
    '',
    'NAME',
    ...filled(`${page.name} - ${page.summary}`, INDENT, width),
    '',
    ...page.sections.flatMap((section) => [section.title, ...section.parts.flatMap((part) => laidOut(part, width)), '']),
    `kvlane ${page.version}`,
  ];
  return `${lines.join('\n').replace(/\n{3,}/g, '\n\n')}\n`;
}

function laidOut(part: Part, width: number): string[] {
  switch (part.kind) {
    case 'paragraph':
      return [...filled(part.text, INDENT, width), ''];
    case 'literal':
      return [...part.text.split('\n').map((line) => `${' '.repeat(INDENT + 4)}${line}`), ''];
    case 'term': {
      const [first = '', ...more] = filled(part.text, TERM_INDENT, width);
      const beside = INDENT + part.term.length + 2 <= TERM_INDENT;
      const term = `${' '.repeat(INDENT)}${part.term}`;
      return [...(beside ? [`${term.padEnd(TERM_INDENT)}${first.trimStart()}`] : [term, first]), ...more, ''];
    }
  }
}

/** Broken between words, never inside one. */
export function filled(text: string, indent: number, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(/\s+/)) {
    if (line !== '' && indent + line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line].map((one) => `${' '.repeat(indent)}${one}`);
}
