// colour.ts — colours where they are welcome: on a terminal that is not dumb, and unless NO_COLOR says otherwise (no-color.org).

export type Paint = (text: string) => string;

export interface Colours {
  dim: Paint;
  bold: Paint;
  good: Paint;
  bad: Paint;
  warn: Paint;
  key: Paint;
}

const painted = (on: number, off: number): Paint => (text) => (text === '' ? '' : `\x1b[${on}m${text}\x1b[${off}m`);
const plain: Paint = (text) => text;

export function colours(wanted: boolean): Colours {
  if (!wanted) return { dim: plain, bold: plain, good: plain, bad: plain, warn: plain, key: plain };
  return { dim: painted(2, 22), bold: painted(1, 22), good: painted(32, 39), bad: painted(31, 39), warn: painted(33, 39), key: painted(36, 39) };
}

export function coloursWanted(terminal: boolean, env: NodeJS.ProcessEnv): boolean {
  if (env['NO_COLOR'] !== undefined && env['NO_COLOR'] !== '') return false;
  if (env['FORCE_COLOR'] !== undefined && env['FORCE_COLOR'] !== '0') return true;
  return terminal && env['TERM'] !== 'dumb';
}

const OBEYED = /[\0-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** As one line, and what turns the direction of writing made visible too. A backslash stays one: commands are shown so. */
export function oneLine(text: string): string {
  return text.replace(OBEYED, (wild) => {
    const code = wild.charCodeAt(0);
    return code < 256 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u${code.toString(16).padStart(4, '0')}`;
  });
}

/** JSON text of any layout, with what JSON would leave as it is but a terminal not. */
export function harmlessJson(text: string): string {
  return text.replace(OBEYED, (wild) => (wild === '\n' ? wild : `\\u${wild.charCodeAt(0).toString(16).padStart(4, '0')}`));
}

/** What a terminal would obey, made visible: keys and texts come from files and engines. */
export function harmless(text: string): string {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f]/g, (wild) => `\\x${wild.charCodeAt(0).toString(16).padStart(2, '0')}`);
}
