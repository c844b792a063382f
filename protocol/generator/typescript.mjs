// typescript.mjs — messages.ts: the wire's types, and the tables that are needed at run time.

import { BANNER, typesOf } from './schema.mjs';

const quote = (value) => (typeof value === 'string' ? `'${value}'` : JSON.stringify(value));

function type(schema) {
  const one = (kind) => {
    switch (kind) {
      case '$ref': return schema.$ref;
      case 'enum': return schema.enum.map(quote).join(' | ');
      case 'const': return quote(schema.const);
      case 'integer': return 'number';
      case 'array': {
        const item = type(schema.items);
        return item.includes('|') ? `(${item})[]` : `${item}[]`;
      }
      case 'object': return schema.properties ? fields(schema) : `Record<string, ${type(schema.additionalProperties)}>`;
      case undefined: return 'unknown';
      default: return kind;
    }
  };
  return schema === true ? 'unknown' : typesOf(schema).map(one).join(' | ');
}

function fields(schema) {
  const lines = Object.entries(schema.properties).map(([name, field]) =>
    schema.required.includes(name) ? `  ${name}: ${type(field)};` : `  ${name}?: ${type(field)} | undefined;`);
  return `{\n${lines.join('\n')}\n}`;
}

function declare({ name, schema }) {
  const comment = schema.description ? `/** ${schema.description} */\n` : '';
  const body = type(schema);
  return body.startsWith('{') ? `${comment}export interface ${name} ${body}\n` : `${comment}export type ${name} = ${body};\n`;
}

const union = (name, set) => `export type ${name} =\n${set.map((entry) => `  | ${entry.name}`).join('\n')};\n`;
const byKey = (name, set) => `export interface ${name} {\n${set.map((entry) => `  ${entry.key}: ${entry.name};`).join('\n')}\n}\n`;

export function typescript(protocol) {
  const { limits, codes, types, requests, answers, events } = protocol;
  const unit = (entry) => (entry.unit ? `${entry.unit}. ` : '');
  const enums = types.filter((entry) => entry.schema.enum);
  return [
    `// messages.ts — what goes over the wire: types, codes, limits.\n// ${BANNER}\n`,
    `export const PROTOCOL = ${protocol.number};\nexport const VERSION = '${protocol.version}';\n`,
    `export const LIMITS = {\n${Object.entries(limits).map(([name, limit]) => `  /** ${unit(limit)}${limit.reason} */\n  ${name}: ${limit.value},`).join('\n')}\n} as const;\n`,
    ...types.map(declare),
    ...enums.map(({ name, schema }) => `export const ${constant(name)}: readonly ${name}[] = [${schema.enum.map(quote).join(', ')}];\n`),
    `/** What each code means, and what the caller should do next. */\nexport const CODE_TABLE: Record<Code, { meaning: string; next: string }> = {\n${Object.entries(codes).map(([code, { meaning, next }]) => `  ${code}: {\n    meaning: ${JSON.stringify(meaning)},\n    next: ${JSON.stringify(next)},\n  },`).join('\n')}\n};\n`,
    `/** The fields each op takes. */\nexport const REQUEST_FIELDS: Record<Op, readonly string[]> = {\n${requests.map(({ key, schema }) => `  ${key}: [${Object.keys(schema.properties).map(quote).join(', ')}],`).join('\n')}\n};\n`,
    ...requests.map(declare),
    union('RequestMessage', requests),
    byKey('RequestMessages', requests),
    ...answers.map(declare),
    union('Answer', answers),
    byKey('Answers', answers),
    ...events.map(declare),
    union('Event', events),
    byKey('Events', events),
  ].join('\n');
}

/** SlotWord → SLOT_WORDS */
export function constant(name) {
  const snake = name.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase();
  if (snake.endsWith('S')) return `${snake}ES`;
  return snake.endsWith('CLASS') ? `${snake}ES` : `${snake}S`;
}
