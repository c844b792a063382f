"""From the call that starts a process to its first line: the sidecar's `ready` beside a node script that only says one line.

Between the two stand scripts that go a part of the way, in the same rounds: what is missing to `ready` is shown step by step.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from kvlane.options import main_js, node_path

import media
import plain_sidecar
import stats
from arm_kvlane import cpu_clock
from arms import CHECKOUT
from stage import Stage

# Neither loads a stream of Node's, as the sidecar does not: process.stdout alone would take some of the time that is compared.
SAY = "const fs = require('node:fs'); fs.writeSync(1, 'here\\n'); fs.readSync(0, Buffer.alloc(1));\n"
COMPILED = ", cachedData: readFileSync({code}).subarray(64)"  # where the build could make it
ADDON = "require({addon});\n"
CODE = """const {{ readFileSync }} = require('node:fs');
const {{ Script }} = require('node:vm');
const filename = {bundle};
new Script(readFileSync(filename, 'latin1'), {{ filename{compiled} }});
"""


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
        store = Path(root) / "store"
        store.mkdir()
        dist = main_js().parent
        addon = ADDON.format(addon=json.dumps(str(CHECKOUT / "native" / "build" / "Release" / "kvlane.node")))
        kept = dist / "kvlane.code"
        compiled = COMPILED.format(code=json.dumps(str(kept))) if kept.exists() else ""
        code = CODE.format(bundle=json.dumps(str(dist / "kvlane.bundle.cjs")), compiled=compiled)
        scripts = {"empty": SAY, "addon": addon + SAY, "code": addon + code + SAY}
        words = {name: [node_path(), str(root / f"{name}.cjs")] for name in scripts}  # a module would start later
        for name, script in scripts.items():
            (root / f"{name}.cjs").write_text(script)
        commands = [plain_sidecar.command(store), words["empty"], words["empty"], words["addon"], words["code"]]
        ours, empty, again, with_addon, with_code = sides = [Side(command, env) for command in commands]
        for number in range(stage.count(2, 20)):
            turn = number % len(sides)
            order = sides[turn:] + sides[:turn]
            took = [(side, side.once()) for side in [*order, *reversed(order)]]
            for side in sides:
                side.rounds.append(sum(ms for of, ms in took if of is side))
    return {
        "ratio": stats.ratio(ours.rounds, empty.rounds).as_json(),
        "a_a": stats.ratio(again.rounds, empty.rounds).as_json(),
        "ready_ms": stats.median([ms / 2 for ms in ours.rounds]).as_json(),
        "node_ms": stats.median([ms / 2 for ms in empty.rounds]).as_json(),
        "node_and_addon_ms": stats.median([ms / 2 for ms in with_addon.rounds]).as_json(),
        "node_addon_and_code_ms": stats.median([ms / 2 for ms in with_code.rounds]).as_json(),
        "ready_cpu_ms": stats.quantile(ours.cpu_ms, 0.5),
        "node_cpu_ms": stats.quantile(empty.cpu_ms, 0.5),
    }
