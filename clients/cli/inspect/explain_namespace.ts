// explain_namespace.ts — a namespace, with its generation or without: whether it is recorded, what it holds, and how it goes.
import { EXIT_FOUND } from '../spec.ts';
import { columns } from '../text/table.ts';
import { count, ranges, size } from '../text/units.ts';
import type { Out } from './out.ts';
import { json, shown } from './shown.ts';
import type { Store } from './store.ts';
import { OpenNames } from './open_names.ts';
import { inNamespace, inside, namespaces } from './walk.ts';

/** Of one name, told by number; whoever changes what its model is has a few. */
export const GENERATIONS_SHOWN_MAX = 100;

const RECORD = /^(.+?)(?:@([0-9]+))?\.json$/;

export async function explainNamespace(store: Store, asJson: boolean, namespace: string, out: Out): Promise<number> {
  const names = new OpenNames(store, (text) => out.note(text));
  const [name = '', generation] = namespace.split('@');

  let recorded = false;
  const taken: number[] = [];
  for await (const { kind, entry } of inside(names, 'namespaces')) {
    const [, of, number] = (kind === 'record' ? RECORD.exec(entry.name) : null) ?? [];
    if (of !== name) continue;
    if (number === undefined) recorded = true;
    else taken.push(Number(number));
  }
  let isThere = false;
  const others: string[] = [];
  for await (const { kind, entry } of namespaces(names)) {
    if (kind !== 'directory') continue;
    if (entry.name === namespace) isThere = true;
    else if (entry.name.split('@')[0] === name) others.push(entry.name);
  }
  const holds = { blocks: 0, bytes: 0, allocated_bytes: 0, others: 0 };
  if (isThere) {
    for await (const { kind, entry } of inNamespace(names, namespace)) {
      if (kind !== 'block') {
        holds.others += 1;
        continue;
      }
      holds.blocks += 1;
      holds.bytes += entry.bytes;
      holds.allocated_bytes += entry.allocated_bytes;
    }
  }

  const known = isThere || (generation === undefined ? recorded || taken.length > 0 : taken.includes(Number(generation)));
  const is = !known ? 'no such namespace' : generation === undefined ? 'a namespace' : `generation ${generation} of the namespace ${name}`;
  const so = !known
    ? 'nothing was stored in it: a load from it is a miss'
    : holds.blocks === 0
      ? 'nothing is in it to be loaded or removed; its record stays, so that no generation is given out twice'
      : `its blocks go by: kvlane inspect rm DIR --namespace ${namespace}; its record stays, so that no generation is given out twice`;
  if (asJson) await out.line(json({ path: `blocks/${namespace}`, kind: 'namespace', namespace, there: isThere, recorded, taken, ...holds, others_of_name: others, complete: names.shut === 0, is, so }));
  else {
    const rows = [
      ['what', is],
      ['record', recorded ? `namespaces/${name}.json: what the current generation holds` : `none: nobody asked for ${name} by its fingerprint`],
      ...(taken.length === 0 ? [] : [['taken', `generation ${some(ranges(taken).split(', '))}`]]),
      ...(isThere ? [['holds', `${count(holds.blocks, 'block')}, ${size(holds.bytes)}, ${size(holds.allocated_bytes)} on the disk${holds.others > 0 ? `, and ${count(holds.others, 'name')} that ${holds.others === 1 ? 'is' : 'are'} no block` : ''}`]] : []),
      ...(others.length === 0 ? [] : [['beside it', some(others.sort())]]),
      ['so', so],
    ];
    await out.line(shown(namespace));
    for (const line of columns(rows.map(([title, text]) => [title!, ` ${text!}`]))) await out.line(line);
  }
  await out.flush();
  return known || names.shut > 0 ? names.exitCode : EXIT_FOUND;
}

function some(words: readonly string[]): string {
  return `${words.slice(0, GENERATIONS_SHOWN_MAX).join(', ')}${words.length > GENERATIONS_SHOWN_MAX ? ` and ${words.length - GENERATIONS_SHOWN_MAX} more` : ''}`;
}
