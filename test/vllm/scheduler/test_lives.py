"""What may happen to a request on its way: aborted, preempted, out of blocks, out of slots; and to the whole cache: reset."""

from __future__ import annotations

import pytest

from harness import Engine
from model import expected
from prompts import prompt, sharing
from stories import both_modes, claims, compute, exact, files, make, no_store_under_way, pairs, ready, recording, warm, written


def test_an_abort_before_the_look_up_is_answered_leaves_nothing(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling)) as engine:
        warm(engine, prompt(1, 100))
    with Engine(make(root, scheduling=scheduling)) as engine:
        ready(engine)
        engine.add("early", prompt(1, 100))
        engine.abort("early")
        engine.add("asked", prompt(1, 100))
        engine.step()
        engine.abort("asked")
        compute(engine, "calm", prompt(1, 100))
        claims(engine, "calm", 96)


@both_modes
def test_an_abort_at_any_step_leaves_nothing(root: str, scheduling: str, mode: str) -> None:
    """At every number of steps after its arrival: looked up, staged, claimed, copying, computing, finished."""
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        for steps in range(14):
            engine.add("short", prompt(1, 200), 6)
            engine.add("other", prompt(1, 200), 6)
            for _ in range(steps):
                engine.step()
            if "short" not in engine.reason:
                engine.abort("short")
            engine.finish("other")
            exact(engine, "other")
            engine.forget_local()


@pairs
@pytest.mark.parametrize("place", ["while it is copied", "between copy and result"])
def test_an_abort_while_a_load_is_copied_gets_its_one_report(root: str, scheduling: str, mode: str, place: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))

        def abort() -> None:
            if "hit" in engine.scheduler.requests and engine.loading("hit"):
                engine.abort("hit")

        if place == "between copy and result":
            engine.before_update = abort
        else:
            recording(engine, engine.workers[0].connector, "bind_connector_metadata", lambda meta: (abort(), bind(meta)))
            bind = type(engine.connector).bind_connector_metadata.__get__(engine.workers[0].connector)
        engine.add("hit", prompt(1, 200))
        engine.run_until(lambda: "hit" in engine.reason)
        assert engine.reason["hit"] == "abort"
        engine.run_until(lambda: not engine.scheduler.requests, limit_s=5, what="blocks given back")
        engine.before_update = lambda: None
        compute(engine, "calm", prompt(1, 200))


@both_modes
def test_preempted_requests_resume_and_answer_the_same(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, blocks=34)) as engine:
        warm(engine, *(prompt(seed, 128) for seed in range(3)))
        for seed in range(3):
            engine.add(f"r{seed}", prompt(seed, 128) + prompt(50 + seed, 10), 60)
        engine.finish("r0", "r1", "r2")
        assert sum(request.num_preemptions for request in engine.requests.values()) > 0
        exact(engine)


@pairs
def test_a_preempted_request_is_a_hit_of_what_it_had_stored_itself(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        ready(engine)
        engine.add("long", prompt(1, 120), 300)
        engine.run_until(lambda: len(engine.output["long"]) > 20 and len(files(root)) >= 4 and no_store_under_way(engine))
        # Newer vLLMs cannot forget blocks while a step is in flight; older ones drop the next token for one, be there one or not.
        while engine.in_flight and hasattr(engine.scheduler, "deferred_frees"):
            engine._take_result()
        assert engine.scheduler.reset_prefix_cache(reset_running_requests=True)  # preempts it; vLLM forgets its blocks
        engine.finish("long")
        exact(engine, "long")
        assert engine.claimed("long") >= 96
        assert engine.requests["long"].num_preemptions == 1


@pairs
def test_a_claim_that_finds_no_free_blocks_is_asked_again_and_served(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, blocks=22)) as engine:
        warm(engine, prompt(1, 200))
        engine.add("big", prompt(2, 150), 60)
        engine.run_until(lambda: engine.output["big"])
        engine.add("waits", prompt(1, 200))
        engine.finish("big", "waits")
        exact(engine)
        claims(engine, "waits", 192)
        assert len([answer for answer in engine.answers["waits"] if answer[0]]) > 1, "allocation was to fail first"


@pairs
def test_more_loads_than_slots_all_end_right(root: str, scheduling: str, mode: str) -> None:
    prompts = [prompt(seed, 260) for seed in range(10)]
    setup = make(root, scheduling=scheduling, load_mode=mode, arena_mib=1, chunk_tokens=64, blocks=512, timeout_ms=600)
    with Engine(setup) as engine:
        for each in prompts:
            warm(engine, each, chunk=64)
        for number, each in enumerate(prompts):
            engine.add(f"r{number}", each)
        engine.finish(*(f"r{number}" for number in range(10)))
        exact(engine)
        assert any(engine.claimed(f"r{number}") for number in range(10))


def test_more_stores_than_slots_are_dropped_and_nothing_waits_for_them(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling, arena_mib=1, chunk_tokens=64, blocks=1024, batched_tokens=8192)) as engine:
        ready(engine)
        for seed in range(12):
            engine.add(f"r{seed}", prompt(seed, 500), 2)
        engine.finish(*(f"r{seed}" for seed in range(12)))
        exact(engine)
        assert 0 < len(files(root)) < 12 * 7


@pairs
def test_after_a_reset_nothing_stored_before_is_hit_and_what_is_stored_after_it_is(
    root: str, scheduling: str, mode: str
) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 100))
        assert engine.scheduler.reset_prefix_cache(reset_connector=True)
        compute(engine, "stale", prompt(1, 100))
        claims(engine, "stale", 0)
        engine.forget_local()
        ready(engine)
        compute(engine, "new", prompt(1, 100))
        written(engine, 6)
        engine.forget_local()
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        ready(engine)
        compute(engine, "restarted", prompt(1, 100))
        claims(engine, "restarted", 96)
    assert len({file.parts[-3] for file in files(root)}) == 2, "two generations"


@pairs
def test_a_reset_while_a_load_is_on_its_way_never_uses_what_was_stored_before(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 200))
        for steps in range(6):
            engine.add("old", prompt(1, 200))
            for _ in range(steps):
                engine.step()
            claimed_before = engine.claimed("old")
            engine.connector.reset_cache()
            engine.finish("old")
            exact(engine, "old")
            if not claimed_before:
                claims(engine, "old", 0)
            engine.forget_local()
            ready(engine)
            before = len(files(root))
            compute(engine, "stores", prompt(1, 200))
            written(engine, max(before, 6))
            engine.forget_local()


def test_requests_that_come_while_the_sidecars_start_are_served_without_them(root: str, scheduling: str) -> None:
    with Engine(make(root, scheduling=scheduling)) as engine:
        for number in range(4):
            engine.add(f"r{number}", sharing(1, 90, 20, number))
        engine.finish("r0", "r1", "r2", "r3")
        assert engine.output["r0"] == expected(sharing(1, 90, 20, 0), 3)
        exact(engine)
