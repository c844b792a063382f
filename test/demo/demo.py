"""What kvlane is for, in under a minute: blocks in and out, a mount that hangs for real, and everything that goes on.

Two mounts: a directory of this machine, which stays healthy, and one that will hang. As root that one is an ext4 whose
loop device stops answering (test/stall/), the kind of hang that no signal ends. Elsewhere the sidecar's system calls are held
by seccomp: the same deadlines, but a stall that SIGKILL could end; then it says so.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import mmap
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kvlane import AsyncClient, BlocksResult, Options, Slot
from stage import ROOT, Stage, open_stage

MIB = 1 << 20
TIMEOUT_MS = 250
BATCH = 16
NAMESPACE = "demo@1"
HEALTHY, SICK = "disk", "lab"
OURS = 0xA5  # what the caller fills its own memory with while late bytes are under way


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n── {text} " + "─" * max(0, 100 - len(text)))


def progress(what: str, done: int, total: int) -> None:
    if sys.stdout.isatty():
        filled = 40 * done // total
        print(f"\r   {what:8} [{'█' * filled}{'·' * (40 - filled)}] {done}/{total}", end="\n" if done == total else "", flush=True)


def block(number: int, size_bytes: int) -> bytes:
    """Bytes of this block and of no other."""
    seed = hashlib.sha256(number.to_bytes(8, "little")).digest()
    return (seed * (size_bytes // len(seed) + 1))[:size_bytes]


def key(number: int) -> str:
    return hashlib.sha256(b"key" + number.to_bytes(8, "little")).hexdigest()


def batches(count: int) -> list[range]:
    return [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]


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


async def store_all(kv: AsyncClient, mount: str, count: int, size: int) -> float:
    """Seconds spent in store requests; filling the slots is not counted."""
    spent = 0.0
    for batch in batches(count):
        with kv.leasing(len(batch), mount=mount, use="store") as slots:
            for number, slot in zip(batch, slots, strict=True):
                slot.view[:size] = block(number, size)
            began = time.monotonic()
            result = await kv.store(
                [key(n) for n in batch], slots, mount=mount, namespace=NAMESPACE, bytes=size, timeout_ms=20_000
            )
            spent += time.monotonic() - began
            result.check()
        progress("stored", batch[-1] + 1, count)
    return spent


async def load_all(kv: AsyncClient, mount: str, count: int, size: int) -> float:
    """Seconds spent in load requests, two in flight; every byte is compared, which is not counted."""
    spent = 0.0
    work = batches(count)
    for first in range(0, len(work), 2):
        pair = work[first : first + 2]
        leases = [kv.lease(len(batch), mount=mount) for batch in pair]
        began = time.monotonic()
        results = await asyncio.gather(
            *(
                kv.load([key(n) for n in batch], slots, mount=mount, namespace=NAMESPACE, bytes=size, timeout_ms=20_000)
                for batch, slots in zip(pair, leases, strict=True)
            )
        )
        spent += time.monotonic() - began
        for batch, slots, result in zip(pair, leases, results, strict=True):
            result.check()
            for number, slot in zip(batch, slots, strict=True):
                if slot.view[:size] != block(number, size):
                    raise SystemExit(f"block {number} came back with other bytes")
                slot.release()
        progress("loaded", pair[-1][-1] + 1, count)
    return spent


def raw_reads_gb_s(store: Path, count: int, size: int) -> float:
    """The same files by plain O_DIRECT preadv, four threads with a buffer each: nothing hangs on this mount."""
    here = threading.local()

    def read(number: int) -> int:
        if not hasattr(here, "buffer"):
            here.buffer = mmap.mmap(-1, size + 4096)
        name = key(number)
        fd = os.open(store / "blocks" / NAMESPACE / name[:2] / f"{name}.kvb", os.O_RDONLY | os.O_DIRECT)
        try:
            return os.preadv(fd, [here.buffer], 0)
        finally:
            os.close(fd)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(8)))  # threads and buffers are there before the clock runs
        began = time.monotonic()
        list(pool.map(read, range(count)))
        return count * size / (time.monotonic() - began) / 1e9


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
            create=True, slots=128, slot_bytes=size, engine=o.engine, command=stage.command,
        )
        began = time.monotonic()
        async with AsyncClient(options) as kv:
            ready_ms = (time.monotonic() - began) * 1000
            assert kv.ready is not None
            mount = kv.ready["mounts"][0]
            title(f"{o.blocks} blocks of {o.block_mib} MiB, through the Python client")
            say(f"   sidecar ready after {ready_ms:.0f} ms; store on {mount.get('fs_type')}, O_DIRECT {mount.get('direct')}, engine {o.engine}")
            spent = await store_all(kv, HEALTHY, o.blocks, size)
            say(f"   stored {total_gb:.2f} GB at {total_gb / spent:.2f} GB/s (16 blocks a request, one request at a time)")
            spent = await load_all(kv, HEALTHY, o.blocks, size)
            say(f"   loaded {total_gb:.2f} GB at {total_gb / spent:.2f} GB/s (two requests in flight), every byte compared")
            say(f"   the same files by plain preadv, 4 threads: {raw_reads_gb_s(Path(healthy), o.blocks, size):.2f} GB/s")
            await store_all(kv, SICK, few, size)
            await hang_and_resume(kv, stage, size)
            title("Leaving")
            stage.hang()
            await one_load(kv, SICK, 1, size)
            began = time.monotonic()
        say(f"   the mount hangs again with a load inside: the client is closed after {1000 * (time.monotonic() - began):.0f} ms")
    say(f"\nDone in {time.monotonic() - began_all:.0f} s.")


if __name__ == "__main__":
    asyncio.run(main())
