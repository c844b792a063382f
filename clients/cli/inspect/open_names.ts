// open_names.ts — the names of a store without those in directories that cannot be looked into: each of these is told and counted, and the
// rest is looked at. A mount that does not answer is another matter, and ends the look.
import { EXIT_OK, EXIT_UNSEEN } from '../spec.ts';
import { shown } from './shown.ts';
import { Unanswered, type Store } from './store.ts';

/** Told one by one; a disk that fails may have thousands. */
export const SHUT_NAMED_MAX = 100;

export class OpenNames implements Pick<Store, 'list'> {
  #store: Pick<Store, 'list'>;
  #note: (text: string) => void;
  #shut = new Set<string>();

  constructor(store: Pick<Store, 'list'>, note: (text: string) => void) {
    this.#store = store;
    this.#note = note;
  }

  async *list(path: string): ReturnType<Store['list']> {
    try {
      yield* this.#store.list(path);
    } catch (error) {
      if (!(error instanceof Unanswered) || !error.isOfOneName) throw error;
      if (this.#shut.has(path)) return; // told at an earlier look
      this.#shut.add(path);
      if (this.shut <= SHUT_NAMED_MAX) this.#note(`${error.message}: passed over`);
      else if (this.shut === SHUT_NAMED_MAX + 1) this.#note(`${shown(path)} and perhaps more cannot be looked into either: the first ${SHUT_NAMED_MAX} were named`);
    }
  }

  /** How many directories; of some of them names may have been told all the same. */
  get shut(): number {
    return this.#shut.size;
  }

  get exitCode(): number {
    return this.shut === 0 ? EXIT_OK : EXIT_UNSEEN;
  }
}
