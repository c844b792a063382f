// What the steps of a survey come to, and how all findings are shown.
import { stripVTControlCharacters } from 'node:util';
import { expect, test } from 'vitest';
import { found, isFit, worstFirst } from '../../clients/cli/doctor/findings.ts';
import type { Finding, Level } from '../../clients/cli/doctor/findings.ts';
import { parseMountinfo } from '../../clients/cli/doctor/mountinfo.ts';
import { BLOCK_MS_MAX, FREE_BYTES_MIN, FREE_INODES_MIN, hasLooked, measuresOf, STALL_MS, surveyFindings } from '../../clients/cli/doctor/probe.ts';
import { asJson, asText, verdictOf } from '../../clients/cli/doctor/render.ts';
import type { Report } from '../../clients/cli/doctor/render.ts';
import type { Survey } from '../../clients/cli/doctor/survey.ts';
import { STEPS } from '../../clients/cli/doctor/survey_words.ts';
import type { Facts, StepEnd } from '../../clients/cli/doctor/survey_words.ts';
import { colours } from '../../clients/cli/text/colour.ts';

const FACTS: Partial<Record<StepEnd['step'], Facts>> = {
  root: { path: '/mnt/cache', mount_id: 7, device: '8:1', block_bytes: 4096, blocks: 1e9, blocks_free: 5e8, inodes: 1e7, inodes_free: 9e6, store: true },
  make: { direct: true, direct_align: 512 },
  write: { direct: true, us: { 'pwritev 1 MiB': [1000, 3000, 2000] } },
  read: { direct: true, us: { 'preadv 1 MiB': [500, 500, 500] } },
  exclusive: { exclusive_rename: true },
  unlinked: { readable: true, renamed_instead: false },
};
const good = (step: StepEnd['step'], facts: Facts = {}): StepEnd => ({ step, status: 'ok', errno: 0, phase: 'close', facts: { detail: '', ...FACTS[step], ...facts } });
const whole = (changes: Partial<Record<StepEnd['step'], Partial<StepEnd>>> = {}, more: Partial<Survey> = {}): Survey => ({
  ends: [...STEPS, 'clean' as const].map((step) => ({ ...good(step), ...changes[step] })),
  hung: null, aio: { works: true, notices: [] }, trouble: null, left: false, own: '.kvlane-doctor-1-ab', pid: 4711, ...more,
});
const find = (survey: Survey, id: string): Finding | undefined => surveyFindings('/mnt/cache', survey).find((finding) => finding.id === id);
const facts = (step: StepEnd['step'], changed: Facts): Survey => whole({ [step]: { facts: { ...FACTS[step], ...changed } } });

test('a good survey has only good things to tell', () => {
  const all = surveyFindings('/mnt/cache', whole());
  expect(all.map(({ id, level }) => [id, level])).toEqual([['probe.room', 'ok'], ['probe.inodes', 'ok'], ['probe.store', 'ok'], ['probe.direct', 'ok'], ['probe.reads', 'ok'], ['probe.writes', 'ok']]);
  expect(find(whole(), 'probe.reads')?.what).toBe('1 MiB is read in 0.5 ms (median of 3 calls, one at a time), 2 GiB/s');
  expect(hasLooked(whole())).toBe(true);
});

