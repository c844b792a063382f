// survey_process.ts — the process that touches the mount, by one lane, and tells each step as it ends.
//
// It is a process of its own because one with a thread in a call that hangs cannot leave: whoever waited for doctor would wait with
// it. If a call hangs, or all of them take too long, it says so, and stays, alone; when it can, it removes what it made and leaves.
import { loadNative } from '../../../native/index.ts';
import type { Native, NativeEvent, SurveyStep } from '../../../native/index.ts';
import { LOOK_MS, Watch, YOUNG_MS } from './survey_watch.ts';
import { STEPS } from './survey_words.ts';
import type { Facts, StepEnd, Word } from './survey_words.ts';

type Done = NativeEvent & { type: 'done' };

/** A call that was begun before the deadline may come back just after it, and then it is the step that has ended, and says so. */
export const HUNG_AFTER_MS = 100;
/** For the step that was under way at the deadline: no call but a close is begun then, and each of them may take its second. */
export const LATE_MS_MAX = 3_000;
/** For removing what was made, after the deadline too: some five calls, and a mount that takes half a second for each is slow, not stuck. */
export const CLEAN_MS_MAX = 4_000;
/** For a lane of the engine aio, and the step `root` on it. */
export const AIO_MS_MAX = 500;
const FILE_MODE = 0o600;

export async function runSurveyProcess(directory: string, name: string, timeoutMs: number): Promise<void> {
  process.stdout.on('error', () => {}); // the one who asked has gone, as it does when a call hangs
  const stay = setInterval(() => {}, 2 ** 30); // the lane alone keeps no loop alive
  let native: Native;
  try {
    native = loadNative();
  } catch (error) {
    say({ said: 'trouble', code: (error as { code?: string }).code ?? '', text: (error as Error).message });
    return clearInterval(stay);
  }
  const survey = new SurveyRun(native, directory, name);
  try {
    survey.start();
  } catch (error) {
    say({ said: 'trouble', code: (error as { code?: string }).code ?? '', text: (error as Error).message });
    return clearInterval(stay);
  }
  say({ said: 'ready' });
  const left = await survey.run(timeoutMs);
  if (survey.lost) say({ said: 'trouble', code: 'STOPPED', text: `its process was stopped, or had no processor, for ${Math.round(survey.stoppedMs())} ms of its time` });
  say({ said: 'done', left });
  native.hardExit(0);
}

class SurveyRun {
  readonly #native: Native;
  readonly #directory: string;
  readonly #name: string;
  readonly #waiting = new Map<number, (done: Done) => void>();
  readonly #notices: string[] = [];
  #mount = 0;
  #pool = 0;
  #nextId = 1;
  #step: SurveyStep = 'root';
  #told = false;
  #over: NodeJS.Timeout | undefined;
  /** A step's time went by while this process did not run: that says nothing of the mount. */
  lost = false;
  #stoppedMs = 0;
  #beatMs = 0;

  constructor(native: Native, directory: string, name: string) {
    this.#native = native;
    this.#directory = directory;
    this.#name = name;
  }

