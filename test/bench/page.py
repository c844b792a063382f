"""Results → one HTML file with its plots inside (SVG): python page.py RESULTS.json PAGE.html, in .venv-bench, which has matplotlib."""

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

import report  # noqa: E402
import summary  # noqa: E402

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


def drawn(draw: Callable[[Any], None], width: float, height: float) -> str:
    figure, axes = plt.subplots(figsize=(width, height))
    draw(axes)
    figure.tight_layout()
    into = io.StringIO()
    figure.savefig(into, format="svg")
    plt.close(figure)
    return into.getvalue()[into.getvalue().index("<svg") :]


def ratios(cell: dict[str, Any], what: str) -> str:
    """kvlane over every other arm, with the interval; 1 is a line."""
    found = [(name, summary.ratio(cell, "kvlane", name, what)) for name in cell["arms"] if name != "kvlane"]
    rows = [(name, ratio) for name, ratio in found if ratio is not None]
    if not rows:
        return ""

    def draw(axes: Any) -> None:
        for y, (name, ratio) in enumerate(reversed(rows)):
            color = "#888" if name.endswith("~") else "#1764ab"
            axes.errorbar(ratio.value, y, xerr=[[ratio.value - ratio.low], [ratio.high - ratio.value]], fmt="o", color=color, capsize=3)
        axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
        axes.axvline(1, color="#c33", linewidth=0.8)
        better = "more is better" if what == "rate" else "less is better"
        axes.set_xlabel(f"kvlane / it, {'throughput' if what == 'rate' else 'CPU seconds per GB'} ({better})")

    return drawn(draw, 5.4, 0.9 + 0.27 * len(rows))


def over_sizes(cells: list[dict[str, Any]], title: str) -> str:
    """GB/s of each arm over the block size."""
    names = sorted({name for cell in cells for name in cell["arms"] if not name.endswith("~")})

    def draw(axes: Any) -> None:
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

    return drawn(draw, 8.5, 3.6)


def growth(what: str, points: list[dict[str, float]]) -> str:
    def draw(axes: Any) -> None:
        for name in points[0]:
            if name != "n":
                axes.plot([p["n"] for p in points], [p[name] for p in points], marker="o", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel(what)
        axes.set_ylabel("µs a block")
        axes.legend(fontsize=8)

    return drawn(draw, 5.4, 3)


def body(results: dict[str, Any]) -> list[str]:
    c = results["conditions"]
    parts = [f"<h1>kvlane: npm run bench --{html.escape(results['form'])}</h1>", table(["condition", ""], [[k, str(v)] for k, v in c.items()])]
    if results["form"] == "short":
        parts.append("<p>The short form shows that everything runs. Its figures are of a few tenths of a second each: no judgement.</p>")
    parts += ["<h2>Goals</h2>", table(report.GOAL_HEAD, report.goal_rows(results))]
    parts += ["<h2>Peers</h2>", table(["peer", "", ""], report.peer_rows(results))]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in results["cells"].values():
        if cell["arms"]:
            groups.setdefault((cell["table"], cell["op"], cell["medium"]), []).append(cell)
    for (name, op, medium), cells in groups.items():
        parts.append(f"<h2>{html.escape(f'{name}: {op}, {medium}')}</h2>")
        if len({cell["block_bytes"] for cell in cells}) > 1:
            parts.append(over_sizes(cells, f"{op}, {medium}"))
        for cell in cells:
            parts.append(f"<details><summary>{html.escape(cell['name'])}</summary>{table(report.CELL_HEAD, report.cell_rows(cell))}")
            parts += [ratios(cell, "rate"), ratios(cell, "cpu"), "</details>"]
            parts += [f"<p>{html.escape(arm)}: failed: {html.escape(why)}</p>" for arm, why in cell["failed"].items()]
    for name, found in results["tables"].items():
        parts += [f"<h2>{html.escape(name)}</h2>", table([name, ""], [[key, report.shown(value)] for key, value in found.items()])]
        if name == "growth":
            parts += [growth(what, of_it["points"]) for what, of_it in found.items() if "failed" not in found]
    return parts


def main() -> None:
    results = json.loads(Path(sys.argv[1]).read_text())
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>kvlane bench</title><style>{STYLE}</style>"
    Path(sys.argv[2]).write_text(f"{head}<body>{''.join(body(results))}</body></html>")


if __name__ == "__main__":
    main()
