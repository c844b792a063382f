"""What is said of the figures: met, or not met by how much and why; what was not measured; and that a short form judges nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import goals
import plan
import report
import stats
import summary
from cell import MIB
from goals import Line


def arm(gb_per_s: float, n: int = 32, cpu_s: float = 0.1, task_us: int = 1000, wobble: float = 0.0) -> dict[str, Any]:
    slices = []
    for i in range(n):
        rate = gb_per_s * (1 + wobble * (-1) ** (i // 2))  # a round is two slices
        one = {"units": int(rate * 1000), "bytes": int(rate * 1e9), "seconds": 1.0, "cpu_s": cpu_s, "task_us": [task_us] * 10, "busy": 0.5}
        slices.append(one)
    return {"facts": {"version": "1"}, "slices": slices, "profile": {"main, user": 1.0, "kv-load-, kernel": 3.0, "idle, user": 0.01}}


def a_cell(table: str = "load", op: str = "load", **arms: dict[str, Any]) -> dict[str, Any]:
    names = {name.replace("__", "~").replace("_", "-"): found for name, found in arms.items()}
    about = {"name": f"{table}: {op}", "table": table, "medium": "disk", "op": op, "block_bytes": MIB, "pages": "huge", "task_blocks": 64}
    return {**about, "rounds": 16, "began": "", "machine_busy": 0.5, "stolen_s": 0.0, "arms": names, "failed": {}}


def results(*found: dict[str, Any], form: str = "full", **more: Any) -> dict[str, Any]:
    conditions = {"began": "then", "load_average": ["0", "0", "0"]}
    cells = {cell["name"]: cell for cell in found}
    known = {"form": form, "conditions": conditions, "parts": [conditions], "cells": cells, "tables": {}, "planned": list(cells)}
    return {**known, **more}


def line_of(goal: str, known: dict[str, Any]) -> Line:
    return next(line for line in goals.all_lines(known) if line.goal.startswith(goal))


def test_a_goal_that_is_met_is_met() -> None:
    line = line_of("load / fio", results(a_cell(kvlane=arm(2.0), fio_psync=arm(2.0), kvlane__=arm(2.0))))
    assert (line.verdict, line.pairs, line.wanted) == ("met", 16, "≥ 0.97")


def test_a_goal_that_is_missed_says_by_how_much_and_why_from_the_profile() -> None:
    cell = a_cell(kvlane=arm(1.9, cpu_s=0.38), fio_psync=arm(2.0), kvlane__=arm(1.9), floor_verify=arm(1.96))
    verdict = line_of("load / fio", results(cell)).verdict
    assert verdict.startswith("not met by 0.02 (2%): it takes 0.200 CPU s per GB")
    assert "(kv-load-, kernel 75%, main, user 25%), fio-psync 0.050" in verdict
    assert "the cores were 50% busy during kvlane" in verdict
    assert "beside fio-psync reach floor-verify 0.98" in verdict


def test_an_interval_over_the_bound_and_a_restless_machine_are_said() -> None:
    ours, again = arm(2.0, wobble=0.1), arm(2.0)
    verdict = line_of("load / fio", results(a_cell(kvlane=ours, fio_psync=arm(2.0), kvlane__=again))).verdict
    assert "the interval reaches over the goal" in verdict
    assert "the A/A says that the machine was restless" in verdict


def test_too_few_pairs_are_not_judged() -> None:
    line = line_of("load / fio", results(a_cell(kvlane=arm(1.0, n=8), fio_psync=arm(2.0, n=8))))
    assert line.verdict == "not judged: 4 pairs, 16 are wanted"


def test_every_goal_has_a_line_also_where_nothing_was_measured() -> None:
    known = results(cut="by SIGINT", planned=["something else"])
    lines = goals.all_lines(known)
    assert all(line.verdict == "not measured: the run was cut short by SIGINT" for line in lines)
    wanted = ["load / fio", "load 256", "load 64", "store over", "store new", "huge-page", "CPU seconds", "checksum", "control", "no-op"]
    wanted += ["deadline", "with 1,000", "start", "idle", "cost per block", *(f"naive: {op}" for op in ("load", "new", "again", "lookup"))]
    for goal in wanted:
        assert any(line.goal.startswith(goal) for line in lines), goal


def test_an_arm_that_failed_is_named_where_its_goal_is() -> None:
    cell = a_cell(kvlane=arm(2.0)) | {"failed": {"fio-psync": "no fio here"}}
    assert line_of("load / fio", results(cell)).verdict == "not measured: fio-psync: no fio here"


def test_a_goal_for_everywhere_is_judged_where_it_holds_least() -> None:
    sizes = enumerate((1.0, 2.5, 1.5))
    cells = [a_cell(kvlane=arm(2.0), threads=arm(theirs)) | {"name": f"{i}", "block_bytes": MIB << i} for i, theirs in sizes]
    broken = a_cell(kvlane=arm(2.0)) | {"name": "broken", "failed": {"threads": "gone"}}
    line = line_of("naive: load, throughput / threads", results(*cells, broken))
    assert (line.value, line.where) == (0.8, "disk, 2 MiB, huge pages: the worst of 3, of which 2 meet it")
    assert "(1 more not measured" in line.verdict


def test_what_a_cut_run_has_not_come_to_is_counted_where_a_goal_holds_everywhere() -> None:
    first, *others = [c.name for c in plan.full() if (c.table, c.op, c.pages) == ("naive", "load", "4k") and "node" in c.arms]
    cell = a_cell("naive", kvlane=arm(2.0), node=arm(1.0)) | {"name": first, "pages": "4k"}
    line = line_of("naive: load, throughput / node", results(cell, planned=[first, *others, "growth"]))
    assert line.where == "disk, 1 MiB, 4k pages: the worst of 1, of which 1 meet it"
    assert line.verdict == f"met ({len(others)} more not measured)"


def test_what_a_cut_run_has_not_come_to_has_its_line() -> None:
    names = [c.name for c in plan.full() if (c.table, c.medium, c.block_bytes) == ("load", "disk", 4 * MIB)]
    known = results(a_cell(kvlane=arm(2.0), fio_psync=arm(2.0)), planned=["load: load", *names], cut="by SIGINT")
    lines = [line for line in goals.all_lines(known) if line.goal == "load / fio psync of the same depth"]
    assert [(line.where, line.verdict) for line in lines] == [
        ("disk, 1 MiB, huge pages", "met"),
        ("disk, 4 MiB, huge pages", "not measured: the run was cut short by SIGINT"),
    ]


def test_the_cost_of_a_gigabyte_is_judged_at_every_size_too() -> None:
    sizes = ((64 << 10, 0.3), (MIB, 0.1), (8 * MIB, 0.2))
    cells = [a_cell(kvlane=arm(2.0, cpu_s=cpu_s), fio_psync=arm(2.0)) | {"name": f"{size}", "block_bytes": size} for size, cpu_s in sizes]
    lines = [line for line in goals.all_lines(results(*cells)) if line.goal.startswith("CPU seconds per GB / fio psync, load")]
    assert [(line.goal.endswith("every size"), line.met) for line in lines] == [(False, True), (True, False)]
    assert lines[1].where == "disk, 64 KiB, huge pages: the worst of 3, of which 1 meet it"


def test_tmpfs_is_shown_and_not_judged() -> None:
    cell = a_cell(kvlane=arm(1.0), fio_psync=arm(2.0)) | {"medium": "tmpfs"}
    assert line_of("load / fio", results(cell)).value is None


def test_the_page_size_goal_wants_huge_pages_on_one_side() -> None:
    cell = a_cell("pages", kvlane=arm(1.0), kvlane_4k_direct=arm(1.0)) | {"pages": "4k"}
    assert line_of("huge-page arena", results(cell)).value is None


def test_the_short_form_judges_nothing() -> None:
    text = report.text_of(results(a_cell(kvlane=arm(1.0), fio_psync=arm(2.0)), form="short"))
    goals_of_it = text.partition("## Goals")[2].partition("## Peers")[0]
    assert "not met" not in goals_of_it
    assert "| not judged |" in goals_of_it


def test_the_report_names_what_failed_with_all_it_said_in_one_line() -> None:
    cell = a_cell(kvlane=arm(2.0)) | {"failed": {"nixl-aio": "ERROR: no matching\ndistribution | really"}}
    text = report.text_of(results(cell))
    assert "| failed: ERROR: no matching distribution \\| really |" in text


def test_the_report_says_what_is_missing() -> None:
    known = results(a_cell(kvlane=arm(2.0)), planned=["load: load", "stuck"])
    text = report.text_of(known)
    assert "**Not complete: 1 of 2 tables are missing.**" in text
    assert "### Not measured\n\n- stuck" in text


def test_control_cost_is_a_difference_of_medians_of_the_same_round() -> None:
    cell = a_cell("control", kvlane=arm(1.0, task_us=900), floor_verify=arm(1.0, task_us=260), kvlane__=arm(1.0, task_us=900))
    line = line_of("control", results(cell | {"medium": "tmpfs", "block_bytes": 4096}))
    assert (line.value, line.unit, line.wanted) == (10.0, "µs a block", "≤ 3")
    assert line.verdict.startswith("not met by 7 µs a block (233%): a block takes")
    assert (line.noise.low, line.noise.high) == (0, 0) if line.noise else False


TRIP = {"ratio": {"value": 2.0, "low": 1.9, "high": 2.1, "n": 16}, "a_a": {"value": 1.0, "low": 0.99, "high": 1.01, "n": 16}}
LATE = {"p99": {"value": 700.0, "low": 600.0, "high": 800.0, "n": 60}, "early": 0, "sleep_p99_us": 300.0}
TABLES: dict[str, Any] = {
    "round trip": {
        "0 ms": {**TRIP, "p50_us": 100.0, "cpu_us": 80.0, "echo_p50_us": 50.0, "echo_cpu_us": 20.0},
        "1 ms": {**TRIP, "p50_us": 90.0, "cpu_us": 70.0, "echo_p50_us": 60.0, "echo_cpu_us": 30.0},
        "0 ms, one core": {**TRIP, "p50_us": 40.0, "cpu_us": 30.0, "echo_p50_us": 20.0, "echo_cpu_us": 4.0},
    },
    "deadline": {"quiet": LATE, "4 hogs": {**LATE, "early": 1}},
    "stuck": {
        "0": {"rate": TRIP["a_a"], "p99": TRIP["a_a"]},
        "1000": {"rate": TRIP["a_a"], "p99": TRIP["a_a"], "cpu": TRIP["a_a"], "grown_kib": {"resident": 30 << 10}},
    },
    "start": {"failed": "RuntimeError: nothing starts"},
    "idle": {"wake_ups_per_s": 0.5, "bare_node_mib": 40.0, "idle_s": 10.0, "idle_cpu_percent": 0.001, "ready_mib": 45.0},
    "growth": {
        "blocks a task": {"points": [{"n": 1.0, "load": 9.0}, {"n": 64.0, "load": 18.0}], "grown": {"load": TRIP["ratio"]}, "against": "1"},
    },
}


@pytest.mark.parametrize(
    ("goal", "verdict"),
    [
        (
            "no-op",
            "not met by 0.5 (33%): of 100 µs the sidecar's process computes 80; the echo's 50 µs hold 20; "
            "on one core 40 beside 20 µs, 2.00 times",
        ),
        ("deadline", "met"),
        ("with 1,000 operations stuck on another device: throughput", "met"),
        ("with 1,000 operations stuck on another device: extra", "not met by 5 MiB (20%): of it resident 30.0 MiB"),
        ("start", "not measured: RuntimeError: nothing starts"),
        ("idle", "met"),
        ("cost per block", "not met by 0.8 (67%): it is 18.0 µs a block, and 9.0 µs at 1"),
    ],
)
def test_the_judgements_of_the_tables(goal: str, verdict: str) -> None:
    assert line_of(goal, results(tables=TABLES)).verdict == verdict


def test_a_slow_start_is_told_step_by_step() -> None:
    steps = {"ready_ms": 41.0, "node_ms": 24.0, "node_and_addon_ms": 25.0, "node_addon_and_code_ms": 29.0}
    start = {**TRIP, "ready_cpu_ms": 40.0, "node_cpu_ms": 23.0, **{name: {**TRIP["ratio"], "value": ms} for name, ms in steps.items()}}
    assert line_of("start", results(tables={"start": start})).verdict == (
        "not met by 0.8 (67%): of 41.0 ms to ready, 40.0 are CPU time; an empty script takes 24.0 ms, 23.0 of them CPU time; "
        "with the addon loaded 25.0, with the bundle's code read too 29.0; to run it up to ready is the rest"
    )


def test_growth_names_the_sizes_between_too() -> None:
    points = [{"n": 2049.0, "load": 9.0}, {"n": 1002048.0, "load": 9.0}]
    beside = [{"load": {**TRIP["ratio"], "value": value}} for value in (1.0, 1.7, 1.1)]
    found = {"points": points, "grown": {"load": TRIP["a_a"]}, "beside": beside, "against": "a store of 2,048"}
    where = line_of("cost per block", results(tables={"growth": {"blocks in the store": found}})).where
    assert where == "load over blocks in the store: 1,002,048 / a store of 2,048 (at fewer, of 16 rounds each: 1.00 to 1.70)"


def test_a_peer_that_no_table_asked_for_yet_has_not_failed() -> None:
    names = [c.name for c in plan.full() if "nixl-aio" in c.arms][:2]
    text = report.text_of(results(a_cell(kvlane=arm(2.0)), planned=["load: load", "stuck", *names]))
    assert "| not run: no table that ran asked for it; 2 that will have not run yet |" in text


def test_a_table_without_the_product_compares_with_its_first_arm() -> None:
    rows = report.cell_rows(a_cell(kvlane_4k=arm(2.0), fio_psync=arm(1.0)))
    assert [row[3] for row in rows] == ["", "2.000 (2.00 to 2.00)"]


def test_one_early_answer_is_a_goal_missed() -> None:
    early = [line for line in goals.all_lines(results(tables=TABLES)) if line.goal == "early answers"]
    assert [line.verdict for line in early] == ["met", "not met by 1"]


@pytest.mark.parametrize(("value", "wanted", "met"), [(0.97, "≥ 0.97", True), (1.3, "≤ 1.2", False), (1.0, "> 1", False), (0.9, "< 1", True)])
def test_bounds(value: float, wanted: str, met: bool) -> None:
    assert goals.holds(value, wanted) is met


def test_an_arm_that_did_not_run_gives_no_ratio() -> None:
    assert summary.ratio(a_cell(kvlane=arm(1.0)), "kvlane", "floor") is None


def test_results_md_is_written_by_a_run_that_has_all_that_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "HERE", tmp_path)
    monkeypatch.setattr(plan, "names_for_goals", lambda: ["load: load"])
    kept = tmp_path / "RESULTS.md"
    report.keep(results(planned=["load: load"]), "cut before it")
    report.keep(results(a_cell(kvlane=arm(2.0, n=4), fio_psync=arm(2.0, n=4))), "two rounds")
    assert not kept.exists()
    report.keep(results(a_cell(kvlane=arm(2.0), fio_psync=arm(2.0)), planned=["load: load", "one that is not judged"]), "whole")
    assert kept.read_text() == "whole"


def test_the_page_and_the_text_take_all_of_it() -> None:
    known = results(a_cell(kvlane=arm(2.0), fio_psync=arm(2.0)), tables=TABLES)
    assert "## Goals" in report.text_of(known)
    assert isinstance(stats.Estimate(1, 1, 1, 1).as_json(), dict)
