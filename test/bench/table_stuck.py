"""A healthy mount beside one that hangs: the same work in a sidecar with 0, 100 and 1,000 stuck operations, in turn."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cell as cells
import media
import summary
from arms import kvlane
from stage import Stage, stall
from worker import Worker

STUCK = (0, 100, 1000)
BLOCK_BYTES = 256 << 10  # each stuck operation holds a slot of this size
STICK_S = 30.0


def start(stage: Stage, medium: media.Medium, sick: Path, stuck: int) -> Worker:
    cell = cells.Cell("stuck", medium.name, "load", (), BLOCK_BYTES, pages=stage.memory, arena_bytes=64 << 20, data_bytes=128 << 20)
    folder = medium.path / "kvlane"
    folder.mkdir(exist_ok=True)
    options: dict[str, Any] = {
        "stall_ms": 20,  # a lane is replaced after that: so 1,000 are stuck within seconds
        "stuck_max": max(STUCK) + 8,
        "extra_arguments": ["--test-hold-breaker-closed"],
    }
    config = {**cell.config(folder), "mounts": {"sick": str(sick)}, "more_slots": stuck + 1}
    worker = kvlane(**options)(config)
    assert isinstance(worker, Worker)
    worker.fill(0, cell.count)
    worker.ask("fill_sick 1", STICK_S)
    return worker


def beside(stage: Stage, medium: media.Medium, lab: Any, stuck: int) -> dict[str, Any]:
    """The same cell twice, one of them with so many stuck."""
    sick = Path(lab.mnt) / f"sick-{stuck}"
    os.mkdir(sick)
    arms: dict[str, dict[str, Any]] = {"none stuck": {"slices": []}, "stuck": {"slices": []}}
    workers: dict[str, Worker] = {}
    seconds = 0.1 * stage.pick(1, 3)
    try:
        workers["none stuck"] = start(stage, medium, sick, 0)
        workers["stuck"] = start(stage, medium, sick, stuck)
        lab.hang("read", match=f"/{sick.name}/blocks/*")
        grown = workers["stuck"].ask(f"stick {stuck}", STICK_S)["grown_kib"] if stuck else {}
        for number in range(stage.count(2, 16)):
            order = ["none stuck", "stuck"] if number % 2 else ["stuck", "none stuck"]
            for name in [*order, *reversed(order)]:
                workers[name].start_slice(seconds, 0, 0, number)
                arms[name]["slices"].append(workers[name].end_slice(seconds))
    finally:
        lab.resume()
        for worker in workers.values():
            worker.close()
    cell = {"arms": arms}
    found: dict[str, Any] = {"grown_kib": grown}
    for what in ("rate", "p99", "cpu"):
        ratio = summary.ratio(cell, "stuck", "none stuck", what)
        assert ratio is not None
        found[what] = ratio.as_json()
    return found


def measure(stage: Stage) -> dict[str, Any]:
    if reason := stall.lab_unavailable():
        raise RuntimeError(f"no stall lab: {reason}")
    found = {}
    for stuck in STUCK[: stage.pick(2, 3)]:
        with media.medium("ram-ext4", 1024, stage.disk) as medium, stall.lab() as lab:
            found[str(stuck)] = beside(stage, medium, lab, stuck)
    return found
