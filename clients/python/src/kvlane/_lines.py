"""Lines in and lines out over non-blocking pipes, both bounded.

Outgoing lines wait in one buffer with a limit: a sidecar that stopped reading must cost a refused request, never a
blocked write inside a forward pass, and never memory without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

OUTBOX_BYTES_MAX = 4 << 20
"""4 MiB: four of the largest requests, or some ten thousand usual ones. What is beyond that would not be in time."""

WRITE_BYTES = 1 << 18


class LineTooLong(Exception):
    """More than the limit without a newline: the other side is broken."""


class LineSplitter:
    """Bytes in, whole lines out; what is incomplete waits, up to the limit."""

    def __init__(self, line_bytes_max: int) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self._line_bytes_max = line_bytes_max

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        if not self._buffer and len(data) <= self._line_bytes_max and data[-1:] == b"\n":  # whole lines, as nearly always
            yield from bytes(data[:-1]).split(b"\n")
            return
        self._buffer += data
        start = 0
        try:
            while True:
                end = self._buffer.find(b"\n", max(start, self._scanned))
                if end < 0:
                    break
                if end - start > self._line_bytes_max:
                    raise LineTooLong
                line = bytes(self._buffer[start:end])
                start = end + 1
                yield line
        finally:
            del self._buffer[:start]
            self._scanned = len(self._buffer)
        if len(self._buffer) > self._line_bytes_max:
            raise LineTooLong

    def rest(self) -> bytes:
        return bytes(self._buffer)


class Outbox:
    """Bytes that are on their way to a pipe that may be full."""

    def __init__(self, bytes_max: int = OUTBOX_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max

    def __len__(self) -> int:
        return len(self._buffer)

    def push(self, line: bytes) -> bool:
        """False: full, and nothing of the line was taken."""
        if len(self._buffer) + len(line) > self._bytes_max:
            return False
        self._buffer += line
        return True

    def flush(self, fd: int) -> None:
        """Writes what the pipe takes. Raises BrokenPipeError when nobody will ever read."""
        while self._buffer:
            try:
                with memoryview(self._buffer) as whole, whole[:WRITE_BYTES] as piece:
                    written = os.write(fd, piece)
            except (BlockingIOError, InterruptedError):
                return
            del self._buffer[:written]
