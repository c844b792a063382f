"""Sidecars that are over and whose memory the kernel still has: they are looked at, and nobody waits while the kernel is asked."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Iterator

import pytest
from support import eventually

from kvlane import Client, _corpses
from kvlane._arena import Arena
from kvlane._budget import Budgets, Ledger
from kvlane._corpses import Corpses
from kvlane._lock import Lock
from kvlane._process import SidecarProcess
from kvlane.testing import FakeSidecar

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


def turn(corpses: Corpses, wake: Callable[[], object] = lambda: None) -> None:
    """As the IO thread does it."""
    corpses.prune()
    _corpses.ask(corpses.due(), wake)


def reaped(corpses: Corpses) -> None:
    eventually(lambda: corpses.prune() or not corpses.unreaped_pids(), "the process is reaped")


def gone(corpses: Corpses, wake: Callable[[], object] = lambda: None) -> Callable[[], bool]:
    def look() -> bool:
        turn(corpses, wake)
        return corpses.abandoned_arenas() == 0

    return look


def asked_once(corpses: Corpses, wake: Callable[[], object] = lambda: None) -> Callable[[], bool]:
    (corpse,) = corpses._list

    def look() -> bool:
        turn(corpses, wake)
        return corpse.ask_us > 0

    return look


class Thinking:
    """The kernel's answers wait until the test lets them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.answer = threading.Semaphore(0), threading.Event()
        holds = Arena.kernel_holds

        def slow(arena: Arena) -> bool:
            self.asked.release()
            assert self.answer.wait(30)
            return holds(arena)

        monkeypatch.setattr(Arena, "kernel_holds", slow)


@pytest.fixture
def thinking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Thinking]:
    it = Thinking(monkeypatch)
    yield it
    it.answer.set()


def buried(corpses: Corpses, **options: bool) -> Arena:
    """A dead one among them, and reaped."""
    process, arena = dead(**options)
    arena.abandon()
    corpses.add(process, arena)
    reaped(corpses)
    return arena


def test_nobody_waits_while_the_kernel_thinks_about_the_memory_of_a_dead_sidecar(corpses: Corpses, thinking: Thinking) -> None:
    arena, wake = buried(corpses), threading.Event()
    with arena.lock:
        turn(corpses, wake.set)
        assert thinking.asked.acquire(timeout=10)
        turn(corpses, wake.set)
    assert corpses.abandoned_arenas() == 1 and not wake.is_set()
    assert not thinking.asked.acquire(blocking=False), "it is asked twice"
    thinking.answer.set()
    assert wake.wait(10), "nobody is told that the memory is back"
    turn(corpses)
    assert corpses.abandoned_arenas() == 0 and arena.fd == -1


def test_nobody_has_the_lock_while_a_thread_is_started_that_asks(fake: FakeSidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def start(thread: threading.Thread) -> None:
        if thread.name == "kvlane-corpse":
            held.append(f"owner={threading.get_ident()} " in repr(kv._core.lock.inner))
        started(thread)

    started = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", start)
    with Client(fake.options()) as kv:
        process, arena = dead()
        arena.abandon()
        with kv._core.lock:
            kv._core.corpses.add(process, arena)
        kv._core.wake()
        eventually(lambda: held and arena.fd == -1, "the kernel is asked")
    assert held == [False]


def test_memory_that_the_kernel_holds_counts_until_it_is_back(corpses: Corpses) -> None:
    process, arena = dead()
    fd, wake = arena.fd, threading.Event()
    with pinned(arena):
        arena.abandon()
        corpses.add(process, arena)
        reaped(corpses)
        eventually(asked_once(corpses, wake.set), "the kernel has answered once")
        assert corpses.abandoned_arenas() == 1 and is_open(fd) and not wake.is_set()
    eventually(gone(corpses, wake.set), "the memory is back")
    assert wake.is_set() and not is_open(fd)


def test_memory_that_cannot_outlive_its_process_is_back_with_the_first_look(corpses: Corpses) -> None:
    arena = buried(corpses, outlives_process=False)
    assert corpses.abandoned_arenas() == 0 and arena.fd == -1


def test_what_is_being_asked_when_the_client_is_closed_counts_for_the_next_one_until_it_is_known(
    corpses: Corpses, thinking: Thinking
) -> None:
    arena = buried(corpses)
    fd = arena.fd
    due = corpses.leave_behind()
    heir = Corpses()  # before anybody asks
    _corpses.ask(due, lambda: None)
    assert thinking.asked.acquire(timeout=10)
    turn(heir)
    assert heir.abandoned_arenas() == 1
    assert not thinking.asked.acquire(blocking=False), "it is asked by both"
    thinking.answer.set()
    eventually(gone(heir), "the memory is back")
    assert not is_open(fd)


def test_what_a_closed_client_left_is_let_go_without_a_next_one(corpses: Corpses) -> None:
    arena = buried(corpses)
    fd = arena.fd
    _corpses.ask(corpses.leave_behind(), lambda: None)
    eventually(lambda: _corpses.left_behind() == 0, "the kernel has answered")
    assert not is_open(fd)


def test_what_the_kernel_holds_when_the_client_is_closed_passes_to_the_next_one(corpses: Corpses) -> None:
    process, arena = dead()
    with pinned(arena):
        arena.abandon()
        corpses.add(process, arena)
        reaped(corpses)
        _corpses.ask(corpses.leave_behind(), lambda: None)
        assert _corpses.left_behind() == 1
        heir = Corpses()
        assert heir.abandoned_arenas() == 1
    eventually(gone(heir), "the memory is back")


def test_a_view_that_a_caller_keeps_when_his_client_is_closed_is_his(corpses: Corpses) -> None:
    process, arena = dead()
    (slot,) = arena.lease(1, "kv0", "load") or []
    arena.abandon()
    corpses.add(process, arena)
    reaped(corpses)
    assert corpses.leave_behind() == []
    assert _corpses.left_behind() == 0
    assert slot.state == "leased"


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_where_no_thread_can_be_made_the_kernel_is_asked_at_a_later_look(
    corpses: Corpses, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise error

    buried(corpses)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        turn(corpses)
        assert corpses.abandoned_arenas() == 1
    eventually(gone(corpses), "the memory is back")


def test_a_question_that_fails_is_asked_again(corpses: Corpses, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_arena: Arena) -> bool:
        raise OSError(9, "Bad file descriptor")

    buried(corpses)
    with monkeypatch.context() as patch:
        patch.setattr(Arena, "kernel_holds", fail)
        eventually(asked_once(corpses), "it was asked")
        assert corpses.abandoned_arenas() == 1
    eventually(gone(corpses), "the memory is back")
