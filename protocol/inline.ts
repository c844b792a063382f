// inline.ts — the bytes of an inline block: out of a request's text or base64, and back into an answer's.

import { LIMITS } from './messages.ts';

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** The bytes, or what is wrong with them. */
export function inlineBytes(field: 'text' | 'base64', value: string): Buffer | string {
  // Half of a surrogate pair has no UTF-8: it would be stored as something else than was sent.
  if (field === 'text' && /\p{Surrogate}/u.test(value)) return 'holds half of a surrogate pair; use base64 for bytes that are not text';
  if (field === 'base64' && !BASE64.test(value)) return 'is not base64 (A-Z a-z 0-9 + /, padded with = to a multiple of 4)';
  const bytes = Buffer.from(value, field === 'text' ? 'utf8' : 'base64');
  if (bytes.length === 0) return 'is empty; a block has at least one byte';
  if (bytes.length > LIMITS.inline_bytes_max) return `has ${bytes.length} bytes, the limit of an inline block is ${LIMITS.inline_bytes_max}; use a slot`;
  return bytes;
}

/** Text where it is UTF-8 and its JSON is not much longer than base64 would be: eight of them fit one line. */
export function inlineForm(bytes: Uint8Array): { text: string } | { base64: string } {
  try {
    const text = utf8.decode(bytes);
    if (Buffer.byteLength(JSON.stringify(text)) <= 1.5 * bytes.length + 64) return { text };
  } catch {
    // Not UTF-8.
  }
  return { base64: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64') };
}
