// browser.ts — a real browser without a window: Debian's chromium-headless-shell, asked over the pipes that it has for tools (the DevTools
// protocol: JSON, each message with a NUL at its end). It listens on no port.
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { onTestFinished } from 'vitest';
import { within } from './sidecar_process.ts';

/** Its start takes seconds where two cores are taken. */
const ANSWER_MS_MAX = 60_000;
const PROGRAM = 'chromium-headless-shell';
const WINDOW = '1280,900';

export interface Page {
  /** What an expression in the page is worth; it must be JSON. */
  is(expression: string): Promise<any>;
  /** Errors on the console and those that nobody caught, warnings too; and what the page's own policy forbade. */
  complaints: string[];
  /** Addresses that were asked for. */
  requests: string[];
  /** As it is on the screen: PNG. */
  picture(): Promise<Buffer>;
}

interface Said {
  id?: number;
  method?: string;
  params?: any;
  result?: any;
  error?: { message: string };
}

/** Resolves when the page is loaded. */
export async function openPage(url: string): Promise<Page> {
  const home = mkdtempSync(join(tmpdir(), 'kvlane-browser-'));
  // Without its sandbox, because the tests run as root; what it shows is ours.
  const words = ['--remote-debugging-pipe', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--disable-background-networking', '--disable-component-update', `--window-size=${WINDOW}`, `--user-data-dir=${home}`, 'about:blank'];
  const child = spawn(PROGRAM, words, { stdio: ['ignore', 'ignore', 'pipe', 'pipe', 'pipe'], detached: true, env: { PATH: process.env['PATH'] ?? '/usr/bin:/bin', HOME: home, LANG: 'C.UTF-8' } });
  const gone = new Promise<void>((resolve) => child.once('close', () => resolve()));
  onTestFinished(async () => {
    try {
      process.kill(-child.pid!, 'SIGKILL'); // its own processes, too
    } catch {
      // It never started, or has gone.
    }
    await gone;
    rmSync(home, { recursive: true, force: true, maxRetries: 10 });
  });
  let stderr = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.once('error', (error) => (stderr += `${error.message}; install it with test/browser/install.sh`));
  const [, , , toIt, fromIt] = child.stdio as [null, null, Readable, Writable, Readable];
  toIt.on('error', () => {});

  const answers = new Map<number, (said: Said) => void>();
  const hearers = new Set<(said: Said) => void>();
  let tail = '';
  fromIt.setEncoding('utf8').on('data', (text: string) => {
    const parts = (tail + text).split('\0');
    tail = parts.pop()!;
    for (const part of parts) {
      const said = JSON.parse(part) as Said;
      if (said.id === undefined) for (const hear of [...hearers]) hear(said);
      else answers.get(said.id)?.(said);
    }
  });
  let asked = 0;
  let session: string | undefined;
  const complain = (what: string) => (): string => `${PROGRAM}: no answer to ${what}: ${stderr.slice(-1000)}`;
  function ask(method: string, params: object = {}): Promise<any> {
    asked += 1;
    const id = asked;
    toIt.write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
    const answer = new Promise<any>((resolve, reject) => answers.set(id, ({ result, error }) => (error === undefined ? resolve(result) : reject(new Error(`${method}: ${error.message}`)))));
    return within(answer, complain(method), ANSWER_MS_MAX);
  }

  const { targetId } = await ask('Target.createTarget', { url: 'about:blank' });
  session = (await ask('Target.attachToTarget', { targetId, flatten: true })).sessionId;
  const complaints: string[] = [];
  const requests: string[] = [];
  const loaded = new Promise<void>((resolve) => {
    hearers.add(({ method, params }) => {
      if (method === 'Runtime.exceptionThrown') complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      else if (method === 'Runtime.consoleAPICalled' && ['error', 'warning', 'assert'].includes(params.type)) complaints.push(JSON.stringify(params.args));
      else if (method === 'Log.entryAdded' && ['error', 'warning'].includes(params.entry.level)) complaints.push(params.entry.text);
      else if (method === 'Network.requestWillBeSent') requests.push(params.request.url);
      else if (method === 'Page.loadEventFired') resolve();
    });
  });
  for (const domain of ['Runtime', 'Log', 'Network', 'Page']) await ask(`${domain}.enable`);
  await ask('Page.navigate', { url });
  await within(loaded, complain('Page.navigate'), ANSWER_MS_MAX);
  return {
    complaints,
    requests,
    async is(expression) {
      const { result, exceptionDetails } = await ask('Runtime.evaluate', { expression, returnByValue: true });
      if (exceptionDetails !== undefined) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
      return result.value;
    },
    picture: async () => Buffer.from((await ask('Page.captureScreenshot', { captureBeyondViewport: true })).data, 'base64'),
  };
}
