"""What kvlane is for, in under a minute: blocks in and out, a mount that hangs for real, and everything that goes on.

Two mounts: a directory of this machine, which stays healthy, and one that will hang. As root that one is an ext4 whose
loop device stops answering (test/stall/), the kind of hang that no signal ends. Elsewhere the sidecar's system calls are held
by seccomp: the same deadlines, but a stall that SIGKILL could end; then it says so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from crowd import thousand_stuck
from data import MIB, NAMESPACE, key
from kvlane import AsyncClient, BlocksResult, Options, Slot
from stage import ROOT, Stage, open_stage
from throughput import RAW_THREADS, load_all, side_by_side, store_all

TIMEOUT_MS = 250
HEALTHY, SICK = "disk", "lab"
SLOTS = 128
IDLE_S = 3
OURS = 0xA5  # what the caller fills its own memory with while late bytes are under way


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n── {text} " + "─" * max(0, 100 - len(text)))


def progress(what: str, done: int, total: int) -> None:
    if sys.stdout.isatty():
        filled = 40 * done // total
        print(f"\r   {what:8} [{'█' * filled}{'·' * (40 - filled)}] {done}/{total}", end="\n" if done == total else "", flush=True)


class Ticker:
    """Looks at the event loop every few milliseconds; its largest gap is what a request of the engine would have felt."""

    def __init__(self) -> None:
        self.largest_ms = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.002)
            now = time.monotonic()
            self.largest_ms = max(self.largest_ms, (now - last) * 1000 - 2)
            last = now

    def stop(self) -> float:
        self._task.cancel()
        return self.largest_ms


async def idle_cpu_percent(kv: AsyncClient) -> float:
    """Of the sidecar, from its own getrusage before and after."""

    async def cpu_ms() -> float:
        process = (await kv.stats())["process"]
        return float(process["cpu_user_ms"] + process["cpu_system_ms"])

    await asyncio.sleep(1)  # what a start leaves to do
    before = await cpu_ms()
    await asyncio.sleep(IDLE_S)
    return (await cpu_ms() - before) / (IDLE_S * 10)


async def one_load(kv: AsyncClient, mount: str, number: int, size: int) -> tuple[BlocksResult, float, Slot]:
    [slot] = kv.lease(1, mount=mount)
    began = time.monotonic()
    result = await kv.load([key(number)], [slot], mount=mount, namespace=NAMESPACE, bytes=size, timeout_ms=TIMEOUT_MS)
    took_ms = (time.monotonic() - began) * 1000
    slot.release()
    return result, took_ms, slot


def tell(results: Sequence[tuple[BlocksResult, float, Slot]], label: str) -> None:
    times = sorted(took_ms for _, took_ms, _ in results)
    codes: dict[str, int] = {}
    for result, _, _ in results:
        name = "ok" if result.ok else str(result.code)
        codes[name] = codes.get(name, 0) + 1
    counted = ", ".join(f"{n} × {code}" for code, n in codes.items())
    say(f"   {label}: {counted}; answered after {times[0]:.1f} … {times[-1]:.1f} ms")


async def hang_and_resume(kv: AsyncClient, stage: Stage, size: int) -> None:
    title(f"Mount {SICK} hangs: {stage.how}")
    pattern = bytes([OURS]) * size
    stage.hang()
    ticker = Ticker()
    first = await asyncio.gather(*(one_load(kv, SICK, n, size) for n in range(8)))
    tell(first, f"8 loads with timeout_ms={TIMEOUT_MS}")
    say(f"   slots that are the kernel's until it lets go of them: {[slot.index for _, _, slot in first if slot.state == 'quarantined']}")
    tell([await one_load(kv, SICK, n, size) for n in range(20)], "20 loads after that")
    tell([await one_load(kv, HEALTHY, n, size) for n in range(20)], f"20 loads from the other mount, {HEALTHY}")
    stuck = await kv.stuck()
    say(f"   stuck in the kernel now: {len(stuck)}")
    for entry in stuck[:5]:
        name = f"{entry['key'][:24]}…" if "key" in entry else entry.get("kind", "")
        say(f"     {entry['class']:8} {entry['phase']:6} {entry['syscall']:8} thread {entry['tid']} for {entry['for_ms']:4} ms  {name}")

    # Everything that can be leased gets a pattern: a late byte anywhere in it would be seen.
    mine = []
    while (got := kv.try_lease(1, mount=SICK)) is not None:
        got[0].view[:] = pattern
        mine += got
        await asyncio.sleep(0)
    say(f"   the caller leases the other {len(mine)} slots it may have, fills them with a pattern, and works on for 2 s")
    await asyncio.sleep(2)
    say(f"   largest gap of the asyncio event loop during all this: {ticker.stop():.1f} ms")

    title(f"Mount {SICK} goes on")
    began = time.monotonic()
    stage.resume()
    while True:
        mine.pop().release()
        result, _, _ = await one_load(kv, SICK, 0, size)
        if result.ok:
            break
        if time.monotonic() - began > 5:
            raise SystemExit(f"no good load within 5 s of the resume: {result.code} {result.message}")
        [again] = kv.lease(1, mount=SICK)
        again.view[:] = pattern
        mine.append(again)
        await asyncio.sleep(0.01)
    say(f"   first good load {1000 * (time.monotonic() - began):.0f} ms after the resume")
    end = time.monotonic() + 5
    while await kv.stuck() and time.monotonic() < end:
        await asyncio.sleep(0.01)
    changed = sum(slot.view != pattern for slot in mine)
    stats = await kv.stats()
    say(f"   {stats['late_completions']} late completions came in, {stats['slots_freed']} slots were given back")
    say(f"   slots with a changed byte: {changed} of {len(mine)}: the late bytes went where nobody was any more")
    for slot in mine:
        slot.release()
    if changed:
        raise SystemExit("late bytes landed in memory that had been given away")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=384, help="how many blocks to store and load (default %(default)s)")
    parser.add_argument("--block-mib", type=int, default=1, help="MiB each (default %(default)s)")
    parser.add_argument("--dir", help="where the healthy store goes (default: a temporary directory on this file system)")
    parser.add_argument("--engine", choices=["threads", "aio"], default="threads")
    o = parser.parse_args()
    size, total_gb = o.block_mib * MIB, o.blocks * o.block_mib * MIB / 1e9
    few = min(32, o.blocks)
    began_all = time.monotonic()

    with tempfile.TemporaryDirectory(prefix="kvlane-demo-", dir=o.dir or ROOT) as healthy, open_stage(few * 2 * o.block_mib + 256) as stage:
        if stage.warning:
            say(f"NOTE: {stage.warning}")
        options = Options(
            mounts={HEALTHY: healthy, SICK: stage.store},
            create=True, slots=SLOTS, slot_bytes=size, engine=o.engine, command=stage.command,
        )
        began = time.monotonic()
        async with AsyncClient(options) as kv:
            ready_ms = (time.monotonic() - began) * 1000
            assert kv.ready is not None
            mount = kv.ready["mounts"][0]
            title(f"{o.blocks} blocks of {o.block_mib} MiB, through the Python client")
            say(f"   sidecar ready after {ready_ms:.0f} ms; store on {mount.get('fs_type')}, O_DIRECT {mount.get('direct')}, engine {o.engine}")
            idle = await idle_cpu_percent(kv)
            say(f"   idle: {idle:.2f} % of one processor over {IDLE_S} s")
            spent = await store_all(kv, HEALTHY, o.blocks, size, progress)
            say(f"   stored {total_gb:.2f} GB at {total_gb / spent:.2f} GB/s (16 blocks a request, one request at a time)")
            await load_all(kv, HEALTHY, o.blocks, size, progress)
            say(f"   loaded {total_gb:.2f} GB, every byte compared: all as stored")
            ours, raw, ratio = await side_by_side(kv, HEALTHY, Path(healthy), o.blocks, size, SLOTS * size)
            say(f"   loads side by side, two requests in flight, 3 rounds each: kvlane {ours:.2f} GB/s, plain preadv by")
            say(f"   {RAW_THREADS} threads {raw:.2f} GB/s, median ratio {ratio:.2f}")
            await store_all(kv, SICK, few, size, lambda *_: None)
            await hang_and_resume(kv, stage, size)
            title("Leaving")
            stage.hang()
            await one_load(kv, SICK, 1, size)
            began = time.monotonic()
        say(f"   the mount hangs again with a load inside: the client is closed after {1000 * (time.monotonic() - began):.0f} ms")
    if stage.real:
        title("A thousand calls stuck, and the breaker held closed by its test flag")
        for line in await thousand_stuck(o.engine):
            say(f"   {line}")
    say(f"\nDone in {time.monotonic() - began_all:.0f} s.")


if __name__ == "__main__":
    asyncio.run(main())
