// places.ts — does anything that kvlane needs to go on lie on the cache's own file system? Then it hangs with it.
//
// Names are compared with mount points, and nothing is opened: this very thread would hang otherwise.
import { promises as fs } from 'node:fs';
import { dirname, join } from 'node:path';
import { found } from './findings.ts';
import type { Finding } from './findings.ts';
import { mountOf } from './mountinfo.ts';
import type { MountEntry } from './mountinfo.ts';

export interface Place {
  what: string;
  path: string;
}

/** As this process sees it: run where the engine runs, the way it is started, this is what the engine would have. */
export async function placesHere(script: string, addon: string, environment: NodeJS.ProcessEnv = process.env): Promise<Place[]> {
  const link = (name: string): Promise<string | null> => fs.readlink(`/proc/self/${name}`).catch(() => null); // makes no call on what it leads to
  const [node, cwd, out, log] = await Promise.all([link('exe'), link('cwd'), link('fd/1'), link('fd/2')]);
  const all: [string, string | null | undefined][] = [
    ['the node binary', node ?? process.execPath],
    ["kvlane's script", script],
    ["kvlane's native part", addon],
    ['the working directory', cwd],
    ['standard output', out],
    ['the log (standard error)', log],
    ['the home directory', environment['HOME']],
    ['temporary files', environment['TMPDIR'] ?? '/tmp'],
    ["the sidecar's socket", environment['XDG_RUNTIME_DIR']],
  ];
  return all.flatMap(([what, path]) => (path?.startsWith('/') ? [{ what, path }] : []));
}

/** The addon as native/index.ts finds it, without looking whether it is there. */
export function addonPath(script: string, environment: NodeJS.ProcessEnv = process.env): string {
  return environment['KVLANE_NATIVE'] ?? join(dirname(script), '..', 'native', 'build', 'Release', 'kvlane.node');
}

export function placesFinding(places: readonly Place[], cache: MountEntry, mounts: readonly MountEntry[]): Finding {
  // By device: a bind mount of the same file system hangs with it.
  const on = places.filter(({ path }) => mountOf(path, mounts)?.device === cache.device);
  if (on.length === 0) return found('places.on-the-cache', 'ok', "nothing else that kvlane needs lies on the cache's file system");
  return found('places.on-the-cache', 'warn', `on the cache's file system lie ${on.map(({ what, path }) => `${what} (${path})`).join(', ')}`,
    'when it hangs, so does whoever starts, reads or writes them: a new sidecar, a log, a shell', 'keep them on a file system of their own, or the cache on one of its own');
}
