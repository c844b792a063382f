"""The engine always exits, with any number of calls stuck in the kernel, and whatever its sidecar is."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import stall
from leaving_stage import (
    ENGINES,
    EXIT_S,
    NOISE_S,
    STEP_S,
    STUCK,
    Engine,
    engine,
    left_behind,
    resumed_and_gone,
    run_until_stuck,
)

ENDS = [(close, end) for close in (True, False) for end in ("normal", "sys.exit", "exception")]


def leaves_in_time(lab: stall.Lab, child: Engine, stuck: str, what: str, status: int, noise_s: float = NOISE_S) -> None:
    below_it = run_until_stuck(lab, child, stuck)
    assert below_it
    child.go_on()
    ending_ns: int = child.hear("ending")["at_ns"]
    assert child.left_within(EXIT_S + noise_s), f"it did not exit; its sidecar: {left_behind(*below_it)}"
    took_s = (time.monotonic_ns() - ending_ns) / 1e9
    said = child.errors()
    stays = lab.ask("status")["held"][STUCK[stuck][1]]
    print(
        f"measured: {what}: exited in {took_s * 1000:.0f} ms, {stays} calls still stuck; its sidecar: {left_behind(*below_it)}"
    )
    assert child.process.wait(STEP_S) == status, said
    assert ("nobody handles this" in said) == (status == 1)
    assert "Exception ignored" not in said
    assert stays >= 1, "nothing was stuck any more"
    resumed_and_gone(lab, *below_it)


@pytest.mark.parametrize("close, end", ENDS, ids=[f"{'close' if close else 'no close'}, {end}" for close, end in ENDS])
@pytest.mark.parametrize("client", ["sync", "asyncio"])
@pytest.mark.parametrize("kind", ENGINES)
def test_an_engine_exits_in_time(
    shared_lab: stall.Lab, fresh_root: Path, kind: str, client: str, close: bool, end: str
) -> None:
    with engine(fresh_root, kind, client=client, close=close, end=end) as child:
        status = {"normal": 0, "sys.exit": 7, "exception": 1}[end]
        leaves_in_time(shared_lab, child, "stuck reads", f"{kind}, {client}, close {close}, {end}", status)


@pytest.mark.parametrize("stuck", [stuck for stuck in STUCK if stuck != "stuck reads"])
@pytest.mark.parametrize("close", [True, False], ids=["close", "no close"])
@pytest.mark.parametrize("kind", ENGINES)
def test_whatever_is_stuck(shared_lab: stall.Lab, fresh_root: Path, kind: str, close: bool, stuck: str) -> None:
    with engine(fresh_root, kind, close=close, stuck=stuck) as child:
        leaves_in_time(shared_lab, child, stuck, f"{kind}, {stuck}, close {close}", 0)


@pytest.mark.parametrize("client", ["sync", "asyncio"])
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("close", [True, False], ids=["close", "no close"])
@pytest.mark.parametrize("kind", ENGINES)
def test_whatever_its_sidecar_is(
    shared_lab: stall.Lab, fresh_root: Path, kind: str, close: bool, sent: str, client: str
) -> None:
    """A corpse, or stopped in the middle of it."""
    with engine(fresh_root, kind, client=client, close=close, signal=sent) as child:
        leaves_in_time(shared_lab, child, "stuck reads", f"{kind}, {client}, {sent}, close {close}", 0)
