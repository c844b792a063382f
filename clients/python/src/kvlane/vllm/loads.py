"""Loads from the order to the end: what the workers have in their slots, and what they have been told.

    planned → ordered → staged on all ranks → copied → finished
                      → dropped: abort, deadline, not claimed

Surprising: the workers' words come with engine steps, and a step may take longer than a load's deadline. So a load counts as
lost only when its deadline is over *and* some steps that were begun after it have come back without a word. And slots are
free again only when the workers have been told, not when we have decided.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .messages import CopyOrder, LoadOrder, Orders, Staged

GRACE_US = 20_000
"""A worker's own clock settles its part so long after the deadline."""
SLACK_US = 50_000
STEPS_AFTER_DEADLINE = 4
"""Steps that must have been begun after the deadline before a report counts as lost: two in flight, two to be sure."""
COPY_US_MAX = 60_000_000
"""A copy that was not reported for so long after its load's deadline does not hold its slots in our books any more. The
worker has its own."""

State = Literal["planned", "ordered", "copying", "over"]


@dataclass(eq=False)
class Load:
    number: int
    request_id: str
    first: int
    """Number of its first chunk in the request."""
    keys: tuple[str, ...]
    timeout_ms: float
    state: State = "planned"
    deadline_us: int = 0
    """0: the order has not been sent."""
    steps: int = 0
    """Begun since the deadline."""
    staged: dict[int, Staged] = field(default_factory=dict)
    claimed: tuple[int, int] | None = None
    """(tokens the engine had, tokens promised), as last answered."""
    blocks: tuple[tuple[int, ...], ...] = ()
    """Destination per KV group, once it is copied."""
    skipped: int = 0
    """Leading blocks that are not part of `blocks`."""
    is_learned: bool = False
    """What went wrong in staging has been taken notice of."""
    has_failed: bool = False
    """It was claimed, and could not be copied."""

    @property
    def chunks(self) -> int:
        return len(self.keys)

    def first_of(self, block_ids: set[int]) -> int | None:
        """The first destination that is among them. Block ids name requests only where there is one group."""
        if not block_ids or len(self.blocks) != 1:
            return None
        return next((i for i, block in enumerate(self.blocks[0]) if block and block in block_ids), None)


class Loads:
    def __init__(self, world_size: int, now_us: Callable[[], int]) -> None:
        self.slots: int | None = None
        """Chunks that every worker can stage at once. None: not known."""
        self._world_size = world_size
        self._now_us = now_us
        self._next = 1
        self._open: dict[int, Load] = {}
        """Everything that holds slots, or may."""
        self._orders: list[Load] = []
        self._copies: list[tuple[Load, CopyOrder]] = []
        self._drops: list[int] = []
        self._draining: dict[int, tuple[int, int]] = {}  # dropped before all had reported: number → chunks, until

    @property
    def free_slots(self) -> int | None:
        if self.slots is None:
            return None
        held = sum(load.chunks for load in self._open.values()) + sum(chunks for chunks, _ in self._draining.values())
        return max(0, self.slots - held)

    def plan(self, request_id: str, first: int, keys: tuple[str, ...], timeout_ms: float) -> Load:
        """Holds slots from now on."""
        load = Load(self._next, request_id, first, keys, timeout_ms)
        self._next += 1
        self._open[load.number] = load
        return load

    def order(self, load: Load) -> None:
        """Into the next step's orders."""
        load.state = "ordered"
        self._orders.append(load)

    def on_staged(self, staged: Mapping[int, Mapping[int, Staged]]) -> None:
        for number, ranks in staged.items():
            load = self._open.get(number)
            if load is not None:
                load.staged.update(ranks)
            self._draining.pop(number, None)

    def usable(self, load: Load) -> Staged | None:
        """What all ranks have, and the first rank's reason why no more. None: not said yet. Code REPORT: never said."""
        if len(load.staged) >= self._world_size:
            least = min(load.staged.values(), key=lambda staged: staged.chunks)
            return Staged(min(least.chunks, load.chunks), least.code, least.phase)
        overdue = load.deadline_us and self._now_us() >= load.deadline_us + SLACK_US
        return Staged(0, "REPORT", "report") if overdue and load.steps >= STEPS_AFTER_DEADLINE else None

    def drop(self, load: Load) -> None:
        """No CopyOrder will follow."""
        if load.state in ("copying", "over"):
            return
        state, load.state = load.state, "over"
        del self._open[load.number]
        if load in self._orders:
            self._orders.remove(load)
        elif state == "ordered":
            self._drops.append(load.number)
            if len(load.staged) < self._world_size:
                self._draining[load.number] = (load.chunks, load.deadline_us)

    def copy(self, load: Load, order: CopyOrder) -> None:
        """From here on the worker owes one finished_recving."""
        if load.state == "planned":
            self.order(load)
        load.state = "copying"
        load.deadline_us = self._now_us() + int(load.timeout_ms * 1000) + COPY_US_MAX
        load.blocks = order.blocks
        self._copies.append((load, order))

    def finished(self, load: Load) -> None:
        load.state = "over"
        self._open.pop(load.number, None)

    def copying(self) -> list[Load]:
        return [load for load in self._open.values() if load.state == "copying"]

    def staging(self) -> list[Load]:
        """What can still be dropped."""
        return [load for load in self._open.values() if load.state in ("planned", "ordered")]

    def take(self, orders: Orders) -> None:
        """What the workers must know, into this step's orders; counts steps and lets go of what is over."""
        now_us = self._now_us()
        for load in list(self._open.values()):
            if load.state == "copying" and now_us >= load.deadline_us:
                del self._open[load.number]
            elif load.state == "ordered" and load.deadline_us and now_us >= load.deadline_us:
                load.steps += 1
        for number, (_, until_us) in list(self._draining.items()):
            if now_us >= until_us:
                del self._draining[number]
        for load in self._orders:
            orders.loads.append(LoadOrder(load.number, load.request_id, load.keys, load.timeout_ms))
            if load.state == "ordered":
                load.deadline_us = now_us + int(load.timeout_ms * 1000) + GRACE_US
        orders.copies.extend(order for _, order in self._copies)
        orders.drops.extend(self._drops)
        self._orders, self._copies, self._drops = [], [], []
