// file.ts — a file that is always whole: written under another name beside it, then renamed over it.
import { promises as fs } from 'node:fs';
import { printError } from '../output.ts';
import { Wrong } from '../spec.ts';

/** For what is under way when it is ended; longer, and the file's file system hangs. */
const END_MS_MAX = 1_000;

/** Until `ended` resolves; once with everyS 0. The first time must do; what fails later is told and tried again. */
export async function keepFile(path: string, everyS: number, scrape: () => Promise<string>, ended: () => Promise<void>): Promise<void> {
  if (everyS === 0) return put(path, scrape);
  let over = false;
  const end = ended().then(() => void (over = true));
  const givenUp = end.then(() => pause(END_MS_MAX));
  await Promise.race([givenUp, put(path, scrape)]);
  while (!over) {
    await Promise.race([end, pause(everyS * 1000)]);
    if (!over) await Promise.race([givenUp, put(path, scrape).catch((error: unknown) => printError(`kvlane metrics: ${(error as Error).message}\n`))]);
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function put(path: string, scrape: () => Promise<string>): Promise<void> {
  const text = await scrape();
  const fresh = `${path}.${process.pid}.tmp`; // node_exporter reads *.prom alone
  try {
    await fs.unlink(fresh).catch(() => {}); // of another life with this pid
    await fs.writeFile(fresh, text, { mode: 0o644, flag: 'wx' }); // nothing that somebody laid there, a link above all
    await fs.rename(fresh, path);
  } catch (error) {
    await fs.unlink(fresh).catch(() => {});
    throw new Wrong(`${path} cannot be written: ${(error as Error).message}`);
  }
}