  start(): void {
    this.#native.start({ stallUs: 1_000_000, stuckProcessMax: 8 }, (batch) => {
      for (const event of batch) {
        if (event.type === 'notice') this.#notices.push(event.text);
        if (event.type === 'done') this.#waiting.get(event.id)?.(event);
      }
    });
    this.#mount = this.#native.addMount(this.#directory);
    this.#pool = this.#native.createPool({ laneClass: 'metadata', lanes: 1, engine: 'threads', forProbes: false });
  }

  /** True: what was made is still there. */
  async run(timeoutMs: number): Promise<boolean> {
    this.#beatMs = performance.now();
    setInterval(() => {
      this.#stoppedMs = this.stoppedMs();
      this.#beatMs = performance.now();
    }, LOOK_MS).unref();
    const deadlineUs = this.#native.nowUs() + timeoutMs * 1000;
    this.#watch(timeoutMs + HUNG_AFTER_MS, new Watch(LATE_MS_MAX));
    let touched = false;
    let written = false;
    for (const step of STEPS) {
      if (step === 'read' && !written) continue;
      touched = touched || step === 'make';
      const end = await this.#try(step, deadlineUs);
      if (end.status === 'ok' && step === 'write') written = true;
      if (end.status === 'expired' || (end.status !== 'ok' && (step === 'root' || step === 'make'))) break;
      if (this.#told) break;
    }
    clearTimeout(this.#over);
    if (!touched) return false;
    this.#watch(LOOK_MS, new Watch(CLEAN_MS_MAX));
    const cleaned = await this.#try('clean', 0);
    clearTimeout(this.#over);
    if (cleaned.status === 'ok' && !this.#told) await this.#tryAio();
    return cleaned.status !== 'ok';
  }

  /** Whoever asked is told once, and hears nothing after it; what is to be removed is removed all the same. */
  #watch(ms: number, watch: Watch): void {
    this.#over = setTimeout(() => {
      if (this.#told) return;
      const call = this.#native.stuck(true).find((one) => one.kind === 'survey');
      const verdict = watch.look(call);
      if (verdict === 'wait') return this.#watch(LOOK_MS, watch);
      this.#told = true;
      if (verdict === 'hung') return say({ said: 'hung', hung: { step: this.#step, syscall: call!.syscall, tid: call!.tid, forMs: call!.forUs / 1000 } });
      if (verdict === 'idle') return say({ said: 'trouble', code: 'IDLE', text: `its process (${process.pid}) was in no call on the mount, and did not get on: this machine is too busy` });
      say({ said: 'step', end: { step: this.#step, status: 'expired', errno: 0, phase: 'queue', facts: {} } });
      say({ said: 'done', left: this.#step !== 'root' });
    }, ms);
  }

  /** Of all beats that came late, also of the one that has not come yet: a lane's word may be heard before it. */
  stoppedMs(): number {
    return this.#stoppedMs + Math.max(0, performance.now() - this.#beatMs - 2 * LOOK_MS);
  }

  async #try(step: SurveyStep, deadlineUs: number): Promise<StepEnd> {
    this.#step = step;
    const { status, errno, phase, text } = await this.#submit(this.#pool, step, deadlineUs);
    const end: StepEnd = { step, status, errno, phase, facts: factsOf(text) };
    if (status === 'expired' && this.stoppedMs() >= YOUNG_MS) this.lost = true;
    else say({ said: 'step', end });
    return end;
  }

  #submit(pool: number, step: SurveyStep, deadlineUs: number): Promise<Done> {
    const id = this.#nextId;
    this.#nextId += 1;
    return new Promise((resolve) => {
      this.#waiting.set(id, resolve);
      this.#native.submit(pool, { id, mount: this.#mount, rootGeneration: 0, deadlineUs, kind: 'survey', step, directory: this.#name, fileMode: FILE_MODE });
    });
  }

  /** Does the kernel give a lane of that engine what it needs? The mount is good by now, and the step is the smallest there is. */
  async #tryAio(): Promise<void> {
    const pool = this.#native.createPool({ laneClass: 'metadata', lanes: 1, engine: 'aio', forProbes: false });
    let late: NodeJS.Timeout | undefined;
    const over = new Promise<null>((resolve) => (late = setTimeout(resolve, AIO_MS_MAX, null)));
    const done = await Promise.race([this.#submit(pool, 'root', 0), over]);
    clearTimeout(late);
    if (done !== null) say({ said: 'aio', engine: this.#native.engineOf(pool), notices: this.#notices });
  }
}

/** Of a step that no lane took up it is plain words. */
function factsOf(text: string): Facts {
  try {
    return JSON.parse(text) as Facts;
  } catch {
    return { detail: text };
  }
}

function say(word: Word): void {
  process.stdout.write(`${JSON.stringify(word)}\n`);
}
