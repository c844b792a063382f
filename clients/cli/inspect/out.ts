// out.ts — where the lines go: gathered for stdout, so that a million of them are not a million writes, and at once for stderr.
import { print, printError } from '../output.ts';

const GATHERED_CHARS = 32 * 1024;

export interface Out {
  /** stdout. Waits while whoever reads it is slow. */
  line(text: string): Promise<void>;
  /** stderr: what is said beside the result. */
  note(text: string): void;
  flush(): Promise<void>;
}

export function standardOut(): Out {
  let gathered = '';
  const flush = async (): Promise<void> => {
    const text = gathered;
    gathered = '';
    if (text !== '') await print(text);
  };
  return {
    async line(text) {
      gathered += `${text}\n`;
      if (gathered.length >= GATHERED_CHARS) await flush();
    },
    note: (text) => void printError(`kvlane inspect: ${text}\n`),
    flush,
  };
}
