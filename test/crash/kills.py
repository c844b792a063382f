"""SIGKILL of a real sidecar at every system call of a store, and in the midst of its writes."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from sidecar import Dead, Sidecar
from stories import ABSENT, MOUNTS, Look, Scenario, Seam, Variant, look, was_recycled

BEFORE, AFTER, TORN = 1, 2, 3  # as in seam.c


def kills(folder: Path, scenario: Scenario, options: list[str], seam: Seam, plant: str) -> tuple[Path, list[tuple[int, int, int, str]]]:
    """The store as it is before, and every way to die: call after the prelude, how, torn bytes, what it is."""
    ready = folder / "ready"
    sidecar = Sidecar([ready], "--create", *options)
    scenario.before(sidecar)
    sidecar.end()
    trial = folder / "trial"
    shutil.copytree(ready, trial)
    seam.reset()
    sidecar = Sidecar([trial], *options, seam=seam.environment(plant))
    scenario.prelude(sidecar)
    sidecar.quiet()
    first = seam.calls()
    scenario.last(sidecar)
    sidecar.quiet()
    names = seam.names(first + 1, seam.calls() + 1)
    was_recycled(sidecar, scenario)
    sidecar.end()
    shutil.rmtree(trial)
    ways = [(i + 1, BEFORE, 0, f"before {name} ({i + 1} of {len(names)})") for i, name in enumerate(names)]
    for i, name in enumerate(names):
        if name in ("pwritev", "submit", "rename", "fsync", "unlink", "openat2", "mkdir"):
            ways.append((i + 1, AFTER, 0, f"after {name} ({i + 1} of {len(names)})"))
        if name in ("pwritev", "submit"):
            ways += [(i + 1, TORN, size, f"in {name}, {size} bytes done") for size in (512, 4096, 4608, 8192, 12288)]
    return ready, ways


def kill(root: Path, scenario: Scenario, options: list[str], seam: Seam, plant: str, way: tuple[int, int, int, str]) -> bool:
    """True: it was answered before the end."""
    answered = False
    seam.reset()
    sidecar = Sidecar([root], *options, seam=seam.environment(plant))
    try:
        scenario.prelude(sidecar)
        sidecar.quiet()
        seam.kill_at(seam.calls() + way[0], way[1], way[2])
        scenario.last(sidecar)
        answered = True
        sidecar.quiet()
    except Dead:
        pass
    finally:
        sidecar.process.kill()
        sidecar.process.wait(30)
        for pipe in (sidecar.process.stdin, sidecar.process.stdout):
            if pipe is not None:
                pipe.close()
    return answered


def may_be_after_kill(scenario: Scenario, answered: bool) -> frozenset[str]:
    after = "absent" if scenario.removes else "new"
    return frozenset({after} if answered else {after, "old" if scenario.old else "absent"})


def others_after_kill(scenario: Scenario) -> dict[str, frozenset[str]]:
    """Nothing that was written is lost."""
    others = {key: frozenset({"old"}) for key in scenario.others}
    if scenario.passing:
        others[scenario.passing] = frozenset({"old"}) if scenario.removes else ABSENT
    return others


def kill_all(
    folder: Path,
    chance: random.Random,
    share: int | None,
    variants: list[Variant],
    plant: str = "",
    only: str = "",
    end: float = float("inf"),
) -> tuple[Counter[str], list[str]]:
    """`share`: so many deaths of each variant; None: all, in an order that is drawn, until `end`. `only`: those at this call."""
    counts: Counter[str] = Counter()
    faults: list[str] = []
    looks: list[Look] = []
    seam = Seam(folder)
    deaths = []
    for number, (scenario, engine, durable) in enumerate(variants):
        options = ["--engine", engine, "--recycle", "on" if scenario.recycle else "off", *(["--fsync"] if durable else [])]
        place = folder / f"variant-{number}"
        place.mkdir()
        ready, ways = kills(place, scenario, options, seam, plant)
        ways = [way for way in ways if only in way[3]]
        if share is not None:
            ways = chance.sample(ways, min(share, len(ways)))
        kind = f"{scenario.name}, {engine}{', --fsync' if durable else ''}"
        deaths += [(ready, scenario, options, way, kind) for way in ways]
    chance.shuffle(deaths)
    counts["deaths possible"] = len(deaths)
    for i, (ready, scenario, options, way, kind) in enumerate(deaths):
        if time.monotonic() > end:
            break
        root = folder / f"dead-{i}"
        shutil.copytree(ready, root)
        answered = kill(root, scenario, options, seam, plant, way)
        counts["kills"] += 1
        counts["by the call itself"] += seam.died()
        looks.append(Look(root, f"{kind}, killed {way[3]}", may_be_after_kill(scenario, answered), others_after_kill(scenario), scenario.record))
        if len(looks) == MOUNTS:
            seam.reset()
            look(looks, counts, faults, seam=seam.environment(plant) if plant else None)
            looks = []
    if looks:
        seam.reset()
        look(looks, counts, faults, seam=seam.environment(plant) if plant else None)
    if counts["by the call itself"] < 0.9 * counts["kills"]:
        faults.append(f"of {counts['kills']} sidecars only {counts['by the call itself']} were killed where they should")
    return counts, faults
