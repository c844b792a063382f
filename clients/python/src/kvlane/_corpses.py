"""Sidecars that are over but perhaps not gone, each with the arena it may still write to.

A killed process with a call stuck in the kernel stays until that call returns. It is looked at, never waited for; its
memory counts until it is reaped, the kernel writes to it no more, and no view of ours holds it. When a client is
closed, what is left passes to the next client of this process, so that opening clients in a row cannot pile up arenas.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ._arena import Arena
from ._clock import now_us
from ._process import SidecarProcess

ABANDONED_ARENAS_MAX = 1
"""One stuck life may keep its arena while the next one runs; a second one must wait until the kernel lets go."""


@dataclass
class Corpse:
    process: SidecarProcess
    arena: Arena
    since_us: int
    reaped: bool = False


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
        """Lets go of what is over and returns the processes reaped just now."""
        reaped = []
        for corpse in self._list:
            if not corpse.reaped and corpse.process.reap():
                corpse.reaped = True
                reaped.append(corpse.process)
        self._list = [corpse for corpse in self._list if not (corpse.reaped and corpse.arena.memory_is_back())]
        return reaped

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

    def leave_behind(self) -> None:
        """What is reaped but still looked at is the caller's memory from here on; only what the kernel holds goes on."""
        with _left_lock:
            _left.extend(corpse for corpse in self._list if not corpse.reaped or corpse.arena.kernel_holds())
            self._list = []


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
        return len(_left)
