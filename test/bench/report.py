"""Results → text on the terminal, RESULTS.md (after a full run) and the page.

    python report.py build/out/full.json        writes them again, without measuring
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import goals
import summary
from arms import ARMS, PEERS_PYTHON
from stage import HERE

PAGE_S_MAX = 120.0  # some dozens of plots
PEERS = ("nixl-aio", "nixl-uring", "lmcache-fs", "lmcache-disk")


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def goal_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for line in goals.all_lines(results):
        interval = f"{number(line.low)} to {number(line.high)}" if line.low != line.high else ""
        verdict = "met" if line.met else "**not met**"
        rows.append([line.goal, line.where, f"{line.wanted} {line.unit}", number(line.value), interval, line.noise, verdict])
    return rows


def peer_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in PEERS:
        facts: dict[str, Any] = {}
        why = "no table of this run asked for it"
        for cell in results["cells"].values():
            facts = cell["arms"].get(name, {}).get("facts", facts)
            why = cell["failed"].get(name, why)
        rows.append([name, ARMS[name].about, f"run, version {facts['version']}" if facts else f"failed: {why}"])
    return rows


def cell_rows(cell: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in cell["arms"]:
        found = summary.figures(cell, name)
        if not found:
            continue
        ratio = summary.ratio(cell, "kvlane", name)
        rows.append(
            [
                name,
                f"{found['gb_per_s']:.2f}" if found["gb_per_s"] else "",
                f"{found['rate']:,.0f}",
                f"{ratio.value:.3f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio and name != "kvlane" else "",
                f"{found['cpu']:.3f}",
                f"{found['task_p50_us']:,.0f}" if "task_p50_us" in found else "",
                f"{found['task_p99_us']:,.0f}" if "task_p99_us" in found else "",
            ]
        )
    return rows


CELL_HEAD = ["arm", "GB/s", "blocks/s", "kvlane / it (95 %)", "CPU s/GB", "task p50 µs", "task p99 µs"]
GOAL_HEAD = ["goal", "where", "wanted", "measured", "95 %", "A/A", ""]


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def text_of(results: dict[str, Any]) -> str:
    c = results["conditions"]
    state = "" if results.get("complete") else " **Not complete: the run was cut short.**"
    lines = ["# Results", "", f"Of `npm run bench -- --{results['form']}`, {c['began']}, written by report.py.{state}", "", "## Conditions", ""]
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in c.items() if name != "load_average"]
    lines += [f"- {name}: {about}" for name, about in results.get("media", {}).items()]
    lines += [f"- parts: {len(results['parts'])}, load averages at their beginning {', '.join(p['load_average'][0] for p in results['parts'])}"]
    lines += ["- both sides of a ratio on the same page size, said with each table; data made fresh, read and written with O_DIRECT", ""]
    lines += ["## Goals", "", *markdown(GOAL_HEAD, goal_rows(results)), "", "## Peers", "", *markdown(["peer", "", ""], peer_rows(results)), ""]
    for cell in results["cells"].values():
        lines += [f"### {cell['name']}", ""]
        if cell["arms"]:
            lines += [f"{cell['rounds']} rounds from {cell['began']}, all cores {cell['machine_busy']:.0%} busy", ""]
            lines += markdown(CELL_HEAD, cell_rows(cell))
        for name, arm in cell["arms"].items():
            if spent := arm.get("profile"):
                parts = sorted(spent.items(), key=lambda part: -part[1])
                shares = ", ".join(f"{thread} {seconds / sum(spent.values()):.0%}" for thread, seconds in parts)
                lines += ["", f"CPU time of {name} by thread: {shares}"]
        lines += ["", *(f"- {name}: failed: {why}" for name, why in cell["failed"].items()), ""]
    for name, table in results["tables"].items():
        lines += [f"### {name}", "", *(f"- {key}: {shown(value)}" for key, value in table.items()), ""]
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict) and set(value) == {"value", "low", "high", "n"}:
        return f"{number(value['value'])} ({number(value['low'])} to {number(value['high'])})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(each)}" for key, each in value.items())
    return "; ".join(map(shown, value)) if isinstance(value, list) else str(value)


def write_all(results: dict[str, Any], out: Path, form: str) -> None:
    text = text_of(results)
    (out / f"{form}.md").write_text(text)
    if form == "full":
        (HERE / "RESULTS.md").write_text(text)
    print(text)
    page(out / f"{form}.json")


def page(path: Path) -> None:
    """Drawn by the venv that has matplotlib; without it there is everything but the page, and it says so."""
    html = path.with_suffix(".html")
    try:
        command = [str(PEERS_PYTHON), str(HERE / "page.py"), str(path), str(html)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PAGE_S_MAX, check=False)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    print(f"bench: no page: {said[0]}" if said else f"bench: {html}", file=sys.stderr)


if __name__ == "__main__":
    given = Path(sys.argv[1])
    known = json.loads(given.read_text())
    write_all(known, given.parent, known["form"])
