"""Whoever waits reads the sidecar himself, for all; and whatever becomes of him, somebody reads on."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from support import Connect, eventually

from kvlane import SIDECAR_GONE, Client, Task
from kvlane._core import Core
from kvlane._io_thread import IoThread
from kvlane.options import Options
from kvlane.testing import WAIT_S, FakeSidecar

QUICK = {"backoff_first_ms": 1, "backoff_max_ms": 10}
LONG_MS = 4000


class Waiter(threading.Thread):
    """Waits for a task in a thread of its own."""

    def __init__(self, kv: Client, task: Task[Any], timeout_ms: float | None = None) -> None:
        super().__init__(daemon=True)
        self.result: Any = None
        self.wait: Callable[[], Any] = lambda: kv.wait(task) if timeout_ms is None else kv.wait(task, timeout_ms)
        self.start()

    def run(self) -> None:
        self.result = self.wait()

    def ended(self) -> Any:
        self.join(WAIT_S)
        assert not self.is_alive(), "it still waits"
        return self.result


def led(kv: Client) -> bool:
    life = kv._core.life
    return life is not None and isinstance(life.reader, object) and type(life.reader) is object


def asked(kv: Client, fake: FakeSidecar, key: str = "a/00", **more: Any) -> tuple[Task[Any], dict[str, Any]]:
    task = kv.lookup([key], timeout_ms=LONG_MS, **more)
    return task, fake.expect("lookup")


def say(fake: FakeSidecar, request: Mapping[str, Any]) -> None:
    fake.answer(request, present=[True], prefix=1, complete=True)


def pipes() -> int:
    """How many of this process's descriptors are."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the listing's own
            count += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return count


def still_read(kv: Client, fake: FakeSidecar) -> None:
    """An answer that nobody waits for arrives."""
    task, request = asked(kv, fake)
    say(fake, request)
    eventually(lambda: task.done, "nobody reads any more")


def test_whoever_waits_reads_and_gives_it_back(fake: FakeSidecar, kv: Client) -> None:
    task, request = asked(kv, fake)
    waiter = Waiter(kv, task)
    eventually(lambda: led(kv))
    say(fake, request)
    assert waiter.ended().prefix == 1
    assert kv._core.life is not None and kv._core.life.reader is None
    still_read(kv, fake)


def test_what_comes_for_others_meanwhile_is_theirs_at_once(fake: FakeSidecar, kv: Client) -> None:
    events: list[Any] = []
    kv.on_event(events.append)
    called = threading.Event()
    task, request = asked(kv, fake)
    waiter = Waiter(kv, task)
    eventually(lambda: led(kv))
    second, its_request = asked(kv, fake, "a/01")
    follower = Waiter(kv, second)
    _, third = asked(kv, fake, "a/02", on_done=lambda _: called.set())
    say(fake, third)
    assert called.wait(WAIT_S)
    say(fake, its_request)
    assert follower.ended().prefix == 1
    fake.say({"event": "mount", "mount": "kv0", "class": "load", "state": "suspended", "was": "ok"})
    eventually(lambda: any(event["event"] == "mount" for event in events))
    assert led(kv) and not task.done
    say(fake, request)
    assert waiter.ended().prefix == 1


def test_two_may_wait_for_one_task(fake: FakeSidecar, kv: Client) -> None:
    task, request = asked(kv, fake)
    waiters = [Waiter(kv, task) for _ in range(3)]
    eventually(lambda: led(kv))
    say(fake, request)
    assert [waiter.ended().prefix for waiter in waiters] == [1, 1, 1]
    still_read(kv, fake)


def test_a_wait_that_ends_before_the_answer_leaves_the_reading_to_others(fake: FakeSidecar, kv: Client) -> None:
    task, request = asked(kv, fake)
    assert kv.wait(task, timeout_ms=1) is None
    say(fake, request)
    eventually(lambda: task.done)
    assert kv.poll() == [task]


def test_a_mute_sidecar_keeps_nobody_who_reads_past_the_last_word(fake: FakeSidecar, kv: Client) -> None:
    task = kv.lookup(["a/00"], timeout_ms=30)
    result = kv.wait(task)
    assert (result.code, result.source) == ("DEADLINE_EXCEEDED", "client")
    still_read(kv, fake)


