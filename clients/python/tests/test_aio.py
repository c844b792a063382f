"""The asyncio client: the loop is never blocked, and cancelling an await cancels on the wire."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support import eventually

from kvlane import SIDECAR_GONE, AsyncClient, NoAnswer, StartFailed
from kvlane.testing import WAIT_S, FakeSidecar, MemoryStore


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(test(), 4 * WAIT_S)

    asyncio.run(bounded())


async def blocking(function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


class Ticker:
    """Measures the largest gap of the event loop."""

    def __init__(self) -> None:
        self.largest_gap_ms = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Ticker]:
        async def tick() -> None:
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.001)
                now = time.monotonic()
                self.largest_gap_ms = max(self.largest_gap_ms, (now - last) * 1000)
                last = now

        task = asyncio.ensure_future(tick())
        try:
            yield self
        finally:
            task.cancel()


def test_blocks_go_there_and_come_back(fake: FakeSidecar) -> None:
    fake.handler = MemoryStore()

    async def scenario() -> None:
        async with AsyncClient(fake.options()) as kv:
            with kv.leasing(2, use="store") as out, kv.leasing(2) as back:
                out[0].view[:3] = b"one"
                out[1].view[:3] = b"two"
                assert (await kv.store(["00", "01"], out, namespace="a", bytes=3)).ok
                assert (await kv.lookup(["00", "01", "02"], namespace="a")).prefix == 2
                assert (await kv.load(["01", "00"], back, namespace="a", bytes=3)).done == 2
                assert [bytes(slot.view[:3]) for slot in back] == [b"two", b"one"]
                assert (await kv.remove(["a/00"])).done == 1
                assert (await kv.namespace("a", {})).state == "created"
                assert await kv.ping() >= 0
                assert await kv.stuck() == []
        assert kv.state == "closed"

    run(scenario)


def test_a_thousand_requests_to_a_stopped_sidecar_end_in_time_and_the_loop_goes_on(fake: FakeSidecar) -> None:
    async def scenario() -> None:
        async with AsyncClient(fake.options()) as kv, Ticker().running() as ticker:
            fake.signal(signal.SIGSTOP)
            began = time.monotonic()
            results = await asyncio.gather(*(kv.lookup(["a/00"], timeout_ms=200) for _ in range(1000)))
            took_ms = (time.monotonic() - began) * 1000
            print(f"1000 of 200 ms: {took_ms:.0f} ms, largest gap of the loop {ticker.largest_gap_ms:.1f} ms")
            assert {(result.code, result.source) for result in results} == {("DEADLINE_EXCEEDED", "client")}
            assert 200 <= took_ms < 2000
            assert ticker.largest_gap_ms < 500
            with pytest.raises(NoAnswer):
                await kv.stats(timeout_ms=50)
            fake.signal(signal.SIGCONT)

    run(scenario)


def test_cancelling_an_await_cancels_the_task_and_its_slots_stay_out_of_reach(fake: FakeSidecar) -> None:
    async def scenario() -> None:
        async with AsyncClient(fake.options()) as kv:
            with kv.leasing(1) as slots:
                waiting = asyncio.ensure_future(kv.load(["a/00"], slots, timeout_ms=60_000))
                request = await blocking(fake.expect, "load")
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            cancel = await blocking(fake.expect, "cancel")
            assert cancel["task"] == request["id"]
            assert kv.try_lease(16) is None
            fake.fail(request, "CANCELLED", slot="quarantined")
            fake.answer(cancel, state="cancelled")
            await blocking(eventually, lambda: kv.client_stats()["slots_quarantined"] == [slots[0].index])
            assert kv.try_lease(16) is None
            fake.say({"event": "slots_freed", "slots": [slots[0].index]})
            await blocking(eventually, lambda: kv.client_stats()["slots_free"] == 16)

    run(scenario)


def test_a_death_answers_every_await(fake: FakeSidecar) -> None:
    async def scenario() -> None:
        async with AsyncClient(fake.options(backoff_first_ms=10)) as kv:
            waiting = [asyncio.ensure_future(kv.lookup(["a/00"], timeout_ms=60_000)) for _ in range(10)]
            await blocking(fake.expect, "lookup")
            fake.signal(signal.SIGKILL)
            assert {result.code for result in await asyncio.gather(*waiting)} == {SIDECAR_GONE}
            await kv.wait_ready()

    run(scenario)


def test_a_failed_start_is_raised_without_blocking_the_loop(fake: FakeSidecar) -> None:
    fake.auto = False

    async def scenario() -> None:
        async with Ticker().running() as ticker:
            with pytest.raises(StartFailed):
                async with AsyncClient(fake.options(start_timeout_ms=100)):
                    pass
        assert ticker.largest_gap_ms < 500

    run(scenario)


def test_events_arrive_in_the_loop(fake: FakeSidecar) -> None:
    async def scenario() -> None:
        async with AsyncClient(fake.options()) as kv:
            seen: asyncio.Queue[Any] = asyncio.Queue()
            kv.on_event(seen.put_nowait)
            fake.say({"event": "recovered", "mount": "kv0"})
            assert (await asyncio.wait_for(seen.get(), WAIT_S))["event"] == "recovered"

    run(scenario)


def test_a_loop_that_is_gone_is_nobody_to_tell(fake: FakeSidecar) -> None:
    async def scenario() -> AsyncClient:
        kv = AsyncClient(fake.options())
        await kv.wait_ready()
        forgotten = asyncio.ensure_future(kv.lookup(["a/00"], timeout_ms=100))
        await asyncio.sleep(0)
        assert not forgotten.done()
        return kv

    kv = asyncio.run(scenario())
    eventually(lambda: kv.client_stats()["settled_by_client"] == 1)
    assert kv.state == "up"
    kv._client.close()
