"""A no-op there and back, beside a C program that sends the line back: what waking two processes costs anyhow."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import media
import plain_sidecar
import stats
from stage import HERE, Stage

PAUSES_MS = (0, 1, 20)  # back to back; and after a sleep, which caches and cores pay for
PINGS = 200
PINGS_PAUSED = 25
LINE = b'{"id":1,"op":"ping"}\n'


def trips(of: plain_sidecar.Program, pause_ms: int, n: int) -> list[float]:
    took = []
    for _ in range(n):
        if pause_ms:
            time.sleep(pause_ms / 1000)
        began = time.perf_counter()
        of.ask(LINE)
        took.append((time.perf_counter() - began) * 1e6)
    return took


def measure(stage: Stage) -> dict[str, Any]:
    env = plain_sidecar.environment()
    found = {}
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(media.tmpfs(64))
        ours = stack.enter_context(plain_sidecar.program(plain_sidecar.command(root), env))
        ours.line()
        echo = stack.enter_context(plain_sidecar.program([str(HERE / "build" / "echo")], env))
        for of in (ours, echo):
            trips(of, 0, 2000)  # compiled, caches filled
        for pause_ms in PAUSES_MS:
            n = PINGS if pause_ms == 0 else PINGS_PAUSED
            mine: list[list[float]] = []
            other: list[list[float]] = []
            for _ in range(stage.count(2, 16)):
                a, b, c, d = (trips(of, pause_ms, n) for of in (ours, echo, echo, ours))
                mine.append(a + d)
                other.append(b + c)
            found[f"{pause_ms} ms"] = {
                "ratio": stats.ratio([stats.quantile(r, 0.5) for r in mine], [stats.quantile(r, 0.5) for r in other]).as_json(),
                "p50_us": stats.quantile([us for r in mine for us in r], 0.5),
                "p99_us": stats.quantile([us for r in mine for us in r], 0.99),
                "echo_p50_us": stats.quantile([us for r in other for us in r], 0.5),
                "echo_p99_us": stats.quantile([us for r in other for us in r], 0.99),
            }
    return found
