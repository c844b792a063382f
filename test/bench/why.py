"""What was measured beside a goal that is missed, in the same rounds: whose threads used the CPU, how busy the cores were, how much
of the way the plain C++ programs get. Facts side by side, no causes: those are the reader's to find."""

from __future__ import annotations

from typing import Any

import stats
import summary

SHARE_MIN = 0.05  # of the CPU time: what is less is not named


def of_cell(cell: dict[str, Any], ours: str, theirs: str, what: str) -> str:
    parts = [spending(cell, ours, theirs), *([busy(cell, ours, theirs)] if what != "cpu" else []), floors(cell, ours, theirs, what)]
    return "; ".join(filter(None, parts))


def spending(cell: dict[str, Any], ours: str, theirs: str) -> str:
    mine, other = summary.figures(cell, ours), summary.figures(cell, theirs)
    unit = "CPU s per million names" if cell["op"] == "lookup" else "CPU s per GB"
    return f"it takes {mine['cpu']:.3f} {unit} ({by_thread(cell, ours)}), {theirs} {other['cpu']:.3f}"


def by_thread(cell: dict[str, Any], name: str) -> str:
    """Of all its CPU time, by thread and side."""
    spent = cell["arms"][name].get("profile") or {}
    whole = sum(spent.values())
    if whole <= 0:
        return "no profile of it"
    shares = sorted(((seconds / whole, thread) for thread, seconds in spent.items()), reverse=True)
    named = [(share, thread) for share, thread in shares if share >= SHARE_MIN]
    rest = 1 - sum(share for share, _ in named)
    return ", ".join(f"{thread} {share:.0%}" for share, thread in [*named, *([(rest, "all others")] if rest >= 0.005 else [])])


def busy(cell: dict[str, Any], *names: str) -> str:
    said = []
    for name in names:
        found = [s["busy"] for s in cell["arms"][name]["slices"] if s.get("busy") is not None]
        if found:
            said.append(f"{stats.quantile(found, 0.5):.0%} busy during {name}")
    return f"the cores were {', '.join(said)}" if said else ""


def floors(cell: dict[str, Any], ours: str, theirs: str, what: str) -> str:
    """What the plain programs of the same cell reach of it: how much is the product's own, and how much is not."""
    said = []
    for name in cell["arms"]:
        if name.startswith("floor") and name not in (ours, theirs) and (found := summary.ratio(cell, name, theirs, what)):
            said.append(f"{name} {found.value:.2f}")
    return f"beside {theirs} reach {', '.join(said)}" if said else ""


def of_control(cell: dict[str, Any]) -> str:
    mine = summary.figures(cell, "kvlane")
    tasks = mine["rate"] / cell["task_blocks"]
    cpu_us = mine["cpu"] * cell["block_bytes"] / 1e9 * 1e6
    return f"a block takes {cpu_us:.1f} µs of CPU time in {tasks:,.0f} tasks a second: {by_thread(cell, 'kvlane')}; {busy(cell, 'kvlane')}"


def of_round_trip(trip: dict[str, Any]) -> str:
    hot = trip["0 ms"]
    said = [
        f"of {hot['p50_us']:.0f} µs the sidecar's process computes {hot['cpu_us']:.0f}; the echo's {hot['echo_p50_us']:.0f} µs "
        f"hold {hot['echo_cpu_us']:.0f}"
    ]
    for name, placed in trip.items():
        if name.startswith("0 ms, "):  # where the scheduler had no choice
            said.append(f"on {name[6:]} {placed['p50_us']:.0f} beside {placed['echo_p50_us']:.0f} µs, {placed['ratio']['value']:.2f} times")
    return "; ".join(said)


def of_start(start: dict[str, Any]) -> str:
    ready, node = start["ready_ms"]["value"], start["node_ms"]["value"]
    cpu, node_cpu = start["ready_cpu_ms"], start["node_cpu_ms"]
    said = f"of {ready:.1f} ms to ready, {cpu:.1f} are CPU time; an empty script takes {node:.1f} ms, {node_cpu:.1f} of them CPU time"
    steps = [("with the addon loaded", "node_and_addon_ms"), ("with the bundle's code read too", "node_addon_and_code_ms")]
    known = [f"{step} {start[name]['value']:.1f}" for step, name in steps if name in start]
    return "; ".join([said, *([f"{', '.join(known)}; to run it up to ready is the rest"] if known else [])])
