"""The last things worth knowing, in bounded memory: the sidecar's stderr, and what the client noticed itself.

Nothing here, and nothing on the IO thread, goes to `logging` or to this process's stderr: the engine's log may lie on the
mount that hangs, and one stuck write would take the client's clock with it (and `logging.shutdown`, which waits for the
handler's lock at interpreter exit). Read `client.notes()` and `client.sidecar_log()`.
"""

from __future__ import annotations

from collections import deque

from ._lock import Lock

NOTES_MAX = 256
"""Lines kept. Enough for what led to a death, small enough to forget about."""

NOTE_CHARS_MAX = 2000
"""Of one line; the rest is cut with a mark."""


class Notes:
    """A ring of lines; `dropped` counts what fell out at the old end."""

    def __init__(self, lines_max: int = NOTES_MAX) -> None:
        self._lines: deque[str] = deque(maxlen=lines_max)
        self._lock = Lock()
        self.added = 0

    @property
    def dropped(self) -> int:
        return self.added - len(self._lines)

    def add(self, line: str) -> None:
        if len(line) > NOTE_CHARS_MAX:
            line = line[:NOTE_CHARS_MAX] + " …"
        with self._lock:
            self._lines.append(line)
            self.added += 1

    def forget_after_fork(self) -> None:
        self._lock.forget_after_fork()

    def tail(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._lines)


class StderrRing:
    """Turns the bytes of a stderr pipe into notes; a line without an end is cut, never gathered without bound."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._rest = b""

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > NOTE_CHARS_MAX:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line:
                self._notes.add(line.decode("utf-8", "replace"))

    def end(self) -> None:
        if self._rest:
            self._notes.add(self._rest.decode("utf-8", "replace"))
            self._rest = b""