test.each<[string, Survey, string, Level, RegExp]>([
  ['a full disk', whole({ write: { status: 'no_space', errno: 28, facts: { detail: 'a write of 4096 bytes at offset 0' } } }), 'probe.write', 'bad', /a write of 4096 bytes at offset 0: ENOSPC.*df -h \/mnt\/cache/s],
  ['a quota', whole({ write: { status: 'no_space', errno: 122 } }), 'probe.write', 'bad', /EDQUOT.*quota/s],
  ['read-only', whole({ make: { status: 'io_error', errno: 30, facts: { detail: 'no directory can be made' } } }), 'probe.make', 'bad', /no directory can be made: EROFS.*remount,rw/s],
  ['no permission', whole({ make: { status: 'io_error', errno: 13 } }), 'probe.make', 'bad', /EACCES.*chown/s],
  ['a stale handle', whole({ root: { status: 'io_error', errno: 116 } }), 'probe.root', 'bad', /ESTALE/],
  ['an error nobody knows', whole({ list: { status: 'io_error', errno: 4095 } }), 'probe.list', 'bad', /E4095.*dmesg/s],
  ['no directory', whole({ root: { status: 'not_found', errno: 2, facts: { detail: 'there is no directory /mnt/cache' } } }), 'probe.root', 'bad', /there is no directory.*mkdir \/mnt\/cache/s],
  ['a file', whole({ root: { status: 'not_found', errno: 20, facts: { detail: 'there is no directory /mnt/cache' } } }), 'probe.root', 'bad', /give the directory/],
  ['a liar', whole({ read: { status: 'corrupt', facts: { detail: 'other bytes are read at offset 0 than were written' } } }), 'probe.read', 'bad', /does not keep its word: other bytes/],
  ['a snail', whole({ write: { status: 'expired' } }), 'probe.write', 'bad', /writing was not done in time.*--timeout-s 60/s],
  ['no O_DIRECT', facts('make', { direct: false }), 'probe.direct', 'note', /page cache/],
  ['no O_DIRECT after all', facts('write', { direct: false }), 'probe.direct', 'note', /page cache/],
  ['O_DIRECT in name alone', facts('make', { direct_align: 0 }), 'probe.direct', 'note', /no O_DIRECT here.*page cache/s],
  ['pages of 4 KiB', facts('make', { direct_align: 4096 }), 'probe.direct', 'ok', /4096/],
  ['pages of more', facts('make', { direct_align: 4097 }), 'probe.direct', 'note', /wants 4097 bytes/],
  ['just enough room', facts('root', { blocks_free: FREE_BYTES_MIN / 4096 }), 'probe.room', 'ok', /1 GiB/],
  ['too little room', facts('root', { blocks_free: FREE_BYTES_MIN / 4096 - 1 }), 'probe.room', 'warn', /NO_SPACE/],
  ['room that is not told', facts('root', { blocks: 0, blocks_free: 0 }), 'probe.room', 'note', /does not tell how much room/],
  ['just enough inodes', facts('root', { inodes_free: FREE_INODES_MIN }), 'probe.inodes', 'ok', /10000/],
  ['too few inodes', facts('root', { inodes_free: FREE_INODES_MIN - 1 }), 'probe.inodes', 'warn', /9999/],
  ['no store yet', facts('root', { store: false }), 'probe.store', 'note', /--create/],
  ['what other doctors left', facts('root', { other_doctors: 2 }), 'probe.other-doctors', 'note', /2 directories of other doctors: each was killed.*rm -r \/mnt\/cache\/\.kvlane-doctor-\*/s],
  ['blocks that come in time', facts('read', { us: { 'preadv 1 MiB': [BLOCK_MS_MAX * 1000] } }), 'probe.reads', 'ok', /500 ms/],
  ['blocks that do not', facts('read', { us: { 'preadv 1 MiB': [BLOCK_MS_MAX * 1000 + 1] } }), 'probe.reads', 'warn', /--timeout-ms/],
  ['a call over the stall time', facts('write', { us: { fsync: [STALL_MS * 1000 + 1] } }), 'probe.slowest', 'warn', /one call of fsync took 1 s.*--stall-ms/s],
  ['only links', facts('exclusive', { exclusive_rename: false }), 'probe.exclusive-rename', 'note', /link/],
  ['silly renames', facts('unlinked', { renamed_instead: true }), 'probe.unlinked', 'note', /silly rename/],
  ['no reading after a remove', facts('unlinked', { readable: false }), 'probe.unlinked', 'note', /is a miss/],
  ['no native AIO', whole({}, { aio: { works: false, notices: ['io_setup: EAGAIN'] } }), 'probe.aio', 'note', /io_setup: EAGAIN/],
  ['what stays behind', whole({ clean: { status: 'io_error', errno: 5, facts: { detail: 'what was made cannot be removed' } } }, { left: true }), 'probe.left', 'warn', /cannot be removed: EIO.*rm -r \/mnt\/cache\/\.kvlane-doctor-1-ab/s],
  ['removing that takes too long', whole({ clean: { status: 'expired', facts: {} } }, { left: true }), 'probe.left', 'warn', /is still there.*calls come back.*process 4711 goes on.*rm -r/s],
  ['what a probe that ended may have left', whole({}, { ends: [good('root')], trouble: { code: 'ENDED', text: 'x' }, left: true }), 'probe.left', 'warn', /may be still there.*rm -r/s],
  ['no addon', whole({}, { ends: [], trouble: { code: 'NATIVE_NOT_LOADED', text: 'cannot be loaded' } }), 'probe.trouble', 'warn', /npm run build/],
  ['no openat2', whole({}, { ends: [], trouble: { code: 'KVLANE_NO_OPENAT2', text: 'kvlane needs openat2' } }), 'host.openat2', 'bad', /seccomp/],
])('%s is told', (_what, survey, id, level, says) => {
  const finding = find(survey, id);
  expect(finding).toMatchObject({ level });
  expect([finding!.what, finding!.why, finding!.do].join(' | ')).toMatch(says);
});

