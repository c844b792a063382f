// live.ts — top on a terminal: rounds, keys, the picture; until q or a signal.
import type { WriteStream } from 'node:tty';
import { whyNone } from '../attached/none.ts';
import { rowsOf, type Row } from './paint.ts';
import { Screen } from './screen.ts';
import type { Watcher } from './watcher.ts';

/** After the rows were asked for, and at most: whoever answers later is in the next picture. */
const ROUND_MS_MAX = 300;
/** As a shell tells it. */
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export interface LiveOptions {
  everyMs: number;
  pid: number | null;
  colour: boolean;
}

export function live(watcher: Watcher, options: LiveOptions): Promise<number> {
  const screen = new Screen(process.stdout as WriteStream, process.stdin.isTTY ? process.stdin : null, options.colour);
  let rows: Row[] = [];
  let scrolled = 0;
  let paused = false;
  let over = false;
  let timer: NodeJS.Timeout | undefined;

  function paint(): void {
    const room = Math.max(1, screen.rows - 2);
    scrolled = Math.max(0, Math.min(scrolled, rows.length - room));
    const beyond = rows.length - room - scrolled;
    const body = rows.slice(scrolled, scrolled + room);
    while (body.length < room) body.push([]);
    const foot = `q quit  space ${paused ? 'go on' : 'pause'}  up/down scroll${beyond > 0 ? `  (${beyond} more lines below)` : ''}`;
    screen.show([headline(), ...body, [{ text: foot, style: 'dim' }]]);
  }

  function headline(): Row {
    const watched = watcher.watched();
    const stuck = watched.reduce((sum, { look }) => sum + (look?.up ? look.stats.devices.reduce((all, { classes }) => all + classes.load.lanes_stuck + classes.store.lanes_stuck + classes.metadata.lanes_stuck, 0) : 0), 0);
    const silent = watched.filter(({ look }) => look !== null && !look.up).length;
    return [
      { text: 'kvlane top', style: 'bold' },
      { text: `  ${new Date().toTimeString().slice(0, 8)}  ${watched.length} sidecar${watched.length === 1 ? '' : 's'}  every ${options.everyMs / 1000} s  ` },
      { text: stuck > 0 ? `${stuck} ${stuck === 1 ? 'lane' : 'lanes'} stuck  ` : '', style: 'red' },
      { text: silent > 0 ? `${silent} silent  ` : '', style: 'red' },
      { text: paused ? 'paused' : '', style: 'yellow' },
    ];
  }

  function layOut(): void {
    const watched = watcher.watched();
    rows = watched.length > 0 ? rowsOf(watched, screen.columns) : whyNone(watcher.search, options.pid).split('\n').map((text) => [{ text }]);
  }

  async function round(): Promise<void> {
    if (!paused) {
      await watcher.round(ROUND_MS_MAX);
      layOut();
    }
    if (over) return;
    paint();
    timer = setTimeout(() => void round(), options.everyMs);
  }

  return new Promise((resolve) => {
    const end = (code: number): void => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      screen.leave();
      watcher.close();
      resolve(code);
    };
    for (const [signal, code] of Object.entries(SIGNALS)) process.on(signal, () => end(code));
    process.on('SIGCONT', () => {
      screen.again();
      paint();
    });
    const scroll = (by: number): void => {
      scrolled += by;
      paint();
    };
    screen.open({
      resized() {
        layOut();
        paint();
      },
      pressed(key) {
        switch (key) {
          case 'q':
          case 'Q':
            return end(0);
          case '\x03': // the terminal is in raw mode: ^C is a key
            return end(SIGNALS.SIGINT);
          case '\x1a': // ^Z
            screen.leave();
            process.kill(process.pid, 'SIGSTOP');
            return;
          case '\x0c': // ^L
            screen.forget();
            return paint();
          case ' ':
            paused = !paused;
            return paint();
          case '\x1b[A':
          case '\x1bOA':
          case 'k':
            return scroll(-1);
          case '\x1b[B':
          case '\x1bOB':
          case 'j':
            return scroll(1);
          case '\x1b[5~':
            return scroll(2 - screen.rows);
          case '\x1b[6~':
            return scroll(screen.rows - 2);
          case '\x1b[H':
          case 'g':
            return scroll(-Infinity);
          case '\x1b[F':
          case 'G':
            return scroll(rows.length);
        }
      },
    });
    paint();
    round().catch((error: unknown) => {
      screen.leave();
      throw error;
    });
  });
}
