// run.mjs — makes one script of the simulation and the policy half, since Node does not read TypeScript, and runs it here.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';

const here = import.meta.dirname;
const out = join(here, 'build', `sim-${process.pid}.mjs`);

const build = await rolldown({ input: join(here, 'main.ts'), platform: 'node', logLevel: 'warn' });
await build.write({ file: out, format: 'esm', codeSplitting: false });
await build.close();
const { rmSync } = await import('node:fs');
process.on('exit', () => rmSync(out, { force: true }));
await import(pathToFileURL(out).href);
