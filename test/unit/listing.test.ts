// listing.test.ts — what a listing tells is read back as it was, whatever the names are.
import { expect, test } from 'vitest';
import { type Entry, LIST_ENTRIES_MAX, listing } from '../../native/index.ts';
import { listed } from '../support/fake_native.ts';

const ENTRY: Entry = { type: 'f', name: 'aa.kvb', allocatedBytes: 12_288, bytes: 8192, modifiedNs: '1795000000123456789', changedNs: '1795000000987654321', inode: '18446744073709551615' };

test('entries come out with all digits of their numbers, in order, with the cookie to go on with', () => {
  const entries: Entry[] = [ENTRY, { ...ENTRY, type: 'd', name: 'ab' }, { ...ENTRY, type: '?', name: 'two%0Alines' }];
  expect(listing(listed(entries, '9223372036854775807').text!)).toEqual({ cookie: '9223372036854775807', entries });
});

test('a directory that is empty, or told to its end, has no cookie', () => {
  expect(listing('-\n')).toEqual({ cookie: null, entries: [] });
  expect(listing(listed([ENTRY]).text!)).toEqual({ cookie: null, entries: [ENTRY] });
  expect(listing('17\n')).toEqual({ cookie: '17', entries: [] });
});

test.each([' ', 'with blanks  and 100%', 'f 1 2 3 4 5 name', 'größer', '\u2028', '-'])('the name %j comes out as it is', (name) => {
  expect(listing(listed([{ ...ENTRY, name }]).text!).entries).toEqual([{ ...ENTRY, name }]);
});

test('a call tells 4,096 entries at most', () => {
  expect(LIST_ENTRIES_MAX).toBe(4096);
});