test('a stall at the limit is none, and inodes that are made as needed are not counted', () => {
  expect(find(facts('write', { us: { fsync: [STALL_MS * 1000] } }), 'probe.slowest')).toBeUndefined();
  expect(find(facts('root', { inodes: 0, inodes_free: 0 }), 'probe.inodes')).toBeUndefined();
  expect(find(facts('root', { inodes: 5, inodes_free: 6 }), 'probe.inodes')).toBeUndefined();
});

test('a hang names the step, the call, the thread, its place in the kernel, and what stays behind', () => {
  const survey = whole({}, { ends: [good('root'), good('make')], hung: { step: 'write', syscall: 'pwritev', tid: 4712, forMs: 5100, kernel: ['request_wait_answer', 'fuse_simple_request'] }, left: true });
  const finding = find(survey, 'probe.hung')!;
  expect(finding.level).toBe('bad');
  expect(finding.what).toBe('the mount does not answer: writing (pwritev) has not returned for 5.1 s (thread 4712 of process 4711, in the kernel in request_wait_answer < fuse_simple_request)');
  expect(finding.why).toContain('Process 4711 stays until the kernel gives the call back');
  expect(finding.why).toContain('rm -r /mnt/cache/.kvlane-doctor-1-ab');
  expect(finding.why).not.toContain('container');
  expect(surveyFindings('/mnt/cache', survey, true).find(({ id }) => id === 'probe.hung')!.why).toContain('this container, whose process 1 doctor is, cannot end before it either');
  expect(surveyFindings("/mnt/it's", survey).find(({ id }) => id === 'probe.hung')!.why).toContain("rm -r '/mnt/it'\\''s/.kvlane-doctor-1-ab'");
  expect(hasLooked(survey)).toBe(true);
});

test('a probe that could not be made says nothing about the mount', () => {
  const survey = whole({}, { ends: [], trouble: { code: 'ENDED', text: 'x' } });
  expect(hasLooked(survey)).toBe(false);
  expect(hasLooked(whole({}, { trouble: { code: 'STOPPED', text: 'x' } }))).toBe(false);
  expect(verdictOf({ findings: surveyFindings('/m', survey), looked: false })).toBe('unknown');
});

test('calls of one kind are measured together, whatever step they were made in', () => {
  expect(measuresOf([good('root', { us: { statx: [5] } }), good('make', { us: { statx: [1, 9, 7], mkdirat: [] } })])).toEqual([{ name: 'statx', calls: 4, leastUs: 1, medianUs: 7, mostUs: 9 }]);
});

