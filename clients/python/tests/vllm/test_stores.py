"""Stores on a worker: copied at the end of the step or dropped at once, written in the background, reported once."""

from __future__ import annotations

import pytest
from worker_rig import CHUNK_BYTES, NAMESPACE, Rig, Start, eventually, page, rig, start

from kvlane.testing import FakeSidecar
from kvlane.vllm import stores
from kvlane.vllm.messages import StoreOrder

__all__ = ["rig", "start"]  # fixtures


def store(key: str, *blocks: int) -> StoreOrder:
    return StoreOrder(key, (blocks or (1, 2),))


def filled(rig: Rig) -> Rig:
    rig.copier.kv = {n: page(n) for n in range(100)}
    return rig


def test_a_chunk_is_written_under_its_hash_and_rank_as_it_was_at_the_end_of_the_step(start: Start) -> None:
    rig = filled(start(rank=3, world_size=4))
    rig.step(stores=[store("aa01", 5, 6)])
    rig.copier.kv[5] = rig.copier.kv[6] = page(77)
    request = rig.fake.expect("store")
    assert request["keys"] == ["aa010003"] and request["namespace"] == NAMESPACE and request["bytes"] == CHUNK_BYTES
    assert request.get("if_exists", "keep") == "keep"
    assert rig.fake.read(request["slots"][0], CHUNK_BYTES) == page(5) + page(6)
    assert rig.seen.stored == {}
    rig.fake.answer(request)
    rig.until(lambda: rig.seen.stored)
    assert rig.seen.stored == {"aa01": {3}} and rig.free_slots == 16
    assert rig.counters["stored_bytes"] == CHUNK_BYTES


def test_what_was_there_already_is_kept_and_counts_as_stored(rig: Rig) -> None:
    filled(rig).step(stores=[store("aa01"), store("aa02")])
    rig.fake.answer(rig.fake.expect("store"), kept=1)
    rig.until(lambda: rig.seen.stored)
    assert set(rig.seen.stored) == {"aa01", "aa02"}
    assert rig.counters["kept_chunks"] == 1 and rig.counters["stored_chunks"] == 1


def test_a_key_in_flight_is_not_stored_twice(rig: Rig) -> None:
    filled(rig).step(stores=[store("aa01"), store("aa01")])
    rig.step(stores=[store("aa01")])
    assert rig.copier.copied_out == [(1, 2)] and rig.seen.failed_stores == {}
    rig.fake.answer(rig.fake.expect("store"))
    rig.until(lambda: rig.seen.stored)
    assert rig.seen.stored == {"aa01": {0}} and rig.seen.failed_stores == {}


def test_chunks_that_fail_are_told_apart_from_those_that_are_written(rig: Rig) -> None:
    filled(rig).step(stores=[store("aa01"), store("aa02")])
    rig.fake.fail(rig.fake.expect("store"), "NO_SPACE", blocks=[1])
    rig.until(lambda: rig.seen.stored)
    assert rig.seen.stored == {"aa01": {0}} and rig.seen.failed_stores == {"aa02": {0}}
    assert rig.counters["dropped_stores|reason=no_space"] == 1 and rig.free_slots == 16


def test_without_slots_the_front_is_stored_and_the_rest_dropped(rig: Rig) -> None:
    filled(rig).step(stores=[store(f"{n:02x}") for n in range(11)])
    assert len(rig.copier.copied_out) == 8, "half of the slots are for stores"
    assert sorted(rig.seen.failed_stores) == ["08", "09", "0a"]
    assert rig.counters["dropped_stores|reason=no_slot"] == 3


def test_a_suspended_mount_drops_stores_before_anything_is_copied(rig: Rig) -> None:
    rig.fake.say({"event": "mount", "mount": "kv", "class": "store", "state": "suspended", "was": "ok", "reason": "test"})
    link = rig.side.link
    assert link is not None
    eventually(lambda: link.refusal("store"))
    filled(rig).step(stores=[store("aa01")])
    assert rig.copier.copied_out == [] and rig.seen.failed_stores == {"aa01": {0}}
    assert rig.counters == {"dropped_stores|reason=suspended": 1, "refused|op=store": 1}


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (store("aa01", 1), "incomplete"),
        (store("aa01", 1, 0), "incomplete"),
        (store("aa01", 1, 100), "incomplete"),
        (StoreOrder("aa01", ()), "incomplete"),
    ],
)
def test_a_chunk_that_is_not_whole_is_dropped(rig: Rig, order: StoreOrder, why: str) -> None:
    filled(rig).step(stores=[order])
    assert rig.copier.copied_out == [] and rig.seen.failed_stores == {"aa01": {0}}
    assert rig.counters == {f"dropped_stores|reason={why}": 1}


def test_without_a_namespace_or_a_pinned_arena_nothing_is_copied(rig: Rig) -> None:
    rig.namespace = None
    filled(rig).step(stores=[store("aa01")])
    rig.namespace, rig.copier.pinned = NAMESPACE, False
    rig.step(stores=[store("aa02")])
    assert rig.copier.copied_out == [] and set(rig.seen.failed_stores) == {"aa01", "aa02"}


