"""The worker's client, and what is known of the sidecar and the mount without asking them.

Surprising: nothing here raises. A client that is down or closed has no slots and settles every request at once, and so
the code that uses it has one path for all the ways in which a sidecar can be missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._arena import Slot
from .._budget import SlotClass
from .._pending import Task
from ..client import Client
from ..errors import KvlaneError
from ..options import Options
from ..results import SIDECAR_GONE, BlocksResult
from .stats import BREAKER_OK, BREAKER_PROBING, BREAKER_SUSPENDED, BREAKER_UNKNOWN, Tally

logger = logging.getLogger("vllm.kvlane")

ClientFactory = Callable[[Options], Client]

BREAKER = {"ok": BREAKER_OK, "probing": BREAKER_PROBING, "suspended": BREAKER_SUSPENDED, "unknown": BREAKER_UNKNOWN}
CLASSES = ("load", "store", "metadata")
GAUGES_EVERY_S = 0.1
"""An idle engine steps a thousand times a second."""
STUCK_MAX = 4096
"""Stuck calls that are told apart for the gauge; the sidecar has far fewer lanes."""


class Link:
    def __init__(self, client: Client, tally: Tally) -> None:
        self.client = client
        self._tally = tally
        self._breaker: dict[str, str] = {}
        self._stuck: set[tuple[object, object]] = set()
        self._gauges_due = 0.0
        self._advised = 0
        client.on_event(self._on_event)

    @property
    def life(self) -> int:
        return self.client.life

    @property
    def up(self) -> bool:
        return self.client.state == "up"

    def refusal(self, use: str) -> str | None:
        """Why it makes no sense to ask just now, in a code of the protocol."""
        if not self.up:
            return "SATURATED" if self.client.state == "off" else SIDECAR_GONE
        return "MOUNT_SUSPENDED" if self._breaker.get(use) == "suspended" else None

    def is_probing(self, use: str) -> bool:
        """The mount has begun to answer and is used again, or not, within tens of milliseconds. Asked now the sidecar would refuse:
        what can wait so long becomes a hit."""
        return self.up and self._breaker.get(use) == "probing"

    def lease(self, count: int, use: SlotClass) -> list[Slot] | None:
        try:
            return self.client.try_lease(count, use=use)
        except KvlaneError:
            return None

    def load(
        self, keys: Sequence[str], slots: Sequence[Slot], namespace: str, length: int, timeout_ms: float, tag: object
    ) -> Task[BlocksResult] | None:
        """None: it could not even be asked; the slots are still leased."""
        try:
            return self.client.load(keys, slots, namespace=namespace, bytes=length, timeout_ms=timeout_ms, tag=tag)
        except KvlaneError:
            return None

    def store(
        self, keys: Sequence[str], slots: Sequence[Slot], namespace: str, length: int, timeout_ms: float, tag: object
    ) -> Task[BlocksResult] | None:
        """As load. A block that exists is kept."""
        try:
            return self.client.store(keys, slots, namespace=namespace, bytes=length, timeout_ms=timeout_ms, tag=tag)
        except KvlaneError:
            return None

    def cancel(self, task: Task[Any]) -> None:
        try:
            self.client.cancel(task)
        except KvlaneError:
            return

    def gauges(self) -> None:
        """Asked for every step; looked at less often. The tally tells only what changed."""
        now = time.monotonic()
        if now < self._gauges_due:
            return
        self._gauges_due = now + GAUGES_EVERY_S
        self._tell_advice()
        facts = self.client.client_stats()
        self._tally.gauge("sidecar_up", 1 if self.up else 0)
        self._tally.gauge("free_slots", facts["slots_free"])
        self._tally.gauge("quarantined_slots", len(facts["slots_quarantined"]))
        self._tally.gauge("stuck", len(self._stuck))
        for name in CLASSES:
            # A class that begins to serve is not announced; one that does not, is.
            state = self._breaker.get(name, "ok" if self.up else "unknown")
            self._tally.gauge("breaker", BREAKER.get(state, BREAKER_UNKNOWN), **{"class": name})

    def _tell_advice(self) -> None:
        """Once in each sidecar life, and here: the client itself never logs."""
        ready = self.client.ready
        if ready is None or self._advised == self.life:
            return
        self._advised = self.life
        if advice := ready["arena"].get("advice"):
            logger.warning("kvlane: %s", advice)

    def _on_event(self, event: Mapping[str, Any]) -> None:
        """On the client's callback thread: single assignments, which readers see whole."""
        kind = event.get("event")
        call = (event.get("tid"), event.get("since_us"))
        if kind == "mount":
            self._breaker[str(event.get("class"))] = str(event.get("state"))
        elif kind == "stalled" and len(self._stuck) < STUCK_MAX:
            self._stuck = self._stuck | {call}
        elif kind == "recovered":
            self._stuck = self._stuck - {call}
        elif kind == "sidecar":
            self._breaker, self._stuck = {}, set()
            if event.get("state") == "restarting":
                self._tally.count("sidecar_restarts")
