"""What the tests of late completion start from: a store with known bytes on a mount that hangs, and a caller who takes
every slot he can get and fills it with a pattern, so that any byte that comes late into a slot of his is seen.

To show that late bytes really come, a test breaks the rule on purpose: `ArenaFile` writes to slots that are the kernel's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stall
from support import eventually

from kvlane import BlocksResult, Client, Options, Slot, Task

PAGE_BYTES = 4096
SLOT_BYTES = 64 << 10
SLOTS = 24
BLOCKS = 4
BLOCK_BYTES = SLOT_BYTES - 100
"""Not whole pages: the end of such a block is copied into its slot by the lane, after the kernel's own part."""
WHOLE_PAGES = BLOCK_BYTES // PAGE_BYTES * PAGE_BYTES
TIMEOUT_MS = 300
STALL_MS = 200
CALM_MS = 10_000
"""For requests on a healthy mount, on a noisy machine."""
PATIENT_MS = 20_000
"""mute_ms where a test stops the sidecar: it is not to be replaced meanwhile."""
IMPATIENT_MS = 1_000
"""mute_ms where a test kills it. With native AIO in flight the kernel may keep its pipes open (exit_aio comes before the
descriptors are closed): then silence alone says that it is dead."""
NAMESPACE = "late"
MARK = b"\xa5"
RULE_BROKEN = b"\x5a"


def key(block: int) -> str:
    return f"{block:02x}{block:02x}"


def payload(block: int) -> bytes:
    """What the store holds: no byte of it is like the caller's pattern or the broken rule's."""
    return bytes([0x10 + block]) * BLOCK_BYTES


class ArenaFile:
    """The arena of one sidecar life, kept open by the test itself: it stays whatever the client does with its own.

    Not mapped: a writable mapping would make the client's question whether the kernel still writes to it come out wrong.
    """

    def __init__(self, kv: Client) -> None:
        assert kv.ready is not None
        self._fd = os.open(kv.ready["arena"]["path"], os.O_RDWR | os.O_CLOEXEC)

    def read(self, slot: int, count: int = SLOT_BYTES) -> bytes:
        return os.pread(self._fd, count, slot * SLOT_BYTES)

    def break_the_rule(self, slot: int) -> None:
        """Fills a slot that is the kernel's, as a caller would who leases it again too early."""
        os.pwrite(self._fd, RULE_BROKEN * SLOT_BYTES, slot * SLOT_BYTES)

    def has_late_bytes(self, slot: int, block: int) -> bool:
        """What the kernel itself wrote of this block: its whole pages, also when no thread is left to copy the rest."""
        return self.read(slot, WHOLE_PAGES) == payload(block)[:WHOLE_PAGES]

    def close(self) -> None:
        os.close(self._fd)


class Caller:
    """Holds every slot that can be leased, each filled with one pattern."""

    def __init__(self, kv: Client) -> None:
        self.slots: list[Slot] = []
        while leased := kv.try_lease(1):
            self.slots += leased
        for slot in self.slots:
            slot.view[:] = MARK * SLOT_BYTES

    @property
    def indexes(self) -> set[int]:
        return {slot.index for slot in self.slots}

    def changed_bytes(self) -> int:
        return sum(SLOT_BYTES - bytes(slot.view).count(MARK) for slot in self.slots)

    def give_back(self) -> None:
        for slot in self.slots:
            slot.release()


class Stage:
    """A client whose store has BLOCKS blocks, on a mount of which every read of a block can be held."""

    def __init__(self, lab: stall.Lab, kv: Client, *, is_disk: bool) -> None:
        self.lab = lab
        self.kv = kv
        self.is_disk = is_disk
        self.keys = [key(block) for block in range(BLOCKS)]

    def fill(self) -> None:
        with self.kv.leasing(BLOCKS, use="store") as slots:
            for block, slot in enumerate(slots):
                slot.view[:BLOCK_BYTES] = payload(block)
            self.calm(lambda: self.kv.store(self.keys, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=CALM_MS))

    def calm(self, ask: Any) -> BlocksResult:
        """On a mount that may just have come back: asks again while its class is still suspended."""
        last: list[BlocksResult] = []

        def works() -> bool:
            last[:] = [self.kv.wait(ask())]
            return last[0].ok

        eventually(works, f"{last}, {self.kv.sidecar_log()[-5:]}")
        return last[0]

    def hang_reads(self) -> None:
        self.lab.hang("read", match="" if self.is_disk else "/blocks/*")

    def start_load(self, slots: list[Slot], timeout_ms: float = TIMEOUT_MS) -> Task[BlocksResult]:
        """Of all blocks; returns when the kernel has begun at least one of them. Lanes that are there from the loads before
        go to their block at once, new ones may get stuck on the way to it: then no bytes of that block come late."""
        task = self.kv.load(self.keys, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=timeout_ms)
        self.lab.wait_stuck("read")
        return task

    def quarantined(self) -> list[int]:
        waiting: list[int] = self.kv.client_stats()["slots_quarantined"]
        return waiting

    def kept_by_the_kernel(self) -> list[int]:
        """The slots that stay quarantined until the mount goes on. A lane that was between two calls when its load was answered
        gives its slot back a moment later: it never came to its read."""

        def arrived() -> bool:
            calls = [call for call in self.kv.stuck() if call["kind"] == "load"]
            return len(calls) == len(self.quarantined()) and all(call["for_ms"] >= STALL_MS for call in calls)

        eventually(arrived, "every load that is still under way is in a call that does not return")
        return self.quarantined()

    def loads_every_block(self) -> bool:
        with self.kv.leasing(BLOCKS) as slots:
            self.calm(lambda: self.kv.load(self.keys, slots, namespace=NAMESPACE, bytes=BLOCK_BYTES, timeout_ms=CALM_MS))
            return all(bytes(slot.view[:BLOCK_BYTES]) == payload(block) for block, slot in enumerate(slots))


def root_is_settled(kv: Client) -> None:
    """The first list of mounts makes every lane look at its root again. One that was to be warm would hang there, and no
    byte of its block would ever come late."""
    eventually(lambda: kv.stats()["mount_list_reads"] > 0, "the first list of mounts was read")


def in_kernel(result: BlocksResult) -> list[int]:
    """The blocks whose slots the kernel kept."""
    return [failure.block for failure in result.failed if failure.slot == "quarantined"]


@contextmanager
def staged(engine: Any, place: str, *, mute_ms: int) -> Iterator[Stage]:
    is_disk = place == "ext4"
    with stall.lab(loop=is_disk) as lab:
        root = lab.blk if is_disk else lab.mnt
        asked = Options(
            mounts={"kv0": root},
            create=True,
            slot_bytes=SLOT_BYTES,
            slots=SLOTS,
            engine=engine,
            stall_ms=STALL_MS,
            mute_ms=mute_ms,
            huge_pages="off",  # ArenaFile writes with write(2), which hugetlb does not take
        )
        with Client(asked) as kv:
            assert kv.ready is not None and kv.ready["engine"] == engine, f"asked for {engine}: {kv.sidecar_log()}"
            stage = Stage(lab, kv, is_disk=is_disk)
            root_is_settled(kv)
            stage.fill()
            assert stage.loads_every_block()
            try:
                yield stage
            finally:
                lab.cont()
                lab.resume()
