"""A claimed hit ends as one report, whatever the halves of the connector do."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from kvlane.vllm.guard import FAILED_LOAD, OWED_MAX_S, OWED_POLLS_MIN, Guard, Transfers
from kvlane.vllm.messages import CopyOrder, LoadOrder, Orders, Staged, WorkerFacts, WorkerReport
from kvlane.vllm.stats import Tally
from kvlane.vllm.warden import ASKS_MIN, RAISES_MAX, Promises, Warden

NOTHING = Transfers(set(), set(), set())


def copy(request: str, *blocks: int, load: int = 1) -> CopyOrder:
    return CopyOrder(load=load, request=request, chunks=1, skip_blocks=0, blocks=(tuple(blocks),))


def failed(request: str, *blocks: int) -> Transfers:
    return Transfers({request}, {request}, set(blocks))


class Half:
    """A worker's half that does what the test says."""

    def __init__(self) -> None:
        self.raising: set[str] = set()
        self.bound: list[Orders] = []
        self.polls: list[Transfers] = []
        self.ended: list[str] = []

    def _may_raise(self, what: str) -> None:
        if what in self.raising:
            raise RuntimeError(what)

    def facts(self) -> WorkerFacts | None:
        return None

    def bind(self, orders: Orders) -> None:
        self._may_raise("bind")
        self.bound.append(orders)

    def start_loads(self) -> None:
        self._may_raise("start_loads")

    def save(self) -> None:
        self._may_raise("save")

    def poll(self) -> Transfers:
        self._may_raise("poll")
        return self.polls.pop(0) if self.polls else NOTHING

    def report(self) -> WorkerReport | None:
        self._may_raise("report")
        return None

    def take_stats(self) -> dict[str, Any] | None:
        self._may_raise("take_stats")
        return None

    def shutdown(self) -> None:
        self.ended.append("shutdown")
        self._may_raise("shutdown")


class Worker:
    def __init__(self) -> None:
        self.half = Half()
        self.now_s = 0.0
        self.guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"))
        self.warden = Warden(
            self.half,
            self.guard,
            0,
            wait_for_device=lambda: self.half.ended.append("device"),
            now_s=lambda: self.now_s,
        )

    def step(self, orders: Orders) -> Transfers:
        self.warden.bind(orders)
        self.warden.start_loads()
        self.warden.save()
        said = self.warden.poll()
        self.warden.report()
        return said

    def errors(self) -> dict[str, int]:
        counters: dict[str, int] = (self.guard.tally.take() or {"c": {}})["c"]
        return counters


def test_what_the_half_says_is_passed_on() -> None:
    worker = Worker()
    assert worker.step(Orders(copies=[copy("a", 3)])) == NOTHING
    worker.half.polls = [Transfers({"a"}, set(), set())]
    assert worker.step(Orders()) == Transfers({"a"}, set(), set())
    assert worker.errors() == {}


def test_a_report_that_is_not_owed_is_counted_and_kept_back() -> None:
    worker = Worker()
    worker.half.polls = [failed("ghost", 5)]
    assert worker.step(Orders()) == NOTHING
    assert worker.errors() == {"hook_errors|hook=not_owed": 1}


@pytest.mark.parametrize("where", ["bind", "start_loads", "save", "poll"])
def test_a_half_that_raises_while_something_is_owed_is_stopped_and_what_is_owed_has_failed(where: str) -> None:
    worker = Worker()
    worker.step(Orders(copies=[copy("a", 3)]))
    worker.half.raising = {where}
    assert worker.step(Orders(copies=[copy("b", 4)])) == Transfers({"a", "b"}, {"a", "b"}, {3, 4})
    assert worker.warden.retired
    assert worker.half.ended == ["shutdown", "device"], "blocks are given back only after that"
    assert worker.step(Orders()) == NOTHING


def test_after_that_every_load_fails_at_once() -> None:
    worker = Worker()
    worker.half.raising = {"poll", "shutdown"}
    worker.step(Orders(copies=[copy("a", 3)]))
    assert worker.step(Orders(copies=[copy("b", 4)])) == failed("b", 4)
    worker.warden.bind(Orders(loads=[LoadOrder(9, "c", ("k",), 10)]))
    report = worker.warden.report()
    assert report is not None
    assert report.staged == {9: {0: Staged(0, "INTERNAL")}}


