"""A thousand calls in the kernel at once, on a file system that answers none of them, and how exactly deadlines are kept then."""

from __future__ import annotations

import asyncio
import time

import stall
from data import NAMESPACE, key
from kvlane import AsyncClient, Options

CALLS = 1000
TIMEOUT_MS = 4000  # of the first; all must be in the kernel before its time is over
SPREAD_MS = 1000  # the others' follow, one a millisecond: each answer is measured, not the burst of all of them
SLOT_BYTES = 4096


async def thousand_stuck(engine: str) -> list[str]:
    with stall.lab() as lab:
        options = Options(
            mounts={"kv0": lab.mnt},
            create=True,
            slots=2 * CALLS + 200,
            slot_bytes=SLOT_BYTES,
            engine=engine,  # type: ignore[arg-type]
            stall_ms=20,
            lanes=64,
            stuck_max=CALLS,
            extra_arguments=["--test-hold-breaker-closed"],
        )
        async with AsyncClient(options) as kv:
            try:
                return await _stick(kv, lab)
            finally:
                lab.resume()


async def _stick(kv: AsyncClient, lab: stall.Lab) -> list[str]:
    keys = [key(n) for n in range(CALLS)]
    for first in range(0, CALLS, 250):
        with kv.leasing(250, use="store") as slots:
            (await kv.store(keys[first : first + 250], slots, namespace=NAMESPACE, timeout_ms=20_000)).check()
    lab.hang("read", match="/blocks/*")
    late_ms: list[float] = []

    async def load(number: int) -> None:
        [slot] = kv.lease(1)
        timeout_ms = TIMEOUT_MS + number * SPREAD_MS // CALLS
        deadline = time.monotonic() + timeout_ms / 1000
        result = await kv.load([keys[number]], [slot], namespace=NAMESPACE, timeout_ms=timeout_ms)
        if result.ok:
            raise SystemExit("a load of a stuck file succeeded")
        late_ms.append((time.monotonic() - deadline) * 1000)
        slot.release()

    began = time.monotonic()
    loads = asyncio.gather(*(load(number) for number in range(CALLS)))
    await asyncio.to_thread(lab.wait_stuck, "read", CALLS, TIMEOUT_MS / 1000)
    stuck_after_ms = 1000 * (time.monotonic() - began)
    await loads
    late_ms.sort()
    p50, p99, last = late_ms[CALLS // 2], late_ms[CALLS * 99 // 100], late_ms[-1]
    listed = len(await kv.stuck())
    began = time.monotonic()
    lab.resume()
    while await kv.stuck():
        await asyncio.sleep(0.01)
    healed_ms = 1000 * (time.monotonic() - began)
    again = kv.lease(1)
    (await kv.load(keys[:1], again, namespace=NAMESPACE, timeout_ms=2000)).check()
    return [
        f"{CALLS} reads in the kernel after {stuck_after_ms:.0f} ms; `stuck` lists {listed}",
        f"answers after their deadlines, as Python sees them: p50 {p50:.1f} ms, p99 {p99:.1f} ms, last {last:.1f} ms",
        f"all back {healed_ms:.0f} ms after the resume, and the next load is good",
    ]
