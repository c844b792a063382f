"""Slices → figures: what an arm did per second, per CPU second, at its p99; and any two arms of a cell as a ratio."""

from __future__ import annotations

from typing import Any

import stats

GB = 1e9


def rounds_of(arm: dict[str, Any]) -> list[dict[str, Any]]:
    """An arm's two slices of each round, added up."""
    slices = arm["slices"]
    return [joined(slices[i], slices[i + 1]) for i in range(0, len(slices) - 1, 2)]


def joined(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    return {name: a[name] + b[name] for name in ("units", "bytes", "seconds", "cpu_s", "task_us")}


def rate(round_: dict[str, Any]) -> float:
    return float(round_["units"] / round_["seconds"])


def cpu(round_: dict[str, Any]) -> float:
    """CPU seconds per GB; per million names for look-ups."""
    return float(round_["cpu_s"] / (round_["bytes"] / GB if round_["bytes"] else round_["units"] / 1e6))


def ratio(cell: dict[str, Any], ours: str, theirs: str, what: str = "rate") -> stats.Estimate | None:
    """rate, cpu or p99 of `ours` over that of `theirs`, of the same rounds. None if either did not run. Kept in the cell: it is asked for
    by goals, tables and plots, and a bootstrap takes a while."""
    known = cell.setdefault("ratios", {})
    name = f"{what}: {ours} / {theirs}"
    if name not in known:
        found = computed(cell, ours, theirs, what)
        known[name] = found and found.as_json()
    return stats.Estimate(**known[name]) if known[name] else None


def computed(cell: dict[str, Any], ours: str, theirs: str, what: str) -> stats.Estimate | None:
    arms = cell["arms"]
    if ours not in arms or theirs not in arms:
        return None
    a, b = rounds_of(arms[ours]), rounds_of(arms[theirs])
    n = min(len(a), len(b))
    if n == 0:
        return None
    a, b = a[:n], b[:n]
    if what == "p99":
        mine, other = [r["task_us"] for r in a], [r["task_us"] for r in b]
        return stats.ratio_of_quantiles(mine, other, 0.99) if any(mine) and any(other) else None
    of = rate if what == "rate" else cpu
    return stats.ratio([of(r) for r in a], [of(r) for r in b])


def base(cell: dict[str, Any]) -> str:
    """The arm that the others are compared with."""
    return "kvlane" if "kvlane" in cell["arms"] else next(iter(cell["arms"]), "")


def difference(cell: dict[str, Any], ours: str, theirs: str, units: int) -> stats.Estimate | None:
    """How much longer the median task of `ours` took than that of `theirs` in the same round, in µs for each of its units."""
    arms = cell["arms"]
    if ours not in arms or theirs not in arms:
        return None
    rounds = zip(rounds_of(arms[ours]), rounds_of(arms[theirs]), strict=False)  # one may have failed on the way
    both = [(a["task_us"], b["task_us"]) for a, b in rounds if a["task_us"] and b["task_us"]]
    return stats.median([(stats.quantile(a, 0.5) - stats.quantile(b, 0.5)) / units for a, b in both]) if both else None


def figures(cell: dict[str, Any], name: str) -> dict[str, float]:
    """Medians over the rounds, to be read beside each other; goals use ratios."""
    arm = cell["arms"][name]
    rounds = rounds_of(arm)
    if not rounds:
        return {}
    tasks = [us for r in rounds for us in r["task_us"]]
    found = {
        "rate": stats.quantile([rate(r) for r in rounds], 0.5),
        "gb_per_s": stats.quantile([r["bytes"] / GB / r["seconds"] for r in rounds], 0.5),
        "cpu": stats.quantile([cpu(r) for r in rounds], 0.5),
    }
    if tasks:
        found |= {"task_p50_us": stats.quantile(tasks, 0.5), "task_p99_us": stats.quantile(tasks, 0.99)}
    return found
