// ending.ts — the end of every run: all is well again, so every class has to be used again within a second and do its work; then
// the client goes, and nothing may be left over: no task, slot, gate, lane, device or timer.
import { LANE_CLASSES, type Answer, type Id } from '../../protocol/messages.ts';
import type { Run } from './run.ts';
import type { Sidecar } from './sidecar.ts';
import { Broken } from './story.ts';

/** From the resume of everything until every class is used again: the promise says a second. */
const BACK_US = 1_000_000;
/** What timers, the list of mounts and the last calls that were stuck may take beside that. */
const BACK_SLACK_US = 60_000;
/** The longest deadline there is, and operations that nobody waits for. */
const ALL_DONE_US = 25_000_000;
/** The last look for files of dead sidecars. */
const LAST_LOOK_US = 700_000_000;

interface Stats {
  outstanding: number;
  slots: Record<string, number>;
  staging: Record<string, number>;
  keys_gated: number;
  mounts: { name: string; device: string | null }[];
  devices: { device: string; classes: Record<string, { operations_abandoned: number; lanes_stuck: number; queued: number; probes_stuck: number }> }[];
}

export async function end(run: Run): Promise<void> {
  const { agenda, story, world, faults } = run;
  story.tell('world', () => 'everything is well from here on');
  faults.heal();
  const sidecar = await settled(run);
  sidecar.native.fallenBack = null;
  sidecar.native.lookAtQueues();
  faults.resumeAll(sidecar.native);
  const { mounts } = world.options;
  const names = mounts.map(({ name }) => name);
  const right = names.filter((_, mount) => faults.isRight(world.roots[mount]!));
  // A client that asks is what makes a remount known.
  for (const mount of names) sidecar.takes({ id: run.newId(), op: 'lookup', mount, timeout_ms: 50, keys: ['llama/fe'] });
  await run.until(agenda.nowUs + BACK_US + BACK_SLACK_US);
  usedAgain(sidecar, right);
  // What a mount is to be is what the sidecar took it for: that is mounted again.
  for (const root of world.roots) if (!faults.isRight(root)) faults.mount(root, faults.homeOf(root));
  for (const mount of names) sidecar.takes({ id: run.newId(), op: 'lookup', mount, timeout_ms: 50, keys: ['llama/fe'] });
  await run.until(agenda.nowUs + BACK_US + BACK_SLACK_US);
  usedAgain(sidecar, names);
  story.saw('all back');
  await everyClassWorks(run, sidecar, names);
  for (let i = 0; i < 12; i += 1) {
    run.ask((['load', 'store', 'lookup', 'remove', 'namespace', 'question'] as const)[i % 6]!);
    await run.until(agenda.nowUs + 1_000);
  }
  await run.until(agenda.nowUs + ALL_DONE_US);
  nothingIsLeft(sidecar);
  const stats = await lastStats(run, sidecar);
  booksAreEmpty(stats);
  onTheirDevices(run, stats);
  // Everything moves to other devices: the old ones go only if they count nothing in hand.
  for (const root of world.roots) faults.mount(root, faults.newFileSystem(root.fileSystem.store!, null));
  run.ask('lookup');
  await run.until(agenda.nowUs + 4_000_000);
  run.ask('lookup');
  await run.until(agenda.nowUs + ALL_DONE_US);
  const moved = await lastStats(run, sidecar);
  onTheirDevices(run, moved);
  const labels = new Set(world.roots.map((root) => root.fileSystem.label));
  const stale = moved.devices.filter(({ device }) => !labels.has(device));
  if (stale.length > 0) throw new Broken('nothing is left', `devices that no mount lies on are still counted: ${JSON.stringify(stale).slice(0, 600)}`);
  await run.until(agenda.nowUs + LAST_LOOK_US);
  if (sidecar.armedUs !== 0) throw new Broken('nothing is left', `a timer is armed for ${sidecar.armedUs - agenda.nowUs} us from now, with nothing to do`);
  run.over = true;
  sidecar.leaveFromOutside('signal', 100);
  await run.until(agenda.nowUs + 200_000);
  if (sidecar.alive) throw new Broken('drain', 'with nothing outstanding it does not leave');
}

/** One that has started, is not about to leave, and runs. */
async function settled(run: Run): Promise<Sidecar> {
  for (;;) {
    await run.until(run.agenda.nowUs + 100); // a stop inside a turn leaves things undone
    const { nowUs } = run.agenda;
    const { sidecar } = run;
    if (sidecar === null || !sidecar.ready || sidecar.leaving) await run.until(nowUs + 100_000);
    else if (nowUs < sidecar.awayUntilUs + 100) await run.until(sidecar.awayUntilUs + 100); // what waited for it is read then, and may be a shutdown
    else if (sidecar.inside !== null) sidecar.inside = null;
    else return sidecar;
  }
}