def test_a_half_that_raises_while_nothing_is_owed_stays_for_a_while() -> None:
    worker = Worker()
    worker.half.raising = {"poll"}
    for _ in range(RAISES_MAX - 1):
        assert worker.step(Orders()) == NOTHING
    assert not worker.warden.retired
    worker.step(Orders())
    assert worker.warden.retired


def test_a_poll_that_goes_well_makes_it_good() -> None:
    worker = Worker()
    for _ in range(3 * RAISES_MAX):
        worker.half.raising = {"save"}
        worker.step(Orders())
    assert not worker.warden.retired
    assert worker.errors() == {"hook_errors|hook=wait_for_save": 3 * RAISES_MAX}


def test_a_load_that_is_never_settled_ends_all_the_same() -> None:
    worker = Worker()
    worker.step(Orders(copies=[copy("a", 3)]))
    worker.now_s = OWED_MAX_S + 1
    for _ in range(OWED_POLLS_MIN - 2):
        assert worker.step(Orders()) == NOTHING
    assert worker.step(Orders()) == failed("a", 3)
    assert worker.warden.retired


def test_a_load_that_is_reported_after_a_very_long_step_is_a_load_like_any_other() -> None:
    worker = Worker()
    worker.warden.bind(Orders(copies=[copy("a", 3)]))
    worker.now_s = 10 * OWED_MAX_S  # the forward, or a pause of the engine
    worker.half.polls = [Transfers({"a"}, set(), set())]
    assert worker.warden.poll() == Transfers({"a"}, set(), set())
    assert not worker.warden.retired
    assert worker.errors() == {}


def test_an_order_that_was_lost_in_the_scheduler_fails_without_the_halfs_knowing() -> None:
    worker = Worker()
    assert worker.step(Orders(copies=[copy("a", 3, load=FAILED_LOAD), copy("b", 4)])) == failed("a", 3)
    assert [order.request for order in worker.half.bound[0].copies] == ["b"]
    assert not worker.warden.retired


def test_a_claim_without_an_order_becomes_one_that_fails_without_the_blocks_vllm_had() -> None:
    guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"))
    promises = Promises(guard, block_tokens=16)
    promises.answered("a", 32, 32)
    promises.allocated("a", 32, [[5, 6, 7, 8]])
    promises.answered("b", 16, 0)
    promises.allocated("b", 16, [[9]])
    orders = Orders(copies=[copy("b", 9)])
    promises.complete(orders)
    assert [(order.request, order.load, order.blocks) for order in orders.copies] == [
        ("b", 1, ((9,),)),
        ("a", FAILED_LOAD, ((7, 8),)),
    ]
    again = Orders()
    promises.complete(again)
    assert again.copies == []


def test_an_order_that_comes_after_its_step_is_dropped() -> None:
    promises = Promises(Guard(Tally(), logging.getLogger("vllm.kvlane.test")), block_tokens=16)
    promises.answered("a", 32, 0)
    promises.allocated("a", 32, [[5, 6]])
    promises.complete(Orders())  # the scheduler's half raised: the claim was ordered to fail
    late = Orders(copies=[copy("a", 5, load=7)])
    promises.complete(late)
    assert late.copies == []
    assert late.drops == [7]


def test_a_hit_is_granted_once_and_once_more_for_each_preemption() -> None:
    promises = Promises(Guard(Tally(), logging.getLogger("vllm.kvlane.test")), block_tokens=16)
    for preemptions in range(3):
        assert promises.allows("a", preemptions)
        promises.allocated("a", 32, [[5, 6]])
        assert not promises.allows("a", preemptions)
    promises.forget("a")
    assert promises.allows("a", 0)


def test_a_request_is_told_to_ask_again_for_a_bounded_time_also_when_steps_are_long() -> None:
    now_s = [0.0]
    guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"))
    promises = Promises(guard, block_tokens=16, patience_s=3.0, now_s=lambda: now_s[0])
    for _ in range(ASKS_MIN - 1):
        now_s[0] += 5.0
        assert promises.may_wait("a")
        promises.answered("a", None, 0)
    promises.answered("a", None, 0)
    assert not promises.may_wait("a")
    promises.allocated("a", 0, [[5]])  # it is computed; later it may be preempted, and ask anew
    assert promises.may_wait("a")


