// Lanes were replaced, and then some of what was stuck comes back: there are more lanes than asked for now, none of them can
// leave because each still has a call in the kernel, and what is well must be served all the same.

import { expect, it } from 'vitest';
import { codesOf, opsOf } from '../support/promptness.ts';
import { keysOf, onEachEngine, withRig } from '../support/rig.ts';

const TIMEOUT_MS = 300;

onEachEngine('replaced lanes', (engine) => {
  it('serves other blocks while every lane still has a stuck call of its own', () =>
    withRig({ engine, breakerHeldClosed: true, stuckMax: 8, args: ['--lanes', '1'] }, async (rig) => {
      const filling = engine === 'aio' ? 8 : 1; // calls that a lane can have in the kernel before it counts as lost
      const first = keysOf('first', filling);
      const second = keysOf('second', 1);
      const well = keysOf('well', 4);
      await rig.fill([...first, ...second, ...well]);
      await rig.lab.hang('read', { match: '/blocks/first/*' });
      await rig.lab.hang('read', { match: '/blocks/second/*' });

      const slots = rig.lease(filling + 1);
      await rig.load(first, slots.slice(0, filling), TIMEOUT_MS);
      await rig.lab.waitStuck('read', filling); // the first lane is lost
      const beside = rig.load(second, slots.slice(filling), TIMEOUT_MS);
      await rig.lab.waitStuck('read', filling + 1); // its replacement has one of its own
      await rig.lab.resume('read', { count: 1 }); // and the first is back, if it has room for more than one
      await rig.until('one call came back', async () => (await rig.stats()).stuckOperations + rig.client.outstanding <= filling + 1);

      const own = rig.lease(4);
      expect(opsOf([await rig.load(well, own, 2_000)]).flatMap(codesOf)).toEqual(['OK']);
      await beside;
      rig.client.arena.release([...slots, ...own]);
      await rig.heal();
    }));
});
