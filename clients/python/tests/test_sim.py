"""The client over hundreds of seeds (sim_client.py), and bugs put in on purpose, each of which the seeds must find."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from sim_client import Broken, run_seed

from kvlane import _core
from kvlane._arena import Arena
from kvlane._core import Core
from kvlane._io_thread import IoThread

SEEDS = int(os.environ.get("KVLANE_SIM_SEEDS", "150"))
STEPS = 60
PLANT_SEEDS = 120
FAULTS = (
    "twice",
    "wrong id",
    "garbage",
    "half",
    "half and death",
    "huge",
    "sums",
    "freed",
    "mute",
    "deaf",
    "death",
    "corpse",
    "event",
    "noise",
    "stopped",
    "ready again",
    "stdout closed",
    "flood",
    "deep",
    "other kinds",
    "spawn",
)
OUTCOMES = (
    "ok by sidecar",
    "NOT_FOUND by sidecar",
    "DEADLINE_EXCEEDED by sidecar",
    "DEADLINE_EXCEEDED by client",
    "SIDECAR_GONE by client",
    "SATURATED by client",
    "cancelled",
)


def test_every_call_ends_once_and_in_time_and_nothing_is_left() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1, SEEDS + 1):
        try:
            seen.update(run_seed(seed, STEPS).outcomes)
        except BaseException as error:
            raise AssertionError(f"seed {seed} (python tests/sim_client.py {seed} {STEPS}): {error!r}") from error
    missing = {*OUTCOMES, *(f"fault {fault}" for fault in FAULTS)} - set(seen)
    assert not missing or SEEDS < 150, f"never seen: {missing}"
    print(f"{SEEDS} seeds of {STEPS} steps: {dict(sorted(seen.items()))}")


def test_a_seed_tells_the_same_story_twice() -> None:
    stories = [run_seed(seed, STEPS, told=True).story for seed in (3, 4, 3, 4)]
    assert stories[:2] == stories[2:]
    assert stories[0] != stories[1]


def never_mute(core: Core, life: Any, at_us: int) -> None:
    _heartbeat(core, life, at_us)
    if life.broken is not None and life.broken.startswith("mute"):
        life.broken = None


def answers_cross(core: Core, life: Any, answer: dict[str, Any]) -> None:
    mine = life.unanswered.get(answer.get("id"))
    for other in life.unanswered.values():
        if mine is not None and other is not mine and (other.op, other.count) == (mine.op, mine.count):
            answer = {**answer, "id": other.id}
    _handle_answer(core, life, answer)


_handle_answer = Core._handle_answer
_heartbeat = Core.heartbeat
_answered = Arena.answered

PLANTS: dict[str, tuple[Any, str, Callable[..., Any] | int, str]] = {
    "a quarantined slot counts as given back": (
        Arena,
        "answered",
        lambda arena, slots, _blocks: _answered(arena, slots, set()),
        "has not given it back",
    ),
    "a lie frees a slot": (
        Arena,
        "freed",
        lambda arena, index: _freed_whatever_it_is(arena, index),
        "has not given it back",
    ),
    "the client has no last word": (Core, "_settle_by_own_clock", lambda _core, _task: None, "has no outcome"),
    "its last word comes early": (_core, "GRACE_US", -10_000, "early"),
    "an answer is taken for that of another request": (
        Core,
        "_handle_answer",
        lambda *words: answers_cross(*words),
        "was never said",
    ),
    "a mute sidecar is believed in": (Core, "heartbeat", never_mute, "still believed in"),
    "any number of arenas may be abandoned": (Core, "may_start", lambda _core: True, "arenas are abandoned"),
    "a dead sidecar is not replaced": (
        IoThread,
        "_restart_later",
        lambda thread, _reason: setattr(thread, "restart_us", 1 << 60),
        "no sidecar was started",
    ),
}


def _freed_whatever_it_is(arena: Arena, index: Any) -> bool:
    slot = arena._held.get(index)
    if slot is None or slot._state == "leased":
        return False
    if slot._state == "quarantined":
        return _freed(arena, index)
    slot._state = "leased"
    slot.release()
    return True


_freed = Arena.freed


@pytest.mark.parametrize("name", PLANTS)
def test_a_bug_put_in_on_purpose_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, planted, says = PLANTS[name]
    assert hasattr(owner, attribute), "what it was planted in is gone: plant it where its work is done now"
    monkeypatch.setattr(owner, attribute, planted)
    for seed in range(1, PLANT_SEEDS + 1):
        try:
            run_seed(seed, STEPS)
        except Broken as broken:
            assert says in str(broken), f"seed {seed} broke something else: {broken}"
            return
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
    raise AssertionError(f"{PLANT_SEEDS} seeds did not find it")
