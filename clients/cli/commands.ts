// commands.ts — the table of commands: the one source of --help, completion and manual pages. A new command is a line here.
import { command as completion } from './completion/command.ts';
import { command as console } from './console/command.ts';
import { command as doctor } from './doctor/command.ts';
import { command as doctorSurvey } from './doctor/survey_command.ts';
import { command as help } from './help/command.ts';
import { command as inspect } from './inspect/command.ts';
import { command as man } from './man/command.ts';
import { command as metrics } from './metrics/command.ts';
import { command as record } from './record/command.ts';
import { command as recordWriter } from './record/writer_command.ts';
import { command as replay } from './replay/command.ts';
import { command as report } from './report/command.ts';
import { command as serve } from './serve.ts';
import { command as top } from './top/command.ts';
import type { CommandSpec } from './spec.ts';

/** In the order in which they are listed: what one needs first comes first. */
export const COMMANDS: readonly CommandSpec[] = [serve, doctor, console, inspect, top, metrics, record, replay, report, help, man, completion, recordWriter, doctorSurvey];
