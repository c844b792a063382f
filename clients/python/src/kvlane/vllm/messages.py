"""What crosses between vLLM's scheduler process and its workers: plain dataclasses, pickled with every engine step.

    WorkerFacts    worker → scheduler, once
    Orders         scheduler → every worker, each step
    WorkerReport   worker → scheduler, each step that has something to say; merged over the ranks

A *chunk* is `blocks_per_chunk` consecutive vLLM blocks of one request, all layers and KV groups of one rank, and one
kvlane block file. Its key here is the bare chunk hash in hex; namespace and rank are added by the worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True)
class WorkerFacts:
    """What only a worker knows, and the scheduler must know before it looks anything up."""

    rank: int
    world_size: int
    layout: str
    """Digest of the KV tensors' shapes, strides and types and of the CPU's instruction set: part of the fingerprint."""
    chunk_bytes: int
    load_slots: int
    """Chunks that can be staged at once."""
    blocks_per_chunk: int = 0
    """What this worker goes by; 0: not told."""


@dataclass(frozen=True)
class LoadOrder:
    """Read these chunks into slots. Nothing is copied to the engine's memory before a CopyOrder."""

    load: int
    """Unique over the engine's life; one request may have several, one after the other."""
    request: str
    keys: tuple[str, ...]
    timeout_ms: float


@dataclass(frozen=True)
class CopyOrder:
    """The leading chunks of a load go into these KV blocks. From here on the worker owes exactly one
    `finished_recving` for the request, whatever happens."""

    load: int
    request: str
    chunks: int
    skip_blocks: int
    """Leading blocks of the first chunk that the engine has already."""
    blocks: tuple[tuple[int, ...], ...]
    """Per KV group: destination ids for the chunks' blocks after the skipped ones. 0 is vLLM's null block: not copied."""


@dataclass(frozen=True)
class StoreOrder:
    """One chunk, computed by the end of this step."""

    key: str
    blocks: tuple[tuple[int, ...], ...]
    """Per KV group: `blocks_per_chunk` block ids."""


@dataclass
class Orders:
    """What the workers shall do in one engine step."""

    namespace: str | None = None
    """With its generation, as keys carry it. None: not agreed yet, and then there is nothing to do."""
    loads: list[LoadOrder] = field(default_factory=list)
    copies: list[CopyOrder] = field(default_factory=list)
    drops: list[int] = field(default_factory=list)
    """Loads that no CopyOrder will ever follow: their slots are free."""
    stores: list[StoreOrder] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    """Chunks that all other ranks have stored: rank 0 writes its own now, and its file is the proof for look-ups."""
    forgets: list[str] = field(default_factory=list)
    """Chunks that some rank could not store: rank 0 lets go of its own."""
    cancels: list[str] = field(default_factory=list)
    """Requests whose blocks were given away while they were being loaded into (vLLM before 0.16, on an abort): nothing may be
    copied for them from now on. Their one `finished_recving` is still owed."""

    def __bool__(self) -> bool:
        return any((self.loads, self.copies, self.drops, self.stores, self.commits, self.forgets, self.cancels))


class Staged(NamedTuple):
    """How far a load came on one rank."""

    chunks: int
    """Usable from the front."""
    code: str = ""
    """Why the next one is not usable, in the protocol's words; empty: all are."""
    phase: str = ""


@dataclass
class WorkerReport:
    """What happened on some ranks since the last report."""

    staged: dict[int, dict[int, Staged]] = field(default_factory=dict)
    """load → rank → how far. Exactly once per load and rank, unless the load was dropped or ordered to be copied before."""
    stored: dict[str, set[int]] = field(default_factory=dict)
    """key → ranks that have it on storage. For rank 0 of several: it has been written, after its commit."""
    failed_stores: dict[str, set[int]] = field(default_factory=dict)
    """key → ranks that dropped it or failed to write it."""
    loads_timed: list[tuple[int, float]] = field(default_factory=list)
    """(bytes, seconds) of loads that went well: what a load costs."""

    def __bool__(self) -> bool:
        return bool(self.staged or self.stored or self.failed_stores or self.loads_timed)

    def merge(self, other: WorkerReport) -> WorkerReport:
        """Of the same step, from other ranks. Changes and returns self."""
        for load, ranks in other.staged.items():
            self.staged.setdefault(load, {}).update(ranks)
        for mine, theirs in ((self.stored, other.stored), (self.failed_stores, other.failed_stores)):
            for key, having in theirs.items():
                mine.setdefault(key, set()).update(having)
        self.loads_timed.extend(other.loads_timed)
        return self
