// python.mjs — _messages.py: the same types for Python 3.10, without typing_extensions.
// Optional fields make two classes (required first, then total=False), since NotRequired came with 3.11;
// a field named like a keyword ("class") needs TypedDict's call form.

import { BANNER, typesOf } from './schema.mjs';
import { constant } from './typescript.mjs';

const KEYWORDS = new Set(['class', 'from', 'import', 'global', 'pass', 'in', 'is']);
const WIDTH = 120;
const quote = (value) => (value === true ? 'True' : value === false ? 'False' : JSON.stringify(value));

function type(schema) {
  const one = (kind) => {
    switch (kind) {
      case '$ref': return schema.$ref;
      case 'enum': return `Literal[${schema.enum.map(quote).join(', ')}]`;
      case 'const': return `Literal[${quote(schema.const)}]`;
      case 'integer': return 'int';
      case 'string': return 'str';
      case 'boolean': return 'bool';
      case 'null': return 'None';
      case 'array': return `list[${type(schema.items)}]`;
      case 'object': return `dict[str, ${schema.additionalProperties === true ? 'object' : type(schema.additionalProperties)}]`;
      default: throw new Error(`no Python type for ${JSON.stringify(schema)}`);
    }
  };
  return typesOf(schema).map(one).join(' | ');
}

function classes(name, schema) {
  const entries = Object.entries(schema.properties);
  const doc = schema.description ? wrapped(`    """${schema.description}"""`) : '';
  const body = (set) => set.map(([field, node]) => `    ${field}: ${type(node)}`).join('\n');
  const required = entries.filter(([field]) => schema.required.includes(field));
  const optional = entries.filter(([field]) => !schema.required.includes(field));
  const base = (own, documented) => {
    if (!required.some(([field]) => KEYWORDS.has(field))) return `class ${own}(TypedDict):\n${documented}${body(required)}\n`;
    return `${own} = TypedDict(\n    "${own}",\n    {\n${required.map(([field, node]) => `        "${field}": ${type(node)},`).join('\n')}\n    },\n)\n`;
  };
  if (optional.length === 0) return base(name, doc && `${doc}\n\n`);
  return `${base(`_${name}Required`, '')}\n\nclass ${name}(_${name}Required, total=False):\n${doc && `${doc}\n\n`}${body(optional)}\n`;
}

function wrapped(line) {
  if (line.length <= WIDTH) return line;
  const out = [];
  let current = '   ';
  for (const word of line.trim().split(' ')) {
    if (current.length + 1 + word.length > WIDTH) {
      out.push(current);
      current = '   ';
    }
    current += ` ${word}`;
  }
  return [...out, current].join('\n');
}

function declare({ name, schema }) {
  if (schema.properties) return classes(name, schema);
  if (schema.enum) return `${name} = Literal[\n${schema.enum.map((word) => `    ${quote(word)},`).join('\n')}\n]\n`;
  return `${name} = ${type(schema)}\n`;
}

function union(name, set) {
  const names = set.map((entry) => entry.name);
  const line = `${name} = ${names.join(' | ')}`;
  return line.length <= WIDTH ? `${line}\n` : `${name} = (\n    ${names.join('\n    | ')}\n)\n`;
}

/** A string over as many source lines as it needs. */
function text(value, indent) {
  const room = WIDTH - indent.length - 4;
  const lines = [];
  let current = '';
  for (const word of value.split(/(?<= )/)) {
    if (JSON.stringify(current + word).length > room) {
      lines.push(current);
      current = '';
    }
    current += word;
  }
  lines.push(current);
  return lines.length === 1 ? `${indent}${quote(lines[0])},` : `${indent}(\n${lines.map((line) => `${indent}    ${quote(line)}`).join('\n')}\n${indent}),`;
}

/** In the order Python can read: a name before its first use. */
function ordered(entries) {
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  const out = new Set();
  const visit = (entry) => {
    if (out.has(entry)) return;
    for (const [, name] of JSON.stringify(entry.schema).matchAll(/"\$ref":"(\w+)"/g)) visit(byName.get(name));
    out.add(entry);
  };
  entries.forEach(visit);
  return [...out];
}

export function python(protocol) {
  const { limits, codes, types, requests, answers, events } = protocol;
  const enums = types.filter((entry) => entry.schema.enum);
  const limitLines = Object.entries(limits).flatMap(([name, limit]) => [
    ...wrapped(`    # ${limit.unit ? `${limit.unit}. ` : ''}${limit.reason}`).split('\n').map((line, i) => (i === 0 ? line : line.replace('    ', '    # '))),
    `${name.toUpperCase()}: Final = ${limit.value}`,
  ]);
  return [
    `"""What goes over the wire: types, codes, limits.\n\n${BANNER.replace('; run', ';\nrun')}\n"""\n`,
    `from __future__ import annotations\n\nfrom typing import Final, Literal, NamedTuple, TypedDict\n`,
    `PROTOCOL: Final = ${protocol.number}\nVERSION: Final = ${quote(protocol.version)}\n`,
    `${limitLines.map((line) => line.replace(/^ {4}/, '')).join('\n')}\n`,
    `LIMITS: Final[dict[str, int]] = {\n${Object.keys(limits).map((name) => `    "${name}": ${name.toUpperCase()},`).join('\n')}\n}\n`,
    ...ordered(types).map((entry) => (entry.schema.properties ? `\n${declare(entry)}\n` : declare(entry))),
    ...enums.map(({ name, schema }) => `${constant(name)}: Final[tuple[${name}, ...]] = (\n${schema.enum.map((word) => `    ${quote(word)},`).join('\n')}\n)\n`),
    `\nclass CodeFacts(NamedTuple):\n    """What a code means, and what the caller should do next."""\n\n    meaning: str\n    next: str\n\n`,
    `CODE_TABLE: Final[dict[Code, CodeFacts]] = {\n${Object.entries(codes).map(([code, { meaning, next }]) => `    "${code}": CodeFacts(\n${text(meaning, '        ')}\n${text(next, '        ')}\n    ),`).join('\n')}\n}\n`,
    ...[...requests, ...answers, ...events].map((entry) => `\n${declare(entry)}\n`),
    union('RequestMessage', requests),
    union('Answer', answers),
    union('Event', events),
  ].join('\n').replace(/\n{4,}/g, '\n\n\n').replace(/\n+$/, '\n');
}
