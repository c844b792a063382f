"""What the peers' arms share: memory of the wanted pages with its address, plain files, and the clock."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import time
from typing import Any

MAP_HUGETLB = 0x40000


class Peer:
    facts: dict[str, Any]

    def __init__(self, config: dict[str, Any]) -> None:
        self.op, self.dir, self.bytes, self.count = config["op"], config["dir"], config["block_bytes"], config["count"]
        self.threads = config["threads"]
        size = max(config["arena_bytes"], 2 << 20)
        huge = MAP_HUGETLB if config["pages"] == "huge" else 0
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | huge)
        if not huge:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        self.view = memoryview(memory)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self.size = size
        piece = os.urandom(1 << 20)
        for at in range(0, size, len(piece)):
            self.view[at : at + len(piece)] = piece
        self._slots = size // self.bytes if self.bytes else 1
        self._next_slot = itertools.count()
        self.pages = "hugetlb" if huge else "4 KiB"

    def path(self, block: int) -> str:
        return f"{self.dir}/f.{block}"

    def slot(self) -> int:
        """Where the next slot begins."""
        return int(next(self._next_slot) % self._slots * self.bytes)

    def fill(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            fd = os.open(self.path(block), os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
            try:
                at = self.slot()
                os.pwritev(fd, [self.view[at : at + self.bytes]], 0)
            finally:
                os.close(fd)

    def clean(self, first: int, count: int) -> None:
        for block in range(first, first + count):
            os.unlink(self.path(block))

    def cpu_s(self) -> float:
        return time.process_time()

    def close(self) -> None:
        pass
