// collector.ts — keeps one store within its limit: gets the lease, looks at all blocks, removes those used longest ago.
//
//   waiting for the lease ─► idle ─► scanning ─► evicting ─► sweeping ─► idle
//
// One call at a time, each with a deadline, and after each a rest as long as it took: its lane (collector_lane.ts) is never busy
// for more than half of the time, and a file system that hangs has that one thread of it. What does not end as it should ends the
// pass, and nothing is removed on the ground of a listing that failed. It deletes what users stored, so whatever is in doubt
// is left alone: the lease, the age, the identity of each file are asked anew at each removal.
import type { Ask, AskAnswer, CollectorLane } from './collector_lane.ts';
import { CollectorLease, LEASE_TIMES, readLease, type LeaseStep, type LeaseTimes } from './collector_lease.ts';
import type { Alarm, Deadlines } from './deadlines.ts';
import { LEFTOVER_AGE_US, Leftovers, type Leftover } from './leftovers.ts';
import { Oldest, type Candidate } from './oldest.ts';
import { GOAL_OF_LIMIT, Pass } from './pass.ts';
import { Hearing, isOfHolder, SIGN_TIMES, type SignAsk, type SignTimes, Wanting } from './signs.ts';
import { type LimitOf, StoreLimit } from './store_limit.ts';
import { StoreScan } from './store_scan.ts';
import { URGED_BYTES_MIN, Urging, URGING_TIMES, type UrgingTimes, type Waiter } from './urging.ts';

/** No call of it is waited for longer. */
export const CALL_TIMEOUT_US = 10_000_000;
/** 2,000 removals a second: more than a disk takes of new blocks of 1 MiB, and a tenth of what ext4 can unlink. */
export const EVICTION_SPACING_US = 500;
/** Removals that failed in one pass: one bad file is passed over, this many are a bad file system. */
export const FAILED_REMOVALS_MAX = 16;
/** These say something of one file (another user's, one that is immutable), and nothing of its file system: passed over, however many. */
const REFUSALS: ReadonlySet<string> = new Set(['EACCES', 'EPERM', 'EINVAL']);

export interface CollectorTimes extends LeaseTimes, UrgingTimes, SignTimes {
  callUs: number;
  /** Between passes: when the limit is near, and at most. */
  passUs: number;
  passMaxUs: number;
  /** A block this young stays: its writer may be about to answer. */
  youngUs: number;
  leftoverUs: number;
  /** For so long a file system must have been smaller before a share of it is. */
  shrinkUs: number;
}

export const COLLECTOR_TIMES: CollectorTimes = { ...LEASE_TIMES, ...URGING_TIMES, ...SIGN_TIMES, callUs: CALL_TIMEOUT_US, passUs: 60_000_000, passMaxUs: 600_000_000, youngUs: 10_000_000, leftoverUs: LEFTOVER_AGE_US, shrinkUs: 3_600_000_000 };

export interface CollectorDeps {
  lane: CollectorLane;
  deadlines: Deadlines;
  /** Of all its own calls: no other sidecar's, ever. */
  owner: string;
  limitBytes: LimitOf;
  say(level: 'info' | 'warn', event: string, fields: object): void;
  times?: CollectorTimes;
}

export class Collector implements Alarm {
  atUs = 0;
  heapIndex = -1;
  readonly figures = { passes: 0, failed_passes: 0, evicted_blocks: 0, evicted_bytes: 0, urged: 0, orphans_removed: 0, last_pass_ms: 0 };
  #deps: CollectorDeps;
  #times: CollectorTimes;
  #lease: CollectorLease;
  #limit: StoreLimit;
  #leftovers: Leftovers;
  #inHand: { ask: Ask; startedUs: number } | null = null;
  #pass: Pass | null = null;
  #leaseDueUs = 0;
  #restUntilUs = 0;
  #nextPassUs = 0;
  /** Of passes that failed one after another. */
  #failures = 0;
  #reason = '';
  /** Why no want of another sidecar is heard; empty: it would be. */
  #deaf = '';
  #usedBytes: number | null = null;
  #blocks = 0;
  /** The file system's clock: what it showed, at our time. */
  #fsClock: { fsUs: number; atUs: number } | null = null;
  /** When the last pass that saw all ended, and what this sidecar stored since. */
  #countedUs = 0;
  #storedBytes = 0;
  #urging: Urging;
  #hearing: Hearing;
  #wanting: Wanting;
  #leaving: (() => void) | null = null;
  /** Nothing is begun any more, and no lease is taken. */
  #left = false;

