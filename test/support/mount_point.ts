// mount_point.ts — a directory of its own that mounts come to and go from, and a look at what lies underneath, covered or not.
//
// The look goes through a descriptor that was opened before anything was mounted: it never touches a mount. `find` tells names,
// kinds, sizes and times, so that also a file that was made and removed again shows, in its directory's times.

import { execFile } from 'node:child_process';
import { closeSync, constants, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const CALL_MS = 10_000;

export class MountPoint {
  readonly dir: string;
  readonly #home: string;
  readonly #underneath: number;
  #mounted = 0;

  constructor() {
    this.#home = mkdtempSync(path.join(tmpdir(), 'kvlane-point-'));
    this.dir = path.join(this.#home, 'mount');
    mkdirSync(this.dir);
    this.#underneath = openSync(this.dir, constants.O_RDONLY | constants.O_DIRECTORY);
  }

  /** Something of the machine's own, which nobody has to do with. */
  litter(): void {
    mkdirSync(path.join(this.dir, 'somebody'));
    writeFileSync(path.join(this.dir, 'somebody', 'file'), 'his');
  }

  async mount(from: string): Promise<void> {
    await run('mount', ['--bind', from, this.dir], { timeout: CALL_MS });
    this.#mounted += 1;
  }

  /** As an administrator gets rid of a mount that hangs: open files stay, the name leads to what lies underneath. */
  async unmountLazily(): Promise<void> {
    await run('umount', ['--lazy', this.dir], { timeout: CALL_MS });
    this.#mounted -= 1;
  }

  underneath(): Promise<string> {
    return treeOf(`/proc/${process.pid}/fd/${this.#underneath}/`);
  }

  async remove(): Promise<void> {
    while (this.#mounted > 0) await this.unmountLazily();
    closeSync(this.#underneath);
    rmSync(this.#home, { recursive: true, force: true });
  }
}

/** Every name below, with kind, size and times. */
export async function treeOf(directory: string): Promise<string> {
  const { stdout } = await run('find', [directory, '-printf', '%P %y %s %T@ %C@\\n'], { timeout: CALL_MS, encoding: 'utf8' });
  return stdout.split('\n').sort().join('\n');
}
