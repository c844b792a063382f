// generate.mjs — makes everything that is written from protocol.json; `--check` compares instead and names what drifted.
// Plain JavaScript, since it runs before tsc has made anything of ours.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readProtocol } from './generator/schema.mjs';
import { typescript } from './generator/typescript.mjs';
import { python } from './generator/python.mjs';
import { validators } from './generator/validators.mjs';
import { withTables } from './generator/readme.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const at = (path) => join(root, path);
const read = (path) => {
  try {
    return readFileSync(at(path), 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
};

const protocol = readProtocol(JSON.parse(read('protocol/protocol.json')), JSON.parse(read('package.json')).version);
const readme = read('protocol/README.md');
const outputs = {
  'protocol/messages.ts': typescript(protocol),
  'protocol/validate_requests.generated.ts': validators(protocol, 'validate_requests.generated.ts', { requestValidators: protocol.requests }),
  'protocol/validate_answers.generated.ts': validators(protocol, 'validate_answers.generated.ts', { answerValidators: protocol.answers, eventValidators: protocol.events }),
  'clients/python/src/kvlane/_messages.py': python(protocol),
  'protocol/README.md': withTables(readme, protocol),
};

const check = process.argv.includes('--check');
let drifted = 0;
for (const [path, text] of Object.entries(outputs)) {
  if (read(path) === text) continue;
  drifted += 1;
  if (check) {
    process.stderr.write(`${path} is not what protocol/protocol.json says; run: npm run protocol:generate\n`);
  } else {
    mkdirSync(dirname(at(path)), { recursive: true });
    writeFileSync(at(path), text);
    process.stdout.write(`wrote ${relative(process.cwd(), at(path))}\n`);
  }
}
if (check && drifted > 0) process.exitCode = 1;