  constructor(deps: CollectorDeps) {
    this.#deps = deps;
    this.#times = deps.times ?? COLLECTOR_TIMES;
    this.#urging = new Urging(this.#times);
    this.#hearing = new Hearing(this.#times);
    this.#wanting = new Wanting(this.#times);
    this.#limit = new StoreLimit(deps.limitBytes, this.#times.shrinkUs);
    this.#lease = new CollectorLease(deps.owner, this.#times);
    this.#leftovers = new Leftovers(this.#times.leftoverUs);
  }

  start(nowUs: number): void {
    this.#step(nowUs);
  }

  /** Nothing is asked any more; what is in hand is its lane's. */
  stop(nowUs: number): void {
    this.#deps.deadlines.clear(this);
    this.#urging.tell(false, nowUs); // before the pass ends: what they want to store was asked of the store that was here
    this.#leavePass(nowUs);
    this.#lease.fenced();
    this.#inHand = null;
  }

  ring(nowUs: number): void {
    this.#step(nowUs);
  }

  holds(nowUs: number): boolean {
    return this.#lease.holds(nowUs);
  }

  /** This sidecar stored so much. The next pass comes early if that may have filled the store. */
  stored(bytes: number, nowUs: number): void {
    this.#storedBytes += bytes;
    const limit = this.#limit.bytes();
    if (this.#pass !== null || this.#usedBytes === null || limit === null || this.#usedBytes + this.#storedBytes <= limit) return;
    const soonestUs = this.#countedUs + Math.max(this.#times.everyUs, this.figures.last_pass_ms * 1000);
    if (this.#failures > 0 || this.#nextPassUs <= soonestUs) return;
    this.#nextPassUs = soonestUs;
    this.#wakeAt(nowUs + 1);
  }

  /** A store found no room. True: `waiter` will hear whether to try again, of a pass here or from the sidecar that collects. */
  urge(waiter: Waiter, nowUs: number): boolean {
    if (this.#left || this.#deps.lane.obstacle() !== '') return false;
    if (this.#lease.holds(nowUs)) {
      if (!this.#urgeOwn(waiter, nowUs)) return false;
    } else {
      if (!this.#urging.isAwaited) this.#urging.wanted = false; // whoever wanted it was answered
      const before = this.#urging.wanted;
      if (!this.#urging.join(waiter, false, nowUs)) return false;
      if (!before) this.#leaseDueUs = nowUs; // whoever had the lease may have left it: then it is taken first
    }
    this.#wakeAt(nowUs + 1); // not from in here: the waiter is told later
    return true;
  }

  /** The pass that is under way, or one that begins next. `waiter` null: those of other sidecars, who hear by the sign. */
  #urgeOwn(waiter: Waiter | null, nowUs: number): boolean {
    if (this.#limit.bytes() === null) return false;
    const pass = this.#pass?.stage === 'sweeping' ? null : this.#pass;
    if (!this.#urging.join(waiter, pass?.urged === true, nowUs)) return false;
    if (pass !== null && this.#urging.wanted) {
      pass.urged = true;
      this.#urging.wanted = false;
      this.figures.urged += 1;
    }
    return true;
  }

  /** Its task was answered meanwhile. */
  gaveUp(waiter: Waiter): void {
    this.#urging.gaveUp(waiter);
  }

  /** What became of a store that was tried again. */
  retried(found: boolean, nowUs: number): void {
    this.#urging.retried(found, nowUs);
  }

  /** Gives the lease back, so that another needs not wait; `done` once, when that is over or there is nothing to give. */
  leave(nowUs: number, done: () => void): void {
    this.#deps.deadlines.clear(this);
    this.#leavePass(nowUs);
    this.#reason = 'the sidecar is leaving';
    this.#left = true;
    if (!this.#lease.holds(nowUs) || this.#deps.lane.obstacle() !== '') return done();
    this.#leaving = done;
    if (this.#inHand === null) this.#giveBack(nowUs);
  }

  answered(answer: AskAnswer, nowUs: number): void {
    const inHand = this.#inHand;
    if (inHand === null) return; // stopped meanwhile
    this.#inHand = null;
    const { ask, startedUs } = inHand;
    this.#restUntilUs = nowUs + Math.max(nowUs - startedUs, ask.kind === 'remove' || ask.kind === 'remove_file' ? EVICTION_SPACING_US : 1);
    switch (ask.kind) {
      case 'lease':
        this.#leaseAnswered(ask.step, answer, startedUs, nowUs);
        break;
      case 'sign':
        this.#signAnswered(ask, answer, nowUs);
        break;
      case 'list':
        this.#listAnswered(ask.path, answer, nowUs);
        break;
      case 'remove':
        this.#removeAnswered(ask, answer, nowUs);
        break;
      case 'remove_file':
        this.#leftoverAnswered(ask.leftover, answer, nowUs);
        break;
    }
    if (this.#leaving !== null) this.#giveBack(nowUs);
    else this.#step(nowUs);
  }

  picture(nowUs: number): object {
    const limit = this.#limit.bytes();
    const holds = this.#lease.holds(nowUs);
    const reason = this.#reason !== '' || !holds ? this.#reason : this.#deaf;
    const state = this.#pass?.stage ?? (holds ? 'idle' : 'waiting');
    return {
      limit_bytes: limit,
      // What another has removed since is not known here.
      used_bytes: holds ? this.#usedBytes : null,
      blocks: holds ? this.#blocks : 0,
      role: holds ? 'holder' : 'waiting',
      lease_number: this.#lease.number,
      state,
      ...this.figures,
      wants: this.#wanting.told,
      ...(reason === '' ? {} : { reason }),
    };
  }

  // ---- what is next ----

  #step(nowUs: number): void {
    if (this.#inHand !== null || this.#left) return;
    const obstacle = this.#deps.lane.obstacle();
    if (obstacle !== '') {
      this.#endPass(nowUs, obstacle);
      this.#wanting.ends();
      this.#noPass(nowUs);
      this.#reason = obstacle;
      this.#wakeAt(nowUs + this.#times.everyUs);
      return;
    }
    if (nowUs >= this.#leaseDueUs) {
      this.#leaseDueUs = nowUs + this.#times.everyUs;
      this.#ask({ kind: 'lease', step: this.#lease.next() }, nowUs);
      return;
    }
    const holds = this.#lease.holds(nowUs);
    if (!holds) {
      this.#endPass(nowUs, 'the lease ended');
      const asks = this.#urging.isAwaited && this.#lease.isAnothers(nowUs);
      if (!asks) {
        this.#wanting.ends();
        this.#urging.tell(false, nowUs);
        this.#wakeAt(this.#leaseDueUs);
        return;
      }
    }
    if (nowUs < this.#restUntilUs) {
      this.#wakeAt(Math.min(this.#restUntilUs, this.#leaseDueUs));
      return;
    }
    const sign = holds ? this.#hearing.next(nowUs) : this.#wanting.next(nowUs);
    if (sign !== null) {
      this.#ask(sign, nowUs);
      return;
    }
    if (!holds) {
      this.#wakeAt(Math.min(this.#wanting.dueUs, this.#leaseDueUs));
      return;
    }
    if (this.#pass === null) {
      if (!this.#urging.wanted && nowUs < this.#nextPassUs) {
        this.#wakeAt(Math.min(this.#nextPassUs, this.#leaseDueUs, this.#hearing.dueUs));
        return;
      }
      if (!this.#beginPass(nowUs)) return;
    }
    this.#goOn(this.#pass!, nowUs);
  }

  #goOn(pass: Pass, nowUs: number): void {
    if (pass.stage === 'scanning') {
      const next = pass.scan.next();
      if (next !== null) {
        this.#ask({ kind: 'list', ...next }, nowUs);
        return;
      }
      const nonsense = this.#limit.falseSize(pass.scan.usedBytes);
      if (nonsense !== '') {
        this.#fail(nowUs, nonsense);
        this.#step(nowUs);
        return;
      }
      this.#scanned(pass, nowUs);
    }
    if (pass.stage === 'evicting') {
      const block = pass.next(this.#usedBytes!, (candidate) => this.#mayGo(candidate, nowUs));
      if (block === 'later') {
        this.#wakeAt(nowUs + 1);
        return;
      }
      if (block !== null) {
        this.#ask({ kind: 'remove', block, recycles: !pass.urged, fence: this.#lease.fence }, nowUs);
        return;
      }
      pass.stage = 'sweeping';
      if (pass.urged && pass.roomBytes === 0) this.#urging.retried(false, nowUs); // nothing that may go: not so soon again
      if (pass.urged) this.#urgedPassTells(pass.roomBytes > 0, nowUs);
      if (this.#left) return; // the last of them ended a drain
    }
    const leftover = pass.leftovers.pop();
    if (leftover === undefined) {
      this.#endPass(nowUs, '');
      this.#step(nowUs);
    } else this.#ask({ kind: 'remove_file', leftover, fence: this.#lease.fence }, nowUs);
  }

  #ask(ask: Ask, nowUs: number): void {
    this.#inHand = { ask, startedUs: nowUs };
    const removes = ask.kind === 'remove' || ask.kind === 'remove_file';
    const deadlineUs = nowUs + this.#times.callUs;
    this.#deps.lane.ask(ask, removes ? Math.min(deadlineUs, this.#lease.endUs) : deadlineUs, nowUs);
  }

  #wakeAt(atUs: number): void {
    this.#deps.deadlines.set(this, atUs);
  }

  // ---- the lease ----

  #leaseAnswered(step: LeaseStep | { action: 'leave' }, answer: AskAnswer, startedUs: number, nowUs: number): void {
    if (step.action === 'leave') return;
    if (answer.status === 'fenced') {
      this.#lease.fenced();
      this.#fail(nowUs, 'another sidecar has the lease');
      this.#reason = 'another sidecar has the lease';
      return;
    }
    const told = answer.status === 'ok' ? readLease(answer.text) : null;
    if (told === null) {
      this.#lease.unanswered();
      this.#reason = `the lease cannot be had: ${answer.status === 'ok' ? 'its answer cannot be read' : answer.why}`;
      return;
    }
    if (told.totalBytes !== null) this.#limit.learn(told.totalBytes, nowUs);
    if (step.action === 'look') {
      if (this.#lease.looked(told.number, told.content, startedUs, nowUs, told.modifiedNs)) this.#leaseDueUs = nowUs;
      else this.#reason = 'another sidecar collects';
      return;
    }
    const before = this.#lease.number;
    this.#lease.granted(step, startedUs);
    // At the end of the call the file was written already: the file system's clock shows at least this.
    this.#fsClock = { fsUs: told.modifiedUs, atUs: nowUs };
    if (step.action === 'take') {
      this.#reason = '';
      this.#hearing.begins();
      this.#urging.begins(nowUs);
      this.#nextPassUs = nowUs;
      this.#deps.say('info', 'collects', { lease_number: step.number, before });
    }
  }

  #signAnswered(ask: SignAsk, answer: AskAnswer, nowUs: number): void {
    const toldNs = answer.status === 'ok' ? (readLease(answer.text)?.modifiedNs ?? null) : null;
    if (isOfHolder(ask)) {
      if (ask.action === 'listen') this.#deaf = answer.status === 'ok' ? '' : `of stores on other sidecars that find no room nothing is heard: ${answer.why}`;
      const wants = this.#hearing.answered(ask, toldNs, nowUs);
      if (wants && (this.#left || !this.#lease.holds(nowUs) || !this.#urgeOwn(null, nowUs))) this.#hearing.owes();
      return;
    }
    const tryAgain = this.#wanting.answered(ask, toldNs, nowUs);
    if (this.#wanting.unanswered) this.#urging.retried(false, nowUs); // nobody hears it: not so soon again
    if (tryAgain === null) return;
    this.#wanting.ends();
    this.#urging.tell(tryAgain, nowUs);
  }

  #giveBack(nowUs: number): void {
    if (this.#inHand !== null) return;
    const done = this.#leaving!;
    if (this.#deps.lane.obstacle() !== '') return done();
    if (this.#lease.holds(nowUs)) {
      const number = this.#lease.number;
      this.#lease.fenced();
      return this.#ask({ kind: 'lease', step: { action: 'leave', number, text: '' } }, nowUs);
    }
    const owed = this.#hearing.last(); // after the lease, which is worth more
    if (owed === null) return done();
    this.#ask(owed, nowUs);
  }

  // ---- a pass ----

  #beginPass(nowUs: number): boolean {
    const limit = this.#limit.bytes();
    if (limit === null || this.#fsClock === null) {
      this.#reason = 'how large the file system is, is not known yet';
      this.#urging.tell(false, nowUs);
      this.#wakeAt(this.#leaseDueUs);
      return false;
    }
    const oldest = new Oldest();
    this.#leftovers.passBegins();
    this.#pass = new Pass(nowUs, this.#urging.wanted, new StoreScan(oldest, this.#leftovers), oldest);
    if (this.#urging.wanted) this.figures.urged += 1;
    this.#urging.wanted = false;
    this.#reason = '';
    return true;
  }

  #listAnswered(path: string, answer: AskAnswer, nowUs: number): void {
    const pass = this.#pass;
    if (pass === null) return;
    if (answer.status === 'not_found') pass.scan.isGone();
    else if (answer.status !== 'ok') this.#fail(nowUs, `${path} cannot be listed: ${answer.why}`);
    else if (!pass.scan.listed(answer.text, this.#fsNowUs(nowUs), nowUs)) this.#fail(nowUs, `the listing of ${path} cannot be read`);
  }

  #scanned(pass: Pass, nowUs: number): void {
    const limit = this.#limit.bytes()!;
    const used = pass.scan.usedBytes;
    this.#schedule(pass, used, limit, nowUs);
    this.#usedBytes = used;
    this.#blocks = pass.scan.blocks;
    this.#countedUs = nowUs;
    this.#storedBytes = 0;
    pass.scanned(limit, this.#leftovers.due(nowUs));
  }

  // Half way to where the limit would be reached, as fast as the store grew since the last pass.
  #schedule(pass: Pass, used: number, limit: number, nowUs: number): void {
    const { passUs, passMaxUs } = this.#times;
    const grown = this.#usedBytes === null ? Infinity : used - this.#usedBytes;
    const left = used > limit ? limit * (1 - GOAL_OF_LIMIT) : limit - used;
    const halfUs = grown <= 0 ? passMaxUs : (left / grown) * (nowUs - this.#countedUs) * 0.5;
    this.#nextPassUs = nowUs + Math.round(Math.max(nowUs - pass.startedUs, Math.min(passMaxUs, Math.max(passUs, halfUs))));
  }

  #mayGo(block: Candidate, nowUs: number): boolean | 'too young' {
    if (this.#fsNowUs(nowUs) - block.rankUs < this.#times.youngUs) return 'too young';
    return !this.#deps.lane.isBusy(block.namespace, block.hex, nowUs);
  }

  #removeAnswered({ block, recycles }: Extract<Ask, { kind: 'remove' }>, answer: AskAnswer, nowUs: number): void {
    const pass = this.#pass;
    const removed = answer.status === 'ok' && !answer.kept;
    if ((removed || answer.status === 'not_found') && this.#usedBytes !== null) {
      this.#usedBytes = Math.max(0, this.#usedBytes - block.allocatedBytes);
      this.#blocks -= 1;
    }
    if (removed) {
      this.figures.evicted_blocks += 1;
      this.figures.evicted_bytes += block.allocatedBytes;
    }
    if (pass === null) return;
    if (removed) {
      pass.removed(block.allocatedBytes, recycles);
      if (pass.urged && pass.roomBytes >= URGED_BYTES_MIN) this.#urgedPassTells(true, nowUs);
    } else if (answer.status !== 'ok' && answer.status !== 'not_found') this.#removalFailed(pass, answer, `${block.namespace}/${block.hex}`, nowUs);
  }

  #leftoverAnswered({ path }: Leftover, answer: AskAnswer, nowUs: number): void {
    if (answer.status === 'ok' || answer.status === 'not_found' || answer.error === 'EBUSY') { // this process's own: it lives
      if (answer.status === 'ok' && !answer.kept) this.figures.orphans_removed += 1;
      this.#leftovers.forget(path);
    } else if (this.#pass !== null) this.#removalFailed(this.#pass, answer, path, nowUs);
  }

  #removalFailed(pass: Pass, answer: AskAnswer, what: string, nowUs: number): void {
    if (REFUSALS.has(answer.error)) {
      pass.refused += 1;
      if (pass.refused === 1) pass.firstRefusal = `${what}: ${answer.why}`;
      return;
    }
    if (answer.error === 'EBUSY') return;
    pass.failedRemovals += 1;
    if (answer.status === 'fenced') {
      this.#lease.fenced();
      this.#fail(nowUs, 'another sidecar has the lease');
    } else if (answer.status === 'stuck' || pass.failedRemovals >= FAILED_REMOVALS_MAX) this.#fail(nowUs, `${what} cannot be removed: ${answer.why}`);
    else if (answer.status !== 'expired') this.#deps.say('warn', 'not evicted', { what, why: answer.why });
  }

  #fail(nowUs: number, reason: string): void {
    this.#endPass(nowUs, reason);
    this.#noPass(nowUs);
  }

  /** For those who wait for one that has not begun. */
  #noPass(nowUs: number): void {
    if (this.#urging.wanted) this.#hearing.owes();
    this.#urging.tell(false, nowUs);
  }

  /** `failed`: why; empty: it saw and did all. */
  #endPass(nowUs: number, failed: string): void {
    const pass = this.#pass;
    if (pass === null) return;
    this.#pass = null;
    const tookUs = nowUs - pass.startedUs;
    this.#reason = failed;
    if (pass.refused > 0) {
      this.#deps.say('warn', 'not evicted', { files: pass.refused, first: pass.firstRefusal });
      if (failed === '') this.#reason = `${pass.refused} ${pass.refused === 1 ? 'file' : 'files'} may not be removed, the first ${pass.firstRefusal}`;
    }
    if (failed === '') {
      this.figures.passes += 1;
      this.figures.last_pass_ms = Math.round(tookUs / 1000);
      this.#failures = 0;
      this.#nextPassUs = Math.max(this.#nextPassUs, nowUs + tookUs);
      if (pass.isShort(this.#usedBytes!)) this.#nextPassUs = nowUs + tookUs; // more than one pass holds
    } else {
      this.figures.failed_passes += 1;
      this.#failures += 1;
      this.#nextPassUs = nowUs + Math.max(tookUs, Math.min(this.#times.passMaxUs, this.#times.passUs * 2 ** (this.#failures - 1)));
    }
    if (failed !== '' || pass.evicted > 0) {
      const fields = this.#told(pass, nowUs);
      if (failed === '') this.#deps.say('info', 'collected', fields);
      else this.#deps.say('warn', 'collecting failed', { reason: failed, ...fields });
    }
    if (pass.urged && pass.stage !== 'sweeping') this.#urgedPassTells(pass.roomBytes > 0, nowUs);
  }

  /** In the midst of it, and no failure: what it did is done, and whoever collects next begins anew. */
  #leavePass(nowUs: number): void {
    const pass = this.#pass;
    this.#pass = null;
    if (pass !== null && pass.evicted > 0) this.#deps.say('info', 'collected', this.#told(pass, nowUs));
    if (pass?.urged === true || this.#urging.wanted) this.#hearing.owes();
    this.#urging.tell(pass !== null && pass.urged && pass.roomBytes > 0, nowUs);
  }

  #urgedPassTells(madeRoom: boolean, nowUs: number): void {
    this.#hearing.owes(); // also where nobody was heard: they may be about to be
    this.#urging.tell(madeRoom, nowUs);
  }

  #told(pass: Pass, nowUs: number): object {
    return { used_bytes: this.#usedBytes, evicted_blocks: pass.evicted, evicted_bytes: pass.freedBytes, urged: pass.urged, took_ms: Math.round((nowUs - pass.startedUs) / 1000) };
  }

  #fsNowUs(nowUs: number): number {
    const { fsUs, atUs } = this.#fsClock!;
    return fsUs + (nowUs - atUs);
  }
}
