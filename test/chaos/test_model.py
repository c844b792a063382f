"""The model: what a load may return, and which code is explained. One story a test, in microseconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))

import payload
from model import FOREVER, Failed, Fault, Load, Looked, Model

KEY = (0, 7)
SECOND = 1_000_000


@pytest.fixture
def model() -> Model:
    return Model(changeable_lengths=frozenset({9}), full_says_eio=frozenset({1}))


def stored(
    model: Model, version: int, start: int, end: int, code: str = "", *, phase: str = "", outcome: str = "", source: str = "sidecar", kept: bool = False
) -> None:
    model.ended(model.begun(KEY, version, start), code, phase, outcome, source, end, kept=kept)


def loading(model: Model, version: int, start: int, end: int) -> list[str]:
    model.loads.append(Load(KEY, version, start, end, "somebody"))
    return [text.split(":")[0] for _, text in model.judge()]


def looking(model: Model, present: bool, start: int, end: int) -> list[str]:
    model.looks.append(Looked(KEY, present, start, end, "somebody"))
    return [text.split(":")[0] for _, text in model.judge()]


def failing(
    model: Model, code: str, start: int, end: int, errno: str = "", *, key: int = 7, mount: int = 0, phase: str = "", who: str = "somebody", op: str = "load"
) -> list[str]:
    model.failures.append(Failed(op, mount, key, code, errno, "sidecar", start, end, who, phase))
    return [text.split(":")[0] for _, text in model.judge()]


def test_what_was_stored_may_be_loaded(model: Model) -> None:
    stored(model, 1, 10, 20)
    assert loading(model, 1, 30, 40) == []


def test_what_nobody_stored_may_not(model: Model) -> None:
    stored(model, 1, 10, 20)
    assert loading(model, 2, 30, 40) == ["wrong version"]


def test_what_was_stored_after_the_load_may_not(model: Model) -> None:
    stored(model, 1, 50, 60)
    assert loading(model, 1, 30, 40) == ["wrong version"]


def test_a_store_under_way_may_be_seen(model: Model) -> None:
    model.begun(KEY, 1, 35)
    assert loading(model, 1, 30, 40) == []


def test_a_store_refused_at_its_deadline_never_appears(model: Model) -> None:
    stored(model, 1, 10, 20, "DEADLINE_EXCEEDED", phase="write")
    assert loading(model, 1, 30, 40) == ["stored though refused"]


@pytest.mark.parametrize("how", [{"outcome": "unknown"}, {"source": "client"}, {"code": "IO_ERROR", "phase": "rename"}])
def test_a_store_of_unknown_outcome_may_appear_until_everything_is_back(model: Model, how: dict[str, Any]) -> None:
    stored(model, 1, 10, 20, **{"code": "DEADLINE_EXCEEDED"} | how)
    stored(model, 2, 30, 40)
    assert loading(model, 1, 50, 60) == []
    model.settled(70)
    stored(model, 3, 80, 90)
    assert loading(model, 1, 100, 110) == ["stale"]


def test_a_kept_block_is_not_the_new_one(model: Model) -> None:
    stored(model, 1, 10, 20, kept=True)
    assert loading(model, 1, 30, 40) == ["stored though refused"]


def test_a_replaced_version_is_stale(model: Model) -> None:
    stored(model, 1, 10, 20)
    stored(model, 2, 30, 40)
    assert loading(model, 1, 35, 50) == []  # the load began before the other store was answered
    assert loading(model, 1, 45, 50) == ["stale"]


def test_a_removed_version_is_stale(model: Model) -> None:
    stored(model, 1, 10, 20)
    stored(model, 0, 30, 40)
    assert loading(model, 1, 45, 50) == ["stale"]


def test_stores_side_by_side_may_win_either_way(model: Model) -> None:
    stored(model, 1, 10, 40)
    stored(model, 2, 20, 30)
    assert loading(model, 1, 50, 60) == loading(model, 2, 50, 60) == []


def test_an_acknowledged_block_may_not_be_missed(model: Model) -> None:
    assert failing(model, "NOT_FOUND", 1, 5) == []
    stored(model, 1, 10, 20)
    assert failing(model, "NOT_FOUND", 15, 30) == []  # it was not acknowledged yet
    assert failing(model, "NOT_FOUND", 30, 40) == looking(model, False, 30, 40) == ["lost block"]
    stored(model, 0, 50, 60, "KEY_BUSY")
    assert failing(model, "NOT_FOUND", 70, 80) == ["lost block"]  # nobody removed it


@pytest.mark.parametrize("how", [{}, {"code": "DEADLINE_EXCEEDED", "outcome": "unknown"}, {"code": "SIDECAR_GONE", "source": "client"}])
def test_a_block_that_somebody_may_have_removed_may_be_missed(model: Model, how: dict[str, Any]) -> None:
    stored(model, 1, 10, 20)
    stored(model, 0, 25, 28, **how)
    assert failing(model, "NOT_FOUND", 30, 40) == looking(model, False, 30, 40) == []


def test_a_block_that_is_overwritten_or_damaged_meanwhile_may_be_missed(model: Model) -> None:
    stored(model, 1, 10, 20)
    stored(model, 2, 25, 35)
    assert failing(model, "NOT_FOUND", 30, 40) == []
    assert failing(model, "NOT_FOUND", 50, 60) == ["lost block"]
    model.harm(KEY, 70).end_us = 75
    assert failing(model, "NOT_FOUND", 80, 90) == []


def test_a_harm_that_was_not_done_explains_nothing(model: Model) -> None:
    stored(model, 1, 10, 20)
    harm = model.harm(KEY, 30)
    model.harmless(harm)
    assert failing(model, "CORRUPT", 40, 50) == ["wrong code"]


def test_a_look_up_may_not_see_what_cannot_be(model: Model) -> None:
    assert looking(model, True, 1, 5) == ["ghost"]
    stored(model, 1, 10, 20, "NO_SPACE")
    assert looking(model, True, 30, 40) == ["ghost"]
    stored(model, 2, 50, 60)
    assert looking(model, True, 45, 55) == looking(model, True, 70, 80) == []
    stored(model, 0, 90, 100)
    assert looking(model, True, 95, 105) == []
    assert looking(model, True, 110, 120) == ["ghost"]


def test_forgetting_keeps_what_may_come(model: Model) -> None:
    for version in range(1, 400):
        stored(model, version, version * 10, version * 10 + 5)
    model.forget_before(FOREVER)
    assert len(model.changes[KEY]) == 1
    assert loading(model, 399, 5000, 5010) == []


def test_damage_explains_corrupt_until_it_is_replaced(model: Model) -> None:
    harm = model.harm(KEY, 10)
    harm.end_us = 20
    assert failing(model, "CORRUPT", 30, 40) == []
    assert failing(model, "CORRUPT", 30, 40, key=8) == ["wrong code"]
    stored(model, 1, 50, 60)
    assert failing(model, "CORRUPT", 70, 80) == ["wrong code"]


def test_an_error_needs_its_fault_on_its_mount_at_its_time(model: Model) -> None:
    model.faults.append(Fault("eio read", 0, 10 * SECOND, 11 * SECOND))
    assert failing(model, "IO_ERROR", 10 * SECOND, 10 * SECOND + 5, "EIO") == []
    assert failing(model, "IO_ERROR", 10 * SECOND, 10 * SECOND + 5, "EIO", mount=1) == ["wrong code"]
    assert failing(model, "IO_ERROR", 20 * SECOND, 20 * SECOND + 5, "EIO") == ["wrong code"]
    assert failing(model, "IO_ERROR", 10 * SECOND, 10 * SECOND + 5, "EROFS") == ["wrong code"]


def test_a_limit_explains_only_what_its_own_sidecar_says(model: Model) -> None:
    model.faults.append(Fault("nofile", None, 0, 10, "sync-1"))
    assert failing(model, "IO_ERROR", 5, 8, "EMFILE", who="sync-1") == []
    assert failing(model, "IO_ERROR", 5, 8, "EMFILE", who="sync-2") == ["wrong code"]
    assert failing(model, "IO_ERROR", 5, 8, "EIO", who="sync-1") == ["wrong code"]
    assert failing(model, "IO_ERROR", 2 * SECOND, 2 * SECOND + 5, "EMFILE", who="sync-1") == ["wrong code"]


def test_codes_that_nothing_explains(model: Model) -> None:
    model.faults.append(Fault("hang all", 0, 0))
    for code in ("SLOT_BUSY", "INVALID_REQUEST", "NO_SPACE", "LENGTH_MISMATCH", "CORRUPT"):
        assert failing(model, code, 10, 20) == ["wrong code"]
    assert failing(model, "LENGTH_MISMATCH", 10, 20, key=9) == []
    assert failing(model, "LENGTH_MISMATCH", 10, 20, key=9, op="store") == ["wrong code"]
    assert failing(model, "IO_ERROR", 10, 20, "EPERM") == ["wrong code"]
    assert failing(model, "NOT_FOUND", 10, 20) == []


def test_a_full_fuse_mount_may_say_eio_and_an_ext4_may_not(model: Model) -> None:
    model.faults += [Fault("enospc", 0, 0), Fault("enospc", 1, 0)]
    assert failing(model, "IO_ERROR", 10, 20, "EIO", mount=1, phase="write") == []
    assert failing(model, "IO_ERROR", 10, 20, "EIO", mount=0, phase="write") == ["wrong code"]


def test_a_payload_shows_every_flipped_bit() -> None:
    memory = memoryview(bytearray(65536))
    payload.write(memory, 1, 7, 0x100000005, 10000)
    assert payload.read(memory, 1, 7, 10000) == 0x100000005
    for at in (0, 9, 12, 30, 5000, 9999):
        memory[at] ^= 16
        with pytest.raises(payload.WrongBytes):
            payload.read(memory, 1, 7, 10000)
        memory[at] ^= 16
    payload.poison(memory, 10000)
    with pytest.raises(payload.WrongBytes, match="never written"):
        payload.read(memory, 1, 7, 10000)


def test_a_mixture_of_two_versions_is_seen() -> None:
    one, other = memoryview(bytearray(65536)), memoryview(bytearray(65536))
    payload.write(one, 0, 7, 1, 65536)
    payload.write(other, 0, 7, 2, 65536)
    one[4096:8192] = other[4096:8192]
    with pytest.raises(payload.WrongBytes, match="version 1"):
        payload.read(one, 0, 7, 65536)
