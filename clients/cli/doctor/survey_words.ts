// survey_words.ts — what the process that touches the mount tells the one that reports: a line of JSON each.
import type { Engine, NativeStatus, Phase, SurveyStep } from '../../../native/index.ts';

/** In this order; `clean` follows whatever became of them. */
export const STEPS: readonly Exclude<SurveyStep, 'clean'>[] = ['root', 'make', 'write', 'read', 'rename', 'exclusive', 'unlinked', 'list'];

export interface StepEnd {
  step: SurveyStep;
  status: NativeStatus;
  errno: number;
  phase: Phase;
  /** What the step says of itself: native/core/block_survey.cc. */
  facts: Facts;
}

export interface Facts {
  /** Each call of a kind, in microseconds. */
  us?: Record<string, number[]>;
  detail?: string;
  path?: string;
  mount_id?: number;
  device?: string;
  fs_type?: string;
  block_bytes?: number;
  blocks?: number;
  blocks_free?: number;
  inodes?: number;
  inodes_free?: number;
  store?: boolean;
  /** Directories of other doctors, among the first thousand names. */
  other_doctors?: number;
  direct?: boolean;
  direct_align?: number;
  direct_align_tried?: number;
  exclusive_rename?: boolean;
  readable?: boolean;
  renamed_instead?: boolean;
}

/** A call that did not return in time. */
export interface Hung {
  step: SurveyStep;
  syscall: string;
  tid: number;
  forMs: number;
}

export type Word =
  | { said: 'ready' }
  | { said: 'trouble'; code: string; text: string }
  | { said: 'step'; end: StepEnd }
  | { said: 'hung'; hung: Hung }
  | { said: 'aio'; engine: Engine; notices: string[] }
  /** `left`: it is still there. */
  | { said: 'done'; left: boolean };

/** Below DIR; `name` as it was given to the survey. */
export function ownDirectory(name: string): string {
  return `.kvlane-doctor-${name}`;
}
