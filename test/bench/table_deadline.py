"""How late an answer is, seen in Python, when the mount does not answer at all: alone, and with four programs that only burn CPU."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


def late_us(kv: Client, samples: int) -> list[float]:
    """Overshoots; below 0 would be an early answer."""
    found = []
    for turn in range(samples // AT_ONCE):
        tasks = []
        for i in range(AT_ONCE):
            slots = kv.lease(1)
            key = name_of(turn * AT_ONCE + i)  # each its own: a key whose load hangs is refused
            tasks.append((kv.load([key], slots, namespace=NAMESPACE, timeout_ms=FIRST_MS + i * APART_MS), slots))
        for task, slots in tasks:
            result = kv.wait(task)
            found.append(float(time.monotonic_ns() // 1000 - task.deadline_us))
            codes = {failure.code for failure in result.failed}
            if codes != {"DEADLINE_EXCEEDED"}:
                raise RuntimeError(f"a load on a hung mount ended as {codes or result}")
            for slot in slots:
                slot.release()
    return found


def one(stage: Stage, hog_count: int) -> dict[str, Any]:
    samples = stage.pick(64, 400) // AT_ONCE * AT_ONCE
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
                    late = late_us(kv, samples)
            finally:
                lab.resume()
    return {
        "p50_us": stats.quantile(late, 0.5),
        "p99_us": stats.quantile(late, 0.99),
        "max_us": max(late),
        "early": sum(us < 0 for us in late),
        "n": len(late),
    }


def measure(stage: Stage) -> dict[str, Any]:
    if reason := stall.lab_unavailable():
        raise RuntimeError(f"no stall lab: {reason}")
    return {"quiet": one(stage, 0), f"{HOGS} hogs": one(stage, HOGS)}
