"""From the call that starts a process to its first line: the sidecar's `ready` beside a node script that only says one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kvlane.options import node_path

import media
import plain_sidecar
import stats
from arm_kvlane import cpu_clock
from stage import Stage


class Side:
    def __init__(self, words: list[str], env: dict[str, str]) -> None:
        self._words, self._env = words, env
        self.rounds: list[float] = []
        self.cpu_ms: list[float] = []
        self.once()  # the store is made, the files are in the page cache
        self.cpu_ms.clear()

    def once(self) -> float:
        began = time.perf_counter()
        with plain_sidecar.program(self._words, self._env) as started:
            started.line()
            took = (time.perf_counter() - began) * 1000
            self.cpu_ms.append(time.clock_gettime(cpu_clock(started.process.pid)) * 1000)
        return took


def measure(stage: Stage) -> dict[str, Any]:
    env = plain_sidecar.environment()
    with media.tmpfs(64) as root:
        script = root / "empty.cjs"  # a module would start later
        script.write_text("process.stdout.write('here\\n');\nprocess.stdin.resume();\n")
        store = Path(root) / "store"
        store.mkdir()
        node = [node_path(), str(script)]
        ours, empty, again = sides = [Side(words, env) for words in (plain_sidecar.command(store), node, node)]
        for number in range(stage.count(2, 20)):
            order = sides[number % 3 :] + sides[: number % 3]
            took = [(side, side.once()) for side in [*order, *reversed(order)]]
            for side in sides:
                side.rounds.append(sum(ms for of, ms in took if of is side))
    return {
        "ratio": stats.ratio(ours.rounds, empty.rounds).as_json(),
        "a_a": stats.ratio(again.rounds, empty.rounds).as_json(),
        "ready_ms": stats.median([ms / 2 for ms in ours.rounds]).as_json(),
        "node_ms": stats.median([ms / 2 for ms in empty.rounds]).as_json(),
        "ready_cpu_ms": stats.quantile(ours.cpu_ms, 0.5),
        "node_cpu_ms": stats.quantile(empty.cpu_ms, 0.5),
    }
