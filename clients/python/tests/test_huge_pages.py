"""Which pages an arena gets, what is said of them, and what happens where there are too few."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from host_pages import PAGE_BYTES, SCRIPT, available, host, host_with
from support import eventually
from test_real import BUILT, options, payload
from test_restart import QUICK, Unreapable, let_go_of_what_is_held  # noqa: F401

from kvlane import Budgets, Client, StartFailed, _huge_pages
from kvlane._arena import Arena
from kvlane._budget import Ledger
from kvlane._huge_pages import HugePages, TooFew
from kvlane._lock import Lock
from kvlane.testing import FakeSidecar
from kvlane.vllm.arena_pin import Pinned

SLOT_BYTES = 1 << 20
BACKINGS = ("hugetlb", "thp", "shmem")
WISHES: dict[str, HugePages] = {"hugetlb": "hugetlb", "thp": "thp", "shmem": "off"}
real = pytest.mark.skipif(not all(path.is_file() for path in BUILT), reason="no sidecar is built: run `npm run build`")


def arena(huge_pages: HugePages, slots: int = 4, slot_bytes: int = SLOT_BYTES, insist: bool = True) -> Arena:
    book = Ledger(Budgets(), slots, {"kv0": "d0"})
    return Arena(
        slots=slots, slot_bytes=slot_bytes, life=1, lock=Lock(), ledger=book, huge_pages=huge_pages, insist=insist
    )  # fmt: skip


def gone(it: Arena) -> bool:
    it.abandon()
    return it.memory_is_back()


def test_what_a_test_sets_on_the_host_is_put_back_even_when_the_test_is_killed() -> None:
    before = _huge_pages.thp_bytes()
    command = ["bash", str(SCRIPT), "pool=1", f"shmem={'never' if before else 'advise'}"]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with keeper:
        assert keeper.stdin is not None and keeper.stdout is not None
        if (answer := keeper.stdout.readline().decode().strip()) != "ready":
            pytest.skip(f"SKIPPED: {answer}")
        assert (available(), bool(_huge_pages.thp_bytes())) == (1, not before)
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.stdin.close()
        eventually(lambda: (available(), _huge_pages.thp_bytes()) == (0, before), "the host is as it was")


def test_the_pool_is_taken_whole_at_the_start_and_back_when_the_arena_is() -> None:
    with host(pool=4):
        it = arena("auto", slots=5)
        assert (it.slots, it.bytes) == (5, 3 * PAGE_BYTES)  # whole pages; nothing is leased behind the last slot
        assert os.fstatvfs(it.fd).f_bsize == PAGE_BYTES
        assert available() == 1
        with it.slice(4) as view:
            view[:] = b"x" * SLOT_BYTES
        with pytest.raises(PermissionError):
            os.ftruncate(it.fd, 4 * PAGE_BYTES)
        assert gone(it)
        assert available() == 4


def test_without_any_auto_takes_small_pages_and_who_insists_is_told_the_numbers_and_the_command() -> None:
    with host(pool=0, shmem="never"):
        it = arena("auto")
        assert it.bytes == 4 * SLOT_BYTES
        assert gone(it)
        wishes: tuple[HugePages, ...] = ("require", "hugetlb", "thp")
        for wish in wishes:
            with pytest.raises(TooFew) as caught:
                arena(wish)
            said = str(caught.value)
            assert ("2 hugetlb pages of 2048 KiB are needed and 0 available" in said) == (wish != "thp")
            assert ("shmem_enabled" in said) == (wish != "hugetlb")
            assert gone(arena(wish, insist=False))


def test_who_may_not_have_pages_that_are_free_is_not_told_to_set_more_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a control group or a cpuset has it: there are pages, but not for us."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with host(pool=4, shmem="never"):
        monkeypatch.setattr(os, "posix_fallocate", refused)
        it = arena("auto")
        assert (it.bytes, available()) == (4 * SLOT_BYTES, 4)
        assert gone(it)
        with pytest.raises(TooFew) as caught:
            arena("hugetlb")
        said = str(caught.value)
        assert "2 hugetlb pages of 2048 KiB are needed and 4 available, yet the kernel says 'Cannot allocate" in said
        assert "hugetlb.*.max" in said and "nr_hugepages" not in said


def test_transparent_pages_are_brought_by_calls_that_let_other_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[int] = []
    readv = os.readv

    def counted(fd: int, buffers: list[memoryview]) -> int:
        touched.append(len(buffers))
        return readv(fd, buffers)

    with host(pool=0, shmem="advise"):
        monkeypatch.setattr(os, "readv", counted)
        monkeypatch.setattr(_huge_pages, "BRING_PAGES", 2)
        it = arena("thp", slots=5)
        assert touched == [2, 1]
        assert gone(it)


def test_a_small_arena_wastes_no_huge_page() -> None:
    with host(pool=2):
        it = arena("auto", slots=4, slot_bytes=4096)
        assert (it.bytes, available()) == (4 * 4096, 2)
        assert gone(it)


def test_a_pool_that_ends_half_way_leaves_nothing_behind() -> None:
    with host(pool=2, shmem="never"):
        it = arena("auto", slots=8)  # 8 MiB; the pool has 4
        assert (it.bytes, os.fstatvfs(it.fd).f_bsize, available()) == (8 << 20, mmap.PAGESIZE, 2)
        assert gone(it)


@pytest.mark.parametrize("backing", BACKINGS)
def test_memory_that_somebody_else_has_mapped_does_not_count_as_back(backing: str) -> None:
    with host_with(backing, 4 * SLOT_BYTES):
        it = arena(WISHES[backing])
        it.outlives_process = True
        it.slice(0)[:5] = b"hello"
        theirs = mmap.mmap(it.fd, it.bytes)
        assert not gone(it)
        theirs.close()
        assert it.memory_is_back()


class _Piece(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


@pytest.mark.parametrize("backing", BACKINGS)
def test_memory_whose_pages_the_kernel_holds_does_not_count_as_back(backing: str) -> None:
    """As a late transfer holds them, whose process is gone: vmsplice leaves them in a pipe without any mapping."""
    with host_with(backing, 4 * SLOT_BYTES), contextlib.ExitStack() as pipe:
        it = arena(WISHES[backing])
        it.outlives_process = True
        ends = os.pipe()
        for end in ends:
            pipe.callback(os.close, end)
        view = it.whole()
        view[:4096] = b"x" * 4096
        piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(view)), 4096)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.vmsplice(ends[1], ctypes.byref(piece), ctypes.c_size_t(1), 0) == 4096
        view.release()
        assert not gone(it)
        assert os.read(ends[0], 4096) == b"x" * 4096
        eventually(it.memory_is_back, "the pages are let go")


def test_the_last_seal_is_a_question_that_can_be_asked_of_huge_pages() -> None:
    with host(pool=2):
        it = arena("hugetlb")
        with pytest.raises(OSError, match="busy"):
            fcntl.fcntl(it.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        assert gone(it)


@pytest.mark.parametrize("backing", BACKINGS)
def test_a_device_can_be_given_all_of_it(backing: str) -> None:
    with host_with(backing, 4 * SLOT_BYTES):
        it = arena(WISHES[backing])
        pinned = Pinned(it.whole(), 3 * SLOT_BYTES)
        assert sum(size for _, size in pinned.pieces) == it.bytes
        pinned.view.release()
        assert gone(it)


# --- lives -------------------------------------------------------------------------------------------------------------


def backing_of(kv: Client) -> str:
    assert kv.ready is not None
    return str(kv.ready["arena"]["backing"])


def test_a_restart_after_a_clean_death_has_the_same_huge_pages_again() -> None:
    with host(pool=2, shmem="never"), FakeSidecar() as fake:  # for one arena and no other
        kv = Client(fake.options(**QUICK, huge_pages="auto", slots=4, slot_bytes=SLOT_BYTES))
        for life in (1, 2, 3):
            eventually(lambda: kv.state == "up" and kv.life == life, kv.reason)  # noqa: B023
            assert (backing_of(kv), available()) == ("hugetlb", 0)
            fake.signal(signal.SIGKILL)
        kv.close()


def test_a_restart_beside_a_corpse_that_has_all_huge_pages_takes_small_ones() -> None:
    with host(pool=2, shmem="never"), FakeSidecar() as fake:
        kv = Client(
            fake.options(**QUICK, huge_pages="hugetlb", slots=4, slot_bytes=SLOT_BYTES), _spawn=Unreapable.spawn
        )  # fmt: skip
        kv.wait_ready()
        first = fake.wait_born()
        assert (backing_of(kv), available()) == ("hugetlb", 0)
        fake.signal(signal.SIGKILL, first)
        eventually(lambda: kv.state == "up" and kv.life == 2, kv.reason)
        assert (backing_of(kv), available()) == ("shmem", 0)
        assert kv.client_stats()["arenas_abandoned"] == 1
        Unreapable.made[0].held = False
        eventually(lambda: available() == 2, "the corpse's huge pages are back")
        fake.signal(signal.SIGKILL)
        eventually(lambda: kv.state == "up" and kv.life == 3, kv.reason)
        assert backing_of(kv) == "hugetlb"
        for process in Unreapable.made:
            process.held = False
        kv.close()
        eventually(lambda: available() == 2, "nothing is kept")


def test_a_sidecar_that_sees_small_pages_where_huge_ones_are_insisted_on_ends_the_start() -> None:
    with host(pool=0, shmem="advise"), FakeSidecar() as fake:  # the fake says what the file system shows: no huge page
        kv = Client(fake.options(huge_pages="thp", slots=4, slot_bytes=SLOT_BYTES))
        with pytest.raises(StartFailed, match="gave 0 of 4194304 bytes") as caught:
            kv.wait_ready()
        assert caught.value.code == "HUGE_PAGES_UNAVAILABLE"
        kv.close()


def test_insisting_where_there_are_none_fails_the_start_with_the_command() -> None:
    with host(pool=0, shmem="never"), FakeSidecar() as fake:
        kv = Client(fake.options(huge_pages="require", slots=4, slot_bytes=SLOT_BYTES))
        with pytest.raises(StartFailed, match="echo 2 \\| sudo tee /sys/kernel/mm/hugepages") as caught:
            kv.wait_ready()
        assert caught.value.code == "HUGE_PAGES_UNAVAILABLE"
        kv.close()


@real
@pytest.mark.parametrize("engine", ["threads", "aio"])
@pytest.mark.parametrize("backing", BACKINGS)
@pytest.mark.parametrize("slot_bytes", [SLOT_BYTES, 376 * 4096], ids=["two slots a page", "slots across pages"])
def test_blocks_come_back_whatever_the_arena_lies_on_and_the_sidecar_says_on_what(
    tmp_path: Path, backing: str, engine: Any, slot_bytes: int
) -> None:
    slots, keys = 10, [f"{i:02x}" for i in range(4)]
    whole_pages = -(-slots * slot_bytes // PAGE_BYTES) * PAGE_BYTES
    with (
        host_with(backing, whole_pages),
        Client(options(tmp_path, engine=engine, slots=slots, slot_bytes=slot_bytes, huge_pages="auto")) as kv,
    ):
        assert kv.ready is not None
        said = kv.ready["arena"]
        huge = 0 if backing == "shmem" else whole_pages
        page_bytes = PAGE_BYTES if huge else mmap.PAGESIZE
        assert (said["backing"], said["page_bytes"], said["huge_bytes"]) == (backing, page_bytes, huge)
        counted = kv.stats()["arena"]
        assert counted == {"bytes": said["bytes"], "backing": backing, "page_bytes": page_bytes, "huge_bytes": huge}
        if backing == "shmem":  # the log comes on a pipe of its own
            eventually(lambda: any("nr_hugepages" in line for line in kv.sidecar_log()))
        advised = [line for line in (*kv.notes(), *kv.sidecar_log()) if "nr_hugepages" in line]
        assert len(advised) == (2 if backing == "shmem" else 0)  # once in the client's notes, once in the sidecar's log
        with kv.leasing(4, use="store") as out, kv.leasing(4) as back:
            for i, slot in enumerate(out):
                slot.view[:] = payload(i, slot_bytes)
            kv.wait(kv.store(keys, out, namespace="pages", bytes=slot_bytes)).check()
            kv.wait(kv.load(keys, back, namespace="pages", bytes=slot_bytes)).check()
            assert [bytes(slot.view) for slot in back] == [payload(i, slot_bytes) for i in range(4)]
