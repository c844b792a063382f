"""What a request is promised, from its arrival to its end. Staged loads; the asynchronous ones stand at the end."""

from __future__ import annotations

from fakes import CHUNK, Engine, MakeEngine, Request, keys

from kvlane.vllm.messages import Staged

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
