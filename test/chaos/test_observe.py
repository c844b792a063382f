"""What counts as held by a process at rest: what every look sees, however often it looks, and by which name a leak is told."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import observe


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors of the test; what is left in it is closed at the end."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def null() -> int:
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def still(_seconds: float) -> None:
    pass


def test_a_descriptor_that_one_look_sees_and_the_next_does_not_is_told_and_not_counted(opened: list[int]) -> None:
    before, _, _ = observe.at_rest(os.getpid(), pause=still)
    opened.append(null())
    found, held, passing = observe.at_rest(os.getpid(), pause=lambda _: os.close(opened.pop()) if opened else None)
    assert found["fds"] == before["fds"]
    assert "/dev/null" in passing and len(held["fds"]) == found["fds"]


def test_one_that_comes_at_the_last_look_is_not_counted(opened: list[int]) -> None:
    before, _, _ = observe.at_rest(os.getpid(), pause=still)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == observe.LOOKS - 1:
            opened.append(null())

    found, _, passing = observe.at_rest(os.getpid(), pause=pause)
    assert found["fds"] == before["fds"] and passing["/dev/null"] == 1


def test_one_that_stays_is_counted_and_named(opened: list[int]) -> None:
    before, start, _ = observe.at_rest(os.getpid(), pause=still)
    opened.append(null())
    found, held, passing = observe.at_rest(os.getpid(), pause=still)
    assert found["fds"] == before["fds"] + 1 and not passing
    told = observe.told(start["fds"], held["fds"])
    assert told.startswith("1 more /dev/null (of ") and f"{opened[0]} /dev/null" in told


def test_one_that_is_always_another_is_counted_all_the_same(opened: list[int]) -> None:
    """The next is there before the last one goes: numbers change, the count does not."""
    before, _, _ = observe.at_rest(os.getpid(), pause=still)
    opened.append(null())

    def pause(_seconds: float) -> None:
        opened.append(null())
        os.close(opened.pop(0))

    found, _, _ = observe.at_rest(os.getpid(), pause=pause)
    assert found["fds"] == before["fds"] + 1


def test_the_look_itself_is_not_counted(opened: list[int]) -> None:
    held = observe.process(os.getpid())[1]["fds"]
    assert all(os.readlink(f"/proc/self/fd/{number}") == link for number, link in held.items())


def test_many_are_told_in_few_words(opened: list[int]) -> None:
    start = observe.process(os.getpid())[1]["fds"]
    opened += [null() for _ in range(observe.NAMED_MAX + 1)]
    told = observe.told(start, observe.process(os.getpid())[1]["fds"])
    assert told.count("/dev/null") <= observe.NAMED_MAX + 1 and "others)" in told
