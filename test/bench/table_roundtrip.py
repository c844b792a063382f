"""A no-op there and back, beside a C program that sends the line back: what waking two processes costs anyhow.

That cost hangs on where the scheduler puts the two: on one core, or each on one of its own, where each wake-up goes to a core that
sleeps. It puts a program that computes little on the asker's core and one that computes more on another, so that the two programs
do not pay alike. Hence the same once more with each placement held.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

import media
import plain_sidecar
import stats
from arm_kvlane import cpu_clock
from stage import HERE, Stage

PAUSES_MS = (0, 1, 20)  # back to back; and after a sleep, which caches and cores pay for
PINGS = 200
PINGS_PAUSED = 25
WARM = 2000  # compiled, caches filled
LINE = b'{"id":1,"op":"ping"}\n'


class Side:
    """One program, and what was seen of it in each round: the median trip, all trips, and its CPU time for a trip."""

    def __init__(self, program: plain_sidecar.Program) -> None:
        self.program = program
        self.clock = cpu_clock(program.process.pid)
        self.rounds: list[float] = []
        self.trips: list[float] = []
        self.cpu_s = 0.0

    def some(self, pause_ms: int, n: int) -> list[float]:
        took = []
        cpu = time.clock_gettime(self.clock)
        for _ in range(n):
            if pause_ms:
                time.sleep(pause_ms / 1000)
            began = time.perf_counter()
            self.program.ask(LINE)
            took.append((time.perf_counter() - began) * 1e6)
        self.cpu_s += time.clock_gettime(self.clock) - cpu
        return took

    def keep(self, took: list[float]) -> None:
        self.rounds.append(stats.quantile(took, 0.5))
        self.trips += took


def measure(stage: Stage) -> dict[str, Any]:
    env = plain_sidecar.environment()
    found = {}
    with contextlib.ExitStack() as stack:
        root = stack.enter_context(media.tmpfs(64))
        commands = [plain_sidecar.command(root), [str(HERE / "build" / "echo")], plain_sidecar.command(root)]
        programs = [stack.enter_context(plain_sidecar.program(words, env)) for words in commands]
        for number, program in enumerate(programs):
            if commands[number] == commands[0]:
                program.line()  # ready
            Side(program).some(0, WARM)
        rounds = stage.count(2, 16)
        for pause_ms in PAUSES_MS:
            found[f"{pause_ms} ms"] = trips(programs, pause_ms, rounds)
        cores = sorted(os.sched_getaffinity(0))
        for name, theirs in (("0 ms, one core", cores[:1]), ("0 ms, two cores", cores[1:2])):
            if theirs:
                with held(programs, cores[0], theirs[0]):
                    found[name] = trips(programs, 0, rounds)
    return found


def trips(programs: list[plain_sidecar.Program], pause_ms: int, rounds: int) -> dict[str, Any]:
    n = PINGS if pause_ms == 0 else PINGS_PAUSED
    sides = [Side(program) for program in programs]
    for number in range(rounds):
        order = sides[number % 3 :] + sides[: number % 3]
        took: dict[int, list[float]] = {}
        for side in [*order, *reversed(order)]:
            took.setdefault(id(side), []).extend(side.some(pause_ms, n))
        for side in sides:
            side.keep(took[id(side)])
    ours, echo, again = sides
    return {
        "ratio": stats.ratio(ours.rounds, echo.rounds).as_json(),
        "a_a": stats.ratio(ours.rounds, again.rounds).as_json(),
        "p50_us": stats.quantile(ours.trips, 0.5),
        "p99_us": stats.quantile(ours.trips, 0.99),
        "cpu_us": ours.cpu_s / len(ours.trips) * 1e6,
        "echo_p50_us": stats.quantile(echo.trips, 0.5),
        "echo_p99_us": stats.quantile(echo.trips, 0.99),
        "echo_cpu_us": echo.cpu_s / len(echo.trips) * 1e6,
    }


@contextlib.contextmanager
def held(programs: list[plain_sidecar.Program], asker: int, theirs: int) -> Iterator[None]:
    """The asker on one core, all threads of the programs on another, or on the same."""
    before = os.sched_getaffinity(0)
    threads = [int(thread) for program in programs for thread in os.listdir(f"/proc/{program.process.pid}/task")]
    try:
        os.sched_setaffinity(0, {asker})
        for thread in threads:
            os.sched_setaffinity(thread, {theirs})
        yield
    finally:
        for thread in (0, *threads):
            os.sched_setaffinity(thread, before)
