"""The engine's event loop goes on: the largest gap of a ticker while a mount hangs under 10, 100 and 1,000 requests, and
with 1,000 operations really in the kernel; also when the engine's own stderr lies on the mount that hangs.

Seen on a quiet machine the gap stays under 20 ms. What is asserted leaves room for a busy one, and more so by as much as
a bare thread of the same process was kept waiting, which has nothing to do with the loop.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import stall

CHILD = Path(__file__).with_name("ticker_child.py")
GOAL_MS = 20
GAP_MS = 200
LATE_MS = 250
"""After the deadline, as the caller sees it; the client's own last word comes 20 ms after it at the latest."""
ENGINES = ("threads", "aio")
CHILD_S = 90.0
"""A child that takes longer is ended; the lab has gone on by itself long before."""


@contextmanager
def child(asked: dict[str, Any], stderr: Path) -> Iterator[subprocess.Popen[str]]:
    fd = os.open(stderr, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(
            [sys.executable, str(CHILD), json.dumps(asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=fd,
            text=True,
            cwd="/",
        )
    finally:
        os.close(fd)  # now: on a mount that hangs, closing a file hangs too
    guard = threading.Timer(CHILD_S, process.kill)
    guard.start()
    try:
        yield process
    finally:
        process.kill()
        assert process.stdin and process.stdout
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(20)
        finally:
            guard.cancel()


def line_of(process: subprocess.Popen[str], log: Path) -> Any:
    assert process.stdout
    line = process.stdout.readline()
    assert line, f"the child ended: {log.read_text()}"
    return json.loads(line)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def ticks_on(
    lab: stall.Lab, asked: dict[str, Any], *, on_mount: bool, hang: Callable[[], None], held: Callable[[], None]
) -> None:
    what = f"{asked['engine']}: {asked['requests']} requests{', all stuck' * asked['stuck']}{', stderr on the hung mount' * on_mount}"
    asked = {**asked, "root": str(lab.mnt)}
    with child(asked, (lab.mnt if on_mount else lab.back) / "engine.log") as process:
        log = lab.back / "engine.log"  # the same file, behind the gates
        try:
            assert line_of(process, log) == "filled"
            hang()
            go(process)
            held()
            figures = line_of(process, log)
        finally:
            lab.resume()
        go(process)
        end = line_of(process, log)
    late = figures["late_ms"]
    print(
        f"\nmeasured: {what}: largest gap {figures['gap_ms']:.1f} ms (goal {GOAL_MS}; a bare thread beside it "
        f"{figures['thread_gap_ms']:.1f}) in {figures['ticks']} ticks; after the deadline p50 {late['p50']:.1f} p99 {late['p99']:.1f} "
        f"max {late['max']:.1f} ms; {figures['answers']}; last word by the client: {figures['last_words']}"
    )
    noise_ms = figures["thread_gap_ms"]
    assert figures["gap_ms"] < GAP_MS + 2 * noise_ms
    assert late["max"] < LATE_MS + 2 * noise_ms
    assert late["min"] >= 0, "a time-out before its deadline"
    # Once --stuck-max lanes are stuck, what still waits for one is told so at once.
    possible = {"DEADLINE_EXCEEDED"} if asked["stuck"] else {"DEADLINE_EXCEEDED", "incomplete", "SATURATED"}
    assert set(figures["answers"]) <= possible, "something was answered by a mount that hangs"
    assert end == {"healthy": True}


@pytest.mark.parametrize("on_mount", [False, True], ids=["stderr elsewhere", "stderr on the mount"])
@pytest.mark.parametrize("requests", [10, 100, 1000])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_loop_ticks_on_while_everything_hangs(fuse_lab: stall.Lab, engine: str, requests: int, on_mount: bool) -> None:
    asked = {"engine": engine, "requests": requests, "timeout_ms": 1500, "stuck": False}
    ticks_on(fuse_lab, asked, on_mount=on_mount, hang=lambda: fuse_lab.hang("all"), held=lambda: fuse_lab.wait_stuck("all"))


@pytest.mark.parametrize("on_mount", [False, True], ids=["stderr elsewhere", "stderr on the mount"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_loop_ticks_on_with_a_thousand_operations_stuck(fuse_lab: stall.Lab, engine: str, on_mount: bool) -> None:
    asked = {"engine": engine, "requests": 1000, "timeout_ms": 8000, "stuck": True}

    def hang() -> None:
        fuse_lab.hang("read", match="/blocks/*")
        if on_mount:
            fuse_lab.hang("write,close", match="/engine.log")

    ticks_on(fuse_lab, asked, on_mount=on_mount, hang=hang, held=lambda: fuse_lab.wait_stuck("read", 1000))
