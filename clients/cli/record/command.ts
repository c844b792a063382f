// record — a client and a sidecar as ever, and a file with what they said to each other.
import { whole, Wrong } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

const FORMAT = `NDJSON. The first line of a life says what was started and when; every other line has
  life     which recorder wrote it: several may share a file
  at_us    microseconds since the life began
  from     client, sidecar, log (the sidecar's stderr) or recorder
and one of
  message  a line of the protocol, as it was
  text     a line that is no JSON, or base64 where it is no UTF-8
  ended    the stream ended; exit: how the process did
  lost     bytes that are not here, because the file took no more`;

export const command: CommandSpec = {
  name: 'record',
  summary: 'stand between a client and a sidecar and keep what they say',
  description:
    'Starts a sidecar and passes everything on, both ways: stdin, stdout, stderr, signals, and the descriptors that were inherited, such as that of an arena. What was said goes into FILE, with times: enough to replay it, and to see what happened when.\n\nThe conversation never waits for the file. Another process writes it; while its disk is full or does not answer, up to 16 MiB wait, and what is more is counted as lost, in the file too, and said on stderr. Payloads in slots are not recorded; those given as text are, so the file is readable by its owner only.\n\nA FILE that exists is appended to: several lives of a sidecar, or several engines, may share one.\n\nThe Python client records when KVLANE_RECORD names a file. A client that kills its sidecar kills the recorder then; the sidecar goes as soon as it sees that, unless a call of it is in the kernel, which such a client cannot see.',
  usage: '[options] FILE [--] COMMAND… | OPTIONS OF SERVE…',
  arguments: [{ name: 'FILE', does: 'where it is kept', completes: 'file' }],
  rest: { name: 'COMMAND', does: 'what to start, with its words; options of serve alone start kvlane serve', completes: 'command' },
  options: [
    { flags: '--max-mib <M>', does: 'record no more than this in one life; the conversation goes on', parse: whole(1, 2 ** 30), default: 1024 },
    { flags: '--test-queue-bytes <B>', does: 'for tests: what may wait for the file', parse: whole(1, 2 ** 30), hidden: true },
  ],
  sections: [{ title: 'The file', text: FORMAT }],
  examples: [
    { shows: 'A sidecar, recorded:', type: 'kvlane record bug.ndjson -- serve --mount kv0=/mnt/cache' },
    { shows: 'Whatever sidecars an engine starts, in one file:', type: 'KVLANE_RECORD=/tmp/bug.ndjson vllm serve …' },
    { shows: 'Play it again:', type: 'kvlane replay bug.ndjson' },
  ],
  exitCodes: [
    [0, 'the sidecar left with 0; any other status of it is passed on, 128 and its number for a signal'],
    [2, 'a bad option; nothing was started'],
    [70, 'a signal came, and the sidecar, which had said its last word, did not end: a call of it is in the kernel'],
    [127, 'the command cannot be started'],
  ],
  seeAlso: ['replay', 'serve'],
  async run({ words, rest, options }) {
    const { runRecord } = await import('./run.ts');
    const { QUEUE_BYTES_MAX } = await import('./keeper.ts');
    const { resolve } = await import('node:path');
    // As it is when FILE was forgotten.
    if (words[0] === 'serve' || words[0]!.startsWith('-')) throw new Wrong(`FILE is wanted before ${words[0]}: kvlane record bug.ndjson ${words[0]} …; a file of that name is ./${words[0]}`);
    return runRecord({ file: resolve(words[0]!), rest, fileBytesMax: (options['maxMib'] as number) * 1024 * 1024, queueBytesMax: (options['testQueueBytes'] as number | undefined) ?? QUEUE_BYTES_MAX });
  },
};
