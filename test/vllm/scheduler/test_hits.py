"""What is stored is found again and used, and every answer is the one without a cache."""

from __future__ import annotations

import pytest

from harness import Engine
from prompts import prompt, sharing
from stories import CHUNK, both_modes, claims, compute, counted, exact, files, make, pairs, ready, warm, written


@both_modes
def test_a_miss_is_computed_and_stored_and_then_it_is_a_hit(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        ready(engine)
        compute(engine, "miss", prompt(1, 100))
        claims(engine, "miss", 0)
        written(engine, 3)
        engine.forget_local()
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)
        assert counted(engine, "hit_tokens") == 96


@pairs
def test_a_prefix_that_is_stored_in_part_is_loaded_in_part(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, sharing(1, 70, 60, 0))
        compute(engine, "part", sharing(1, 70, 60, 1))
        claims(engine, "part", 64)


@both_modes
def test_local_and_stored_blocks_are_used_together_also_in_the_middle_of_a_chunk(
    root: str, scheduling: str, mode: str
) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, chunk_tokens=64)) as engine:
        whole = prompt(1, 200)
        warm(engine, whole, chunk=64)
        compute(engine, "local", whole[:80] + prompt(9, 5))  # loads one chunk, computes one block of the next
        claims(engine, "local", 64)
        compute(engine, "mixed", whole)
        claims(engine, "mixed", 192 - 80)


@pytest.mark.parametrize("chunk", [16, 32, 64, 128])
@both_modes
def test_a_chunk_may_have_any_number_of_blocks(root: str, mode: str, chunk: int) -> None:
    with Engine(make(root, load_mode=mode, chunk_tokens=chunk)) as engine:
        warm(engine, prompt(1, 270), chunk=chunk)
        assert len(files(root)) == 270 // chunk
        compute(engine, "hit", prompt(1, 270))
        assert engine.claimed("hit") == 270 // chunk * chunk


@pairs
def test_a_prompt_that_is_stored_whole_is_answered_right(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 3 * CHUNK))
        compute(engine, "hit", prompt(1, 3 * CHUNK))
        assert engine.claimed("hit") in (2 * CHUNK, 3 * CHUNK)


@pairs
def test_what_was_generated_is_stored_too(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        ready(engine)
        compute(engine, "first", prompt(1, 50), 50)
        written(engine, 3)
        talk = prompt(1, 50) + engine.output["first"]
        engine.forget_local()
        compute(engine, "second", talk + prompt(2, 20))
        claims(engine, "second", 96)


@pairs
def test_a_prefill_in_pieces_is_stored_and_loaded_whole(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, batched_tokens=48)) as engine:
        warm(engine, prompt(1, 400))
        compute(engine, "hit", prompt(1, 400))
        claims(engine, "hit", 384)


@pairs
def test_a_restarted_engine_finds_what_the_former_one_stored(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 100))
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        ready(engine)
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)


def test_another_block_size_or_layer_count_never_meets_these_blocks(root: str) -> None:
    with Engine(make(root)) as engine:
        warm(engine, prompt(1, 100))
    for other in ({"layers": 3}, {"block_size": 32, "chunk_tokens": 32}, {"weights_version": "2"}, {"hash_algo": "sha256"}):
        with Engine(make(root, **other)) as engine:
            ready(engine)
            compute(engine, "stranger", prompt(1, 100))
            claims(engine, "stranger", 0)


@pairs
def test_many_requests_that_share_a_prefix_all_use_it(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, blocks=256)) as engine:
        warm(engine, sharing(1, 128, 10, 0))
        names = [f"r{which}" for which in range(12)]
        for which, name in enumerate(names):
            engine.add(name, sharing(1, 128, 30, which))
        engine.finish(*names)
        exact(engine)
        claims(engine, "r0", 128)


@pairs
def test_a_request_id_may_be_used_again(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode)) as engine:
        warm(engine, prompt(1, 100), prompt(2, 100))
        for seed in (1, 2, 1, 3, 2):
            compute(engine, "again", prompt(seed, 100))
            engine.forget_local()


@pairs
def test_loads_may_be_started_before_the_forward_too(root: str, scheduling: str, mode: str) -> None:
    with Engine(make(root, scheduling=scheduling, load_mode=mode, start_load="before")) as engine:
        warm(engine, prompt(1, 200))
        engine.add("running", prompt(3, 40), 40)
        engine.add("hit", prompt(1, 200))
        engine.finish("running", "hit")
        exact(engine)
        claims(engine, "hit", 192)


@both_modes
def test_it_works_without_prefix_caching_in_vllm(root: str, mode: str) -> None:
    with Engine(make(root, load_mode=mode, prefix_caching=False)) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)


def test_a_producer_stores_and_never_loads(root: str) -> None:
    with Engine(make(root, role="kv_producer")) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "again", prompt(1, 100))
        claims(engine, "again", 0)


def test_a_consumer_loads_and_never_stores(root: str) -> None:
    with Engine(make(root)) as engine:
        warm(engine, prompt(1, 100))
    with Engine(make(root, role="kv_consumer")) as engine:
        ready(engine)
        compute(engine, "hit", prompt(1, 100))
        compute(engine, "miss", prompt(2, 100))
        claims(engine, "hit", 96)
    assert len(files(root)) == 3


def test_a_request_that_asks_for_no_cache_gets_none(root: str) -> None:
    with Engine(make(root)) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "own", prompt(1, 100), skip_cache=True)
        claims(engine, "own", 0)


@pytest.mark.parametrize("policy", [None, "fail"])
def test_under_the_policy_fail_a_hit_is_staged_and_used(root: str, scheduling: str, policy: str | None) -> None:
    with Engine(make(root, scheduling=scheduling, policy=policy)) as engine:
        warm(engine, prompt(1, 100))
        compute(engine, "hit", prompt(1, 100))
        claims(engine, "hit", 96)
