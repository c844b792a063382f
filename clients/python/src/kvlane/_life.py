"""One sidecar life: a process, its arena, what was sent to it and is not answered, and when it was last heard.

It ends once, for whatever reason comes first, and nothing of it is used again.
"""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Callable, Mapping
from typing import Any

from . import _messages as wire
from ._arena import Arena
from ._budget import Ledger
from ._clock import now_us
from ._huge_pages import TooFew
from ._lines import LineSplitter, Outbox
from ._lock import Lock
from ._notes import Notes, StderrRing
from ._pending import Task
from ._process import SidecarProcess
from .errors import StartFailed
from .options import Options

Spawn = Callable[..., SidecarProcess]

READ_BYTES = 1 << 18


class Life:
    def __init__(
        self,
        number: int,
        options: Options,
        lock: Lock,
        log: Notes,
        spawn: Spawn,
        *,
        beside_a_corpse: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """`beside_a_corpse`: a dead sidecar still has an arena, and perhaps all the huge pages: none are insisted on.
        `stop` True: nobody wants this life any more."""
        self.number = number
        self.insists = options.huge_pages not in ("auto", "off") and not beside_a_corpse
        self.options = options
        # A device is known from `ready` at the earliest; until then each mount stands for itself.
        self.devices = {name: f"mount {name}" for name in options.mounts}
        ledger = Ledger(options.budgets, options.slots, self.devices)
        try:
            self.arena = Arena(
                slots=options.slots,
                slot_bytes=options.slot_bytes,
                life=number,
                lock=lock,
                ledger=ledger,
                huge_pages=options.huge_pages,
                insist=self.insists,
                stop=stop,
            )
        except TooFew as error:
            raise StartFailed(str(error.strerror), code="HUGE_PAGES_UNAVAILABLE") from error
        except OSError as error:
            raise StartFailed(
                f"no arena of {options.slots * options.slot_bytes} bytes: {error}", code="ARENA_FAILED"
            ) from error
        self.born_us = now_us()
        try:
            self.process = spawn(options.argv(self.arena.fd), options.env(), self.arena.fd)
        except BaseException:
            self.arena.abandon()
            self.arena.memory_is_back()
            raise
        self.stdout = self.process.stdout  # stays what it was when the process is over: a caller may be at it
        self.reader: object | None = None  # who reads it just now; see _reader.py
        self.led_by: int | None = None  # the thread of a caller who does
        self.reading = threading.Lock()  # at work with what was read, the caller or who does it in his stead
        self.callers_poll: select.poll | None = None
        self.inbox = memoryview(bytearray(READ_BYTES))
        self.splitter = LineSplitter(wire.LINE_BYTES_MAX)
        self.outbox = Outbox()
        self.stderr_ring = StderrRing(log)
        self.ready: Mapping[str, Any] | None = None
        self.advice: str | None = None  # what would give the arena huge pages
        self.unanswered: dict[int, Task[Any]] = {}
        self.ping: int | None = None  # a heartbeat on its way
        self.heard_us = self.born_us
        self.looked_us = 0  # when silence last made us look at the process itself
        self.up_us = 0
        self.eof_us: int | None = None
        self.broken: str | None = None  # why it must end; set by any thread, acted on by the IO thread
        self.ended = False  # its process is, or has closed its stdout: what it said last is for the IO thread
        self.is_over = False  # nothing of it counts any more

    def handshake(self, ready: Mapping[str, Any]) -> None:
        """Takes the first line, or raises StartFailed with what does not fit."""
        at_us = now_us()
        if ready.get("event") != "ready":
            raise StartFailed(f"the sidecar's first line is no ready event: {json.dumps(ready)[:200]}", code="NOT_READY")
        if ready.get("protocol") != wire.PROTOCOL:
            raise StartFailed(
                f"client speaks protocol {wire.PROTOCOL}, sidecar speaks {ready.get('protocol')!r} "
                f"(sidecar {ready.get('version')!r}); install matching versions",
                code="PROTOCOL_MISMATCH",
            )
        said_us = ready.get("now_us")
        skew_us = wire.CLOCK_SKEW_MS_MAX * 1000
        if not isinstance(said_us, int) or not self.born_us - skew_us <= said_us <= at_us + skew_us:
            raise StartFailed(
                f"the sidecar's clock says {said_us!r} us, ours was between {self.born_us} and {at_us} us: "
                "deadlines would mean something else there; run both in one time namespace",
                code="CLOCK_DISAGREES",
            )
        self._check_arena(ready)
        try:
            names = {mount["name"]: mount.get("device") for mount in ready["mounts"]}
        except (KeyError, TypeError, AttributeError) as error:
            raise StartFailed(f"the ready event has no list of mounts: {error!r}", code="NOT_READY") from error
        if set(names) != set(self.options.mounts):
            raise StartFailed(
                f"the sidecar serves mounts {sorted(map(str, names))}, asked for {sorted(self.options.mounts)}", code="NOT_READY"
            )
        self.devices.update({name: f"device {device}" for name, device in names.items() if device is not None})
        self.arena.outlives_process = ready.get("engine") == "aio"
        self.ready = ready
        self.up_us = self.heard_us = at_us

    def may_be_led(self) -> bool:
        """Whether a caller may read its answers, and go on reading."""
        return self.ready is not None and self.broken is None and self.eof_us is None and not self.ended and not self.is_over

    def expects_something(self) -> bool:
        return bool(self.unanswered) or self.arena.quarantined_count > 0

    def _check_arena(self, ready: Mapping[str, Any]) -> None:
        arena = ready.get("arena")
        slots = self.arena.bytes // self.arena.slot_bytes  # those behind our last come of rounding up to huge pages
        expected = {"bytes": self.arena.bytes, "slot_bytes": self.arena.slot_bytes, "slots": slots}
        said = {name: arena.get(name) for name in expected} if isinstance(arena, dict) else None
        if said != expected:
            raise StartFailed(f"the sidecar sees an arena of {said}, ours is {expected}", code="ARENA_MISMATCH")
        advice = arena.get("advice") if isinstance(arena, dict) else None
        self.advice = advice if isinstance(advice, str) else None
        if self.insists and isinstance(arena, dict) and arena.get("backing") == "shmem":
            raise StartFailed(
                f"huge_pages is {self.options.huge_pages!r}, and the kernel gave "
                f"{arena.get('huge_bytes', 0)} of {self.arena.bytes} bytes on such pages"
                + (f": {advice}" if advice else ""),
                code="HUGE_PAGES_UNAVAILABLE",
            )
