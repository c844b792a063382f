// none.ts — why nobody was found, for whoever expected a sidecar there.
import type { Search } from './find.ts';

export function whyNone(search: Search, pid: number | null): string {
  const other = search.found.length === 0 ? '' : ` There ${search.found.length === 1 ? 'is' : 'are'}: ${search.found.map((one) => one.pid).join(', ')}.`;
  const who = pid === null ? 'no sidecar of this user runs that can be attached to' : `no sidecar ${pid} of this user runs that can be attached to.${other}`;
  const refused = search.refused.map((reason) => `\n  not looked into: ${reason}`).join('');
  return `${who}\n  looked in: ${search.places.join(', ')}${refused}\n  One that was started with --no-attach, by another user or in another container is not seen; in its container, or as its user, it is.`;
}
