// play.ts — one life of a record, played against a sidecar that is fresh: the same lines, in the same order.
//
// A line that was sent after an answer had come is sent after that answer has come now: what a client did because of it depends on it.
// Besides, lines keep their times, divided by the speed. A deadline is as far ahead as it was.
import { LIMITS } from '../../../protocol/messages.ts';
import type { ReadyEvent } from '../../../protocol/messages.ts';
import { nowUs } from '../../node/pending.ts';
import { SidecarProcess } from '../../node/process.ts';
import type { Exit } from '../../node/process.ts';
import { thisLauncher } from '../console/link.ts';
import { Conversation, isLine } from '../record/conversation.ts';
import type { Line } from '../record/conversation.ts';
import type { Life, RecordEntry } from '../record/format.ts';

type Message = Record<string, unknown>;

/** Beyond an answer's own deadline, for a machine with other things to do. */
const ANSWER_MS_EXTRA = 5_000;
const READY_MS_MAX = 30_000;
/** Of setTimeout. */
const TIMER_MS_MAX = 2 ** 31 - 1;
const LEAVE_MS_MAX = 10_000;

export interface Played {
  ready: Message | null;
  lines: readonly Line[];
  recorded: Map<Line, { message: Message; tookUs: number }>;
  replayed: Map<Line, { message: Message; tookUs: number }>;
  /** Answers to nothing that was asked. */
  strays: { recorded: Message[]; replayed: Message[] };
  events: { recorded: Message[]; replayed: Message[] };
  exit: Exit | null;
  /** It ended before its time. */
  gone: string | null;
  stderr: string;
  tookMs: number;
}

/** `speed` Infinity: as fast as it goes. */
export async function play(life: Life, words: readonly string[], speed: number, progress: (done: number, of: number) => void): Promise<Played> {
  const played: Played = { ready: null, lines: [], recorded: new Map(), replayed: new Map(), strays: { recorded: [], replayed: [] }, events: { recorded: [], replayed: [] }, exit: null, gone: null, stderr: '', tookMs: 0 };
  const asked = new Conversation(); // as recorded
  const asking = new Conversation(); // now
  played.lines = asked.lines;
  const sentUs: number[] = []; // by line
  const waiting = new Map<Line | 'ready', () => void>();
  const startedUs = nowUs();
  let gone = false;
  let ending = false;

  const settle = (of: Line | 'ready'): void => {
    waiting.get(of)?.();
    waiting.delete(of);
  };
  const native = process.env['KVLANE_NATIVE'];
  const sidecar = new SidecarProcess(
    { mounts: {}, args: words, main: thisLauncher(), env: native === undefined ? {} : { KVLANE_NATIVE: native } },
    {
      line(text) {
        const message = JSON.parse(text) as Message;
        if (message['event'] === 'ready') {
          played.ready = message;
          return settle('ready');
        }
        if (message['event'] !== undefined) return void played.events.replayed.push(message);
        const now = asking.answered(message);
        const line = now === null ? undefined : asked.lines[now.number - 1];
        if (line === undefined) return void played.strays.replayed.push(message);
        played.replayed.set(line, { message, tookUs: nowUs() - (sentUs[line.number - 1] ?? nowUs()) });
        settle(line);
      },
      gone(reason) {
        gone = true;
        if (!ending) played.gone = reason;
        for (const of of [...waiting.keys()]) settle(of);
      },
    },
  );
  const until = (of: Line | 'ready', there: boolean, ms: number): Promise<void> =>
    there || gone
      ? Promise.resolve()
      : new Promise((done) => {
          const timer = setTimeout(() => settle(of), ms);
          waiting.set(of, () => {
            clearTimeout(timer);
            done();
          });
        });

  const total = life.entries.filter((entry) => entry.from === 'client' && isLine(entry)).length;
  const recordedReady = life.entries.find((entry) => entry.message?.['event'] === 'ready');
  const recordedSentUs: number[] = [];
  let originUs = nowUs();
  for (const entry of life.entries) {
    if (entry.from === 'client' && isLine(entry)) {
      const line = asked.asked(entry);
      recordedSentUs.push(entry.at_us);
      await pause(originUs, entry.at_us - (recordedReady?.at_us ?? 0), speed);
      asking.asked(entry);
      sentUs.push(nowUs());
      send(sidecar, line, life.head.began_us);
      progress(line.number, total);
    } else if (entry.from === 'client' && entry.ended) {
      ending = true;
      sidecar.child.stdin.end();
    } else if (entry.from === 'sidecar' && entry.message !== undefined) {
      const { message } = entry;
      if (message['event'] === 'ready') {
        await until('ready', played.ready !== null, READY_MS_MAX);
        originUs = nowUs();
        continue;
      }
      if (message['event'] !== undefined) {
        played.events.recorded.push(message);
        continue;
      }
      const line = asked.answered(message);
      if (line === null) {
        played.strays.recorded.push(message);
        continue;
      }
      played.recorded.set(line, { message, tookUs: entry.at_us - (recordedSentUs[line.number - 1] ?? entry.at_us) });
      if (line.op === 'shutdown') ending = true;
      await until(line, played.replayed.has(line), timeoutMs(line, recordedReady, life.head.began_us) + ANSWER_MS_EXTRA);
    } else if (entry.exit?.signal != null) {
      ending = true;
      sidecar.child.kill(entry.exit.signal as NodeJS.Signals);
    }
  }
  ending = true;
  if (sidecar.child.stdin.writable) sidecar.child.stdin.end();
  played.exit = await sidecar.waitExit(LEAVE_MS_MAX);
  if (played.exit === null) sidecar.child.kill('SIGKILL');
  played.stderr = sidecar.stderr;
  sidecar.release();
  played.tookMs = (nowUs() - startedUs) / 1000;
  return played;
}

async function pause(originUs: number, sinceUs: number, speed: number): Promise<void> {
  if (speed === Infinity) return;
  for (let waitMs = Infinity; waitMs > 0; ) {
    waitMs = (originUs + sinceUs / speed - nowUs()) / 1000;
    if (waitMs > 0) await new Promise((done) => setTimeout(done, Math.min(waitMs, TIMER_MS_MAX)));
  }
}

function send(sidecar: SidecarProcess, { entry, request }: Line, beganUs: number): void {
  const { stdin } = sidecar.child;
  if (!stdin.writable) return;
  if (entry.base64 !== undefined) stdin.write(Buffer.from(entry.base64, 'base64'));
  else if (request !== null && typeof request['deadline_us'] === 'number') {
    const aheadUs = request['deadline_us'] - (beganUs + entry.at_us);
    stdin.write(JSON.stringify({ ...request, deadline_us: Math.max(0, Math.round(nowUs() + aheadUs)) }));
  } else stdin.write(entry.text ?? JSON.stringify(entry.message));
  if (entry.unterminated) stdin.end();
  else stdin.write('\n');
}

/** Of the request: how long its answer may take. */
function timeoutMs({ request, entry }: Line, ready: RecordEntry | undefined, beganUs: number): number {
  // One that asks for more than there is, is refused at once.
  const possible = (ms: number): number => Math.min(LIMITS.timeout_ms_max, Math.max(0, ms));
  const given = request?.['timeout_ms'];
  if (typeof given === 'number') return possible(given);
  const deadlineUs = request?.['deadline_us'];
  if (typeof deadlineUs === 'number') return possible((deadlineUs - beganUs - entry.at_us) / 1000);
  return (ready?.message as unknown as ReadyEvent | undefined)?.timeout_ms ?? 2_000;
}
