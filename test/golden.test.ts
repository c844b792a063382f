// golden.test.ts — the conversations in protocol/golden, first read (every line is a message of the protocol, and
// decode.ts agrees with the answer), then played against the real sidecar, byte for byte.
// Placeholders such as "<int>" stand for what differs from run to run; `mount` events may come at any time and are
// passed over. The format is described in protocol/golden/README.md.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Arena } from '../clients/node/arena.ts';
import { SidecarProcess } from '../clients/node/process.ts';
import { decode } from '../protocol/decode.ts';
import { LIMITS, OPS, VERSION } from '../protocol/messages.ts';
import type { Op, ReadyEvent } from '../protocol/messages.ts';
import { answerValidators, eventValidators } from '../protocol/validate_answers.generated.ts';
import { KNOWN_AT_READY } from './support/sidecar_process.ts';

const WAIT_MS = 5000;
const GOLDEN = join(import.meta.dirname, '../protocol/golden');

interface Header {
  about: string;
  mounts?: string[];
  args: string[];
}
type Message = Record<string, unknown>;
type Step =
  | { dir: '→'; line?: Message; text?: string; times?: number; newline?: boolean; end?: boolean }
  | { dir: '←'; line: Message }
  | { dir: 'arena'; slot: number; write?: string; read?: string }
  | { dir: 'end'; status: number };

const conversations = readdirSync(GOLDEN).filter((name) => name.endsWith('.ndjson')).sort();

function read(name: string): { header: Header; steps: Step[] } {
  const [first, ...rest] = readFileSync(join(GOLDEN, name), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line) as unknown);
  return { header: first as Header, steps: rest as Step[] };
}

const KINDS: Record<string, { fits(value: unknown): boolean; sample: unknown }> = {
  '<int>': { fits: (value) => Number.isSafeInteger(value) && (value as number) >= 0, sample: 1 },
  '<text>': { fits: (value) => typeof value === 'string' && value !== '', sample: 'text' },
  '<object>': { fits: (value) => typeof value === 'object' && value !== null && !Array.isArray(value), sample: {} },
  '<backing>': { fits: (value) => value === 'shmem' || value === 'thp' || value === 'hugetlb', sample: 'shmem' },
  '<engine>': { fits: (value) => value === 'threads' || value === 'aio', sample: 'threads' },
  '<any>': { fits: (value) => value !== undefined, sample: [] },
  '<version>': { fits: (value) => value === VERSION, sample: VERSION },
  '<limits>': { fits: (value) => JSON.stringify(value) === JSON.stringify(LIMITS), sample: LIMITS },
};

/** `actual` with a placeholder wherever `golden` has one that fits. */
function normalised(golden: unknown, actual: unknown): unknown {
  if (typeof golden === 'string' && KINDS[golden]?.fits(actual)) return golden;
  if (Array.isArray(actual)) return actual.map((item, i) => normalised(Array.isArray(golden) ? golden[i] : undefined, item));
  if (typeof actual !== 'object' || actual === null) return actual;
  const beside = (typeof golden === 'object' && golden !== null ? golden : {}) as Message;
  return Object.fromEntries(Object.entries(actual).map(([key, value]) => [key, normalised(beside[key], value)]));
}

const sample = (golden: unknown): unknown =>
  JSON.parse(JSON.stringify(golden), (_key, value: unknown) => (typeof value === 'string' && KINDS[value] ? KINDS[value].sample : value));

/** What a step sends, as far as it is requests. */
function requestsIn(step: Step): Message[] {
  if (step.dir !== '→') return [];
  if (step.line) return [step.line];
  return (step.text ?? '').split('\n').flatMap((text) => {
    try {
      const value = JSON.parse(text) as Message | null;
      return value !== null && OPS.includes(value['op'] as Op) ? [value] : [];
    } catch {
      return [];
    }
  });
}

/** Null, or what is wrong with a line from the sidecar. */
function fault(message: Message, op: Op | 'error'): string | null {
  const event = message['event'] as keyof typeof eventValidators | undefined;
  const validate = (event === undefined ? answerValidators[op] : eventValidators[event]) as ((value: unknown) => boolean) & { errors?: unknown };
  return validate(message) ? null : JSON.stringify(validate.errors);
}