def test_a_hit_that_waits_long_for_room_stays_a_hit() -> None:
    now_s = [0.0]
    guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"))
    promises = Promises(guard, block_tokens=16, patience_s=3.0, now_s=lambda: now_s[0])
    for _ in range(2 * ASKS_MIN):  # an idle engine asks every millisecond
        promises.answered("a", None, 0)
    now_s[0] += 60.0  # a full engine does not ask at all
    assert promises.allows("a", 0)
    promises.answered("a", 32, 0)
    now_s[0] += 60.0  # and has no room
    assert promises.allows("a", 0)
    assert promises.may_wait("a"), "what it waited for then is over"


# --- vLLM before 0.16, which gives away the blocks of a request that is aborted while it loads -----------------------------


def test_of_a_cancelled_load_no_block_is_named_and_the_device_is_waited_for_before_the_forward() -> None:
    worker = Worker()
    worker.step(Orders(copies=[copy("a", 3), copy("b", 4)]))
    worker.warden.bind(Orders(cancels=["a"]))
    assert worker.half.ended == ["device"]
    worker.half.polls = [Transfers({"a"}, {"a"}, {3})]
    assert worker.warden.poll() == Transfers({"a"}, {"a"}, set())
    assert worker.errors() == {}


def test_a_half_that_raises_when_it_is_to_cancel_is_stopped_before_the_forward() -> None:
    worker = Worker()
    worker.step(Orders(copies=[copy("a", 3)]))
    worker.half.raising = {"bind"}
    worker.warden.bind(Orders(cancels=["a"]))
    assert worker.warden.retired and worker.half.ended[:2] == ["shutdown", "device"]
    assert worker.warden.poll() == failed("a")


def old_promises() -> Promises:
    guard = Guard(Tally(), logging.getLogger("vllm.kvlane.test"))
    return Promises(guard, block_tokens=16, holds_aborted=False)


def grant(promises: Promises, request: str) -> None:
    assert promises.allows(request, 0)
    promises.answered(request, 32, 0)
    promises.allocated(request, 32, [[5, 6]])
    promises.complete(Orders(copies=[copy(request, 5, 6)]))


def cancelled(promises: Promises) -> list[str]:
    orders = Orders()
    promises.complete(orders)
    return orders.cancels


def test_an_abort_while_loading_cancels_once_and_its_report_is_kept_from_vllm_once() -> None:
    promises = old_promises()
    grant(promises, "a")
    promises.forget("a")
    assert cancelled(promises) == ["a"] and cancelled(promises) == []
    assert not promises.allows("a", 0), "vLLM would take the report for that of the next request of that name"
    assert promises.reported({"a", "b"}) == {"a"}
    assert promises.reported({"a"}) == set()
    grant(promises, "a")


def test_an_abort_between_the_report_and_vllms_next_look_bars_the_name_for_good() -> None:
    promises = old_promises()
    grant(promises, "a")
    assert promises.reported({"a"}) == set()
    promises.forget("a")
    assert cancelled(promises) == []
    assert not promises.allows("a", 0)
    assert promises.reported({"a"}) == set(), "another connector's"
    assert not promises.allows("a", 0)


def test_a_load_that_was_used_leaves_nothing_behind() -> None:
    promises = old_promises()
    grant(promises, "a")
    promises.reported({"a"})
    promises.allocated("a", 0, [[5, 6, 7]])
    assert not promises.allows("a", 1), "such a vLLM forgets what a preempted request has generated"
    promises.forget("a")
    assert cancelled(promises) == []
    grant(promises, "a")


def test_where_vllm_holds_the_blocks_nothing_is_cancelled_nor_kept_from_it() -> None:
    promises = Promises(Guard(Tally(), logging.getLogger("vllm.kvlane.test")), block_tokens=16)
    grant(promises, "a")
    promises.forget("a")
    assert cancelled(promises) == []
    assert promises.reported({"a"}) == set()
    grant(promises, "a")
