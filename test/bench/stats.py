"""Numbers of a comparison: the median of the rounds' ratios, with a bootstrap interval. Standard library only.

A round is A,B,B,A: what drifts while it lasts falls on both alike. So a round gives one ratio, and only ratios of the same
round are ever formed; the machine of this minute is not compared with that of the next.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

RESAMPLES = 2000  # the interval's own error is then some hundredths of its width
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    value: float
    low: float
    high: float
    n: int

    def as_json(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}


def quantile(values: Sequence[float], q: float) -> float:
    """Linear between the two nearest; `values` in any order."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values, so no quantile")
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def bootstrap(rounds: Sequence[T], statistic: Callable[[Sequence[T]], float], seed: int = 1) -> Estimate:
    """The statistic with its interval: rounds are drawn again, with replacement. The same seed gives the same interval."""
    if not rounds:
        raise ValueError("no rounds, so nothing to estimate")
    draw = random.Random(seed)
    n = len(rounds)
    found = [statistic(draw.choices(rounds, k=n)) for _ in range(RESAMPLES if n > 1 else 1)]
    edge = (1 - CONFIDENCE) / 2
    return Estimate(statistic(rounds), quantile(found, edge), quantile(found, 1 - edge), n)


def ratio(ours: Sequence[float], theirs: Sequence[float], seed: int = 1) -> Estimate:
    """Median of the per-round ratios ours/theirs. Rounds in which either is not above 0 say nothing and are left out."""
    if len(ours) != len(theirs):
        raise ValueError(f"rounds come in pairs: {len(ours)} against {len(theirs)}")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if a > 0 and b > 0]
    return bootstrap(ratios, statistics.median, seed)


def ratio_of_quantiles(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], q: float) -> Estimate:
    """Ratio of quantiles over all rounds together: one round has too few for a p99. Rounds are still drawn in pairs."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    tops = list(zip(tops_of([a for a, _ in pairs], q), tops_of([b for _, b in pairs], q), strict=True))

    def pooled(rounds: Sequence[tuple[Top, Top]]) -> float:
        return quantile_of_tops([mine for mine, _ in rounds], q) / quantile_of_tops([other for _, other in rounds], q)

    return bootstrap(tops, pooled)


Top = tuple[int, list[float]]  # how many values a round has, and the largest of them


def tops_of(rounds: Sequence[Sequence[float]], q: float) -> list[Top]:
    """Of each round only what can matter for the quantile of any drawing of so many rounds: else a bootstrap sorts for minutes."""
    most = len(rounds) * max(map(len, rounds), default=0)
    kept = math.ceil((1 - q) * most) + 2
    return [(len(values), sorted(values)[-kept:]) for values in rounds]


def quantile_of_tops(rounds: Sequence[Top], q: float) -> float:
    """quantile() of all values together; those that were left out are all smaller than what is looked at."""
    n = sum(count for count, _ in rounds)
    ordered = sorted(value for _, values in rounds for value in values)
    place = q * (n - 1)
    below = int(place)
    left_out = n - len(ordered)
    low, high = ordered[below - left_out], ordered[min(below + 1, n - 1) - left_out]
    return low + (high - low) * (place - below)


def median(values: Sequence[float], seed: int = 1) -> Estimate:
    return bootstrap(values, statistics.median, seed)


def growth(points: Sequence[tuple[float, float]]) -> float:
    """How the cost of one grows with size: the slope of log(cost) over log(size), by least squares. 0 is flat, 1 is linear."""
    xs = [math.log(x) for x, _ in points]
    ys = [math.log(y) for _, y in points]
    if len(set(xs)) < 2:
        raise ValueError("a slope wants two sizes at least")
    return statistics.linear_regression(xs, ys).slope
