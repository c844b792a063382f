"""What the worker's half asks of whoever copies between slots and KV blocks. The real ones are in `copier.py` (they need
torch); tests bring their own.

Surprising: a copy that was asked for may still be running when the call returns. Its slots stay leased, and a load is not
reported, until `done` is true.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import NamedTuple, Protocol

from .._arena import Slot
from ..client import Client


class ChunkBlocks(NamedTuple):
    """One chunk in a slot and the KV blocks it belongs to."""

    slot: Slot
    blocks: tuple[tuple[int, ...], ...]
    """Per KV group `blocks_per_chunk` ids. 0, vLLM's null block: nothing is copied there."""


class Transfer(Protocol):
    """One copy of some chunks. Looking at it never blocks."""

    @property
    def done(self) -> bool:
        """True once: neither side of the copy is touched any more."""

    @property
    def failed(self) -> str | None:
        """A sentence, once done; None: every byte is there."""


class Settled:
    """A transfer that was over before the call returned."""

    done = True

    def __init__(self, failed: str | None = None) -> None:
        self.failed = failed


class Copier(Protocol):
    """The engine's KV memory as chunks. Never raises; what goes wrong is told in the transfer."""

    groups: int
    num_blocks: int
    blocks_per_chunk: int
    chunk_bytes: int

    def attach(self, client: Client) -> None:
        """Once, before anything else: whose arenas the slots are of."""

    def ready(self, life: int) -> bool:
        """Whether the arena of this sidecar life can be copied from and to (on a GPU: is pinned)."""

    def copy_in(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        """Slots → KV blocks that belong to a waiting request alone."""

    def copy_out(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        """KV blocks → slots, as they are at the end of the step; what the engine writes later is not seen."""

    def look(self, life: int, in_use: Set[int]) -> None:
        """Each step: which life is current, and of which ones slots are still leased. Never blocks."""

    def close(self) -> None:
        """Lets go of everything. Never blocks for longer than a copy that is running."""


def bad_blocks(copier: Copier, blocks: Sequence[Sequence[int]], wanted: int) -> str | None:
    """Why these block ids, `wanted` per group, cannot be copied; None: they can."""
    if len(blocks) != copier.groups:
        return f"block ids for {len(blocks)} KV groups, there are {copier.groups}"
    for ids in blocks:
        if len(ids) != wanted:
            return f"{len(ids)} block ids in a group, {wanted} were to come"
        for block in ids:
            if not 0 <= block < copier.num_blocks:
                return f"block id {block}, there are {copier.num_blocks} blocks"
    return None