describe.each(conversations)('%s', (name) => {
  const { header, steps } = read(name);
  test('every line is a message, and decode agrees with the answers', () => {
    const context = { slots: 16, slotBytes: 65536, mounts: header.mounts ?? ['kv0'], line: 1 };
    const sent = new Map<unknown, Message>();
    for (const step of steps) {
      for (const request of requestsIn(step)) if (!sent.has(request['id'])) sent.set(request['id'], request);
      if (step.dir !== '←') continue;
      const refused = step.line['error'] as { code: string; message: string } | undefined;
      const asked = sent.get(step.line['id']);
      expect(fault(sample(step.line) as Message, refused || !asked ? 'error' : (asked['op'] as Op)), JSON.stringify(step.line)).toBeNull();
      if (!asked) continue;
      sent.delete(step.line['id']);
      const byDecode = refused?.code === 'INVALID_REQUEST' || refused?.code === 'UNKNOWN_OP';
      if (byDecode) expect(decode(asked, context)).toEqual({ ok: false, id: asked['id'], ...refused });
      else expect(decode(asked, context)).toMatchObject({ ok: true });
    }
  });

  test.each(['threads', 'aio'])(`${header.about} (%s)`, async (engine) => {
    const lines: string[] = [];
    const waiting: (() => void)[] = [];
    let gone: string | null = null;
    const wake = (): void => waiting.splice(0).forEach((settle) => settle());
    const roots = Object.fromEntries((header.mounts ?? ['kv0']).map((mount) => [mount, mkdtempSync(join(tmpdir(), 'kvlane-golden-'))]));
    const sidecar = new SidecarProcess(
      { mounts: roots, create: true, args: [...header.args, '--huge-pages', 'off', ...KNOWN_AT_READY, '--engine', engine] },
      { line: (text) => { lines.push(text); wake(); }, gone: (reason) => { gone = reason; wake(); } },
    );
    let arena: Arena | null = null;
    onTestFinished(async () => {
      sidecar.child.kill('SIGKILL');
      await sidecar.waitExit(WAIT_MS);
      sidecar.release();
      arena?.close();
      for (const root of Object.values(roots)) rmSync(root, { recursive: true, force: true });
    });

    const nextLine = async (wanted: Step): Promise<string> => {
      const until = Date.now() + WAIT_MS;
      for (;;) {
        const line = lines.shift();
        if (line !== undefined && !line.startsWith('{"event":"mount"')) return line;
        if (line !== undefined) continue;
        if (gone !== null || Date.now() > until) throw new Error(`waited for ${JSON.stringify(wanted)}, but ${gone ?? 'nothing came'}; stderr:\n${sidecar.stderr}`);
        await new Promise<void>((settle) => {
          const timer = setTimeout(settle, until - Date.now() + 1);
          waiting.push(() => { clearTimeout(timer); settle(); });
        });
      }
    };

    const sent = new Map<unknown, Op>();
    for (const step of steps) {
      for (const request of requestsIn(step)) if (!sent.has(request['id'])) sent.set(request['id'], request['op'] as Op);
      if (step.dir === '→') {
        if (step.end) sidecar.child.stdin.end();
        else if (step.newline === false) sidecar.child.stdin.write(step.text!);
        else sidecar.write(step.line ? JSON.stringify(step.line) : step.text!.repeat(step.times ?? 1));
      } else if (step.dir === '←') {
        const text = await nextLine(step);
        const message = JSON.parse(text) as Message;
        if (message['event'] === 'ready') arena = new Arena((message as unknown as ReadyEvent).arena);
        expect(JSON.stringify(normalised(step.line, message))).toBe(JSON.stringify(step.line));
        expect(JSON.stringify(message), 'no spaces, nothing escaped that need not be').toBe(text);
        expect(fault(message, message['error'] ? 'error' : (sent.get(message['id']) ?? 'error')), text).toBeNull();
        sent.delete(message['id']);
      } else if (step.dir === 'arena') {
        if (step.write !== undefined) arena!.write(step.slot, Buffer.from(step.write));
        if (step.read !== undefined) expect(arena!.read(step.slot, Buffer.byteLength(step.read)).toString()).toBe(step.read);
      } else {
        expect(await sidecar.waitExit(WAIT_MS)).toEqual({ code: step.status, signal: null });
        expect(lines.filter((line) => !line.startsWith('{"event":'))).toEqual([]);
      }
    }
  }, 20_000);
});
