"""Which comparisons a run makes. The short form is there to show that everything runs; only the full one is judged."""

from __future__ import annotations

from dataclasses import replace

import tables
from cell import MIB, Cell

KIB = 1 << 10
SIZES = (64 * KIB, 256 * KIB, MIB, 4 * MIB, 8 * MIB)
PEER_SIZES = (64 * KIB, MIB)
NEW_BLOCKS_MAX = 1024  # in a slice: 0.1 s of storing; a disk takes longer to remove more of them than all else takes
PAGE_SIZES = (256 * KIB, MIB, 4 * MIB)

# What is judged goes with few others, so that the two sides of a ratio lie close to each other in time.
LOAD = ("kvlane", "kvlane~", "fio-psync", "floor", "floor-verify", "kvlane-unchecked", "threads")
AGAIN = (
    "kvlane",
    "kvlane~",
    "fio-psync",
    "kvlane-made-anew",
    "floor-overwrite",
    "floor-recycle",
    "floor-recycle-verify",
    "floor-replace",
    "kvlane-unchecked",
    "threads",
)
NEW = ("kvlane", "kvlane~", "floor-new", "floor-new-verify", "kvlane-unchecked", "threads")
AIO = ("kvlane-aio",)
LOOKUP = ("kvlane", "kvlane~", "kvlane-indexed", "floor-lookup", "threads", "node")
QUEUES = ("fio-libaio", "fio-io_uring")
SMALL_PAGES = ("kvlane-4k", "floor-4k", "fio-psync", *QUEUES)  # where io_uring had most to win: each page costs something
PEERS = ("nixl-aio", "nixl-uring", "lmcache-fs", "lmcache-disk")
NAIVE = ("kvlane", "kvlane~", "threads", "node")  # on 4 KiB pages, the only ones that Node has
PAGES = ("kvlane", "kvlane~", "kvlane-4k", "kvlane-4k-direct", "floor", "floor-4k")  # the floors: what the device itself gives for huge pages


def short() -> list[Cell]:
    """Every arm once at least. Under five minutes with everything else that a short run does: so LMCache's slow start comes once only."""
    cells = [
        Cell("load", "ram-ext4", "load", (*LOAD, *AIO, *QUEUES, *PEERS)),
        Cell("store", "ram-ext4", "again", (*AGAIN, *AIO)),
        Cell("store", "ram-ext4", "new", (*NEW, *AIO, *PEERS[:-1])),
        Cell("load", "tmpfs", "load", ("kvlane", "floor-verify", "fio-psync")),
        Cell("load", "disk", "load", ("kvlane", "fio-psync")),
        Cell("pages", "ram-ext4", "load", ("kvlane", "kvlane-4k", "kvlane-4k-direct", "floor", "floor-4k")),
        Cell("pages", "ram-ext4", "again", ("kvlane-4k", "kvlane-4k-bounced"), pages="4k"),
        Cell("queues", "ram-ext4", "load", ("kvlane-4k", "fio-io_uring"), pages="4k"),
        Cell("naive", "ram-ext4", "load", ("kvlane", "threads", "node"), pages="4k"),
        Cell("lookup", "ram-ext4", "lookup", LOOKUP, pages="4k", tasks=1),
        Cell("sidecars", "ram-ext4", "load", ("kvlane", "floor-verify"), copies=2),
        *(replace(cell, arms=("kvlane", "floor-verify")) for cell in control()),
    ]
    return [replace(cell, rounds=2, slice_s=0.1, data_bytes=min(cell.data_bytes, 128 * MIB), slice_bytes=64 * MIB) for cell in cells]


def control() -> list[Cell]:
    """What a task costs beside its bytes: blocks of a page from tmpfs, one task at a time, less what the floor takes for the same."""
    return [
        Cell("control", "tmpfs", "load", ("kvlane", "kvlane~", "floor-verify", "kvlane-aio"), 4096, tasks=1, each_task=n, data_bytes=16 * MIB)
        for n in (1, 64, 1024)
    ]


def for_a_goal(cell: Cell) -> bool:
    if cell.table == "control":
        return True
    if cell.medium == "tmpfs":
        return False
    if cell.table == "load":
        return cell.block_bytes <= 4 * MIB
    if cell.table == "store":
        return cell.block_bytes in (MIB, 4 * MIB)
    if cell.table == "pages":
        return cell.block_bytes == MIB and cell.medium == "disk" and cell.op == "load"
    return cell.table == "lookup" or (cell.table == "naive" and cell.block_bytes == MIB)


def names_for_goals() -> list[str]:
    """Cells and tables without which a run says nothing about some goal or some peer."""
    return [*(cell.name for cell in full() if for_a_goal(cell) or cell.table == "peers"), *tables.TABLES]


def full() -> list[Cell]:
    cells = []
    for medium in ("disk", "ram-ext4", "tmpfs"):
        for size in SIZES:
            cells += [
                Cell("load", medium, "load", LOAD, size),
                Cell("store", medium, "again", AGAIN, size),
                Cell("store", medium, "new", NEW, size),
            ]
            if size in PEER_SIZES:
                peers = PEERS if medium != "tmpfs" else ()
                cells += [
                    Cell("peers", medium, "load", ("kvlane", *AIO, "fio-psync", *QUEUES, *peers), size),
                    Cell("peers", medium, "again", ("kvlane", *AIO, "fio-psync", *QUEUES, *(peer for peer in peers if "nixl" in peer)), size),
                    Cell("peers", medium, "new", ("kvlane", *AIO, *peers), size),
                ]
    for medium in ("disk", "ram-ext4"):
        cells += [Cell("naive", medium, op, NAIVE, size, pages="4k") for size in (64 * KIB, MIB, 4 * MIB) for op in ("load", "new", "again")]
        cells += [Cell("lookup", medium, "lookup", LOOKUP, pages="4k", tasks=1)]
        cells += [
            Cell("one task", medium, "load", ("kvlane", "kvlane~", "floor", "floor-verify", "fio-psync"), size, tasks=1) for size in PEER_SIZES
        ]
        cells += [Cell("sidecars", medium, "load", ("kvlane", "floor-verify"), copies=n, data_bytes=128 * MIB) for n in (1, 2, 4)]
        cells += [Cell("pages", medium, "load", PAGES, size) for size in PAGE_SIZES]
        cells += [Cell("pages", medium, "again", ("kvlane-4k", "kvlane-4k~", "kvlane-4k-bounced"), pages="4k")]
        cells += [Cell("queues", medium, "load", SMALL_PAGES, size, pages="4k") for size in PEER_SIZES]
    cells += [Cell("lookup", "tmpfs", "lookup", LOOKUP, pages="4k", tasks=1), *control()]
    cells = [replace(cell, slice_bytes=min(cell.slice_bytes, NEW_BLOCKS_MAX * cell.block_bytes)) for cell in cells]
    cells.sort(key=lambda cell: (not for_a_goal(cell), cell.table != "peers"))  # a run that is cut short has what is judged, then the peers
    return cells
