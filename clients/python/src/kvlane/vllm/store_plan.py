"""Which chunks of a step are ordered to be stored: whole, computed by the end of the step, and not known to be stored.

Surprising: `num_computed_tokens` may run ahead of the truth under asynchronous scheduling and drafts. Block hashes do not:
they exist only for tokens that are certain, and a certain token has been computed by the end of the step. So the smaller
of the two decides. And a sliding window's blocks may have been given to others: a chunk that began before the window is not
stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from .commits import Commits
from .geometry import Geometry
from .known_keys import KnownKeys
from .messages import StoreOrder
from .requests import Scheduled, Step, Tracked

CHUNKS_PER_STEP_MAX = 64
"""Chunks ordered in one step: copying them is time of the step. The rest comes with the next ones."""


class StorePlan:
    def __init__(self, geometry: Geometry, known: KnownKeys, commits: Commits) -> None:
        self._geometry = geometry
        self._known = known
        self._commits = commits

    def orders(self, step: Step, tracked: Sequence[Tracked | None]) -> list[StoreOrder]:
        """`tracked`: for each of the step's requests."""
        orders: list[StoreOrder] = []
        for scheduled, each in zip(step.scheduled, tracked, strict=True):
            if each is not None and each.stores and each.blocks:
                self._of_request(scheduled, each, orders)
        return orders

    def _of_request(self, scheduled: Scheduled, tracked: Tracked, orders: list[StoreOrder]) -> None:
        geometry = self._geometry
        tracked.next_store = min(tracked.next_store, tracked.keys.refresh(tracked.request.block_hashes))
        hashes = len(tracked.request.block_hashes)
        publishable = getattr(tracked.request, "num_publishable_block_hashes", None)
        if isinstance(publishable, int):
            hashes = min(hashes, publishable)
        tokens = min(scheduled.computed + scheduled.tokens, hashes * geometry.hash_tokens)
        end = min(tokens // geometry.chunk_tokens, len(tracked.keys))
        while tracked.next_store < end and len(orders) < CHUNKS_PER_STEP_MAX:
            chunk = tracked.next_store
            tracked.next_store += 1
            key = tracked.keys[chunk]
            if self._known.is_present(key) or key in self._commits:
                continue
            blocks = self._blocks(tracked, chunk, scheduled.computed)
            if blocks is not None and self._commits.begin(key):
                orders.append(StoreOrder(key, blocks))

    def _blocks(self, tracked: Tracked, chunk: int, computed: int) -> tuple[tuple[int, ...], ...] | None:
        geometry = self._geometry
        first = chunk * geometry.blocks_per_chunk
        taken: list[tuple[int, ...]] = []
        for group, ids in enumerate(tracked.blocks):
            gone = geometry.blocks_gone(group, computed)
            part = tuple(ids[first : first + geometry.blocks_per_chunk])
            if first < gone or len(part) < geometry.blocks_per_chunk or 0 in part:
                return None
            taken.append(part)
        return tuple(taken)
