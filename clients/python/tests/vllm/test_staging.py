"""Loads on a worker: read into slots, told once, copied once, finished exactly once whatever happens."""

from __future__ import annotations

from typing import Any

import pytest
from worker_rig import NAMESPACE, Rig, Start, copy, eventually, load, memory, page, rig, start

from kvlane.testing import FakeSidecar, MemoryStore
from kvlane.vllm import staging
from kvlane.vllm.messages import CopyOrder, Staged, StoreOrder

__all__ = ["memory", "rig", "start"]  # fixtures


def stage(rig: Rig, number: int, *chunks: bytes, request: str = "r") -> None:
    """A load whose chunks are all in their slots, and told."""
    rig.step(loads=[load(number, *(f"{number:02x}{i:02x}" for i in range(len(chunks))), request=request)])
    rig.land(*chunks)
    rig.until(lambda: number in rig.seen.staged)


def test_chunks_are_stored_staged_and_copied_to_other_blocks_byte_by_byte(memory: tuple[Rig, MemoryStore]) -> None:
    rig, store = memory
    rig.copier.kv = {n: page(n) for n in range(1, 5)}
    rig.step(stores=[StoreOrder("aa01", ((1, 2),)), StoreOrder("aa02", ((3, 4),))])
    rig.copier.kv = {n: page(99) for n in range(1, 5)}  # the blocks are somebody else's at once
    rig.until(lambda: len(rig.seen.stored) == 2)
    assert rig.seen.stored == {"aa01": {0}, "aa02": {0}} and not rig.seen.failed_stores
    assert list(store.blocks) == [f"{NAMESPACE}/aa010000", f"{NAMESPACE}/aa020000"]

    rig.step(loads=[load(1, "aa01", "aa02")])
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged == {1: {0: Staged(2)}} and len(rig.seen.loads_timed) == 1
    rig.step(copies=[copy(1, 2, 11, 12, 13, 14)])
    assert rig.finished == ["r"] and rig.failed == []
    assert [rig.copier.kv[n] for n in (11, 12, 13, 14)] == [page(n) for n in (1, 2, 3, 4)]
    assert rig.free_slots == 16
    assert rig.counters["loaded_chunks"] == 2 and rig.counters["stored_chunks"] == 2


