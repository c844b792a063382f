"""Runs the caller's functions on a thread of their own, in order, and never lets one raise out.

Not on the IO thread: a callback that logs to a stderr on the hung mount would take the client's clock with it. The
thread is made when the first callback is registered, and is a daemon: nobody waits for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from ._notes import Notes

CALLBACKS_MAX = 65_536
"""Calls waiting for a callback that does not return; beyond, calls are dropped and counted."""


class Callbacks:
    def __init__(self, notes: Notes) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        self._notes = notes
        self._thread: threading.Thread | None = None
        self.failed = 0
        self.dropped = 0

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        if self._queue.qsize() >= CALLBACKS_MAX:
            self.dropped += 1
            return
        self._queue.put((function, arguments))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kvlane-callbacks", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:  # no thread to be had, or the interpreter is leaving
                self._thread = None
                self._notes.add(f"no thread for callbacks: {error}")

    def end(self) -> None:
        """What is queued still runs; nothing waits for it."""
        if self._thread is not None:
            self._queue.put(None)

    def _run(self) -> None:
        while True:
            entry = self._queue.get()
            if entry is None:
                return
            function, arguments = entry
            try:
                function(*arguments)
            except Exception as error:
                self.failed += 1
                name = getattr(function, "__qualname__", repr(function))
                self._notes.add(f"callback {name} raised {type(error).__name__}: {error}")
            del entry, function, arguments  # or the last task and its slots live until the next call
