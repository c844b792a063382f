"""Late completion: the kernel finishes a load or a store long after its answer, and no byte of anybody changes.

Each load test ends a load that the kernel holds, in one of the ways in which one can end; then the caller leases all that
he can get, fills it, lets the mount go on, and looks. Each also shows that the hazard was real: the late bytes did come,
into the slots that were kept from him.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
import stall
from late_stage import (
    BLOCK_BYTES,
    CALM_MS,
    IMPATIENT_MS,
    NAMESPACE,
    PATIENT_MS,
    SLOTS,
    TIMEOUT_MS,
    ArenaFile,
    Caller,
    Stage,
    in_kernel,
    payload,
    staged,
)
from support import eventually

ENGINES = ("threads", "aio")
NOISE_S = 2.0
"""Over a deadline, on a noisy machine; what was really seen is printed."""


PLACES = pytest.mark.parametrize(
    "where", [(engine, place) for engine in ENGINES for place in ("fuse", "ext4")], ids="-".join
)


def make_stage(where: tuple[str, str], mute_ms: int) -> Iterator[Stage]:
    if reason := stall.lab_unavailable():
        pytest.skip(f"SKIPPED: late completion on a mount that hangs: {reason}")
    with staged(*where, mute_ms=mute_ms) as made:
        yield made


@pytest.fixture
def stage(where: tuple[str, str]) -> Iterator[Stage]:
    """For tests in which the sidecar lives on."""
    yield from make_stage(where, PATIENT_MS)


@pytest.fixture
def mortal(where: tuple[str, str]) -> Iterator[Stage]:
    """For tests that kill the sidecar."""
    yield from make_stage(where, IMPATIENT_MS)


def all_came_back(stage: Stage) -> None:
    eventually(
        lambda: not stage.quarantined() and stage.kv.client_stats()["unanswered"] == 0, "the kernel gives every slot back"
    )


def nothing_changed_though_bytes_came(caller: Caller, arena: ArenaFile, kept: dict[int, int]) -> None:
    """`kept`: slot → block, of the slots that the kernel had."""
    changed = caller.changed_bytes()
    assert changed == 0, f"{changed} bytes of leased slots changed"
    assert caller.indexes.isdisjoint(kept), "a slot that the kernel still had was leased again"
    assert len(caller.indexes) == SLOTS - len(kept)
    late = [slot for slot, block in kept.items() if arena.has_late_bytes(slot, block)]
    assert late, "no late bytes: the hazard was not real"
    print(f"measured: {len(late)} late loads, 0 of {len(caller.indexes)} leased slots changed")


@PLACES
@pytest.mark.parametrize("ended_by", ["deadline", "cancel"])
def test_a_load_that_was_answered_changes_no_slot_leased_since(stage: Stage, ended_by: str) -> None:
    arena = ArenaFile(stage.kv)
    stage.hang_reads()
    with stage.kv.leasing(4) as slots:
        began = time.monotonic()
        task = stage.start_load(slots, timeout_ms=TIMEOUT_MS if ended_by == "deadline" else CALM_MS)
        if ended_by == "cancel":
            stage.kv.cancel(task)
        result = stage.kv.wait(task)
        took_s = time.monotonic() - began
        assert in_kernel(result)
        eventually(
            lambda: stage.kv.client_stats()["unanswered"] == 0, "the sidecar's own answer, should ours have been first"
        )
        held = stage.kept_by_the_kernel()
        owners = {slot.index: block for block, slot in enumerate(slots) if slot.index in held}
    assert {failure.code for failure in result.failed} == {"DEADLINE_EXCEEDED" if ended_by == "deadline" else "CANCELLED"}
    assert took_s < TIMEOUT_MS / 1000 + NOISE_S

    for slot in owners:
        arena.break_the_rule(slot)
    caller = Caller(stage.kv)
    assert caller.changed_bytes() == 0
    stage.lab.resume()
    all_came_back(stage)
    nothing_changed_though_bytes_came(caller, arena, owners)
    caller.give_back()
    assert stage.loads_every_block()
    arena.close()


@PLACES
@pytest.mark.parametrize("first", ["the mount goes on", "the sidecar goes on"])
def test_a_load_that_the_client_itself_gave_up_changes_no_slot_leased_since(stage: Stage, first: str) -> None:
    arena = ArenaFile(stage.kv)
    stage.hang_reads()
    pid = stage.kv.pid
    assert pid is not None
    with stage.kv.leasing(4) as slots:
        task = stage.start_load(slots)
        os.kill(pid, signal.SIGSTOP)
        try:
            result = stage.kv.wait(task)
            after_s = time.monotonic() - task.deadline_us / 1e6
            print(f"measured: the client's last word {after_s * 1000:.1f} ms after the deadline")
            assert result.source == "client" and result.code == "DEADLINE_EXCEEDED"
            assert after_s < NOISE_S
            owners = {slots[block].index: block for block in in_kernel(result)}
            assert len(owners) == 4  # what was sent is the kernel's, as far as the client can know
            for slot in slots:
                slot.release()
                arena.break_the_rule(slot.index)
            caller = Caller(stage.kv)
            if first == "the mount goes on":
                stage.lab.resume()
                # The kernel needs no thread of the sidecar for this: the bytes come while all of them stand still.
                eventually(lambda: any(arena.has_late_bytes(slot, block) for slot, block in owners.items()), "late bytes")
                assert caller.changed_bytes() == 0
                assert stage.quarantined() == sorted(owners)
        finally:
            os.kill(pid, signal.SIGCONT)
        if first == "the sidecar goes on":
            eventually(lambda: stage.kv.client_stats()["late_answers"] == 1, "its answer comes late")
            held = stage.quarantined()  # a late answer frees only what the kernel does not hold
            stage.lab.resume()
            eventually(lambda: any(arena.has_late_bytes(slot, block) for slot, block in owners.items()), "late bytes")
            assert caller.changed_bytes() == 0
            assert held and set(held) <= set(owners)
    all_came_back(stage)
    late = {slot: block for slot, block in owners.items() if arena.has_late_bytes(slot, block)}
    assert caller.changed_bytes() == 0
    assert late and caller.indexes.isdisjoint(owners)
    assert stage.kv.life == 1
    caller.give_back()
    assert stage.loads_every_block()
    arena.close()


@PLACES
def test_the_arena_of_a_killed_sidecar_is_its_own_until_the_corpse_is_gone(mortal: Stage) -> None:
    kv, old = mortal.kv, ArenaFile(mortal.kv)
    dead = kv.pid
    assert dead is not None
    mortal.hang_reads()
    with kv.leasing(4) as slots:
        task = mortal.start_load(slots, timeout_ms=CALM_MS)
        eventually(lambda: kv.stuck(), "the sidecar reports what is stuck")  # all that it will start has started
        owners = {slot.index: block for block, slot in enumerate(slots)}
        for slot in owners:
            old.break_the_rule(slot)
        os.kill(dead, signal.SIGKILL)
        began = time.monotonic()
        result = kv.wait(task)
        print(f"measured: the client knew of the death after {(time.monotonic() - began) * 1000:.0f} ms")
        assert result.code == "SIDECAR_GONE" and len(in_kernel(result)) == 4
    eventually(lambda: kv.life == 2 and kv.state == "up", "the next life begins though the mount hangs")
    print(f"measured: the next life was up after {(time.monotonic() - began) * 1000:.0f} ms")
    if kv.options.engine == "threads":  # with native AIO it is reaped at once, and only its arena is still the kernel's
        assert kv.client_stats()["unreaped_pids"] == [dead], "with a call in the kernel it cannot be gone"
    assert kv.client_stats()["arenas_abandoned"] == 1
    caller = Caller(kv)
    assert len(caller.slots) == SLOTS, "the new arena is whole"
    assert {slot.life for slot in caller.slots} == {2}

    mortal.lab.resume()
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0, "the corpse is reaped, its arena given back")
    assert kv.client_stats()["unreaped_pids"] == []
    late = [slot for slot, block in owners.items() if old.has_late_bytes(slot, block)]
    assert late, "no late bytes in the dead sidecar's arena: the hazard was not real"
    assert caller.changed_bytes() == 0
    print(f"measured: {len(late)} late loads in the old arena, 0 of {SLOTS} slots of the new one changed")
    caller.give_back()
    assert mortal.loads_every_block()
    old.close()


@PLACES
def test_a_second_dead_arena_waits_for_the_first(mortal: Stage) -> None:
    kv = mortal.kv
    mortal.hang_reads()
    for life in (1, 2):
        eventually(lambda life=life: asked(mortal) and kv.life == life and kv.state == "up", f"life {life}")  # type: ignore[misc]
        eventually(lambda: stuck_load(mortal), "a load of it is stuck")
        assert kv.pid is not None
        os.kill(kv.pid, signal.SIGKILL)
    eventually(lambda: asked(mortal) and kv.state == "off", "two arenas are the kernel's: a third is not made")
    assert kv.client_stats()["arenas_abandoned"] == 2
    refused = kv.lookup(mortal.keys, namespace=NAMESPACE)
    assert refused.result is not None and refused.result.code == "SATURATED"
    mortal.lab.resume()
    eventually(lambda: kv.state == "up", "it comes back when the kernel lets go")
    assert mortal.loads_every_block()
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0, "both arenas are given back")


def asked(stage: Stage) -> bool:
    """A question that nobody waits for: only while one is open does the client ask whether its sidecar lives."""
    if stage.kv.client_stats()["unanswered"] == 0:
        stage.kv.lookup(stage.keys, namespace=NAMESPACE, timeout_ms=CALM_MS)
    return True


def stuck_load(stage: Stage) -> bool:
    """Asks for a load until one is in the kernel: a mount that hangs may be suspended from the start."""
    with stage.kv.leasing(4) as slots:
        result = stage.kv.wait(
            stage.kv.load(stage.keys, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=TIMEOUT_MS)
        )
    return bool(in_kernel(result)) or bool(stage.kv.stuck())


@PLACES
def test_what_a_stopped_sidecar_never_began_is_not_begun_when_it_goes_on(stage: Stage) -> None:
    kv = stage.kv
    fresh = ["ee01", "ee02"]
    pid = kv.pid
    assert pid is not None
    with kv.leasing(2, use="store") as slots, kv.leasing(4) as targets:
        for slot in slots:
            slot.view[:BLOCK_BYTES] = payload(7)
        os.kill(pid, signal.SIGSTOP)
        try:
            store = kv.store(fresh, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=TIMEOUT_MS)
            load = kv.load(stage.keys, targets, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=TIMEOUT_MS)
            stored = kv.wait(store)
            assert stored.source == "client" and {failure.outcome for failure in stored.failed} == {"unknown"}
            assert kv.wait(load).source == "client"
        finally:
            os.kill(pid, signal.SIGCONT)
    all_came_back(stage)
    assert kv.client_stats()["bad_slots_freed"] == 0
    for _ in range(3):
        there = kv.wait(kv.lookup(fresh, namespace=NAMESPACE, timeout_ms=CALM_MS))
        assert there.present == (False, False)
    assert stage.loads_every_block()


@PLACES
def test_a_killed_sidecars_late_store_is_whole_or_absent_and_never_wrong(mortal: Stage) -> None:
    """Its writes have not been taken when it dies, and its memory changes: such a block must not get its name."""
    kv, old = mortal.kv, ArenaFile(mortal.kv)
    fresh = ["ee01", "ee02"]
    dead = kv.pid
    assert dead is not None
    if mortal.is_disk:
        mortal.lab.stop()
    else:
        mortal.lab.hang("getattr", match="/blocks/*.tmp")  # what the kernel asks between making the file and its first write
    with kv.leasing(2, use="store") as slots:
        for slot in slots:
            slot.view[:BLOCK_BYTES] = payload(7)
        task = kv.store(fresh, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=CALM_MS)
        if not mortal.is_disk:
            mortal.lab.wait_stuck("getattr")
            mortal.lab.stop()
            mortal.lab.resume("getattr")
        # Mostly in its write; in the read of kvlane.json where a busy machine made the lane look at its root again.
        eventually(lambda: any(call["class"] == "store" for call in kv.stuck()), "a store is stuck")
        os.kill(dead, signal.SIGKILL)
        assert kv.wait(task).code == "SIDECAR_GONE"
        for slot in slots:
            old.break_the_rule(slot.index)
    eventually(lambda: kv.life == 2 and kv.state == "up", "the next life begins")
    mortal.lab.cont()
    eventually(lambda: kv.client_stats()["arenas_abandoned"] == 0, "the corpse is reaped")
    assert mortal.loads_every_block()
    for _ in range(3):
        there = kv.wait(kv.lookup(fresh, namespace=NAMESPACE, timeout_ms=CALM_MS))
        assert there.ok and there.present == (False, False), "it died before its rename"
    with kv.leasing(2, use="store") as slots:
        for slot in slots:
            slot.view[:BLOCK_BYTES] = payload(7)
        mortal.calm(lambda: kv.store(fresh, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=CALM_MS))
    old.close()
