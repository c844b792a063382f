// fingerprint.ts — a namespace's fingerprint as canonical JSON: keys sorted, no spaces, so that equal ones are
// equal strings whichever client in whichever language wrote them.

import { LIMITS } from './messages.ts';

/** null when it nests deeper than fingerprint_depth_max. */
export function canonical(value: unknown, depth = 0): string | null {
  if (depth > LIMITS.fingerprint_depth_max) return null;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const isArray = Array.isArray(value);
  const parts: string[] = [];
  const entries = isArray ? value.map((item): [string, unknown] => ['', item]) : Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, item] of entries) {
    const text = canonical(item, depth + 1);
    if (text === null) return null;
    parts.push(isArray ? text : `${JSON.stringify(key)}:${text}`);
  }
  return isArray ? `[${parts.join(',')}]` : `{${parts.join(',')}}`;
}
