"""How late an answer is, seen in Python, when the mount does not answer at all: alone, and with four programs that only burn CPU.

In between the same thread only sleeps, and is late itself: by so much the machine is late anyhow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kvlane import Client, Options

import stats
from arm_kvlane import NAMESPACE, name_of
from stage import Stage, stall

HOGS = 4
HOG_S_MAX = 60  # each ends itself then, whatever becomes of us
AT_ONCE = 8
FIRST_MS, APART_MS = 20.0, 2.5
STUCK_MAX = 512  # the lanes that may be stuck, one for each late answer


@contextlib.contextmanager
def hogs(n: int) -> Iterator[None]:
    burn = f"import signal\nsignal.alarm({HOG_S_MAX})\nwhile True: pass"
    started = [subprocess.Popen([sys.executable, "-S", "-c", burn], stdin=subprocess.DEVNULL) for _ in range(n)]
    try:
        yield
    finally:
        for hog in started:
            os.kill(hog.pid, signal.SIGKILL)
            hog.wait(5)


def late_us(kv: Client, turn: int) -> list[float]:
    """Overshoots of AT_ONCE loads; below 0 would be an early answer."""
    tasks = []
    for i in range(AT_ONCE):
        slots = kv.lease(1)
        key = name_of(turn * AT_ONCE + i)  # each its own: a key whose load hangs is refused
        tasks.append((kv.load([key], slots, namespace=NAMESPACE, timeout_ms=FIRST_MS + i * APART_MS), slots))
    found = []
    for task, slots in tasks:
        result = kv.wait(task)
        found.append(float(time.monotonic_ns() // 1000 - task.deadline_us))
        codes = {failure.code for failure in result.failed}
        if codes != {"DEADLINE_EXCEEDED"}:
            raise RuntimeError(f"a load on a hung mount ended as {codes or result}")
        for slot in slots:
            slot.release()
    return found


def sleep_late_us() -> list[float]:
    found = []
    for _ in range(AT_ONCE):
        until = time.monotonic() + APART_MS / 1000
        time.sleep(APART_MS / 1000)
        found.append((time.monotonic() - until) * 1e6)
    return found


def p99(turns: Sequence[list[float]]) -> float:
    return stats.quantile([us for turn in turns for us in turn], 0.99)


def one(stage: Stage, hog_count: int) -> dict[str, Any]:
    samples = stage.pick(64, 480) // AT_ONCE * AT_ONCE
    late: list[list[float]] = []
    slept: list[list[float]] = []
    with stall.lab() as lab:
        root = Path(lab.mnt) / "store"
        os.mkdir(root)
        options = Options(
            mounts={"kv0": root}, create=True, slot_bytes=4096, slots=2048, stuck_max=STUCK_MAX, extra_arguments=["--test-hold-breaker-closed"]
        )
        with Client(options) as kv:
            with kv.leasing(samples, use="store") as slots:
                keys = [name_of(i) for i in range(samples)]
                kv.wait(kv.store(keys, slots, namespace=NAMESPACE, timeout_ms=10_000)).check()
            lab.hang("read", match="/store/blocks/*")
            try:
                with hogs(hog_count):
                    for turn in range(samples // AT_ONCE):
                        late.append(late_us(kv, turn))
                        slept.append(sleep_late_us())
            finally:
                lab.resume()
    every = [us for turn in late for us in turn]
    return {
        "p50_us": stats.quantile(every, 0.5),
        "p99": stats.bootstrap(late, p99).as_json(),
        "max_us": max(every),
        "early": sum(us < 0 for us in every),
        "sleep_p99_us": p99(slept),
        "n": len(every),
    }


def measure(stage: Stage) -> dict[str, Any]:
    if reason := stall.lab_unavailable():
        raise RuntimeError(f"no stall lab: {reason}")
    return {"quiet": one(stage, 0), f"{HOGS} hogs": one(stage, HOGS)}
