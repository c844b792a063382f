"""What is remembered of storage, and for how long."""

from __future__ import annotations

import pytest
from fakes import Clock

from kvlane.vllm import known_keys
from kvlane.vllm.known_keys import ABSENT_US, BAD_US, KnownKeys


def test_the_leading_known_ones_are_counted() -> None:
    known = KnownKeys(Clock())
    for key in "abd":
        known.add(key)
    assert known.leading(["a", "b", "c", "d"]) == 2
    assert known.leading([]) == 0


def test_a_positive_answer_stays_until_it_is_forgotten() -> None:
    clock = Clock()
    known = KnownKeys(clock)
    known.add("a")
    clock.pass_ms(10**9)
    assert known.is_present("a")
    known.forget(["a", "never seen"])
    assert not known.is_present("a")
    assert not known.is_absent("a"), "forgotten is not absent"


def test_a_negative_answer_grows_old() -> None:
    clock = Clock()
    known = KnownKeys(clock)
    known.add_absent("a")
    clock.pass_ms(ABSENT_US / 1000 - 1)
    assert known.is_absent("a")
    clock.pass_ms(1)
    assert not known.is_absent("a")


def test_a_bad_one_is_absent_even_if_it_is_found_again() -> None:
    clock = Clock()
    known = KnownKeys(clock)
    known.add_bad("a")
    known.add("a")
    assert known.is_absent("a")
    assert known.leading(["a"]) == 0
    clock.pass_ms(BAD_US / 1000)
    assert known.is_present("a")


def test_a_bad_one_that_was_stored_again_is_good() -> None:
    known = KnownKeys(Clock())
    known.add_bad("a")
    known.add_stored("a")
    assert known.is_present("a")


def test_the_memory_ends_and_the_longest_unused_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_keys, "PRESENT_MAX", 2)
    known = KnownKeys(Clock())
    known.add("a")
    known.add("b")
    known.leading(["a"])
    known.add("c")
    assert [known.is_present(key) for key in "abc"] == [True, False, True]
