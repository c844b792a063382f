"""Results → text on the terminal, RESULTS.md (after a full run) and the page.

python report.py build/out/full.json        writes them again, without measuring
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import goals
import plan
import summary
import why
from arms import ARMS, CHECKOUT, PEERS_PYTHON
from results import missing
from stage import HERE

PAGE_S_MAX = 300.0  # some two hundred plots
NOT_ASKED = "no table that ran asked for it"
PEERS = ("nixl-aio", "nixl-uring", "lmcache-fs", "lmcache-disk")


def number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def goal_rows(results: dict[str, Any]) -> list[list[str]]:
    """Only a full run is judged: the others are too short for that."""
    rows = []
    for line in goals.all_lines(results):
        value = number(line.value) if line.value is not None else ""
        interval = f"{number(line.low)} to {number(line.high)}" if line.low is not None and line.high is not None else ""
        noise = f"{number(line.noise.low)} to {number(line.noise.high)}" if line.noise else ""
        verdict = line.verdict
        if results["form"] != "full" and line.value is not None:
            verdict = "not judged"
        elif not line.met and results["form"] == "full":
            verdict = f"**{verdict}**"
        rows.append([line.goal, line.where, f"{line.wanted} {line.unit}".strip(), value, interval, str(line.pairs or ""), noise, verdict])
    return rows


def peer_rows(results: dict[str, Any]) -> list[list[str]]:
    rows = []
    absent, planned = set(missing(results)), plan.full()
    for name in PEERS:
        facts: dict[str, Any] = {}
        to_come = sum(cell.name in absent and name in cell.arms for cell in planned)
        error = none = f"{NOT_ASKED}; {to_come} that will have not run yet" if to_come else NOT_ASKED
        for cell in results["cells"].values():
            facts = cell["arms"].get(name, {}).get("facts", facts)
            error = cell["failed"].get(name, error)
        ran = f"run, version {facts['version']}" if facts else f"not run: {error}" if error == none else f"failed: {error}"
        rows.append([name, ARMS[name].about, f"{ran}; but elsewhere: {error}" if facts and error != none else ran])
    return rows


def cell_rows(cell: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in cell["arms"]:
        found = summary.figures(cell, name)
        if not found:
            continue
        ratio = summary.ratio(cell, summary.base(cell), name)
        rows.append(
            [
                name,
                f"{found['gb_per_s']:.2f}" if found["gb_per_s"] else "",
                f"{found['rate']:,.0f}",
                f"{ratio.value:.3f} ({ratio.low:.2f} to {ratio.high:.2f})" if ratio and name != summary.base(cell) else "",
                f"{found['cpu']:.3f}",
                f"{found['task_p50_us']:,.0f}" if "task_p50_us" in found else "",
                f"{found['task_p99_us']:,.0f}" if "task_p99_us" in found else "",
            ]
        )
    return rows


CELL_HEAD = ["arm", "GB/s", "blocks/s", "the first / it (95 %)", "CPU s/GB", "task p50 µs", "task p99 µs"]
GOAL_HEAD = ["goal", "where", "wanted", "measured", "95 %", "pairs", "A/A", "judgement"]


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    whole = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(" ".join(word.split()).replace("|", "\\|") for word in row) + " |" for row in whole]


def text_of(results: dict[str, Any]) -> str:
    c = results["conditions"]
    absent = missing(results)
    state = f" **Not complete: {len(absent)} of {len(results['planned'])} tables are missing.**" if absent else ""
    lines = ["# Results", "", f"Of `npm run bench -- --{results['form']}`, {c['began']}, written by report.py.{state}", "", "## Conditions", ""]
    lines += [f"- {name}: {value}" for name, value in condition_rows(results)]
    lines += [f"- {note}" for note in notes(results)] + [""]
    lines += ["## Goals", "", JUDGEMENT[results["form"] == "full"], "", *markdown(GOAL_HEAD, goal_rows(results)), ""]
    lines += ["## Peers", "", *markdown(["peer", "", ""], peer_rows(results)), ""]
    for cell in results["cells"].values():
        lines += [f"### {cell['name']}", ""]
        if cell["arms"]:
            lines += [circumstances(cell), "", *markdown(CELL_HEAD, cell_rows(cell))]
        for line in profile_lines(cell):
            lines += ["", line]
        lines += ["", *(f"- {name}: failed: {' '.join(error.split())}" for name, error in cell["failed"].items()), ""]
    if absent:
        lines += ["### Not measured", "", *(f"- {name}" for name in absent), ""]
    for name, table in results["tables"].items():
        lines += [f"### {name}", "", *(f"- {key}: {shown(value)}" for key, value in table.items()), ""]
    return "\n".join(lines) + "\n"


def condition_rows(results: dict[str, Any]) -> list[list[str]]:
    c = results["conditions"]
    rows = [[name.replace("_", " "), str(value)] for name, value in c.items() if name != "load_average"]
    rows += [[name, str(about)] for name, about in results.get("media", {}).items()]
    parts = ", ".join(f"{p.get('commit', '')} at load average {p['load_average'][0]}" for p in results["parts"])
    return [*rows, ["parts", f"{len(results['parts'])}: {parts}"]]


def circumstances(cell: dict[str, Any]) -> str:
    stolen = f", {cell['stolen_s']:.1f} s stolen by other guests" if cell["stolen_s"] >= 0.1 else ""
    return f"{cell['rounds']} rounds from {cell['began']}, all cores {cell['machine_busy']:.0%} busy{stolen}"


def profile_lines(cell: dict[str, Any]) -> list[str]:
    return [f"CPU time of {name}: {why.by_thread(cell, name)}" for name, arm in cell["arms"].items() if arm.get("profile")]


JUDGEMENT = (
    "Not judged: a run of this form has too little of it for that; the short one only shows that everything runs.",
    "A ratio is the median of those of the rounds (of a p99: over all rounds together); a round goes through all arms of its table "
    "and back (A,B,C,C,B,A), and the next begins with another. The 95 % are a bootstrap over the rounds. A/A: the same for the "
    "product against itself (start: the empty script). Judged on file systems with a device, control cost on tmpfs, as a difference; "
    "else tmpfs shows what the software costs per byte. What stands behind a missed goal was measured beside it.",
)


def notes(results: dict[str, Any]) -> list[str]:
    """What a reader must know to read the ratios rightly."""
    found = [
        "both sides of a ratio on the page size that is said with the table, but for the tables called pages, which compare those; on 4 "
        "KiB pages kvlane loads by way of private huge pages, as it does for users. Data made fresh, read and written with O_DIRECT, "
        "which tmpfs has not",
        "fio's buffers are a few MiB and stay in the cache; the others go round their arena. On RAM media that flatters fio: see the floor",
        "fio is a new process in each slice, of which only its running time counts; the others do a little of the same first, uncounted",
        "tasks of Python arms are answered in the order in which they were sent, those of Node and the floor as they come",
    ]
    if results["form"] == "full":
        found.append(
            "peers, libaio and io_uring: blocks of 64 KiB and 1 MiB; kvlane's engine aio: those, and in control. No fio stores new blocks. "
            "Peers not on tmpfs, LMCache not over old blocks, which it keeps. Node: 64 KiB, 1 and 4 MiB, and on tmpfs look-ups. One task "
            "outstanding: loads and look-ups. Several sidecars: loads of 1 MiB. Stuck calls beside it: loads of 256 KiB"
        )
    if results["conditions"].get("thp") == "always":
        found.append("transparent huge pages are set to always, so that fio's and Node's small pages may be huge ones")
    if (pages := results["conditions"].get("huge_pages", "huge")) != "huge":
        found.append(f"no huge pages, so everybody is on small ones ({pages}): expect wide intervals")
    if cut := results.get("cut"):
        found.append(f"cut short {cut}")
    return found


def shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict) and set(value) == {"value", "low", "high", "n"}:
        return f"{number(value['value'])} ({number(value['low'])} to {number(value['high'])})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(each)}" for key, each in value.items())
    return "; ".join(map(shown, value)) if isinstance(value, list) else str(value)


def write_all(results: dict[str, Any], out: Path, form: str) -> bool:
    """Text, RESULTS.md and page; false if there is no page."""
    text = text_of(results)
    (out / f"{form}.md").write_text(text)
    if form == "full":
        keep(results, text)
    print(text)
    return page(results, out / f"{form}.html")


def keep(results: dict[str, Any], text: str) -> None:
    """RESULTS.md, once everything that is judged is there, and the peers: a run that was cut before that does not replace a whole one."""
    absent = [name for name in missing(results) if name in plan.names_for_goals()]
    if any(line.value is not None and not line.enough for line in goals.all_lines(results)):
        print("bench: RESULTS.md stays as it was: this run has too few rounds to be judged", file=sys.stderr)
    elif absent:
        print(f"bench: RESULTS.md stays as it was: {len(absent)} tables of goals and peers are missing, the first: {absent[0]}", file=sys.stderr)
    else:
        (HERE / "RESULTS.md").write_text(text)


def page(results: dict[str, Any], html: Path) -> bool:
    """Drawn by the venv that has matplotlib; without it there is everything but the page, and it says so."""
    env = {**os.environ, "PYTHONPATH": str(CHECKOUT / "clients" / "python" / "src")}
    try:
        command = [str(PEERS_PYTHON), str(HERE / "page.py"), str(html)]
        known = json.dumps(results)  # with the ratios that the text has computed
        done = subprocess.run(command, input=known, capture_output=True, text=True, timeout=PAGE_S_MAX, check=False, env=env)
        said = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except (OSError, subprocess.TimeoutExpired) as error:
        said = [str(error)]
    print(f"bench: no page: {said[0]}" if said else f"bench: {html}", file=sys.stderr)
    return not said


if __name__ == "__main__":
    given = Path(sys.argv[1])
    known = json.loads(given.read_text())
    write_all(known, given.parent, known["form"])
