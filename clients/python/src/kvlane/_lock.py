"""A re-entrant lock that stops being one when the interpreter finalises.

From then on daemon threads are frozen wherever they stand, perhaps with the lock in hand, and finalisers of the main
thread (a forgotten client, a generator that releases slots) would wait for it for ever: an interpreter that never exits.
Only one thread is left by then, so nothing needs guarding.
"""

from __future__ import annotations

import sys
import threading


class Lock:
    def __init__(self) -> None:
        self.inner = threading.RLock()

    def forget_after_fork(self) -> None:
        """In a forked child: open again, in place, if a thread that is gone has it. Others keep this very object."""
        if self.inner.acquire(blocking=False):  # free, or ours
            self.inner.release()
        else:
            self.inner = threading.RLock()

    def __enter__(self) -> None:
        if not sys.is_finalizing():
            self.inner.acquire()

    def __exit__(self, *_: object) -> None:
        if not sys.is_finalizing():
            self.inner.release()
