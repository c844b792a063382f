// validators.mjs — one function a message, compiled by ajv so that ajv is not needed at run time.
// Lengths count UTF-16 units (`unicode: false`): counting characters would import ajv's run time, and every
// string with a length limit is ASCII by its pattern or checked in bytes by decode.ts. Patterns are ASCII too, and V8 runs
// them in half the time without the flag u (`unicodeRegExp: false`): there is one for each key of a request.
// Plain Ajv and not Ajv2020: the subset means the same in both, and the code comes out a third smaller.

import { Ajv } from 'ajv';
import standalone from 'ajv/dist/standalone/index.js';
import { BANNER } from './schema.mjs';

/** tables: export name → the messages of one side. */
export function validators(protocol, file, tables) {
  const ajv = new Ajv({ strict: true, allowUnionTypes: true, strictTypes: false, unicode: false, unicodeRegExp: false, inlineRefs: false, messages: false, logger: false, code: { source: true, esm: true, lines: true } });
  const all = [...protocol.types, ...protocol.requests, ...protocol.answers, ...protocol.events];
  const local = ({ description, ...schema }) => JSON.parse(JSON.stringify(schema).replace(/"\$ref":"(\w+)"/g, '"$ref":"kvlane#/$defs/$1"'));
  ajv.addSchema({ $id: 'kvlane', $defs: Object.fromEntries(all.map(({ name, schema }) => [name, local(schema)])) });
  const wanted = Object.values(tables).flat();
  const code = standalone.default(ajv, Object.fromEntries(wanted.map(({ name }) => [`validate${name}`, `kvlane#/$defs/${name}`])));
  if (/\brequire\(|^import /m.test(code)) throw new Error('the compiled validators would need ajv at run time');
  return [
    `// @ts-nocheck`,
    `// ${file} — is this value that message? After a no, the function's own \`errors\` says why.`,
    `// ${BANNER}\n`,
    code.replace(/^"use strict";\n?/, '').replace(/^export const validate\w+ = \w+;\n/gm, '').trimStart(),
    ...Object.entries(tables).map(([name, set]) => `export const ${name} = {\n${set.map((entry) => `  ${entry.key}: ${exported(code, entry.name)},`).join('\n')}\n};`),
    '',
  ].join('\n');
}

const exported = (code, name) => new RegExp(`^export const validate${name} = (\\w+);`, 'm').exec(code)[1];
