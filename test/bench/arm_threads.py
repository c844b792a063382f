"""What a user would write, and the shape of vLLM's own file tier: a pool of Python threads, os.preadv, temporary name and rename."""

from __future__ import annotations

import itertools
import mmap
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import worker_loop

MAP_HUGETLB = 0x40000
HUGE_BYTES = 2 << 20


class Threads:
    def __init__(self, config: dict[str, Any]) -> None:
        self._op, self._dir, self._bytes, self._count = config["op"], config["dir"], config["block_bytes"], config["count"]
        size = max(config["arena_bytes"], HUGE_BYTES)
        huge = MAP_HUGETLB if config["pages"] == "huge" else 0
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | huge)
        if not huge:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._view = memoryview(memory)
        piece = os.urandom(1 << 20)
        for at in range(0, size, len(piece)):
            self._view[at : at + len(piece)] = piece
        self._slots = size // self._bytes if self._bytes else 1
        self._next_slot = itertools.count()
        self._pool = ThreadPoolExecutor(config["threads"])
        self._work = {"load": self._load, "new": self._store, "replace": self._store}.get(self._op)
        self.facts = {"pages": "hugetlb" if huge else "4 KiB"}

    def _path(self, block: int) -> str:
        return f"{self._dir}/f.{block}"

    def _slot(self) -> memoryview:
        start = next(self._next_slot) % self._slots * self._bytes
        return self._view[start : start + self._bytes]

    def _load(self, block: int) -> None:
        fd = os.open(self._path(block), os.O_RDONLY | os.O_DIRECT)
        try:
            got = os.preadv(fd, [self._slot()], 0)
        finally:
            os.close(fd)
        if got != self._bytes:
            raise OSError(f"{self._path(block)}: {got} of {self._bytes} bytes")

    def _store(self, block: int) -> None:
        path = self._path(block)
        fd = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o600)
        try:
            put = os.pwritev(fd, [self._slot()], 0)
        finally:
            os.close(fd)
        if put != self._bytes:
            raise OSError(f"{path}: {put} of {self._bytes} bytes")
        os.replace(path + ".tmp", path)

    def _look(self, blocks: list[int]) -> None:
        for b in blocks:  # every other name is absent
            if os.path.exists(self._path(b // 2 + (self._count if b % 2 else 0))) != (b % 2 == 0):
                raise OSError(f"the look-up of {b} is wrong")

    def begin(self, blocks: list[int]) -> list[Future[None]]:
        if self._work is None:
            quarter = -(-len(blocks) // 4)
            return [self._pool.submit(self._look, blocks[i : i + quarter]) for i in range(0, len(blocks), quarter)]
        return [self._pool.submit(self._work, block) for block in blocks]

    def end(self, handle: list[Future[None]]) -> None:
        wait(handle)
        for future in handle:
            future.result()

    def fill(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            if self._op == "lookup":
                with open(self._path(block), "w"):
                    pass
            else:
                self._store(block)

    def clean(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            os.unlink(self._path(block))

    def cpu_s(self) -> float:
        return time.process_time()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    worker_loop.main(Threads)
