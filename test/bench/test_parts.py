"""What turns measurements into claims: rounds, ratios of a cell, goals, fio's report, and the setting that must be put back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import goals
import host
import report
import summary
from cell import MIB, Cell
from fio import Fio, read_report
from plan import full, short
from worker import ArmFailed
from worker_loop import Chooser


def slices(gb_per_s: float, n: int = 8, cpu_s: float = 0.1, task_us: int = 1000) -> dict[str, Any]:
    one = {"units": int(gb_per_s * 1000), "bytes": int(gb_per_s * 1e9), "seconds": 1.0, "cpu_s": cpu_s, "task_us": [task_us] * 10}
    return {"facts": {"version": "1"}, "slices": [one] * n}


def a_cell(**rates: float) -> dict[str, Any]:
    arms = {name.replace("_", "-").replace("again", "kvlane~"): slices(rate) for name, rate in rates.items()}
    about = {"name": "x", "table": "load", "medium": "disk", "op": "load", "block_bytes": MIB, "pages": "huge", "task_blocks": 64}
    return {**about, "rounds": 4, "began": "", "machine_busy": 0.5, "arms": arms, "failed": {}}


def results(*found: dict[str, Any]) -> dict[str, Any]:
    conditions = {"began": "then", "load_average": ["0", "0", "0"]}
    return {"form": "full", "conditions": conditions, "parts": [conditions], "cells": dict(enumerate(found)), "tables": {}}


def test_a_round_is_two_slices_of_an_arm_added_up() -> None:
    arm = {"slices": [{"units": n, "bytes": n, "seconds": 1.0, "cpu_s": 0.5, "task_us": [n]} for n in (1, 3, 5, 7)]}
    assert [(r["units"], r["seconds"], r["task_us"]) for r in summary.rounds_of(arm)] == [(4, 2.0, [1, 3]), (12, 2.0, [5, 7])]


def test_an_arm_that_did_not_run_gives_no_ratio() -> None:
    assert summary.ratio(a_cell(kvlane=1.0), "kvlane", "floor") is None


def test_a_goal_says_by_how_much_it_is_missed() -> None:
    [line] = [x for x in goals.all_lines(results(a_cell(kvlane=1.9, fio_psync=2.0, again=1.9))) if x.goal.startswith("load / fio")]
    assert line.value == pytest.approx(0.95)
    assert (line.met, line.wanted) == (False, "≥ 0.97")
    assert "restless" not in line.noise


def test_the_report_names_what_failed_and_why() -> None:
    cell = a_cell(kvlane=2.0, fio_psync=2.0) | {"failed": {"nixl-aio": "ImportError: no such thing"}}
    text = report.text_of(results(cell))
    assert "failed: ImportError: no such thing" in text
    assert "| load / fio psync of the same depth | disk, 1 MiB, huge pages | ≥ 0.97" in text


@pytest.mark.parametrize(("value", "wanted", "met"), [(0.97, "≥ 0.97", True), (1.3, "≤ 1.2", False), (1.0, "> 1", False), (0.9, "< 1", True)])
def test_bounds(value: float, wanted: str, met: bool) -> None:
    assert goals.holds(value, wanted) is met


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
    words = Fio("psync", Cell("load", "disk", "load", ()).config(Path("/x")))._command(0.25)
    assert sum(word.startswith("--name=") for word in words) == 4
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


def test_cells_have_names_of_their_own() -> None:
    for cells in (short(), full()):
        assert len({cell.name for cell in cells}) == len(cells)


def test_huge_pages_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "nr_hugepages"
    setting.write_text("3\n")
    monkeypatch.setattr(host, "HUGE_PAGES", setting)
    monkeypatch.setattr(host, "memory_mib", lambda name: 1 << 20)
    with pytest.raises(KeyError), host.huge_pages(100) as pages:
        assert (pages, setting.read_text()) == ("huge", "50")
        raise KeyError
    assert setting.read_text() == "3"


def test_no_huge_pages_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = tmp_path / "nr_hugepages"
    setting.write_text("0\n")
    monkeypatch.setattr(host, "HUGE_PAGES", setting)
    monkeypatch.setattr(host, "memory_mib", lambda name: 1000)
    with host.huge_pages(100) as pages:
        assert pages.startswith("4k: ")
    assert setting.read_text() == "0\n"
