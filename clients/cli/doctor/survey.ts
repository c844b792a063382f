// survey.ts — starts the process that touches the mount, and hears what it says until it is done, or hangs; then never waits for it.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { promises as fs } from 'node:fs';
import { createInterface } from 'node:readline';
import { thisLauncher } from '../console/link.ts';
import { kernelPlaces } from '../top/kernel.ts';
import { AIO_MS_MAX, CLEAN_MS_MAX, HUNG_AFTER_MS, LATE_MS_MAX } from './survey_process.ts';
import { ownDirectory } from './survey_words.ts';
import type { Hung, StepEnd, Word } from './survey_words.ts';

/** Until it has loaded node and the native part: nothing of that is the mount's, unless it lies there. */
const START_MS_MAX = 10_000;
/** Beside its own limits, for a machine with other things to do; twice, so that both have run again if both were stopped. */
const SLACK_MS = 1_000;
/** Beyond the deadline of the steps. */
const REST_MS_MAX = HUNG_AFTER_MS + LATE_MS_MAX + CLEAN_MS_MAX + AIO_MS_MAX + SLACK_MS;
const STDERR_BYTES_MAX = 4_096;

export interface Survey {
  ends: StepEnd[];
  hung: (Hung & { kernel: readonly string[] }) | null;
  aio: { works: boolean; notices: readonly string[] } | null;
  /** Why there is no more. */
  trouble: { code: string; text: string } | null;
  /** What it made below DIR is, or may be, still there. */
  left: boolean;
  /** Of that, below DIR. */
  own: string;
  pid: number;
}

/** The last three: for tests. */
export function survey(directory: string, timeoutMs: number, launcher = thisLauncher(), startMs = START_MS_MAX, restMs = REST_MS_MAX): Promise<Survey> {
  const name = `${process.pid}-${randomBytes(4).toString('hex')}`;
  const result: Survey = { ends: [], hung: null, aio: null, trouble: null, left: false, own: ownDirectory(name), pid: 0 };
  // A group of its own, so that a ctrl-C leaves it the time to remove what it made; and nothing of it on any mount.
  const child = spawn(process.execPath, [launcher, 'doctor-survey', directory, '--name', name, '--timeout-ms', String(timeoutMs)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    cwd: '/',
    detached: true,
  });
  result.pid = child.pid ?? 0;
  return new Promise((done) => {
    let errors = '';
    let settled = false;
    const settle = (): void => {
      if (settled) return;
      settled = true;
      clearTimeout(clock);
      child.stdout.destroy();
      child.stderr.destroy();
      child.unref();
      done(result);
    };
    const passed = (step: StepEnd['step']): boolean => result.ends.some((end) => end.step === step && end.status === 'ok');
    const trouble = (code: string, text: string): void => {
      if (settled || result.hung !== null) return;
      result.trouble = { code, text };
      result.left = passed('root') && !passed('clean');
      settle();
    };
    const mute = (): void => {
      trouble('MUTE', `the process that touches the mount (${result.pid}) says nothing more`);
    };
    let clock = setTimeout(mute, startMs);
    const hear = (word: Word): void => {
      if (result.hung !== null) return; // it came back meanwhile
      switch (word.said) {
        case 'ready':
          clearTimeout(clock);
          clock = setTimeout(() => (clock = setTimeout(mute, SLACK_MS)), timeoutMs + restMs);
          break;
        case 'step':
          result.ends.push(word.end);
          break;
        case 'hung':
          result.left = word.hung.step !== 'root';
          clearTimeout(clock);
          result.hung = { ...word.hung, kernel: [] };
          void placeOf(result.pid, word.hung.tid).then((kernel) => {
            result.hung = { ...word.hung, kernel };
            settle();
          });
          break;
        case 'aio':
          result.aio = { works: word.engine === 'aio', notices: word.notices };
          break;
        case 'trouble':
          trouble(word.code, word.text);
          break;
        case 'done':
          result.left = word.left;
          settle();
      }
    };
    createInterface({ input: child.stdout }).on('line', (line) => {
      try {
        hear(JSON.parse(line) as Word);
      } catch {
        trouble('GARBLED', `the process that touches the mount said ${JSON.stringify(line.slice(0, 200))}`);
      }
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => (errors = `${errors}${text}`.slice(-STDERR_BYTES_MAX)));
    child.once('error', (error) => trouble('NOT_STARTED', `the process that touches the mount cannot be started: ${error.message}`));
    child.once('close', (code, signal) => trouble('ENDED', `the process that touches the mount ended with ${signal ?? `status ${code}`}${errors === '' ? '' : `: ${errors.trim()}`}`));
  });
}

async function placeOf(pid: number, tid: number): Promise<readonly string[]> {
  const namespace = await fs.readlink('/proc/self/ns/pid').catch(() => undefined);
  return (await kernelPlaces(pid, namespace, [tid])).get(tid)?.frames ?? [];
}
