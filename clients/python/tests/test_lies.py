"""A sidecar that says what no sidecar says is replaced; what it might have cost is counted, never believed."""

from __future__ import annotations

from typing import Any

import pytest
from support import Connect, eventually

from kvlane import SIDECAR_GONE, Client
from kvlane.testing import FakeSidecar


def test_an_answer_that_comes_twice_or_to_nothing_is_noted_and_changes_nothing(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"])
    request = fake.expect("lookup")
    fake.answer(request, present=[True], prefix=1, complete=True)
    fake.answer(request, present=[False], prefix=0, complete=True)
    fake.say({"id": None, "ok": False, "error": {"code": "DUPLICATE_ID", "message": "x"}, "duplicate_of": 1, "line": 1})
    fake.say({"id": "a string", "ok": True})
    assert kv.wait(task).prefix == 1
    eventually(lambda: kv.client_stats()["unknown_answers"] == 3)
    assert kv.state == "up"


def entry(**fields: Any) -> dict[str, Any]:
    return {"code": "IO_ERROR", "phase": "read", "waited_ms": 1, "slot": "free", **fields}


LIES: dict[str, dict[str, Any]] = {
    "a block that is not there": {"ok": False, "done": 1, "failed": [entry(block=2)]},
    "a negative block": {"ok": False, "done": 1, "failed": [entry(block=-1)]},
    "a range past the end": {"ok": False, "done": 0, "failed": [entry(blocks=[[0, 5]])]},
    "a range that is none": {"ok": False, "done": 0, "failed": [entry(blocks=[7])]},
    "no block at all": {"ok": False, "done": 1, "failed": [entry()]},
    "a block twice": {"ok": False, "done": 0, "failed": [entry(block=1), entry(block=1)]},
    "a block forgotten": {"ok": True, "done": 1},
    "fine, with failures": {"ok": True, "done": 1, "failed": [entry(block=0)]},
    "not fine, without any": {"ok": False, "done": 2},
    "no word on the slot": {"ok": False, "done": 1, "failed": [{"block": 0, "code": "IO_ERROR"}]},
    "an error without a code": {"ok": False, "error": {"message": "x"}},
    "done is a word": {"ok": True, "done": "two"},
    "failures that are a number": {"ok": False, "done": 1, "failed": 5},
    "failures that are null": {"ok": True, "done": 2, "failed": None},
    "half a block": {"ok": False, "done": 1, "failed": [entry(block=0.5, slot="quarantined")]},
    "a block that is true": {"ok": False, "done": 1, "failed": [entry(block=True, slot="quarantined")]},
    "a range of halves": {"ok": False, "done": 0, "failed": [entry(blocks=[[0, 1.5]])]},
}


@pytest.mark.parametrize("fields", LIES.values(), ids=LIES.keys())
def test_an_answer_that_does_not_add_up_ends_the_life(fields: dict[str, Any], fake: FakeSidecar, kv: Client) -> None:
    slots = kv.lease(2)
    task = kv.load(["a/00", "a/01"], slots, timeout_ms=60_000)
    request = fake.expect("load")
    fake.say({"id": request["id"], **fields})
    result = kv.wait(task)
    assert (result.code, result.done) == (SIDECAR_GONE, 0)
    assert any("broke the protocol" in note for note in kv.notes())
    assert [slot.state for slot in slots] == ["abandoned"] * 2


@pytest.mark.parametrize("line", ["not json", "null", "[]", "17", '"x"', "[" * 5000], ids=lambda line: line[:8])
def test_a_line_that_is_no_message_ends_the_life(line: str, fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    fake.expect("lookup")
    fake.say(line)
    assert kv.wait(task).code == SIDECAR_GONE


def test_lines_nested_about_as_deep_as_json_is_read_at_end_the_life_at_most(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    request = fake.expect("lookup")
    depths = range(940, 1_001)  # read to another depth than written: in between nothing of them can be told
    nested = "".join('{"id":-5,"x":' + "[" * depth + "]" * depth + "}\n" for depth in depths)
    fake.order(raw=nested + f'{{"id":{request["id"]},"ok":true,"present":[true],"prefix":1,"complete":true}}\n')
    result = kv.wait(task)  # Python 3.12 reads deeper than the others
    assert result.code == SIDECAR_GONE or result.prefix == 1
    assert not any("IO thread failed" in note for note in kv.notes())


def test_an_id_that_is_true_is_no_number(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"])
    request = fake.expect("lookup")
    assert request["id"] == 1, "the first request's"
    fake.say({"id": True, "ok": True, "present": [True], "prefix": 1, "complete": True})
    fake.answer(request, present=[False], prefix=0, complete=True)
    assert kv.wait(task).prefix == 0


def test_a_line_without_an_end_ends_the_life_at_the_limit(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=60_000)
    fake.expect("lookup")
    fake.order(raw="x" * ((1 << 20) + 1))
    assert kv.wait(task).code == SIDECAR_GONE
    assert any("without an end" in note for note in kv.notes())


def test_a_look_up_that_contradicts_itself_ends_the_life(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00", "a/01"], timeout_ms=60_000)
    fake.answer(fake.expect("lookup"), present=[False, True], prefix=1, complete=True)
    assert kv.wait(task).code == SIDECAR_GONE


def test_slots_freed_that_nobody_waits_for_frees_nothing(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect()
    (slot,) = kv.lease(1)
    kv.load(["a/00"], [slot], timeout_ms=60_000)
    fake.expect("load")
    fake.say({"event": "slots_freed", "slots": [slot.index, 15, 99, "x", -1]})
    eventually(lambda: kv.client_stats()["bad_slots_freed"] == 5)
    assert slot.state == "in flight"
    assert kv.client_stats()["slots_free"] == 15
