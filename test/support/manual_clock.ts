// manual_clock.ts — time moves when the test says.
//
// advance() stops at each armed moment on the way and fires there, so that what a timer arms anew within
// the same stretch fires too, in order, as with a real clock and a quick process.
import type { Clock } from '../../sidecar/service_types.ts';

export interface ManualClock extends Clock {
  /** The moment so many milliseconds from now, in microseconds. */
  in(ms: number): number;
  advance(ms: number): void;
  /** Moves the time without firing on the way, then fires once: a process that was stopped and continued. */
  jump(ms: number): void;
  /** When the timer would fire; 0 when disarmed. */
  armedUs(): number;
  /** Called when the armed moment comes; a test of the service passes {type:'timer'} on. */
  onTimer: () => void;
}

export function manualClock(startUs = 1_000_000_000): ManualClock {
  let nowUs = startUs;
  let armedUs = 0;

  function fireIfDue(): boolean {
    if (armedUs === 0 || armedUs > nowUs) return false;
    armedUs = 0;
    clock.onTimer();
    return true;
  }

  const clock: ManualClock = {
    nowUs: () => nowUs,
    arm(atUs) {
      if (!Number.isSafeInteger(atUs) || atUs < 0) throw new Error(`armTimer: atUs must be a whole number from 0 to 2^53 - 1, got ${atUs}`); // as native does
      armedUs = atUs;
    },
    in: (ms) => nowUs + ms * 1000,
    advance(ms) {
      const endUs = nowUs + ms * 1000;
      for (let turns = 0; armedUs !== 0 && armedUs <= endUs; turns += 1) {
        if (turns > 100_000) throw new Error('the timer is armed again and again for the same moment');
        nowUs = Math.max(nowUs, armedUs);
        fireIfDue();
      }
      nowUs = endUs;
    },
    jump(ms) {
      nowUs += ms * 1000;
      fireIfDue();
    },
    armedUs: () => armedUs,
    onTimer: () => {},
  };
  return clock;
}
