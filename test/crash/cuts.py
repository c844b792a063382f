"""The power cut at every change that a store makes, on cutfs.py and the disks that disk.py says may be left."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from disk import Journal, Tree, lay_out
from sidecar import Sidecar
from stories import EXT4, HERE, MOUNTS, Look, Scenario, Seam, Variant, look, was_recycled


class CutMount:
    """cutfs.py on a directory, and its journal."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "mnt"
        self.path.mkdir()
        self.file = folder / "journal"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "cutfs.py"), str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.answer()

    def answer(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("cutfs has left")
        found: dict[str, object] = json.loads(line)
        return found

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        self.answer()

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def record(folder: Path, scenario: Scenario, engine: str, durable: bool, seam: Seam, plant: str, more: list[str]) -> Path:
    """One whole story on cutfs; for recycled files the journal begins before the prelude, whose changes nobody forces out."""
    folder.mkdir()
    mount = CutMount(folder)
    try:
        seam.reset()
        kind = EXT4 if scenario.recycle else ""
        options = ["--engine", engine, "--recycle", "on" if scenario.recycle else "off", *more, *(["--fsync"] if durable else [])]
        sidecar = Sidecar([mount.path], "--create", *options, seam=seam.environment(plant, kind))
        try:
            scenario.before(sidecar)
            sidecar.quiet()
            mount.tell("mark")
            scenario.prelude(sidecar)
            scenario.last(sidecar)
            sidecar.quiet()
            mount.tell(f"journal {mount.file}")
            was_recycled(sidecar, scenario)
        finally:
            sidecar.end()
    finally:
        mount.end()
    return mount.file


def may_be_after_cut(scenario: Scenario, durable: bool, answered: bool, strict: bool) -> frozenset[str]:
    before = "old" if scenario.old else "absent"
    if scenario.removes:  # nobody writes to that file, and the removal itself may be lost
        return frozenset({"old", "absent"})
    if not durable and not scenario.record:
        return frozenset({"new", before, "CORRUPT"})
    if answered and not strict:
        return frozenset({"new"})
    # Forced out before the name changes; a name that nobody forced out may be lost, and with it a new directory.
    return frozenset({"new", before})


def others_after_cut(scenario: Scenario, durable: bool, answered: bool) -> dict[str, frozenset[str]]:
    others = {key: frozenset({"old"}) for key in scenario.others}
    if scenario.passing:
        stays = scenario.removes and durable  # it was stored, and its file was never written to again
        others[scenario.passing] = frozenset({"old"}) if stays and answered else frozenset({"old", "absent", *([] if stays else ["CORRUPT"])})
    return others


Disk = tuple[Tree, frozenset[str], dict[str, frozenset[str]], str]  # what KEY may be, what others may, when it was


def cuts(journal: Journal, scenario: Scenario, durable: bool, torn: int, seed: int, subsets_max: int) -> Iterator[Disk]:
    seen: set[tuple[Tree, bool]] = set()
    made = not scenario.others and not scenario.old and not scenario.record  # directories, which nobody forces out
    for after in range(journal.steps() + 1):
        answered = after == journal.steps()
        allowed = may_be_after_cut(scenario, durable, answered, journal.strict and made)
        others = others_after_cut(scenario, durable, answered)
        for tree in journal.trees(after, torn=torn, seed=seed, subsets_max=subsets_max):
            if (tree, answered) not in seen:
                seen.add((tree, answered))
                yield tree, allowed, others, when_after(after, journal)


def when_after(after: int, journal: Journal) -> str:
    return f"the power went after change {after} of {journal.steps()}"


def cut_all(
    folder: Path,
    chance: random.Random,
    share: int | None,
    variants: list[Variant],
    *,
    plant: str = "",
    more: tuple[str, ...] = (),
    seed: int = 1,
    end: float = float("inf"),
) -> tuple[Counter[str], list[str]]:
    """`share`: so many disks of each variant and model; None: all of them, up to a bound, in an order that is drawn, until `end`."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    looks: list[Look] = []
    seam = Seam(folder)
    disks: list[tuple[Disk, bool]] = []
    for number, (scenario, engine, durable) in enumerate(variants):
        file = record(folder / f"cut-{number}", scenario, engine, durable, seam, plant, list(more))
        for strict in (False, True) if durable or scenario.record else (True,):
            journal = Journal(file, strict=strict)
            all_of_it = share is None
            found = list(cuts(journal, scenario, durable, 150 if all_of_it else 12, seed, 2048 if all_of_it else 48))
            counts["disks possible" if all_of_it else "disks drawn from"] += len(found)
            if share is not None:
                ends = [one for one in found if one[3] == when_after(journal.steps(), journal)]  # always some with all of the store behind them
                chosen = ends[:3] + chance.sample(ends[3:], min(share // 3, len(ends[3:])))
                found = chosen + chance.sample(found, min(share - len(chosen), len(found)))
            kind = f"{scenario.name}, {engine}{', --fsync' if durable else ''}{', strict' if strict else ''}"
            disks += [((tree, allowed, others, f"{kind}: {when}"), scenario.record) for tree, allowed, others, when in found]
    chance.shuffle(disks)
    for (tree, allowed, others, what), of_record in disks:
        if time.monotonic() > end:
            break
        root = folder / f"disk-{counts['disks']}"
        root.mkdir()
        lay_out(tree, root)
        counts["disks"] += 1
        looks.append(Look(root, f"{what} {sorted(path for path, _, _ in tree)}", allowed, others, of_record))
        if len(looks) == MOUNTS:
            look(looks, counts, faults, *more)
            looks = []
    if looks:
        look(looks, counts, faults, *more)
    return counts, faults
