"""Counters add up, gauges keep the latest word of each process, and all of it crosses a process border."""

from __future__ import annotations

import json
import pickle

from kvlane.vllm import stats
from kvlane.vllm.stats import Tally


def test_nothing_that_happened_is_none() -> None:
    tally = Tally()
    assert tally.take() is None
    tally.count("lookups", 0)
    assert tally.take() is None


def test_take_gives_what_came_since_the_last_take() -> None:
    tally = Tally()
    tally.count("lookups")
    tally.count("lookups", 2)
    tally.count("refused", op="load")
    assert (tally.take() or {})["c"] == {"lookups": 3, "refused|op=load": 1}
    assert tally.take() is None


def test_a_gauge_is_told_again_only_when_it_changed() -> None:
    tally = Tally()
    tally.gauge("breaker", 0, **{"class": "load"})
    assert (tally.take() or {})["g"] == {"breaker|class=load": 0}
    tally.gauge("breaker", 0, **{"class": "load"})
    assert tally.take() is None
    tally.gauge("breaker", 2, **{"class": "load"})
    assert (tally.take() or {})["g"] == {"breaker|class=load": 2}


def test_ranks_do_not_overwrite_each_others_gauges() -> None:
    merged = stats.empty()
    for rank, stuck in ((0, 1), (1, 0)):
        tally = Tally()
        tally.gauge("stuck", stuck)
        stats.merge(merged, stats.of_process(tally.take() or {}, f"rank{rank}"))
    assert merged["g"] == {"stuck|process=rank0": 1, "stuck|process=rank1": 0}


def test_merging_adds_counters_and_keeps_the_later_gauge() -> None:
    first = {"c": {"lookups": 1}, "g": {"stuck": 3}, "h": {"load": [0.1]}}
    later = {"c": {"lookups": 2, "corrupt": 1}, "g": {"stuck": 0}, "h": {"load": [0.2], "copy_in": [0.3]}}
    assert stats.merge(first, later) == {
        "c": {"lookups": 3, "corrupt": 1},
        "g": {"stuck": 0},
        "h": {"load": [0.1, 0.2], "copy_in": [0.3]},
    }


def test_observations_pile_up_only_so_far() -> None:
    tally = Tally()
    for _ in range(stats.OBSERVATIONS_MAX + 10):
        tally.observe("load", 0.001)
    data = tally.take() or {}
    assert len(data["h"]["load"]) == stats.OBSERVATIONS_MAX
    assert len(stats.merge(data, {"h": {"load": [1.0]}})["h"]["load"]) == stats.OBSERVATIONS_MAX


def test_a_series_is_read_back_as_it_was_written() -> None:
    key = stats.series("breaker", {"process": "rank0", "class": "load"})
    assert key == "breaker|class=load|process=rank0"
    assert stats.parse_series(key) == ("breaker", {"class": "load", "process": "rank0"})
    assert stats.parse_series("lookups") == ("lookups", {})


def test_the_data_are_plain() -> None:
    tally = Tally()
    tally.count("load_timeouts", phase="read")
    tally.gauge("stuck", 1)
    tally.observe("load", 0.5)
    data = tally.take()
    assert pickle.loads(pickle.dumps(data)) == data
    assert json.loads(json.dumps(data)) == data
