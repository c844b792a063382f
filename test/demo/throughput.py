"""Stores and loads at speed, with every byte compared, and the same files by plain preadv beside it."""

from __future__ import annotations

import asyncio
import mmap
import os
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data import NAMESPACE, batches, block, key
from kvlane import AsyncClient, Slot

TIMEOUT_MS = 20_000
RAW_THREADS = 8  # as many as the sidecar has lanes for loads
ROUNDS = 3

Progress = Callable[[str, int, int], None]


async def store_all(kv: AsyncClient, mount: str, count: int, size: int, progress: Progress) -> float:
    """Seconds spent in store requests; filling the slots is not counted."""
    spent = 0.0
    for batch in batches(count):
        with kv.leasing(len(batch), mount=mount, use="store") as slots:
            for number, slot in zip(batch, slots, strict=True):
                slot.view[:size] = block(number, size)
            began = time.monotonic()
            result = await kv.store([key(n) for n in batch], slots, mount=mount, namespace=NAMESPACE, bytes=size, timeout_ms=TIMEOUT_MS)
            spent += time.monotonic() - began
            result.check()
        progress("stored", batch[-1] + 1, count)
    return spent


def compare(slots: list[Slot], batch: range, size: int) -> None:
    for number, slot in zip(batch, slots, strict=True):
        if slot.view[:size] != block(number, size):
            raise SystemExit(f"block {number} came back with other bytes")


async def load_all(kv: AsyncClient, mount: str, count: int, size: int, progress: Progress | None = None) -> float:
    """Seconds for all loads, two requests in flight all the time. With `progress` every byte is compared, which takes longer."""
    work = iter(batches(count))

    async def worker() -> None:
        for batch in work:
            with kv.leasing(len(batch), mount=mount) as slots:
                result = await kv.load(
                    [key(n) for n in batch], slots, mount=mount, namespace=NAMESPACE, bytes=size, timeout_ms=TIMEOUT_MS
                )
                result.check()
                if progress:
                    compare(slots, batch, size)
                    progress("loaded", batch[-1] + 1, count)

    began = time.monotonic()
    await asyncio.gather(worker(), worker())
    return time.monotonic() - began


class RawReads:
    """The same files by open, preadv and close in this process, into memory of the same kind and size as the arena.

    Only for a mount that is healthy: a thread of ours in a stuck call would be the very thing kvlane is against.
    """

    def __init__(self, store: Path, count: int, size: int, arena_bytes: int) -> None:
        self._store, self._count, self._size = store, count, size
        self._stride = size + mmap.PAGESIZE
        self._memory = memoryview(mmap.mmap(-1, arena_bytes // size * self._stride))
        self._buffers = arena_bytes // size
        self._pool = ThreadPoolExecutor(RAW_THREADS)
        self._next = threading.local()

    def _read(self, number: int) -> int:
        name = key(number)
        start = number % self._buffers * self._stride
        fd = os.open(self._store / "blocks" / NAMESPACE / name[:2] / f"{name}.kvb", os.O_RDONLY | os.O_DIRECT)
        try:
            return os.preadv(fd, [self._memory[start : start + self._stride]], 0)
        finally:
            os.close(fd)

    def seconds(self) -> float:
        began = time.monotonic()
        list(self._pool.map(self._read, range(self._count)))
        return time.monotonic() - began


async def side_by_side(kv: AsyncClient, mount: str, store: Path, count: int, size: int, arena_bytes: int) -> tuple[float, float, float]:
    """GB/s of both, and the median of the rounds' ratios; interleaved, because the machine is never quiet."""
    raw = RawReads(store, count, size, arena_bytes)
    raw.seconds()  # its memory is touched once before the clock runs, as the arena's was
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(await load_all(kv, mount, count, size))
        theirs.append(await asyncio.to_thread(raw.seconds))
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    total = count * size / 1e9
    return total / statistics.median(ours), total / statistics.median(theirs), ratio
