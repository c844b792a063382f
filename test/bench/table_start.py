"""From the call that starts a process to its first line: the sidecar's `ready` beside a node script that only says one line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kvlane.options import node_path

import media
import plain_sidecar
import stats
from stage import Stage


def first_line_ms(words: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    with plain_sidecar.program(words, env) as started:
        started.line()
        return (time.perf_counter() - began) * 1000


def measure(stage: Stage) -> dict[str, Any]:
    env = plain_sidecar.environment()
    ours, empty, again = [], [], []
    with media.tmpfs(64) as root:
        script = root / "empty.mjs"
        script.write_text("process.stdout.write('here\\n');\nprocess.stdin.resume();\n")
        store = Path(root) / "store"
        store.mkdir()
        sidecar, node = plain_sidecar.command(store), [node_path(), str(script)]
        first_line_ms(sidecar, env)  # the store is made, the files are in the page cache
        first_line_ms(node, env)
        for _ in range(stage.count(2, 20)):
            a, b, c, d, e, f = (first_line_ms(words, env) for words in (sidecar, node, node, sidecar, node, node))
            ours.append(a + d)
            empty.append(b + c)
            again.append(e + f)
    return {
        "ratio": stats.ratio(ours, empty).as_json(),
        "a_a": stats.ratio(again, empty).as_json(),
        "ready_ms": stats.median([ms / 2 for ms in ours]).as_json(),
        "node_ms": stats.median([ms / 2 for ms in empty]).as_json(),
    }
