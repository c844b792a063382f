"""`npm run bench`: measures kvlane beside everything that does the same work, and writes JSON, a page with plots, and RESULTS.md.

    npm run bench -- --short             under 5 minutes, judged only by "it ran"
    npm run bench -- --full              everything; --minutes N stops after N, and the next --full goes on where it stopped
    npm run bench -- --only kvlane,fio-psync/load       arms/tables, while working on something: any part of their names

Everything is interleaved (cell.py), and every ratio is one of the same rounds (stats.py). run.sh has set up before this runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cell as cells
import host
import media
import plan
import tables
from arms import CHECKOUT, HERE
from report import write_all
from stage import Stage

MEDIUM_MIB = 3072  # data sets of all arms of a cell, and what a slice of new blocks makes
HUGE_MIB = {"short": 1536, "full": 1664, "only": 1664}  # an arena for each arm of a cell, and fio's buffers


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="npm run bench --", usage=__doc__)
    p.add_argument("--short", action="store_true")
    p.add_argument("--full", action="store_true")
    p.add_argument("--only", metavar="ARMS/TABLES", help="parts of names, joined by commas; either side may be empty")
    p.add_argument("--rounds", type=int, help="instead of the plan's")
    p.add_argument("--minutes", type=float, default=1e9, help="stop when they are over, between two tables")
    p.add_argument("--fresh", action="store_true", help="do not go on with an unfinished full run")
    p.add_argument("--disk", type=Path, default=Path(os.environ.get("KVLANE_BENCH_DISK", "/var/tmp")), help="where the disk's files go")
    p.add_argument("--out", type=Path, default=HERE / "build" / "out")
    o = p.parse_args()
    o.form = "full" if o.full and not o.only else "short" if not o.only else "only"
    return o


def chosen(o: argparse.Namespace) -> tuple[list[cells.Cell], list[str]]:
    """The cells and the names of the other tables."""
    if not o.only:
        return (plan.full() if o.full else plan.short()), list(tables.TABLES)
    arms, _, names = o.only.partition("/")
    wanted_arms = [word for word in arms.split(",") if word]
    wanted = [word for word in names.split(",") if word]
    kept = []
    for cell in plan.short() if o.short else plan.full():
        if wanted and not any(word in cell.name for word in wanted):
            continue
        some = tuple(arm for arm in cell.arms if not wanted_arms or any(word in arm for word in wanted_arms))
        if some:
            kept.append(replace(cell, arms=some))
    others = [] if wanted_arms else [name for name in tables.TABLES if not wanted or any(word in name for word in wanted)]
    return kept, others


class Results:
    """What is known so far, on disk after every table: a run that is cut short loses nothing."""

    def __init__(self, path: Path, fresh: bool, conditions: dict[str, Any]) -> None:
        self.path = path
        self.known: dict[str, Any] = {"conditions": conditions, "parts": [], "cells": {}, "tables": {}}
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(path.read_text())
            if not fresh and before["conditions"]["commit"] == conditions["commit"] and not before.get("complete"):
                self.known = before
        self.known["parts"].append(conditions)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.known))
        new.rename(self.path)


def one_cell(cell: cells.Cell, o: argparse.Namespace, pages: str, results: Results) -> int:
    """1 if it failed: that is shown, and the next one goes on."""
    cell = replace(cell, rounds=o.rounds or cell.rounds, pages=cell.pages if pages == "huge" else "4k")
    if cell.name in results.known["cells"]:
        return 0
    print(f"{time.strftime('%H:%M:%S')} {cell.name}", file=sys.stderr, flush=True)
    try:
        with media.medium(cell.medium, MEDIUM_MIB, o.disk) as medium:
            results.known.setdefault("media", {})[cell.medium] = medium.about
            results.known["cells"][cell.name] = cells.run(cell, medium)
            return 0
    except Exception as error:
        print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
        results.known["cells"][cell.name] = {"name": cell.name, "table": cell.table, "arms": {}, "failed": {"all": str(error)}}
        return 1


def one_table(name: str, o: argparse.Namespace, pages: str, results: Results) -> int:
    if name in results.known["tables"]:
        return 0
    print(f"{time.strftime('%H:%M:%S')} {name}", file=sys.stderr, flush=True)
    try:
        results.known["tables"][name] = tables.TABLES[name](Stage(o.form, o.disk, pages, o.rounds))
        return 0
    except Exception as error:
        print(f"  failed: {type(error).__name__}: {error}", file=sys.stderr)
        results.known["tables"][name] = {"failed": f"{type(error).__name__}: {error}"}
        return 1


def leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)  # through every `finally`: children, mounts, huge pages


def main() -> int:
    o = options()
    signal.signal(signal.SIGTERM, leave)
    if os.geteuid() != 0:
        print("bench: it mounts file systems of its own, so it wants root", file=sys.stderr)
        return 2
    todo, others = chosen(o)
    if not todo and not others:
        print(f"bench: nothing is called {o.only}; arms and tables stand in plan.py and tables.py", file=sys.stderr)
        return 2
    results = Results(o.out / f"{o.form}.json", o.form != "full" or o.fresh, host.conditions(CHECKOUT))
    results.known["form"] = o.form
    end = time.monotonic() + o.minutes * 60
    failures = 0
    with host.huge_pages(HUGE_MIB[o.form]) as pages:
        results.known["conditions"]["huge_pages"] = pages
        urgent = [cell for cell in todo if plan.for_a_goal(cell)]
        for batch in (urgent, others, [cell for cell in todo if cell not in urgent]):
            for item in batch:
                if time.monotonic() > end:
                    break
                failures += one_table(item, o, pages, results) if isinstance(item, str) else one_cell(item, o, pages, results)
                results.save()
    results.known["complete"] = len(results.known["cells"]) >= len(todo) and set(others) <= set(results.known["tables"])
    results.save()
    write_all(results.known, o.out, o.form)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
