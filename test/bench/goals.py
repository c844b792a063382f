"""What the product is held to: each goal, where in the results it is measured, and whether it is met.

A ratio is met by its median. How far to trust it says the interval, and the A/A beside it, which is the same arm twice: where
that is wider than AA_WIDTH_MAX the machine was too restless for a goal so fine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import stats
import summary

AA_WIDTH_MAX = 0.06
MIB, KIB = 1 << 20, 1 << 10
Results = dict[str, Any]


@dataclass(frozen=True)
class Line:
    goal: str
    where: str
    wanted: str
    value: float
    low: float
    high: float
    met: bool
    unit: str = ""
    noise: str = ""  # of the A/A beside it


def cells(results: Results, table: str, op: str, *sizes: int, **also: Any) -> Iterator[dict[str, Any]]:
    for cell in results["cells"].values():
        of_it = cell["table"] == table and cell.get("op") == op and (not sizes or cell["block_bytes"] in sizes)
        if of_it and all(cell.get(name) == value for name, value in also.items()):
            yield cell


def holds(value: float, wanted: str) -> bool:
    sign, number = wanted.split()
    return {"≥": value >= float(number), "≤": value <= float(number), "<": value < float(number), ">": value > float(number)}[sign]


def where_of(cell: dict[str, Any]) -> str:
    size = cell["block_bytes"]
    return f"{cell['medium']}, {f'{size // MIB} MiB' if size >= MIB else f'{size // KIB} KiB'}, {cell['pages']} pages"


def noise_of(cell: dict[str, Any], what: str) -> str:
    again = summary.ratio(cell, "kvlane", "kvlane~", what)
    if again is None:
        return ""
    return f"{again.low:.2f} to {again.high:.2f}" + (" (restless)" if again.high - again.low > AA_WIDTH_MAX else "")


def ratios(goal: str, wanted: str, ours: str, theirs: str, what: str = "rate") -> Callable[[dict[str, Any]], Line | None]:
    def of(cell: dict[str, Any]) -> Line | None:
        found = summary.ratio(cell, ours, theirs, what)
        if found is None:
            return None
        return Line(goal, where_of(cell), wanted, found.value, found.low, found.high, holds(found.value, wanted), "", noise_of(cell, what))

    return of


def control(cell: dict[str, Any]) -> Line | None:
    """What the product's median task takes longer than the floor's, in microseconds for each block."""
    if not {"kvlane", "floor-verify"} <= set(cell["arms"]):
        return None
    n = cell["task_blocks"]
    ours, floor = (summary.rounds_of(cell["arms"][name]) for name in ("kvlane", "floor-verify"))
    both = [(a["task_us"], b["task_us"]) for a, b in zip(ours, floor, strict=False) if a["task_us"] and b["task_us"]]
    if not both:
        return None
    found = stats.median([(stats.quantile(a, 0.5) - stats.quantile(b, 0.5)) / n for a, b in both])
    wanted = {1: "≤ 150", 64: "≤ 3", 1024: "≤ 1"}[n]
    blocks = "1 block" if n == 1 else f"{n} blocks"
    where = f"{blocks} of 4 KiB from tmpfs, above the floor"
    return Line("control cost, hot", where, wanted, found.value, found.low, found.high, holds(found.value, wanted), "µs a block")


def plain(goal: str, where: str, wanted: str, value: float, unit: str = "") -> Line:
    return Line(goal, where, wanted, value, value, value, holds(value, wanted), unit)


def estimate(goal: str, where: str, wanted: str, found: dict[str, float]) -> Line:
    return Line(goal, where, wanted, found["value"], found["low"], found["high"], holds(found["value"], wanted))


def all_lines(results: Results) -> list[Line]:
    lines: list[Line | None] = []

    def each(of: Callable[[dict[str, Any]], Line | None], *where: Any, **also: Any) -> None:
        lines.extend(of(cell) for cell in cells(results, *where, **also) if cell["medium"] != "tmpfs")

    for sizes, wanted in (((MIB, 4 * MIB), "≥ 0.97"), ((256 * KIB,), "≥ 0.95"), ((64 * KIB,), "≥ 0.90")):
        each(ratios("load / fio psync of the same depth", wanted, "kvlane", "fio-psync"), "load", "load", *sizes)
    each(ratios("store over old blocks / fio overwrite", "≥ 0.92", "kvlane", "fio-psync"), "store", "again", MIB, 4 * MIB)
    each(ratios("store new / C++ doing the same", "≥ 0.97", "kvlane", "floor-new-verify"), "store", "new", MIB, 4 * MIB)
    each(ratios("huge-page arena / 4 KiB arena, load", "≥ 1.8", "kvlane", "kvlane-4k-direct"), "pages", "load", MIB, medium="disk")
    for op in ("load", "new", "again"):
        table_of_op = "load" if op == "load" else "store"
        for naive, table, pages in (("threads", table_of_op, "huge"), ("node", "naive", "4k"), ("threads", "naive", "4k")):
            for what, wanted in (("rate", "> 1"), ("p99", "< 1"), ("cpu", "< 1")):
                name = {"rate": "throughput", "p99": "p99", "cpu": "CPU per GB"}[what]
                each(ratios(f"naive: {op}, {name} / {naive}", wanted, "kvlane", naive, what), table, op, pages=pages)
    each(ratios("CPU per GB / fio psync", "≤ 1.05", "kvlane", "fio-psync", "cpu"), "load", "load", MIB, 4 * MIB)
    checksum = ratios("checksum on / off, throughput (the floor's: the product always verifies)", "≥ 0.95", "floor-verify", "floor")
    each(checksum, "load", "load", MIB, 4 * MIB)
    lines += [control(cell) for cell in cells(results, "control", "load")]
    lines += of_tables(results["tables"])
    return [line for line in lines if line is not None]


def of_tables(tables: dict[str, Any]) -> list[Line]:
    found = {name: table for name, table in tables.items() if "failed" not in table}
    lines = []
    if trip := found.get("round trip"):
        lines += [estimate("no-op round trip / the same through a C echo program", "back to back", "≤ 1.5", trip["0 ms"]["ratio"])]
    if late := found.get("deadline"):
        for name, wanted in (("quiet", "≤ 1"), ("4 hogs", "≤ 10")):
            lines += [plain("deadline overshoot seen in Python, p99", name, wanted, late[name]["p99_us"] / 1000, "ms")]
            lines += [plain("early answers", name, "≤ 0", late[name]["early"])]
    if stuck := found.get("stuck", {}).get("1000"):
        goal, where = "with 1,000 operations stuck on another device", "256 KiB, against none stuck"
        lines += [estimate(f"{goal}: throughput", where, "≥ 0.95", stuck["rate"]), estimate(f"{goal}: p99", where, "≤ 1.2", stuck["p99"])]
        lines += [plain(f"{goal}: extra memory", "resident, page tables, kernel stacks", "≤ 25", sum(stuck["grown_kib"].values()) / 1024, "MiB")]
    if start := found.get("start"):
        lines += [estimate("start to ready / an empty node script", "same environment", "≤ 1.2", start["ratio"])]
    if idle := found.get("idle"):
        lines += [plain("idle CPU", f"over {idle['idle_s']:.0f} s", "≤ 0.01", idle["idle_cpu_percent"], "%")]
        lines += [plain("resident at ready, without arena", "the sidecar", "≤ 46", idle["ready_mib"], "MiB")]
    if growth := found.get("growth"):
        for what, points in growth.items():
            for op in (name for name in points[0] if name != "n"):
                costs = [point[op] for point in points]
                where = f"{op} over {what}, 1 to {points[-1]['n']:,.0f}: last / least"
                lines += [plain("cost per block does not grow", where, "≤ 1.2", costs[-1] / min(costs))]
    return lines
