"""The conversations in protocol/golden, from this client's side: it asks as they ask, and understands what they answer.

test/golden.test.ts plays the same files against the real sidecar; what both agree on is the protocol.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kvlane import Client, Task
from kvlane import _messages as wire
from kvlane._wire import decode_blocks, decode_control, decode_lookup, decode_namespace, refuse_control
from kvlane.results import BlocksResult
from kvlane.testing import FakeSidecar

GOLDEN = Path(__file__).resolve().parents[3] / "protocol" / "golden"
CONVERSATIONS = sorted(GOLDEN.glob("*.ndjson"))
DECODERS = {
    "load": decode_blocks,
    "store": decode_blocks,
    "remove": decode_blocks,
    "lookup": decode_lookup,
    "namespace": decode_namespace,
}
SAMPLES: dict[str, Any] = {"<int>": 1, "<text>": "text", "<object>": {}, "<any>": [], "<backing>": "shmem"}


def filled(value: Any) -> Any:
    """The message with something that fits where runs differ."""
    if isinstance(value, dict):
        return {key: filled(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry) for entry in value]
    return SAMPLES.get(value, value) if isinstance(value, str) else value


def pairs(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Requests of this protocol with their answers."""
    asked: dict[Any, dict[str, Any]] = {}
    found = []
    for line in path.read_text().splitlines()[1:]:
        step = json.loads(line)
        message = step.get("line")
        if not isinstance(message, dict):
            continue
        key = json.dumps(message.get("id"))
        if step["dir"] == "→" and message.get("op") in wire.OPS:
            asked.setdefault(key, message)
        elif step["dir"] == "←" and key in asked and "event" not in message:
            found.append((asked.pop(key), filled(message)))
    return found


def count(request: Mapping[str, Any]) -> int:
    return len(request.get("keys", request.get("blocks", ())))


def task_for(request: Mapping[str, Any]) -> Task[Any]:
    decode = DECODERS.get(request["op"], decode_control)
    return Task(
        op=request["op"], mount="kv0", count=count(request), slots=[], deadline_us=1, decode=decode,
        refuse=refuse_control, on_settle=None, listed=False, tag=None,
    )  # fmt: skip


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_every_answer_is_understood(path: Path) -> None:
    for request, answer in pairs(path):
        task = task_for(request)
        result = task._decode(task, answer)
        assert result.ok == answer["ok"], answer
        if "error" in answer:
            assert (result.code, result.message) == (answer["error"]["code"], answer["error"]["message"])
        if isinstance(result, BlocksResult) and "error" not in answer:
            assert result.done + len(result.failed) == count(request)
            assert result.kept == answer.get("kept", 0)
            named = [code for entry in answer.get("failed", ()) for code in [entry["code"]]]
            assert {failure.code for failure in result.failed} == set(named)


def ask(kv: Client, request: Mapping[str, Any]) -> Task[Any] | None:
    """The call that should make this request; None where this client has none (inline blocks, help, …)."""
    op, where = request["op"], {"mount": request.get("mount", "kv0")}
    space = {"namespace": request["namespace"]} if "namespace" in request else {}
    if op in ("lookup", "remove"):
        return getattr(kv, op)(request["keys"], **space, **where)  # type: ignore[no-any-return]
    if op in ("load", "store") and "keys" in request:
        slots = kv.lease(count(request), use=op, **where)
        fields: dict[str, Any] = {"replace": True} if request.get("if_exists") == "replace" else {}
        return getattr(kv, op)(request["keys"], slots, bytes=request["bytes"], **space, **where, **fields)  # type: ignore[no-any-return]
    if op == "namespace":
        return kv.namespace(request["name"], request["fingerprint"], bump=request.get("bump", False), **where)
    return None


ASKED_HERE = ["columns", "namespace", "two-mounts"]


@pytest.mark.parametrize("name", ASKED_HERE)
def test_the_client_asks_as_the_conversation_asks(name: str) -> None:
    path = GOLDEN / f"{name}.ndjson"
    header = json.loads(path.read_text().splitlines()[0])
    mounts = {mount: f"/{mount}" for mount in header.get("mounts", ["kv0"])}
    asked = 0
    with FakeSidecar() as fake, Client(fake.options(mounts=mounts, slot_bytes=65536, slots=64)) as kv:
        for request, answer in pairs(path):
            if "error" in answer:
                continue  # what this client never sends
            task = ask(kv, request)
            if task is None:
                continue
            got = fake.expect(request["op"])
            for field in set(request) - {"id", "slots", "timeout_ms", "deadline_us"}:
                assert got[field] == request[field]
            assert set(got) - {"mount", "bump"} <= set(request) | {"deadline_us"}
            fake.say({**answer, "id": got["id"]})
            assert kv.wait(task).ok == answer["ok"]
            asked += 1
    assert asked >= 2


def test_there_are_conversations_to_agree_on() -> None:
    assert {path.stem for path in CONVERSATIONS} >= set(ASKED_HERE)
