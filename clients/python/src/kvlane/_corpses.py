"""Sidecars that are over but perhaps not gone, each with the arena it may still write to.

A killed process with a call stuck in the kernel stays until that call returns. It is looked at, never waited for; its
memory counts until it is reaped, the kernel writes to it no more, and no view of ours holds it. When a client is
closed, what is left passes to the next client of this process, so that opening clients in a row cannot pile up arenas.

Whether the kernel still writes is asked in a thread of its own: where pages are held and nobody has them mapped any more it
thinks for 0.16 s and longer, and neither the IO thread, which is the clock, nor anybody at the client's lock may wait for that.
Nor for the start of such a thread, which waits for the interpreter: `ask` is called without the lock.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ._arena import Arena
from ._clock import now_us
from ._process import SidecarProcess

ABANDONED_ARENAS_MAX = 1
"""One stuck life may keep its arena while the next one runs; a second one must wait until the kernel lets go."""
ASK_AGAIN_US = 100_000
"""After the kernel has said that it still holds pages. Each question makes it empty a list of every core."""


@dataclass
class Corpse:
    process: SidecarProcess
    arena: Arena
    since_us: int
    reaped: bool = False
    is_due: bool = False  # the kernel is to be asked
    asking: bool = False  # it is; the arena's descriptor is the asking thread's meanwhile
    ask_us: int = 0
    is_back: bool = False

    def look(self) -> bool:
        """Whether its memory is back. Never waits: what the kernel says is known at a later look."""
        if self.is_back or self.asking or not self.reaped or now_us() < self.ask_us or not self.arena.is_let_go():
            return self.is_back
        if self.arena.outlives_process:
            self.is_due = True
        else:  # then there is nothing to ask
            self.is_back = not self.arena.kernel_holds()
        return self.is_back

    def ask(self, wake: Callable[[], object]) -> None:
        with contextlib.suppress(OSError):
            self.is_back = not self.arena.kernel_holds()
        self.ask_us = now_us() + ASK_AGAIN_US
        self.asking = False
        if self.is_back:
            wake()


def ask(corpses: Iterable[Corpse], wake: Callable[[], object]) -> None:
    """Has the kernel asked about each, in a thread of its own. `wake` is called there when the next look will find it gone."""
    for corpse in corpses:
        try:
            threading.Thread(target=corpse.ask, args=(wake,), name="kvlane-corpse", daemon=True).start()
        except Exception:  # no thread can be made just now: a later look makes it due again
            corpse.asking = False


_left: list[Corpse] = []
_left_lock = threading.Lock()


class Corpses:
    """Only the IO thread calls these."""

    def __init__(self) -> None:
        with _left_lock:
            self._list = _left[:]
            _left.clear()

    def add(self, process: SidecarProcess, arena: Arena) -> None:
        self._list.append(Corpse(process, arena, now_us()))

    def prune(self) -> list[SidecarProcess]:
        """Lets go of what is over and returns the processes reaped just now. Never waits."""
        reaped = []
        for corpse in self._list:
            if not corpse.reaped and corpse.process.reap():
                corpse.reaped = True
                reaped.append(corpse.process)
        self._list = [corpse for corpse in self._list if not corpse.look()]
        return reaped

    def due(self) -> list[Corpse]:
        """For `ask`: about each the kernel is to be asked now, and is asked by nobody else."""
        due = [corpse for corpse in self._list if corpse.is_due]
        for corpse in due:
            corpse.is_due, corpse.asking = False, True
        return due

    def abandoned_arenas(self) -> int:
        return len(self._list)

    def unreaped_pids(self) -> list[int]:
        return [corpse.process.pid for corpse in self._list if not corpse.reaped]

    def unreaped_since(self, us: int) -> bool:
        return any(not corpse.reaped and corpse.since_us >= us for corpse in self._list)

    def pidfds(self) -> list[int]:
        return [corpse.process.pidfd for corpse in self._list if not corpse.reaped and corpse.process.pidfd >= 0]

    def forget_after_fork(self) -> None:
        """In a forked child: neither the processes nor the memory are its own."""
        for corpse in self._list:
            corpse.arena.forget_after_fork()
        self._list = []

    def leave_behind(self) -> list[Corpse]:
        """What is reaped but still looked at is the caller's memory from here on; only what the kernel may hold goes on. Returns what is due."""
        due = self.due()
        left = [corpse for corpse in self._list if not corpse.reaped or corpse.arena.is_let_go()]
        with _left_lock:
            _left.extend(left)
            self._list = []
        return due


def forget_after_fork() -> None:
    """In a forked child: what closed clients left belongs to the parent, and the lock perhaps to a thread that is gone."""
    global _left_lock
    _left_lock = threading.Lock()
    for corpse in _left:
        corpse.arena.forget_after_fork()
    _left.clear()


def left_behind() -> int:
    """Corpses of closed clients that no client has taken over yet."""
    with _left_lock:
        return sum(not corpse.is_back for corpse in _left)
