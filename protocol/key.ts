// key.ts — namespace/hex: taken apart, and what is wrong with one that is not a key.

import { LIMITS } from './messages.ts';
import { show } from './nearest.ts';

const NAMESPACE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[0-9]{1,10})?$/;

/** `path` says where in the request it stands, `bare` that a namespace field stands beside it. */
export function explainKey(path: string, value: unknown, bare: boolean): string {
  const form = bare ? 'a hex (the namespace is given beside it)' : 'namespace/hex';
  if (typeof value !== 'string') return `${path} must be ${form}, got ${show(value)}`;
  // In blocks each key is whole: there is no namespace field beside them.
  return `${path} must be ${form}, got ${show(value)}: ${keyFault(value, bare, path.startsWith('keys'))}`;
}

function keyFault(key: string, bare: boolean, inColumn: boolean): string {
  const slash = key.indexOf('/');
  if (bare && slash >= 0) return 'leave the namespace out of the key, or leave out the namespace field';
  if (!bare && slash < 0) return `there is no "/"; give the whole key${inColumn ? ', or a namespace field' : ''}`;
  const namespace = key.slice(0, Math.max(slash, 0));
  const hex = key.slice(slash + 1);
  if (!bare) {
    const fault = namespaceFault(namespace);
    if (fault) return fault;
  }
  if (hex.includes('/')) return 'there is more than one "/"';
  const bad = /[^0-9a-f]/.exec(hex)?.[0];
  if (bad !== undefined) return /[A-F]/.test(bad) ? 'the hex must be lower case' : `${show(bad)} is no hex digit (0-9, a-f)`;
  if (hex.length < LIMITS.hex_chars_min || hex.length > LIMITS.hex_chars_max) {
    return `the hex has ${hex.length} digits, it must have ${LIMITS.hex_chars_min} to ${LIMITS.hex_chars_max}`;
  }
  return `it has ${key.length} bytes, the limit is ${LIMITS.key_bytes_max}`;
}

/** null when it is a namespace, with or without a generation. */
export function namespaceFault(namespace: string): string | null {
  if (NAMESPACE.test(namespace)) return null;
  if (namespace === '') return 'the namespace is empty';
  if (!/^[A-Za-z0-9]/.test(namespace)) return 'a namespace begins with a letter or a digit';
  const [name = '', generation, more] = namespace.split('@');
  const bad = /[^A-Za-z0-9._-]/.exec(name)?.[0];
  if (bad !== undefined) return `a namespace holds letters, digits, ".", "_" and "-", not ${show(bad)}`;
  if (name.length > LIMITS.namespace_chars_max) return `the namespace has ${name.length} characters, the limit is ${LIMITS.namespace_chars_max}`;
  if (more !== undefined || !/^[0-9]+$/.test(generation ?? '')) return 'after the "@" comes a generation, a number';
  return `a generation has at most ${LIMITS.generation_digits_max} digits`;
}
