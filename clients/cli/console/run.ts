// run.ts — a terminal, a session and a sidecar put together; where there is no terminal, the sidecar alone on our pipes.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { nowUs } from '../../node/pending.ts';
import type { Exit } from '../../node/process.ts';
import type { MountInfo, ReadyEvent } from '../../../protocol/messages.ts';
import { parseCommandLine } from '../../../sidecar/options.ts';
import type { ServeOptions } from '../../../sidecar/options.ts';
import { colours, coloursWanted } from '../text/colour.ts';
import { printError } from '../output.ts';
import { EXIT_FATAL } from '../spec.ts';
import { complete } from './complete.ts';
import { createEditor } from './editor.ts';
import type { Editor } from './editor.ts';
import { appendHistory, historyFile, readHistory } from './history.ts';
import { attachLink, startLink, thisLauncher } from './link.ts';
import type { Link, LinkListener } from './link.ts';
import { logLine } from './pretty/event.ts';
import { Session, WATCH_ID } from './session.ts';

/** To a sidecar that runs: events too, please. Its answer is of no interest. */
const WATCH = JSON.stringify({ id: WATCH_ID, op: 'watch' });
/** What it has in hand is settled by then: the drain of a sidecar that is asked to leave, and its last words. */
const LEAVE_MS_MAX = 3_000;
/** A store that is made is seen by the next look at its mount, a quarter of a second later at most. */
const MAKE_MS_MAX = 5_000;

export interface ConsoleOptions {
  keepHistory: boolean;
  /** The socket of a sidecar that runs; null: one is started. */
  attach: string | null;
  /** A file that `kvlane record` keeps the conversation in. */
  record: string | null;
}

/** `words`: options of serve. Resolves to the exit status. */
export async function runConsole(words: readonly string[], { keepHistory, attach, record }: ConsoleOptions): Promise<number> {
  const terminal = process.stdin.isTTY && process.stdout.isTTY;
  if (attach !== null) return terminal ? atTerminal((listener) => attachLink(attach, listener), null, keepHistory) : plainAttached(attach);
  const parsed = parseCommandLine(['serve', ...words], () => process.cwd());
  if (parsed.do === 'say') {
    await printError(parsed.text);
    return parsed.exitCode;
  }
  const recorder = record === null ? [] : ['record', resolve(record), '--'];
  return terminal ? atTerminal((listener) => startLink(absolute(words, parsed.options), listener, recorder), parsed.options, keepHistory) : plain([...recorder, 'serve', ...words]);
}

/** Pipes get what serve gives them. */
function plain(words: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [thisLauncher(), ...words], { stdio: 'inherit' });
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => void child.kill(signal));
  return new Promise((done) => {
    child.once('error', () => done(EXIT_FATAL));
    child.once('exit', (code, signal) => done(code ?? 128 + constants.signals[signal!]));
  });
}

/** And from a sidecar that runs, what its socket gives: every line that came in is answered, or LEAVE_MS_MAX have passed. */
function plainAttached(path: string): Promise<number> {
  return new Promise((done) => {
    let waiting = 0;
    let ended = false;
    const input = createInterface({ input: process.stdin });
    const link = attachLink(path, {
      line(text) {
        process.stdout.write(`${text}\n`);
        if (!text.startsWith('{"event"')) waiting -= 1;
        if (ended && waiting <= 0) link.end();
      },
      log: () => {},
      gone: (reason) => void (ended ? null : printError(`kvlane console: ${reason}\n`)),
    });
    input.on('line', (line) => {
      waiting += 1;
      link.send(line);
    });
    input.once('close', () => {
      ended = true;
      if (waiting <= 0) link.end();
      else setTimeout(() => link.end(), LEAVE_MS_MAX);
    });
    void link.waitExit(2 ** 31 - 1).then((exit) => done(exit?.code ?? EXIT_FATAL));
  });
}

