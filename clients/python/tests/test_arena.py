"""Slots, seals and budgets, without any process."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator

import pytest
from support import eventually

from kvlane import Budgets, InvalidArgument, Options, Slot, SlotNotLeased
from kvlane._arena import Arena, release
from kvlane._budget import Ledger
from kvlane._lock import Lock


def ledger(slots: int = 8, budgets: Budgets | None = None, **devices: str) -> Ledger:
    return Ledger(budgets or Budgets(), slots, devices or {"kv0": "d0"})


def arena(slots: int = 8, book: Ledger | None = None) -> Arena:
    return Arena(
        slots=slots,
        slot_bytes=4096,
        life=1,
        lock=Lock(),
        ledger=book or ledger(slots),
        huge_pages="off",
    )


def test_the_memory_can_neither_shrink_nor_grow() -> None:
    it = arena()
    for size in (4096, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(it.fd, size)
    it.abandon()


def test_the_memory_is_whole_pages_of_whatever_size_the_kernel_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmap, "PAGESIZE", 65_536)  # arm64 may have these; a slot is 4 KiB at least
    it = arena(slots=17)
    assert (it.bytes, it.free_count()) == (131_072, 17)
    it.abandon()


def test_views_are_the_same_memory_for_whoever_maps_it() -> None:
    it = arena()
    slots = it.lease(2, "kv0", "load")
    assert slots is not None
    slots[1].view[:5] = b"hello"
    with mmap.mmap(it.fd, it.bytes) as other:
        start = slots[1].index * 4096
        assert other[start : start + 5] == b"hello"
    it.abandon()


def test_a_slot_in_flight_may_not_be_looked_at_and_comes_back_with_the_answer() -> None:
    it = arena()
    (slot,) = it.lease(1, "kv0", "load") or []
    it.send([slot])
    with pytest.raises(SlotNotLeased, match="in flight"):
        _ = slot.view
    it.answered([slot], set())
    assert (slot.state, it.free_count()) == ("leased", 7)
    slot.release()
    assert (slot.state, it.free_count()) == ("free", 8)
    slot.release()  # twice is no harm
    assert it.free_count() == 8


def test_a_slot_released_in_flight_is_free_only_after_the_answer() -> None:
    it = arena()
    (slot,) = it.lease(1, "kv0", "load") or []
    it.send([slot])
    slot.release()
    assert (slot.state, it.free_count()) == ("in flight", 7)
    it.answered([slot], set())
    assert (slot.state, it.free_count()) == ("free", 8)


def test_slots_are_released_together_each_by_its_own_state() -> None:
    it = arena()
    slots = it.lease(3, "kv0", "load") or []
    it.send(slots[1:2])
    it.send(slots[2:])
    it.answered(slots[2:], {0})
    release([*slots, slots[0]])
    release([])
    assert [slot.state for slot in slots] == ["free", "in flight", "quarantined"]
    assert it.free_count() == 6
    it.answered(slots[1:2], set())
    assert (slots[1].state, it.free_count()) == ("free", 7)


def test_what_a_signal_handler_did_to_a_slot_while_others_were_answered_stays_done() -> None:
    it = arena()
    slots = it.lease(4, "kv0", "load") or []
    it.send(slots)

    class Handled(list[Slot]):
        """Whoever goes through them is interrupted after the first."""

        def __iter__(self) -> Iterator[Slot]:
            for number, slot in enumerate(list.__iter__(self)):
                yield slot
                if number == 0 and slots[1].state == "in flight":
                    slots[0].release()
                    slots[1].release()
                    it.settle_by_own_clock(slots[2])

    it.answered(Handled(slots), set())
    assert [slot.state for slot in slots] == ["free", "free", "free", "leased"]
    assert (it.free_count(), it.quarantined_count, it.given_back, it._owed) == (7, 0, set(), set())


def test_slots_of_several_clients_are_released_together_each_under_its_own_lock() -> None:
    ours, others = arena(), arena()
    mine, theirs = ours.lease(3, "kv0", "load") or [], others.lease(3, "kv0", "load") or []
    held = threading.Event()
    go_on = threading.Event()

    def hold() -> None:
        with others.lock:
            held.set()
            go_on.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    releaser = threading.Thread(target=release, args=([mine[0], theirs[0], mine[1], theirs[1], mine[2], theirs[2]],))
    releaser.start()
    eventually(lambda: ours.free_count() == 8, "ours are free")
    assert [slot.state for slot in theirs] == ["leased"] * 3  # somebody has their lock
    go_on.set()
    releaser.join(10)
    holder.join(10)
    assert (ours.free_count(), others.free_count()) == (8, 8)


def test_a_quarantined_slot_waits_for_slots_freed_whatever_its_holder_does() -> None:
    it = arena()
    (slot,) = it.lease(1, "kv0", "load") or []
    it.send([slot])
    it.answered([slot], {0})
    slot.release()
    assert it.quarantined() == [slot.index]
    assert it.freed(slot.index)
    assert it.free_count() == 8
    assert not it.freed(slot.index)


def test_slots_freed_before_the_answer_is_a_lie_and_frees_nothing() -> None:
    it = arena()
    (slot,) = it.lease(1, "kv0", "load") or []
    assert not it.freed(slot.index)  # leased
    it.send([slot])
    assert not it.freed(slot.index)  # in flight
    it.settle_by_own_clock(slot)
    assert not it.freed(slot.index)  # quarantined by our clock, and the sidecar has not spoken
    it.answered([slot], set())
    assert slot.state == "free"
    assert not it.freed(999)


def test_an_abandoned_arena_leases_nothing_but_what_had_arrived_stays_readable() -> None:
    it = arena()
    arrived, stuck = it.lease(2, "kv0", "load") or []
    arrived.view[:3] = b"abc"
    it.send([stuck])
    it.abandon()
    assert stuck.state == "abandoned"
    assert it.lease(1, "kv0", "load") is None
    view = arrived.view
    assert bytes(view[:3]) == b"abc"
    assert not it.memory_is_back()
    arrived.release()
    assert not it.memory_is_back()  # the view is still held
    view.release()
    assert it.memory_is_back()
    with pytest.raises(SlotNotLeased):
        _ = stuck.view


def test_a_lease_that_its_holder_forgot_does_not_keep_an_abandoned_arena() -> None:
    it = arena()
    leases = it.lease(2, "kv0", "load")
    it.abandon()
    assert not it.memory_is_back()
    del leases
    assert it.memory_is_back()


# --- budgets -----------------------------------------------------------------------------------------------------


def test_stores_and_others_together_get_at_most_half() -> None:
    book = ledger(8)
    it = arena(8, book=book)
    assert it.lease(3, "kv0", "store")
    assert it.lease(2, "kv0", "other") is None
    assert it.lease(1, "kv0", "other")
    assert it.lease(1, "kv0", "store") is None
    assert it.lease(4, "kv0", "load")
    assert it.lease(1, "kv0", "load") is None


def test_loads_may_take_everything_that_is_idle() -> None:
    it = arena(8)
    assert it.lease(8, "kv0", "load")


def test_a_lease_is_all_or_nothing() -> None:
    it = arena(8)
    assert it.lease(9, "kv0", "load") is None
    assert it.free_count() == 8


def test_a_device_full_of_stuck_loads_leaves_the_other_device_its_reserve() -> None:
    book = ledger(16, kv0="d0", kv1="d1")
    taken = book.available("kv0", "load")
    book.take("kv0", "load", taken)
    assert taken == 16 - 4 - 2
    assert book.available("kv0", "load") == 0
    assert book.available("kv1", "load") == 6  # its own reserve for stores included
    assert book.available("kv1", "store") == 2


def test_a_device_full_of_stuck_stores_leaves_the_others_stores_and_all_loads_their_share() -> None:
    book = ledger(16, kv0="d0", kv1="d1")
    book.take("kv0", "store", book.available("kv0", "store"))
    assert book.used("kv0", "store") == 6
    assert book.available("kv1", "store") == 2
    assert book.available("kv0", "load") + book.available("kv1", "load") >= 8


def test_two_mounts_of_one_device_share_its_budget() -> None:
    book = ledger(16, kv0="d0", kv1="d0")
    book.take("kv0", "store", 8)
    assert book.available("kv1", "store") == 0
    assert book.available("kv1", "load") == 8


def test_a_cap_for_one_mount_and_class_comes_on_top() -> None:
    book = ledger(16, Budgets(slots_max={("kv0", "load"): 3}), kv0="d0")
    book.take("kv0", "load", 2)
    assert book.available("kv0", "load") == 1


def test_budgets_that_promise_too_much_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="more than all slots"):
        Budgets(load_reserve=0.8, other_reserve=0.3)
    with pytest.raises(InvalidArgument, match="from 0 to 1"):
        Budgets(others_max=1.5)


def test_options_that_cannot_be_right_are_refused_with_what_would_be() -> None:
    mounts = {"kv0": "/x"}
    for match, fields in {
        "at least one directory": {"mounts": {}},
        "multiple of 4096": {"mounts": mounts, "slot_bytes": 5000},
        "slots must be above 0": {"mounts": mounts, "slots": 0},
        "'auto', 'require', 'hugetlb', 'thp', 'off', got True": {"mounts": mounts, "huge_pages": True},
        "a whole number from 1048576 to 9007199254740992, got 1048575": {"mounts": mounts, "capacity_bytes": (1 << 20) - 1},
        "got 9007199254740993": {"mounts": mounts, "capacity_bytes": (1 << 53) + 1},
        "capacity_share must be a whole number from 1 to 95, got 0": {"mounts": mounts, "capacity_share": 0},
        "from 1 to 95, got 96": {"mounts": mounts, "capacity_share": 96},
        "from 1 to 95, got 50.5": {"mounts": mounts, "capacity_share": 50.5},
        "exclude each other": {"mounts": mounts, "capacity_share": 50, "capacity_bytes": 1 << 30},
        "two heartbeats": {"mounts": mounts, "heartbeat_ms": 250, "mute_ms": 300},
    }.items():
        with pytest.raises(InvalidArgument, match=match):
            Options(**fields)  # type: ignore[arg-type]


def test_what_a_store_may_occupy_goes_to_the_sidecar() -> None:
    def words(**fields: int) -> list[str]:
        return [word for word in Options(mounts={"kv0": "/x"}, command=["kvlane"], **fields).argv(7) if "capacity" in word or word.isdigit()]  # type: ignore[arg-type]

    assert not any("capacity" in word for word in words())
    assert words(capacity_bytes=1 << 20)[-2:] == ["--capacity-bytes", "1048576"]
    assert words(capacity_bytes=1 << 53)[-1] == str(1 << 53)
    assert words(capacity_share=1)[-2:] == ["--capacity-share", "1"]
    assert words(capacity_share=95)[-1] == "95"
