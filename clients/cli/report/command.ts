// report — a record as a picture: one page that shows what happened, for whoever was not there.
import { EXIT_OK, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'report',
  summary: 'turn a record into one HTML page: requests, lanes, states and latencies over time',
  description:
    'Reads a record of kvlane record and writes one HTML page: the states of the mounts, requests by how they ended, latencies, what the kernel held and on which lanes, and tables of the same.\n\n' +
    'The page needs nothing else: no network, no script. Keys, mounts and log lines of the record are in it.',
  usage: 'FILE [--output PAGE]',
  arguments: [{ name: 'FILE', does: 'a record; - reads it from stdin', completes: 'file' }],
  options: [{ flags: '-o, --output <PAGE>', does: 'write it there; - prints it. Without it: beside the record, with .html at its end', completes: 'file' }],
  examples: [
    { type: 'kvlane report bug.ndjson', shows: 'Makes bug.ndjson.html:' },
  ],
  exitCodes: [
    [0, 'written'],
    [2, 'the record cannot be read, or is none; the page cannot be written'],
  ],
  seeAlso: ['record', 'replay', 'top'],
  async run({ words, options }) {
    const { promises: fs } = await import('node:fs');
    const { readRecord } = await import('../record/read.ts');
    const { pageOf } = await import('./page.ts');
    const { print, printError } = await import('../output.ts');
    const file = words[0]!;
    const { lives, damaged } = await readRecord(file);
    const page = pageOf(file === '-' ? 'a record' : file, lives, damaged);
    const output = (options['output'] as string | undefined) ?? (file === '-' ? '-' : `${file}.html`);
    if (output === '-') {
      await print(page);
      return EXIT_OK;
    }
    try {
      await fs.writeFile(output, page, { mode: 0o600 }); // as the record: texts that were stored may be in it
    } catch (error) {
      throw new Wrong(`${output} cannot be written: ${(error as Error).message}`);
    }
    await printError(`kvlane report: ${output}\n`);
    return EXIT_OK;
  },
};
