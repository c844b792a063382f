"""One comparison: the same work by several arms, in turn, forth and back. A,B,C,C,B,A is one round; the next one begins with B.

What an arm cannot do (not installed, no huge pages for it) is kept with its reason and does not stop the others. Not counted are an
arm's start, its data, its first slice, and a little of the same before each slice: while the others had their turn its threads
slept, and its code left the caches.
"""

from __future__ import annotations

import shutil
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import host
from arms import Running, arm_of, why_absent
from media import Medium
from worker import ArmFailed, Worker

MIB = 1 << 20
LEAD_IN_S = 0.03
LEAD_IN_SHARE = 8  # of new blocks, which are counted and not timed: one for so many


@dataclass(frozen=True)
class Cell:
    """`data_bytes`: what is loaded from or stored over. `slice_bytes`: what a slice of new blocks makes."""

    table: str
    medium: str
    op: str  # load new again lookup
    arms: tuple[str, ...]
    block_bytes: int = MIB
    pages: str = "huge"
    tasks: int = 2
    threads: int = 8
    copies: int = 1  # of each arm at once, each a process of its own
    rounds: int = 16
    slice_s: float = 0.2
    data_bytes: int = 256 * MIB
    slice_bytes: int = 256 * MIB
    arena_bytes: int = 128 * MIB
    each_task: int = 0  # blocks of a task; 0: 64, or what 64 MiB hold
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        size = "" if self.op == "lookup" else f" {size_name(self.block_bytes)}"
        more = f" x{self.copies}" if self.copies > 1 else ""
        return f"{self.table}: {self.op}{size}, {self.medium}, {self.pages} pages, {self.tasks} x {self.task_blocks}{more}"

    @property
    def task_blocks(self) -> int:
        return self.each_task or (4096 if self.op == "lookup" else max(1, min(64, 64 * MIB // self.block_bytes)))

    @property
    def estimate_s(self) -> float:
        """How long it takes on two cores; for the plan that is printed, nothing else depends on it."""
        starts = sum(arm_of(name).start_s for name in self.arms) * self.copies
        folders = 0 if self.op in ("new", "lookup") else len({arm_of(name).files or name for name in self.arms})
        fill = folders * self.count * self.block_bytes / 5e8
        slice_s = self.slice_s
        if self.op == "new":  # so many blocks, however long that takes
            slice_s = 1.1 * self.slice_bytes / (min(8e8, 1.5e3 * self.block_bytes) if self.medium == "disk" else 1e9)
        slices = sum(slice_s + arm_of(name).slice_more_s + 0.1 * (self.copies - 1) for name in self.arms)
        cleaning = 2e-4 * self.slice_bytes / self.block_bytes * len(self.arms) if self.op == "new" else 0.0
        return 2.0 + starts + fill + (2 * self.rounds + 1) * (slices + cleaning)

    @property
    def count(self) -> int:
        return 2048 if self.op == "lookup" else max(self.data_bytes // self.block_bytes, self.tasks * self.task_blocks)

    def config(self, folder: Path) -> dict[str, Any]:
        return {
            "op": self.op,
            "dir": str(folder),
            "count": self.count,
            "block_bytes": 0 if self.op == "lookup" else self.block_bytes,
            "task_blocks": self.task_blocks,
            "tasks": self.tasks,
            "threads": self.threads,
            # names are looked up without memory for their bytes
            "arena_bytes": 4 * MIB if self.op == "lookup" else max(self.arena_bytes, self.tasks * self.task_blocks * self.block_bytes),
            "pages": self.pages,
            "direct": self.medium != "tmpfs",
            **self.options,
        }


def size_name(size: int) -> str:
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"


class Group:
    """One arm, or several copies of it side by side that count as one."""

    def __init__(self, cell: Cell, name: str, medium: Medium, filled: set[str]) -> None:
        self._cell, self._arm = cell, arm_of(name)
        self._members: list[Running] = []
        self._new_from = 0
        self._spent: dict[str, float] = {}
        where = self._arm.files or name
        if cell.op not in self._arm.ops or cell.pages not in self._arm.pages:
            raise ArmFailed(f"has no {cell.op} on {cell.pages} pages")
        if absent := why_absent(self._arm):
            raise ArmFailed(absent)
        try:
            for copy in range(cell.copies):
                own = cell.op == "new" or copy > 0
                folder = medium.path / (f"{name}-{copy}" if own else where)
                folder.mkdir(exist_ok=True)
                member = self._arm.start(cell.config(folder))
                self._members.append(member)
                if cell.op != "new" and str(folder) not in filled:
                    member.fill(0, cell.count)
                    filled.add(str(folder))
        except BaseException:
            self.close()
            raise
        self.facts = self._members[0].facts

    def slice(self, seconds: float, seed: int) -> dict[str, Any]:
        cell = self._cell
        most = cell.slice_bytes // cell.block_bytes if cell.op == "new" else 0
        before = self._profile_now()
        if not self._arm.process_each_slice:
            self._lead_in(-(-most // LEAD_IN_SHARE))
        since = host.cpu_times()
        for i, member in enumerate(self._members):
            member.start_slice(seconds if not most else 3600.0, most, self._new_from, seed + 7919 * i)
        got = [member.end_slice(seconds) for member in self._members]
        busy = host.busy_share(since)
        for thread, spent in self._profile_now().items():
            self._spent[thread] = self._spent.get(thread, 0.0) + spent - before.get(thread, 0.0)
        self._clean(most)
        merged = {
            "units": sum(g["units"] for g in got),
            "bytes": sum(g["bytes"] for g in got),
            "seconds": max(g["seconds"] for g in got),
            "cpu_s": sum(g["cpu_s"] for g in got),
            "task_us": [us for g in got for us in g["task_us"]],
            "busy": None if self._arm.process_each_slice else round(busy, 3),
        }
        if "block_p99_us" in got[0]:
            merged["block_p99_us"] = max(g["block_p99_us"] for g in got)
        return merged

    def _lead_in(self, most: int) -> None:
        for member in self._members:
            member.start_slice(LEAD_IN_S if not most else 3600.0, most, self._new_from, 0)
        for member in self._members:
            member.end_slice(LEAD_IN_S)
        self._clean(most)

    def _clean(self, n: int) -> None:
        """Takes away the new blocks of a slice, outside of its time; their names are not used again."""
        if n:
            for member in self._members:
                member.clean(self._new_from, n)
            self._new_from += n

    def profile(self) -> dict[str, float]:
        """Where the first member's CPU time went in its slices and what leads into them, by thread; empty if it cannot say."""
        return dict(self._spent)

    def forget_profile(self) -> None:
        self._spent.clear()

    def _profile_now(self) -> dict[str, float]:
        member = self._members[0]
        return member.ask("profile", 10)["cpu_s"] if isinstance(member, Worker) and self._arm.profiled else {}

    def close(self) -> None:
        for member in self._members:
            member.close()


def run(cell: Cell, medium: Medium) -> dict[str, Any]:
    """Everything that was measured, slice by slice; the reports compute from this."""
    began, since, stolen = time.time(), host.cpu_times(), host.stolen_s()
    groups: dict[str, Group] = {}
    failed: dict[str, str] = {}
    filled: set[str] = set()
    slices: dict[str, list[dict[str, Any]]] = {}
    try:
        for name in cell.arms:
            try:
                groups[name] = Group(cell, name, medium, filled)
                groups[name].slice(min(cell.slice_s, 0.2), 0)  # warm-up, not kept
                slices[name] = []
            except (ArmFailed, OSError) as error:
                failed[name] = str(error)
                print(f"  {name}: {error}", file=sys.stderr)
                if name in groups:
                    groups.pop(name).close()
        for group in groups.values():
            group.forget_profile()  # of the warm-up
        for number in range(cell.rounds):
            names = list(groups)
            turn = number % max(1, len(names))
            order = names[turn:] + names[:turn]
            for name in [*order, *reversed(order)]:
                if name not in groups:
                    continue
                try:
                    slices[name].append(groups[name].slice(cell.slice_s, 2 * number + 1))
                except ArmFailed as error:
                    failed[name] = f"in round {number + 1}: {error}"
                    print(f"  {name}: {failed[name]}", file=sys.stderr)
                    groups.pop(name).close()
        profiles = {name: group.profile() for name, group in groups.items()}
    finally:
        for group in groups.values():
            group.close()
        for folder in medium.path.iterdir():
            if folder.name != "lost+found":
                shutil.rmtree(folder, ignore_errors=True)
    return {
        "name": cell.name,
        "table": cell.table,
        "medium": cell.medium,
        "op": cell.op,
        "block_bytes": cell.block_bytes,
        "pages": cell.pages,
        "tasks": cell.tasks,
        "task_blocks": cell.task_blocks,
        "threads": cell.threads,
        "copies": cell.copies,
        "rounds": cell.rounds,
        "began": time.strftime("%H:%M:%S", time.gmtime(began)),
        "took_s": round(time.time() - began, 1),
        "machine_busy": round(host.busy_share(since), 2),
        "stolen_s": round(host.stolen_s() - stolen, 2),
        "arms": {name: {"facts": groups[name].facts, "slices": slices[name], "profile": profiles[name]} for name in groups},
        "failed": failed,
    }
