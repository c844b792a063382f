"""One answer, in time: whatever the sidecar does, a task is settled once, and slots are never reused too early."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

import pytest
from support import Connect, eventually

from kvlane import (
    SIDECAR_GONE,
    Client,
    InvalidArgument,
    NoAnswer,
    Saturated,
    SidecarGone,
    Slot,
    SlotNotLeased,
    TaskFailed,
)
from kvlane.testing import FakeSidecar, MemoryStore

GENEROUS_S = 2.0
"""Over a deadline, on a noisy machine; what is really seen is printed."""


def lease_one(kv: Client, **what: Any) -> Slot:
    return kv.lease(1, **what)[0]


def test_a_load_travels_as_columns_with_an_absolute_deadline(fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(2)
    before = time.monotonic_ns() // 1000
    task = kv.load(["00", "01"], slots, namespace="llama@3", bytes=[5, 9], timeout_ms=500)
    request = fake.expect("load")
    assert before + 500_000 <= request.pop("deadline_us") <= before + 1_500_000
    assert request == {
        "id": task.id,
        "op": "load",
        "mount": "kv0",
        "namespace": "llama@3",
        "keys": ["00", "01"],
        "slots": [slot.index for slot in slots],
        "bytes": [5, 9],
    }
    fake.write(slots[0].index, b"bytes")
    fake.answer(request)
    result = kv.wait(task)
    assert result is not None and result.ok and result.done == 2
    assert bytes(slots[0].view[:5]) == b"bytes"


def test_poll_never_blocks_and_hands_out_each_finished_task_once(fake: FakeSidecar, kv: Client) -> None:
    assert kv.poll() == []
    first = kv.lookup(["a/00"], tag="job 1")
    second = kv.lookup(["a/01"], tag="job 2")
    assert kv.poll() == []
    requests = [fake.expect("lookup"), fake.expect("lookup")]
    for request in reversed(requests):  # out of order
        fake.answer(request, present=[True], prefix=1, complete=True)
    done: list[Any] = []

    def both_came() -> bool:
        done.extend(kv.poll())
        return len(done) == 2

    eventually(both_came)
    assert [task.tag for task in done] == ["job 2", "job 1"]
    assert (first.done, second.done, kv.poll()) == (True, True, [])


def test_waiting_takes_the_task_out_of_poll(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"])
    fake.answer(fake.expect("lookup"), present=[None], prefix=0, complete=False)
    assert kv.wait(task).present == (None,)
    assert kv.poll() == []


def test_a_signal_while_the_io_thread_is_woken_costs_no_later_wake_up(
    fake: FakeSidecar, kv: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = kv._core
    eventually(lambda: not core._woken, "the IO thread has taken what woke it at the start")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("kvlane._core.os.write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            core.wake()
    turned = threading.Event()
    patch_drain = core.drain_wake

    def drained() -> None:
        patch_drain()
        turned.set()

    monkeypatch.setattr(core, "drain_wake", drained)
    core.wake()
    assert turned.wait(GENEROUS_S)


def test_failures_are_data_and_name_their_blocks(fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(6)
    task = kv.load([f"a/0{i}" for i in range(6)], slots)
    entries = [
        {"blocks": [[0, 1], [4, 4]], "code": "DEADLINE_EXCEEDED", "phase": "read", "waited_ms": 9, "slot": "quarantined"},
        {"block": 5, "code": "IO_ERROR", "phase": "open", "waited_ms": 1, "slot": "free", "errno": "EIO"},
    ]
    fake.answer(fake.expect("load"), ok=False, done=2, failed=entries)
    result = kv.wait(task)
    assert [(f.block, f.code, f.slot) for f in result.failed] == [
        (0, "DEADLINE_EXCEEDED", "quarantined"),
        (1, "DEADLINE_EXCEEDED", "quarantined"),
        (4, "DEADLINE_EXCEEDED", "quarantined"),
        (5, "IO_ERROR", "free"),
    ]
    assert [slot.state for slot in slots] == ["quarantined"] * 2 + ["leased"] * 2 + ["quarantined", "leased"]
    with pytest.raises(TaskFailed, match="DEADLINE_EXCEEDED"):
        result.check()


def test_a_refused_request_leaves_its_slots_leased(fake: FakeSidecar, kv: Client) -> None:
    slot = lease_one(kv, use="store")
    task = kv.store(["a/00"], [slot])
    fake.answer(fake.expect("store"), ok=False, error={"code": "MOUNT_SUSPENDED", "message": "3 writes in flight"})
    result = kv.wait(task)
    assert (result.code, result.failed[0].slot, slot.state) == ("MOUNT_SUSPENDED", "free", "leased")


# --- our own clock -------------------------------------------------------------------------------------------------


def test_a_stopped_sidecar_costs_the_deadline_and_a_little(fake: FakeSidecar, kv: Client) -> None:
    slot = lease_one(kv)
    fake.signal(signal.SIGSTOP)
    began = time.monotonic()
    task = kv.load(["a/00"], [slot], timeout_ms=100)
    result = kv.wait(task)
    took = time.monotonic() - began
    print(f"deadline 100 ms, settled after {took * 1000:.1f} ms")
    assert 0.1 <= took < 0.1 + GENEROUS_S
    assert (result.code, result.source, result.failed[0].slot) == ("DEADLINE_EXCEEDED", "client", "quarantined")
    assert slot.state == "quarantined"
    fake.signal(signal.SIGCONT)


def test_the_io_thread_has_the_last_word_without_anyone_waiting(fake: FakeSidecar, kv: Client) -> None:
    said = threading.Event()
    task = kv.lookup(["a/00"], timeout_ms=30, on_done=lambda _: said.set())
    assert said.wait(5)
    assert task.result is not None and task.result.source == "client"
    assert kv.client_stats()["settled_by_client"] == 1


def test_a_late_answer_only_returns_the_slots(fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(2)
    task = kv.load(["a/00", "a/01"], slots, timeout_ms=30)
    request = fake.expect("load")
    assert kv.wait(task).source == "client"
    assert [slot.state for slot in slots] == ["quarantined"] * 2
    fake.say({"event": "slots_freed", "slots": [slots[0].index]})  # too early: a lie
    fake.fail(request, "DEADLINE_EXCEEDED", slot="quarantined", blocks=[1])
    eventually(lambda: slots[0].state == "free")
    assert (task.result and task.result.source, slots[1].state) == ("client", "quarantined")
    fake.say({"event": "slots_freed", "slots": [slots[1].index]})
    eventually(lambda: slots[1].state == "free")
    stats = kv.client_stats()
    assert (stats["late_answers"], stats["bad_slots_freed"], stats["slots_quarantined"]) == (1, 1, [])


def test_while_slots_are_quarantined_nobody_else_gets_them(fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(16)
    task = kv.load([f"a/{i:02x}" for i in range(16)], slots, timeout_ms=30)
    request = fake.expect("load")
    kv.wait(task)
    for slot in slots:
        slot.release()
    assert kv.try_lease(1) is None
    with pytest.raises(Saturated):
        kv.lease(1)
    fake.answer(request)
    eventually(lambda: kv.try_lease(16))


def test_a_wait_that_is_shorter_than_the_deadline_returns_none_in_time(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    began = time.monotonic()
    assert kv.wait(task, timeout_ms=20) is None
    assert time.monotonic() - began < GENEROUS_S
    fake.answer(fake.expect("lookup"), present=[True], prefix=1, complete=True)
    assert kv.wait(task).prefix == 1


def test_a_cancelled_task_is_settled_by_the_sidecars_answer(fake: FakeSidecar, kv: Client) -> None:
    slot = lease_one(kv)
    task = kv.load(["a/00"], [slot], timeout_ms=60_000)
    kv.cancel(task)
    request, cancel = fake.expect("load"), fake.expect("cancel")
    assert cancel["task"] == task.id
    fake.fail(request, "CANCELLED", slot="quarantined")
    fake.answer(cancel, state="cancelled")
    assert kv.wait(task).code == "CANCELLED"
    assert slot.state == "quarantined"
    kv.cancel(task)  # settled: nothing to send, nothing to raise


def test_questions_to_a_stopped_sidecar_raise_in_time(fake: FakeSidecar, kv: Client) -> None:
    fake.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(NoAnswer):
        kv.stuck(timeout_ms=60)
    assert time.monotonic() - began < GENEROUS_S
    fake.signal(signal.SIGCONT)


# --- full pipes ------------------------------------------------------------------------------------------------------


def test_a_sidecar_that_does_not_read_fills_a_bounded_queue_and_submitting_never_blocks(
    fake: FakeSidecar, kv: Client
) -> None:
    fake.signal(signal.SIGSTOP)
    keys = ["n/" + "0" * 100 + f"{i:04x}" for i in range(4096)]
    slowest = 0.0
    codes: set[str | None] = set()
    for _ in range(20):
        began = time.monotonic()
        task = kv.lookup(keys, timeout_ms=60_000)
        slowest = max(slowest, time.monotonic() - began)
        if task.result is not None:
            codes.add(task.result.code)
    print(f"slowest submit of 450 kB: {slowest * 1000:.1f} ms")
    assert codes == {"SATURATED"}
    assert slowest < GENEROUS_S
    fake.signal(signal.SIGCONT)


def test_stderr_is_drained_however_much_the_sidecar_says(fake: FakeSidecar, kv: Client) -> None:
    for number in range(2000):
        fake.order(log=f"{number} " + "x" * 200)
    eventually(lambda: kv.sidecar_log() and kv.sidecar_log()[-1].startswith("1999 "))
    assert kv._core.sidecar_log.dropped == 2000 - 256


# --- misuse ----------------------------------------------------------------------------------------------------------


def test_misuse_is_refused_before_anything_is_sent(fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(2)
    store_slot = lease_one(kv, use="store")
    wrong: list[tuple[str, Any]] = [
        ("no mount 'kv9'", lambda: kv.load(["a/00"], slots[:1], mount="kv9")),
        ("as many slots", lambda: kv.load(["a/00"], slots)),
        ("bytes must be", lambda: kv.load(["a/00"], slots[:1], bytes=4097)),
        ("bytes must be", lambda: kv.load(["a/00"], slots[:1], bytes=0)),
        ("one length", lambda: kv.load(["a/00"], slots[:1], bytes=[1, 2])),
        ("a slot twice", lambda: kv.load(["a/00", "a/01"], [slots[0], slots[0]])),
        ("leased for store", lambda: kv.load(["a/00"], [store_slot])),
        ("1 to 4096 keys", lambda: kv.lookup([])),
        ("list of strings", lambda: kv.lookup("a/00")),
        ("timeout_ms", lambda: kv.lookup(["a/00"], timeout_ms=0)),
        ("split it", lambda: kv.namespace("x", {"big": "x" * (1 << 20)})),
    ]
    for message, call in wrong:
        with pytest.raises(InvalidArgument, match=message):
            call()
    slots[0].release()
    with pytest.raises(SlotNotLeased, match="free"):
        kv.load(["a/00"], slots[:1])
    assert kv.client_stats()["sent"] == 0


def test_a_slot_cannot_go_into_two_requests(fake: FakeSidecar, kv: Client) -> None:
    slot = lease_one(kv)
    kv.load(["a/00"], [slot])
    with pytest.raises(SlotNotLeased, match="in flight"):
        kv.load(["a/01"], [slot])


# --- callbacks -------------------------------------------------------------------------------------------------------


def test_a_callback_that_raises_or_never_returns_harms_nobody(fake: FakeSidecar, kv: Client) -> None:
    forever = threading.Event()
    kv.on_event(lambda event: 1 / 0)
    kv.on_event(lambda event: forever.wait(5))
    fake.say({"event": "mount", "mount": "kv0", "class": "load", "state": "suspended", "was": "ok", "reason": "x"})
    eventually(lambda: kv.client_stats()["callbacks_failed"] == 1)
    assert "ZeroDivisionError" in kv.notes()[-1]
    assert kv.wait(kv.lookup(["a/00"], timeout_ms=30)).source == "client"  # the clock is not the callbacks' thread
    forever.set()


def test_events_reach_their_listener_in_order(fake: FakeSidecar, kv: Client) -> None:
    seen: list[str] = []
    kv.on_event(lambda event: seen.append(event["event"]))
    for name in ("mount", "stalled", "recovered"):
        fake.say({"event": name, "mount": "kv0"})
    fake.say({"event": "of a later version"})
    eventually(lambda: len(seen) == 3)
    assert seen == ["mount", "stalled", "recovered"]
    assert kv.client_stats()["unknown_events"] == 1


# --- a working one ---------------------------------------------------------------------------------------------------


def test_the_memory_store_keeps_what_was_stored(connect: Connect, fake: FakeSidecar) -> None:
    fake.handler = MemoryStore()
    kv = connect(slots=64)
    with kv.leasing(8, use="store") as out, kv.leasing(9) as back:
        for i, slot in enumerate(out):
            slot.view[:] = bytes([i]) * 4096
        keys = [f"{i:02x}" for i in range(9)]
        assert kv.wait(kv.store(keys[:8], out, namespace="a")).ok
        assert kv.wait(kv.store(keys[:8], out, namespace="a")).kept == 8
        assert kv.wait(kv.lookup(keys, namespace="a")).prefix == 8
        result = kv.wait(kv.load(keys, back, namespace="a"))
        assert [(f.block, f.code) for f in result.failed] == [(8, "NOT_FOUND")]
        assert all(bytes(back[i].view) == bytes([i]) * 4096 for i in range(8))
        assert kv.wait(kv.remove(keys[:1], namespace="a")).done == 1
        assert kv.wait(kv.namespace("a", {"dtype": "fp16"})).state == "created"
        assert kv.stuck() == []
        assert kv.ping() >= 0
    assert kv.client_stats()["slots_free"] == 64


def test_after_a_death_questions_raise_and_requests_are_answered_at_once(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(backoff_first_ms=60_000)
    fake.signal(signal.SIGKILL)
    eventually(lambda: kv.state == "restarting")
    with pytest.raises(SidecarGone):
        kv.ping()
    with pytest.raises(SidecarGone):
        kv.lease(1)
    task = kv.lookup(["a/00"])
    assert task.result is not None and (task.result.code, task.result.source) == (SIDECAR_GONE, "client")
