"""The sidecars die, stop or go mute, with a load under way: the engine goes on, and uses the next one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stall

from harness import Engine
from inspect_connector import only_client
from prompts import prompt
from stories import both_modes, claims, compute, exact, make, pairs, warm
from test_hangs import SOON_S, hit_again, lab, names, shared_lab

__all__ = ["lab", "names", "shared_lab"]
TIMEOUT_MS = 400


@pytest.fixture
def hung(lab: stall.Lab) -> Iterator[stall.Lab]:
    """Reads hang, as soon as a test says so; everything goes on at its end."""
    yield lab
    lab.resume()


def stop(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


@both_modes
def test_the_workers_sidecar_killed_in_the_middle_of_a_load(
    hung: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=5000)) as engine:
        warm(engine, prompt(1, 200), behind=back)
        client = only_client(engine.workers[0].connector)
        hung.hang("read")
        engine.add("lost", prompt(1, 200))
        engine.run_until(lambda: hung.ask("status")["held"]["read"], what="a read stuck")
        began = time.monotonic()
        stop([client.pid], signal.SIGKILL)
        engine.finish("lost", limit_s=SOON_S)
        assert time.monotonic() - began < SOON_S, "long before its deadline"
        exact(engine, "lost")
        hung.resume()
        engine.run_until(lambda: client.state == "up" and client.life == 2, what="the next sidecar")
        hit_again(engine, prompt(1, 200))


@pairs
def test_a_sidecar_killed_when_a_load_is_staged_costs_nothing_or_a_recompute(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        client = only_client(engine.workers[0].connector)
        for steps in (1, 2, 3, 5):
            engine.run_until(lambda: client.state == "up", what="a sidecar")
            engine.add("hit", prompt(1, 200))
            for _ in range(steps):
                engine.step()
            os.kill(client.pid, signal.SIGKILL)
            engine.finish("hit")
            exact(engine, "hit")
            engine.run_until(lambda: client.state != "up", what="its death noticed")
            engine.forget_local()


def test_the_schedulers_sidecar_killed_costs_hits_and_nothing_else(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 100), prompt(2, 100))
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(3, 100))
        client = only_client(engine.connector)
        life = client.life
        engine.add("asked", prompt(1, 100))
        os.kill(client.pid, signal.SIGKILL)
        engine.finish("asked", limit_s=SOON_S)
        exact(engine, "asked")
        engine.run_until(lambda: client.state == "up" and client.life > life, what="the next sidecar")
        hit_again(engine, prompt(2, 100))


@pairs
@pytest.mark.parametrize("whose", ["worker", "scheduler", "both"])
def test_a_sidecar_that_is_stopped_costs_its_deadline(root: str, scheduling: str, mode: str, whose: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, prompt(1, 200), prompt(2, 200))
        clients = {"worker": [only_client(engine.workers[0].connector)], "scheduler": [only_client(engine.connector)]}
        clients["both"] = clients["worker"] + clients["scheduler"]
        pids = [client.pid for client in clients[whose]]
        stop(pids, signal.SIGSTOP)
        try:
            for number, seed in enumerate((1, 2, 5)):
                engine.add(f"r{number}", prompt(seed, 200))
            engine.finish("r0", "r1", "r2", limit_s=SOON_S)
            exact(engine)
            engine.forget_local()
        finally:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGCONT)
                except ProcessLookupError:  # found mute and replaced meanwhile
                    continue
        hit_again(engine, prompt(1, 200), 20)


def test_sidecars_that_die_again_and_again_never_stop_the_engine(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 200))
        for turn in range(12):
            engine.add("r", prompt(1 + turn % 3, 200))
            for client in engine.clients():
                if client.pid is not None:
                    os.kill(client.pid, signal.SIGKILL)
            engine.finish("r", limit_s=SOON_S)
            exact(engine, "r")
            engine.forget_local()


def test_without_any_sidecar_the_engine_serves(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling, node="/nonexistent/node")) as engine:
        compute(engine, "a", prompt(1, 200))
        compute(engine, "b", prompt(1, 100))
        engine.forget_local()
        compute(engine, "c", prompt(1, 200))
        claims(engine, "c", 0)


def test_a_root_that_cannot_be_a_store_serves_without_hits(tmp_path: Path, scheduling: str) -> None:
    file = tmp_path / "a file"
    file.write_text("not a directory")
    with Engine(make(str(file), scheduling=scheduling)) as engine:
        for number in range(5):
            compute(engine, f"r{number}", prompt(1, 200))
            engine.forget_local()
