"""Answers → results, and the results we make ourselves when no answer comes.

An answer is believed only when it is whole: every block either done or failed, every failed one once. A block that an
answer forgot would otherwise count as loaded, and its slot holds whatever was there. ProtocolBroken ends the life.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._clock import now_us
from ._pending import Task
from .results import BlocksResult, ControlResult, Failure, LookupResult, NamespaceResult, Result, SlotWord


class ProtocolBroken(Exception):
    """The sidecar said something that no sidecar of this version says."""


def _need(answer: Mapping[str, Any], name: str, kind: type) -> Any:
    value = answer.get(name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ProtocolBroken(f"{name} should be {kind.__name__}, got {value!r:.60}")
    return value


def whole_error(answer: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
    """Code, message and errno when the whole request was refused."""
    error = answer.get("error")
    if error is None:
        return None
    if not isinstance(error, dict) or not isinstance(error.get("code"), str):
        raise ProtocolBroken(f"an error without a code: {error!r:.60}")
    return error["code"], str(error.get("message", "")), error.get("errno")


# --- blocks: load, store, remove ---------------------------------------------------------------------------------


def decode_blocks(task: Task[Any], answer: Mapping[str, Any]) -> BlocksResult:
    refused = whole_error(answer)
    if refused is not None:
        code, message, errno = refused
        word: SlotWord | None = "free" if task.slots else None
        waited_ms = (now_us() - task.submitted_us) // 1000
        one = [Failure(i, code, "queue", waited_ms, word, errno, message) for i in range(task.count)]
        return BlocksResult(False, code, message, failed=tuple(one))
    ok = _need(answer, "ok", bool)
    done = _need(answer, "done", int)
    kept = answer.get("kept", 0)
    if ok and done == task.count and "failed" not in answer:  # the usual answer
        return BlocksResult(True, done=done, kept=kept)
    entries = _need(answer, "failed", list) if "failed" in answer else []
    failed = tuple(sorted((one for entry in entries for one in _failures(task, entry)), key=lambda one: one.block))
    if len({failure.block for failure in failed}) != len(failed):
        raise ProtocolBroken(f"answer to task {task.id} fails a block twice")
    if done + len(failed) != task.count or ok == bool(failed):
        raise ProtocolBroken(f"answer to task {task.id} says ok={ok}, {done} done and {len(failed)} failed of {task.count}")
    if not failed:
        return BlocksResult(True, done=done, kept=kept)
    first = failed[0]
    return BlocksResult(False, first.code, first.message, done=done, failed=failed, kept=kept)


def _failures(task: Task[Any], entry: Any) -> list[Failure]:
    if not isinstance(entry, dict):
        raise ProtocolBroken(f"failed entry {entry!r:.60}")
    blocks: list[int] = [entry["block"]] if "block" in entry else []
    try:
        for first, last in entry.get("blocks", ()):
            if not 0 <= first <= last < task.count:
                raise ProtocolBroken(f"answer to task {task.id} fails blocks {first} to {last} of {task.count}")
            blocks.extend(range(first, last + 1))
        inside = all(type(block) is int and 0 <= block < task.count for block in blocks)
    except (TypeError, ValueError) as error:
        raise ProtocolBroken(f"failed entry {entry!r:.60}") from error
    if not blocks or not inside:
        raise ProtocolBroken(f"failed entry names no block of the task's {task.count}: {entry!r:.60}")
    slot = entry.get("slot")
    if task.slots and slot not in ("free", "quarantined"):
        raise ProtocolBroken(f"failed entry does not say what became of the slot: {entry!r:.60}")
    return [
        Failure(
            block,
            _need(entry, "code", str),
            entry.get("phase"),
            entry.get("waited_ms"),
            slot,
            entry.get("errno"),
            entry.get("message"),
            entry.get("outcome"),
            entry.get("stored_bytes"),
        )
        for block in blocks
    ]


def refuse_blocks(task: Task[Any], code: str, message: str) -> BlocksResult:
    """Settled on this side. What was sent keeps its slots: the kernel may be at work on them."""
    sent = task.id >= 0
    word: SlotWord | None = None if not task.slots else ("quarantined" if sent else "free")
    waited_ms = (now_us() - task.submitted_us) // 1000
    outcome = "unknown" if sent and task.op in ("store", "remove") else None
    failed = tuple(
        Failure(i, code, None, waited_ms, word, None, message, outcome, source="client") for i in range(task.count)
    )
    return BlocksResult(False, code, message, "client", failed=failed)


# --- lookup, namespace, control ----------------------------------------------------------------------------------


def decode_lookup(task: Task[Any], answer: Mapping[str, Any]) -> LookupResult:
    refused = whole_error(answer)
    if refused is not None:
        return LookupResult(False, refused[0], refused[1], present=(None,) * task.count)
    present = tuple(_need(answer, "present", list))
    if len(present) != task.count or any(entry is not None and type(entry) is not bool for entry in present):
        raise ProtocolBroken(f"look-up of {task.count} keys answered with {len(present)} entries")
    prefix = next((i for i, entry in enumerate(present) if entry is not True), task.count)
    if prefix != _need(answer, "prefix", int):
        raise ProtocolBroken(f"look-up says prefix {answer['prefix']}, its list begins with {prefix}")
    return LookupResult(True, present=present, prefix=prefix, complete=_need(answer, "complete", bool))


def refuse_lookup(task: Task[Any], code: str, message: str) -> LookupResult:
    return LookupResult(False, code, message, "client", present=(None,) * task.count)


def decode_namespace(task: Task[Any], answer: Mapping[str, Any]) -> NamespaceResult:
    refused = whole_error(answer)
    if refused is not None:
        return NamespaceResult(False, refused[0], refused[1])
    return NamespaceResult(
        True,
        state=_need(answer, "state", str),
        key_namespace=_need(answer, "key_namespace", str),
        generation=_need(answer, "generation", int),
        fingerprint=_need(answer, "fingerprint", dict),
    )


def refuse_namespace(task: Task[Any], code: str, message: str) -> NamespaceResult:
    return NamespaceResult(False, code, message, "client")


def decode_control(task: Task[Any], answer: Mapping[str, Any]) -> Result:
    refused = whole_error(answer)
    if refused is not None:
        return ControlResult(False, refused[0], refused[1])
    return ControlResult(True, body=dict(answer))


def refuse_control(task: Task[Any], code: str, message: str) -> Result:
    return ControlResult(False, code, message, "client")
