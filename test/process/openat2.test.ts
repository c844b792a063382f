// Where openat2 is not to be had, every operation would fail with a bare EPERM: it is said once, at the start.

import { constants } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { freshDirectory, startSidecar } from '../support/sidecar_process.ts';

/** Runs the rest of its arguments under a filter such as container profiles had before they knew the call (437 everywhere). */
const WITHOUT_OPENAT2 = `
import ctypes, os, struct, sys
def op(code, jt, jf, k): return struct.pack('HBBI', code, jt, jf, k)
rules = op(0x20, 0, 0, 0) + op(0x15, 0, 1, 437) + op(6, 0, 0, 0x50000 | int(sys.argv[1])) + op(6, 0, 0, 0x7fff0000)
held = ctypes.create_string_buffer(rules, len(rules))
program = ctypes.create_string_buffer(struct.pack('HxxxxxxP', len(rules) // 8, ctypes.addressof(held)), 16)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
`;

test.each(['EPERM', 'ENOSYS'] as const)('without openat2 (%s) the sidecar says what it needs and ends with status 2', async (name) => {
  const wrapper = ['python3', '-c', WITHOUT_OPENAT2, String(constants.errno[name])];
  const sidecar = startSidecar({ wrapper, args: ['--mount', `kv0=${join(freshDirectory(), 'store')}`, '--create'] });
  expect(await sidecar.exited).toEqual({ code: 2, signal: null });
  expect(sidecar.stderr()).toContain('kvlane needs openat2 (Linux 5.6; container seccomp profile of Docker 20.10 or later)');
  expect(sidecar.stderr()).toContain(name);
  expect(sidecar.messages).toEqual([]);
});
