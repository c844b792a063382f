"""What a worker has to say of its loads until somebody takes it: to the scheduler, to the engine, to the metrics.

Surprising: a failed load is told in one of two ways, by request or by its block ids, as the installed vLLM wants it; and in
both the request is finished too, in the same breath.
"""

from __future__ import annotations

from collections.abc import Callable

from .messages import CopyOrder, Staged, WorkerReport
from .pieces import Load
from .stats import Tally

LOADS_TIMED_MAX = 256
"""Measurements kept for one report."""


class Outcomes:
    def __init__(
        self, tally: Tally, *, rank: int, failures: str, chunk_bytes: int, blocks_per_chunk: int, now: Callable[[], float]
    ) -> None:
        self._tally, self._rank, self._failures, self._now = tally, rank, failures, now
        self._chunk_bytes, self._blocks_per_chunk = chunk_bytes, blocks_per_chunk
        self._report = WorkerReport()
        self._finished: set[str] = set()
        self._failed: set[str] = set()
        self._invalid: set[int] = set()

    def staged(self, load: Load) -> None:
        """All before the first failed chunk is in its slots."""
        self._report.staged[load.order.load] = {self._rank: Staged(load.limit, load.code, load.phase)}
        self._landed(load)

    def finished(self, load: Load, copy: CopyOrder, usable: int) -> None:
        """The request's blocks are not touched any more; its first `usable` chunks are good."""
        if load.staged_at is None:
            self._landed(load)
        elif load.code and usable < copy.chunks:
            self._tally.count("load_failures", code=load.code)
        if load.copy_began is not None:
            self._tally.observe("copy_in", self._now() - load.copy_began)
        self._finished.add(copy.request)
        if usable < copy.chunks or load.bad_order:
            if self._failures == "failed_recving":
                self._failed.add(copy.request)
            elif self._failures == "block_ids" and len(copy.blocks) == 1:
                start = max(0, usable * self._blocks_per_chunk - copy.skip_blocks)
                self._invalid.update(block for block in copy.blocks[0][start:] if block > 0)

    def _landed(self, load: Load) -> None:
        seconds, length = self._now() - load.began, load.limit * self._chunk_bytes
        if load.code == "DEADLINE_EXCEEDED":
            self._tally.count("load_timeouts", phase=load.phase or "answer")
        elif load.code == "MOUNT_SUSPENDED":
            self._tally.count("refused", op="load")
        elif load.code:
            self._tally.count("load_failures", code=load.code)
        if load.limit > 0:
            self._tally.count("loaded_chunks", load.limit)
            self._tally.count("loaded_bytes", length)
        if not load.code:
            self._tally.observe("load", seconds)
            if len(self._report.loads_timed) < LOADS_TIMED_MAX:
                self._report.loads_timed.append((length, seconds))

    def take(self) -> tuple[set[str], set[str], set[int]]:
        """finished_recving, failed_recving, invalid block ids since the last call."""
        taken = self._finished, self._failed, self._invalid
        self._finished, self._failed, self._invalid = set(), set(), set()
        return taken

    def take_report(self) -> WorkerReport:
        report, self._report = self._report, WorkerReport()
        return report
