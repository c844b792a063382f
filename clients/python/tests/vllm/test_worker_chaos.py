"""Loads and stores in any order against a sidecar that answers, fails, is late, is silent or dies, as dice decide.

Whatever came: each load that was ordered to be copied is finished once, what is said to be good is byte by byte what was
stored, nothing is told twice, and in the end every slot is free.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest
from worker_rig import PER_CHUNK, Rig, copy, load, page

from kvlane.testing import WAIT_S, FakeSidecar
from kvlane.vllm.messages import StoreOrder

STEPS = 250
"""At least; more on a machine so slow that nearly every load is late."""
OF_USE = 10
"""Loads that ended well, and loads that failed: fewer would show nothing."""
KEYS = 40


def number(key: str) -> int:
    return int(key[:4], 16)


class Dice:
    """A sidecar's handler. What it stores must be what belongs to the key."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.wrong: list[str] = []
        self.fair = False

    def __call__(self, fake: FakeSidecar, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        op, keys = request["op"], request.get("keys", [])
        if op == "cancel":
            return {"state": "already_settled"}
        fate = 0.0 if self.fair else self.random.random()
        if op == "store":
            for key, slot in zip(keys, request["slots"], strict=True):
                if fake.read(slot, 128) != page(number(key)) * PER_CHUNK:
                    self.wrong.append(key)
        if fate > 0.985:
            fake.order(exit=3)
            return None
        if fate > 0.9:  # late: after the deadline and the grace, while slots are quarantined
            threading.Timer(0.09, self.answer_late, (fake, request, fake.pid)).start()
            return None
        self.answer(fake, request, 0.0 if fate < 0.7 else 0.5)
        return None

    def answer_late(self, fake: FakeSidecar, request: Mapping[str, Any], life: int) -> None:
        """Unless that life is over: `write` would reach the arena of the next one, which no real sidecar can."""
        if fake.pid == life:
            self.answer(fake, request)

    def answer(self, fake: FakeSidecar, request: Mapping[str, Any], failing: float = 0.0) -> None:
        failed = []
        try:
            for block, (key, slot) in enumerate(zip(request["keys"], request["slots"], strict=True)):
                if self.random.random() < failing:
                    failed.append({"block": block, "code": "IO_ERROR", "phase": "read", "waited_ms": 1, "slot": "free"})
                elif request["op"] == "load":
                    fake.write(slot, page(number(key)) * PER_CHUNK)
            fields: dict[str, Any] = {"failed": failed} if failed else {}
            fake.answer(request, ok=not failed, done=len(request["keys"]) - len(failed), **fields)
        except (OSError, ValueError):
            return  # that life is over


@pytest.mark.parametrize("seed", range(3))
def test_whatever_the_sidecar_does_every_claim_ends_once_and_no_byte_is_wrong(seed: int) -> None:
    dice = random.Random(seed)
    handler = Dice(seed + 100)
    with FakeSidecar(handler) as fake:
        rig = Rig(fake, slots=12, backoff_first_ms=1, backoff_max_ms=5)
        rig.copier.num_blocks = 1 << 20
        ordered: dict[str, list[tuple[int, str]]] = {}  # request → (block, key)
        open_loads: dict[int, tuple[str, tuple[str, ...]]] = {}
        fresh = iter(range(1, 1 << 20))

        def claim(request: str, keys: tuple[str, ...], chunks: int) -> Any:
            skip = dice.randrange(PER_CHUNK)
            blocks = [next(fresh) for _ in range(chunks * PER_CHUNK - skip)]
            ordered[request] = [(block, keys[(i + skip) // PER_CHUNK]) for i, block in enumerate(blocks)]
            return copy(load_number, chunks, *blocks, skip=skip, request=request)

        def enough() -> bool:
            return min(len(rig.finished) - len(rig.failed), len(rig.failed)) > OF_USE or time.monotonic() > limit

        limit = time.monotonic() + WAIT_S
        for step in count():
            if step >= STEPS and enough():
                break
            orders: dict[str, list[Any]] = {"loads": [], "copies": [], "drops": [], "stores": []}
            for load_number in [n for n in open_loads if n in rig.seen.staged or dice.random() < 0.02]:
                request, keys = open_loads.pop(load_number)
                staged = rig.seen.staged.get(load_number, {}).get(0)
                if dice.random() < 0.2 or staged is None or staged.chunks == 0:
                    orders["drops"].append(load_number)
                else:
                    orders["copies"].append(claim(request, keys, dice.randint(1, staged.chunks)))
            if dice.random() < 0.4:
                load_number, request = step + 1, f"r{step}"
                keys = tuple(f"{dice.randrange(KEYS):04x}" for _ in range(dice.randint(1, 6)))
                orders["loads"].append(load(load_number, *keys, request=request, timeout_ms=40))
                if dice.random() < 0.4:
                    orders["copies"].append(claim(request, keys, len(keys)))
                else:
                    open_loads[load_number] = (request, keys)
            if dice.random() < 0.3:
                key = dice.randrange(KEYS)
                a, b = next(fresh), next(fresh)
                rig.copier.kv[a] = rig.copier.kv[b] = page(key)
                orders["stores"].append(StoreOrder(f"{key:04x}", ((a, b),)))
            if dice.random() < 0.05:
                load_number = 1_000_000 + step
                orders["copies"].append(claim(f"unknown{step}", ("0000",), 1))
            rig.copier.slow = dice.random() < 0.3
            for running in [each for each in rig.copier.running if not each.done and dice.random() < 0.3]:
                running.finish(None if dice.random() < 0.9 else "it failed")
            rig.step(**orders)
            time.sleep(dice.random() * 0.006)

        handler.fair = True
        for load_number in open_loads:
            rig.step(drops=[load_number])
        limit = time.monotonic() + WAIT_S
        while len(rig.finished) < len(ordered) or rig.free_slots < 12:
            assert time.monotonic() < limit, (set(ordered) - set(rig.finished), rig.client.client_stats())
            for running in [each for each in rig.copier.running if not each.done]:
                running.finish()
            rig.step()
            time.sleep(0.002)

        assert sorted(rig.finished) == sorted(ordered), "each once, and no other"
        assert set(rig.failed) <= set(ordered) and len(rig.failed) == len(set(rig.failed))
        assert len(rig.staged) == len(set(rig.staged)), "each load is told at most once"
        good = set(ordered) - set(rig.failed)
        assert len(good) > OF_USE and len(rig.failed) > OF_USE, "or the dice were of no use"
        for request in good:
            for block, name in ordered[request]:
                assert rig.copier.kv[block] == page(number(name)), (request, block, name)
        assert handler.wrong == []
        assert rig.counters.get("hook_errors|hook=load", 0) == 0
        with contextlib.suppress(AssertionError):  # told below, with what is held
            rig.until(lambda: not rig.copier.looks[1] and not rig.client.client_stats()["arenas_abandoned"])
        kept = (set(rig.copier.looks[1]), rig.client.client_stats()["arenas_abandoned"])
        assert kept == (set(), 0), "memory is not given back: lives in use, arenas abandoned"
        rig.side.shutdown()
