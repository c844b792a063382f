"""Who reads the sidecar's stdout: the IO thread, or in its stead a caller who has nothing to do but wait for an answer.

An answer that the IO thread reads wakes two threads, one after the other, and both want the interpreter. So whoever waits
takes the reading over, for all, and gives it back when his own answer is there or his time is over. While he has it the
pipe is out of the IO thread's sight; all clocks, deaths and the ends of lives stay where they are. A life has one reader
at a time (`Life.reader`), and what a caller held when something went wrong is held for that life alone.

A caller who waits may be away for long: a signal handler runs on top of him, and may ask and wait itself. Then it reads; and
whenever the IO thread is woken by the clock it looks into the pipe in his stead, before anything is settled by its time.

A signal handler may raise at any line of a caller's. In the wait that does no harm; between the read and the last line of
what was read nobody can know what was lost, so the life is over: its tasks are answered SIDECAR_GONE, its arena is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING, Any

from ._clock import now_us
from ._core import Core, parse_line
from ._lines import LineTooLong
from ._wire import ProtocolBroken
from .errors import StartFailed

if TYPE_CHECKING:
    from ._life import Life
    from ._pending import Task

READS_MAX = 8
"""Reads of one pipe before the timers get their turn: 2 MiB, some ten milliseconds of decoding."""


def read(core: Core, life: Life) -> bool:
    """What is there, for whoever is the life's reader. False: there will be no more. What is wrong with it breaks the life."""
    try:
        return _read_lines(core, life)
    except StartFailed as error:
        core.start_error = error
        life.broken = str(error)
    except ProtocolBroken as error:
        life.broken = f"it broke the protocol: {error}"
    except LineTooLong:
        life.broken = "it broke the protocol: a line without an end"
    except RecursionError:  # nested just so deep that it could be read, and not be told of
        life.broken = "it broke the protocol: a line that is nested too deeply"
    return True


def _read_lines(core: Core, life: Life) -> bool:
    for _ in range(READS_MAX):
        try:
            # os.read would allocate all of it for the shortest answer: three system calls, one of which stops our other threads.
            count = os.readv(life.stdout, [life.inbox])
        except BlockingIOError:
            return True
        if count == 0:
            return False
        for line in life.splitter.feed(life.inbox[:count]):
            message = parse_line(line)  # outside the lock: callers submit meanwhile
            with core.lock:
                if life.is_over:
                    return False
                core.handle_message(life, message)
        if count < len(life.inbox):
            return True
    return True


def lead(core: Core, task: Task[Any], limit_us: int) -> bool:
    """Reads until the task is settled, the limit is over or the life may not last. False: somebody else reads."""
    life = core.life
    if life is None:
        return False
    if life.reader is not None:
        return life.led_by == threading.get_ident() and _lead_above(core, life, task, limit_us)
    me = object()
    try:
        with core.lock:
            if task._result is not None:
                return True
            if life.reader is not None or not life.may_be_led():
                return False
            life.reader = me
            core.unwatch(life.stdout)
            task._led_by = life.led_by = threading.get_ident()
        if life.callers_poll is None:
            life.callers_poll = _poll_of(core, life)
        _read_until(core, life, task, limit_us, life.callers_poll)
    finally:
        if life.reader is me:
            task._led_by = None
            _give_back(core, life)
    return True


def _lead_above(core: Core, life: Life, task: Task[Any], limit_us: int) -> bool:
    """In a signal handler, on top of this very thread's wait: who waits below cannot read until the handler returns."""
    if life.reading.locked() or not life.may_be_led():
        return False
    task._led_by = threading.get_ident()
    try:
        _read_until(core, life, task, limit_us, _poll_of(core, life))
    finally:
        task._led_by = None
        core.nudge()  # the one below: his answer may have come
    return True


def _poll_of(core: Core, life: Life) -> select.poll:
    poll = select.poll()
    poll.register(life.stdout, select.POLLIN)
    poll.register(core.nudge_fd, select.POLLIN)
    return poll


def read_beside(core: Core, life: Life) -> bool:
    """In the stead of a caller who has it and may be away. False: there will be no more."""
    if not life.reading.acquire(blocking=False):
        return True
    try:
        return read(core, life)
    finally:
        life.reading.release()


def _read_until(core: Core, life: Life, task: Task[Any], limit_us: int, poll: select.poll) -> None:
    looked = False  # once at least: for a time that is over, too
    while task._result is None and life.may_be_led():
        left_us = limit_us - now_us()
        if left_us <= 0 and looked:
            return
        looked = True
        for fd, _ in poll.poll(max(0, left_us) / 1000):
            if fd != life.stdout:
                core.drain_nudge()
                continue
            try:
                if not life.reading.acquire(blocking=False):  # it is read in our stead
                    continue
                more = read(core, life)
                life.reading.release()
            except BaseException as error:
                life.broken = (
                    life.broken or f"{type(error).__name__} came while an answer was read: what it said is not known"
                )
                core.wake()
                raise
            if life.broken is not None:
                core.wake()
            if not more:
                life.ended = True  # the IO thread finds the same, and judges it


def _give_back(core: Core, life: Life) -> None:
    with core.lock:
        if life.is_over:
            with contextlib.suppress(OSError):
                os.close(life.stdout)
        else:
            core.watch(life.stdout)
        life.reader = life.led_by = None
