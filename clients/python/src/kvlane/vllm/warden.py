"""Stands between vLLM's hooks and the two halves of the connector, and keeps its own books of claimed hits.

    Promises    scheduler: a hit that was accepted leaves in the same step, as a CopyOrder or as one that fails; one whose
                request is aborted is cancelled, where vLLM would give its blocks to others meanwhile (before 0.16)
    Warden    worker: what is ordered is reported once; a half that raises while something is owed is retired

Surprising: retiring is for good. What a half that lost its way may still do to KV blocks cannot be known, so it is stopped
before the blocks are given back. The engine goes on without the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from typing import Any

from .guard import FAILED_LOAD, Guard, NoWorker, Owed, Transfers, WorkerLike
from .messages import CopyOrder, Orders, WorkerReport

ASKS_MIN = 20
"""Times that a request is told to ask again before its patience counts: a step may last seconds."""
RAISES_MAX = 10
"""Exceptions in a row that a worker's half may raise while nothing is owed."""


class Promises:
    """What vLLM's scheduler was promised, in books that need nothing of the scheduler's half."""

    def __init__(
        self,
        guard: Guard,
        block_tokens: int,
        patience_s: float = 10.0,
        now_s: Callable[[], float] = time.monotonic,
        *,
        holds_aborted: bool = True,
    ) -> None:
        """`patience_s`: how long one request may be told to ask again; more than look-up and load take together.
        `holds_aborted`: see features.py. Where False, an abort is our business: nothing may be copied any more, and a report
        that nobody waits for would stay with vLLM, and count as that of the next request of that name."""
        self._guard = guard
        self._block_tokens = block_tokens
        self._patience_s = patience_s
        self._now_s = now_s
        self._local_tokens: dict[str, int] = {}
        self._waiting: dict[str, tuple[float, int]] = {}  # since when, how often
        self._granted: dict[str, int] = {}
        """Request → hits that vLLM made room for."""
        self._accepted: dict[str, tuple[tuple[int, ...], ...]] = {}
        """Of this step."""
        self._holds_aborted = holds_aborted
        self._loading: dict[str, bool] = {}
        """Accepted hits that vLLM waits for → whether their report has come. Empty where vLLM holds what is aborted."""
        self._barred: dict[str, bool] = {}
        """Names of requests that ended while loading → whether their report is still to come. One that came before the end is
        vLLM's for ever, as many as these."""
        self._cancels: list[str] = []

    def allows(self, request: str, preemptions: int) -> bool:
        """False: nothing more is promised. One that was granted a hit and asks again without having been preempted lost
        it, and would for ever. (vLLM 0.13 forgets what a preempted request has generated when it is loaded.)"""
        if not self._holds_aborted and (preemptions or request in self._barred):
            return False
        return self._granted.get(request, 0) <= preemptions

    def may_wait(self, request: str) -> bool:
        """Whether it may be told to ask again. One that has been told so for too long waits for a mistake of ours; but
        what has come meanwhile it may have, however long vLLM did not ask."""
        since_s, times = self._waiting.get(request, (self._now_s(), 0))
        return times < ASKS_MIN or self._now_s() - since_s < self._patience_s

    def answered(self, request: str, tokens: int | None, local_tokens: int) -> None:
        """`local_tokens`: what vLLM has itself, below a hit."""
        if tokens is None:
            since_s, times = self._waiting.get(request, (self._now_s(), 0))
            self._waiting[request] = (since_s, times + 1)
            return
        self._waiting.pop(request, None)
        if tokens:
            self._local_tokens[request] = local_tokens

    def allocated(self, request: str, external_tokens: int, blocks: Sequence[Sequence[int]]) -> None:
        """vLLM made room, with the hit or without. The blocks that it had itself are left out: those may be in use by
        others. (With several groups the count is not exact; there a failure is not reported by block ids.)"""
        self._waiting.pop(request, None)
        self._loading.pop(request, None)  # vLLM has taken its report
        skip = self._local_tokens.pop(request, 0) // self._block_tokens
        if external_tokens > 0:
            self._granted[request] = self._granted.get(request, 0) + 1
            self._accepted[request] = tuple(tuple(group[skip:]) for group in blocks)
            if not self._holds_aborted:
                self._loading[request] = False

    def forget(self, request: str) -> None:
        for book in (self._local_tokens, self._waiting, self._granted):
            book.pop(request, None)
        has_come = self._loading.pop(request, None)
        if has_come is not None:
            self._barred[request] = not has_come
            if not has_come:
                self._cancels.append(request)

    def reported(self, requests: Set[str]) -> set[str]:
        """Loads that are over → those of them that vLLM must not hear of: it waits for them no more."""
        for request in self._loading.keys() & requests:
            self._loading[request] = True
        unwanted = {request for request in requests if self._barred.get(request)}
        for request in unwanted:
            del self._barred[request]
        return unwanted

    def complete(self, orders: Orders) -> None:
        """A hit that was accepted leaves in the same step. One without an order would wait for ever: it is ordered to fail.
        An order without a hit comes too late, and vLLM would not know what is reported for it: it is dropped."""
        orders.cancels, self._cancels = self._cancels, []
        accepted, self._accepted = self._accepted, {}
        late = [copy.load for copy in orders.copies if copy.request not in accepted]
        if late:
            self._trouble("late_order", "an order for a hit came after its step; it is dropped", len(late))
            orders.copies = [copy for copy in orders.copies if copy.request in accepted]
            orders.drops.extend(late)
        ordered = {copy.request for copy in orders.copies}
        for request, blocks in accepted.items():
            if request not in ordered:
                self._trouble("lost_claim", "the order for a claimed hit was lost; it is computed instead", 1)
                orders.copies.append(CopyOrder(FAILED_LOAD, request, 0, 0, blocks))

    def _trouble(self, what: str, sentence: str, times: int) -> None:
        self._guard.tally.count("hook_errors", times, hook=what)
        self._guard.say(what, "kvlane: " + sentence)


