// parent_watch.ts — the second witness of the parent's end, beside stdin's EOF.
//
// EOF does not come while anybody else holds the pipe (a forked sibling is enough). A pidfd does, and
// costs no periodic look. Not PR_SET_PDEATHSIG: it follows the parent's *thread*, and would end us
// with the first pool thread that happened to start us.
import type { Native } from '../native/index.ts';
import type { Log } from './service_types.ts';

export function watchParent(native: Pick<Native, 'watchParent'>, log: Log): void {
  const parent = process.ppid;
  try {
    native.watchParent(parent);
  } catch (error) {
    log.warn('parent_not_watched', { parent, error, next: 'the end of stdin is the only witness left' });
  }
}
