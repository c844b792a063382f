"""The shared memory of one sidecar life: a sealed memfd cut into slots, and who owns each slot.

    free → leased → in flight → leased        the answer says the kernel is done with it
                              → quarantined → free     the kernel still has it: a call was settled before it returned

A slot is the kernel's from the moment a request names it until the sidecar says otherwise, whoever settles the request
first. When the sidecar dies the arena is abandoned, whole: late DMA lands in it even after the process was killed and
reaped, so no slot of it is ever leased again. Bytes that had arrived before that stay readable.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from ._budget import Ledger, SlotClass
from ._huge_pages import HugePages, make
from ._lock import Lock
from .errors import SlotNotLeased

SlotState = Literal["free", "leased", "in flight", "quarantined", "abandoned"]

Use = tuple[str, SlotClass]
"""What a slot was leased for: mount and class. One object for all slots of a lease."""

SLOT_ALIGN_BYTES = 4096
"""What O_DIRECT asks of memory on every file system we know; the sidecar checks the same."""


class Slot:
    """One leased piece of the arena. Ask for `view` again after each request; do not keep slices across one."""

    # A task may have thousands, and each field is paid for in each: what is so of few slots only is kept by the arena.
    __slots__ = ("__weakref__", "_arena", "_state", "_use", "index")

    def __init__(self, arena: Arena, index: int, use: Use) -> None:
        self._arena = arena
        self._state: SlotState = "leased"
        self._use = use
        self.index = index

    @property
    def mount(self) -> str:
        return self._use[0]

    @property
    def slot_class(self) -> SlotClass:
        return self._use[1]

    @property
    def state(self) -> SlotState:
        return self._state

    @property
    def life(self) -> int:
        """Which sidecar life the memory belongs to; slots of different lives never mix."""
        return self._arena.life

    @property
    def view(self) -> memoryview:
        """The slot's memory, writable, without a copy. Only while it is leased: in flight it is the kernel's."""
        if self._state != "leased":
            raise SlotNotLeased(f"slot {self.index} is {self._state}; its memory may be looked at only while leased")
        return self._arena.slice(self.index)

    def release(self) -> None:
        """Gives the slot back; while it is in flight or quarantined, that happens when the kernel is done. Never waits."""
        release([self])

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Slot {self.index} {self._state} for {self.slot_class} on {self.mount}, life {self.life}>"


def release(slots: Sequence[Slot]) -> None:
    """The lock of their client is taken once for each life that they are of."""
    while slots:
        slots = _release_of_one_life(slots, slots[0]._arena)


def _release_of_one_life(slots: Sequence[Slot], arena: Arena) -> list[Slot]:
    """Returns those that are others'."""
    leased: list[Slot] = []
    others: list[Slot] = []
    with arena.lock:
        for slot in slots:
            if slot._arena is not arena:
                others.append(slot)
            elif slot._state == "leased":
                leased.append(slot)
            elif slot._state == "in flight":
                arena.given_back.add(slot)
        arena.free(leased)
    return others


