"""What a request is promised, from its arrival to its end. Staged loads; the asynchronous ones stand at the end."""

from __future__ import annotations

import pytest
from fakes import BLOCK, CHUNK, PER_CHUNK, Engine, MakeEngine, Request, keys
from support import eventually

from kvlane.vllm import lookups
from kvlane.vllm.claims import PAUSE_US, RESTARTS_MAX
from kvlane.vllm.config import ConnectorOptions
from kvlane.vllm.loads import STEPS_AFTER_DEADLINE
from kvlane.vllm.messages import Staged, WorkerFacts

# --- look-ups ------------------------------------------------------------------------------------------------------


def test_a_prefix_that_is_nowhere_is_a_miss(engine: Engine) -> None:
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request) == (0, False)
    assert engine.orders().loads == []


def test_a_hit_is_staged_claimed_and_copied(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "abc"))
    assert engine.ask(request) == (None, False)
    (load,) = engine.orders().loads
    assert load.keys == tuple(keys("ab"))
    assert load.request == "r"
    assert load.timeout_ms > 0
    assert engine.ask(request) == (None, False), "no rank has said a word"
    engine.report(staged={load.load: {0: Staged(2)}})
    assert engine.ask(request) == (2 * CHUNK, True)
    assert engine.ask(request) == (2 * CHUNK, True), "no room yet, and so it asks again"
    (table,) = engine.allocate(request, 2 * CHUNK)
    (copy,) = engine.orders().copies
    assert (copy.load, copy.request, copy.chunks, copy.skip_blocks) == (load.load, "r", 2, 0)
    assert copy.blocks == (tuple(table[:4]),)


def test_a_whole_prompt_may_be_a_hit(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab", extra=0))
    engine.stage(request)
    assert engine.ask(request) == (2 * CHUNK, True)


def test_the_look_up_is_on_its_way_when_the_request_arrives(engine: Engine) -> None:
    engine.arrive(Request("r", "ab"))
    assert engine.store.count("lookup") == 1


def test_without_the_arrival_hook_the_first_question_starts_it(engine: Engine) -> None:
    engine.have("ab")
    request = Request("r", "ab")
    assert engine.ask(request) == (None, False)
    assert engine.ask(request) == (None, False)
    assert len(engine.orders().loads) == 1


def test_a_look_up_without_an_answer_costs_its_budget_and_no_more(engine: Engine) -> None:
    engine.store.silent.add("lookup")
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request) == (None, False)
    engine.clock.pass_ms(99)
    assert engine.ask(request) == (None, False)
    engine.clock.pass_ms(1)
    assert engine.ask(request) == (0, False)


def test_a_partial_answer_counts_as_far_as_it_is_proven(engine: Engine) -> None:
    engine.store.answers["lookup"] = {"present": [True, True, None], "prefix": 2, "complete": False}
    request = engine.arrive(Request("r", "abc"))
    assert engine.ask(request) == (None, False)
    (load,) = engine.orders().loads
    assert load.keys == tuple(keys("ab"))


def test_what_was_found_once_is_not_asked_again(engine: Engine) -> None:
    engine.have("ab")
    engine.arrive(Request("r", "ab"))
    engine.orders()
    asked = engine.store.count("lookup")
    second = engine.arrive(Request("s", "ab"))
    assert engine.ask(second) == (None, False)
    assert engine.store.count("lookup") == asked
    assert len(engine.orders().loads) == 1


def test_a_miss_is_remembered_for_a_second(engine: Engine) -> None:
    engine.arrive(Request("r", "ab"))
    engine.have("ab")  # by another engine, just now
    assert engine.ask(engine.arrive(Request("s", "ab"))) == (0, False)
    engine.clock.pass_ms(1001)
    assert engine.ask(engine.arrive(Request("t", "ab"))) == (None, False)
    assert len(engine.orders().loads) == 1


