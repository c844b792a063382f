"""In a container: PID 1 of a pid namespace leaves when its corpses do, and an engine beside an init at once. No more, no less."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import pytest
import stall
from leaving_stage import ENGINES, EXIT_S, NOISE_S, STEP_S, engine, is_gone, left_behind, resumed_and_gone, run_until_stuck
from support import eventually

INIT = Path(__file__).with_name("small_init.py")
STAYS_S = 0.5
"""How long is looked at what must not happen yet."""
AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def stacks(pid: int) -> str:
    """In the kernel, of all its threads: the last one to leave ends the namespace, and the first may be a zombie by then."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just left
            found.append(f"thread {task.name}: {(task / 'stack').read_text()}")
    return "\n".join(found)


@pytest.mark.parametrize("close", [True, False], ids=["close", "no close"])
@pytest.mark.parametrize("kind", ENGINES)
def test_pid_1_of_a_pid_namespace_leaves_when_its_corpses_do(
    shared_lab: stall.Lab, fresh_root: Path, kind: str, close: bool
) -> None:
    """The kernel's rule, and the one exception to the promise. No wait of ours is longer for it."""
    with engine(fresh_root, kind, wrapper=AS_PID_1, close=close) as child:
        pid_1, *rest = run_until_stuck(shared_lab, child, "stuck reads")
        assert rest, "no sidecar below it"
        child.go_on()
        ending_ns: int = child.hear("ending")["at_ns"]
        took_s = (child.hear("last line of Python")["at_ns"] - ending_ns) / 1e9
        eventually(lambda: "zap_pid_ns" in stacks(pid_1), lambda: f"the kernel ends its namespace; {stacks(pid_1)}")
        print(
            f"measured: {kind}, close {close}: PID 1 was at its last line {took_s * 1000:.0f} ms after it began to end, in the "
            f"kernel {(time.monotonic_ns() - ending_ns) / 1e6:.0f} ms after; its sidecar: {left_behind(*rest)}"
        )
        assert took_s < EXIT_S + NOISE_S
        assert not child.left_within(STAYS_S), "more than was promised: PID 1 left before its corpse"
        assert shared_lab.ask("status")["held"]["read"] >= 1
        resumed_and_gone(shared_lab, pid_1, *rest)
        assert child.process.wait(STEP_S) == 0, child.errors()


@pytest.mark.parametrize("sent", ["", "SIGKILL", "SIGSTOP"], ids=["sidecar well", "sidecar killed", "sidecar stopped"])
@pytest.mark.parametrize("close", [True, False], ids=["close", "no close"])
@pytest.mark.parametrize("kind", ENGINES)
def test_with_an_init_as_pid_1_the_engine_leaves_at_once(
    shared_lab: stall.Lab, fresh_root: Path, kind: str, close: bool, sent: str
) -> None:
    with engine(fresh_root, kind, wrapper=(*AS_PID_1, sys.executable, "-IS", str(INIT)), close=close, signal=sent) as child:
        _, _, *rest = run_until_stuck(shared_lab, child, "stuck reads")
        assert rest, "no sidecar below it"
        child.go_on()
        ending_ns: int = child.hear("ending")["at_ns"]
        left = child.hear("engine left")
        took_s = (left["at_ns"] - ending_ns) / 1e9
        print(
            f"measured: {kind}, close {close}, {sent or 'no signal'}: beside an init it left in {took_s * 1000:.0f} ms; "
            f"its sidecar: {left_behind(*rest)}"
        )
        assert left["status"] == 0, child.errors()
        assert took_s < EXIT_S + NOISE_S
        assert shared_lab.ask("status")["held"]["read"] >= 1
        assert not all(map(is_gone, rest))
        resumed_ns = time.monotonic_ns()
        resumed_and_gone(shared_lab, *rest)
        while child.hear("orphan left")["at_ns"] < resumed_ns:
            del child.said["orphan left"]  # with aio the sidecar itself may have left before, even before the engine; its keeper has not
        assert child.process.wait(STEP_S) == 0, child.errors()
