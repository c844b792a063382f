"""The statistics on samples whose answer is known."""

from __future__ import annotations

import random

import pytest

import stats


def noisy(center: float, spread: float, n: int, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [center * draw.lognormvariate(0, spread) for _ in range(n)]


def test_ratio_of_known_samples() -> None:
    found = stats.ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.value, found.low, found.high, found.n) == (2.0, 2.0, 2.0, 3)


def test_a_machine_that_slows_down_for_all_changes_no_ratio() -> None:
    theirs = [100.0 / (1 + i) for i in range(16)]
    found = stats.ratio([0.9 * rate for rate in theirs], theirs)
    assert found.value == pytest.approx(0.9)
    assert found.low == pytest.approx(found.high)


def test_one_wild_round_does_not_move_the_median() -> None:
    assert stats.ratio([1.0] * 15 + [50.0], [1.0] * 16).value == 1.0


def test_a_against_a_is_one() -> None:
    a, again = noisy(1000, 0.05, 64, 1), noisy(1000, 0.05, 64, 2)
    found = stats.ratio(a, again)
    assert found.low < 1 < found.high
    assert found.value == pytest.approx(1, abs=0.03)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    runs, covered = 120, 0
    for seed in range(runs):
        found = stats.ratio(noisy(0.95, 0.08, 16, 2 * seed), noisy(1, 0.08, 16, 2 * seed + 1), seed)
        covered += found.low <= 0.95 <= found.high
    assert covered / runs > 0.88  # 0.95, less what 16 rounds and 120 runs leave to chance


def test_more_rounds_make_it_narrower() -> None:
    def width(n: int) -> float:
        found = stats.ratio(noisy(1, 0.1, n, 5), noisy(1, 0.1, n, 6))
        return found.high - found.low

    assert width(256) < width(16) / 2


def test_the_same_samples_give_the_same_interval() -> None:
    a, b = noisy(1, 0.1, 16, 3), noisy(1, 0.1, 16, 4)
    assert stats.ratio(a, b) == stats.ratio(a, b)


def test_rounds_that_measured_nothing_are_left_out() -> None:
    assert stats.ratio([1.0, 0.0, 3.0], [1.0, 5.0, 1.5]).n == 2


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs"):
        stats.ratio([1.0], [1.0, 2.0])


@pytest.mark.parametrize(("q", "value"), [(0, 1), (0.5, 2.5), (1, 4), (0.99, 3.97)])
def test_quantiles(q: float, value: float) -> None:
    assert stats.quantile([4, 1, 3, 2], q) == pytest.approx(value)


def test_a_ratio_of_p99_pools_the_rounds() -> None:
    ours = [[1.0] * 99 + [10.0] for _ in range(8)]
    found = stats.ratio_of_quantiles(ours, [[2 * us for us in round_] for round_ in ours], 0.99)
    assert found.value == pytest.approx(0.5)


def test_the_quantile_of_what_is_kept_is_that_of_all() -> None:
    draw = random.Random(5)
    rounds = [[draw.random() for _ in range(draw.randrange(5, 400))] for _ in range(16)]
    for q in (0.5, 0.9, 0.99):
        tops = stats.tops_of(rounds, q)
        for _ in range(50):
            places = draw.choices(range(16), k=16)
            every = [value for place in places for value in rounds[place]]
            assert stats.quantile_of_tops([tops[place] for place in places], q) == stats.quantile(every, q)


def test_flat_cost_has_no_growth_and_linear_cost_has_growth_one() -> None:
    sizes = [1, 10, 100, 1000]
    assert stats.growth([(n, 3.0) for n in sizes]) == pytest.approx(0)
    assert stats.growth([(n, 3.0 * n) for n in sizes]) == pytest.approx(1)


def test_one_round_gives_a_value_without_a_claim_of_precision() -> None:
    found = stats.ratio([3.0], [2.0])
    assert (found.value, found.low, found.high, found.n) == (1.5, 1.5, 1.5, 1)
