// inspect.ts — `kvlane inspect` as a user starts it, and a store's files with all their times: looking must change none of them.
import { spawn } from 'node:child_process';
import { lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { sidecarMain } from '../../clients/node/process.ts';
import { withinLazily } from './sidecar_process.ts';

/** Most of it is a busy machine. */
const WAIT_MS = 60_000;

export interface Inspected {
  status: number | null;
  stdout: string;
  stderr: string;
  tookMs: number;
}

export interface Inspecting {
  stdout(): string;
  stderr(): string;
  exited: Promise<Inspected>;
}

/** `uid`: as this user. `path`: where it finds other programs. */
export function inspecting(words: readonly string[], { uid, path }: { uid?: number | undefined; path?: string } = {}): Inspecting {
  const beganMs = performance.now();
  const child = spawn(process.execPath, [sidecarMain(), 'inspect', ...words], { stdio: ['ignore', 'pipe', 'pipe'], cwd: '/', ...(uid === undefined ? {} : { uid, gid: uid }), ...(path === undefined ? {} : { env: { ...process.env, PATH: path } }) });
  onTestFinished(() => void child.kill('SIGKILL'));
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const closed = new Promise<Inspected>((done) => child.once('close', (status) => done({ status, stdout, stderr, tookMs: performance.now() - beganMs })));
  return { stdout: () => stdout, stderr: () => stderr, exited: withinLazily(closed, () => `inspect ${words.join(' ')} does not end: ${stdout} ${stderr}`, WAIT_MS) };
}

export const inspect = async (...words: string[]): Promise<Inspected> => inspecting(words).exited;

/** Of every name below root its inode, size and the times of its last writing and change. */
export function timesOf(root: string): Record<string, string> {
  const times: Record<string, string> = {};
  const walk = (below: string): void => {
    const found = lstatSync(join(root, below), { bigint: true });
    times[below] = `${found.ino} ${found.size} ${found.mtimeNs} ${found.ctimeNs} ${found.nlink}`;
    if (found.isDirectory()) for (const name of readdirSync(join(root, below)).sort()) walk(join(below, name));
  };
  walk('.');
  return times;
}
