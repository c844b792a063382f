"""Calls → requests: what both clients share. Arguments are checked here; what only the sidecar can judge (keys, the
mount's state) is left to it and comes back as data."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from . import _messages as wire
from ._arena import Slot
from ._clock import now_us
from ._core import GRACE_US, Core
from ._pending import Decode, R, Refuse, Task
from ._reader import lead
from ._wire import (
    decode_blocks,
    decode_control,
    decode_lookup,
    decode_namespace,
    refuse_blocks,
    refuse_control,
    refuse_lookup,
    refuse_namespace,
)
from .errors import InvalidArgument
from .results import BlocksResult, ControlResult, LookupResult, NamespaceResult


@dataclass
class Request(Generic[R]):
    op: str
    mount: str
    count: int
    deadline_us: int
    body: dict[str, Any]
    decode: Decode
    refuse: Refuse
    slots: list[Slot] = field(default_factory=list)


class Requests:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._options = core.options
        mounts = list(core.options.mounts)
        self._only_mount = mounts[0] if len(mounts) == 1 else None

    # --- building ------------------------------------------------------------------------------------------------

    def mount(self, name: str | None) -> str:
        if name is None:
            if self._only_mount is None:
                raise InvalidArgument(f"there are several mounts, name one of {sorted(self._options.mounts)}")
            return self._only_mount
        if name not in self._options.mounts:
            raise InvalidArgument(f"no mount {name!r}; there are {sorted(self._options.mounts)}")
        return name

    def load(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        namespace: str | None,
        bytes_: int | Sequence[int] | None,
        mount: str | None,
        timeout_ms: float | None,
    ) -> Request[BlocksResult]:
        return self._blocks("load", keys, slots, namespace, bytes_, mount, timeout_ms)

    def store(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        namespace: str | None,
        bytes_: int | Sequence[int] | None,
        replace: bool,
        mount: str | None,
        timeout_ms: float | None,
    ) -> Request[BlocksResult]:
        request = self._blocks("store", keys, slots, namespace, bytes_, mount, timeout_ms)
        if replace:
            request.body["if_exists"] = "replace"
        return request

    def lookup(
        self, keys: Sequence[str], namespace: str | None, mount: str | None, timeout_ms: float | None
    ) -> Request[LookupResult]:
        return self._keys("lookup", keys, namespace, mount, timeout_ms, decode_lookup, refuse_lookup)

    def remove(
        self, keys: Sequence[str], namespace: str | None, mount: str | None, timeout_ms: float | None
    ) -> Request[BlocksResult]:
        return self._keys("remove", keys, namespace, mount, timeout_ms, decode_blocks, refuse_blocks)

    def namespace(
        self, name: str, fingerprint: Mapping[str, Any], bump: bool, mount: str | None, timeout_ms: float | None
    ) -> Request[NamespaceResult]:
        mount, deadline_us = self.mount(mount), self._deadline_us(timeout_ms)
        body = {"op": "namespace", "mount": mount, "deadline_us": deadline_us, "name": name, "bump": bump}
        body["fingerprint"] = dict(fingerprint)
        return Request("namespace", mount, 1, deadline_us, body, decode_namespace, refuse_namespace)

    def control(self, op: str, timeout_ms: float) -> Request[ControlResult]:
        """Control requests carry no deadline on the wire: the sidecar answers them at once or not at all. So there is
        nothing to wait for after the deadline, and our last word comes at it, not a grace later."""
        deadline_us = self._deadline_us(timeout_ms) - GRACE_US
        return Request(op, "", 0, deadline_us, {"op": op}, decode_control, refuse_control)

    def _blocks(
        self,
        op: str,
        keys: Sequence[str],
        slots: Sequence[Slot],
        namespace: str | None,
        bytes_: int | Sequence[int] | None,
        mount: str | None,
        timeout_ms: float | None,
    ) -> Request[BlocksResult]:
        request: Request[BlocksResult] = self._keys(op, keys, namespace, mount, timeout_ms, decode_blocks, refuse_blocks)
        if len(slots) != len(keys):
            raise InvalidArgument(f"{len(keys)} keys need as many slots, got {len(slots)}")
        slot_bytes = self._options.slot_bytes
        lengths = slot_bytes if bytes_ is None else bytes_ if isinstance(bytes_, int) else list(bytes_)
        if isinstance(lengths, list) and len(lengths) != len(keys):
            raise InvalidArgument(f"{len(keys)} keys need one length for all or one each, got {len(lengths)}")
        every = lengths if isinstance(lengths, list) else [lengths]
        for kind in set(map(type, every)):
            if not issubclass(kind, int):
                raise InvalidArgument(f"bytes must be whole numbers, got a {kind.__name__}")
        for length in set(every):
            if not 0 < length <= slot_bytes:
                raise InvalidArgument(f"bytes must be from 1 to slot_bytes {slot_bytes}, got {length}")
        use = (request.mount, op)
        for slot in slots:
            if slot._use != use:
                raise InvalidArgument(
                    f"slot {slot.index} was leased for {slot.slot_class} on {slot.mount}, "
                    f"not for {op} on {request.mount}: budgets are kept per mount and class"
                )
        request.slots = list(slots)
        request.body["slots"] = [slot.index for slot in slots]
        request.body["bytes"] = lengths
        return request

    def _keys(
        self,
        op: str,
        keys: Sequence[str],
        namespace: str | None,
        mount: str | None,
        timeout_ms: float | None,
        decode: Decode,
        refuse: Refuse,
    ) -> Request[Any]:
        if isinstance(keys, str):
            raise InvalidArgument("keys must be a list of strings, got one string")
        if not 0 < len(keys) <= wire.BLOCKS_MAX:
            raise InvalidArgument(f"one request takes 1 to {wire.BLOCKS_MAX} keys, got {len(keys)}")
        try:
            "".join(keys)  # the quickest look at the type of each: some JSON libraries would write something for bytes
        except TypeError as error:
            raise InvalidArgument(f"keys must be strings: {error}") from None
        if namespace is not None and not isinstance(namespace, str):
            raise InvalidArgument(f"namespace must be a string, got {namespace!r:.60}")
        mount, deadline_us = self.mount(mount), self._deadline_us(timeout_ms)
        body: dict[str, Any] = {"op": op, "mount": mount, "deadline_us": deadline_us}
        if namespace is not None:
            body["namespace"] = namespace
        body["keys"] = list(keys)
        return Request(op, mount, len(keys), deadline_us, body, decode, refuse)

    def _deadline_us(self, timeout_ms: float | None) -> int:
        timeout_ms = self._options.timeout_ms if timeout_ms is None else timeout_ms
        if not 0 < timeout_ms <= wire.TIMEOUT_MS_MAX:
            raise InvalidArgument(f"timeout_ms must be above 0 and at most {wire.TIMEOUT_MS_MAX}, got {timeout_ms!r}")
        return now_us() + int(timeout_ms * 1000)

    # --- sending -------------------------------------------------------------------------------------------------

    def send(
        self,
        request: Request[R],
        tag: object,
        on_done: Callable[[Task[R]], object] | None,
        *,
        listed: bool = True,
        on_settle: Callable[[Task[Any]], None] | None = None,
    ) -> Task[R]:
        """`on_done` runs on the callbacks' thread; `on_settle` wherever it is settled, under the lock, and is ours."""
        if on_done is not None:
            done, callbacks = on_done, self._core.callbacks

            def hand_over(task: Task[Any]) -> None:
                callbacks.call(done, task)

            on_settle = hand_over
        task: Task[R] = Task(
            op=request.op,
            mount=request.mount,
            count=request.count,
            slots=request.slots,
            deadline_us=request.deadline_us,
            decode=request.decode,
            refuse=request.refuse,
            on_settle=on_settle,
            listed=listed and on_settle is None,
            tag=tag,
        )
        self._core.submit(task, request.body)
        return task


def wait_for(core: Core, task: Task[R], timeout_ms: float | None) -> R | None:
    """Bounded by the task's deadline plus grace, whatever happens to the IO thread. Reads the answers itself if nobody does."""
    limit_us = task.deadline_us + GRACE_US
    if timeout_ms is not None:
        limit_us = min(limit_us, now_us() + int(timeout_ms * 1000))
    while task._result is None:
        if lead(core, task, limit_us) and now_us() < limit_us:
            continue
        with core.lock:
            if task.done:
                break
            if task._waiter is None:
                task._waiter = threading.Lock()
                task._waiter.acquire()
            waiter = task._waiter
        left_us = limit_us - now_us()
        if left_us <= 0:
            core.last_word(task)
            break
        if waiter.acquire(timeout=left_us / 1e6):
            waiter.release()  # somebody else may wait for the same task
    if task.done:
        core.forget_finished(task)
    return task.result
