"""The parts: rounds, fio's command and report, the plan, and the setting that must be put back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import host
import summary
from arms import ARMS
from cell import MIB, Cell
from fio import Fio, read_report
from main import HUGE_MIB
from plan import for_a_goal, full, names_for_goals, short
from worker import ArmFailed
from worker_loop import Chooser


def test_a_round_is_two_slices_of_an_arm_added_up() -> None:
    arm = {"slices": [{"units": n, "bytes": n, "seconds": 1.0, "cpu_s": 0.5, "task_us": [n]} for n in (1, 3, 5, 7)]}
    assert [(r["units"], r["seconds"], r["task_us"]) for r in summary.rounds_of(arm)] == [(4, 2.0, [1, 3]), (12, 2.0, [5, 7])]


def fio_job(n: int) -> dict[str, Any]:
    side = {"total_ios": n, "io_bytes": n * MIB, "runtime": 500, "clat_ns": {"percentile": {"99.000000": 2_000_000}}}
    return {"read": side, "write": {"total_ios": 0}, "usr_cpu": 10.0, "sys_cpu": 30.0, "job_runtime": 500}


def test_fios_jobs_are_added_up_and_its_percentages_become_seconds() -> None:
    got = read_report({"jobs": [fio_job(100), fio_job(50)]}, 2)
    assert (got["units"], got["seconds"], got["cpu_s"], got["block_p99_us"]) == (150, 0.5, pytest.approx(0.4), 2000)


def test_fio_that_ran_fewer_jobs_than_asked_is_a_failure() -> None:
    with pytest.raises(ArmFailed, match="4 jobs were asked for, fio ran 1"):
        read_report({"jobs": [fio_job(100)]}, 4)


def test_each_fio_job_is_a_section_of_its_own_on_huge_pages() -> None:
    cell = Cell("load", "disk", "load", ())
    words = Fio("psync", cell.config(Path("/x")))._command(0.25)
    assert sum(word.startswith("--name=") for word in words) == cell.threads
    assert {"--mem=mmaphuge", "--direct=1", "--runtime=250ms"} <= set(words)


def test_loads_are_at_random_and_new_names_never_come_twice() -> None:
    draw = random.Random(1)
    assert set(Chooser("load", 8).next(1000, 0, 0, draw)) == set(range(8))
    new = Chooser("new", 8)
    assert new.next(4, 100, 0, draw) + new.next(4, 100, 4, draw) == list(range(100, 108))
    again = Chooser("again", 8)
    assert [*again.next(6, 0, 0, draw), *again.next(6, 0, 6, draw)] == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]


def test_no_key_is_under_way_twice() -> None:
    for cell in [*short(), *full()]:
        if cell.op in ("again", "new"):
            assert cell.count >= cell.tasks * cell.task_blocks, cell.name


def test_the_full_plan_has_every_arm_and_the_short_one_too() -> None:
    for cells in (short(), full()):
        assert {arm.rstrip("~") for cell in cells for arm in cell.arms} == set(ARMS)


def test_the_full_plan_has_what_was_agreed() -> None:
    cells = full()
    for op in ("load", "again", "new"):
        for medium in ("disk", "ram-ext4", "tmpfs"):
            sizes = {cell.block_bytes for cell in cells if cell.op == op and cell.medium == medium and cell.tasks == 2}
            assert sizes >= {64 << 10, 256 << 10, MIB, 4 * MIB, 8 * MIB}, (op, medium)
    assert {cell.tasks for cell in cells if cell.op == "load" and cell.block_bytes == MIB} >= {1, 2}
    assert {cell.copies for cell in cells if cell.table == "sidecars"} == {1, 2, 4}
    assert [cell.task_blocks for cell in cells if cell.op == "lookup"] == [4096, 4096, 4096]
    assert all(cell.rounds >= 16 for cell in cells)


def test_what_is_judged_comes_first_and_has_an_a_a_beside_it() -> None:
    cells = full()
    judged = [for_a_goal(cell) for cell in cells]
    assert judged == sorted(judged, reverse=True)
    assert all("kvlane~" in cell.arms for cell in cells if for_a_goal(cell))
    assert set(names_for_goals()) >= {cell.name for cell in cells if for_a_goal(cell)}


def test_every_arm_of_a_cell_gets_its_huge_pages() -> None:
    for form, cells in (("short", short()), ("full", full())):
        for cell in cells:
            if cell.pages == "huge":
                arenas = [a for a in cell.arms if not a.startswith(("fio", "kvlane-4k"))]
                buffers = [4 if a == "fio-psync" else 16 for a in cell.arms if a.startswith("fio")]
                each = cell.config(Path("/x"))["arena_bytes"] / MIB
                wanted = cell.copies * len(arenas) * each + sum(n * max(cell.block_bytes / MIB, 2) for n in buffers)
                assert wanted <= HUGE_MIB[form], cell.name


def test_no_arm_gets_more_memory_than_its_outstanding_tasks_need() -> None:
    assert all(cell.config(Path("/x"))["arena_bytes"] <= 128 * MIB for cell in [*short(), *full()])


def test_cells_have_names_of_their_own() -> None:
    for cells in (short(), full()):
        assert len({cell.name for cell in cells}) == len(cells)


class Pool:
    """The host's huge pages, as two files."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, memory_mib: int, reserved: int, free: int) -> None:
        self.setting, self.free = folder / "nr_hugepages", folder / "free_hugepages"
        self.setting.write_text(f"{reserved}\n")
        self.free.write_text(f"{free}\n")
        monkeypatch.setattr(host, "HUGE_PAGES", self.setting)
        monkeypatch.setattr(host, "HUGE_PAGES_FREE", self.free)
        monkeypatch.setattr(host, "memory_mib", lambda name: memory_mib)


def test_huge_pages_are_reserved_beside_those_of_others_and_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, monkeypatch, 1 << 20, reserved=30, free=3)
    with pytest.raises(KeyError), host.huge_pages(100):
        assert pool.setting.read_text() == "77"  # 50 are wanted, 3 are free
        raise KeyError
    assert pool.setting.read_text() == "30"


def test_what_the_kernel_did_not_find_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Pool(tmp_path, monkeypatch, 1 << 20, reserved=0, free=3)
    with host.huge_pages(100) as pages:
        assert pages == "4k: of 50 huge pages the kernel found 3"


def test_enough_free_huge_pages_are_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, monkeypatch, 1 << 20, reserved=60, free=50)
    with host.huge_pages(100) as pages:
        assert (pages, pool.setting.read_text()) == ("huge", "60\n")


def test_no_huge_pages_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(tmp_path, monkeypatch, 1000, reserved=0, free=0)
    with host.huge_pages(100) as pages:
        assert pages.startswith("4k: ")
    assert pool.setting.read_text() == "0\n"
