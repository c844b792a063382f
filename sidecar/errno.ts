// errno.ts — numbers from the kernel to the names people search for.
import { constants } from 'node:os';

const names = new Map<number, string>();
for (const [name, number] of Object.entries(constants.errno)) if (!names.has(number)) names.set(number, name);
// node lists newer names only where libuv maps them; these come from file systems and their devices
for (const [name, number] of [['EREMOTEIO', 121], ['EHOSTDOWN', 112], ['ESHUTDOWN', 108], ['EUCLEAN', 117]] as const) if (!names.has(number)) names.set(number, name);

export function errnoName(errno: number): string {
  return names.get(errno) ?? `E${errno}`;
}

/** Errors with which a mount says that it is not there, as opposed to refusing one thing. */
const SICK = new Set(['EIO', 'ENXIO', 'ENODEV', 'ENOTCONN', 'ECONNABORTED', 'ECONNREFUSED', 'ECONNRESET', 'ESTALE', 'ETIMEDOUT', 'EHOSTDOWN', 'EHOSTUNREACH', 'ENETUNREACH', 'EREMOTEIO', 'ESHUTDOWN']);

export function saysSick(errno: number): boolean {
  return SICK.has(errnoName(errno));
}
