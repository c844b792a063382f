// run.ts — opens the store, does what was asked, and lets go of it again, whatever happened.
import { isatty } from 'node:tty';
import { createInterface } from 'node:readline/promises';
import { workingDirectory } from '../directory.ts';
import type { Given } from '../spec.ts';
import { asked as read } from './asked.ts';
import { df } from './df.ts';
import { explain } from './explain.ts';
import { ls } from './ls.ts';
import { standardOut } from './out.ts';
import { Progress } from './progress.ts';
import { rm } from './rm.ts';
import { openStore } from './store.ts';
import { verify } from './verify.ts';

export async function runInspect(given: Given): Promise<number> {
  const cwd = workingDirectory(given.words[1] ?? '');
  const asked = read(given, cwd);
  const out = standardOut();
  const store = await openStore(asked.directory, asked.timeoutMs, (text) => out.note(text));
  try {
    switch (asked.action) {
      case 'ls':
        return await ls(store, asked, out);
      case 'df':
        return await df(store, asked, out);
      case 'explain':
        return await explain(store, asked, out, cwd, Date.now());
      case 'verify':
        return await verify(store, asked, out, new Progress((text) => void process.stderr.write(text), isatty(2) ? (process.stderr.columns ?? 80) : null, performance.now()));
      case 'rm':
        return await rm(store, asked, out, { ask: isatty(0) && isatty(2) ? sure : null, nowMs: () => Date.now() });
    }
  } finally {
    await out.flush(); // what was found before it went wrong
    await store.close();
  }
}

async function sure(question: string): Promise<boolean> {
  const terminal = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(es)?$/i.test((await terminal.question(`${question} [y/N] `)).trim());
  } catch {
    return false; // ctrl-C, ctrl-D
  } finally {
    terminal.close();
  }
}
