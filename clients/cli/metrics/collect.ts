// collect.ts — one scrape: all sidecars side by side, each bounded, so that one which hangs delays the others by nothing.
import { findSockets, type Search, type Where } from '../attached/find.ts';
import { lookAt, type Look } from '../attached/look.ts';

/** At a time: each takes a descriptor, and the sidecars share the machine with engines. */
const AT_ONCE = 256;

export interface Collected {
  looks: Look[];
  search: Search;
}

export async function collect(where: Where, pid: number | null): Promise<Collected> {
  const search = await findSockets(where);
  const wanted = pid === null ? search.found : search.found.filter((one) => one.pid === pid);
  const looks: Look[] = [];
  for (let from = 0; from < wanted.length; from += AT_ONCE) looks.push(...(await Promise.all(wanted.slice(from, from + AT_ONCE).map((found) => lookAt(found)))));
  return { looks, search };
}
