// attached.ts — sidecars with a socket directory of the test's own, and readers in bare bytes: what no tool of ours would send.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { freshDirectory, startSidecar, within, type Message, type Sidecar } from './sidecar_process.ts';

/** In memory, as sockets want it; not made yet. */
export function socketDirectory(): string {
  const path = mkdtempSync('/dev/shm/kvlane-test-');
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return join(path, 'sockets');
}

/** A sidecar that can be attached to. */
export async function attachable(directory: string, ...more: string[]): Promise<Sidecar & { socket: string }> {
  const sidecar = startSidecar({ args: ['--mount', `kv0=${freshDirectory()}`, '--create', '--arena-mib', '8', '--attach-dir', directory, ...more] });
  await sidecar.ready();
  const own = (): string | undefined => (existsSync(directory) ? readdirSync(directory).find((name) => name.startsWith(`${sidecar.child.pid}-`)) : undefined);
  await expect.poll(own, { timeout: 10_000, interval: 5 }).toBeDefined();
  return Object.assign(sidecar, { socket: join(directory, own()!) });
}

export interface Reader {
  socket: Socket;
  lines: Message[];
  send(text: string | Uint8Array): void;
  ask(question: object): Promise<Message>;
  line(fits: (line: Message) => boolean, what: string): Promise<Message>;
  /** The sidecar hung up. */
  ended: Promise<void>;
}

export function reader(path: string, options: { reads?: boolean } = {}): Reader {
  const socket = connect(path);
  onTestFinished(() => void socket.destroy());
  const lines: Message[] = [];
  const waiting = new Set<() => void>();
  let tail = '';
  let asked = 0;
  socket.on('error', () => {});
  const ended = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  if (options.reads ?? true) {
    socket.setEncoding('utf8').on('data', (text: string) => {
      const parts = (tail + text).split('\n');
      tail = parts.pop()!;
      for (const part of parts) lines.push(JSON.parse(part) as Message);
      for (const look of [...waiting]) look();
    });
  }
  const line = (fits: (line: Message) => boolean, what: string): Promise<Message> =>
    within(
      new Promise<Message>((resolve) => {
        const look = (): void => {
          const found = lines.find(fits);
          if (found === undefined) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        look();
      }),
      () => `${what} did not come: ${JSON.stringify(lines.slice(-2))}`,
    );
  return {
    socket,
    lines,
    send: (text) => void socket.write(text),
    ask(question) {
      asked += 1;
      const id = `q${asked}`;
      socket.write(`${JSON.stringify({ id, ...question })}\n`);
      return line((one) => one['id'] === id, `the answer to ${JSON.stringify(question)}`);
    },
    line,
    ended,
  };
}
