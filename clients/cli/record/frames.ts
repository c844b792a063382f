// frames.ts — what the recorder tells the process that writes: bytes as they came, with their time, and few words of its own.
import type { From } from './format.ts';

export interface Frame {
  kind: 'bytes' | 'ended' | 'lost' | 'words';
  from: From;
  atUs: number;
  /** lost: how many; words: JSON. */
  payload: Buffer;
}

const KINDS = ['bytes', 'ended', 'lost', 'words'] as const;
const FROMS = ['client', 'sidecar', 'log', 'recorder'] as const;
const HEAD_BYTES = 14; // kind, from, time (8), length (4)

/** The head alone: the payload goes out beside it, uncopied. */
export function frameHead(kind: Frame['kind'], from: From, atUs: number, length: number): Buffer {
  const head = Buffer.allocUnsafe(HEAD_BYTES);
  head[0] = KINDS.indexOf(kind);
  head[1] = FROMS.indexOf(from);
  head.writeDoubleLE(atUs, 2);
  head.writeUInt32LE(length, 10);
  return head;
}

/** Bytes in any pieces → frames. */
export class FrameReader {
  #rest: Buffer = Buffer.alloc(0);

  feed(chunk: Buffer, take: (frame: Frame) => void): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    for (;;) {
      if (bytes.length < HEAD_BYTES) break;
      const length = bytes.readUInt32LE(10);
      if (bytes.length < HEAD_BYTES + length) break;
      take({ kind: KINDS[bytes[0]!]!, from: FROMS[bytes[1]!]!, atUs: bytes.readDoubleLE(2), payload: bytes.subarray(HEAD_BYTES, HEAD_BYTES + length) });
      bytes = bytes.subarray(HEAD_BYTES + length);
    }
    this.#rest = bytes;
  }
}
