// recent_keys.ts — the keys that were typed or answered lately, the latest first; a bounded set.

const KEYS_MAX = 500;

export class RecentKeys {
  readonly #keys = new Set<string>(); // in order of use, the latest last

  get all(): string[] {
    return [...this.#keys].reverse();
  }

  use(key: string): void {
    this.#keys.delete(key);
    this.#keys.add(key);
    if (this.#keys.size > KEYS_MAX) this.#keys.delete(this.#keys.values().next().value!);
  }

  /** Whatever keys a request names. */
  useAllOf(request: Record<string, unknown>): void {
    for (const key of keysOf(request)) this.use(key);
  }
}

/** Whole keys, in the order of the blocks; '' where there is none to be read. */
export function keysOf(request: Record<string, unknown>): string[] {
  const { namespace, keys, blocks } = request;
  const within = typeof namespace === 'string' ? `${namespace}/` : '';
  if (Array.isArray(keys)) return keys.map((key) => (typeof key === 'string' ? `${within}${key}` : ''));
  if (Array.isArray(blocks)) return blocks.map((block) => String((block as { key?: unknown } | null)?.key ?? ''));
  return [];
}
