"""Cost per block over the size of things: blocks in the store, blocks a task, tasks in flight. It must not grow.

Each size is measured in the same rounds as what it is compared with: a store that does not grow; the other sizes. The store grows by
empty files in the folders of the real blocks: what a file system has to find its way through are names and inodes, and a million
blocks of a page would take 8 GiB.
"""

from __future__ import annotations

import contextlib
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
SLICE_S = 0.1
OWN = 2048  # blocks that a store has itself: the look-up wants every other name absent
ROUNDS_BETWEEN = 4  # at the sizes that are not judged
FILL_S = 240.0


def plain(op: str, medium: media.Medium, pages: str, tasks: int = 1, each_task: int = 64, where: str = "kvlane") -> Worker:
    table = cells.Cell(
        "growth", medium.name, op, (), BLOCK_BYTES, pages=pages, tasks=tasks, each_task=each_task, arena_bytes=4 << 20, data_bytes=8 << 20
    )
    folder = medium.path / where
    folder.mkdir(exist_ok=True)
    worker = arm_of("kvlane").start(table.config(folder))
    assert isinstance(worker, Worker)
    return worker


def unit_us(worker: Worker, seed: int) -> float:
    """Microseconds for one block."""
    worker.start_slice(SLICE_S, 0, 0, seed)
    got = worker.end_slice(SLICE_S)
    return float(got["seconds"] / got["units"] * 1e6)


def in_turn(workers: list[Worker], rounds: int) -> list[list[float]]:
    """Microseconds a block in each round, of each worker: forth and back, and the next round begins with another."""
    found: list[list[float]] = [[] for _ in workers]
    places = list(range(len(workers)))
    for number in range(rounds):
        turn = number % len(places)
        order = places[turn:] + places[:turn]
        sums = [0.0] * len(places)
        for place in [*order, *reversed(order)]:
            sums[place] += unit_us(workers[place], number) / 2
        for place in places:
            found[place].append(sums[place])
    return found


def over_the_store(stage: Stage) -> dict[str, Any]:
    sizes = STORE_SHORT if stage.form == "short" else STORE_FULL
    points: list[dict[str, float]] = []
    beside: list[dict[str, Any]] = []
    with media.medium("ram-ext4", INODE_MIB + 512, stage.disk, INODES) as medium, contextlib.ExitStack() as stack:
        pairs: dict[str, list[Worker]] = {}
        for op in ("load", "again", "lookup"):
            pairs[op] = []
            for where in ("kvlane", "small"):
                pairs[op].append(plain(op, medium, stage.memory, where=where))
                stack.callback(pairs[op][-1].close)
        for worker in pairs["load"]:
            worker.fill(0, OWN)
        below = medium.path / "kvlane" / "blocks" / "bench"
        ones = dict.fromkeys(("count", "task_blocks", "tasks", "threads"), 1)
        filler = floor({}, spread=1)({"op": "lookup", "dir": str(below), "block_bytes": 0, "arena_bytes": 0, "pages": "4k", **ones})
        assert isinstance(filler, Worker)
        stack.callback(filler.close)
        there = 0
        for size in sizes:
            filler.ask(f"fill {there} {size - there}", FILL_S)
            there = size
            rounds = stage.count(1, 16) if size == sizes[-1] else stage.count(1, ROUNDS_BETWEEN)
            costs = {op: in_turn(workers, rounds) for op, workers in pairs.items()}
            points.append({"n": float(OWN + size), **{op: stats.quantile(mine, 0.5) for op, (mine, _) in costs.items()}})
            beside.append({op: stats.ratio(mine, small).as_json() for op, (mine, small) in costs.items()})
    # 16 rounds at the last size, which is judged; four at the others, so that a hump in between is seen
    return {"points": points, "grown": beside[-1], "beside": beside, "against": f"a store of {OWN:,} at the same time"}


def over(stage: Stage, what: str) -> dict[str, Any]:
    steps = STEPS_SHORT if stage.form == "short" else STEPS_FULL
    with media.medium("tmpfs", 256, stage.disk) as medium, contextlib.ExitStack() as stack:
        workers = []
        for n in steps:
            tasks, each = (1, n) if what == "blocks a task" else (n, 1)
            workers.append(plain("load", medium, stage.memory, tasks, each))
            stack.callback(workers[-1].close)
        workers[0].fill(0, max(STEPS_FULL))
        in_turn(workers, 1)  # warm
        costs = in_turn(workers, stage.count(1, 16))
    medians = [stats.quantile(of_step, 0.5) for of_step in costs]
    least = medians.index(min(medians))
    return {
        "points": [{"n": float(n), "load": us} for n, us in zip(steps, medians, strict=True)],
        "grown": {"load": stats.ratio(costs[-1], costs[least]).as_json()},
        "against": f"the cheapest, {steps[least]:,}",
    }


def measure(stage: Stage) -> dict[str, Any]:
    return {
        "blocks in the store": over_the_store(stage),
        "blocks a task": over(stage, "blocks a task"),
        "tasks in flight": over(stage, "tasks in flight"),
    }
