"""The mount hangs: real FUSE, real stuck calls. A request then costs its deadline and its own computation, and whatever
happens to it meanwhile, nothing is left behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import stall

from harness import Engine
from inspect_connector import worker_half
from prompts import prompt, sharing
from stories import both_modes, claims, compute, counted, exact, files, make, pairs, ready, warm

TIMEOUT_MS = 200
SOON_S = 10.0
"""The look-up's 2 s (`Setup.extra_config`), the deadline, the computation, and a machine that another suite keeps busy. What hangs
here hangs for longer."""


@pytest.fixture(scope="module")
def shared_lab() -> Iterator[stall.Lab]:
    if reason := stall.lab_unavailable():
        pytest.skip(f"no stall lab: {reason}")
    with stall.lab() as made:
        yield made


@pytest.fixture
def lab(shared_lab: stall.Lab) -> Iterator[stall.Lab]:
    yield shared_lab
    shared_lab.resume()


@pytest.fixture
def names(lab: stall.Lab) -> tuple[str, Path]:
    """A directory on the mount, and the same one behind the gates."""
    made = lab.back / f"case-{time.monotonic_ns()}"
    made.mkdir()
    return str(lab.mnt / made.name), made


@both_modes
def test_a_hung_read_costs_its_deadline_and_then_the_prompt_is_computed(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, prompt(1, 200), behind=back)
        lab.hang("read")
        engine.add("other", prompt(7, 30), 200)
        engine.add("hung", prompt(1, 200))
        began = time.monotonic()
        engine.finish("hung", limit_s=SOON_S)
        assert time.monotonic() - began < SOON_S
        exact(engine, "hung")
        if mode == "staged":
            claims(engine, "hung", 0)
        assert [answer for answer in engine.answers["hung"] if answer[0]] == [(192, True)] * (mode == "async")
        engine.finish("other")
        exact(engine, "other")
        lab.resume()


def test_a_hung_look_up_costs_its_budget_and_nothing_else(lab: stall.Lab, names: tuple[str, Path], scheduling: str) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 100), behind=back)
    with Engine(make(root, scheduling=scheduling, lookup_budget_ms=100)) as engine:
        ready(engine)
        lab.hang("lookup,open,getattr")
        for number in range(3):
            engine.add(f"r{number}", sharing(1, 96, 10, number))
        engine.finish("r0", "r1", "r2", limit_s=SOON_S)
        exact(engine)
        claims(engine, "r0", 0)
        lab.resume()


def test_an_engine_that_starts_on_a_hung_mount_serves_without_it_and_uses_it_afterwards(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 100), behind=back)
    lab.hang("all")
    with Engine(make(root, scheduling=scheduling, timeout_ms=TIMEOUT_MS)) as engine:
        compute(engine, "first", prompt(1, 100))
        compute(engine, "second", prompt(1, 100))
        lab.resume()
        hit_again(engine, prompt(1, 100))


@pairs
def test_requests_late_in_a_hang_cost_nothing_and_after_it_they_are_hits_again(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS, stall_ms=100)) as engine:
        warm(engine, prompt(1, 200), prompt(2, 200), behind=back)
        lab.hang("read")
        compute(engine, "hung", prompt(1, 200))
        engine.run_until(lambda: refuses(engine), what="the breaker open")
        began = engine.steps
        compute(engine, "refused", prompt(2, 200))
        assert engine.steps - began < 60, "refused at once: no waiting for a deadline"
        engine.forget_local()
        lab.resume()
        hit_again(engine, prompt(2, 200))


@both_modes
def test_a_request_that_is_aborted_while_its_load_hangs_leaves_nothing(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, prompt(1, 200), behind=back)
        lab.hang("read")
        engine.add("hung", prompt(1, 200))
        engine.run_until(lambda: lab.ask("status")["held"]["read"], what="a read stuck")
        assert engine.loading("hung") == (mode == "async")
        engine.abort("hung")
        compute(engine, "next", prompt(3, 100))
        engine.run_until(lambda: not engine.scheduler.requests, limit_s=SOON_S, what="the aborted request gone")
        lab.resume()


@pairs
def test_the_same_request_id_comes_back_while_its_former_load_still_hangs(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, prompt(1, 200), behind=back)
        lab.hang("read")
        engine.add("again", prompt(1, 200))
        engine.run_until(lambda: lab.ask("status")["held"]["read"], what="a read stuck")
        engine.abort("again")
        engine.run_until(lambda: "again" not in engine.scheduler.requests, limit_s=SOON_S)
        engine.add("again", prompt(1, 200))
        engine.run_until(lambda: engine.answers.get("again"), limit_s=SOON_S)
        lab.resume()
        engine.finish("again", limit_s=SOON_S)
        exact(engine, "again")


@pairs
def test_a_step_that_lasts_longer_than_the_deadline_loses_nothing_but_time(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, load_mode=mode, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, prompt(1, 200), behind=back)
        engine.add("busy", prompt(7, 30), 12)
        engine.run_until(lambda: engine.output["busy"])
        engine.workers[0].during_forward = lambda: time.sleep(0.3)  # the long step itself
        lab.hang("read", count=1)
        engine.add("hung", prompt(1, 200))
        engine.run_until(lambda: len(engine.output["busy"]) >= 4)
        lab.resume()
        engine.add("calm", prompt(1, 100))
        engine.finish("busy", "hung", "calm")
        exact(engine, "busy", "hung", "calm")


def test_stores_that_hang_delay_nobody_and_hold_no_blocks(lab: stall.Lab, names: tuple[str, Path], scheduling: str) -> None:
    root, _ = names
    with Engine(make(root, scheduling=scheduling, store_timeout_ms=300, blocks=40)) as engine:
        ready(engine)
        lab.hang("write,mkdir,rename")
        for seed in range(12):
            compute(engine, f"r{seed}", prompt(seed, 150))
        engine.run_until(lambda: not engine.scheduler.requests, limit_s=SOON_S, what="no request left")
        assert engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 39
        lab.resume()


@pairs
def test_under_the_default_policy_every_request_in_a_hang_ends_well(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str, mode: str
) -> None:
    root, back = names
    prompts = [sharing(seed, 160, 10, 0) for seed in range(4)]
    with Engine(make(root, scheduling=scheduling, load_mode=mode, policy=None, timeout_ms=TIMEOUT_MS)) as engine:
        warm(engine, *prompts, behind=back)
        lab.hang("read")
        for number, each in enumerate(prompts):
            engine.add(f"r{number}", each)
        engine.finish(*(f"r{number}" for number in range(4)), limit_s=SOON_S)
        exact(engine)
        lab.resume()


def test_a_reset_in_a_hang_answers_at_once_and_what_was_stored_is_not_hit(
    lab: stall.Lab, names: tuple[str, Path], scheduling: str
) -> None:
    root, back = names
    with Engine(make(root, scheduling=scheduling, timeout_ms=TIMEOUT_MS, lookup_budget_ms=100)) as engine:
        warm(engine, prompt(1, 100), behind=back)
        lab.hang("all")
        began = time.monotonic()
        engine.connector.reset_cache()
        assert time.monotonic() - began < 1.0
        compute(engine, "in it", prompt(1, 100))
        claims(engine, "in it", 0)
        engine.forget_local()
        lab.resume()
        for number in range(20):
            compute(engine, f"after{number}", prompt(1, 100))
            assert engine.claimed(f"after{number}") == 0 or len(files(back)) > 3
            engine.forget_local()


def refuses(engine: Engine) -> bool:
    return bool(worker_half(engine.workers[0].connector).link.refusal("load") == "MOUNT_SUSPENDED")


def hit_again(engine: Engine, tokens: list[int], limit_s: float = 10.0) -> None:
    """One request after the other, until one is a hit."""
    end, number = time.monotonic() + limit_s, 0
    while time.monotonic() < end:
        name = f"again{number}"
        engine.forget_local()
        compute(engine, name, tokens)
        if engine.claimed(name):
            return
        number += 1
    raise AssertionError(f"no hit within {limit_s} s; {counted(engine, 'lookups')} look-ups")
