"""Chunks on their way to storage: when they are known, committed or forgotten."""

from __future__ import annotations

import pytest
from fakes import Clock

from kvlane.vllm import commits as commits_module
from kvlane.vllm.commits import Commits
from kvlane.vllm.known_keys import KnownKeys
from kvlane.vllm.messages import Orders


class Bench:
    def __init__(self, world_size: int, reports: bool = True) -> None:
        self.clock = Clock()
        self.known = KnownKeys(self.clock)
        self.commits = Commits(world_size, reports, 1000, self.known, self.clock)

    def take(self) -> tuple[list[str], list[str]]:
        orders = Orders()
        self.commits.take(orders)
        return orders.commits, orders.forgets


def test_with_one_rank_its_word_is_enough() -> None:
    bench = Bench(1)
    assert bench.commits.begin("a")
    assert "a" in bench.commits
    bench.commits.on_report({"a": {0}}, {})
    assert bench.known.is_present("a")
    assert "a" not in bench.commits
    assert bench.take() == ([], [])


def test_an_ordered_store_ends_its_absence() -> None:
    """A request that is preempted a moment later may find it on storage, before any report."""
    bench = Bench(1)
    bench.known.add_absent("a")
    bench.known.add_bad("b")
    bench.commits.begin("a")
    bench.commits.begin("b")
    assert not bench.known.is_absent("a")
    assert bench.known.is_absent("b"), "a bad one stays so until the store is there"


def test_without_reports_nothing_is_known_and_nothing_is_pending() -> None:
    bench = Bench(2, reports=False)
    bench.commits.begin("a")
    assert not bench.commits.pending
    assert not bench.commits.begin("a"), "for a while nobody else stores it"
    bench.clock.pass_ms(1000)
    bench.commits.poll()
    assert bench.commits.begin("a")
    assert bench.take() == ([], [])


def test_a_failure_after_the_commit_leaves_nothing_known() -> None:
    bench = Bench(2)
    bench.commits.begin("a")
    bench.commits.on_report({"a": {1}}, {})
    assert bench.take() == (["a"], [])
    bench.commits.on_report({}, {"a": {0}})
    assert not bench.known.is_present("a")
    assert bench.take() == ([], [])


def test_one_that_stored_and_one_that_failed_is_a_failure() -> None:
    bench = Bench(3)
    bench.commits.begin("a")
    bench.commits.on_report({"a": {1}}, {"a": {2}})
    assert bench.take() == ([], ["a"])


def test_words_about_the_unknown_are_nothing() -> None:
    bench = Bench(2)
    bench.commits.on_report({"a": {0, 1}}, {"b": {1}})
    assert not bench.known.is_present("a")
    assert bench.take() == ([], [])


def test_a_reset_forgets_also_what_was_about_to_be_committed() -> None:
    bench = Bench(2)
    bench.commits.begin("a")
    bench.commits.begin("b")
    bench.commits.on_report({"a": {1}}, {})
    bench.commits.forget_all()
    commits, forgets = bench.take()
    assert (commits, sorted(forgets)) == ([], ["a", "b"])


def test_there_is_an_end_to_what_can_be_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits_module, "CHUNKS_MAX", 1)
    bench = Bench(1)
    assert bench.commits.begin("a")
    assert not bench.commits.begin("b")
