// validators.mjs — validate.generated.ts: one function a message, compiled by ajv so that ajv is not needed at run time.
// Lengths count UTF-16 units (`unicode: false`): counting characters would import ajv's run time, and every
// string with a length limit is ASCII by its pattern or checked in bytes by decode.ts.

import Ajv2020 from 'ajv/dist/2020.js';
import standalone from 'ajv/dist/standalone/index.js';
import { BANNER } from './schema.mjs';

export function validators(protocol) {
  const ajv = new Ajv2020.default({ strict: true, allowUnionTypes: true, strictTypes: false, unicode: false, logger: false, inlineRefs: false, code: { source: true, esm: true, lines: true } });
  const all = [...protocol.types, ...protocol.requests, ...protocol.answers, ...protocol.events];
  const local = (node) => JSON.parse(JSON.stringify(node).replace(/"\$ref":"(\w+)"/g, '"$ref":"kvlane#/$defs/$1"'));
  ajv.addSchema({ $id: 'kvlane', $defs: Object.fromEntries(all.map(({ name, schema }) => [name, local(schema)])) });
  const exported = [...protocol.requests, ...protocol.answers, ...protocol.events];
  const code = standalone.default(ajv, Object.fromEntries(exported.map(({ name }) => [`validate${name}`, `kvlane#/$defs/${name}`])));
  if (/\brequire\(|^import /m.test(code)) throw new Error('the compiled validators would need ajv at run time');
  const table = (name, set) => `export const ${name} = {\n${set.map((entry) => `  ${entry.key}: validate${entry.name},`).join('\n')}\n};`;
  return [
    `// @ts-nocheck`,
    `// validate.generated.ts — is this value that message? After a no, the function's own \`errors\` says why.`,
    `// ${BANNER}\n`,
    code.replace(/^"use strict";\n?/, '').replace(/\/\/# sourceURL.*\n/g, ''),
    table('requestValidators', protocol.requests),
    table('answerValidators', protocol.answers),
    table('eventValidators', protocol.events),
    '',
  ].join('\n');
}
