// entries.ts — frames → lines of the record. A stream comes in any pieces; an entry is a whole line, with the time of its last piece.
import type { Frame } from './frames.ts';
import type { From, RecordEntry } from './format.ts';

/** Twice what the protocol allows: longer is a fault worth seeing, and its beginning enough of it. */
export const LINE_BYTES_MAX = 2 * 1024 * 1024;

interface Stream {
  pieces: Buffer[];
  bytes: number;
  /** Of this line, beyond the limit. */
  cut: number;
  /** Something is missing: what comes up to the next newline is no whole line. */
  skipping: boolean;
}

export class Entries {
  readonly #life: number;
  readonly #streams = new Map<From, Stream>();

  constructor(life: number) {
    this.#life = life;
  }

  /** The lines of the record that this frame completes, each with its newline. */
  take(frame: Frame): string {
    switch (frame.kind) {
      case 'bytes':
        return this.#bytes(frame);
      case 'ended':
        return `${this.#last(frame)}${this.#entry(frame, { ended: true })}`;
      case 'lost': {
        this.#streams.set(frame.from, { pieces: [], bytes: 0, cut: 0, skipping: true });
        return this.#entry({ ...frame, from: 'recorder' }, { lost: { of: frame.from, bytes: Number(frame.payload.toString()) } });
      }
      case 'words':
        return this.#entry(frame, JSON.parse(frame.payload.toString()) as Partial<RecordEntry>);
    }
  }

  #bytes(frame: Frame): string {
    const stream = this.#stream(frame.from);
    let said = '';
    let start = 0;
    for (let newline = frame.payload.indexOf(10); newline >= 0; newline = frame.payload.indexOf(10, start)) {
      this.#keep(stream, frame.payload.subarray(start, newline));
      start = newline + 1;
      if (!stream.skipping) said += this.#line(frame, stream);
      Object.assign(stream, { pieces: [], bytes: 0, cut: 0, skipping: false });
    }
    this.#keep(stream, frame.payload.subarray(start));
    return said;
  }

  #last(frame: Frame): string {
    const stream = this.#stream(frame.from);
    return stream.bytes === 0 || stream.skipping ? '' : this.#line(frame, stream, { unterminated: true });
  }

  #line(frame: Frame, stream: Stream, more: Partial<RecordEntry> = {}): string {
    const [only = Buffer.alloc(0)] = stream.pieces;
    const bytes = stream.pieces.length <= 1 ? only : Buffer.concat(stream.pieces);
    const cut = stream.cut === 0 ? {} : { cut_bytes: stream.cut };
    return this.#entry(frame, { ...more, ...cut }, contentOf(bytes));
  }

  /** `content` is written as it is: it is JSON already. */
  #entry({ atUs, from }: { atUs: number; from: From }, fields: Partial<RecordEntry>, content = ''): string {
    const head = JSON.stringify({ life: this.#life, at_us: atUs, from, ...fields });
    return `${head.slice(0, -1)}${content}}\n`;
  }

  #keep(stream: Stream, piece: Buffer): void {
    if (stream.skipping || piece.length === 0) return;
    const kept = piece.subarray(0, Math.max(0, LINE_BYTES_MAX - stream.bytes));
    stream.cut += piece.length - kept.length;
    if (kept.length === 0) return;
    stream.pieces.push(kept);
    stream.bytes += kept.length;
  }

  #stream(from: From): Stream {
    let stream = this.#streams.get(from);
    if (stream === undefined) this.#streams.set(from, (stream = { pieces: [], bytes: 0, cut: 0, skipping: false }));
    return stream;
  }
}

/** `,"message":{…}` and so on. As a message only if reading it and writing it again gives the same bytes. */
function contentOf(bytes: Buffer): string {
  const text = bytes.toString('utf8');
  if (!Buffer.from(text, 'utf8').equals(bytes)) return `,"base64":"${bytes.toString('base64')}"`;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value) && JSON.stringify(value) === text) return `,"message":${text}`;
  } catch {
    // text then
  }
  return `,"text":${JSON.stringify(text)}`;
}
