"""Is a load worth its time, and how long may it take?

What a recompute costs is measured from the engine's own steps, what a load costs from the loads that went well. A load that
would not beat the recompute is not started. One that is started may take half as long as the recompute would: whatever
the mount does, a request then costs at most one and a half times its own time. Surprising: without evidence everything is allowed, and
evidence grows old, because a cache that is never tried is never measured again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import combinations
from statistics import median
from typing import Protocol

STEP_PREFILL_TOKENS_MIN = 256
"""Tokens. Smaller steps are overhead, not prefill."""
STEPS_OPEN_MAX = 8
"""Steps. Built, not reported yet; more means that reports got lost, and then counting starts anew."""
STEP_US_MAX = 60_000_000
"""A step that took longer was not one step."""
RATE_WEIGHT = 0.2
"""Of a new measurement in the moving average."""
RATE_JUMP_MAX = 4.0
"""A measurement counts as at most so many times, and at least one so-many-th of, the average: compilation, pauses."""
RATE_ASSUMED = 4000.0
"""Tokens per second, for the deadline only, until one has been measured."""
DEADLINE_SHARE = 0.5
"""Of the recompute's time. A load that needs longer wins little, and on a hung mount every request pays this."""
LOADS_KEPT = 32
LOADS_NEEDED = 4
"""Loads. Fewer prove nothing against loading."""
LOAD_EVIDENCE_US = 60_000_000
"""Loads older than that are forgotten."""
SIZES_DIFFER = 2.0
"""Largest over smallest load from which on latency and bandwidth can be told apart."""
RETRY_AFTER_US = 5_000_000
"""So often a load that is not worth it is tried nevertheless: it measures."""


class Limits(Protocol):
    """The options this reads."""

    @property
    def timeout_ms(self) -> float | None: ...
    @property
    def deadline_floor_ms(self) -> float: ...
    @property
    def deadline_ceiling_ms(self) -> float: ...


class Worth:
    def __init__(self, limits: Limits, now_us: Callable[[], int]) -> None:
        self._limits = limits
        self._now_us = now_us
        self._rate: float | None = None
        self._open: deque[tuple[int, int]] = deque()
        self._reported_us = 0
        self._loads: deque[tuple[int, int, float]] = deque(maxlen=LOADS_KEPT)
        self._line: tuple[float, float] | None = None  # seconds, seconds per byte
        self._stale = False
        self._tried_us = now_us()

    # --- evidence --------------------------------------------------------------------------------------------------

    def step_built(self, prefill_tokens: int) -> None:
        """A step with tokens has been scheduled."""
        if len(self._open) >= STEPS_OPEN_MAX:
            self._open.clear()
        self._open.append((self._now_us(), prefill_tokens))

    def step_reported(self) -> None:
        """A step's output is here. Steps overlap under asynchronous scheduling: each begins where the last one ended."""
        now_us = self._now_us()
        if self._open:
            built_us, tokens = self._open.popleft()
            took_us = now_us - max(built_us, self._reported_us)
            if tokens >= STEP_PREFILL_TOKENS_MIN and 0 < took_us <= STEP_US_MAX:
                self._add_rate(tokens * 1e6 / took_us)
        self._reported_us = now_us

    def _add_rate(self, rate: float) -> None:
        if self._rate is None:
            self._rate = rate
            return
        rate = min(max(rate, self._rate / RATE_JUMP_MAX), self._rate * RATE_JUMP_MAX)
        self._rate += RATE_WEIGHT * (rate - self._rate)

    def load_took(self, size_bytes: int, seconds: float) -> None:
        if size_bytes > 0 and 0 <= seconds < STEP_US_MAX / 1e6:
            self._loads.append((self._now_us(), size_bytes, seconds))
            self._stale = True

    # --- estimates -------------------------------------------------------------------------------------------------

    @property
    def tokens_per_second(self) -> float | None:
        return self._rate

    def load_seconds(self, size_bytes: int) -> float | None:
        """None: not enough evidence."""
        while self._loads and self._loads[0][0] < self._now_us() - LOAD_EVIDENCE_US:
            self._loads.popleft()
            self._stale = True
        if len(self._loads) < LOADS_NEEDED:
            return None
        if self._stale or self._line is None:
            self._line = fit([(size, seconds) for _, size, seconds in self._loads])
            self._stale = False
        latency, per_byte = self._line
        return latency + per_byte * size_bytes

    def is_worth(self, tokens: int, size_bytes: int) -> bool:
        """Whether to load so many tokens instead of computing them."""
        load_s = self.load_seconds(size_bytes)
        now_us = self._now_us()
        if self._rate is None or load_s is None or load_s <= tokens / self._rate:
            self._tried_us = now_us
            return True
        if now_us - self._tried_us >= RETRY_AFTER_US:
            self._tried_us = now_us
            return True
        return False

    def timeout_ms(self, tokens: int) -> float:
        """The deadline of a load of so many tokens."""
        limits = self._limits
        if limits.timeout_ms is not None:
            return limits.timeout_ms
        recompute_ms = 1000 * tokens / (self._rate or RATE_ASSUMED)
        asked_ms = limits.deadline_floor_ms + DEADLINE_SHARE * recompute_ms
        return min(max(asked_ms, limits.deadline_floor_ms), limits.deadline_ceiling_ms)


def fit(loads: list[tuple[int, float]]) -> tuple[float, float]:
    """(latency in seconds, seconds per byte): medians, so that a few loads in bad company do not count."""
    sizes = [size for size, _ in loads]
    if max(sizes) < SIZES_DIFFER * min(sizes):
        return 0.0, median(seconds / size for size, seconds in loads)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(loads, 2) if a[0] != b[0]]
    per_byte = max(median(slopes), 0.0)
    return max(median(seconds - per_byte * size for size, seconds in loads), 0.0), per_byte