def test_one_who_reads_hears_that_another_ended_his_task(fake: FakeSidecar, kv: Client) -> None:
    task, _ = asked(kv, fake)
    waiter = Waiter(kv, task)
    eventually(lambda: led(kv))
    with kv._core.lock:
        kv._core._settle_by_own_clock(task)
    assert waiter.ended().code == "DEADLINE_EXCEEDED"
    still_read(kv, fake)


@pytest.mark.parametrize("answered", [False, True])
def test_a_sidecar_that_dies_is_replaced_and_what_it_said_last_counts(
    fake: FakeSidecar, connect: Connect, answered: bool
) -> None:
    kv = connect(**QUICK)
    before = pipes()
    for life in range(1, 4):
        task, request = asked(kv, fake)
        waiter = Waiter(kv, task)
        eventually(lambda: led(kv))
        if answered:
            say(fake, request)
            fake.order(exit=3)
            assert waiter.ended().prefix == 1
        else:
            fake.signal(signal.SIGKILL)
            assert waiter.ended().code == SIDECAR_GONE
        fake.wait_born()
        eventually(lambda life=life: kv.state == "up" and kv.life == life + 1)  # type: ignore[misc]
        still_read(kv, fake)
    eventually(lambda: pipes() == before, "pipes of former lives are still open")


def test_closing_ends_the_wait_of_one_who_reads(fake: FakeSidecar, kv: Client) -> None:
    task, _ = asked(kv, fake)
    waiter = Waiter(kv, task)
    eventually(lambda: led(kv))
    kv.close()
    assert waiter.ended().code in ("SHUTTING_DOWN", SIDECAR_GONE)


class Interrupted(Exception):
    pass


@contextmanager
def interrupting() -> Iterator[None]:
    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_handler_that_raises_in_the_wait_does_no_harm(fake: FakeSidecar, kv: Client) -> None:
    task, request = asked(kv, fake)
    main = threading.main_thread().ident
    assert main is not None

    def interrupt() -> None:
        eventually(lambda: led(kv))
        signal.pthread_kill(main, signal.SIGUSR1)

    with interrupting():
        helper = threading.Thread(target=interrupt, daemon=True)
        with pytest.raises(Interrupted):
            helper.start()
            kv.wait(task)
    helper.join(WAIT_S)
    say(fake, request)
    eventually(lambda: task.done)
    assert kv.life == 1
    still_read(kv, fake)


