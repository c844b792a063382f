// examine.ts — all looks at once, put together. No call on the mount is made here.
import { resolve } from 'node:path';
import { performance } from 'node:perf_hooks';
import { wholeName } from '../directory.ts';
import { KERNEL, readHostFacts } from './host_facts.ts';
import { hostFindings } from './host.ts';
import { mountFindings } from './mount.ts';
import { mountOf, parseMountinfo } from './mountinfo.ts';
import type { MountEntry } from './mountinfo.ts';
import { found } from './findings.ts';
import { addonPath, placesFinding, placesHere } from './places.ts';
import { hasLooked, measuresOf, surveyFindings } from './probe.ts';
import type { Report } from './render.ts';
import { survey } from './survey.ts';
import type { Survey } from './survey.ts';
import { thisLauncher } from '../console/link.ts';

export async function examine(word: string, timeoutMs: number): Promise<Report> {
  const began = performance.now();
  const launcher = thisLauncher();
  const directory = wholeName(word);
  const [host, seen, places] = await Promise.all([readHostFacts(), survey(directory, timeoutMs), placesHere(launcher, addonPath(launcher))]);
  // After the survey, which may have been what mounted it (autofs).
  const mounts = parseMountinfo((await KERNEL.text('/proc/self/mountinfo')) ?? '');
  const { mount, path } = mountAt(directory, seen, mounts);
  const findings = surveyFindings(directory, seen, host.first.ourselves);
  if (mount === null) findings.push(found('mount.where', 'note', `/proc/self/mountinfo does not say what ${directory} lies on`));
  else findings.push(...mountFindings(mount, { path, fuseTimeoutS: host.fuseTimeoutS, uid: process.geteuid?.() ?? null }), placesFinding(places, mount, mounts));
  findings.push(...hostFindings(host, seen.trouble?.code === 'KVLANE_NO_OPENAT2'));
  return { directory, mount, findings, measures: measuresOf(seen.ends), looked: hasLooked(seen), tookMs: performance.now() - began };
}

/** As the lane found it; by the name alone where it could not open it: links are not followed then. */
function mountAt(directory: string, { ends }: Survey, mounts: readonly MountEntry[]): { mount: MountEntry | null; path: string } {
  const root = ends.find((end) => end.step === 'root' && end.status === 'ok')?.facts;
  const path = root?.path ? root.path : resolve(directory);
  return { mount: mounts.find((one) => one.id === root?.mount_id) ?? mountOf(path, mounts), path };
}