class Arena:
    """The slots of one sidecar life. Every method but `slice` and `kernel_holds` is called with `lock` held."""

    def __init__(
        self,
        *,
        slots: int,
        slot_bytes: int,
        life: int,
        lock: Lock,
        ledger: Ledger,
        huge_pages: HugePages = "auto",
        insist: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.life = life
        self.lock = lock
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.abandoned = False
        self.quarantined_count = 0
        self.outlives_process = False
        self.ledger = ledger
        self._free = deque(range(slots))  # taken from the left, returned on the right: reuse as late as possible
        self._held: dict[int, Slot] = {}  # leased, in flight or quarantined
        self.given_back: set[Slot] = set()  # released while in flight: free as soon as they come back
        self._owed: set[Slot] = set()  # quarantined by our own clock: an answer will say what the kernel did with them
        self._kept_by_caller: weakref.WeakSet[Slot] = weakref.WeakSet()  # still leased when the arena was abandoned
        self._mapping: mmap.mmap | None
        self.fd, self._mapping = make(slots * slot_bytes, huge_pages, insist=insist, stop=stop)
        self.bytes = len(self._mapping)  # whole huge pages; what is behind the last slot is not used

    def __del__(self) -> None:
        self._close_fd()

    def _close_fd(self) -> None:
        fd, self.fd = getattr(self, "fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def slice(self, index: int) -> memoryview:
        mapping = self._mapping
        if mapping is None:
            raise SlotNotLeased("the arena of a former sidecar life has been given back")
        start = index * self.slot_bytes
        return memoryview(mapping)[start : start + self.slot_bytes]

    def whole(self) -> memoryview:
        mapping = self._mapping
        if mapping is None:
            raise SlotNotLeased("the arena of a former sidecar life has been given back")
        return memoryview(mapping)

    def lease(self, count: int, mount: str, slot_class: SlotClass) -> list[Slot] | None:
        """All or nothing; None when the budget or the arena has not that many."""
        if self.abandoned or count > self.ledger.available(mount, slot_class) or count > len(self._free):
            return None
        use, next_free, held = (mount, slot_class), self._free.popleft, self._held
        taken = [Slot(self, next_free(), use) for _ in range(count)]
        self.ledger.take(mount, slot_class, count)
        for slot in taken:
            held[slot.index] = slot
        return taken

    def send(self, slots: list[Slot]) -> None:
        for slot in slots:
            slot._state = "in flight"

    def settle_by_own_clock(self, slot: Slot) -> None:
        """Our clock ran out first: the lease is over, and the slot waits for the sidecar's word."""
        if slot._state == "in flight":
            slot._state = "quarantined"
            self.quarantined_count += 1
            self._owed.add(slot)

    def answered(self, slots: list[Slot], quarantined: set[int]) -> None:
        """The sidecar's word on the slots of an answered request; `quarantined` counts them from 0."""
        if self.abandoned:
            return
        if not quarantined:
            for slot in slots:
                if slot._state == "in flight":  # a signal handler may have come in between
                    slot._state = "leased"
            if not self._owed and not self.given_back:
                return
            slots = [slot for slot in slots if slot in self._owed or slot in self.given_back]
        for number, slot in enumerate(slots):
            give_back = slot in self.given_back
            self.given_back.discard(slot)
            self._owed.discard(slot)
            if number in quarantined:
                self.quarantined_count += slot._state != "quarantined"
                slot._state = "quarantined"
            elif slot._state == "quarantined" or give_back:
                self.free([slot])
            else:
                slot._state = "leased"

    def freed(self, index: int) -> bool:
        """`slots_freed` named it. False: it was not waiting for that, and nothing changes."""
        slot = self._held.get(index)
        if slot is None or slot._state != "quarantined" or slot in self._owed:
            return False
        self.free([slot])
        return True

    def free(self, slots: list[Slot]) -> None:
        if self.abandoned:
            for slot in slots:
                slot._state = "free"
                self._kept_by_caller.discard(slot)
            return
        held, give_index = self._held, self._free.append
        use, run = None, 0  # slots of one lease come one after the other
        for slot in slots:
            if slot._state == "free":  # named twice
                continue
            if slot._state == "quarantined":
                self.quarantined_count -= 1
            slot._state = "free"
            index = slot.index
            del held[index]
            give_index(index)
            if slot._use is not use:
                if use is not None:
                    self.ledger.give(*use, run)
                use, run = slot._use, 0
            run += 1
        if use is not None:
            self.ledger.give(*use, run)

    def quarantined(self) -> list[int]:
        return sorted(index for index, slot in self._held.items() if slot._state == "quarantined")

    def free_count(self) -> int:
        return len(self._free)

    def abandon(self) -> None:
        """The sidecar is dead or given up. What was in flight is lost; what was leased stays readable."""
        if self.abandoned:
            return
        self.abandoned = True
        self._free.clear()
        for slot in self._held.values():
            if slot._state == "leased":
                self._kept_by_caller.add(slot)
            else:
                slot._state = "abandoned"
        self._held.clear()
        self.given_back.clear()
        self._owed.clear()

    def forget_after_fork(self) -> None:
        """In a forked child: lets go of the memory, so that the parent sees it come back. Views that the child has
        inherited keep it until it exits."""
        self.abandoned = True
        self._close_fd()
        if self._mapping is not None:
            with contextlib.suppress(BufferError):
                self._mapping.close()
                self._mapping = None

    def memory_is_back(self) -> bool:
        """Only of use after the process was reaped; until then the kernel counts the memory anyway. May wait (`kernel_holds`)."""
        return self.is_let_go() and not self.kernel_holds()

    def is_let_go(self) -> bool:
        """True once nothing of ours holds the abandoned memory: no lease, and no view that a caller has kept."""
        if len(self._kept_by_caller) > 0:
            return False
        if self._mapping is not None:
            try:
                self._mapping.close()
            except BufferError:  # somebody keeps a view: his memory, our count
                return False
            self._mapping = None
        return True

    def kernel_holds(self) -> bool:
        """Whether somebody can still write to the memory once the sidecar is reaped and our own mapping is gone.

        With native AIO that is so while the kernel has transfers of the sidecar's: its address space stays until they are
        back. The kernel refuses to seal memory against writing that somebody has mapped for it, which costs no wait, or
        whose pages it holds (0.16 s: it looks a few times, and longer where cores are busy). Huge pages of either kind answer
        as small ones do. Called without the lock, by one thread at a time.
        """
        if self.outlives_process and self.fd >= 0 and self._mapping is None:
            try:
                fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
            except OSError as error:
                if error.errno == errno.EBUSY:
                    return True
        if self._mapping is None:
            self._close_fd()
        return False
