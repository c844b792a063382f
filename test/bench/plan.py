"""Which comparisons a run makes. The short form is there to show that everything runs; only the full one is judged."""

from __future__ import annotations

from dataclasses import replace

from cell import MIB, Cell

KIB = 1 << 10
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB)
PEER_SIZES = (64 * KIB, MIB)

LOAD = ("kvlane", "kvlane~", "fio-psync", "floor", "floor-verify", "kvlane-aio", "threads")
AGAIN = ("kvlane", "kvlane~", "fio-psync", "floor-overwrite", "floor-recycle", "floor-replace", "kvlane-aio", "threads")
NEW = ("kvlane", "kvlane~", "floor-new", "floor-new-verify", "kvlane-aio", "threads")
LOOKUP = ("kvlane", "kvlane~", "floor-lookup", "threads", "node")
QUEUES = ("fio-libaio", "fio-io_uring")
PEERS = ("nixl-aio", "nixl-uring", "lmcache-fs", "lmcache-disk")
NAIVE = ("kvlane", "threads", "node")  # on 4 KiB pages, the only ones that Node has


def short() -> list[Cell]:
    """Under five minutes with everything else that a short run does."""
    cells = [
        Cell("load", "ram-ext4", "load", (*LOAD, *QUEUES, *PEERS)),
        Cell("store", "ram-ext4", "again", AGAIN),
        Cell("store", "ram-ext4", "new", (*NEW, *PEERS)),
        Cell("load", "tmpfs", "load", ("kvlane", "floor-verify", "fio-psync")),
        Cell("naive", "ram-ext4", "load", NAIVE, pages="4k"),
        Cell("lookup", "ram-ext4", "lookup", LOOKUP, pages="4k", tasks=1),
        Cell("sidecars", "ram-ext4", "load", ("kvlane", "floor-verify"), copies=2),
    ]
    return [replace(cell, rounds=2, slice_s=0.1, data_bytes=128 * MIB, slice_bytes=64 * MIB) for cell in cells + control()]


def control() -> list[Cell]:
    """What a task costs beside its bytes: blocks of a page from tmpfs, one task at a time, less what the floor takes for the same."""
    return [
        Cell("control", "tmpfs", "load", ("kvlane", "kvlane~", "floor-verify", "kvlane-aio"), 4096, tasks=1, each_task=n, data_bytes=16 * MIB)
        for n in (1, 64, 1024)
    ]


def for_a_goal(cell: Cell) -> bool:
    if cell.medium == "tmpfs":
        return cell.table == "control"
    if cell.table == "load":
        return cell.block_bytes <= 4 * MIB
    if cell.table == "store":
        return cell.block_bytes in (MIB, 4 * MIB)
    return cell.block_bytes == MIB and cell.table in ("naive", "pages")


def full() -> list[Cell]:
    cells = []
    for medium in ("ram-ext4", "disk", "tmpfs"):
        for size in SIZES:
            if size == 8 * MIB and medium != "ram-ext4":
                continue
            more = (*QUEUES, *PEERS) if size in PEER_SIZES and medium != "tmpfs" else ()
            peers = PEERS if more else ()
            cells += [
                Cell("load", medium, "load", (*LOAD, *more), size),
                Cell("store", medium, "again", AGAIN, size),
                Cell("store", medium, "new", (*NEW, *peers), size),
            ]
    for medium in ("ram-ext4", "disk"):
        cells += [
            Cell("naive", medium, op, NAIVE, size, pages="4k") for size in (64 * KIB, MIB, 4 * MIB) for op in ("load", "new", "again")
        ]
        cells += [Cell("lookup", medium, "lookup", LOOKUP, pages="4k", tasks=1)]
        cells += [Cell("one task", medium, "load", ("kvlane", "floor", "floor-verify", "fio-psync"), size, tasks=1) for size in PEER_SIZES]
        cells += [Cell("sidecars", medium, "load", ("kvlane", "floor-verify"), copies=n, arena_bytes=64 * MIB) for n in (1, 2, 4)]
        cells += [Cell("pages", medium, "load", ("kvlane", "kvlane~", "kvlane-4k", "kvlane-4k-direct"), size) for size in SIZES[1:4]]
    cells += control()
    cells.sort(key=lambda cell: not for_a_goal(cell))  # a run that is cut short has what is judged
    return cells
