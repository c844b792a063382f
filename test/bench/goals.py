"""What the product is held to: each goal, where in the results it is measured, and the judgement in words.

A ratio is judged by its median. How far to trust it say the interval, and the A/A beside it, which is the same arm twice: where
that is wider than AA_WIDTH_MAX the machine was too restless for a goal so fine, and the judgement says so. A goal that is missed is
told with what was measured beside it in the same rounds, profiles first (why.py). A goal that was not measured has its line too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import plan
import results as known
import stats
import summary
import why

AA_WIDTH_MAX = 0.06
PAIRS_MIN = 16
MIB, KIB = 1 << 20, 1 << 10
Results = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """`value` is None where nothing was measured; `low` is None where there is no interval; `pairs` is 0 where none are wanted."""

    goal: str
    where: str
    wanted: str
    value: float | None
    low: float | None = None
    high: float | None = None
    pairs: int = 0
    unit: str = ""
    noise: stats.Estimate | None = None  # of the A/A beside it
    because: str = ""
    enough: bool = True  # pairs
    unseen: int = 0  # places where it has to hold too, and nothing was measured

    @property
    def met(self) -> bool:
        return self.value is not None and holds(self.value, self.wanted)

    @property
    def restless(self) -> bool:
        return self.noise is not None and not self.unit and self.noise.high - self.noise.low > AA_WIDTH_MAX

    @property
    def verdict(self) -> str:
        if self.value is None:
            return f"not measured: {self.because}"
        if not self.enough:
            return f"not judged: {self.pairs} pairs, {PAIRS_MIN} are wanted"
        doubts = []
        if self.low is not None and self.high is not None and holds(self.low, self.wanted) != holds(self.high, self.wanted):
            doubts.append("the interval reaches over the goal")
        if self.unseen:
            doubts.append(f"{self.unseen} more not measured")
        if self.restless:
            doubts.append("the A/A says that the machine was restless")
        doubt = f" ({'; '.join(doubts)})" if doubts else ""
        if self.met:
            return f"met{doubt}"
        return f"not met by {missed_by(self.value, self.wanted, self.unit)}{doubt}" + (f": {self.because}" if self.because else "")


def holds(value: float, wanted: str) -> bool:
    sign, number = wanted.split()
    return {"≥": value >= float(number), "≤": value <= float(number), "<": value < float(number), ">": value > float(number)}[sign]


def missed_by(value: float, wanted: str, unit: str) -> str:
    bound = float(wanted.split()[1])
    by = f"{abs(value - bound):.3g}{f' {unit}' if unit else ''}"
    return f"{by} ({abs(value - bound) / bound:.0%})" if bound else by


def cells(results: Results, table: str, op: str, *sizes: int, **also: Any) -> Iterator[dict[str, Any]]:
    """Those on a file system with a device; tmpfs shows the software's cost and is not judged, but for control."""
    for cell in results["cells"].values():
        of_it = cell["table"] == table and cell.get("op") == op and (not sizes or cell["block_bytes"] in sizes)
        if of_it and (cell["medium"] != "tmpfs" or table == "control") and all(cell.get(name) == value for name, value in also.items()):
            yield cell


def asked(results: Results, arm: str, *where: Any, **also: Any) -> Iterator[dict[str, Any]]:
    """The cells in which the arm was to take part, also if it failed there."""
    return (cell for cell in cells(results, *where, **also) if {arm, "all"} & {*cell["arms"], *cell["failed"]})


def still_to_come(results: Results, arm: str, table: str, op: str, *sizes: int, **also: Any) -> list[str]:
    """Where the arm was to be measured for this, and the run has not come to it."""
    absent = set(known.missing(results)) - set(results["cells"])
    todo = [{**vars(cell), "name": cell.name, "arms": {}, "failed": dict.fromkeys(cell.arms, "")} for cell in plan.full() if cell.name in absent]
    return [where_of(cell) for cell in asked({"cells": {cell["name"]: cell for cell in todo}}, arm, table, op, *sizes, **also)] if todo else []


