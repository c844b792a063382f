"""Which chunks are on their way to storage, and when they are there on all ranks.

    one rank       ordered → stored: known
    several ranks  ordered → all others stored: commit → rank 0 stored: known
                           → one failed, or too late: forget

Rank 0 writes last: its file is the proof that the others' are there, and a look-up asks for one name per chunk. Without
reports from the workers nothing is known; an order then only keeps others from ordering the same chunk for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from .known_keys import KnownKeys
from .messages import Orders

CHUNKS_MAX = 16_384
"""Chunks on their way at once. An arena has fewer slots; beyond that nothing more is ordered."""


@dataclass
class _Store:
    since_us: int
    waits: set[int]
    """Ranks whose word is needed before the commit."""
    committed: bool = False


class Commits:
    def __init__(
        self, world_size: int, reports: bool, timeout_ms: float, known: KnownKeys, now_us: Callable[[], int]
    ) -> None:
        self._others = frozenset(range(1, world_size)) if reports else frozenset()
        self._timeout_us = int(timeout_ms * 1000)
        self._known = known
        self._now_us = now_us
        self._stores: dict[str, _Store] = {}
        self._commits: list[str] = []
        self._forgets: list[str] = []

    def begin(self, key: str) -> bool:
        """Before a chunk is ordered to be stored. False: it is on its way already, or too many are."""
        if key in self._stores or len(self._stores) >= CHUNKS_MAX:
            return False
        self._stores[key] = _Store(self._now_us(), set(self._others))
        self._known.expect(key)
        return True

    def __contains__(self, key: object) -> bool:
        return key in self._stores

    @property
    def full(self) -> bool:
        return len(self._stores) >= CHUNKS_MAX

    def on_report(self, stored: Mapping[str, Iterable[int]], failed: Mapping[str, Iterable[int]]) -> None:
        for key in failed:
            self._give_up(key)
        for key, ranks in stored.items():
            self._stored(key, set(ranks))

    def _stored(self, key: str, ranks: set[int]) -> None:
        store = self._stores.get(key)
        if store is None:
            return  # given up meanwhile, or of a former namespace
        store.waits -= ranks
        if store.waits:
            return
        if 0 in ranks:
            del self._stores[key]
            self._known.add_stored(key)
        elif not store.committed:
            store.committed = True
            self._commits.append(key)

    def _give_up(self, key: str) -> None:
        store = self._stores.pop(key, None)
        if store is not None and self._others and not store.committed:
            self._forgets.append(key)

    def poll(self) -> None:
        """Gives up what takes too long. In order of their beginning, so it looks at few."""
        limit_us = self._now_us() - self._timeout_us
        while self._stores:
            key, store = next(iter(self._stores.items()))
            if store.since_us > limit_us:
                return
            self._give_up(key)

    def forget_all(self) -> None:
        for key in list(self._stores):
            self._give_up(key)
        self._forgets.extend(self._commits)
        self._commits.clear()

    def take(self, orders: Orders) -> None:
        """What the workers must know, into this step's orders."""
        self.poll()
        orders.commits, self._commits = self._commits, []
        orders.forgets, self._forgets = self._forgets, []

    @property
    def pending(self) -> bool:
        """Whether the engine must go on stepping for it: never for longer than the store timeout."""
        self.poll()
        if self._commits or self._forgets:
            return True
        return bool(self._others) and any(not store.committed for store in self._stores.values())