function usedAgain(sidecar: Sidecar, names: string[]): void {
  for (const name of names) {
    for (const laneClass of LANE_CLASSES) {
      const state = sidecar.checker.saidOf(name, laneClass);
      if (state !== 'ok' && state !== 'unknown') throw new Broken('back within a second', `${name} is still ${state} for ${laneClass} ${BACK_US / 1000} ms after everything was well`);
    }
  }
}

/** What is asked of a mount that is said to be well is done. */
async function everyClassWorks(run: Run, sidecar: Sidecar, names: string[]): Promise<void> {
  for (const mount of names) {
    const head = { mount, timeout_ms: 10_000 };
    const asks: [Record<string, unknown>, Record<string, unknown>][] = [
      [{ op: 'remove', ...head, keys: ['llama/ff'] }, { ok: true, done: 1 }],
      [{ op: 'load', ...head, inline: true, blocks: [{ key: 'llama/ff' }] }, { ok: false, done: 0 }],
      [{ op: 'store', ...head, if_exists: 'replace', blocks: [{ key: 'llama/ff', text: `the end of ${mount}` }] }, { ok: true, done: 1, kept: 0 }],
      [{ op: 'load', ...head, inline: true, blocks: [{ key: 'llama/ff' }] }, { ok: true, done: 1 }],
      [{ op: 'lookup', ...head, keys: ['llama/ff', 'llama/fe'] }, { ok: true, present: [true, false] }],
    ];
    for (const [question, wanted] of asks) {
      const answer = (await answerTo(run, sidecar, question)) as unknown as Record<string, unknown> | null;
      for (const [field, value] of Object.entries(wanted)) {
        if (JSON.stringify(answer?.[field]) !== JSON.stringify(value)) throw new Broken('back within a second', `all is well with ${mount}, but ${JSON.stringify(question)} was answered ${JSON.stringify(answer)}`);
      }
    }
  }
}

async function answerTo(run: Run, sidecar: Sidecar, question: Record<string, unknown>): Promise<Answer | null> {
  const id: Id = run.newId();
  const { wanted } = sidecar.checker;
  wanted.set(id, null);
  sidecar.takes({ id, ...question });
  for (let ms = 1; ms < 12_000 && wanted.get(id) === null; ms *= 2) await run.until(run.agenda.nowUs + ms * 1_000);
  const answer = wanted.get(id)!;
  wanted.delete(id);
  return answer;
}

async function lastStats(run: Run, sidecar: Sidecar): Promise<Stats> {
  return ((await answerTo(run, sidecar, { op: 'stats' })) as unknown as { stats: Stats }).stats;
}

function nothingIsLeft({ checker, native }: Sidecar): void {
  const left = checker.whatIsLeft();
  if (native.operations.size > 0) left.push(`${native.operations.size} operations with the lanes: ${[...native.operations.values()].map((one) => `${one.spec.kind} ${one.state}`).slice(0, 4).join(', ')}`);
  if (native.extra.used > 0) left.push(`${native.extra.used} lanes beyond the first ones`);
  if (left.length > 0) throw new Broken('nothing is left', left.join('; '));
}

function booksAreEmpty(stats: Stats): void {
  const { slots, staging, keys_gated: gated, outstanding, devices } = stats;
  const left: string[] = [];
  if (outstanding !== 0) left.push(`${outstanding} tasks`);
  if (slots['in_flight'] !== 0 || slots['quarantined'] !== 0) left.push(`slots ${JSON.stringify(slots)}`);
  if (staging['in_flight'] !== 0 || staging['quarantined'] !== 0) left.push(`staging ${JSON.stringify(staging)}`);
  if (gated !== 0) left.push(`${gated} gates`);
  for (const device of devices) {
    for (const [laneClass, group] of Object.entries(device.classes)) {
      if (group.operations_abandoned !== 0 || group.lanes_stuck !== 0 || group.queued !== 0 || group.probes_stuck !== 0) left.push(`${laneClass} of ${device.device}: ${JSON.stringify(group)}`);
    }
  }
  if (left.length > 0) throw new Broken('nothing is left', `stats still counts ${left.join('; ')}`);
}

function onTheirDevices(run: Run, stats: Stats): void {
  stats.mounts.forEach(({ name, device }, mount) => {
    const { label } = run.world.roots[mount]!.fileSystem;
    if (device !== label) throw new Broken('old mount', `${name} is said to lie on ${device}, and lies on ${label}`);
  });
}
