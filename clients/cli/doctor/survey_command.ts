// doctor-survey — the other process of `kvlane doctor`; nobody types it.
import { EXIT_OK, whole } from '../spec.ts';
import type { CommandSpec } from '../spec.ts';

export const command: CommandSpec = {
  name: 'doctor-survey',
  summary: 'touch the mount for kvlane doctor',
  description: 'Touches the mount for kvlane doctor, which starts it.',
  usage: 'DIR --name NAME --timeout-ms T',
  hidden: true,
  arguments: [{ name: 'DIR', does: 'the directory' }],
  options: [
    { flags: '--name <NAME>', does: 'of the directory that it makes there' },
    { flags: '--timeout-ms <T>', does: 'when a call hangs', parse: whole(1, 3_600_000) },
  ],
  examples: [{ shows: 'By kvlane doctor alone:', type: 'kvlane doctor-survey DIR --name 1-ab --timeout-ms 5000' }],
  exitCodes: [
    [0, 'all is told'],
    [2, 'a bad option'],
  ],
  async run({ words, options }) {
    const { runSurveyProcess } = await import('./survey_process.ts');
    await runSurveyProcess(words[0]!, String(options['name']), Number(options['timeoutMs']));
    return EXIT_OK;
  },
};
