// probe.ts — what the steps of a survey mean for a cache. Pure: steps in, findings and times out.
import { errnoName } from '../../../sidecar/errno.ts';
import { asWord } from '../completion/quoted.ts';
import { count, duration, size } from '../text/units.ts';
import { found } from './findings.ts';
import type { Finding } from './findings.ts';
import type { Survey } from './survey.ts';
import type { Facts, StepEnd } from './survey_words.ts';

/** kvlane reads and writes in pieces of this, from memory aligned to it. */
const ALIGN_BYTES_MAX = 4_096;
/** A few hundred blocks of 1 MiB, less than a minute of stores. */
export const FREE_BYTES_MIN = 1024 * 1024 * 1024;
export const FREE_INODES_MIN = 10_000;
/** serve's own --stall-ms and --timeout-ms where nothing else is said. */
export const STALL_MS = 1_000;
export const TIMEOUT_MS = 2_000;
/** A block that takes a fourth of its deadline alone does not meet it beside eight others. */
export const BLOCK_MS_MAX = TIMEOUT_MS / 4;

const LARGE_BYTES = 1024 * 1024;
const READ = 'preadv 1 MiB';
const WRITE = 'pwritev 1 MiB';

export interface Measure {
  name: string;
  calls: number;
  leastUs: number;
  medianUs: number;
  mostUs: number;
}

/** Of all steps together, by call. */
export function measuresOf(ends: readonly StepEnd[]): Measure[] {
  const all = new Map<string, number[]>();
  for (const { facts } of ends) for (const [name, us] of Object.entries(facts.us ?? {})) all.set(name, [...(all.get(name) ?? []), ...us]);
  return [...all].filter(([, us]) => us.length > 0).map(([name, us]) => {
    const sorted = us.toSorted((a, b) => a - b);
    return { name, calls: us.length, leastUs: sorted[0]!, medianUs: sorted[sorted.length >> 1]!, mostUs: sorted.at(-1)! };
  });
}

/** `first`: doctor is process 1 here. */
export function surveyFindings(directory: string, survey: Survey, first = false): Finding[] {
  const of = (step: StepEnd['step']): Facts => survey.ends.find((end) => end.step === step)?.facts ?? {};
  const passed = (step: StepEnd['step']): boolean => survey.ends.some((end) => end.step === step && end.status === 'ok');
  const findings: Finding[] = [];
  if (survey.trouble !== null) findings.push(troubled(survey));
  if (survey.hung !== null) findings.push(hung(directory, survey, first));
  for (const end of survey.ends) {
    if (end.step !== 'clean' && end.status !== 'ok' && end.step !== survey.hung?.step) findings.push(failed(directory, end));
  }
  if (passed('root')) findings.push(...room(of('root')), storeThere(of('root').store === true), ...otherDoctors(directory, of('root').other_doctors ?? 0));
  if (passed('make')) findings.push(direct(of('make'), of('write'), of('read')));
  if (passed('read')) findings.push(...times(measuresOf(survey.ends)));
  if (passed('exclusive') && of('exclusive').exclusive_rename === false) findings.push(found('probe.exclusive-rename', 'note', 'no exclusive rename (RENAME_NOREPLACE); a link serves instead', 'files of removed blocks are not used again (--recycle)'));
  if (passed('unlinked')) findings.push(...unlinked(of('unlinked')));
  if (survey.aio?.works === false) findings.push(found('probe.aio', 'note', `the kernel gives a lane no native AIO: ${survey.aio.notices.join('; ') || 'it does not say why'}`, 'the engine threads, which is used unless told otherwise, needs none', 'leave --engine as it is'));
  if (survey.left && survey.hung === null) findings.push(found('probe.left', 'warn', `${directory}/${survey.own} ${survey.trouble === null ? 'is' : 'may be'} still there`, whyLeft(survey), `rm -r ${asWord(`${directory}/${survey.own}`)}`));
  return findings;
}

/** Did it come so far that its findings say something about the mount? */
export function hasLooked(survey: Survey): boolean {
  return survey.hung !== null || (survey.trouble === null && survey.ends.some((end) => end.step === 'clean' || end.status !== 'ok'));
}

function troubled({ trouble }: Survey): Finding {
  const { code, text } = trouble!;
  if (code === 'KVLANE_NO_OPENAT2') return found('host.openat2', 'bad', text, 'lanes open files beneath a directory and through no link, which nothing else can do', 'in a container: a current seccomp profile (Docker 20.10 or later)');
  return found('probe.trouble', 'warn', `the probe could not be made: ${text}`, 'nothing was found out about the mount itself', code === 'NATIVE_NOT_LOADED' ? 'npm run build' : 'run it again; kvlane doctor --timeout-s 60 on a machine that is slow');
}