def test_a_request_that_does_not_want_the_cache_gets_nothing(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab", skip_reading_prefix_cache=True))
    assert engine.ask(request) == (0, False)
    assert engine.store.count("lookup") == 0


def test_a_producer_loads_nothing(engine_of: MakeEngine) -> None:
    engine = engine_of(role="kv_producer")
    engine.have("ab")
    assert engine.ask(engine.arrive(Request("r", "ab"))) == (0, False)


def test_a_look_up_that_has_to_wait_for_its_turn_is_asked_later(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "IN_FLIGHT_MAX", 1)
    engine.store.silent.add("lookup")
    engine.arrive(Request("r", "ab"))
    second = engine.arrive(Request("s", "cd"))
    assert engine.ask(second) == (None, False)
    assert engine.store.count("lookup") == 1
    engine.clock.pass_ms(100)
    assert engine.ask(second) == (0, False)


# --- the engine's own hit -------------------------------------------------------------------------------------------


def test_what_the_engine_has_itself_is_not_loaded(engine: Engine) -> None:
    engine.have("abcd")
    request = engine.arrive(Request("r", "abcd"))
    assert engine.ask(request, CHUNK) == (None, False)
    (load,) = engine.orders().loads
    assert load.keys == tuple(keys("abcd")[1:])
    engine.report(staged={load.load: {0: Staged(3)}})
    assert engine.ask(request, CHUNK) == (3 * CHUNK, True)


def test_a_hit_that_ends_within_a_chunk_has_its_blocks_skipped(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    copy = engine.claim(request, computed=BLOCK)
    (table,) = engine.tables["r"]
    assert (copy.chunks, copy.skip_blocks) == (2, 1)
    assert copy.blocks == (tuple(table[1:4]),)


def test_the_engines_hit_may_grow_while_we_load(engine: Engine) -> None:
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.stage(request)
    computed = CHUNK + BLOCK
    assert engine.ask(request, computed) == (3 * CHUNK - computed, True)
    (table,) = engine.allocate(request, 3 * CHUNK - computed)
    (copy,) = engine.orders().copies
    assert (copy.chunks, copy.skip_blocks) == (3, 1)
    assert copy.blocks == ((0, 0, *table[3:6]),), "the first block is skipped, the next two are the engine's own"


def test_an_engine_that_has_it_all_meanwhile_gets_nothing_and_the_slots_are_free(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    load = engine.stage(request)
    assert engine.ask(request, 2 * CHUNK) == (0, False)
    engine.allocate(request, 0)
    assert engine.orders().drops == [load]


def test_the_engines_hit_may_shrink_and_then_another_load_begins(engine: Engine) -> None:
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    first = engine.stage(request, computed=2 * CHUNK)
    assert engine.ask(request) == (None, False)
    orders = engine.orders()
    assert orders.drops == [first]
    assert [load.keys for load in orders.loads] == [tuple(keys("abc"))]


def test_a_hit_that_shrinks_for_ever_is_given_up(engine: Engine) -> None:
    engine.have("abcd")
    request = engine.arrive(Request("r", "abcd"))
    for computed in range(RESTARTS_MAX + 1, 0, -1):
        engine.stage(request, computed=computed * CHUNK)
    assert engine.ask(request, 0) == (0, False)


def test_fewer_tokens_may_be_used_than_were_promised(engine: Engine) -> None:
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.stage(request)
    assert engine.ask(request) == (3 * CHUNK, True)
    (table,) = engine.allocate(request, CHUNK + BLOCK)
    (copy,) = engine.orders().copies
    assert copy.chunks == 2
    assert copy.blocks == ((*table[:3], 0),)


def test_what_was_promised_but_not_used_is_dropped(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    load = engine.stage(request)
    assert engine.ask(request) == (2 * CHUNK, True)
    engine.allocate(request, 0)
    orders = engine.orders()
    assert (orders.drops, orders.copies) == ([load], [])


# --- slots ------------------------------------------------------------------------------------------------------------


def test_only_what_fits_the_slots_is_claimed(engine_of: MakeEngine) -> None:
    engine = engine_of(slots=2)
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.stage(request)
    assert engine.ask(request) == (2 * CHUNK, True)


def test_a_request_waits_for_slots_until_its_budget_is_over(engine_of: MakeEngine) -> None:
    engine = engine_of(slots=2)
    engine.have("ab")
    engine.have("cd")
    engine.ask(engine.arrive(Request("r", "ab")))
    other = engine.arrive(Request("s", "cd"))
    assert engine.ask(other) == (None, False)
    engine.clock.pass_ms(100)
    assert engine.ask(other) == (0, False)


def test_slots_are_free_again_when_the_copy_is_finished(engine_of: MakeEngine) -> None:
    engine = engine_of(slots=2)
    engine.have("ab")
    engine.have("cd")
    engine.claim(engine.arrive(Request("r", "ab")))
    other = engine.arrive(Request("s", "cd"))
    assert engine.ask(other) == (None, False)
    engine.report(finished={"r"})
    engine.stage(other)
    assert engine.ask(other) == (2 * CHUNK, True)


def test_slots_of_a_dropped_load_count_until_the_kernel_has_had_its_time(engine_of: MakeEngine) -> None:
    engine = engine_of(slots=2, timeout_ms=200)
    engine.have("ab")
    engine.have("cd")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    (load,) = engine.orders().loads
    engine.side.request_finished(request)
    assert engine.orders().drops == [load.load]
    other = engine.arrive(Request("s", "cd"))
    assert engine.ask(other) == (None, False)
    engine.clock.pass_ms(221)
    engine.orders()
    assert engine.ask(engine.arrive(Request("t", "cd"))) == (None, False)
    assert len(engine.orders().loads) == 1


# --- failures ---------------------------------------------------------------------------------------------------------


def test_a_load_that_timed_out_is_never_tried_again_for_that_request(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.stage(request, 0, "DEADLINE_EXCEEDED")
    assert engine.ask(request) == (0, False)
    engine.allocate(request, 0)
    assert engine.ask(request) == (0, False), "also after a preemption"
    assert engine.counted()["recomputed_tokens|reason=timeout"] == 2 * CHUNK


def test_what_was_staged_before_a_failure_is_used(engine: Engine) -> None:
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.stage(request, 2, "CORRUPT")
    assert engine.ask(request) == (2 * CHUNK, True)
    assert engine.ask(request) == (2 * CHUNK, True)
    assert engine.counted()["recomputed_tokens|reason=corrupt"] == CHUNK


def test_a_damaged_chunk_is_a_miss_for_others_too_and_is_stored_again(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.stage(request, 1, "CORRUPT")
    tokens, _ = engine.ask(request)
    assert tokens == CHUNK
    engine.allocate(request, CHUNK)
    engine.orders()
    engine.report(finished={"r"})
    engine.allocate(request, 0)
    assert [store.key for store in engine.orders((request, CHUNK, CHUNK + 1)).stores] == [keys("ab")[1]]
    engine.report(stored={keys("ab")[1]: {0}})
    other = engine.arrive(Request("s", "ab"))
    engine.stage(other)
    assert engine.ask(other) == (2 * CHUNK, True)


def test_a_report_that_never_comes_is_a_timeout_some_steps_after_the_deadline(engine_of: MakeEngine) -> None:
    engine = engine_of(timeout_ms=200)
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    (load,) = engine.orders().loads
    engine.clock.pass_ms(5000)
    assert engine.ask(request) == (None, False), "one long step: the word may be on its way"
    for _ in range(STEPS_AFTER_DEADLINE):
        assert engine.ask(request) == (None, False)
        engine.orders()
    assert engine.ask(request) == (0, False)
    assert engine.orders().drops == [load.load]
    assert engine.counted()["load_timeouts|phase=report"] == 1


def test_all_ranks_decide_how_far_a_hit_goes(engine_of: MakeEngine) -> None:
    engine = engine_of(world_size=2)
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.ask(request)
    (load,) = engine.orders().loads
    engine.report(staged={load.load: {0: Staged(3)}})
    assert engine.ask(request) == (None, False)
    engine.report(staged={load.load: {1: Staged(1, "NOT_FOUND")}})
    assert engine.ask(request) == (CHUNK, True)


def test_after_a_suspended_mount_nothing_is_ordered_for_a_moment(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.stage(request, 0, "MOUNT_SUSPENDED")
    assert engine.ask(request) == (0, False)
    assert engine.ask(engine.arrive(Request("s", "ab"))) == (0, False)
    engine.clock.pass_ms(PAUSE_US / 1000)
    third = engine.arrive(Request("t", "ab"))
    engine.stage(third)
    assert engine.ask(third) == (2 * CHUNK, True), "the chunks were never in doubt"


def test_while_its_own_mount_is_suspended_every_answer_is_no(engine: Engine) -> None:
    engine.have("ab")
    mount = {"event": "mount", "mount": "kv", "class": "metadata", "state": "suspended", "was": "ok", "reason": "hangs"}
    engine.fake.say(mount)
    eventually(lambda: engine.side.refusal_now(), "the event arrives")
    assert engine.ask(engine.arrive(Request("r", "ab"))) == (0, False)
    assert engine.store.count("lookup") == 0


def probing(engine: Engine, state: str = "probing") -> None:
    engine.fake.say(
        {"event": "mount", "mount": "kv", "class": "metadata", "state": state, "was": "suspended", "reason": "test"}
    )
    link = engine.side._link
    eventually(lambda: link.is_probing("metadata") == (state == "probing"), "the event arrives")


def test_a_request_waits_for_a_mount_that_has_begun_to_answer(engine: Engine) -> None:
    engine.have("ab")
    probing(engine)
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request) == (None, False)
    assert engine.store.count("lookup") == 0, "it would be refused"
    probing(engine, "ok")
    assert engine.ask(request) == (None, False), "now it is looked up"
    engine.stage(request)
    assert engine.ask(request) == (2 * CHUNK, True)


def test_a_request_waits_for_a_probed_mount_no_longer_than_its_budget(engine: Engine) -> None:
    engine.have("ab")
    probing(engine)
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request) == (None, False)
    engine.clock.pass_ms(ConnectorOptions(root="/nowhere").lookup_budget_ms)
    assert engine.ask(request) == (0, False)


def test_a_mount_that_is_suspended_again_is_not_waited_for(engine: Engine) -> None:
    engine.have("ab")
    probing(engine)
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request) == (None, False)
    probing(engine, "suspended")
    assert engine.ask(request) == (0, False)


def test_while_the_sidecar_is_gone_every_answer_is_no(engine: Engine) -> None:
    engine.have("ab")
    engine.fake.order(exit=1)
    eventually(lambda: engine.clients[0].state != "up")
    request = Request("r", "ab")
    engine.side.on_new_request(request)
    assert engine.side.get_num_new_matched_tokens(request, 0) == (0, False)


def test_a_failed_copy_is_told_by_request(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.report(finished={"r"}, failed={"r"})
    assert engine.ask(request) == (0, False)
    assert engine.counted()["recomputed_tokens|reason=load_failed"] == 2 * CHUNK


def test_a_failed_copy_is_told_by_blocks(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    copy = engine.claim(request, computed=BLOCK)
    engine.report(invalid={copy.blocks[0][1]})  # the second chunk's first block
    engine.report(finished={"r"})
    assert engine.ask(request) == (0, False)
    assert engine.counted()["recomputed_tokens|reason=load_failed"] == CHUNK


def test_failed_blocks_of_others_are_not_ours(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.report(invalid={4711}, finished={"r"})
    engine.side.request_finished(request)
    again = engine.arrive(Request("r", "ab"))
    engine.stage(again)
    assert engine.ask(again) == (2 * CHUNK, True)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_an_abort_before_the_order_leaves_nothing(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    engine.side.request_finished(request)
    orders = engine.orders()
    assert (orders.loads, orders.drops, orders.copies) == ([], [], [])


def test_an_abort_while_staging_drops_the_load(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    (load,) = engine.orders().loads
    engine.side.request_finished(request)
    assert engine.orders().drops == [load.load]
    engine.report(staged={load.load: {0: Staged(2)}})  # was on its way


def test_an_abort_while_copying_is_left_to_the_worker(engine_of: MakeEngine) -> None:
    engine = engine_of(slots=2)
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.side.request_finished(request)
    assert engine.orders().drops == []
    engine.report(finished={"r"})
    again = engine.arrive(Request("r", "ab"))
    engine.stage(again)
    assert engine.ask(again) == (2 * CHUNK, True), "the slots are free"


def test_an_abort_of_someone_unknown_is_nothing(engine: Engine) -> None:
    engine.side.request_finished(Request("never seen", "ab"))
    engine.report(finished={"never seen"}, failed={"never seen"})


def test_a_request_id_may_be_used_again(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.stage(request, 0, "DEADLINE_EXCEEDED")
    assert engine.ask(request) == (0, False)
    engine.side.request_finished(request)
    assert engine.ask(engine.arrive(Request("r", "ab"))) == (None, False), "another request"


def test_a_preempted_request_gets_its_hit_again(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.claim(request)
    engine.report(finished={"r"})
    engine.allocate(request, 0)
    request.num_preemptions = 1
    second = engine.claim(request)
    assert second.chunks == 2


# --- asynchronous loads -----------------------------------------------------------------------------------------------


def test_async_claims_what_is_known_to_be_stored_and_orders_both_in_one_step(engine_of: MakeEngine) -> None:
    engine = engine_of("async")
    engine.have("ab")
    request = engine.arrive(Request("r", "abc"))
    assert engine.ask(request) == (2 * CHUNK, True)
    assert engine.ask(request) == (2 * CHUNK, True)
    assert engine.orders().loads == [], "no room yet"
    engine.allocate(request, 2 * CHUNK)
    orders = engine.orders()
    assert [load.load for load in orders.loads] == [copy.load for copy in orders.copies]
    assert orders.loads[0].keys == tuple(keys("ab"))


def test_an_async_load_that_failed_is_not_tried_again(engine_of: MakeEngine) -> None:
    engine = engine_of("async")
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    engine.allocate(request, 2 * CHUNK)
    engine.orders()
    engine.report(finished={"r"}, failed={"r"})
    assert engine.ask(request) == (0, False)


def test_an_async_load_may_take_as_long_as_its_deadline_says(engine_of: MakeEngine) -> None:
    engine = engine_of("async", timeout_ms=120_000)
    engine.have("ABC")
    request = engine.arrive(Request("a", "ABC"))
    engine.settle()
    assert engine.ask(request) == (3 * CHUNK, True)
    engine.allocate(request, 3 * CHUNK)
    engine.orders()
    engine.clock.pass_ms(100_000)
    engine.orders()
    engine.report(finished={"a"}, failed={"a"})
    assert engine.counted()["recomputed_tokens|reason=load_failed"] == 3 * CHUNK


def test_an_async_claim_that_is_aborted_before_there_is_room_was_never_ordered(engine_of: MakeEngine) -> None:
    engine = engine_of("async")
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    engine.ask(request)
    engine.side.request_finished(request)
    orders = engine.orders()
    assert (orders.loads, orders.drops, orders.copies) == ([], [], [])


def test_async_loads_share_the_slots_and_may_be_larger(engine_of: MakeEngine) -> None:
    engine = engine_of("async", slots=1)
    engine.have("ab")
    assert engine.ask(engine.arrive(Request("r", "ab"))) == (2 * CHUNK, True)


def test_a_vllm_in_which_workers_cannot_say_what_they_are_is_served_too(engine_of: MakeEngine) -> None:
    engine = engine_of("async", facts=False)
    assert engine.namespace is None, "asked with the first step"
    engine.settle()
    engine.have("ab")
    assert engine.ask(engine.arrive(Request("r", "ab"))) == (2 * CHUNK, True)


def test_a_vllm_that_passes_on_the_words_of_some_workers_only_is_told_so(engine_of: MakeEngine) -> None:
    engine = engine_of(world_size=2)
    engine.side.set_worker_facts([WorkerFacts(1, 2, "layout", 8192, 64, PER_CHUNK)])
    assert "1 of 2 workers" in engine.said[-1]
    assert engine.ask(engine.arrive(Request("a", "ABC"))) == (0, False)


def test_what_was_staged_in_part_and_not_copied_is_all_forgotten(engine: Engine) -> None:
    engine.have("abc")
    request = engine.arrive(Request("r", "abc"))
    engine.stage(request, 2, "DEADLINE_EXCEEDED")
    tokens, _ = engine.ask(request)
    assert tokens == 2 * CHUNK
    engine.allocate(request, tokens)
    engine.orders()
    engine.counted()
    engine.report(finished={"r"}, failed={"r"})
    assert engine.counted() == {"recomputed_tokens|reason=load_failed": 2 * CHUNK}
    engine.allocate(request, 0)
    assert len(engine.orders((request, 0, 3 * CHUNK)).stores) == 3


def test_a_load_that_is_not_worth_it_is_not_started(engine: Engine) -> None:
    engine.have("abcd")
    worth = engine.side._worth
    worth.step_built(100_000)
    engine.clock.pass_ms(100)
    worth.step_reported()  # a million tokens per second
    for _ in range(8):
        worth.load_took(4 * 8192, 1.0)
    request = engine.arrive(Request("r", "abcd"))
    assert engine.ask(request) == (0, False)
    assert engine.counted()["not_worth"] == 1


def test_odd_questions_get_no(engine: Engine) -> None:
    engine.have("ab")
    request = engine.arrive(Request("r", "ab"))
    assert engine.ask(request, 1) == (0, False), "no whole number of blocks"
    empty = engine.arrive(Request("s", "", extra=0))
    assert engine.ask(empty) == (0, False)
    assert engine.ask(engine.arrive(Request("t", "ab")), 100 * CHUNK) == (0, False)
