"""The worker's half as a whole: start, hooks that do not come, leaving."""

from __future__ import annotations

import time
from typing import Any

import pytest
from worker_rig import Config, Rig, Start, copy, features, load, page, rig, start

from kvlane import Client
from kvlane.options import Options
from kvlane.testing import FakeSidecar
from kvlane.vllm.chunking import block_facts
from kvlane.vllm.config import ConnectorOptions, OptionError
from kvlane.vllm.messages import Orders, Staged, StoreOrder, WorkerFacts
from kvlane.vllm.worker_side import WorkerSide

__all__ = ["rig", "start"]  # fixtures


def test_its_facts_say_what_the_scheduler_must_know(start: Start) -> None:
    assert start(rank=1, world_size=2).side.facts() == WorkerFacts(1, 2, "layout", 128, 8, 2)


def test_a_layout_that_cannot_be_stored_leaves_a_worker_that_refuses_and_owes_nothing() -> None:
    def refuse(*_: object) -> Any:
        raise ValueError("layer 3 is odd")

    def never(options: Options) -> Client:
        raise AssertionError("no sidecar for a worker that can do nothing")

    side = WorkerSide(ConnectorOptions("/nowhere"), features(), 0, 1, never, open_memory=refuse)
    side.register({}, Config())
    assert side.facts() is None and side.refused == "layer 3 is odd"
    side.bind(Orders("n", [load(1, "0a")], [copy(2, 1, 7, 8)], [9], [StoreOrder("aa", ((1, 2),))], ["bb"], ["cc"]))
    side.start_loads()
    side.save()
    said = side.poll()
    assert said.finished_recving == said.failed_recving == {"r"}
    report = side.report()
    assert report is not None
    assert report.staged == {1: {0: Staged(0, "SIDECAR_GONE")}} and set(report.failed_stores) == {"aa", "bb"}
    side.bind(Orders())
    assert side.poll() == (set(), set(), set()) and side.report() is None
    side.shutdown()


def test_an_arena_without_room_for_two_chunks_is_a_mistake_that_is_told(fake: FakeSidecar) -> None:
    class Large:
        chunk_bytes = 3 << 20

    side = WorkerSide(
        ConnectorOptions("/nowhere", arena_mib=4), features(), 0, 1, Client, open_memory=lambda *_: (Large(), "x")  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(OptionError, match="arena_mib to 6"):
        side.register({}, Config())


def test_groups_with_blocks_of_different_sizes_are_refused() -> None:
    class Spec:
        block_size = 32
        page_size_bytes = 1

    class Group:
        layer_names = ("x", "y")
        kv_cache_spec = Spec()

    class Mixed:
        kv_cache_groups = (*Config.kv_cache_groups, Group())

    class Alike:
        kv_cache_groups = (Group(), Group())

    with pytest.raises(ValueError, match="16, 32 tokens"):
        block_facts(Mixed())
    assert block_facts(Alike()) == (32, 4)


def test_orders_are_taken_up_although_start_loads_never_came(rig: Rig) -> None:
    rig.side.bind(Orders("n", copies=[copy(1, 1, 7, 8)]))
    assert rig.side.poll().finished_recving == {"r"}
    rig.side.bind(Orders("n", copies=[copy(2, 1, 7, 8, request="s")]))
    rig.side.bind(Orders("n"))
    assert rig.side.poll().finished_recving == {"s"}


def test_stores_of_a_step_without_save_are_dropped_with_the_next_step(rig: Rig) -> None:
    rig.side.bind(Orders("n", stores=[StoreOrder("aa", ((1, 2),))]))
    rig.side.poll()
    assert rig.side.report() is None, "save may come after poll, with a draft model"
    rig.step()
    assert rig.seen.failed_stores == {"aa": {0}} and rig.copier.copied_out == []


def test_leaving_takes_no_longer_than_closing_the_client_and_nothing_is_served_after_it(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a")])
    rig.fake.mute = True
    began = time.monotonic()
    rig.side.shutdown()
    assert time.monotonic() - began < 0.9
    assert rig.copier.closed and rig.client.state == "closed"
    rig.step(loads=[load(2, "0a")], copies=[copy(3, 1, 7, 8)], stores=[StoreOrder("aa", ((1, 2),))])
    assert rig.finished == rig.failed == ["r"] and rig.seen.staged[2][0].chunks == 0
    rig.side.shutdown()


def test_gauges_tell_how_the_sidecar_is(rig: Rig) -> None:
    stall = {"mount": "kv", "class": "load", "phase": "read", "tid": 7, "syscall": "pread64", "since_us": 5, "for_ms": 900}
    rig.fake.say({"event": "stalled", **stall, "settled": False})
    rig.until(lambda: rig.gauges.get("stuck") == 1)
    assert rig.gauges["sidecar_up"] == 1 and rig.gauges["free_slots"] == 16 and rig.gauges["breaker|class=load"] == 0
    rig.fake.say({"event": "recovered", **stall, "settled": False})
    rig.until(lambda: rig.gauges["stuck"] == 0)


def test_what_has_landed_when_the_connector_is_closed_is_let_go(rig: Rig) -> None:
    rig.step(loads=[load(1, "0a")])
    rig.land(page(1))
    rig.until(lambda: rig.seen.staged)
    rig.side.shutdown()
    assert rig.copier.looks[1] == {1}