/** `options` null: it is not ours, and neither are its stores. */
async function atTerminal(open: (listener: LinkListener) => Link, options: ServeOptions | null, keepHistory: boolean): Promise<number> {
  const file = historyFile(process.env);
  const earlier = keepHistory ? await readHistory(file) : [];
  const c = colours(coloursWanted(true, process.env));

  return new Promise((done) => {
    let editor: Editor | null = null;
    let link: Link | null = null;
    let leaving = false;
    let gone = false;
    let hungUp = false;
    let ready = false;
    const early: string[][] = [];
    const show = (lines: readonly string[]): void => {
      if (editor !== null) editor.print(lines);
      else early.push([...lines]);
    };
    const session = new Session({
      c,
      show,
      send: (line) => link?.send(line) ?? false,
      prompt: (text) => editor?.prompt(text),
      leave: () => void leave(),
      width: () => process.stdout.columns ?? 80,
      nowMs: () => performance.now(),
      later: (ms, what) => void setTimeout(what, ms).unref(),
      nowUs,
      date: () => new Date(),
    });

    session.remember([...earlier].reverse());

    async function leave(): Promise<void> {
      if (leaving) return;
      leaving = true;
      editor?.close();
      link?.end(); // what is in hand is answered, and shown, first
      let exit: Exit | null = link === null ? { code: EXIT_FATAL, signal: null } : await link.waitExit(LEAVE_MS_MAX);
      if (exit === null) {
        await printError('kvlane console: the sidecar does not leave; it is killed, and not waited for\n');
        link!.kill();
        exit = { code: EXIT_FATAL, signal: null };
      }
      else if (exit.signal !== null) await printError(`kvlane console: the sidecar was killed by ${exit.signal}\n`);
      else if (gone && exit.code !== 0) await printError(`kvlane console: the sidecar left with status ${exit.code}\n`);
      link?.release();
      if (keepHistory && editor !== null) await appendHistory(file, editor.typed());
      if (hungUp) {
        // As whoever does not listen to it. An exit would abort: node insists on putting the terminal back as it was.
        process.removeAllListeners('SIGHUP');
        return void process.kill(process.pid, 'SIGHUP');
      }
      done(exit.code ?? (exit.signal === null ? EXIT_FATAL : 128 + constants.signals[exit.signal]));
    }

    const hangUp = (): void => {
      hungUp = true;
      void leave();
    };
    process.on('SIGTERM', () => void leave());
    process.on('SIGHUP', hangUp);

    link = open({
      line(text) {
        if (!ready) {
          ready = true;
          return void begin(text);
        }
        session.line(text);
      },
      log(line) {
        if (ready) return session.log(line);
        const said = logLine(line, c);
        if (said !== null) process.stderr.write(`${said}\n`);
      },
      gone(reason) {
        gone = !leaving;
        if (!leaving && ready) show([c.bad(`the sidecar is gone: ${reason}`)]);
        else if (!leaving && options === null) process.stderr.write(`kvlane console: ${reason}\n`);
        void leave();
      },
    });

    async function begin(first: string): Promise<void> {
      editor = createEditor({
        history: earlier,
        complete: (line) => complete(line, session.known),
        events: {
          line: (text) => session.typed(text),
          interrupt(hadText) {
            if (!hadText && !session.cancelAll()) void leave();
          },
          end: () => void leave(),
          hangUp,
        },
      });
      session.line(first);
      for (const lines of early.splice(0)) editor.print(lines);
      if (options === null) return void link?.send(WATCH);
      const message = JSON.parse(first) as ReadyEvent;
      for (const mount of withoutStore(message.mounts)) await offerStore(mount, options, editor, show);
    }
  });
}

/** Mounts that answered and have no store, where making one may help. */
function withoutStore(mounts: readonly MountInfo[]): MountInfo[] {
  return mounts.filter((mount) => mount.code === 'WRONG_STORE' && mount.store_id === undefined);
}

/** Another sidecar makes it, and leaves; ours sees it at its next look, since it looks again and again. */
async function offerStore(mount: MountInfo, options: ServeOptions, editor: Editor, show: (lines: readonly string[]) => void): Promise<void> {
  const answer = (await editor.ask(`${mount.name}: there is no store in ${mount.root}. Make one? [y/N] `)) ?? '';
  if (!/^y(es)?$/i.test(answer.trim())) return show([`${mount.name}: left as it is; start with --create, or make the store elsewhere.`]);
  const fileMode = `0${options.fileMode.toString(8)}`;
  const made = await new Promise<string>((done) => {
    const maker = startLink(['--mount', `${mount.name}=${mount.root}`, '--create', '--arena-mib', '1', '--slot-bytes', '4096', '--file-mode', fileMode, '--test-start-wait-ms', String(MAKE_MS_MAX)], {
      line(text) {
        const { mounts } = JSON.parse(text) as Partial<ReadyEvent>;
        const [one] = mounts ?? [];
        done(one?.store_id !== undefined ? '' : `the store could not be made: ${one?.reason ?? one?.code ?? 'the mount does not answer'}`);
        maker.end();
        void maker.waitExit(LEAVE_MS_MAX).then(() => maker.release());
      },
      log: () => {},
      gone: (reason) => done(`the store could not be made: ${reason}`),
    });
  });
  show([made === '' ? `${mount.name}: a store is made in ${mount.root}` : `${mount.name}: ${made}`]);
}

/** The sidecar runs in another directory: roots are what they are here. */
function absolute(words: readonly string[], options: ServeOptions): string[] {
  let next = 0;
  const root = (): string => {
    const { name, root: path } = options.mounts[next++]!;
    return `${name}=${path}`;
  };
  return words.map((word, i) => (words[i - 1] === '--mount' ? root() : word.startsWith('--mount=') ? `--mount=${root()}` : word));
}