class Warden:
    """Around a worker's half. No method raises."""

    def __init__(
        self,
        worker: WorkerLike,
        guard: Guard,
        rank: int,
        *,
        wait_for_device: Callable[[], object],
        longest_load_s: float = 0.0,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`wait_for_device` returns when copies within memory that are under way are done; no storage is behind them.
        `longest_load_s`: the longest deadline that a load may be given."""
        self.worker = worker
        self._guard = guard
        self._rank = rank
        self._wait_for_device = wait_for_device
        self._owed = Owed(now_s, longest_load_s)
        self._lost: set[str] = set()
        self._raised = 0

    @property
    def retired(self) -> bool:
        return isinstance(self.worker, NoWorker)

    def bind(self, orders: Orders) -> None:
        self._owed.add(orders.copies)
        self._owed.cancel(orders.cancels)
        lost = {copy.request for copy in orders.copies if copy.load == FAILED_LOAD}
        if lost:
            self._lost |= lost
            orders.copies = [copy for copy in orders.copies if copy.load != FAILED_LOAD]
        self._ask("bind_connector_metadata", lambda: self.worker.bind(orders))
        if orders.cancels:  # this step's forward may write those blocks: what is still being copied into them must be over
            self._ask("bind_connector_metadata", self._wait_for_device)

    def start_loads(self) -> None:
        self._ask("start_load_kv", lambda: self.worker.start_loads())

    def save(self) -> None:
        self._ask("wait_for_save", lambda: self.worker.save())

    def poll(self) -> Transfers:
        """What is passed on is what is owed: nothing twice, nothing that vLLM does not wait for."""
        polled: list[Transfers] = []
        if self._ask("get_finished", lambda: polled.append(Transfers(*self.worker.poll()))):
            self._raised = 0
        said, strange = self._owed.settle(polled[0] if polled else Transfers(set(), set(), set()))
        if self._owed.overdue() and not self.retired:
            self.retire("get_finished", TimeoutError("a load that was ordered was not settled in time"))
        if strange:
            self._guard.tally.count("hook_errors", len(strange), hook="not_owed")
            self._guard.say("not_owed", "kvlane: %d finished loads that were not owed are not passed on", len(strange))
        mine = self._owed.fail(None if self.retired else self._lost)
        self._lost.clear()
        return Transfers(
            said.finished_recving | mine.finished_recving,
            said.failed_recving | mine.failed_recving,
            said.invalid_block_ids | mine.invalid_block_ids,
        )

    def report(self) -> WorkerReport | None:
        reports: list[WorkerReport | None] = []
        self._ask("build_connector_worker_meta", lambda: reports.append(self.worker.report()))
        return reports[0] if reports else None

    def take_stats(self) -> dict[str, Any] | None:
        taken: list[dict[str, Any] | None] = []
        self._ask("get_kv_connector_stats", lambda: taken.append(self.worker.take_stats()))
        return taken[0] if taken else None

    def shutdown(self) -> None:
        try:
            self.worker.shutdown()
        except Exception as error:
            self._guard.caught("shutdown", error)

    def retire(self, hook: str, error: Exception) -> None:
        self._guard.caught(hook, error)
        self._guard.say(
            "retired", "kvlane is off in this worker until the engine is restarted; the engine goes on without it."
        )
        former, self.worker = self.worker, NoWorker(self._rank)
        for last in (former.shutdown, self._wait_for_device):
            try:
                last()
            except Exception as late:
                self._guard.caught("shutdown", late)

    def _ask(self, hook: str, call: Callable[[], object]) -> bool:
        try:
            call()
        except Exception as error:
            self._raised += 1
            if len(self._owed) > 0 or self._raised >= RAISES_MAX:
                self.retire(hook, error)
            else:
                self._guard.caught(hook, error)
            return False
        return True
