"""The child's side of worker.py, for arms in Python: keeps tasks outstanding until a slice is over.

An arm gives `begin(blocks)`, which starts a task and returns a handle at once, and `end(handle)`, which waits for it. Tasks are
waited for in the order of their beginning.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections import deque
from typing import Any, Protocol

OPS_RANDOM = ("load",)


class Arm(Protocol):
    facts: dict[str, Any]

    def begin(self, blocks: list[int]) -> Any: ...
    def end(self, handle: Any) -> None: ...
    def fill(self, first: int, count: int) -> None: ...
    def clean(self, first: int, count: int) -> None: ...
    def cpu_s(self) -> float: ...
    def close(self) -> None: ...


class Chooser:
    """Which blocks come next: at random for loads, one after the other else."""

    def __init__(self, op: str, count: int) -> None:
        self._op, self._count, self._at = op, count, 0

    def next(self, n: int, first: int, issued: int, draw: random.Random) -> list[int]:
        if self._op in OPS_RANDOM:
            return [draw.randrange(self._count) for _ in range(n)]
        if self._op == "new":
            return list(range(first + issued, first + issued + n))
        if self._op == "lookup":
            return [(issued + i) % (2 * self._count) for i in range(n)]
        self._at += n
        return [(self._at - n + i) % self._count for i in range(n)]


def slice_of(arm: Arm, config: dict[str, Any], chooser: Chooser, seconds: float, most: int, first: int, seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    outstanding: deque[tuple[Any, float, int]] = deque()
    issued = done = 0
    task_us: list[int] = []
    cpu, began = arm.cpu_s(), time.monotonic()

    def give() -> bool:
        nonlocal issued
        n = min(config["task_blocks"], most - issued) if most else config["task_blocks"]
        if n <= 0 or time.monotonic() - began >= seconds:
            return False
        blocks = chooser.next(n, first, issued, draw)
        at = time.monotonic()
        outstanding.append((arm.begin(blocks), at, n))
        issued += n
        return True

    for _ in range(config["tasks"]):
        give()
    while outstanding:
        handle, at, n = outstanding.popleft()
        arm.end(handle)
        task_us.append(int((time.monotonic() - at) * 1e6))
        done += n
        give()
    spent = time.monotonic() - began
    return {"units": done, "bytes": done * config["block_bytes"], "seconds": spent, "cpu_s": arm.cpu_s() - cpu, "task_us": task_us}


def serve(arm: Arm, config: dict[str, Any]) -> None:
    """Until `quit` or the end of stdin. Its garbage collector rests while a slice runs, as the inference engines do it."""
    chooser = Chooser(config["op"], config["count"])
    say({"ready": True, **arm.facts})
    gc.freeze()
    try:
        for line in sys.stdin:
            verb, *words = line.split()
            if verb == "quit":
                break
            if verb == "slice":
                gc.disable()
                result = slice_of(arm, config, chooser, float(words[0]), int(words[1]), int(words[2]), int(words[3]))
                gc.enable()
                say(result)
            elif verb == "profile":
                say({"cpu_s": getattr(arm, verb)()})
            elif verb in ("stick", "fill_sick"):
                say({"done": True, "grown_kib": getattr(arm, verb)(int(words[0]))})
            else:
                (arm.fill if verb == "fill" else arm.clean)(int(words[0]), int(words[1]))
                say({"done": True})
    finally:
        arm.close()


def say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(make: Any) -> None:
    """make(config) → arm; what it raises becomes the line that ends the worker."""
    config = json.loads(sys.argv[1])
    try:
        serve(make(config), config)
    except Exception as error:
        say({"error": f"{type(error).__name__}: {error}"})
        raise SystemExit(1) from error