def test_only_what_lies_before_the_first_failed_chunk_is_usable(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a", "0b", "0c", "0d")])
    request = rig.fake.expect("load")
    rig.fake.write(request["slots"][0], page(1) + page(2))
    rig.fake.fail(request, "CORRUPT", blocks=[1, 3])
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged == {1: {0: Staged(1, "CORRUPT", "read")}}
    assert rig.free_slots == 15, "the slots behind it are free at once"
    assert rig.counters["corrupt"] == 2
    rig.step(copies=[copy(1, 1, 7, 8)])
    assert rig.finished == ["r"] and rig.failed == [] and rig.copier.kv == {7: page(1), 8: page(2)}
    assert rig.free_slots == 16


def test_a_long_load_goes_to_the_sidecar_in_pieces_and_is_told_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE_CHUNKS_MAX", 2)
    rig = start()
    rig.step(loads=[load(1, "0a", "0b", "0c", "0d", "0e")])
    pieces = [rig.fake.expect("load") for _ in range(3)]
    assert [len(piece["keys"]) for piece in pieces] == [2, 2, 1]
    rig.land(page(1), page(1), request=pieces[0])
    rig.land(page(1), request=pieces[2])
    rig.fake.fail(pieces[1], "IO_ERROR", blocks=[1])
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged == {1: {0: Staged(3, "IO_ERROR", "read")}} and rig.staged == [1]
    assert rig.free_slots == 13


def test_blocks_that_the_engine_has_and_null_blocks_are_not_copied(rig: Rig) -> None:
    stage(rig, 1, page(1) + page(2), page(3) + page(4))
    rig.step(copies=[copy(1, 2, 21, 0, 23, skip=1)])
    assert rig.finished == ["r"] and rig.copier.kv == {21: page(2), 23: page(4)}


def test_without_slots_a_load_is_told_so_at_once(rig: Rig) -> None:
    rig.step(loads=[load(1, *(f"{i:02x}" for i in range(17)))])
    assert rig.seen.staged == {1: {0: Staged(0, "SATURATED")}} and rig.free_slots == 16


def test_without_a_sidecar_a_load_is_told_so_at_once(start: Start) -> None:
    rig = start(wait=False)
    rig.step(loads=[load(1, "0a")])
    assert rig.seen.staged == {1: {0: Staged(0, "SIDECAR_GONE")}}


def test_before_the_arena_is_pinned_nothing_is_read(rig: Rig) -> None:
    rig.copier.pinned = False
    rig.step(loads=[load(1, "0a")])
    assert rig.seen.staged == {1: {0: Staged(0, "SIDECAR_GONE")}}


def test_a_suspended_mount_is_not_even_asked(rig: Rig) -> None:
    event = {"event": "mount", "mount": "kv", "class": "load", "state": "suspended", "was": "ok", "reason": "test"}
    rig.fake.say({**event, "code": "MOUNT_SUSPENDED"})
    assert rig.side.link is not None
    link = rig.side.link
    eventually(lambda: link.refusal("load") == "MOUNT_SUSPENDED")
    assert link.refusal("store") is None
    rig.step(loads=[load(1, "0a")])
    assert rig.seen.staged == {1: {0: Staged(0, "MOUNT_SUSPENDED")}}
    assert rig.counters["refused|op=load"] == 1
    rig.fake.say({**event, "state": "ok", "was": "suspended"})
    eventually(lambda: link.refusal("load") is None)
    stage(rig, 2, page(1))


def breaker(rig: Rig, state: str) -> None:
    rig.fake.say({"event": "mount", "mount": "kv", "class": "load", "state": state, "was": "suspended", "reason": "test"})
    link = rig.side.link
    eventually(lambda: link is not None and link.is_probing("load") == (state == "probing"), "the event arrives")


def test_a_load_waits_for_a_mount_that_has_begun_to_answer(rig: Rig) -> None:
    breaker(rig, "probing")
    rig.step(loads=[load(1, "0a", "0b")])
    rig.step()
    assert rig.seen.staged == {} and rig.free_slots == 16
    breaker(rig, "ok")
    rig.step()
    rig.land(page(1), page(2))
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged == {1: {0: Staged(2)}}
    rig.step(copies=[copy(1, 2, 5, 6)])
    rig.until(lambda: rig.finished == ["r"])


def test_a_load_waits_for_a_probed_mount_no_longer_than_its_deadline(rig: Rig) -> None:
    breaker(rig, "probing")
    rig.step(loads=[load(1, "0a", timeout_ms=30)])
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged[1][0][:2] == (0, "DEADLINE_EXCEEDED")


def test_a_load_that_waits_ends_when_the_mount_is_suspended_again(rig: Rig) -> None:
    breaker(rig, "probing")
    rig.step(loads=[load(1, "0a"), load(2, "0b", request="s")], copies=[copy(2, 1, 5, request="s")])
    breaker(rig, "suspended")
    rig.until(lambda: rig.seen.staged and rig.finished)
    assert rig.seen.staged == {1: {0: Staged(0, "MOUNT_SUSPENDED")}}
    assert rig.failed == ["s"] or rig.invalid == [5]


def test_a_load_that_waits_can_be_dropped(rig: Rig) -> None:
    breaker(rig, "probing")
    rig.step(loads=[load(1, "0a")])
    rig.step(drops=[1])
    breaker(rig, "ok")
    rig.step()
    assert rig.seen.staged == {} and rig.free_slots == 16
    stage(rig, 2, page(1))


def test_a_silent_sidecar_costs_the_deadline_and_the_grace(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a", "0b", timeout_ms=30)])
    rig.fake.expect("load")
    rig.until(lambda: rig.seen.staged)
    assert rig.seen.staged[1][0][:2] == (0, "DEADLINE_EXCEEDED")
    assert rig.counters["load_timeouts|phase=answer"] == 1


def test_a_dropped_load_is_cancelled_gives_its_slots_back_and_says_nothing(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a", "0b")])
    request = rig.fake.expect("load")
    rig.step(drops=[1, 77])
    rig.fake.expect("cancel")
    rig.fake.fail(request, "CANCELLED")
    rig.until(lambda: rig.free_slots == 16)
    assert rig.seen.staged == {}
    stage(rig, 2, page(1))
    rig.step(drops=[2])
    assert rig.free_slots == 16 and rig.finished == []


def test_a_copy_of_a_load_nobody_knows_is_finished_as_failed_in_the_same_step(rig: Rig) -> None:
    rig.step(copies=[copy(5, 1, 7, 8)])
    assert rig.finished == ["r"] and rig.failed == ["r"] and rig.copier.kv == {}


def test_the_same_copy_order_twice_is_finished_once(rig: Rig) -> None:
    stage(rig, 1, page(1) + page(2))
    rig.copier.slow = True
    rig.step(copies=[copy(1, 1, 7, 8)])
    rig.step(copies=[copy(1, 1, 7, 8)])
    assert rig.finished == [] and len(rig.copier.running) == 1
    rig.copier.running[0].finish()
    rig.step(copies=[copy(1, 1, 7, 8)])
    rig.step()
    assert rig.finished == ["r"] and rig.failed == []


def test_a_load_is_not_finished_and_its_slots_not_free_while_a_copy_is_running(rig: Rig) -> None:
    stage(rig, 1, page(1) + page(2))
    rig.copier.slow = True
    rig.step(copies=[copy(1, 1, 7, 8)])
    for _ in range(3):
        rig.step(drops=[1])  # does not exist after a copy; is not believed
    assert rig.finished == [] and rig.free_slots == 15
    rig.copier.running[0].finish()
    rig.step()
    assert rig.finished == ["r"] and rig.failed == [] and rig.free_slots == 16
    assert rig.copier.kv == {7: page(1), 8: page(2)}


def test_a_copy_that_fails_is_a_failed_load(rig: Rig) -> None:
    stage(rig, 1, page(1))
    rig.copier.failing = "the device is gone"
    rig.step(copies=[copy(1, 1, 7, 8)])
    assert rig.finished == ["r"] and rig.failed == ["r"] and rig.free_slots == 16


@pytest.mark.parametrize(
    "order",
    [copy(1, 1, 7), copy(1, 1, 7, 100), copy(1, 1, 7, -1), copy(1, 0), copy(1, 2, 7, 8, 9, 10), copy(1, 1, 8, skip=2)],
)
def test_an_order_that_cannot_be_right_copies_nothing_wrong_and_fails(rig: Rig, order: Any) -> None:
    stage(rig, 1, page(1) + page(2))
    rig.step(copies=[order])
    rig.step()
    assert rig.finished == ["r"] and rig.failed == ["r"]
    assert set(rig.copier.kv) <= {7, 8} and rig.free_slots == 16


# --- load mode async: the copy is ordered along with the load ----------------------------------------------------------


def test_ordered_along_a_load_is_copied_as_soon_as_it_has_landed(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a", "0b")], copies=[copy(1, 2, 5, 6, 7, 8)])
    assert rig.finished == []
    rig.land(page(1) + page(2), page(3) + page(4))
    rig.until(lambda: rig.finished)
    assert rig.copier.kv == {5: page(1), 6: page(2), 7: page(3), 8: page(4)}
    assert rig.seen.staged == {} and rig.failed == [] and len(rig.seen.loads_timed) == 1


def test_more_chunks_than_slots_go_through_them_in_turn() -> None:
    store = MemoryStore()
    keys = [f"{i:02x}" for i in range(7)]
    store.blocks = {f"{NAMESPACE}/{key}0000": page(i) + page(i) for i, key in enumerate(keys)}
    with FakeSidecar(store) as fake:
        rig = Rig(fake, slots=4)
        rig.step(loads=[load(1, *keys)], copies=[copy(1, 7, *range(1, 15))])
        rig.until(lambda: rig.finished)
        assert rig.failed == [] and rig.copier.kv == {n: page((n - 1) // 2) for n in range(1, 15)}
        assert rig.free_slots == 4
        rig.side.shutdown()


def test_a_load_that_gets_no_slots_until_its_deadline_fails(start: Start) -> None:
    rig = start(slots=2)
    stage(rig, 1, page(1), page(2), request="holder")
    rig.step(loads=[load(2, "0a", request="late", timeout_ms=30)], copies=[copy(2, 1, 7, 8, request="late")])
    rig.until(lambda: rig.finished)
    assert rig.finished == ["late"] and rig.failed == ["late"]
    assert rig.counters["load_timeouts|phase=queue"] == 1


def test_a_late_load_fails_once_and_what_comes_later_is_not_copied(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a", timeout_ms=30)], copies=[copy(1, 1, 7, 8)])
    request = rig.fake.expect("load")
    rig.until(lambda: rig.finished)
    rig.land(page(1) + page(2), request=request)
    rig.until(lambda: rig.free_slots == 16)
    assert rig.finished == ["r"] and rig.failed == ["r"] and rig.copier.kv == {}


def test_a_cancelled_load_is_finished_at_once_and_what_it_was_reading_is_not_copied(start: Start) -> None:
    rig = start(backend="block_ids")
    rig.step(loads=[load(1, "0a")], copies=[copy(1, 1, 7, 8)])
    request = rig.fake.expect("load")
    rig.step(cancels=["r", "unknown"])
    assert rig.finished == ["r"] and rig.invalid == [], "its blocks are others' now: none is named"
    rig.land(page(1) + page(2), request=request)
    rig.until(lambda: rig.free_slots == 16)
    assert rig.finished == ["r"] and rig.copier.kv == {} and rig.seen.loads_timed == []
    assert not [name for name in rig.counters if "fail" in name or "timeout" in name], "an abort is no failure"


def test_a_cancelled_load_begins_no_other_copy_and_waits_for_the_one_that_is_running(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PIECE_CHUNKS_MAX", 1)
    rig = start(backend="block_ids")
    rig.copier.slow = True
    rig.step(loads=[load(1, "0a", "0b")], copies=[copy(1, 2, 5, 6, 7, 8)])
    first, second = rig.fake.expect("load"), rig.fake.expect("load")
    rig.land(page(1) + page(2), request=first)
    rig.until(lambda: rig.copier.running)
    rig.step(cancels=["r"])
    rig.land(page(3) + page(4), request=second)
    rig.until(lambda: rig.free_slots == 15)
    assert rig.finished == [] and len(rig.copier.running) == 1
    rig.copier.running[0].finish()
    rig.step()
    assert rig.finished == ["r"] and rig.invalid == [] and rig.free_slots == 16


def test_a_failed_piece_waits_for_the_copies_that_are_running(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "PIECE_CHUNKS_MAX", 1)
    rig = start()
    rig.copier.slow = True
    rig.step(loads=[load(1, "0a", "0b")], copies=[copy(1, 2, 5, 6, 7, 8)])
    first, second = rig.fake.expect("load"), rig.fake.expect("load")
    rig.land(page(1) + page(2), request=first)
    rig.until(lambda: rig.copier.running)
    rig.fake.fail(second, "IO_ERROR")
    rig.until(lambda: rig.free_slots == 15)
    assert rig.finished == []
    rig.copier.running[0].finish()
    rig.step()
    assert rig.finished == ["r"] and rig.failed == ["r"] and rig.free_slots == 16


def test_by_block_ids_a_failure_names_the_blocks_from_the_first_failed_chunk_on(start: Start) -> None:
    rig = start(backend="block_ids")
    rig.step(loads=[load(1, "0a", "0b", "0c")], copies=[copy(1, 3, 21, 22, 23, 0, 25, skip=1)])
    request = rig.fake.expect("load")
    rig.fake.write(request["slots"][0], page(1) + page(2))
    rig.fake.fail(request, "NOT_FOUND", blocks=[1])
    rig.until(lambda: rig.finished)
    assert rig.finished == ["r"] and rig.failed == [] and rig.invalid == [22, 23, 25]
    assert rig.copier.kv == {21: page(2)}


def test_where_a_failure_cannot_be_told_nothing_is_loaded(start: Start) -> None:
    rig = start(backend="none")
    rig.step(loads=[load(1, "0a")])
    assert rig.seen.staged[1][0].chunks == 0


# --- a sidecar that dies -------------------------------------------------------------------------------------------------


def test_a_sidecar_that_dies_fails_what_it_was_reading_and_leaves_what_had_landed(fake: FakeSidecar, start: Start) -> None:
    rig = start(backoff_first_ms=1)
    fake.wait_born()
    stage(rig, 1, page(1) + page(2), request="landed")
    rig.step(loads=[load(2, "0a", request="a")])
    rig.step(loads=[load(3, "0b", request="b")], copies=[copy(3, 1, 7, 8, request="b")])
    fake.expect("load"), fake.expect("load")
    fake.order(exit=3)
    fake.wait_born()
    rig.until(lambda: 2 in rig.seen.staged and "b" in rig.finished)
    assert rig.seen.staged[2] == {0: Staged(0, "SIDECAR_GONE")} and rig.failed == ["b"]
    rig.until(lambda: rig.client.state == "up")
    assert rig.copier.looks == (2, {1}), "the former life's arena is in use as long as a load is staged in it"
    rig.step(copies=[copy(1, 1, 5, 6, request="landed")])
    assert rig.finished == ["b", "landed"] and rig.failed == ["b"]
    assert rig.copier.kv == {5: page(1), 6: page(2)}
    rig.step()
    assert rig.copier.looks == (2, set())
    stage(rig, 4, page(9))
    rig.step(drops=[4])
    assert rig.free_slots == 16 and rig.counters["sidecar_restarts"] == 1


def test_a_mistake_of_ours_costs_one_load(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(rig, 1, page(1))
    monkeypatch.setattr(rig.copier, "copy_in", lambda chunks: 1 / 0)
    rig.step(copies=[copy(1, 1, 7, 8)])
    assert rig.finished == ["r"] and rig.failed == ["r"] and rig.free_slots == 16
    assert rig.counters["hook_errors|hook=load"] == 1


def test_an_order_that_is_no_order_does_not_take_the_others_with_it(rig: Rig) -> None:
    odd: Any = CopyOrder(3, "odd", 1, 0, (None,))  # type: ignore[arg-type]
    rig.step(copies=[odd, copy(4, 1, 7, 8, request="unknown")])
    assert sorted(rig.finished) == sorted(rig.failed) == ["odd", "unknown"]


def test_more_loads_than_there_may_be_are_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "LOADS_MAX", 2)
    rig.step(loads=[load(n, f"{n:02x}") for n in range(1, 4)])
    assert rig.seen.staged == {3: {0: Staged(0, "SATURATED")}}
