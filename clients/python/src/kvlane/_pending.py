"""A task: one request in flight and the single place where it is settled.

Whatever comes first settles it: the sidecar's answer, our own clock, a death, a refusal before anything was sent. What
comes later only returns its slots. A settled task keeps its id and its slots until the sidecar has spoken or its arena
is abandoned.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from ._arena import Slot
from ._clock import now_us
from .results import Result

R = TypeVar("R", bound=Result)
R_co = TypeVar("R_co", bound=Result, covariant=True)

Decode = Callable[["Task[Any]", Mapping[str, Any]], Result]
Refuse = Callable[["Task[Any]", str, str], Result]


class Task(Generic[R_co]):
    """A handle to one request. `tag` is the caller's own; nothing here looks at it."""

    __slots__ = (
        "_decode",
        "_led_by",
        "_on_settle",
        "_refuse",
        "_result",
        "_waiter",
        "count",
        "deadline_us",
        "id",
        "listed",
        "mount",
        "op",
        "slots",
        "submitted_us",
        "tag",
    )

    def __init__(
        self,
        *,
        op: str,
        mount: str,
        count: int,
        slots: list[Slot],
        deadline_us: int,
        decode: Decode,
        refuse: Refuse,
        on_settle: Callable[[Task[Any]], None] | None,
        listed: bool,
        tag: object,
    ) -> None:
        self.id = -1  # until it is sent
        self.op = op
        self.mount = mount
        self.count = count
        self.slots = slots
        self.submitted_us = now_us()
        self.deadline_us = deadline_us
        self.tag = tag
        self.listed = listed  # whether poll() hands it out
        self._decode = decode
        self._refuse = refuse
        self._on_settle = on_settle
        self._result: Any = None
        self._led_by: int | None = None  # the thread that reads the answers itself until this one is there
        self._waiter: threading.Lock | None = None  # held until it is settled; an Event costs five times as much

    @property
    def done(self) -> bool:
        return self._result is not None

    @property
    def result(self) -> R_co | None:
        """None while it is in flight; see `Client.wait`."""
        result: R_co | None = self._result
        return result

    def __repr__(self) -> str:
        state = "in flight" if self._result is None else ("ok" if self._result.ok else self._result.code)
        return f"<Task {self.id} {self.op} of {self.count} on {self.mount or 'the sidecar'}: {state}>"
