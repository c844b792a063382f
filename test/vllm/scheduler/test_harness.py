"""The harness itself: a connector that works passes, and each broken one is caught."""

from __future__ import annotations

import pytest

from harness import Engine, Setup, WrongKV
from model import expected
from prompts import prompt, sharing
from toy_connectors import LateConnector, MemoryConnector


def setup(root: str, connector: str, **fields: object) -> Setup:
    MemoryConnector.store.clear()
    LateConnector.kept.clear()
    return Setup(root=root, connector=connector, module="toy_connectors", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("world", [1, 2])
def test_a_connector_that_works_passes(root: str, scheduling: str, world: int) -> None:
    with Engine(setup(root, "MemoryConnector", scheduling=scheduling, world=world)) as engine:
        engine.add("miss", prompt(1, 100))
        engine.finish("miss")
        engine.forget_local()
        engine.add("hit", prompt(1, 100))
        engine.add("partly", sharing(1, 50, 60, 1))
        engine.finish("hit", "partly")
        assert engine.claimed("hit") == 96
        assert engine.claimed("partly") == 48
        for name in engine.requests:
            assert engine.output[name] == expected(engine.requests[name].prompt_token_ids, 3)


@pytest.mark.parametrize("connector", ["TearingConnector", "EarlyConnector"])
def test_wrong_bytes_are_found_at_once(root: str, scheduling: str, connector: str) -> None:
    engine = Engine(setup(root, connector, scheduling=scheduling))
    engine.add("miss", prompt(1, 100))
    engine.finish("miss")
    engine.forget_local()
    engine.add("hit", prompt(1, 100))
    with pytest.raises(WrongKV, match=r"hit, rank 0, layer [01]: .* the first at"):
        engine.finish("hit")


def test_a_late_copy_into_blocks_of_somebody_else_is_found(root: str) -> None:
    engine = Engine(setup(root, "LateConnector", blocks=12))
    engine.add("miss", prompt(1, 100))
    engine.finish("miss")
    engine.forget_local()
    engine.add("hit", prompt(1, 100))
    engine.finish("hit")
    engine.add("other", prompt(2, 150), max_tokens=20)
    with pytest.raises(WrongKV, match="other"):
        engine.finish("other")


def test_blocks_that_are_kept_for_ever_are_found(root: str) -> None:
    engine = Engine(setup(root, "KeepingConnector"))
    engine.add("one", prompt(1, 100))
    engine.finish("one")
    with pytest.raises(AssertionError, match="no request left"):
        engine.run_until(lambda: not engine.scheduler.requests, limit_s=0.5, what="no request left")


def test_preempted_requests_come_back_and_answer_the_same(root: str, scheduling: str) -> None:
    with Engine(setup(root, "MemoryConnector", scheduling=scheduling, blocks=16)) as engine:
        for which in range(3):
            engine.add(f"r{which}", prompt(which, 60), max_tokens=40)
        engine.finish("r0", "r1", "r2")
        assert sum(request.num_preemptions for request in engine.requests.values()) > 0
        for name, request in engine.requests.items():
            assert engine.output[name] == expected(request.prompt_token_ids, 40)
