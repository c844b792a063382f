"""Results → one HTML file with its plots inside (SVG): python page.py PAGE.html <RESULTS.json, in .venv-bench, which has matplotlib."""

from __future__ import annotations

import html
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text: small, and found by a search
from matplotlib import pyplot as plt  # noqa: E402

import goals  # noqa: E402
import report  # noqa: E402
import summary  # noqa: E402
from results import missing  # noqa: E402

STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0 1.5rem;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:.15rem .6rem;text-align:left}
svg{max-width:100%;height:auto}.no{color:#b00;font-weight:600}details{margin:.3rem 0}summary{cursor:pointer}
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    def cell(word: str, tag: str) -> str:
        mark = ' class="no"' if word.startswith("**") else ""
        return f"<{tag}{mark}>{html.escape(word.strip('*'))}</{tag}>"

    lines = ["".join(cell(word, "th") for word in head), *("".join(cell(word, "td") for word in row) for row in rows)]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


LEFT_INCHES, BELOW_INCHES = 1.6, 0.55  # set by hand: to have them computed takes as long as drawing


def drawn(draw: Callable[[Any], None], width: float, height: float, left: float = LEFT_INCHES, right: float = 0.2) -> str:
    figure = plt.figure(figsize=(width, height))
    figure.subplots_adjust(left=left / width, right=1 - right / width, bottom=BELOW_INCHES / height, top=1 - 0.3 / height, wspace=0.08)
    draw(figure)
    into = io.StringIO()
    figure.savefig(into, format="svg")
    plt.close(figure)
    return into.getvalue()[into.getvalue().index("<svg") :]


def ratios(cell: dict[str, Any]) -> str:
    """kvlane over every other arm, with the interval; 1 is a line."""
    base = summary.base(cell)
    names = [name for name in cell["arms"] if name != base and summary.ratio(cell, base, name)]
    if not names:
        return ""

    def draw(figure: Any) -> None:
        for place, (what, title) in enumerate((("rate", "throughput (more is better)"), ("cpu", "CPU seconds per GB (less is better)"))):
            axes = figure.add_subplot(1, 2, place + 1)
            for y, name in enumerate(reversed(names)):
                if ratio := summary.ratio(cell, base, name, what):
                    color = "#888" if name.endswith("~") else "#1764ab"
                    error = [[ratio.value - ratio.low], [ratio.high - ratio.value]]
                    axes.errorbar(ratio.value, y, xerr=error, fmt="o", color=color, capsize=3)
            axes.set_yticks(range(len(names)), list(reversed(names)) if place == 0 else [""] * len(names))
            axes.axvline(1, color="#c33", linewidth=0.8)
            axes.set_xlabel(f"{base} / it, {title}")

    return drawn(draw, 10.5, 0.95 + 0.27 * len(names))


def over_sizes(cells: list[dict[str, Any]], title: str) -> str:
    """GB/s of each arm over the block size."""
    names = sorted({name for cell in cells for name in cell["arms"] if not name.endswith("~")})

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name in names:
            points = [(cell["block_bytes"] / 1024, summary.figures(cell, name)) for cell in cells if name in cell["arms"]]
            points = [(x, figures) for x, figures in points if figures]
            wide = 2.5 if name == "kvlane" else 1.2
            xs, ys = [x for x, _ in points], [figures["gb_per_s"] for _, figures in points]
            axes.plot(xs, ys, marker="o", markersize=3, linewidth=wide, label=name)
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("block, KiB")
        axes.set_ylabel("GB/s")
        axes.set_title(title, fontsize=10)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))

    return drawn(draw, 8.5, 3.6, 0.7, 1.8)


def colour(line: goals.Line, judged: bool) -> str:
    return "#888" if not (judged and line.enough) else "#1764ab" if line.met else "#c33"


