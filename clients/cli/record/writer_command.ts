// record-writer — the other process of `kvlane record`; nobody types it.
import { whole } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'record-writer',
  summary: 'write the file of kvlane record',
  description: 'Writes the file of kvlane record, which starts it.',
  usage: 'FILE --life N --max-bytes B',
  hidden: true,
  arguments: [{ name: 'FILE', does: 'the record' }],
  options: [
    { flags: '--life <N>', does: 'which life it writes of', parse: whole(1, 2 ** 31) },
    { flags: '--max-bytes <B>', does: 'where it stops', parse: whole(1, Number.MAX_SAFE_INTEGER) },
  ],
  examples: [{ shows: 'By kvlane record alone:', type: 'kvlane record-writer FILE --life 1 --max-bytes 1048576' }],
  exitCodes: [
    [0, 'all is written'],
    [1, 'the file took not all of it'],
    [2, 'a bad option'],
  ],
  async run({ words, options }) {
    const { runWriter } = await import('./writer.ts');
    return runWriter(words[0]!, options['life'] as number, options['maxBytes'] as number);
  },
};