function hung(directory: string, { hung: call, own, left, pid }: Survey, first: boolean): Finding {
  const { step, syscall, tid, forMs, kernel } = call!;
  const where = kernel.length === 0 ? '' : `, in the kernel in ${kernel.join(' < ')}`;
  const rest = left ? ` It then removes ${directory}/${own}; by hand: rm -r ${asWord(`${directory}/${own}`)}` : '';
  return found('probe.hung', 'bad', `the mount does not answer: ${DOES[step]} (${syscall}) has not returned for ${duration(forMs)} (thread ${tid} of process ${pid}${where})`,
    `an engine that reads it itself would hang now. Process ${pid} stays until the kernel gives the call back: nothing can end it before${first ? ', and this container, whose process 1 doctor is, cannot end before it either' : ''}.${rest}`,
    'see to the server, the daemon or the disk, then run doctor again');
}

const DOES: Record<StepEnd['step'], string> = {
  root: 'opening the directory', make: 'making a file', write: 'writing', read: 'reading back what was written', rename: 'renaming',
  exclusive: 'an exclusive rename', unlinked: 'removing a file that is open', list: 'listing a directory', clean: 'removing what was made',
};

const CURES: Record<string, string> = {
  EPERM: 'run the engine as the owner of the directory; lsattr -d DIR shows whether it is immutable',
  ENOENT: 'mkdir DIR, after the file system is mounted',
  EIO: 'dmesg says more: the device or the server failed',
  EACCES: 'chown the directory to the user of the engine, or give it mode 0770 and a common group (--file-mode 0660)',
  ENOTDIR: 'give the directory, not a file in it',
  EINVAL: 'this file system does not know a call that kvlane needs: use another one',
  ENOSPC: 'df -h DIR; df -i DIR: give it room',
  EROFS: 'mount -o remount,rw; if it became read-only by itself, dmesg says why',
  ENOSYS: 'this file system does not know a call that kvlane needs: use another one',
  EOPNOTSUPP: 'this file system does not know a call that kvlane needs: use another one',
  ENOTSUP: 'this file system does not know a call that kvlane needs: use another one',
  ENOTCONN: 'the daemon of this FUSE mount has died: fusermount3 -u DIR, and mount it anew',
  ESTALE: 'the server has another file system there by now: umount, and mount it anew',
  EDQUOT: 'quota -s: raise the quota, or use another user',
};

function failed(directory: string, { step, status, errno, facts }: StepEnd): Finding {
  const detail = facts.detail ?? '';
  if (status === 'expired') return found(`probe.${step}`, 'bad', `${DOES[step]} was not done in time`, 'each call came back, but all together took too long: the mount is far slower than a cache may be', 'kvlane doctor --timeout-s 60 shows how slow');
  if (status === 'corrupt') return found(`probe.${step}`, 'bad', `the file system does not keep its word: ${detail}`, 'every block would be a miss, or names would be taken twice', 'use another file system for the cache');
  if (status === 'not_found') return found(`probe.${step}`, 'bad', detail, 'the file system may not be mounted', (CURES[nameOf(errno)] ?? CURES['ENOENT']!).replaceAll('DIR', asWord(directory)));
  const name = errno === 0 ? status : nameOf(errno);
  return found(`probe.${step}`, 'bad', `${detail || DOES[step]}: ${name}`, 'nothing can be stored there as it is', (CURES[name] ?? 'dmesg may say more').replaceAll('DIR', asWord(directory)));
}

function nameOf(errno: number): string {
  return errno === 0 ? '' : errnoName(errno);
}

function room({ block_bytes: unit = 0, blocks = 0, blocks_free: free = 0, inodes = 0, inodes_free: inodesFree = 0 }: Facts): Finding[] {
  const bytes = free * unit;
  const what = `${size(bytes)} of ${size(blocks * unit)} free`;
  const findings = [
    blocks === 0 ? found('probe.room', 'note', 'the file system does not tell how much room it has', 'only a store that finds none says so (NO_SPACE)') :
    bytes >= FREE_BYTES_MIN ? found('probe.room', 'ok', what) : found('probe.room', 'warn', what, 'stores will soon meet NO_SPACE', 'give it room, or a file system of its own'),
  ];
  if (inodes === 0 || inodesFree > inodes) return findings; // made as they are needed, or counted by nobody
  const files = `${inodesFree} of ${inodes} inodes free, one is needed for each block`;
  findings.push(inodesFree >= FREE_INODES_MIN ? found('probe.inodes', 'ok', files) : found('probe.inodes', 'warn', files, 'stores will soon meet NO_SPACE, though there is room', 'larger blocks, or a file system made with more inodes: mkfs.ext4 -i 65536'));
  return findings;
}

