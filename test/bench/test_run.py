"""How a run goes: what counts in a cell, what happens when an arm fails, how a run is cut short and goes on, and what is left behind."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import arms
import cell as cells
import host
import media
from arms import HERE, Arm
from cell import Cell
from main import CutShort, handle_signals
from media import Medium
from results import THE_SAME, Results, missing
from worker import ArmFailed


class Fake:
    """An arm that writes down what it is told."""

    def __init__(self, name: str, log: list[str], fail_at: int = 0) -> None:
        self.name, self.log, self.slices, self.fail_at = name, log, 0, fail_at
        self.facts: dict[str, Any] = {"version": "0"}

    def fill(self, first: int, count: int) -> None:
        self.log.append(f"{self.name} fill {count}")

    def clean(self, first: int, count: int) -> None:
        self.log.append(f"{self.name} clean {first}+{count}")

    def start_slice(self, seconds: float, blocks_max: int, first: int, seed: int) -> None:
        self.seconds, self.blocks = seconds, (first, blocks_max)

    def end_slice(self, seconds: float) -> dict[str, Any]:
        lead_in = seconds == cells.LEAD_IN_S
        self.slices += not lead_in
        if self.fail_at and self.slices == self.fail_at:
            raise ArmFailed("it broke")
        self.log.append(f"{self.name} {'lead-in' if lead_in else 'slice'}{f' {self.blocks[0]}+{self.blocks[1]}' * bool(self.blocks[1])}")
        return {"units": self.slices, "bytes": 1, "seconds": 1.0, "cpu_s": 0.1, "task_us": [1]}

    def close(self) -> None:
        self.log.append(f"{self.name} close")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    said: list[str] = []
    for name, fail_at in (("a", 0), ("b", 0), ("weak", 3)):
        monkeypatch.setitem(arms.ARMS, name, Arm(name, lambda config, n=name, at=fail_at: Fake(n, said, at)))  # type: ignore[misc]
    yield said


def run(tmp_path: Path, *names: str, op: str = "load", rounds: int = 2) -> dict[str, Any]:
    small = Cell("t", "disk", op, names, rounds=rounds, data_bytes=1 << 20, slice_bytes=16 << 20)
    return cells.run(small, Medium("disk", tmp_path, ""))


def test_a_round_goes_forth_and_back_and_the_next_one_begins_with_another(log: list[str], tmp_path: Path) -> None:
    run(tmp_path, "a", "b")
    order = [line.split()[0] for line in log if line.endswith("slice")]
    assert order == ["a", "b", *"abba", *"baab"]


def test_the_first_slice_and_what_comes_before_each_are_not_kept(log: list[str], tmp_path: Path) -> None:
    found = run(tmp_path, "a", "b")
    assert [s["units"] for s in found["arms"]["a"]["slices"]] == [2, 3, 4, 5]  # its own first slice is not there
    assert log.count("a lead-in") == 5


def test_new_names_never_come_twice_and_are_taken_away_outside_of_the_slice(log: list[str], tmp_path: Path) -> None:
    run(tmp_path, "a", op="new", rounds=1)
    assert [line for line in log if "+" in line][:6] == [
        *("a lead-in 0+2", "a clean 0+2", "a slice 2+16", "a clean 2+16"),
        *("a lead-in 18+2", "a clean 18+2"),
    ]


def test_an_arm_that_breaks_is_listed_and_the_others_go_on(log: list[str], tmp_path: Path) -> None:
    found = run(tmp_path, "a", "weak")
    assert found["failed"] == {"weak": "in round 1: it broke"}
    assert len(found["arms"]["a"]["slices"]) == 4
    assert "weak" not in found["arms"]
    assert log.count("weak close") == log.count("a close") == 1


def test_nothing_is_left_where_a_cell_ran_even_if_somebody_stops_it(log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise CutShort("SIGINT")

    monkeypatch.setattr(Fake, "end_slice", stop)
    with pytest.raises(CutShort):
        run(tmp_path, "a", "b")
    assert list(tmp_path.iterdir()) == []
    assert "a close" in log


def test_a_missing_program_is_a_failed_arm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = cells.run(Cell("t", "disk", "load", ("fio-psync",), rounds=1, data_bytes=1 << 20, pages="4k"), Medium("disk", tmp_path, ""))
    assert "No such file or directory: 'fio'" in found["failed"]["fio-psync"]


def test_a_peer_that_did_not_install_is_listed_with_what_pip_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    (tmp_path / "failed").mkdir()
    (tmp_path / "failed" / "nixl-cu12.log").write_text("ERROR: Could not find a version that satisfies the requirement nixl-cu12==1.5.1\n")
    monkeypatch.setattr(arms, "PEERS_PYTHON", python)
    work = tmp_path / "work"
    work.mkdir()
    found = cells.run(Cell("t", "disk", "load", ("nixl-aio",), rounds=1, data_bytes=1 << 20), Medium("disk", work, ""))
    expected = "nixl-cu12 did not install: ERROR: Could not find a version that satisfies the requirement nixl-cu12==1.5.1"
    assert found["failed"] == {"nixl-aio": expected}


CONDITIONS = {**dict.fromkeys(THE_SAME, "x"), "cores": 2, "load_average": ["0"]}
GOOD: dict[str, Any] = {"arms": {"kvlane": {}}, "failed": {}}


def unfinished(path: Path, **conditions: Any) -> Results:
    first = Results(path, "full", False, CONDITIONS)
    first.known["planned"] = ["one", "two", "three", "idle", "start"]
    first.known["cells"] = {"one": GOOD, "two": {"arms": {}, "failed": {"all": "no space"}}}
    first.known["tables"] = {"idle": {"idle_s": 1}, "start": {"failed": "x"}}
    first.known["cut"] = "by SIGINT"
    first.save()
    return Results(path, "full", False, {**CONDITIONS, **conditions})


def test_a_full_run_goes_on_where_it_stopped_and_tries_again_what_failed(tmp_path: Path) -> None:
    again = unfinished(tmp_path / "full.json")
    assert [again.has(name) for name in ("one", "two", "three", "idle", "start")] == [True, False, False, True, False]
    assert (len(again.known["parts"]), "cut" in again.known) == (2, False)


def test_another_source_or_machine_begins_anew(tmp_path: Path) -> None:
    assert not unfinished(tmp_path / "full.json", source="d").has("one")
    assert not unfinished(tmp_path / "full.json", cores=4).has("one")
    assert not unfinished(tmp_path / "full.json", client_json="json").has("one")


def test_a_whole_run_is_not_gone_on_with(tmp_path: Path) -> None:
    whole = Results(tmp_path / "full.json", "full", False, CONDITIONS)
    whole.known |= {"planned": ["one"], "cells": {"one": GOOD}}
    whole.save()
    assert missing(whole.known) == []
    assert not Results(tmp_path / "full.json", "full", False, CONDITIONS).has("one")


def test_a_peer_may_fail_and_what_is_ours_may_not(tmp_path: Path) -> None:
    found = Results(tmp_path / "short.json", "short", False, CONDITIONS)
    found.known["cells"] = {"load": {"arms": {"kvlane": {}}, "failed": {"nixl-aio": "no such wheel", "lmcache-fs": "no torch"}}}
    assert found.broken() == []
    found.known["cells"]["load"]["failed"]["kvlane-aio"] = "it ended"
    found.known["tables"]["stuck"] = {"failed": "no FUSE"}
    assert found.broken() == ["stuck: no FUSE", "load: kvlane-aio: it ended"]


def test_the_first_signal_cuts_the_run_short_and_a_second_does_not_disturb_the_taking_down() -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        handle_signals()
        with pytest.raises(CutShort, match="SIGINT"):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_what_a_killed_run_left_on_the_disk_is_removed_by_the_next_and_what_lives_is_not(tmp_path: Path) -> None:
    dead, living, foreign = (tmp_path / f"{media.PREFIX}{end}" for end in ("deadbeef", "alive123", "notes"))
    for path in (dead, living, foreign):
        path.mkdir()
        (path / "file").touch()
    lock = os.open(living, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with media.scratch(tmp_path) as mine:
            assert {path.name for path in tmp_path.iterdir()} == {living.name, foreign.name, mine.name}
        assert {path.name for path in tmp_path.iterdir()} == {living.name, foreign.name}
    finally:
        os.close(lock)


def test_too_small_a_disk_or_memory_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "run", lambda *words: "ext4")
    with pytest.raises(RuntimeError, match=r"MiB of space in .* are wanted, \d+ MiB are free"), media.medium("disk", 1 << 40, tmp_path):
        pass
    monkeypatch.setattr(host, "memory_mib", lambda name: 3000)
    with pytest.raises(RuntimeError, match="6144 MiB of memory are wanted, 3000 MiB are free"), media.medium("tmpfs", 4096, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_would_measure_and_how_long_is_said_without_measuring() -> None:
    for form, most in (("--short", 5), ("--full", 240)):
        done = subprocess.run([sys.executable, str(HERE / "main.py"), "--plan", form], capture_output=True, text=True, timeout=30, check=True)
        minutes = float(done.stdout.splitlines()[-1].split()[0])
        assert 0 < minutes < most, done.stdout


def test_somebody_who_is_not_root_is_told_so_before_anything_is_set_up(tmp_path: Path) -> None:
    """`id` is made to say so: another user might not even be able to read this checkout."""
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", str(HERE / "run.sh"), "--short"], capture_output=True, text=True, timeout=30, check=False, env=env)
    assert done.returncode == 2
    assert done.stderr == "bench: it mounts file systems of its own and reserves huge pages, so it wants root\n"


def test_results_are_whole_or_not_there(tmp_path: Path) -> None:
    found = Results(tmp_path / "out" / "short.json", "short", False, CONDITIONS)
    found.save()
    assert json.loads(found.path.read_text())["form"] == "short"
    assert [path.name for path in found.path.parent.iterdir()] == ["short.json"]


def test_a_run_goes_on_after_a_change_of_words_and_not_after_one_of_what_is_measured(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-C", str(tmp_path), *words], check=True, capture_output=True)

    assert host.source(tmp_path) == ""
    git("init", "-q")
    for name in ("native/core/lane.cc", "test/bench/cell.py", "test/bench/report.py", "protocol/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    git("add", ".")
    git("commit", "-qm", "one")
    before = host.source(tmp_path)
    for name in ("test/bench/report.py", "protocol/README.md"):
        (tmp_path / name).write_text("two")
    assert host.source(tmp_path) == before
    git("commit", "-qam", "two")
    assert host.source(tmp_path) == before
    (tmp_path / "native/core/lane.cc").write_text("two")
    changed = host.source(tmp_path)
    git("commit", "-qam", "three")
    assert host.source(tmp_path) == changed
    (tmp_path / "native/core/new.cc").write_text("not added yet")
    assert len({before, changed, host.source(tmp_path)}) == 3