def overview(lines: list[goals.Line], judged: bool) -> str:
    """Each goal that has a bound above 0: how far on the good side of it, as a factor; 1 is the goal. Grey where nothing is judged."""
    rows = []
    for line in lines:
        bound = float(line.wanted.split()[1])
        if line.value is None or bound == 0 or line.value <= 0:
            continue
        low, high = (line.value, line.value) if line.low is None or line.high is None else (line.low, line.high)
        more = line.wanted[0] in "≥>"
        better = [v / bound if more else bound / max(v, 1e-9) for v in ((line.value, low, high) if more else (line.value, high, low))]
        rows.append((f"{line.goal} ({line.where})" if line.where else line.goal, colour(line, judged), better))
    if not rows:
        return ""

    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for y, (_, color, (value, low, high)) in enumerate(reversed(rows)):
            left, right = max(value - low, 0), max(high - value, 0)
            axes.errorbar(value, y, xerr=[[left], [right]], fmt="o", color=color, capsize=2, markersize=4)
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)], fontsize=7)
        axes.axvline(1, color="#333", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("times better than the goal (left of 1: missed)")

    return drawn(draw, 12, 0.95 + 0.19 * len(rows), 6.5)


def growth(what: str, points: list[dict[str, float]]) -> str:
    def draw(figure: Any) -> None:
        axes = figure.add_subplot()
        for name in points[0]:
            if name != "n":
                axes.plot([p["n"] for p in points], [p[name] for p in points], marker="o", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(what)
        axes.set_ylabel("µs a block")
        axes.legend(fontsize=8)

    return drawn(draw, 5.4, 3, 0.8)


def body(results: dict[str, Any]) -> list[str]:
    absent = missing(results)
    parts = [f"<h1>kvlane: npm run bench --{html.escape(results['form'])}</h1>", table(["condition", ""], report.condition_rows(results))]
    if absent:
        parts.append(f"<p class=no>Not complete: {len(absent)} of {len(results['planned'])} tables are missing; they are named at the end.</p>")
    parts.append(f"<p>{html.escape(report.JUDGEMENT[results['form'] == 'full'])}</p>")
    parts += [f"<p>{html.escape(note)}</p>" for note in report.notes(results)]
    parts += ["<h2>Goals</h2>", table(report.GOAL_HEAD, report.goal_rows(results))]
    parts.append(overview(goals.all_lines(results), judged=results["form"] == "full"))
    parts += ["<h2>Peers</h2>", table(["peer", "", ""], report.peer_rows(results))]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in results["cells"].values():
        groups.setdefault((cell["table"], cell["op"], cell["medium"]), []).append(cell)
    for (name, op, medium), cells in groups.items():
        parts.append(f"<h2>{html.escape(f'{name}: {op}, {medium}')}</h2>")
        if len({cell["block_bytes"] for cell in cells if cell["arms"]}) > 1:
            parts.append(over_sizes(cells, f"{op}, {medium}"))
        for cell in cells:
            parts.append(f"<details><summary>{html.escape(cell['name'])}</summary>{table(report.CELL_HEAD, report.cell_rows(cell))}")
            about = [*([report.circumstances(cell)] if cell["arms"] else []), *report.profile_lines(cell)]
            parts += [ratios(cell), *(f"<p>{html.escape(line)}</p>" for line in about), "</details>"]
            parts += [f"<p>{html.escape(arm)}: failed: {html.escape(why)}</p>" for arm, why in cell["failed"].items()]
    for name, found in results["tables"].items():
        parts += [f"<h2>{html.escape(name)}</h2>", table([name, ""], [[key, report.shown(value)] for key, value in found.items()])]
        if name == "growth":
            parts += [growth(what, of_it["points"]) for what, of_it in found.items() if "failed" not in found]
    if absent:
        parts += ["<h2>Not measured</h2>", table(["table"], [[name] for name in absent])]
    return parts


def main() -> None:
    results = json.load(sys.stdin)
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>kvlane bench</title><style>{STYLE}</style>"
    Path(sys.argv[1]).write_text(f"{head}<body>{''.join(body(results))}</body></html>")


if __name__ == "__main__":
    main()
