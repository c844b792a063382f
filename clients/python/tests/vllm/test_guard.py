"""Nothing that goes wrong in a hook reaches vLLM, and every load that was ordered is reported once."""

from __future__ import annotations

import logging

import pytest

from kvlane.vllm.guard import OWED_MAX_S, OWED_POLLS_MIN, Guard, NoWorker, Owed, Transfers, guarded
from kvlane.vllm.messages import CopyOrder, LoadOrder, Orders, Staged, StoreOrder
from kvlane.vllm.stats import Tally


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Hooks:
    def __init__(self, clock: Clock) -> None:
        self._guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"), clock)

    @guarded(lambda: (0, False))
    def matched(self, tokens: int) -> tuple[int, bool]:
        if tokens < 0:
            raise ValueError("negative")
        return tokens, True

    @guarded(set)
    def interrupted(self) -> set[int]:
        raise KeyboardInterrupt


def copy(request: str, *blocks: int, load: int = 1) -> CopyOrder:
    return CopyOrder(load=load, request=request, chunks=1, skip_blocks=0, blocks=(tuple(blocks),))


def said(*finished: str, failed: tuple[str, ...] = (), blocks: tuple[int, ...] = ()) -> Transfers:
    return Transfers(set(finished), set(failed), set(blocks))


NOTHING = said()


def test_a_hook_that_raises_answers_what_is_safe_and_is_counted() -> None:
    hooks = Hooks(Clock())
    assert hooks.matched(3) == (3, True)
    assert hooks.matched(-1) == (0, False)
    assert (hooks._guard.tally.take() or {})["c"] == {"hook_errors|hook=matched": 1}


def test_an_interrupt_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        Hooks(Clock()).interrupted()


def test_a_hook_that_raises_every_step_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    hooks = Hooks(clock)
    for _ in range(1000):
        hooks.matched(-1)
    assert len(caplog.records) == 1
    clock.now_s += 61
    hooks.matched(-1)
    assert len(caplog.records) == 2
    assert "999 more" in caplog.records[1].getMessage()


def test_an_id_that_is_owed_is_passed_on_once() -> None:
    owed = Owed()
    owed.add([copy("a", 3)])
    assert owed.settle(said("a")) == (said("a"), set())
    assert owed.settle(said("a")) == (NOTHING, {"a"})


def test_an_id_that_was_never_owed_is_not_passed_on() -> None:
    assert Owed().settle(said("x", failed=("x",), blocks=(7,))) == (NOTHING, {"x"})


def test_a_failed_id_that_is_not_finished_is_not_passed_on_yet() -> None:
    owed = Owed()
    owed.add([copy("a", 3)])
    assert owed.settle(said(failed=("a",)))[0] == NOTHING
    assert len(owed) == 1


def test_block_ids_are_passed_on_only_while_a_load_owns_them() -> None:
    owed = Owed()
    owed.add([copy("a", 3, 4, 5)])
    assert owed.settle(said("a", failed=("a",), blocks=(4, 5, 9)))[0] == said("a", failed=("a",), blocks=(4, 5))
    assert owed.settle(said(blocks=(4,)))[0] == NOTHING


def test_a_failed_load_that_names_no_blocks_has_failed_in_all_of_them_but_the_null_block() -> None:
    owed = Owed()
    owed.add([copy("a", 0, 3, 4)])
    assert owed.settle(said("a", failed=("a",)))[0] == said("a", failed=("a",), blocks=(3, 4))


def test_one_that_may_load_again_later_is_owed_again() -> None:
    owed = Owed()
    owed.add([copy("a", 3)])
    owed.settle(said("a"))
    owed.add([copy("a", 5, load=2)])
    assert owed.fail() == said("a", failed=("a",), blocks=(5,))
    assert owed.fail() == NOTHING


def test_only_the_chosen_ones_fail() -> None:
    owed = Owed()
    owed.add([copy("a", 3), copy("b", 4)])
    assert owed.fail({"b", "c"}) == said("b", failed=("b",), blocks=(4,))
    assert len(owed) == 1


def test_what_is_not_settled_in_time_is_noticed() -> None:
    clock = Clock()
    owed = Owed(clock, longest_load_s=60.0)
    owed.add([copy("a", 3)])
    for _ in range(OWED_POLLS_MIN):
        owed.settle(NOTHING)
    clock.now_s += 60.0 + OWED_MAX_S
    assert not owed.overdue(), "a load may be given a minute"
    clock.now_s += 1
    assert owed.overdue()


def test_a_step_that_lasts_longer_than_any_load_is_no_proof() -> None:
    clock = Clock()
    owed = Owed(clock)
    owed.add([copy("a", 3)])
    clock.now_s += 10 * OWED_MAX_S
    for _ in range(OWED_POLLS_MIN - 1):
        owed.settle(NOTHING)
        assert not owed.overdue()
    owed.settle(NOTHING)
    assert owed.overdue()


def test_who_stands_in_for_a_worker_fails_everything_at_once() -> None:
    worker = NoWorker(rank=1)
    worker.bind(
        Orders(
            loads=[LoadOrder(4, "a", ("k",), 100)],
            copies=[copy("b", 6)],
            stores=[StoreOrder("k2", ((1,),))],
        )
    )
    assert worker.poll() == said("b", failed=("b",), blocks=(6,))
    assert worker.poll() == NOTHING
    report = worker.report()
    assert report is not None
    assert report.staged == {4: {1: Staged(0, "INTERNAL")}}
    assert report.failed_stores == {"k2": {1}}
    assert worker.report() is None
    assert worker.facts() is None
