// build.mjs — test/fuzz/build/lines.mjs, and one more for each fault that is planted in a copy of the source: the fuzzer must find
// them all. A planting that changes nothing is an error.
import { mkdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const here = dirname(fileURLToPath(import.meta.url));

/** Name → file, what stands there, what stands there instead. */
export const PLANTED = {
  'a line loses its first byte at a chunk border': ['line_reader.ts', 'if (keptBytes > 0) {', 'if (keptBytes > 1) {'],
  'null ends the reader': ['line_reader.ts', "if (word === 'null') return handlers.onValue(null, line);", ''],
  'bytes that are not UTF-8 become another key': ['line_reader.ts', 'if (!isUtf8(bytes)) return refuse(notUtf8(bytes));', ''],
  'a line too long is answered twice': ['line_reader.ts', 'skipping = true;', ''],
  'a slot may come twice': ['decode_blocks.ts', 'if (seen.has(slot)) throw', 'if (false) throw'],
  'a refusal does not say which field': ['explain.ts', 'return `${path} must be', 'return `this must be'],
  'what is quoted may move a terminal': ['nearest.ts', '/[\\u007f-\\u009f]/g', '/[]/g'],
  'a slot may be out of bounds': ['decode_blocks.ts', 'if (slot < bounds.slots) return slot;', 'return slot;'],
};

export async function build(name) {
  const [file, there, instead] = name === undefined ? [] : PLANTED[name];
  let changed = name === undefined;
  const plant = {
    name: 'plant',
    transform(code, id) {
      if (file === undefined || !id.endsWith(`/${file}`) || !code.includes(there)) return null;
      changed = true;
      return { code: code.replace(there, () => instead), map: null };
    },
  };
  const made = await rolldown({ input: join(here, 'lines.ts'), platform: 'node', logLevel: 'warn', plugins: [plant] });
  const folder = join(here, 'build', name === undefined ? '' : name.replace(/[^a-z]+/gi, '-'));
  mkdirSync(folder, { recursive: true });
  const { output } = await made.write({ format: 'esm', codeSplitting: false, file: join(folder, 'lines.mjs') });
  await made.close();
  if (!changed) throw new Error(`nothing to plant "${name}" in: ${file} has no ${there}`);
  if (output.length !== 1) throw new Error('wanted one file');
  return join(folder, 'lines.mjs');
}
