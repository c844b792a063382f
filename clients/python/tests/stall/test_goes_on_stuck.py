"""The client goes on whatever becomes of its sidecar while the kernel holds calls of it: it knows at once, the next life has an
arena of its own, and at most one is abandoned.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import stall
from leaving_stage import ENGINES, NOISE_S, STUCK, family, is_gone, left_behind, resumed_and_gone
from support import eventually

from kvlane import Client, Options

CLOSE_TIMEOUT_S = 0.5


@dataclass
class Pair:
    """kv0 can be hung, kv1 is always well."""

    lab: stall.Lab
    kv: Client
    stuck: str

    def ask(self, mount: str, name: str, slots: list[Any], timeout_ms: int = 60_000) -> Any:
        ask = self.kv.load if STUCK[self.stuck][0] == "load" else self.kv.store
        return ask([name], slots, namespace="leave", mount=mount, timeout_ms=timeout_ms)

    def fill(self) -> None:
        known = lambda: self.kv.wait(self.kv.lookup(["00"], namespace="leave", mount="kv0", timeout_ms=10_000)).code != "MOUNT_SUSPENDED"  # noqa: E731
        eventually(known, "the mount is known, which on a busy machine may be after ready")
        with self.kv.leasing(1, use="store", mount="kv0") as slots:
            assert self.kv.wait(self.kv.store(["00"], slots, namespace="leave", mount="kv0", timeout_ms=10_000)).ok

    def stick(self) -> Any:
        """One request that the kernel holds."""
        slots = self.kv.lease(1, mount="kv0", use="load" if STUCK[self.stuck][0] == "load" else "store")
        held = STUCK[self.stuck][1]
        before = self.lab.ask("status")["held"][held]
        task = self.ask("kv0", "00" if STUCK[self.stuck][0] == "load" else os.urandom(8).hex(), slots)
        self.lab.wait_stuck(held, before + 1)
        return task

    def hang(self) -> None:
        self.lab.hang(STUCK[self.stuck][1], match="/case-*/blocks/*")

    def healthy_works(self) -> float:
        """A block of the healthy mount, there and back; in seconds."""
        began = time.monotonic()
        with self.kv.leasing(1, use="store", mount="kv1") as slots:
            slots[0].view[:] = b"w" * len(slots[0].view)
            stored = self.kv.wait(
                self.kv.store(["aa"], slots, namespace="leave", mount="kv1", replace=True, timeout_ms=10_000)
            )
            assert stored.ok, stored
        with self.kv.leasing(1, mount="kv1") as slots:
            loaded = self.kv.wait(self.kv.load(["aa"], slots, namespace="leave", mount="kv1", timeout_ms=10_000))
            assert loaded.ok and bytes(slots[0].view) == b"w" * len(slots[0].view), loaded
        return time.monotonic() - began


@pytest.fixture(params=[(kind, stuck) for kind in ENGINES for stuck in STUCK if stuck != "100 stuck reads"], ids=", ".join)
def pair(request: pytest.FixtureRequest, shared_lab: stall.Lab, fresh_root: Path, tmp_path: Path) -> Iterator[Pair]:
    kind, stuck = request.param
    options = Options(
        mounts={"kv0": fresh_root, "kv1": tmp_path},
        create=True,
        engine=kind,
        slot_bytes=4096,
        slots=64,
        stall_ms=200,
        close_timeout_ms=int(CLOSE_TIMEOUT_S * 1000),
    )
    with Client(options) as kv:
        made = Pair(shared_lab, kv, stuck)
        made.fill()
        try:
            yield made
        finally:
            shared_lab.resume()


def test_a_killed_sidecar_is_replaced_while_its_corpse_stays(pair: Pair) -> None:
    kv = pair.kv
    pair.hang()
    task = pair.stick()
    dead = kv.pid
    assert dead is not None and kv.ready is not None
    arena, dying = kv.ready["arena"]["path"], family(dead)
    os.kill(dead, signal.SIGKILL)
    began = time.monotonic()
    result = kv.wait(task)
    knew_s = time.monotonic() - began
    assert result.code == "SIDECAR_GONE" and [failure.slot for failure in result.failed] == ["quarantined"]
    eventually(lambda: kv.life == 2 and kv.state == "up", "the next life")
    up_s = time.monotonic() - began
    worked_s = pair.healthy_works()
    print(
        f"measured: {kv.options.engine}, {pair.stuck}: known {knew_s * 1000:.0f} ms after the SIGKILL, next life up after "
        f"{up_s * 1000:.0f} ms, a block of the healthy mount there and back in {worked_s * 1000:.0f} ms; corpse: {left_behind(*dying)}"
    )
    assert knew_s < NOISE_S
    assert not all(map(is_gone, dying)), "the kernel holds nothing: nothing was tested"
    assert kv.client_stats()["arenas_abandoned"] == 1, "the kernel may still write to its arena"
    assert kv.ready["arena"]["path"] != arena
    resumed_and_gone(pair.lab, *dying)
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0, "the arena is back")


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_sidecar_that_is_told_to_leave_answers_first(pair: Pair, sent: signal.Signals) -> None:
    kv = pair.kv
    pair.hang()
    task = pair.stick()
    dead = kv.pid
    assert dead is not None
    dying = family(dead)
    os.kill(dead, sent)
    began = time.monotonic()
    result = kv.wait(task)
    took_s = time.monotonic() - began
    assert {failure.code for failure in result.failed} == {"SHUTTING_DOWN"} and result.source == "sidecar", result
    eventually(lambda: kv.life == 2 and kv.state == "up", "the next life")
    print(f"measured: {kv.options.engine}, {pair.stuck}, {sent.name}: answered after {took_s * 1000:.0f} ms (granted 100)")
    assert took_s < NOISE_S
    pair.healthy_works()
    resumed_and_gone(pair.lab, *dying)


def test_close_returns_when_the_sidecar_has_said_its_last(pair: Pair) -> None:
    kv = pair.kv
    pair.hang()
    task = pair.stick()
    assert kv.pid is not None
    closing = family(kv.pid)
    began = time.monotonic()
    kv.close()
    took_s = time.monotonic() - began
    print(
        f"measured: {kv.options.engine}, {pair.stuck}: close() took {took_s * 1000:.0f} of {CLOSE_TIMEOUT_S * 1000:.0f} ms"
    )
    assert took_s < CLOSE_TIMEOUT_S + NOISE_S
    assert task.done and task.result.failed[0].code == "SHUTTING_DOWN"
    stuck = [pid for pid in closing if not is_gone(pid)]
    assert stuck, "the kernel holds nothing: nothing was tested"
    if stuck == closing:
        assert "left behind" in kv.notes()[-1]
    resumed_and_gone(pair.lab, *closing)


def test_close_does_not_wait_out_its_time_for_a_corpse(shared_lab: stall.Lab, fresh_root: Path, tmp_path: Path) -> None:
    """With a close timeout of 8 s the sidecar is granted half of it for its work; then it leaves, and its EOF is enough."""
    options = Options(
        mounts={"kv0": fresh_root, "kv1": tmp_path}, create=True, slot_bytes=4096, slots=64, close_timeout_ms=8_000
    )
    kv = Client(options)
    kv.wait_ready()
    made = Pair(shared_lab, kv, "stuck reads")
    made.fill()
    made.hang()
    made.stick()
    sidecar = kv.pid
    assert sidecar is not None
    closing = family(sidecar)
    os.kill(sidecar, signal.SIGTERM)  # it leaves 100 ms later, instead of the 4 s
    began = time.monotonic()
    kv.close()
    took_s = time.monotonic() - began
    print(f"measured: close() of a client whose sidecar leaves on its own took {took_s * 1000:.0f} of 8000 ms")
    assert took_s < 4
    resumed_and_gone(shared_lab, *closing)


def test_the_third_life_waits_until_one_arena_is_back(pair: Pair) -> None:
    kv = pair.kv
    pair.hang()
    dead: list[int] = []
    for life in (1, 2):
        eventually(lambda life=life: kv.life == life and kv.state == "up", f"life {life}")  # type: ignore[misc]
        pair.stick()
        assert kv.pid is not None
        dead += family(kv.pid)
        os.kill(kv.pid, signal.SIGKILL)
    eventually(lambda: kv.state == "off", "no third arena")
    assert kv.client_stats()["arenas_abandoned"] == 2
    began = time.monotonic()
    refused = [kv.lookup(["00"], mount="kv1") for _ in range(100)]
    took_s = time.monotonic() - began
    assert all(task.result is not None and task.result.code == "SATURATED" for task in refused)
    print(
        f"measured: {kv.options.engine}, {pair.stuck}: 100 requests refused as SATURATED in {took_s * 1000:.1f} ms; {kv.reason}"
    )
    assert took_s < NOISE_S
    assert all(str(pid) in kv.reason for pid in kv.client_stats()["unreaped_pids"])
    resumed_and_gone(pair.lab, *dead)
    began = time.monotonic()
    eventually(lambda: kv.state == "up", "it comes back by itself")
    print(f"measured: up again {(time.monotonic() - began) * 1000:.0f} ms after the corpses were gone")
    pair.healthy_works()
    assert kv.client_stats()["arenas_abandoned"] == 0