def size_name(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // KIB} KiB"


def where_of(cell: dict[str, Any]) -> str:
    what = "4,096 names" if cell["op"] == "lookup" else size_name(cell["block_bytes"])
    return f"{cell['medium']}, {what}, {cell['pages']} pages"


# Each operation beside Python's threads on huge pages, and beside both on the small ones that Node has only.
NAIVE = [
    ("load", "threads", "load", "huge"),
    ("new", "threads", "store", "huge"),
    ("again", "threads", "store", "huge"),
    *((op, naive, "naive", "4k") for op in ("load", "new", "again") for naive in ("threads", "node")),
    ("lookup", "threads", "lookup", "4k"),
    ("lookup", "node", "lookup", "4k"),
]
WHAT = {"rate": "throughput", "p99": "p99", "cpu": "CPU seconds"}

Judge = Callable[[dict[str, Any]], Line]


def ratios(goal: str, wanted: str, ours: str, theirs: str, what: str = "rate") -> Judge:
    def of(cell: dict[str, Any]) -> Line:
        found = summary.ratio(cell, ours, theirs, what)
        if found is None:
            failed = [f"{arm}: {cell['failed'][arm]}" for arm in (ours, theirs, "all") if arm in cell["failed"]]
            return Line(goal, where_of(cell), wanted, None, because="; ".join(failed) or "the arm took no part")
        line = of_estimate(goal, where_of(cell), wanted, found, noise=summary.ratio(cell, "kvlane", "kvlane~", what))
        return line if line.met else with_reason(line, why.of_cell(cell, ours, theirs, what))

    return of


def of_estimate(goal: str, where: str, wanted: str, e: stats.Estimate, unit: str = "", noise: stats.Estimate | None = None) -> Line:
    return Line(goal, where, wanted, e.value, e.low, e.high, e.n, unit, noise, enough=e.n >= PAIRS_MIN)


def with_reason(line: Line, because: str) -> Line:
    return Line(**{**line.__dict__, "because": because})


def worst(lines: list[Line], to_come: int = 0) -> Line:
    """A goal that has to hold everywhere, as one line: that of the place where it holds least. `to_come`: places not measured yet."""
    measured = [line for line in lines if line.value is not None and line.enough] or [line for line in lines if line.value is not None]
    planned = len(lines) + to_come
    if not measured:
        return Line(**{**lines[0].__dict__, "where": "" if planned > 1 else lines[0].where})
    more = measured[0].wanted[0] in "≥>"
    found = (min if more else max)(measured, key=lambda line: line.value or 0.0)
    if planned == 1:
        return found
    where = f"{found.where}: the worst of {len(measured)}, of which {sum(line.met for line in measured)} meet it"
    return Line(**{**found.__dict__, "where": where, "unseen": planned - len(measured)})


def control(cell: dict[str, Any]) -> Line:
    """What the product's median task takes longer than the floor's, in microseconds for each block."""
    n = cell["task_blocks"]
    goal, wanted = "control cost, hot", {1: "≤ 150", 64: "≤ 3", 1024: "≤ 1"}[n]
    where = f"{'1 block' if n == 1 else f'{n:,} blocks'} of 4 KiB from tmpfs, above the floor"
    found = summary.difference(cell, "kvlane", "floor-verify", n)
    if found is None:
        return Line(goal, where, wanted, None, because="; ".join(f"{arm}: {text}" for arm, text in cell["failed"].items()))
    line = of_estimate(goal, where, wanted, found, "µs a block", summary.difference(cell, "kvlane", "kvlane~", n))
    return line if line.met else with_reason(line, why.of_control(cell))


def plain(goal: str, where: str, wanted: str, value: float, unit: str = "", because: str = "") -> Line:
    return Line(goal, where, wanted, value, unit=unit, because=because)


def estimated(e: dict[str, float]) -> stats.Estimate:
    return stats.Estimate(e["value"], e["low"], e["high"], int(e["n"]))


def all_lines(results: Results) -> list[Line]:
    """A line at least for each goal, in the order of the table that was agreed."""
    lines: list[Line] = []

    def each(goal: str, wanted: str, found: Iterable[Line]) -> None:
        of_goal = list(found)
        lines.extend(of_goal or [Line(goal, "", wanted, None, because=why_missing(results))])

    def ratio(goal: str, wanted: str, ours: str, theirs: str, where: tuple[Any, ...], what: str = "rate", **also: Any) -> None:
        found = list(map(ratios(goal, wanted, ours, theirs, what), asked(results, theirs, *where, **also)))
        absent = still_to_come(results, theirs, *where, **also)
        each(goal, wanted, [*found, *(Line(goal, place, wanted, None, because=why_missing(results)) for place in absent)])

    def everywhere(goal: str, wanted: str, theirs: str, what: str, table: str, op: str, memory: str) -> None:
        judged = list(map(ratios(goal, wanted, "kvlane", theirs, what), asked(results, theirs, table, op, pages=memory)))
        each(goal, wanted, [worst(judged, len(still_to_come(results, theirs, table, op, pages=memory)))] if judged else [])

    ratio("load / fio psync of the same depth", "≥ 0.97", "kvlane", "fio-psync", ("load", "load", MIB, 4 * MIB))
    ratio("load 256 KiB / fio psync", "≥ 0.95", "kvlane", "fio-psync", ("load", "load", 256 * KIB))
    ratio("load 64 KiB / fio psync", "≥ 0.90", "kvlane", "fio-psync", ("load", "load", 64 * KIB))
    ratio("store over old blocks / fio overwrite", "≥ 0.92", "kvlane", "fio-psync", ("store", "again", MIB, 4 * MIB))
    ratio("store new / C++ doing the same", "≥ 0.97", "kvlane", "floor-new-verify", ("store", "new", MIB, 4 * MIB))
    pages = {"medium": "disk", "pages": "huge"}
    ratio("huge-page arena / 4 KiB arena, load", "≥ 1.8", "kvlane", "kvlane-4k-direct", ("pages", "load", MIB), **pages)
    for op, naive, table, memory in NAIVE:
        for what, wanted in (("rate", "> 1"), ("p99", "< 1"), ("cpu", "< 1")):
            goal = f"naive: {op}, {WHAT[what]} / {naive}"
            everywhere(goal, wanted, naive, what, table, op, memory)
    for what, table, op in (("load", "load", "load"), ("store over old", "store", "again")):
        goal = f"CPU seconds per GB / fio psync, {what}"
        ratio(goal, "≤ 1.05", "kvlane", "fio-psync", (table, op, MIB, 4 * MIB), "cpu")
        everywhere(f"{goal}, every size", "≤ 1.05", "fio-psync", "cpu", table, op, "huge")
    for what, table, op in (("load", "load", "load"), ("store over old", "store", "again"), ("store new", "store", "new")):
        goal = f"checksum on / off, throughput, {what}"
        ratio(goal, "≥ 0.95", "kvlane", "kvlane-unchecked", (table, op, MIB, 4 * MIB))
        everywhere(f"{goal}, every size", "≥ 0.95", "kvlane-unchecked", "rate", table, op, "huge")
    each("control cost, hot", "≤ 150", map(control, cells(results, "control", "load")))
    tables = results["tables"]
    for name, goal, wanted, of in TABLE_GOALS:
        found = tables.get(name)
        missing = why_missing(results) if found is None else found.get("failed", "")
        lines += [Line(goal, "", wanted, None, because=missing)] if missing or found is None else of(found)
    return lines


def why_missing(results: Results) -> str:
    if results.get("cut"):
        return f"the run was cut short {results['cut']}"
    if known.missing(results):
        return "the run has not come to it"
    pages = str(results["conditions"].get("huge_pages", "huge"))
    return "it was not asked for" if pages == "huge" else f"it was not asked for, or wants huge pages ({pages})"


def of_round_trip(trip: dict[str, Any]) -> list[Line]:
    hot = trip["0 ms"]
    noise = estimated(hot["a_a"])
    line = of_estimate("no-op round trip / the same through a C echo program", "back to back", "≤ 1.5", estimated(hot["ratio"]), noise=noise)
    return [line if line.met else with_reason(line, why.of_round_trip(trip))]


def of_deadlines(late: dict[str, Any]) -> list[Line]:
    lines = []
    for name, wanted in (("quiet", "≤ 1"), ("4 hogs", "≤ 10")):
        found, floor = late[name]["p99"], late[name]["sleep_p99_us"]
        because = f"a thread of the same process that only sleeps is itself {floor / 1000:.2f} ms late at its p99"
        ms = stats.Estimate(found["value"] / 1000, found["low"] / 1000, found["high"] / 1000, found["n"])
        lines += [with_reason(of_estimate("deadline overshoot seen in Python, p99", name, wanted, ms, "ms"), because)]
        lines += [plain("early answers", name, "≤ 0", late[name]["early"])]
    return lines


def of_stuck(stuck: dict[str, Any]) -> list[Line]:
    goal, where = "with 1,000 operations stuck on another device", "256 KiB, against none stuck"
    if "1000" not in stuck:
        return [Line(goal, where, "≥ 0.95", None, because="the short form stops at 100")]
    found, still = stuck["1000"], stuck["0"]
    lines = []
    for what, name, wanted in (("rate", "throughput", "≥ 0.95"), ("p99", "p99", "≤ 1.2")):
        line = of_estimate(f"{goal}: {name}", where, wanted, estimated(found[what]), noise=estimated(still[what]))
        lines += [line if line.met else with_reason(line, f"CPU seconds per GB are {found['cpu']['value']:.2f} of those with none stuck")]
    grown = {name: kib / 1024 for name, kib in found["grown_kib"].items()}
    parts = ", ".join(f"{name.replace('_', ' ')} {mib:.1f}" for name, mib in grown.items())
    where = "resident, page tables, kernel stacks"
    return [*lines, plain(f"{goal}: extra memory", where, "≤ 25", sum(grown.values()), "MiB", f"of it {parts} MiB")]


def of_start(start: dict[str, Any]) -> list[Line]:
    noise = estimated(start["a_a"])
    line = of_estimate("start to ready / an empty node script", "same environment", "≤ 1.2", estimated(start["ratio"]), noise=noise)
    return [line if line.met else with_reason(line, why.of_start(start))]


def of_idle(idle: dict[str, Any]) -> list[Line]:
    woken = f"it wakes {idle['wake_ups_per_s']:.2f} times a second"
    bare = f"a node that does nothing has {idle['bare_node_mib']:.1f} MiB here"
    return [
        plain("idle CPU", f"over {idle['idle_s']:.0f} s", "≤ 0.01", idle["idle_cpu_percent"], "%", woken),
        plain("resident at ready, without arena", "the sidecar", "≤ 46", idle["ready_mib"], "MiB", bare),
    ]


def of_growth(growth: dict[str, Any]) -> list[Line]:
    lines = []
    for what, found in growth.items():
        points = found["points"]
        for op, ratio in found["grown"].items():
            costs = [point[op] for point in points]
            cheapest = points[costs.index(min(costs))]["n"]
            because = f"it is {costs[-1]:.1f} µs a block, and {min(costs):.1f} µs at {cheapest:,.0f}"
            where = f"{op} over {what}: {points[-1]['n']:,.0f} / {found['against']}"
            if between := found.get("beside", [])[:-1]:
                seen = [point[op]["value"] for point in between]
                where += f" (at fewer, of {between[0][op]['n']:.0f} rounds each: {min(seen):.2f} to {max(seen):.2f})"
            line = of_estimate("cost per block does not grow", where, "≤ 1.2", estimated(ratio))
            lines += [line if line.met else with_reason(line, because)]
    return lines


TABLE_GOALS: list[tuple[str, str, str, Callable[[dict[str, Any]], list[Line]]]] = [
    ("round trip", "no-op round trip / the same through a C echo program", "≤ 1.5", of_round_trip),
    ("deadline", "deadline overshoot seen in Python, p99", "≤ 1", of_deadlines),
    ("stuck", "with 1,000 operations stuck on another device", "≥ 0.95", of_stuck),
    ("start", "start to ready / an empty node script", "≤ 1.2", of_start),
    ("idle", "idle CPU, resident at ready", "≤ 0.01", of_idle),
    ("growth", "cost per block does not grow", "≤ 1.2", of_growth),
]