def test_a_slot_is_handed_on_only_when_the_copy_into_it_is_over(rig: Rig) -> None:
    rig.copier.slow = True
    filled(rig).step(stores=[store("aa01", 5, 6)])
    for _ in range(3):
        rig.step()
    assert rig.client.client_stats()["sent"] == 0
    rig.copier.running[0].finish()
    rig.step()
    request = rig.fake.expect("store")
    assert rig.fake.read(request["slots"][0], CHUNK_BYTES) == page(5) + page(6)
    rig.fake.answer(request)
    rig.until(lambda: rig.seen.stored)


def test_a_copy_that_fails_is_a_dropped_store(rig: Rig) -> None:
    rig.copier.slow = True
    filled(rig).step(stores=[store("aa01")])
    rig.copier.running[0].finish("the device is gone")
    rig.step()
    assert rig.seen.failed_stores == {"aa01": {0}} and rig.free_slots == 16
    assert rig.counters == {"dropped_stores|reason=copy_failed": 1}


def test_a_sidecar_that_dies_fails_its_stores(fake: FakeSidecar, start: Start) -> None:
    rig = filled(start(backoff_first_ms=1))
    fake.wait_born()
    rig.step(stores=[store("aa01")])
    fake.expect("store")
    fake.order(exit=3)
    rig.until(lambda: rig.seen.failed_stores)
    assert rig.seen.failed_stores == {"aa01": {0}} and rig.counters["dropped_stores|reason=sidecar"] == 1


# --- rank 0 of several -----------------------------------------------------------------------------------------------


def test_rank_0_writes_only_after_the_other_ranks_have(start: Start) -> None:
    rig = filled(start(world_size=2))
    rig.step(stores=[store("aa01", 5, 6), store("aa02")])
    for _ in range(3):
        rig.step()
    assert rig.client.client_stats()["sent"] == 0 and rig.free_slots == 14
    rig.copier.kv[5] = page(77)
    rig.step(commits=["aa01"], forgets=["aa02"])
    rig.step(commits=["aa01"])
    request = rig.fake.expect("store")
    assert request["keys"] == ["aa010000"]
    assert rig.fake.read(request["slots"][0], CHUNK_BYTES) == page(5) + page(6)
    rig.fake.answer(request)
    rig.until(lambda: rig.seen.stored)
    assert rig.seen.stored == {"aa01": {0}} and rig.seen.failed_stores == {} and rig.free_slots == 16


def test_a_commit_of_what_is_not_held_is_a_failed_store(start: Start) -> None:
    rig = start(world_size=2)
    rig.step(commits=["aa01"], forgets=["aa02"])
    assert rig.seen.failed_stores == {"aa01": {0}}


def test_other_ranks_hear_commits_and_have_nothing_to_say_to_them(start: Start) -> None:
    rig = filled(start(rank=1, world_size=2))
    rig.step(stores=[store("aa01")])
    rig.fake.answer(rig.fake.expect("store"))
    rig.until(lambda: rig.seen.stored)
    rig.step(commits=["aa01"])
    rig.step(forgets=["aa01"])
    assert rig.seen.stored == {"aa01": {1}} and rig.seen.failed_stores == {}


def test_without_worker_meta_rank_0_writes_at_once(start: Start) -> None:
    rig = filled(start(world_size=2, worker_meta=False))
    rig.step(stores=[store("aa01")])
    rig.fake.answer(rig.fake.expect("store"))
    rig.until(lambda: rig.free_slots == 16)
    assert rig.side.report() is None, "nobody asks for reports there, so none are kept"


def test_what_is_held_and_never_decided_is_given_up(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = filled(start(world_size=2))
    rig.step(stores=[store("aa01")])
    monkeypatch.setattr(stores, "HELD_S", -1.0)
    rig.step()
    assert rig.seen.failed_stores == {"aa01": {0}} and rig.free_slots == 16


def test_what_is_forgotten_while_it_is_copied_keeps_its_slot_until_the_copy_is_over(start: Start) -> None:
    rig = filled(start(world_size=2))
    rig.copier.slow = True
    rig.step(stores=[store("aa01")])
    rig.step(forgets=["aa01"])
    assert rig.free_slots == 15
    rig.step(stores=[store("aa01")])
    assert rig.seen.failed_stores == {"aa01": {0}}, "not while the former one goes away"
    rig.copier.running[0].finish()
    rig.step()
    assert rig.free_slots == 16


def test_what_was_stored_for_a_generation_that_is_over_does_not_count_for_the_next(rig: Rig) -> None:
    filled(rig).step(stores=[store("aa01")])
    request = rig.fake.expect("store")
    rig.namespace = "tiny@2"
    rig.step(stores=[store("aa01")])
    assert rig.seen.failed_stores == {"aa01": {0}}
    rig.seen.failed_stores.clear()
    rig.fake.answer(request)
    rig.until(lambda: rig.free_slots == 16)
    assert rig.seen.stored == {}
