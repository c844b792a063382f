"""Which chunks of a prefix are on storage: asked without waiting, remembered when answered.

A look-up is started when a request arrives and is usually answered before the scheduler asks. Surprising: the answer does
not belong to the request. It goes into the memory, and every request reads the memory; so what another request has stored
meanwhile counts, and a partial answer is used as far as it goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import KvlaneError
from ..results import LookupResult
from .keys import rank_hex
from .known_keys import KnownKeys

if TYPE_CHECKING:
    from .._pending import Task
    from ..client import Client
    from .stats import Tally

KEYS_MAX = 4096
"""Keys of one look-up: what one request of the protocol takes. Beyond that a prefix is not looked for: a million tokens."""
IN_FLIGHT_MAX = 256
"""Look-ups. Others wait for their turn, within their budget: they would only queue in the sidecar."""
GRACE_MS = 20
"""What the client takes beyond a deadline for its own last word: taken off the budget, so that both stay within it."""


class Lookup:
    """One question. `settled` when the memory knows what is to be known."""

    def __init__(self, keys: list[str], task: Task[LookupResult] | None, offset: int, began_us: int) -> None:
        self.keys = keys
        self.task = task
        self.offset = offset
        self.began_us = began_us


class Lookups:
    def __init__(self, client: Client, known: KnownKeys, budget_ms: float, tally: Tally, now_us: Callable[[], int]) -> None:
        self._client = client
        self._known = known
        self._timeout_ms = max(budget_ms - GRACE_MS, budget_ms / 2)
        self._tally = tally
        self._now_us = now_us
        self._in_flight: dict[int, Lookup] = {}

    @property
    def is_full(self) -> bool:
        if len(self._in_flight) >= IN_FLIGHT_MAX:
            self.poll()
        return len(self._in_flight) >= IN_FLIGHT_MAX

    def start(self, keys: list[str], namespace: str) -> Lookup:
        """Asks for what is not known. `keys` from the request's first chunk on. Not when it is full."""
        offset = self._known.leading(keys)
        unknown = keys[offset : offset + KEYS_MAX]
        lookup = Lookup(keys, None, offset, self._now_us())
        if not unknown or self._known.is_absent(unknown[0]):
            return lookup
        try:
            names = [rank_hex(key, 0) for key in unknown]
            lookup.task = self._client.lookup(names, namespace=namespace, timeout_ms=self._timeout_ms)
        except KvlaneError:  # closed, or keys that no sidecar takes: as if nothing were there
            self._tally.count("refused", op="lookup")
            return lookup
        self._tally.count("lookups")
        self._in_flight[id(lookup)] = lookup
        self.settled(lookup)
        return lookup

    def settled(self, lookup: Lookup) -> bool:
        if lookup.task is None:
            return True
        result = lookup.task.result
        if result is None:
            return False
        self._absorb(lookup, result)
        return True

    def poll(self) -> None:
        """Also look-ups whose request is gone: their answers are as good."""
        for lookup in list(self._in_flight.values()):
            self.settled(lookup)

    def forget_all(self) -> None:
        """What is in flight is of a namespace that is over."""
        for lookup in self._in_flight.values():
            lookup.task = None
        self._in_flight.clear()

    def _absorb(self, lookup: Lookup, result: Any) -> None:
        lookup.task = None
        self._in_flight.pop(id(lookup), None)
        self._tally.observe("lookup", (self._now_us() - lookup.began_us) / 1e6)
        if not result.ok:
            if result.code == "DEADLINE_EXCEEDED":
                self._tally.count("lookup_timeouts")
            else:
                self._tally.count("refused", op="lookup")
            return
        if not result.complete:
            self._tally.count("lookup_timeouts")
        for key, present in zip(lookup.keys[lookup.offset :], result.present, strict=False):
            if present:
                self._known.add(key)
            elif present is False:
                self._known.add_absent(key)
