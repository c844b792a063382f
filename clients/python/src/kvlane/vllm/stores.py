"""Stores: KV blocks → slot at the end of the step, slot → file in the background.

    StoreOrder → copying → writing → stored or failed_stores, once per order that was not one already
                         → held (rank 0 of several) → commit → writing …
                                                    → forget, or HELD_S → failed_stores

Surprising: almost every trouble ends in a drop, before anything is copied. A cache that is not written is a miss later; a
store that waits would hold the engine's blocks now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .._arena import Slot
from .._pending import Task
from ..results import BlocksResult
from .link import Link
from .messages import Orders, StoreOrder, WorkerReport
from .stats import Tally
from .transfers import ChunkBlocks, Copier, Transfer, bad_blocks

BATCH_CHUNKS_MAX = 32
"""Chunks in one copy and one request to the sidecar."""
HELD_S = 30.0
"""How long rank 0 holds a chunk for the word that the other ranks have theirs: they give up after store_timeout_ms."""


@dataclass(eq=False)
class Chunk:
    key: str
    namespace: str
    slot: Slot
    since: float
    committed: bool
    copying: bool = True
    unwanted: bool = False
    """Forgotten while it was being copied: its slot is free when that is over."""


@dataclass(eq=False)
class Batch:
    """What was copied together."""

    chunks: list[Chunk]
    transfer: Transfer
    since: float


@dataclass(eq=False)
class Writing:
    """What was sent to the sidecar together; the tag of its task."""

    chunks: list[Chunk]
    since: float
    task: Task[BlocksResult] | None = None


class Stores:
    def __init__(
        self, link: Link, copier: Copier, tally: Tally, *, rank: int, hold: bool, timeout_ms: float,
        now: Callable[[], float], key_name: Callable[[str], str],
    ) -> None:  # fmt: skip
        """`hold`: this is rank 0 of several, and the scheduler says when a chunk may be written."""
        self._link, self._copier, self._tally = link, copier, tally
        self._rank, self._hold, self._timeout_ms = rank, hold, timeout_ms
        self._now, self._key_name = now, key_name
        self._chunks: dict[str, Chunk] = {}  # by key: each holds a slot, and so their number is bounded
        self._batches: list[Batch] = []
        self._namespace: str | None = None
        self._report = WorkerReport()

    # --- orders ----------------------------------------------------------------------------------------------------

    def decide(self, orders: Orders) -> None:
        """Commits and forgets."""
        self._namespace = orders.namespace or self._namespace
        if not self._hold:
            return  # every rank is told; only the one that holds its chunks back is meant
        ready: list[Chunk] = []
        for key in orders.commits:
            chunk = self._chunks.get(key)
            if chunk is None or chunk.unwanted:
                self._failed(key)
            elif not chunk.committed:
                chunk.committed = True
                if not chunk.copying:
                    ready.append(chunk)
        self._write(ready)
        for key in orders.forgets:
            chunk = self._chunks.get(key)
            if chunk is not None and not chunk.committed:
                self._forget(chunk)

    def save(self, orders: Orders) -> None:
        """Copies what the step has computed. Afterwards the blocks may be written again."""
        wanted: list[StoreOrder] = []
        for order in orders.stores:
            earlier = self._chunks.get(order.key)
            if earlier is None:
                wanted.append(order)
            elif earlier.namespace != orders.namespace or earlier.unwanted:
                self.drop([order], "busy")  # the one that is under way is of another generation, or goes away
        refused = self._refusal(orders) if wanted else None
        if refused is not None:
            self.drop(wanted, refused)
            return
        good: dict[str, StoreOrder] = {}
        for order in wanted:
            bad = bad_blocks(self._copier, order.blocks, self._copier.blocks_per_chunk)
            if bad or any(0 in ids for ids in order.blocks):  # a null block: part of the chunk is gone already
                self.drop([order], "incomplete")
            else:
                good.setdefault(order.key, order)
        for orders_now, slots in self._leased(list(good.values())):
            self._copy(orders_now, slots, orders.namespace or "")

    def _refusal(self, orders: Orders) -> str | None:
        if orders.namespace is None:
            return "no_namespace"
        refused = self._link.refusal("store")
        if refused is not None:
            if refused == "MOUNT_SUSPENDED":
                self._tally.count("refused", op="store")
            return "suspended" if refused == "MOUNT_SUSPENDED" else "sidecar"
        return None if self._copier.ready(self._link.life) else "not_pinned"

    def _leased(self, orders: list[StoreOrder]) -> Iterator[tuple[list[StoreOrder], list[Slot]]]:
        """Batches of orders with slots, the first ones first: they are the front of a prefix."""
        size = BATCH_CHUNKS_MAX
        while orders:
            size = min(size, len(orders))
            slots = self._link.lease(size, "store")
            if slots is not None:
                yield orders[:size], slots
                orders = orders[size:]
            elif size == 1:
                self.drop(orders, "no_slot")
                return
            else:
                size //= 2

    def _copy(self, orders: Sequence[StoreOrder], slots: Sequence[Slot], namespace: str) -> None:
        now = self._now()
        chunks = [Chunk(o.key, namespace, slot, now, not self._hold) for o, slot in zip(orders, slots, strict=True)]
        self._chunks.update((chunk.key, chunk) for chunk in chunks)
        transfer = self._copier.copy_out([ChunkBlocks(slot, o.blocks) for o, slot in zip(orders, slots, strict=True)])
        self._batches.append(Batch(chunks, transfer, now))
        self._look_at_copies()

    def drop(self, orders: Sequence[StoreOrder], reason: str) -> None:
        self._tally.count("dropped_stores", len(orders), reason=reason)
        for order in orders:
            self._failed(order.key)

    # --- moving on -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        self._look_at_copies()
        now, life = self._now(), self._link.life
        for chunk in list(self._chunks.values()):
            if chunk.committed or chunk.copying:
                continue
            if chunk.slot.life != life or now - chunk.since > HELD_S:
                self._tally.count("dropped_stores", reason="never_committed" if chunk.slot.life == life else "sidecar")
                self._failed(chunk.key)
                self._forget(chunk)

    def _look_at_copies(self) -> None:
        for batch in [batch for batch in self._batches if batch.transfer.done]:
            self._batches.remove(batch)
            self._tally.observe("copy_out", self._now() - batch.since)
            for chunk in batch.chunks:
                chunk.copying = False
                if chunk.unwanted:
                    self._forget(chunk)
            chunks = [chunk for chunk in batch.chunks if not chunk.unwanted]
            if batch.transfer.failed is None:
                self._write([chunk for chunk in chunks if chunk.committed])
                continue
            self._tally.count("dropped_stores", len(chunks), reason="copy_failed")
            for chunk in chunks:
                self._failed(chunk.key)
                self._forget(chunk)

    def _write(self, chunks: list[Chunk]) -> None:
        for namespace in dict.fromkeys(chunk.namespace for chunk in chunks):
            those = [chunk for chunk in chunks if chunk.namespace == namespace]
            for at in range(0, len(those), BATCH_CHUNKS_MAX):
                self._write_some(Writing(those[at : at + BATCH_CHUNKS_MAX], self._now()), namespace)

    def _write_some(self, writing: Writing, namespace: str) -> None:
        keys = [self._key_name(chunk.key) for chunk in writing.chunks]
        slots = [chunk.slot for chunk in writing.chunks]
        length = self._copier.chunk_bytes
        writing.task = self._link.store(keys, slots, namespace, length, self._timeout_ms, writing)
        if writing.task is None:
            self._tally.count("dropped_stores", len(keys), reason="sidecar")
            for chunk in writing.chunks:
                self._failed(chunk.key)
                self._forget(chunk)

    def settled(self, writing: Writing, result: BlocksResult) -> None:
        failed = {failure.block: failure for failure in result.failed}
        stored = 0
        for number, chunk in enumerate(writing.chunks):
            if self._chunks.get(chunk.key) is not chunk:
                chunk.slot.release()
                continue
            if number in failed or not (result.ok or failed):
                self._tally.count(
                    "dropped_stores", reason=reason_of(failed[number].code if number in failed else result.code)
                )
                self._failed(chunk.key)
            elif chunk.namespace != self._namespace:  # of a generation that is over: stored, but not what is meant by it now
                self._failed(chunk.key)
            else:
                stored += 1
                self._report.stored.setdefault(chunk.key, set()).add(self._rank)
                self._report.failed_stores.pop(chunk.key, None)
            self._forget(chunk)
        written = max(0, stored - result.kept)
        self._tally.count("stored_chunks", written)
        self._tally.count("stored_bytes", written * self._copier.chunk_bytes)
        self._tally.count("kept_chunks", stored - written)
        if stored:
            self._tally.observe("store", self._now() - writing.since)

    def _failed(self, key: str) -> None:
        self._report.failed_stores.setdefault(key, set()).add(self._rank)

    def _forget(self, chunk: Chunk) -> None:
        """Its slot comes back when the kernel, or the copy into it, is done with it."""
        if chunk.copying:
            chunk.unwanted = True
            return
        chunk.slot.release()
        if self._chunks.get(chunk.key) is chunk:
            del self._chunks[chunk.key]

    # --- for the worker ----------------------------------------------------------------------------------------------

    def take_report(self) -> WorkerReport:
        report, self._report = self._report, WorkerReport()
        return report

    def lives(self) -> set[int]:
        """Sidecar lives whose slots are still held."""
        return {chunk.slot.life for chunk in self._chunks.values()}

    def close(self) -> None:
        for chunk in list(self._chunks.values()):
            self._forget(chunk)


def reason_of(code: str | None) -> str:
    """A label: few words, whatever the sidecar says."""
    words = {
        "MOUNT_SUSPENDED": "suspended",
        "DEADLINE_EXCEEDED": "timeout",
        "NO_SPACE": "no_space",
        "SATURATED": "saturated",
    }
    return "sidecar" if code in ("SIDECAR_GONE", "SHUTTING_DOWN") else words.get(code or "", "failed")
