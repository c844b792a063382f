"""Is a load worth its time, and how long may it take?"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from fakes import Clock

from kvlane.vllm.worth import LOAD_EVIDENCE_US, LOADS_NEEDED, RATE_JUMP_MAX, RETRY_AFTER_US, Worth, fit

MIB = 1 << 20


@dataclass
class Limits:
    timeout_ms: float | None = None
    deadline_floor_ms: float = 50
    deadline_ceiling_ms: float = 2000


class Bench:
    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.worth = Worth(Limits(**limits), self.clock)

    def step(self, tokens: int, ms: float) -> None:
        self.worth.step_built(tokens)
        self.clock.pass_ms(ms)
        self.worth.step_reported()

    def loads(self, size_bytes: int, seconds: float, count: int = LOADS_NEEDED) -> None:
        for _ in range(count):
            self.worth.load_took(size_bytes, seconds)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_without_evidence_every_load_is_worth_it(bench: Bench) -> None:
    assert bench.worth.is_worth(1, 1 << 40)
    bench.step(1000, 100)
    assert bench.worth.is_worth(1, 1 << 40)


def test_a_load_that_takes_longer_than_the_recompute_is_not_worth_it(bench: Bench) -> None:
    bench.step(1000, 100)  # 10,000 tokens per second
    bench.loads(MIB, 0.05)
    assert bench.worth.is_worth(600, MIB)
    assert not bench.worth.is_worth(400, MIB)


def test_a_few_slow_loads_prove_nothing(bench: Bench) -> None:
    bench.step(1000, 100)
    bench.loads(MIB, 5, LOADS_NEEDED - 1)
    assert bench.worth.is_worth(400, MIB)
    bench.loads(MIB, 0.001, LOADS_NEEDED)
    assert bench.worth.is_worth(400, MIB), "the median is good"


def test_what_is_not_worth_it_is_tried_now_and_then(bench: Bench) -> None:
    bench.step(1000, 100)
    bench.loads(MIB, 0.05)
    bench.worth.is_worth(600, MIB)
    bench.clock.pass_ms(RETRY_AFTER_US / 1000 - 1)
    assert not bench.worth.is_worth(400, MIB)
    bench.clock.pass_ms(1)
    assert bench.worth.is_worth(400, MIB)
    assert not bench.worth.is_worth(400, MIB)


def test_loads_grow_old(bench: Bench) -> None:
    bench.step(1000, 100)
    bench.loads(MIB, 0.05)
    bench.worth.is_worth(600, MIB)
    assert not bench.worth.is_worth(400, MIB)
    bench.clock.pass_ms(LOAD_EVIDENCE_US / 1000 + 1)
    assert bench.worth.load_seconds(MIB) is None


def test_small_steps_say_nothing_about_prefill(bench: Bench) -> None:
    bench.step(255, 1000)
    assert bench.worth.tokens_per_second is None


def test_overlapping_steps_begin_where_the_last_one_ended(bench: Bench) -> None:
    bench.worth.step_built(1000)
    bench.clock.pass_ms(50)
    bench.worth.step_built(1000)
    bench.clock.pass_ms(50)
    bench.worth.step_reported()
    bench.clock.pass_ms(100)
    bench.worth.step_reported()
    assert bench.worth.tokens_per_second == pytest.approx(10_000)


def test_one_odd_step_does_not_turn_the_rate(bench: Bench) -> None:
    bench.step(1000, 100)
    bench.step(1000, 50_000)
    rate = bench.worth.tokens_per_second
    assert rate is not None
    assert rate > 10_000 * (1 - 1 / RATE_JUMP_MAX)


def test_reports_without_a_step_are_nothing(bench: Bench) -> None:
    for _ in range(3):
        bench.worth.step_reported()
    assert bench.worth.tokens_per_second is None


def test_the_deadline_is_half_the_recompute_and_the_floor(bench: Bench) -> None:
    bench.step(1000, 100)
    assert bench.worth.timeout_ms(1000) == pytest.approx(100)


def test_the_deadline_has_a_ceiling(bench: Bench) -> None:
    assert bench.worth.timeout_ms(10**9) == 2000


def test_one_number_overrules_all() -> None:
    assert Bench(timeout_ms=250).worth.timeout_ms(10**9) == 250


def test_latency_and_bandwidth_are_told_apart() -> None:
    latency, per_byte = fit([(size * MIB, 0.01 + size * 0.002) for size in (1, 2, 4, 8)])
    assert latency == pytest.approx(0.01)
    assert per_byte * MIB == pytest.approx(0.002)


def test_an_odd_load_does_not_turn_the_line() -> None:
    loads = [(size * MIB, 0.01 + size * 0.002) for size in (1, 2, 3, 4, 5, 6, 7, 8)]
    latency, per_byte = fit([*loads, (4 * MIB, 9.0)])
    assert latency + per_byte * 8 * MIB == pytest.approx(0.026, rel=0.2)


def test_odd_measurements_are_ignored(bench: Bench) -> None:
    bench.loads(0, 1.0)
    bench.loads(MIB, -1.0)
    bench.loads(MIB, float("nan"))
    assert bench.worth.load_seconds(MIB) is None