def test_a_handler_that_raises_while_an_answer_is_read_costs_the_life_and_nothing_else(
    fake: FakeSidecar, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = connect(**QUICK)
    core, main = kv._core, threading.get_ident()
    handle = core.handle_message
    [slot] = kv.lease(1)
    task = kv.load(["a/00"], [slot], bytes=5, timeout_ms=LONG_MS)
    request = fake.expect("load")

    def interrupted(life: Any, message: Mapping[str, Any]) -> None:
        if threading.get_ident() == main:
            monkeypatch.setattr(core, "handle_message", handle)
            raise Interrupted
        handle(life, message)

    monkeypatch.setattr(core, "handle_message", interrupted)

    def answer() -> None:
        eventually(lambda: led(kv))
        fake.answer(request)

    helper = threading.Thread(target=answer, daemon=True)
    with pytest.raises(Interrupted):
        helper.start()
        kv.wait(task)
    result = kv.wait(task)
    assert result.code == SIDECAR_GONE and slot.state == "abandoned"
    fake.wait_born()
    eventually(lambda: kv.state == "up" and kv.life == 2)
    still_read(kv, fake)
    assert any("Interrupted came while an answer was read" in note for note in kv.notes())


@contextmanager
def on_signal(handler: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Gives what runs the handler on top of the main thread, wherever that is."""
    main, before = threading.get_ident(), signal.signal(signal.SIGUSR1, lambda *_: handler())
    try:
        yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_handler_that_asks_and_waits_on_top_of_who_reads_gets_its_answer(fake: FakeSidecar, kv: Client) -> None:
    inner: list[Any] = []
    task, request = asked(kv, fake)

    def answer() -> None:
        eventually(lambda: led(kv))
        strike()
        its = fake.expect("lookup")
        say(fake, request)  # first the one that waits below
        say(fake, its)

    with on_signal(lambda: inner.append(kv.wait(kv.lookup(["a/01"], timeout_ms=LONG_MS)))) as strike:
        threading.Thread(target=answer, daemon=True).start()
        assert kv.wait(task).prefix == 1
    assert [result.prefix for result in inner] == [1]
    still_read(kv, fake)


def test_while_who_reads_is_away_in_a_signal_handler_others_are_served_and_the_sidecar_is_not_mute(
    fake: FakeSidecar, connect: Connect
) -> None:
    kv = connect(**QUICK, heartbeat_ms=50, mute_ms=200)
    back = threading.Event()
    task, request = asked(kv, fake)
    others: list[Any] = []

    def serve() -> None:
        eventually(lambda: led(kv))
        strike()
        for _ in range(5):
            second, its = asked(kv, fake, "a/01")
            say(fake, its)
            others.append(kv.wait(second))
            time.sleep(0.1)  # in all longer than mute_ms: it is the length of the handler that counts
        back.set()
        say(fake, request)

    with on_signal(lambda: back.wait(WAIT_S)) as strike:
        helper = threading.Thread(target=serve, daemon=True)
        helper.start()
        assert kv.wait(task).prefix == 1
    helper.join(WAIT_S)
    assert [result.code for result in others] == [None] * 5 and kv.life == 1
    still_read(kv, fake)


def test_a_sidecar_that_dies_while_who_reads_is_away_is_replaced(fake: FakeSidecar, connect: Connect) -> None:
    kv = connect(**QUICK)
    second: list[Any] = []
    task, _ = asked(kv, fake)

    def kill() -> None:
        eventually(lambda: led(kv))
        strike()
        os.kill(fake.pid, signal.SIGKILL)

    with on_signal(lambda: eventually(lambda: kv.life == 2 and kv.state == "up")) as strike:
        threading.Thread(target=kill, daemon=True).start()
        second.append(kv.wait(task))
    assert [result.code for result in second] == [SIDECAR_GONE]
    still_read(kv, fake)


def test_a_wait_of_no_time_takes_what_is_there(fake: FakeSidecar, kv: Client) -> None:
    task, request = asked(kv, fake)
    say(fake, request)
    eventually(lambda: kv.wait(task, timeout_ms=0))


def test_a_life_with_the_descriptors_of_the_one_before_is_heard(
    fake: FakeSidecar, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = IoThread._restart_later

    def due_at_once(self: IoThread, reason: str) -> None:  # as on a machine where the thread was away for the backoff
        later(self, reason)
        self.restart_us = 0
        corpses = self.core.corpses
        eventually(lambda: corpses.prune() or not corpses.abandoned_arenas())  # and all its descriptors are free again

    monkeypatch.setattr(IoThread, "_restart_later", due_at_once)
    kv = connect(**QUICK)
    for number in range(2, 10):  # one of them has the same, as a rule
        os.kill(fake.pid, signal.SIGKILL)
        fake.wait_born()
        eventually(lambda number=number: kv.life == number and kv.state == "up")  # type: ignore[misc]
    still_read(kv, fake)


def test_a_process_without_descriptors_to_spare_keeps_its_client(
    fake: FakeSidecar, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    kv = connect(**QUICK)

    def refused() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(select, "epoll", refused)
    os.kill(fake.pid, signal.SIGKILL)
    fake.wait_born()
    eventually(lambda: kv.life == 2 and kv.state == "up")
    still_read(kv, fake)
    task, request = asked(kv, fake)
    waiter = Waiter(kv, task)
    eventually(lambda: led(kv))
    say(fake, request)
    assert waiter.ended().prefix == 1


def test_a_core_that_gets_no_descriptor_says_so_and_keeps_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    before = pipes()
    monkeypatch.setattr(os, "eventfd", refused)
    with pytest.raises(OSError, match="Too many"):
        Core(Options(mounts={"kv0": "/nowhere"}))
    assert pipes() == before
