// A directory as it was typed becomes its whole name by text alone.
import { expect, test, vi } from 'vitest';
import { wholeName, workingDirectory } from '../../clients/cli/directory.ts';
import { Wrong } from '../../clients/cli/spec.ts';

test.each([
  ['/mnt/cache', '/mnt/cache'],
  ['/', '/'],
  ['/mnt//cache/./x/', '/mnt/cache/x'],
  ['/mnt/link/../x', '/mnt/link/../x'],
  ['.', process.cwd()],
  ['./x', `${process.cwd()}/x`],
  ['x/..', `${process.cwd()}/x/..`],
])('%s is %s', (word, whole) => expect(wholeName(word)).toBe(whole));

test('an empty word names no directory', () => {
  expect(() => wholeName('')).toThrow(Wrong);
  expect(() => wholeName('')).toThrow(/the word for it is empty/);
});

test('a working directory that is gone matters to a relative word alone, and is told', () => {
  const gone = vi.spyOn(process, 'cwd').mockImplementation(() => {
    throw Object.assign(new Error('uv_cwd'), { code: 'ENOENT' });
  });
  try {
    expect(wholeName('/mnt/cache')).toBe('/mnt/cache');
    expect(workingDirectory('/mnt/cache')).toBe('/proc/self/cwd');
    for (const look of [wholeName, workingDirectory]) expect(() => look('cache')).toThrow(/'cache' is relative to the working directory.*ENOENT.*give the name from \/ on/);
  } finally {
    gone.mockRestore();
  }
});
