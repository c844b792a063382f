// hints.ts — for a person at a terminal: what to type, on stderr, and the offer to make a missing store.
//
// A program that speaks JSON on its terminal looks hung. stdout stays the protocol's even here, so
// that what one sees by hand is what a client gets.
import type { MountInfo } from '../protocol/messages.ts';

/** The lines after `ready`. */
export function whatToType(mounts: readonly MountInfo[]): string[] {
  const [first] = mounts;
  const mount = mounts.length > 1 && first ? `,"mount":"${first.name}"` : '';
  return [
    '',
    ...mounts.map((one) => `  ${one.name}: ${one.root} (${standing(one)})`),
    '',
    'kvlane is ready. One JSON object a line; try:',
    `  {"id":1,"op":"store"${mount},"blocks":[{"key":"demo/00ff","text":"hello"}]}`,
    `  {"id":2,"op":"load"${mount},"blocks":[{"key":"demo/00ff"}],"inline":true}`,
    `  {"id":3,"op":"lookup"${mount},"keys":["demo/00ff","demo/0100"]}`,
    '  {"id":4,"op":"stuck"}      what sits in the kernel, where and for how long',
    '  {"id":5,"op":"help"}       every request with its fields',
    'Ctrl-D or {"id":6,"op":"shutdown"} ends it.',
    '',
  ];
}

// The state of a mount that nobody has used yet is `unknown`, which reads like a fault.
function standing(mount: MountInfo): string {
  if (mount.store_id === undefined || mount.reason) return `${mount.state}${mount.reason ? `: ${mount.reason}` : ''}`;
  const words = [mount.created ? 'a new store' : 'a store', mount.fs_type ? ` on ${mount.fs_type}` : '', mount.direct === false ? ', without O_DIRECT' : ''].join('');
  return mount.state === 'ok' || mount.state === 'unknown' ? words : `${words}, ${mount.state}`;
}

/** Mounts that answered and have no store, where making one may help. */
export function withoutStore(mounts: readonly MountInfo[]): MountInfo[] {
  return mounts.filter((mount) => mount.code === 'WRONG_STORE' && mount.store_id === undefined);
}

export interface StoreOffer {
  /** The next bytes of the terminal; what it does not take as an answer is returned, to be read as usual. */
  take(chunk: Buffer): Buffer;
  open(): boolean;
  /** What was typed without a newline. */
  typed(): Buffer;
}

/** Asks for each mount in turn. Anything but y or yes is a no; a line that looks like a request is a no and is read as one. */
export function offerStores(
  mounts: readonly MountInfo[],
  io: { say(text: string): void; create(mount: string): void },
): StoreOffer {
  const waiting = [...mounts];
  let typed = '';

  function ask(): void {
    const mount = waiting[0];
    if (mount === undefined) return;
    io.say(`${mount.name}: there is no store in ${mount.root}. Make one? [y/N]`);
  }

  ask();
  return {
    open: () => waiting.length > 0,
    typed: () => Buffer.from(typed, 'utf8'),
    take(chunk) {
      // A terminal hands over whole lines, but a pasted text may hold several.
      let rest = typed + chunk.toString('utf8');
      typed = '';
      while (waiting.length > 0) {
        const newline = rest.indexOf('\n');
        if (newline < 0) {
          typed = rest;
          return Buffer.alloc(0);
        }
        const answer = rest.slice(0, newline).trim().toLowerCase();
        const mount = waiting.shift()!;
        if (answer.startsWith('{')) {
          waiting.length = 0;
          break;
        }
        rest = rest.slice(newline + 1);
        if (answer === 'y' || answer === 'yes') io.create(mount.name);
        else io.say(`${mount.name}: left as it is; start with --create, or make the store elsewhere.`);
        ask();
      }
      return Buffer.from(rest, 'utf8');
    },
  };
}
