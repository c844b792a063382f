"""`npm run bench`: measures kvlane beside everything that does the same work, and writes JSON, a page with plots, and RESULTS.md.

    npm run bench -- --short             under 5 minutes, not judged: fails only if something of ours did not run
    npm run bench -- --full              everything; --minutes N or Ctrl-C ends it early, and the next --full goes on where it stopped
    npm run bench -- --plan --full       what a run would measure, and about how long it takes
    npm run bench -- --only kvlane,fio-psync/load       arms/tables, while working on something: any part of their names

    --disk DIR     where the disk's files go (else $KVLANE_BENCH_DISK, else /var/tmp)
    --out DIR      where the results go (else test/bench/build/out)
    --rounds N     instead of the plan's
    --fresh        do not go on with an unfinished full run

Everything is interleaved (cell.py), and every ratio is one of the same rounds (stats.py). run.sh has set up before this runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import cell as cells
import host
import media
import plan
import tables
from arms import CHECKOUT, HERE
from report import write_all
from results import Results
from stage import Stage

MEDIUM_MIB = {"short": 2560, "full": 4096, "only": 4096}  # data of all arms of a cell, and what the kernel frees only after 5 s
HUGE_MIB = {"short": 1664, "full": 1664, "only": 1664}  # an arena for each arm of a cell, and fio's buffers


class CutShort(BaseException):
    """Somebody wants it to end: through every `finally` (children, mounts, huge pages), then what is known is written."""


def options() -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="npm run bench --", usage=__doc__)
    p.add_argument("--short", action="store_true")
    p.add_argument("--full", action="store_true")
    p.add_argument("--plan", action="store_true")
    p.add_argument("--only", metavar="ARMS/TABLES")
    p.add_argument("--rounds", type=int)
    p.add_argument("--minutes", type=float, default=1e9)
    p.add_argument("--fresh", action="store_true")
    p.add_argument("--disk", type=Path, default=Path(os.environ.get("KVLANE_BENCH_DISK", "/var/tmp")))
    p.add_argument("--out", type=Path, default=HERE / "build" / "out")
    o = p.parse_args()
    o.form = "only" if o.only else "full" if o.full else "short"
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


Item = cells.Cell | str


def in_order(todo: list[cells.Cell], others: list[str]) -> list[Item]:
    """What is judged comes first: a run that is cut short has it."""
    urgent: list[Item] = [cell for cell in todo if plan.for_a_goal(cell)]
    return [*urgent, *others, *(cell for cell in todo if cell not in urgent)]


def estimate_s(item: Item, form: str) -> float:
    return tables.ESTIMATES_S[item][form == "short"] if isinstance(item, str) else item.estimate_s


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Pace:
    """What is left, by the plan and by how the plan held so far."""

    def __init__(self, items: list[Item], form: str) -> None:
        self._left = {id(item): estimate_s(item, form) for item in items}
        self._planned = self._took = 1e-9

    def begun(self, name: str, number: int, of: int) -> None:
        say(f"{time.strftime('%H:%M:%S')} {number} of {of}, about {self.left_s() / 60:.0f} min left: {name}")

    def left_s(self) -> float:
        drift = self._took / self._planned if self._planned > 30 else 1.0
        return sum(self._left.values()) * drift

    def ended(self, item: Item, took_s: float) -> None:
        self._planned += self._left.pop(id(item))
        self._took += took_s


def measured(item: Item, o: argparse.Namespace, pages: str, results: Results) -> None:
    """One cell or table, into the results; if it fails, that is there, and the next one goes on."""
    if isinstance(item, str):
        results.known["tables"][item] = tables.TABLES[item](Stage(o.form, o.disk, pages, o.rounds))
        return
    cell = replace(item, pages=item.pages if pages == "huge" else "4k")
    with media.medium(cell.medium, MEDIUM_MIB[o.form], o.disk) as medium:
        results.known.setdefault("media", {})[cell.medium] = medium.about
        results.known["cells"][item.name] = cells.run(cell, medium)


def run(items: list[Item], o: argparse.Namespace, pages: str, results: Results) -> None:
    end = time.monotonic() + o.minutes * 60
    left = [item for item in items if not results.has(item if isinstance(item, str) else item.name)]
    pace = Pace(left, o.form)
    say(f"bench: {len(left)} of {len(items)} tables to measure, about {pace.left_s() / 60:.0f} minutes on two cores; results in {o.out}")
    for number, item in enumerate(left, 1):
        name = item if isinstance(item, str) else item.name
        if time.monotonic() + estimate_s(item, o.form) / 2 > end:
            results.known["cut"] = f"after {o.minutes:g} minutes, as asked"
            return
        pace.begun(name, number, len(left))
        began = time.monotonic()
        try:
            measured(item, o, pages, results)
        except Exception as error:
            say(f"  failed: {type(error).__name__}: {error}")
            results.failed(item, f"{type(error).__name__}: {error}")
        pace.ended(item, time.monotonic() - began)
        results.save()


def handle_signals() -> None:
    def leave(number: int, _frame: object) -> None:
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)  # once is enough, and what is taken down now has bounds of its own
        raise CutShort(signal.Signals(number).name)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, leave)


def show_plan(items: list[Item], form: str) -> int:
    for item in items:
        what = item if isinstance(item, str) else f"{item.name}: {' '.join(item.arms)}"
        print(f"{estimate_s(item, form):6.0f} s  {what}")
    print(f"{sum(estimate_s(item, form) for item in items) / 60:6.1f} minutes in all, about, on two cores")
    return 0


def main() -> int:
    o = options()
    todo, others = chosen(o)
    if not todo and not others:
        say(f"bench: nothing is called {o.only}; arms and tables stand in plan.py and tables.py")
        return 2
    if o.rounds:
        todo = [replace(cell, rounds=o.rounds) for cell in todo]
    items = in_order(todo, others)
    if o.plan:
        return show_plan(items, o.form)
    if os.geteuid() != 0:
        say("bench: it mounts file systems of its own, so it wants root")
        return 2
    handle_signals()
    results = Results(o.out / f"{o.form}.json", o.form, o.fresh, host.conditions(CHECKOUT))
    results.known["planned"] = [item if isinstance(item, str) else item.name for item in items]
    cut = ""
    try:
        with host.huge_pages(HUGE_MIB[o.form]) as pages:
            results.known["conditions"]["huge_pages"] = pages
            run(items, o, pages, results)
    except CutShort as signalled:
        cut = str(signalled)
        results.known["cut"] = f"by {cut}"
    results.save()
    drawn = write_all(results.known, o.out, o.form)
    if cut:
        return 128 + int(signal.Signals[cut])
    broken = results.broken()
    for line in broken:
        say(f"bench: did not run: {line}")
    return 1 if broken or not drawn else 0


if __name__ == "__main__":
    sys.exit(main())
