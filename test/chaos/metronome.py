"""How late this process itself is, to be taken off what it measures of others."""

from __future__ import annotations

import bisect
import contextlib
import os
import threading
import time
from collections import deque


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Metronome:
    """How late this process itself is: a thread that wants to wake every few milliseconds, and remembers when it could not; and how long
    the kernel let threads of it wait for a processor, since one may wait while another runs."""

    TICK_S = 0.004
    LOOK_US = 40_000

    def __init__(self) -> None:
        self._due_us = now_us() + int(self.TICK_S * 1e6)
        self._late: deque[tuple[int, int]] = deque(maxlen=4096)
        self._delays: deque[tuple[int, int]] = deque([(now_us(), self._delay_us())], maxlen=1024)
        threading.Thread(target=self._beat, daemon=True).start()

    @staticmethod
    def _delay_us() -> int:
        total = 0
        for tid in os.listdir("/proc/self/task"):
            with contextlib.suppress(OSError), open(f"/proc/self/task/{tid}/schedstat") as file:
                total += int(file.read().split()[1])
        return total // 1000

    def _beat(self) -> None:
        while True:
            time.sleep(max(0, self._due_us - now_us()) / 1e6)
            woke_us = now_us()
            if woke_us - self._due_us > 1000:
                self._late.append((woke_us, woke_us - self._due_us))
            self._due_us = woke_us + int(self.TICK_S * 1e6)  # not from now: a stop since then, or in the look below, counts as well
            if woke_us - self._delays[-1][0] > self.LOOK_US:
                self._delays.append((woke_us, self._delay_us()))

    def late_us(self, start_us: int, end_us: int) -> int:
        """In all, of what lies between, and the beat that is overdue now: who was stopped may be here before that thread is."""
        before = [us for at_us, us in list(self._delays) if at_us <= start_us]
        return max(self.asleep_us(start_us, end_us), self._delay_us() - before[-1] if before else 0)

    def asleep_us(self, start_us: int, end_us: int) -> int:
        """Of that only what one thread waited for."""
        overdue_us = now_us() - self._due_us
        late = list(self._late)
        first = bisect.bisect_left(late, (start_us, 0))
        return sum(us for woke_us, us in late[first:] if woke_us - us <= end_us + int(self.TICK_S * 2e6)) + max(0, overdue_us)
