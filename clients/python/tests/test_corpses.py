"""Sidecars that are over and whose memory the kernel still has: they are looked at, and nobody waits while the kernel is asked."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

import pytest
from support import eventually

from kvlane import _corpses
from kvlane._arena import Arena
from kvlane._budget import Budgets, Ledger
from kvlane._corpses import Corpses
from kvlane._lock import Lock
from kvlane._process import SidecarProcess

PAGE_BYTES = 4096


class _Piece(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("bytes", ctypes.c_size_t))


@contextlib.contextmanager
def pinned(arena: Arena) -> Iterator[None]:
    """As a late transfer does: vmsplice leaves a page of it in a pipe, and the kernel holds it without any mapping."""
    ends = os.pipe()
    try:
        view = arena.whole()
        view[:PAGE_BYTES] = b"x" * PAGE_BYTES
        piece = _Piece(ctypes.addressof(ctypes.c_char.from_buffer(view)), PAGE_BYTES)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.vmsplice(ends[1], ctypes.byref(piece), ctypes.c_size_t(1), 0) == PAGE_BYTES
        view.release()
        yield
    finally:
        for end in ends:
            os.close(end)


def dead(*, outlives_process: bool = True) -> tuple[SidecarProcess, Arena]:
    """A process that has ended, and the arena that it had."""
    lock = Lock()
    ledger = Ledger(Budgets(), 1, {"kv0": "d0"})
    arena = Arena(slots=1, slot_bytes=PAGE_BYTES, life=1, lock=lock, ledger=ledger, huge_pages="off")
    arena.outlives_process = outlives_process
    process = SidecarProcess.spawn(["true"], os.environ, arena.fd)
    process.close_pipes()
    return process, arena


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def corpses() -> Iterator[Corpses]:
    yield Corpses()
    _corpses._left.clear()


def reaped(corpses: Corpses, wake: threading.Event) -> None:
    eventually(lambda: corpses.prune(wake.set) or not corpses.unreaped_pids(), "the process is reaped")


def test_nobody_waits_while_the_kernel_thinks_about_the_memory_of_a_dead_sidecar(
    corpses: Corpses, monkeypatch: pytest.MonkeyPatch
) -> None:
    thinks, answer, wake, looked = threading.Event(), threading.Event(), threading.Event(), threading.Event()
    asked = Arena.kernel_holds

    def slow(arena: Arena) -> bool:
        thinks.set()
        assert answer.wait(30)
        return asked(arena)

    monkeypatch.setattr(Arena, "kernel_holds", slow)
    process, arena = dead()
    arena.abandon()
    corpses.add(process, arena)

    def look() -> None:
        with arena.lock:
            reaped(corpses, wake)
            corpses.prune(wake.set)
        looked.set()

    try:
        threading.Thread(target=look, daemon=True).start()
        assert thinks.wait(10)
        assert looked.wait(10), "a look waits for the kernel"
        assert corpses.abandoned_arenas() == 1 and not wake.is_set()
    finally:
        answer.set()
    assert wake.wait(10), "nobody is told that the memory is back"
    corpses.prune()
    assert corpses.abandoned_arenas() == 0 and arena.fd == -1


def test_memory_that_the_kernel_holds_counts_until_it_is_back(corpses: Corpses) -> None:
    process, arena = dead()
    fd, wake = arena.fd, threading.Event()
    with pinned(arena):
        arena.abandon()
        corpses.add(process, arena)
        reaped(corpses, wake)
        corpse = corpses._list[0]
        eventually(lambda: corpses.prune(wake.set) or corpse.ask_us > 0, "the kernel has answered once")
        assert corpses.abandoned_arenas() == 1 and is_open(fd) and not wake.is_set()
    eventually(lambda: corpses.prune(wake.set) or not corpses.abandoned_arenas(), "the memory is back")
    assert wake.is_set() and not is_open(fd)


def test_memory_that_cannot_outlive_its_process_is_back_with_the_first_look(corpses: Corpses) -> None:
    process, arena = dead(outlives_process=False)
    fd = arena.fd
    arena.abandon()
    corpses.add(process, arena)
    reaped(corpses, threading.Event())
    assert corpses.abandoned_arenas() == 0 and not is_open(fd)


def test_what_is_being_asked_when_the_client_is_closed_is_known_by_then(corpses: Corpses) -> None:
    process, arena = dead()
    fd = arena.fd
    arena.abandon()
    corpses.add(process, arena)
    reaped(corpses, threading.Event())
    corpses.leave_behind()
    assert _corpses.left_behind() == 0 and not is_open(fd)


def test_what_the_kernel_holds_when_the_client_is_closed_passes_to_the_next_one(corpses: Corpses) -> None:
    process, arena = dead()
    with pinned(arena):
        arena.abandon()
        corpses.add(process, arena)
        reaped(corpses, threading.Event())
        corpses.leave_behind()
        assert _corpses.left_behind() == 1
        heir = Corpses()
        assert heir.abandoned_arenas() == 1
    eventually(lambda: heir.prune() or not heir.abandoned_arenas(), "the memory is back")


def test_where_no_thread_can_be_made_the_kernel_is_asked_at_a_later_look(corpses: Corpses, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    process, arena = dead()
    arena.abandon()
    corpses.add(process, arena)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        reaped(corpses, threading.Event())
        assert corpses.abandoned_arenas() == 1
    eventually(lambda: corpses.prune() or not corpses.abandoned_arenas(), "the memory is back")