const REPORT: Report = {
  directory: '/mnt/cache',
  mount: parseMountinfo('7 1 0:45 / /mnt/cache rw - nfs4 server:/x hard,timeo=600')[0]!,
  findings: [found('host.kernel', 'ok', 'Linux 6.18'), found('mount.nfs', 'note', 'NFS 4, hard', 'calls wait', '-o softerr'), found('probe.make', 'bad', 'EROFS', 'nothing can be stored', 'remount'), found('places.x', 'warn', 'the log lies there', 'it hangs', 'elsewhere')],
  measures: [{ name: 'statx', calls: 4, leastUs: 1, medianUs: 7, mostUs: 9_000 }],
  looked: true,
  tookMs: 155.7,
};

test('the worst comes first, with what to do; what is well is one line', () => {
  const text = asText(REPORT, colours(false));
  expect(text).toBe(`/mnt/cache: NOT FIT (1 bad, 1 warn, 1 note), looked at for 156 ms

bad   EROFS
      nothing can be stored
      do: remount
warn  the log lies there
      it hangs
      do: elsewhere
note  NFS 4, hard
      calls wait
      do: -o softerr
ok    Linux 6.18

the probe, in time for one call:
         calls  least  median  most
  statx      4   1 µs    7 µs  9 ms
`);
  expect(stripVTControlCharacters(asText(REPORT, colours(true)))).toBe(text);
});

test('the JSON keeps its fields', () => {
  expect(JSON.parse(asJson(REPORT))).toEqual({
    format: 1,
    version: expect.any(String) as string,
    directory: '/mnt/cache',
    verdict: 'not_fit',
    fit: false,
    took_ms: 156,
    mount: { point: '/mnt/cache', type: 'nfs4', source: 'server:/x', device: '0:45', options: ['rw', 'hard', 'timeo=600'] },
    findings: worstFirst(REPORT.findings),
    probe: [{ name: 'statx', calls: 4, least_us: 1, median_us: 7, most_us: 9000 }],
  });
  expect(JSON.parse(asJson({ ...REPORT, mount: null }))).toMatchObject({ mount: null });
});

test('only something bad makes a mount unfit', () => {
  const all = (['ok', 'note', 'warn'] as const).map((level) => found('a.b', level, 'x'));
  expect(isFit(all)).toBe(true);
  expect(verdictOf({ findings: all, looked: true })).toBe('fit');
  expect(verdictOf({ findings: [...all, found('a.b', 'bad', 'x')], looked: false })).toBe('not_fit');
});

test('a name from a mount is one line, whatever is in it, and turns no text around', () => {
  const wild = 'x\nok    everything is well\u009b2J\u202eti';
  const report: Report = { ...REPORT, directory: `/mnt/${wild}`, mount: { ...REPORT.mount!, source: wild }, findings: [found('a.b', 'bad', wild, wild, `rm -r '${wild}'`)] };
  const text = asText(report, colours(false));
  expect(text).not.toMatch(/^ok/m);
  expect(text).not.toMatch(/[\x80-\x9f\u202e]/);
  expect(text).toContain('bad   x\\x0aok    everything is well\\x9b2J\\u202eti\n');
  const json = asJson(report);
  expect(json).not.toMatch(/[\x80-\x9f\u202e]/);
  expect(JSON.parse(json)).toMatchObject({ directory: `/mnt/${wild}`, mount: { source: wild }, findings: [{ what: wild }] });
});

test('names from a mount do nothing to a terminal', () => {
  expect(asText({ ...REPORT, directory: '/mnt/\x1b[2Jx', findings: [found('a.b', 'bad', 'on /mnt/\x1b]0;x\x07')] }, colours(false))).not.toMatch(/[\x07\x1b]/);
});
