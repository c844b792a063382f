"""Copies chunks between slots and KV blocks on the CPU, and picks the copier that fits the device.

A chunk is, per segment of the layout, the pages of its blocks one after the other. Every copy is one tensor operation per
chunk and segment, straight between the slot and the blocks, without a buffer between.

Surprising: a tensor over a slot exists only during its copy. While one exists, the client cannot give an abandoned arena
back to the kernel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence, Set
from queue import SimpleQueue
from typing import Any

import torch

from ..client import Client
from .layout import Layout, LayoutRefused, read_layout
from .transfers import ChunkBlocks, Copier, Settled, Transfer
from .worker_side import Opened

INLINE_BYTES_MAX = 8 << 20
"""Copied into blocks by the worker's own thread in one step, about a millisecond; more goes to the background thread."""
CLOSE_WAIT_S = 0.3
"""For the one copy that is running when the worker leaves; those behind it are not begun."""


def open_memory(kv_caches: Mapping[str, Any], kv_cache_config: Any, blocks_per_chunk: int) -> Opened:
    """Raises LayoutRefused."""
    layout = read_layout(kv_caches, kv_cache_config)
    copier: Copier
    if layout.device.type == "cpu":
        copier = CpuCopier(layout, blocks_per_chunk)
    elif layout.device.type == "cuda":
        from .device_copier import Cuda, DeviceCopier

        copier = DeviceCopier(layout, blocks_per_chunk, Cuda(layout.device))
    else:
        raise LayoutRefused(f"the KV tensors lie on {layout.device}; kvlane copies from CPU and CUDA memory")
    return Opened(copier, f"{layout.digest}.{blocks_per_chunk}")


class ChunkShape:
    """Where each segment of a chunk lies within its slot, in units of the layout."""

    def __init__(self, layout: Layout, blocks_per_chunk: int) -> None:
        self.groups, self.num_blocks = layout.groups, layout.num_blocks
        self.blocks_per_chunk = blocks_per_chunk
        self.chunk_bytes = layout.block_bytes * blocks_per_chunk
        self.units = self.chunk_bytes // layout.unit.itemsize
        self.layout = layout
        self.spans: list[tuple[int, int]] = []
        at = 0
        for segment in layout.segments:
            length = segment.nbytes * blocks_per_chunk // layout.unit.itemsize
            self.spans.append((at, at + length))
            at += length

    def row(self, chunk: ChunkBlocks) -> torch.Tensor:
        """The slot's bytes. Keep it no longer than the copy."""
        return torch.frombuffer(chunk.slot.view, dtype=self.layout.unit, count=self.units)


class CpuCopier(ChunkShape):
    def __init__(self, layout: Layout, blocks_per_chunk: int) -> None:
        super().__init__(layout, blocks_per_chunk)
        self._inline_left = INLINE_BYTES_MAX
        self._thread: Background | None = None

    def attach(self, client: Client) -> None:
        return None

    def ready(self, life: int) -> bool:
        return True

    def look(self, life: int, in_use: Set[int]) -> None:
        self._inline_left = INLINE_BYTES_MAX

    def copy_in(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        size_bytes = len(chunks) * self.chunk_bytes
        if size_bytes <= self._inline_left:
            self._inline_left -= size_bytes
            return Settled(_said(lambda: self._in(chunks)))
        self._thread = self._thread or Background()
        return self._thread.submit(lambda: self._in(chunks))

    def copy_out(self, chunks: Sequence[ChunkBlocks]) -> Transfer:
        """At once: in the next step these blocks may be somebody else's. Bounded by the slots there are for stores."""
        return Settled(_said(lambda: self._out(chunks)))

    def close(self) -> None:
        if self._thread is not None:
            self._thread.close()

    def _in(self, chunks: Sequence[ChunkBlocks]) -> None:
        with torch.inference_mode():
            for chunk in chunks:
                row = self.row(chunk)
                wanted = [[i for i, block in enumerate(ids) if block] for ids in chunk.blocks]
                index = [torch.tensor([ids[i] for i in want]) for ids, want in zip(chunk.blocks, wanted, strict=True)]
                for (start, end), segment in zip(self.spans, self.layout.segments, strict=True):
                    pages, want = row[start:end].view(self.blocks_per_chunk, -1), wanted[segment.group]
                    if not want:
                        continue
                    if len(want) < self.blocks_per_chunk:
                        pages = pages.index_select(0, torch.tensor(want))
                    segment.view.index_copy_(0, index[segment.group], pages)

    def _out(self, chunks: Sequence[ChunkBlocks]) -> None:
        with torch.inference_mode():
            for chunk in chunks:
                row = self.row(chunk)
                index = [torch.tensor(ids) for ids in chunk.blocks]
                for (start, end), segment in zip(self.spans, self.layout.segments, strict=True):
                    pages = row[start:end].view(self.blocks_per_chunk, -1)
                    torch.index_select(segment.view, 0, index[segment.group], out=pages)


class Job:
    """A transfer that a thread works on."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work
        self.done = False
        self.failed: str | None = None


class Background:
    """One thread that copies, in order. Its queue holds no more than there are loads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = False
        self._idle = threading.Event()
        threading.Thread(target=self._run, name="kvlane-copy", daemon=True).start()

    def submit(self, work: Callable[[], None]) -> Job:
        job = Job(work)
        self._queue.put(job)
        return job

    def close(self) -> None:
        """Afterwards nothing is written any more, unless one copy takes longer than CLOSE_WAIT_S."""
        self._closing = True
        self._queue.put(None)
        self._idle.wait(CLOSE_WAIT_S)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            work, job.work = job.work, None
            job.failed = "the worker was shut down" if self._closing or work is None else _said(work)
            del work  # and with it the slots, before anybody is told
            job.done = True
            del job
        self._idle.set()


def _said(work: Callable[[], None]) -> str | None:
    """Runs it; what it raises becomes the sentence of a failed transfer."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None
