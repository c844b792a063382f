"""An engine in small: an asyncio loop with a ticker, and requests to a mount that hangs. A process of its own, so that its
stderr may be a file on that very mount.

Reads one JSON object from its argument, then says a line and waits for one, in turn: "filled" → (the mount is hung) →
"sent" → the figures → (the mount goes on) → "closed". Its stdout is a pipe; it never writes to its stderr, as everything
that would is told not to, and a program that must not stop has no other choice.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from typing import Any

from kvlane import AsyncClient, BlocksResult, Budgets, LookupResult, Options

SLOT_BYTES = 4096
NAMESPACE = "tick"
TICK_S = 0.001
AT_ONCE = 10
"""Requests sent between two looks at the loop: sending is the caller's own work, and is not what is measured."""
CALM_MS = 20_000
FILL = 50
OUT_OF_TIME = ("DEADLINE_EXCEEDED", "incomplete")


class Ticker:
    """The largest time between two ticks beyond the tick itself, and who else was slow: a bare thread beside the loop."""

    def __init__(self) -> None:
        self.largest_ms = 0.0
        self.ticks = 0
        self.thread_largest_ms = 0.0
        self._ends = False
        self._thread = threading.Thread(target=self._tick_beside, daemon=True)

    async def run(self) -> None:
        last = time.monotonic()
        while not self._ends:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self.largest_ms = max(self.largest_ms, (now - last - TICK_S) * 1000)
            self.ticks += 1
            last = now

    def _tick_beside(self) -> None:
        last = time.monotonic()
        while not self._ends:
            time.sleep(TICK_S)
            now = time.monotonic()
            self.thread_largest_ms = max(self.thread_largest_ms, (now - last - TICK_S) * 1000)
            last = now

    def start(self) -> asyncio.Task[None]:
        self._thread.start()
        return asyncio.create_task(self.run())

    def end(self) -> None:
        self._ends = True


def options(asked: dict[str, Any]) -> Options:
    many = bool(asked["stuck"])
    return Options(
        mounts={"kv0": asked["root"]},
        create=True,
        slot_bytes=SLOT_BYTES,
        slots=asked["requests"] + 2 * FILL,
        budgets=Budgets(load_reserve=0.5, other_reserve=0.0),
        engine=asked["engine"],
        stall_ms=20 if many else None,
        lanes=64 if many else None,
        stuck_max=1000 if many else None,
        # The mount hangs later: at the start it is waited for, however busy the machine is.
        extra_arguments=["--test-hold-breaker-closed", "--test-start-wait-ms", "10000"],
        mute_ms=20_000,
    )


def keys(count: int) -> list[str]:
    return [f"{i * 0x9E3779B1 % 2**32:08x}" for i in range(count)]


async def fill(kv: AsyncClient, names: list[str]) -> None:
    for first in range(0, len(names), FILL):
        some = names[first : first + FILL]
        with kv.leasing(len(some), use="store") as slots:
            result = await kv.store(some, slots, namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=CALM_MS)
        if not result.ok:
            raise RuntimeError(f"not stored: {result}; {kv.sidecar_log()}")


async def said_and_told(word: object) -> None:
    """One line to the test, one line from it; the loop goes on meanwhile."""
    print(json.dumps(word), flush=True)
    if not await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
        raise RuntimeError("the test is gone")


async def ask(kv: AsyncClient, asked: dict[str, Any]) -> list[tuple[float, BlocksResult | LookupResult]]:
    """All requests: when each was answered, in milliseconds after its deadline, and how. Every tenth is a look-up."""
    names = keys(asked["requests"])
    slots = kv.lease(len(names))
    timeout_ms: int = asked["timeout_ms"]

    async def one(index: int) -> tuple[float, BlocksResult | LookupResult]:
        deadline = time.monotonic() + timeout_ms / 1000
        result: BlocksResult | LookupResult
        if index % 10 == 9 and not asked["stuck"]:
            result = await kv.lookup([names[index]], namespace=NAMESPACE, timeout_ms=timeout_ms)
        else:
            result = await kv.load(
                [names[index]], [slots[index]], namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=timeout_ms
            )
        return (time.monotonic() - deadline) * 1000, result

    tasks: list[asyncio.Task[tuple[float, BlocksResult | LookupResult]]] = []
    for index in range(len(names)):
        tasks.append(asyncio.create_task(one(index)))
        if index % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(TICK_S)
    answers = await asyncio.gather(*tasks)
    for slot in slots:
        slot.release()
    return list(answers)


def how(result: BlocksResult | LookupResult) -> str:
    if isinstance(result, LookupResult) and result.ok:
        return "known" if result.complete else "incomplete"
    return "ok" if result.ok else str(result.code)


async def main(asked: dict[str, Any]) -> None:
    async with AsyncClient(options(asked)) as kv:
        await fill(kv, keys(asked["requests"]))
        await said_and_told("filled")
        ticker = Ticker()
        ticking = ticker.start()
        answers = await ask(kv, asked)
        ticker.end()
        await ticking
        late = sorted(ms for ms, result in answers if how(result) in OUT_OF_TIME)
        figures = {
            "gap_ms": ticker.largest_ms,
            "thread_gap_ms": ticker.thread_largest_ms,
            "ticks": ticker.ticks,
            "late_ms": {"min": late[0], "p50": late[len(late) // 2], "p99": late[int(len(late) * 0.99)], "max": late[-1]},
            "answers": Counter(how(result) for _, result in answers),
            "last_words": sum(result.source == "client" for _, result in answers),
        }
        await said_and_told(figures)
        healthy = await loads_again(kv)
    print(json.dumps({"healthy": healthy}), flush=True)


async def loads_again(kv: AsyncClient) -> bool:
    """After the resume, until everything has come back."""
    end = time.monotonic() + CALM_MS / 1000
    while kv.client_stats()["slots_quarantined"] or kv.client_stats()["unanswered"]:
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.005)
    with kv.leasing(1) as slots:
        return (await kv.load(keys(1), slots, namespace=NAMESPACE, bytes=SLOT_BYTES, timeout_ms=CALM_MS)).ok


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
