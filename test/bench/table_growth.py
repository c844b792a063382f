"""Cost per block over the size of things: blocks in the store, blocks a task, tasks in flight. It must not grow.

The store grows by empty files in the folders of the real blocks: what a file system has to find its way through are names and
inodes, and a million blocks of a page would take 8 GiB.
"""

from __future__ import annotations

from typing import Any

import cell as cells
import media
import stats
from arms import arm_of, floor
from stage import Stage
from worker import Worker

BLOCK_BYTES = 4096
STORE_FULL = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
STORE_SHORT = (1, 100, 10_000)
INODES = 1_200_000
INODE_MIB = 400  # for so many inodes and their folders, beside the data
STEPS_FULL = (1, 4, 16, 64, 256, 1024, 4096)
STEPS_SHORT = (1, 64, 4096)
SLICE_S = 0.2
FILL_S = 240.0


def plain(op: str, medium: media.Medium, pages: str, tasks: int = 1, each_task: int = 64) -> Worker:
    table = cells.Cell(
        "growth", medium.name, op, (), BLOCK_BYTES, pages=pages, tasks=tasks, each_task=each_task, arena_bytes=4 << 20, data_bytes=8 << 20
    )
    folder = medium.path / "kvlane"
    folder.mkdir(exist_ok=True)
    worker = arm_of("kvlane").start(table.config(folder))
    assert isinstance(worker, Worker)
    return worker


def unit_us(worker: Worker, rounds: int) -> float:
    """Microseconds for one block, the median of the rounds."""
    found = []
    for seed in range(rounds):
        worker.start_slice(SLICE_S, 0, 0, seed)
        got = worker.end_slice(SLICE_S)
        found.append(got["seconds"] / got["units"] * 1e6)
    return stats.quantile(found, 0.5)


def over_the_store(stage: Stage) -> list[dict[str, float]]:
    sizes = STORE_SHORT if stage.form == "short" else STORE_FULL
    rounds = stage.count(1, 8)
    found: list[dict[str, float]] = []
    with media.medium("ram-ext4", INODE_MIB + 512, stage.disk, INODES) as medium:
        workers = {op: plain(op, medium, stage.memory) for op in ("load", "again", "lookup")}
        try:
            workers["load"].fill(0, 2048)  # the look-up wants every other name absent
            below = medium.path / "kvlane" / "blocks" / "bench"
            ones = dict.fromkeys(("count", "task_blocks", "tasks", "threads"), 1)
            filler = floor({}, spread=1)({"op": "lookup", "dir": str(below), "block_bytes": 0, "arena_bytes": 0, "pages": "4k", **ones})
            assert isinstance(filler, Worker)
            try:
                there = 0
                for size in sizes:
                    filler.ask(f"fill {there} {size - there}", FILL_S)
                    there = size
                    found.append({"n": float(size), **{op: unit_us(worker, rounds) for op, worker in workers.items()}})
            finally:
                filler.close()
        finally:
            for worker in workers.values():
                worker.close()
    return found


def over(stage: Stage, what: str) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    with media.medium("tmpfs", 256, stage.disk) as medium:
        for n in STEPS_SHORT if stage.form == "short" else STEPS_FULL:
            tasks, each = (1, n) if what == "blocks a task" else (n, 1)
            worker = plain("load", medium, stage.memory, tasks, each)
            try:
                if not found:
                    worker.fill(0, max(STEPS_FULL))
                unit_us(worker, 1)  # warm
                found.append({"n": float(n), "load": unit_us(worker, stage.count(1, 8))})
            finally:
                worker.close()
    return found


def measure(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "blocks in the store": over_the_store(stage),
        "blocks a task": over(stage, "blocks a task"),
        "tasks in flight": over(stage, "tasks in flight"),
    }
    return found
