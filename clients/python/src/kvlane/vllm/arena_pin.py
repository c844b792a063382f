"""The arena as pinned memory: a device copies from and to it without the host's help only when it is registered.

Registering a gigabyte takes a while, and it comes again with every new sidecar life; so it is done in a thread of its own,
piece by piece, and until then `ready` is False. A former life's arena is unregistered when none of its slots is held any
more: the view that is kept meanwhile is what keeps the memory mapped, and the client waits for it to go.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Set
from queue import SimpleQueue
from typing import Protocol

from ..client import Client
from ..errors import KvlaneError

PIECE_BYTES = 64 << 20
"""Registered at a time, in whole slots: the driver holds a lock meanwhile that the engine's own calls want."""
RETRY_LOOKS = 4096
"""Steps until a registration that failed is tried again."""

logger = logging.getLogger("vllm.kvlane")


class Registrar(Protocol):
    """The device's word on host memory. Raises RuntimeError."""

    def register(self, address: int, size_bytes: int) -> None: ...

    def unregister(self, address: int) -> None: ...

    def settle(self) -> None:
        """Blocks until no copy of ours is running. Only ever called from the pinning thread."""


class Pinned:
    """One life's arena. Its view is exported as long as this lives."""

    def __init__(self, view: memoryview, piece_bytes: int) -> None:
        self.view = view
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        self.pieces = [
            (start + offset, min(piece_bytes, view.nbytes - offset)) for offset in range(0, view.nbytes, piece_bytes)
        ]
        self.done: list[int] = []
        self.ready = False
        self.failed = False


class ArenaPin:
    def __init__(self, client: Client, registrar: Registrar) -> None:
        self._client, self._registrar = client, registrar
        slot_bytes = client.options.slot_bytes
        self._piece_bytes = max(1, PIECE_BYTES // slot_bytes) * slot_bytes
        self._lives: dict[int, Pinned] = {}  # the worker's thread alone adds and removes; at most a few
        self._again: dict[int, int] = {}  # life → looks until the next try
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.closed = threading.Event()
        threading.Thread(target=self._run, name="kvlane-pin", daemon=True).start()

    def ready(self, life: int) -> bool:
        pinned = self._lives.get(life)
        return pinned is not None and pinned.ready

    def look(self, life: int, in_use: Set[int]) -> None:
        """Each step. A dictionary look-up when nothing has changed."""
        for former, pinned in list(self._lives.items()):
            if pinned.failed or (former != life and former not in in_use):
                self._drop(former)
        if life not in self._lives:
            self._pin(life)

    def close(self) -> None:
        """Unregisters in the background; nobody waits."""
        for life in list(self._lives):
            self._drop(life)
        self._queue.put(None)

    def _pin(self, life: int) -> None:
        left = self._again.get(life, 0)
        if left > 0:
            self._again[life] = left - 1
            return
        try:
            view = self._client.arena_view()
        except KvlaneError:
            return
        if self._client.life != life:  # it is another life's already
            return
        pinned = self._lives[life] = Pinned(view, self._piece_bytes)
        self._again = {life: RETRY_LOOKS}
        self._queue.put(lambda: self._register(life, pinned))

    def _drop(self, life: int) -> None:
        pinned = self._lives.pop(life)
        pinned.ready = False
        self._queue.put(lambda: self._unregister(pinned))

    # --- in the thread -----------------------------------------------------------------------------------------------

    def _register(self, life: int, pinned: Pinned) -> None:
        try:
            for address, size_bytes in pinned.pieces:
                if self._lives.get(life) is not pinned:
                    return  # dropped meanwhile; its unregistering is in the queue
                self._registrar.register(address, size_bytes)
                pinned.done.append(address)
            pinned.ready = True
        except Exception as error:
            logger.error("kvlane: the arena cannot be pinned, nothing is loaded or stored: %s", error)
            pinned.failed = True  # the next look has it unregistered, what there is of it

    def _unregister(self, pinned: Pinned) -> None:
        pinned.ready = False
        try:
            if pinned.done:
                self._registrar.settle()
            while pinned.done:
                self._registrar.unregister(pinned.done.pop())
        except Exception as error:
            logger.error("kvlane: an arena of a former sidecar cannot be unpinned: %s", error)
        pinned.view.release()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            job()
            del job
        self.closed.set()
