"""The asyncio client, over the same core: every request is awaited, and the loop is never blocked.

    async with AsyncClient(Options(mounts={"kv0": "/mnt/kv"})) as kv:
        with kv.leasing(len(keys)) as slots:
            result = await kv.load(keys, slots, namespace="llama@1", timeout_ms=250)

Cancelling an await cancels the task on the wire. Its slots stay out of reach until the sidecar says that the kernel is
done with them, also if they were released meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

from ._arena import Slot
from ._budget import SlotClass
from ._clock import now_us
from ._core import State
from ._life import Spawn
from ._pending import R
from ._process import SidecarProcess
from ._requests import Request
from .client import CLOSE_MARGIN_S, Client, checked
from .options import Options
from .results import BlocksResult, LookupResult, NamespaceResult

READY_LOOK_S = 0.005
DELIVERED_AT_ONCE_MAX = 32
"""Results handed over in one turn of the event loop: when a thousand tasks end together, other callbacks get their turns."""


class _Delivery:
    """Brings results from whichever thread settled them into one event loop: one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: deque[tuple[asyncio.Future[Any], Any]] = deque()
        self._scheduled = False

    def put(self, future: asyncio.Future[Any], result: Any) -> None:
        """Under the core's lock."""
        self._waiting.append((future, result))
        if not self._scheduled:
            self._scheduled = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self.loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Cleared first: what comes in from here on asks for a turn of its own.
        self._scheduled = False
        for _ in range(DELIVERED_AT_ONCE_MAX):
            if not self._waiting:
                return
            future, result = self._waiting.popleft()
            if not future.done():
                future.set_result(result)
        if self._waiting and not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._deliver)


class AsyncClient:
    """One sidecar and its arena, for one event loop at a time."""

    def __init__(self, options: Options, *, _spawn: Spawn = SidecarProcess.spawn) -> None:
        self.options = options
        self._client = Client(options, _spawn=_spawn)
        self._core = self._client._core
        self._requests = self._client._requests
        self._delivery: _Delivery | None = None

    # --- life ----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> AsyncClient:
        try:
            await self.wait_ready()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def wait_ready(self, timeout_ms: int | None = None) -> None:
        """Until the sidecar is up. Raises StartFailed when a start fails, or none succeeds in time."""
        limit_ms = self.options.start_timeout_ms + 1000 if timeout_ms is None else timeout_ms
        limit_us = now_us() + limit_ms * 1000
        while self.state not in ("up", "off", "closed") and self._core.start_error is None and now_us() < limit_us:
            await asyncio.sleep(READY_LOOK_S)
        self._client.wait_ready(0)

    async def close(self) -> None:
        """As Client.close, without blocking the loop."""
        self._core.request_close()
        limit_us = now_us() + self.options.close_timeout_ms * 1000 + int(CLOSE_MARGIN_S * 1e6)
        while not self._core.finished.is_set() and now_us() < limit_us:
            await asyncio.sleep(READY_LOOK_S)

    @property
    def state(self) -> State:
        return self._client.state

    @property
    def reason(self) -> str:
        return self._client.reason

    @property
    def life(self) -> int:
        return self._client.life

    @property
    def pid(self) -> int | None:
        return self._client.pid

    @property
    def ready(self) -> Mapping[str, Any] | None:
        return self._client.ready

    def arena_view(self) -> memoryview:
        return self._client.arena_view()

    # --- slots: never wait, so nothing to await --------------------------------------------------------------------

    def try_lease(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> list[Slot] | None:
        return self._client.try_lease(count, mount=mount, use=use)

    def lease(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> list[Slot]:
        return self._client.lease(count, mount=mount, use=use)

    def release(self, slots: Sequence[Slot]) -> None:
        self._client.release(slots)

    @contextlib.contextmanager
    def leasing(self, count: int = 1, *, mount: str | None = None, use: SlotClass = "load") -> Iterator[list[Slot]]:
        with self._client.leasing(count, mount=mount, use=use) as slots:
            yield slots

    # --- requests ------------------------------------------------------------------------------------------------

    async def load(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        *,
        namespace: str | None = None,
        bytes: int | Sequence[int] | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
    ) -> BlocksResult:
        return await self._run(self._requests.load(keys, slots, namespace, bytes, mount, timeout_ms))

    async def store(
        self,
        keys: Sequence[str],
        slots: Sequence[Slot],
        *,
        namespace: str | None = None,
        bytes: int | Sequence[int] | None = None,
        replace: bool = False,
        mount: str | None = None,
        timeout_ms: float | None = None,
    ) -> BlocksResult:
        return await self._run(self._requests.store(keys, slots, namespace, bytes, replace, mount, timeout_ms))

    async def lookup(
        self,
        keys: Sequence[str],
        *,
        namespace: str | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
    ) -> LookupResult:
        return await self._run(self._requests.lookup(keys, namespace, mount, timeout_ms))

    async def remove(
        self,
        keys: Sequence[str],
        *,
        namespace: str | None = None,
        mount: str | None = None,
        timeout_ms: float | None = None,
    ) -> BlocksResult:
        return await self._run(self._requests.remove(keys, namespace, mount, timeout_ms))

    async def namespace(
        self,
        name: str,
        fingerprint: Mapping[str, Any],
        *,
        bump: bool = False,
        mount: str | None = None,
        timeout_ms: float | None = None,
    ) -> NamespaceResult:
        return await self._run(self._requests.namespace(name, fingerprint, bump, mount, timeout_ms))

    async def ping(self, timeout_ms: float = 1000) -> float:
        began_us = now_us()
        await self._ask("ping", timeout_ms)
        return (now_us() - began_us) / 1000

    async def stats(self, timeout_ms: float = 1000) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", (await self._ask("stats", timeout_ms))["stats"])

    async def stuck(self, timeout_ms: float = 1000) -> list[Mapping[str, Any]]:
        return cast("list[Mapping[str, Any]]", (await self._ask("stuck", timeout_ms))["stuck"])

    async def _ask(self, op: str, timeout_ms: float) -> Mapping[str, Any]:
        return checked(op, await self._run(self._requests.control(op, timeout_ms)))

    async def _run(self, request: Request[R]) -> R:
        loop = asyncio.get_running_loop()
        delivery = self._delivery
        if delivery is None or delivery.loop is not loop:
            delivery = self._delivery = _Delivery(loop)
        future: asyncio.Future[R] = loop.create_future()
        task = self._requests.send(request, None, None, on_settle=lambda done: delivery.put(future, done.result))
        try:
            return await future
        except asyncio.CancelledError:
            self._core.cancel(task)
            raise

    # --- what this side knows ----------------------------------------------------------------------------------------

    def client_stats(self) -> Mapping[str, Any]:
        return self._client.client_stats()

    def on_event(self, function: Callable[[Mapping[str, Any]], object]) -> None:
        """Calls `function` in the event loop that is running now."""
        loop = asyncio.get_running_loop()

        def pass_on(event: Mapping[str, Any]) -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(function, event)

        self._client.on_event(pass_on)

    def notes(self) -> tuple[str, ...]:
        return self._client.notes()

    def sidecar_log(self) -> tuple[str, ...]:
        return self._client.sidecar_log()
