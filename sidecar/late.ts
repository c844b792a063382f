// late.ts — parts of Node that take milliseconds to load, for what is needed after `ready` only.
//
// An import would be at the top of the bundle, whoever wants it; process.getBuiltinModule is not in every Node that we start on.
import { createRequire } from 'node:module';

interface Late {
  'node:console': typeof import('node:console');
  'node:net': typeof import('node:net');
  'node:stream': typeof import('node:stream');
  'node:tty': typeof import('node:tty');
}

const load = createRequire('/');

export function late<Name extends keyof Late>(name: Name): Late[Name] {
  return load(name) as Late[Name];
}
