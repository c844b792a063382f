"""The synchronous client: submit returns a task at once, poll() never blocks, wait() is always bounded.

    with Client(Options(mounts={"kv0": "/mnt/kv"})) as kv:
        with kv.leasing(len(keys)) as slots:
            task = kv.load(keys, slots, namespace="llama@1", timeout_ms=250)
            ...                                     # the forward pass goes on
            for done in kv.poll():
                missed = [failure.block for failure in done.result.failed]

The sidecar is spawned when the client is made; `with` (or `wait_ready`) waits for it, for `start_timeout_ms` at most. It
is restarted by itself; meanwhile every request is settled at once with SIDECAR_GONE. Whatever the sidecar, the kernel or
the mount do, a task is settled at its deadline plus 20 ms at the latest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast, overload

from ._arena import Slot, release
from ._budget import SlotClass
from ._clock import now_us
from ._core import Core, State
from ._io_thread import IoThread
from ._life import Spawn
from ._pending import R, Task
from ._process import SidecarProcess
from ._requests import Requests, wait_for
from .errors import NoAnswer, Saturated, SidecarGone, StartFailed
from .options import Options
from .results import BlocksResult, ControlResult, LookupResult, NamespaceResult

CLOSE_MARGIN_S = 0.05


class Client:
    """One sidecar and its arena. Thread-safe; not usable in a forked child."""

    def __init__(self, options: Options, *, _spawn: Spawn = SidecarProcess.spawn) -> None:
        self.options = options
        self._core = Core(options, _spawn)
        self._requests = Requests(self._core)
        IoThread(self._core)

    # --- life ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Client:
        try:
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        core = getattr(self, "_core", None)
        if core is not None:
            core.request_close()

    def wait_ready(self, timeout_ms: int | None = None) -> None:
        """Until the sidecar is up. Raises StartFailed when a start fails, or none succeeds in time."""
        core = self._core
        limit_ms = self.options.start_timeout_ms + 1000 if timeout_ms is None else timeout_ms
        with core.lock:
            core.changed.wait_for(
                lambda: core.state in ("up", "off", "closed") or core.start_error is not None, limit_ms / 1000
            )
            if core.state == "up":
                return
            if core.start_error is not None:
                raise core.start_error
            code = "SATURATED" if core.state == "off" else "NOT_READY_IN_TIME"
            raise StartFailed(f"the client is {core.state}: {core.reason}", code=code, log_tail=core.sidecar_log.tail())

    def close(self) -> None:
        """Ends the sidecar, within `close_timeout_ms`; what is in flight is settled SHUTTING_DOWN. A sidecar that cannot
        be ended is killed and left behind: see `notes()`."""
        self._core.request_close()
        self._core.finished.wait(self.options.close_timeout_ms / 1000 + CLOSE_MARGIN_S)

    @property
    def state(self) -> State:
        """starting, up, restarting, off (waiting for the kernel to give an arena back) or closed."""
        return self._core.state

    @property
    def reason(self) -> str:
        """Why it is in that state."""
        return self._core.reason

    @property
    def life(self) -> int:
        """Counts sidecars, from 1. Slots of former lives are over; their bytes stay readable while leased."""
        return self._core.lives

    @property
    def pid(self) -> int | None:
        life = self._core.life
        return None if life is None else life.process.pid

    @property
    def ready(self) -> Mapping[str, Any] | None:
        """The sidecar's ready event, while it is up."""
        life = self._core.life
        return None if life is None else life.ready

    def arena_view(self) -> memoryview:
        """The whole arena of this life, for those who register memory with a device. Leases still rule who may touch it."""
        with self._core.lock:
            life = self._core.life
            if life is None:
                raise SidecarGone(f"the client is {self.state}: {self.reason}")
            return life.arena.whole()

    # --- slots ---------------------------------------------------------------------------------------------------

    def try_lease(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> list[Slot] | None:
        """All or none; None when the budget of this mount and class, or the arena, has not that many."""
        return self._core.lease(count, self._requests.mount(mount), use)

    def lease(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> list[Slot]:
        """As try_lease, but raises Saturated."""
        slots = self.try_lease(count, mount=mount, use=use)
        if slots is None:
            raise Saturated(f"no {count} slots for {use} on {self._requests.mount(mount)}: see client_stats()")
        return slots

    def release(self, slots: Sequence[Slot]) -> None:
        """As slot.release() for each, and much cheaper for many."""
        release(slots)

    @contextlib.contextmanager
    def leasing(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> Iterator[list[Slot]]:
        """A lease that ends with the block; slots still in flight come back when the kernel is done."""
        slots = self.lease(count, mount=mount, use=use)
        try:
            yield slots
        finally:
            release(slots)

    # --- requests: at once -----------------------------------------------------------------------------------------

    def load(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        *,
        namespace: str | None = None,
        bytes: int | Sequence[int] | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
        tag: object = None,
        on_done: Callable[[Task[BlocksResult]], object] | None = None,
    ) -> Task[BlocksResult]:
        """Blocks → slots. `bytes`: one length for all, or one each; by default the whole slot."""
        request = self._requests.load(keys, slots, namespace, bytes, mount, timeout_ms)
        return self._requests.send(request, tag, on_done)

    def store(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        *,
        namespace: str | None = None,
        bytes: int | Sequence[int] | None = None,
        replace: bool = False,
        mount: str | None = None,
        timeout_ms: float | None = None,
        tag: object = None,
        on_done: Callable[[Task[BlocksResult]], object] | None = None,
    ) -> Task[BlocksResult]:
        """Slots → blocks. A block that exists is kept (and counted) unless `replace`."""
        request = self._requests.store(keys, slots, namespace, bytes, replace, mount, timeout_ms)
        return self._requests.send(request, tag, on_done)

    def lookup(
        self,
        keys: Sequence[str],
        *,
        namespace: str | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
        tag: object = None,
        on_done: Callable[[Task[LookupResult]], object] | None = None,
    ) -> Task[LookupResult]:
        """Which blocks are there, the leading ones first."""
        return self._requests.send(self._requests.lookup(keys, namespace, mount, timeout_ms), tag, on_done)

    def remove(
        self,
        keys: Sequence[str],
        *,
        namespace: str | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
        tag: object = None,
        on_done: Callable[[Task[BlocksResult]], object] | None = None,
    ) -> Task[BlocksResult]:
        return self._requests.send(self._requests.remove(keys, namespace, mount, timeout_ms), tag, on_done)

    def namespace(
        self,
        name: str,
        fingerprint: Mapping[str, Any],
        *,
        bump: bool = False,
        mount: str | None = None,
        timeout_ms: float | None = None,
        tag: object = None,
        on_done: Callable[[Task[NamespaceResult]], object] | None = None,
    ) -> Task[NamespaceResult]:
        """Agrees on what a namespace's blocks are; `result.key_namespace` goes into keys."""
        return self._requests.send(self._requests.namespace(name, fingerprint, bump, mount, timeout_ms), tag, on_done)

    def cancel(self, task: Task[Any]) -> None:
        """Asks for an early end. The task is settled as CANCELLED, or otherwise if it was faster. Never waits."""
        self._core.cancel(task)

    def poll(self) -> list[Task[Any]]:
        """The tasks settled since the last call, except those with `on_done` and those already waited for."""
        return self._core.fetch_finished()

    @overload
    def wait(self, task: Task[R]) -> R: ...
    @overload
    def wait(self, task: Task[R], timeout_ms: float) -> R | None: ...
    def wait(self, task: Task[R], timeout_ms: float | None = None) -> R | None:
        """Until it is settled: its deadline plus 20 ms at most. None if `timeout_ms` is over before."""
        return wait_for(self._core, task, timeout_ms)

    # --- questions about the sidecar: these wait, and raise ---------------------------------------------------------

    def ping(self, timeout_ms: float = 1000) -> float:
        """The way there and back, in milliseconds."""
        began_us = now_us()
        self._ask("ping", timeout_ms)
        return (now_us() - began_us) / 1000

    def stats(self, timeout_ms: float = 1000) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._ask("stats", timeout_ms)["stats"])

    def stuck(self, timeout_ms: float = 1000) -> list[Mapping[str, Any]]:
        """What sits in the kernel: mount, phase, key, slot, thread id, system call, since when."""
        return cast("list[Mapping[str, Any]]", self._ask("stuck", timeout_ms)["stuck"])

    def _ask(self, op: str, timeout_ms: float) -> Mapping[str, Any]:
        task = self._requests.send(self._requests.control(op, timeout_ms), None, None, listed=False)
        return checked(op, self.wait(task))

    # --- what this side knows ----------------------------------------------------------------------------------------

    def client_stats(self) -> Mapping[str, Any]:
        """Counters, slots and corpses as this side sees them; needs no sidecar."""
        return self._core.facts()

    def on_event(self, function: Callable[[Mapping[str, Any]], object]) -> None:
        """Calls `function` for the sidecar's events mount, stalled and recovered, and for the client's own
        {"event": "sidecar", "state": …}. On a thread of its own; what it raises becomes a note."""
        self._core.listeners.append(function)

    def notes(self) -> tuple[str, ...]:
        """The last things the client noticed: deaths and their reasons, lies, callbacks that raised."""
        return self._core.notes.tail()

    def sidecar_log(self) -> tuple[str, ...]:
        """The last lines of the sidecar's stderr."""
        return self._core.sidecar_log.tail()


def checked(op: str, result: ControlResult) -> Mapping[str, Any]:
    """The body of a control answer, or the exception that fits."""
    if result.ok:
        return result.body
    kinds = {"DEADLINE_EXCEEDED": NoAnswer, "SATURATED": Saturated}
    raise kinds.get(result.code or "", SidecarGone)(f"{op}: {result.message}")
