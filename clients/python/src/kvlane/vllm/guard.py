"""The last line before vLLM: an exception that leaves a connector's hook kills the engine, and so does an id that is
reported twice or to a scheduler that does not know it. An id that is never reported holds its blocks for ever.

    Guard     catches everything a hook raises, counts it, logs it once a minute, answers what is safe
    Owed      what this worker owes the scheduler: one `finished_recving` per CopyOrder, no more, no less
    NoWorker  stands in for a worker's half that could not be made or cannot be trusted any more

Surprising: a worker's half that raises while ids are owed is retired for good. It might still copy into blocks that we
are about to give back, and nobody else can tell.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from .messages import CopyOrder, Orders, Staged, WorkerFacts, WorkerReport
from .stats import Tally

LOG_EVERY_S = 60.0
OWED_MAX_S = 30.0
"""Beyond the longest deadline of a load. A worker's half settles it at its deadline; one that has not by then never will."""
OWED_POLLS_MIN = 20
"""Polls until a debt counts as overdue: one step may last longer than any deadline, and a paused engine does not step."""

FAILED_LOAD = -1
"""`CopyOrder.load` of a claim whose order was lost on the scheduler's side: the worker fails it at once."""

NULL_BLOCK = 0
"""vLLM's block that stands for "none": shared by all requests, never invalid."""

INTERNAL = "INTERNAL"

Hook = TypeVar("Hook", bound=Callable[..., Any])


class Transfers(NamedTuple):
    """What one poll of a worker says. `failed_recving` is part of `finished_recving`."""

    finished_recving: set[str]
    failed_recving: set[str]
    invalid_block_ids: set[int]


class Guard:
    """Of one connector object."""

    def __init__(self, tally: Tally, logger: logging.Logger, now_s: Callable[[], float] = time.monotonic) -> None:
        self.tally = tally
        self._logger = logger
        self._now_s = now_s
        self._logged_s: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def caught(self, hook: str, error: Exception) -> None:
        self.tally.count("hook_errors", hook=hook)
        self.say(hook, "kvlane: %s failed: %s: %s", hook, type(error).__name__, error, exc_info=error)

    def say(self, subject: str, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Logs an error, once a minute per subject."""
        now_s = self._now_s()
        if now_s - self._logged_s.get(subject, -LOG_EVERY_S) < LOG_EVERY_S:
            self._unlogged[subject] = self._unlogged.get(subject, 0) + 1
            return
        self._logged_s[subject] = now_s
        more = self._unlogged.pop(subject, 0)
        if more:
            message += f" ({more} more since the last line)"
        self._logger.error(message, *args, exc_info=exc_info)


def guarded(safe: Callable[[], Any]) -> Callable[[Hook], Hook]:
    """For methods of an object with `_guard`. `safe` makes the answer that does no harm."""

    def decorate(method: Hook) -> Hook:
        @functools.wraps(method)
        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                self._guard.caught(method.__name__, error)
                return safe()

        return cast(Hook, hook)

    return decorate


def nothing() -> None:
    return None


class _Debt(NamedTuple):
    since_s: float
    since_poll: int
    blocks: frozenset[int]


class Owed:
    """One entry per request whose CopyOrder arrived and whose end was not reported yet."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic, longest_load_s: float = 0.0) -> None:
        self._now_s = now_s
        self._max_s = OWED_MAX_S + longest_load_s
        self._polls = 0
        self._debts: dict[str, _Debt] = {}

    def __len__(self) -> int:
        return len(self._debts)

    def add(self, copies: Iterable[CopyOrder]) -> None:
        for copy in copies:
            blocks = frozenset(block for group in copy.blocks for block in group) - {NULL_BLOCK}
            self._debts[copy.request] = _Debt(self._now_s(), self._polls, blocks)

    def cancel(self, requests: Iterable[str]) -> None:
        """Their blocks are others' now. Their end is owed as before."""
        for request in self._debts.keys() & set(requests):
            self._debts[request] = self._debts[request]._replace(blocks=frozenset())

    def settle(self, said: Transfers) -> tuple[Transfers, set[str]]:
        """Of one poll: what may be passed on of it, and the ids that were not owed.

        Block ids belong to a request only while its load lasts, so none but those of debts are passed on; and a failed
        load that names no block of its own has failed in all of them."""
        self._polls += 1
        all_blocks = frozenset().union(*(debt.blocks for debt in self._debts.values()))
        invalid = set(said.invalid_block_ids & all_blocks)
        owed = said.finished_recving & self._debts.keys()
        failed = said.failed_recving & owed
        for request in owed:
            debt = self._debts.pop(request)
            if request in failed and not invalid & debt.blocks:
                invalid |= debt.blocks
        return Transfers(owed, failed, invalid), said.finished_recving - owed

    def fail(self, requests: Iterable[str] | None = None) -> Transfers:
        """These, or all, as finished and failed."""
        chosen = set(self._debts) if requests is None else set(requests) & self._debts.keys()
        blocks = [self._debts.pop(request).blocks for request in chosen]
        return Transfers(chosen, set(chosen), set().union(*blocks))

    def overdue(self) -> bool:
        limit_s, limit_poll = self._now_s() - self._max_s, self._polls - OWED_POLLS_MIN
        return any(debt.since_s < limit_s and debt.since_poll <= limit_poll for debt in self._debts.values())


class WorkerLike(Protocol):
    """What the connector asks of a worker's half, every step."""

    def facts(self) -> WorkerFacts | None: ...
    def bind(self, orders: Orders) -> None: ...
    def start_loads(self) -> None: ...
    def save(self) -> None: ...
    def poll(self) -> tuple[set[str], set[str], set[int]]: ...
    def report(self) -> WorkerReport | None: ...
    def take_stats(self) -> dict[str, Any] | None: ...
    def shutdown(self) -> None: ...


class NoWorker:
    """Loads nothing, stores nothing, and says so at once."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._report = WorkerReport()
        self._failed: set[str] = set()
        self._blocks: set[int] = set()

    def facts(self) -> WorkerFacts | None:
        return None

    def bind(self, orders: Orders) -> None:
        for load in orders.loads:
            self._report.staged[load.load] = {self._rank: Staged(0, INTERNAL)}
        for copy in orders.copies:
            self._failed.add(copy.request)
            self._blocks.update(block for group in copy.blocks for block in group)
        for store in orders.stores:
            self._report.failed_stores[store.key] = {self._rank}

    def start_loads(self) -> None:
        return None

    def save(self) -> None:
        return None

    def poll(self) -> Transfers:
        failed, self._failed = self._failed, set()
        blocks, self._blocks = self._blocks, set()
        return Transfers(failed, set(failed), blocks)

    def report(self) -> WorkerReport | None:
        report, self._report = self._report, WorkerReport()
        return report if report else None

    def take_stats(self) -> dict[str, Any] | None:
        return None

    def shutdown(self) -> None:
        return None