function storeThere(there: boolean): Finding {
  return there ? found('probe.store', 'ok', 'a store is there (kvlane.json)') : found('probe.store', 'note', 'no store is there yet', 'kvlane serve wants one, so that it never fills a directory whose file system is not mounted', 'kvlane serve --create, once, when it is mounted');
}

function otherDoctors(directory: string, n: number): Finding[] {
  if (n === 0) return [];
  return [found('probe.other-doctors', 'note', `${count(n, 'directory', 'directories')} of other doctors: ${n === 1 ? 'it' : 'each'} was killed, or runs or hangs just now`, 'a doctor that hangs removes what it made when its call comes back', `if none runs (pgrep -f doctor-survey, on every host): rm -r ${asWord(directory)}/.kvlane-doctor-*`)];
}

function direct(made: Facts, written: Facts, read: Facts): Finding {
  // direct_align 0: the file system opens with O_DIRECT, and goes through the page cache (ext4 with data=journal).
  if (made.direct !== true || made.direct_align === 0 || written.direct === false || read.direct === false) {
    return found('probe.direct', 'note', 'no O_DIRECT here: reads and writes go through the page cache', 'a cached answer looks like a healthy mount, and every block is copied once more and kept in memory a second time', 'a file system with O_DIRECT, if speed matters');
  }
  const align = made.direct_align ?? read.direct_align_tried;
  if (align !== undefined && align > ALIGN_BYTES_MAX) return found('probe.direct', 'note', `O_DIRECT wants ${align} bytes`, `kvlane aligns to ${ALIGN_BYTES_MAX}, so what is smaller goes through the page cache`, 'a file system with blocks of 4096 bytes');
  return found('probe.direct', 'ok', `O_DIRECT, aligned to ${align ?? ALIGN_BYTES_MAX} bytes`);
}

function times(measures: readonly Measure[]): Finding[] {
  const by = (name: string): Measure | undefined => measures.find((one) => one.name === name);
  const findings: Finding[] = [];
  for (const [id, name, verb] of [['probe.reads', READ, 'read'], ['probe.writes', WRITE, 'written']] as const) {
    const one = by(name);
    if (one === undefined) continue;
    const ms = one.medianUs / 1000;
    const what = `1 MiB is ${verb} in ${duration(ms)} (median of ${count(one.calls, 'call')}, one at a time), ${size(LARGE_BYTES / (Math.max(1, one.medianUs) / 1e6))}/s`;
    if (ms > BLOCK_MS_MAX) findings.push(found(id, 'warn', what, `with ${duration(TIMEOUT_MS)} for a request (--timeout-ms) and eight lanes, most blocks of that size miss their deadline`, 'smaller blocks, a longer --timeout-ms, or a faster file system'));
    else findings.push(found(id, 'ok', what));
  }
  const slowest = measures.toSorted((a, b) => b.mostUs - a.mostUs)[0];
  if (slowest !== undefined && slowest.mostUs / 1000 > STALL_MS) {
    findings.push(found('probe.slowest', 'warn', `one call of ${slowest.name} took ${duration(slowest.mostUs / 1000)}`, `a sidecar counts a call over ${duration(STALL_MS)} (--stall-ms) as evidence that the mount is sick`, 'run doctor again when the mount is idle; if it stays so, a larger --stall-ms'));
  }
  return findings;
}

function unlinked({ readable, renamed_instead: renamed }: Facts): Finding[] {
  if (readable === false) return [found('probe.unlinked', 'note', 'a file that is removed while it is open cannot be read any more', 'a load that meets a remove of its key is a miss')];
  if (renamed === true) return [found('probe.unlinked', 'note', 'a file that is removed while it is open gets another name until it is closed (silly rename)', 'its room is free later; if the host dies before, the name stays', 'find DIR -name ".nfs*" -mtime +1 now and then')];
  return [];
}

function whyLeft({ ends, pid }: Survey): string {
  const end = ends.find((one) => one.step === 'clean');
  if (ends.at(-1)?.status === 'expired') return `calls come back, but removing what was made takes too long to be waited for; process ${pid} goes on with it, and leaves`;
  return end === undefined || end.status === 'ok' ? '' : `${end.facts.detail ?? 'it could not be removed'}: ${nameOf(end.errno) || end.status}`;
}
