"""What is stored, when the store knows it, and what a reset of the cache takes away."""

from __future__ import annotations

from fakes import BLOCK, CHUNK, Engine, MakeEngine, Request, SlidingWindowSpec, keys, running, step
from support import eventually

from kvlane.vllm.messages import Orders
from kvlane.vllm.store_plan import CHUNKS_PER_STEP_MAX


def stored_keys(orders: Orders) -> list[str]:
    return [store.key for store in orders.stores]


def test_whole_chunks_of_a_prompt_are_stored_when_they_are_computed(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab", extra=3))
    (table,) = engine.allocate(request, 0)
    first, second = engine.orders((request, 0, request.num_tokens)).stores
    assert [first.key, second.key] == keys("ab")
    assert first.blocks == (tuple(table[:2]),)
    assert second.blocks == (tuple(table[2:4]),)


def test_a_chunk_that_is_half_computed_waits_for_its_other_half(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.allocate(request, 0)
    assert stored_keys(engine.orders((request, 0, CHUNK + BLOCK))) == keys("ab")[:1]
    assert stored_keys(engine.orders(cached=running(request, CHUNK + BLOCK, BLOCK, None))) == keys("ab")[1:]


def test_blocks_that_come_with_decoding_are_part_of_the_table(engine: Engine) -> None:
    request = engine.arrive(Request("r", "a", extra=0))
    engine.allocate(request, 0)
    engine.orders((request, 0, CHUNK))
    grown = Request("r", "ab")
    request.block_hashes, request.num_tokens = grown.block_hashes, grown.num_tokens
    (store,) = engine.orders(cached=running(request, CHUNK, CHUNK, ([71, 72],))).stores
    assert store.blocks == ((71, 72),)


def test_tokens_without_a_hash_are_not_certain_and_not_stored(engine: Engine) -> None:
    request = engine.arrive(Request("r", "a", extra=0))
    engine.allocate(request, 0, blocks=4)
    assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == keys("a")


def test_no_more_is_stored_than_may_be_published(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    request.num_publishable_block_hashes = 3  # type: ignore[attr-defined]
    engine.allocate(request, 0)
    assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == keys("a")


def test_what_is_known_to_be_stored_is_not_stored_again(engine: Engine) -> None:
    engine.have("a")
    request = engine.arrive(Request("r", "ab"))
    engine.settle()
    engine.allocate(request, 0)
    assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == keys("ab")[1:]


def test_what_is_on_its_way_is_not_stored_twice(engine: Engine) -> None:
    for name in "rs":
        request = engine.arrive(Request(name, "ab"))
        engine.allocate(request, 0)
        assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == (keys("ab") if name == "r" else [])


def test_a_store_that_was_reported_is_a_hit_without_a_look_up(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.allocate(request, 0)
    engine.orders((request, 0, 2 * CHUNK))
    engine.report(stored={key: {0} for key in keys("ab")})
    asked = engine.store.count("lookup")
    other = engine.arrive(Request("s", "ab"))
    engine.stage(other)
    assert engine.ask(other) == (2 * CHUNK, True)
    assert engine.store.count("lookup") == asked


def test_a_store_that_failed_is_tried_again_by_the_next_request(engine: Engine) -> None:
    for name in "rs":
        request = engine.arrive(Request(name, "a"))
        engine.allocate(request, 0)
        assert stored_keys(engine.orders((request, 0, CHUNK))) == keys("a")
        engine.report(failed_stores={keys("a")[0]: {0}})


def test_a_store_without_a_word_is_forgotten_after_the_store_timeout(engine: Engine) -> None:
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    engine.orders((request, 0, CHUNK))
    engine.clock.pass_ms(5001)
    engine.orders()
    other = engine.arrive(Request("s", "a"))
    engine.allocate(other, 0)
    assert stored_keys(engine.orders((other, 0, CHUNK))) == keys("a")


def test_a_long_prompt_is_stored_over_several_steps(engine: Engine) -> None:
    text = "a" * (CHUNKS_PER_STEP_MAX + 3)
    request = engine.arrive(Request("r", text))
    engine.allocate(request, 0)
    assert len(engine.orders((request, 0, request.num_tokens)).stores) == CHUNKS_PER_STEP_MAX
    assert len(engine.orders(cached=running(request, request.num_tokens, 1, None)).stores) == 3


def test_a_resumed_request_has_another_table(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.allocate(request, 0)
    engine.orders((request, 0, BLOCK))
    stores = engine.orders(cached=running(request, 0, 2 * CHUNK, ([81, 82, 83, 84, 85],), resumed=True)).stores
    assert [store.blocks for store in stores] == [((81, 82),), ((83, 84),)]


def test_resumed_requests_are_flags_in_older_versions(engine: Engine) -> None:
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    cached = running(request, 0, CHUNK, ([81, 82, 83],))
    del cached.resumed_req_ids
    cached.resumed_from_preemption = [True]
    (store,) = engine.orders(cached=cached).stores
    assert store.blocks == ((81, 82),)


def test_a_null_block_is_no_part_of_a_stored_chunk(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.tables["r"] = ([0, 0, 13, 14, 15],)
    engine.side.update_state_after_alloc(request, engine.tables["r"], 0)
    assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == keys("ab")[1:]


def test_blocks_behind_a_sliding_window_may_be_gone(engine_of: MakeEngine) -> None:
    engine = engine_of(specs=(SlidingWindowSpec(CHUNK),))
    request = engine.arrive(Request("r", "abcd"))
    engine.allocate(request, 0)
    stores = engine.orders(cached=running(request, 2 * CHUNK + BLOCK, CHUNK, None)).stores
    assert [store.key for store in stores] == keys("abcd")[2:3], "the first two began before the window"


def test_a_chunk_has_the_blocks_of_all_groups(engine_of: MakeEngine) -> None:
    engine = engine_of(specs=(SlidingWindowSpec(1000), SlidingWindowSpec(1000)))
    request = engine.arrive(Request("r", "a"))
    one, other = engine.allocate(request, 0)
    (store,) = engine.orders((request, 0, CHUNK)).stores
    assert store.blocks == (tuple(one[:2]), tuple(other[:2]))


def test_a_consumer_stores_nothing(engine_of: MakeEngine) -> None:
    engine = engine_of(role="kv_consumer")
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    assert engine.orders((request, 0, CHUNK)).stores == []


def test_a_failed_load_is_computed_and_stored_again(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.report(finished={"r"}, failed={"r"})
    engine.allocate(request, 0)
    assert stored_keys(engine.orders((request, 0, 2 * CHUNK))) == keys("ab")


def test_a_streaming_session_that_changes_its_end_stores_the_new_one(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.allocate(request, 0)
    engine.orders((request, 0, 2 * CHUNK))
    request.block_hashes = Request("r", "ac").block_hashes
    stores = engine.orders(cached=running(request, CHUNK, CHUNK, None)).stores
    assert [store.key for store in stores] == keys("ac")[1:]


# --- several ranks ----------------------------------------------------------------------------------------------------


def test_rank_0_writes_when_all_others_have_written(engine_of: MakeEngine) -> None:
    engine = engine_of(world_size=3)
    (key,) = keys("a")
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    assert not engine.side.has_pending_work()
    engine.orders((request, 0, CHUNK))
    assert engine.side.has_pending_work()
    engine.report(stored={key: {1}})
    assert engine.orders().commits == []
    engine.report(stored={key: {2}})
    assert engine.side.has_pending_work(), "rank 0 must be told"
    assert engine.orders().commits == [key]
    assert not engine.side.has_pending_work()
    asked = engine.store.count("lookup")
    engine.report(stored={key: {0}})
    engine.stage(engine.arrive(Request("s", "a")))
    assert engine.store.count("lookup") == asked, "known"


def test_rank_0_lets_go_when_another_failed(engine_of: MakeEngine) -> None:
    engine = engine_of(world_size=2)
    (key,) = keys("a")
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    engine.orders((request, 0, CHUNK))
    engine.report(failed_stores={key: {1}})
    orders = engine.orders()
    assert (orders.commits, orders.forgets) == ([], [key])
    assert not engine.side.has_pending_work()


def test_the_engine_is_kept_going_for_the_store_timeout_at_most(engine_of: MakeEngine) -> None:
    engine = engine_of(world_size=2)
    request = engine.arrive(Request("r", "a"))
    engine.allocate(request, 0)
    engine.orders((request, 0, CHUNK))
    engine.clock.pass_ms(5001)
    assert engine.orders().forgets == keys("a")
    assert not engine.side.has_pending_work()


# --- the namespace ------------------------------------------------------------------------------------------------------


def test_nothing_is_stored_or_claimed_without_a_namespace(engine_of: MakeEngine) -> None:
    engine = engine_of(facts=True, world_size=2)
    assert engine.namespace is not None
    silent = engine_of(world_size=2, facts=False)
    silent.store.silent.add("namespace")
    request = silent.arrive(Request("r", "a"))
    assert silent.ask(request) == (None, False)
    silent.clock.pass_ms(100)
    assert silent.ask(request) == (0, False)
    silent.allocate(request, 0)
    assert silent.orders((request, 0, CHUNK)).stores == []


def test_a_reset_is_a_new_generation_and_everything_before_is_out_of_reach(engine: Engine) -> None:
    engine.have("ab")
    before = engine.namespace
    request = engine.arrive(Request("r", "ab"))
    load = engine.stage(request)
    assert engine.side.reset_cache() is True
    orders = engine.orders()
    assert orders.drops == [load]
    assert orders.namespace != before
    assert engine.ask(request) == (None, False)
    assert engine.ask(request) == (0, False)


def test_what_was_computed_before_a_reset_is_not_stored_after_it(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    engine.allocate(request, 0)
    engine.orders((request, 0, CHUNK))
    engine.side.reset_cache()
    assert engine.orders(cached=running(request, CHUNK, CHUNK, None)).stores == []
    engine.allocate(request, 0)
    stores = engine.orders(cached=running(request, 0, 2 * CHUNK, engine.tables["r"], resumed=True)).stores
    assert len(stores) == 2, "preempted and computed again"


def test_what_was_loaded_across_a_reset_is_not_stored_after_it(engine: Engine) -> None:
    engine.have("a")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.side.reset_cache()
    engine.report(finished={"r"})
    engine.allocate(request, 0)
    assert engine.orders((request, CHUNK, CHUNK)).stores == []


def test_a_reset_that_is_not_answered_is_tried_again_and_nothing_is_served_meanwhile(engine_of: MakeEngine) -> None:
    engine = engine_of(lookup_budget_ms=1)
    engine.have("a")
    engine.store.silent.add("namespace")
    assert engine.side.reset_cache() is False
    assert not engine.namespace
    eventually(lambda: engine.store.count("namespace") == 2, "the question arrives")
    engine.store.silent.clear()
    engine.fake.say({"id": engine.store.asked[-1]["id"], "ok": False, "error": {"code": "IO_ERROR", "message": "no"}})
    engine.settle()
    assert not engine.namespace
    engine.clock.pass_ms(1000)
    assert not engine.namespace
    engine.settle()
    assert str(engine.namespace).endswith("@1")


def test_another_configuration_under_the_same_name_is_refused_with_a_sentence(engine_of: MakeEngine) -> None:
    engine = engine_of(facts=False)
    state = {"state": "differs", "generation": 0, "key_namespace": "", "fingerprint": {}}
    engine.store.answers["namespace"] = state
    request = engine.arrive(Request("r", "a"))
    engine.ask(request)
    assert engine.ask(request) == (0, False)
    assert "another configuration" in engine.said[-1]
    assert engine.side.reset_cache() is True


def test_a_sick_mount_is_asked_for_the_namespace_again_within_a_second(engine_of: MakeEngine) -> None:
    engine = engine_of(facts=False)
    engine.store.answers["namespace"] = {"ok": False, "error": {"code": "MOUNT_SUSPENDED", "message": "hangs"}}
    assert engine.namespace is None
    for _ in range(20):
        engine.clock.pass_ms(500)
        engine.settle()
        assert engine.namespace is None
    engine.store.answers.clear()
    for _ in range(2):  # one question, one answer
        engine.clock.pass_ms(500)
        engine.side.build_orders(step())
        engine.settle()
    assert engine.namespace is not None


def test_workers_with_chunks_of_their_own_size_have_the_last_word(engine_of: MakeEngine) -> None:
    engine = engine_of(chunk_tokens=2 * CHUNK)
    assert engine.side.geometry.chunk_tokens == CHUNK
