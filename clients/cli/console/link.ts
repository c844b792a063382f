// link.ts — the sidecar at the other end of a console: one that is started for it, or one that runs and lets itself be looked at.
//
// A process of its own, on pipes or a socket: whatever a terminal does (ctrl-S, a slow ssh), its deadlines hold.
import { realpathSync } from 'node:fs';
import { connect } from 'node:net';
import { SidecarProcess } from '../../node/process.ts';
import type { Exit } from '../../node/process.ts';
import { LIMITS } from '../../../protocol/messages.ts';

export interface LinkListener {
  line(text: string): void;
  log(line: string): void;
  /** Once. */
  gone(reason: string): void;
}

export interface Link {
  /** False: it was not taken. */
  send(line: string): boolean;
  /** No more requests will come. */
  end(): void;
  kill(): void;
  /** null: it did not leave in time. */
  waitExit(timeoutMs: number): Promise<Exit | null>;
  release(): void;
}

/** `words`: of serve, with roots that begin with /. `under`: a command of ours that starts it, and what it has to be told. */
export function startLink(words: readonly string[], listener: LinkListener, under: readonly string[] = []): Link {
  const native = process.env['KVLANE_NATIVE'];
  const sidecar = new SidecarProcess(
    {
      mounts: {},
      args: words,
      env: native === undefined ? {} : { KVLANE_NATIVE: native },
      main: thisLauncher(),
      ...(under.length === 0 ? {} : { wrapper: [process.execPath, thisLauncher(), ...under] }),
      onLog: (line) => listener.log(line),
    },
    { line: (text) => listener.line(text), gone: (reason) => listener.gone(reason) },
  );
  return {
    send: (line) => sidecar.write(line),
    end: () => void sidecar.child.stdin.end(),
    kill: () => void sidecar.child.kill('SIGKILL'),
    waitExit: (timeoutMs) => sidecar.waitExit(timeoutMs),
    release: () => sidecar.release(),
  };
}

/** A stopped sidecar accepts and never answers, and so does the socket of a dead one. */
const GREETING_MS_MAX = 2_000;

/** `path`: the socket of a sidecar that runs. What may be asked there is its to say. */
export function attachLink(path: string, listener: LinkListener): Link {
  const socket = connect(path);
  let tail = '';
  let gone = false;
  let ended: (exit: Exit) => void = () => {};
  const exited = new Promise<Exit>((done) => (ended = done));
  const end = (reason: string, code: number): void => {
    if (gone) return;
    gone = true;
    clearTimeout(timer);
    socket.destroy();
    ended({ code, signal: null });
    listener.gone(reason);
  };
  const timer = setTimeout(() => end(`${path}: nothing came from it within ${GREETING_MS_MAX} ms: the sidecar is stopped, busy or dead`, 1), GREETING_MS_MAX);
  socket.setEncoding('utf8').on('data', (text: string) => {
    clearTimeout(timer);
    const lines = (tail + text).split('\n');
    tail = lines.pop()!;
    if (tail.length > 4 * LIMITS.line_bytes_max) return end(`${path}: a line without an end: that is no sidecar`, 1);
    for (const line of lines) if (!gone) listener.line(line);
  });
  socket.on('error', (error) => end(`${path}: ${error.message}; the socket of a sidecar that runs is wanted`, 1));
  socket.on('close', () => end('it closed the connection', 0));
  return {
    send: (line) => !gone && socket.writable && (socket.write(`${line}\n`), true),
    end: () => void socket.end(),
    kill: () => end('let go', 0),
    async waitExit(timeoutMs) {
      let late: NodeJS.Timeout | undefined;
      const none = new Promise<null>((done) => (late = setTimeout(done, timeoutMs, null)));
      const exit = await Promise.race([exited, none]);
      clearTimeout(late);
      return exit;
    },
    release: () => end('let go', 0),
  };
}

/** The kvlane.cjs that runs this. */
export function thisLauncher(): string {
  return realpathSync(process.argv[1]!);
}
