"""The client's state machine: one sidecar life after the other, and every task settled once, in time.

    starting → up → restarting → up …          a dead, mute or lying sidecar is killed and replaced
                         → off → restarting    two arenas would be abandoned: wait until the kernel gives one back
    any → closed

All state is guarded by one lock that is held for microseconds and never across anything that can block; it is
re-entrant, since a signal handler or a finaliser may come in at any line. The IO thread alone spawns, ends lives and
closes descriptors. Callers write requests themselves (the pipe never blocks), which saves a thread switch per request.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import select
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from . import _json
from . import _messages as wire
from ._arena import Slot
from ._budget import SlotClass
from ._callbacks import Callbacks
from ._clock import now_us
from ._corpses import ABANDONED_ARENAS_MAX, Corpses, ask
from ._life import Life, Spawn
from ._lock import Lock
from ._notes import Notes
from ._pending import Task
from ._process import SidecarProcess
from ._wire import ProtocolBroken, decode_control, refuse_control
from .errors import (
    ClientClosed,
    InvalidArgument,
    Saturated,
    SidecarGone,
    SlotNotLeased,
    StartFailed,
)
from .options import Options
from .results import SIDECAR_GONE, BlocksResult, Result

State = Literal["starting", "up", "restarting", "off", "closed"]

GRACE_US = wire.GRACE_MS * 1000
ANSWER_OVERDUE_US = 10_000_000
"""A sidecar that answers pings but not a task, so long after its deadline, has lost it, and the slots with it."""
UNSENT_PING = -1
SETTLED_AT_ONCE_MAX = 64
FINISHED_MAX = 65_536
"""Settled tasks that nobody has fetched with poll(); the oldest go first, and are counted."""


@dataclass
class Counters:
    """Since the client was made."""

    sent: int = 0
    answered: int = 0
    settled_by_client: int = 0
    late_answers: int = 0
    refused: int = 0
    unknown_answers: int = 0
    unknown_events: int = 0
    slots_freed: int = 0
    bad_slots_freed: int = 0
    unfetched_dropped: int = 0
    restarts: int = 0


class Core:
    def __init__(self, options: Options, spawn: Spawn = SidecarProcess.spawn) -> None:
        self._wake_read = self._wake_write = self.nudge_fd = -1
        self.poller = select.epoll()  # what the IO thread waits with
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._woken = False  # a byte is on its way: a thousand requests need one
        self.nudge_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)  # a caller who reads is to look up
        self.options = options
        self.spawn = spawn
        self.lock = Lock()
        self.changed = threading.Condition(self.lock.inner)
        self.state: State = "starting"
        self.reason = "the sidecar is being started"
        self.counters = Counters()
        self.notes = Notes()
        self.sidecar_log = Notes()
        self.callbacks = Callbacks(self.notes)
        self.listeners: list[Callable[[Mapping[str, Any]], object]] = []
        self.life: Life | None = None
        self.lives = 0
        self.corpses = Corpses()
        self.start_error: StartFailed | None = None
        self.close_wanted = False
        self.exiting = False
        self.planned_us: int | None = None  # when the IO thread wakes by itself; None: when something happens
        self.finished = threading.Event()
        self.timers: list[tuple[int, int]] = []  # (when, task id); tasks answered meanwhile are skipped
        self._finished: dict[int, Task[Any]] = {}
        self._next_id = 1

    # --- for callers ---------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Takes no lock: finalisers come here. The pipe lives as long as this object does."""
        if self._wake_write >= 0 and not self._woken:
            try:
                self._woken = True
                os.write(self._wake_write, b"\0")
            except OSError:  # full: it will wake anyway
                pass
            except BaseException:  # a signal in between; the next one writes, and a byte too many does no harm
                self._woken = False
                raise

    def __del__(self) -> None:
        if hasattr(self, "poller"):
            self._close_wake()

    def _close_wake(self) -> None:
        for fd in (self._wake_read, self._wake_write, self.nudge_fd):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._wake_read = self._wake_write = self.nudge_fd = -1
        self.poller.close()

    def refusal(self) -> tuple[str, str] | None:
        """Why nothing can be sent just now; raises if nothing ever can."""
        if self.close_wanted or self.state == "closed":
            raise ClientClosed(f"the client is closed: {self.reason}")
        if self.state == "up" and self.life is not None and self.life.broken is None:
            return None
        return ("SATURATED" if self.state == "off" else SIDECAR_GONE), f"the client is {self.state}: {self.reason}"

    def lease(self, count: int, mount: str, slot_class: SlotClass) -> list[Slot] | None:
        with self.lock:
            refused = self.refusal()
            if refused is not None:
                raise (Saturated if refused[0] == "SATURATED" else SidecarGone)(refused[1])
            assert self.life is not None
            return self.life.arena.lease(count, mount, slot_class)

    def submit(self, task: Task[Any], request: Mapping[str, Any]) -> None:
        """Sends it, or settles it here and now. Never blocks."""
        # A fingerprint is whatever the caller made; all else is strings, numbers and lists of them.
        body = (_json.encode_any if task.op == "namespace" else _json.encode)(request)
        with self.lock:
            refused = self.refusal() or self._check_slots(task)
            life = self.life
            if refused is not None or life is None:
                code, message = refused or (SIDECAR_GONE, "no sidecar")
                self._refuse(task, code, message)
                return
            number = self._next_id
            line = b'{"id":%d,' % number + body[1:] + b"\n"
            if len(line) - 1 > wire.LINE_BYTES_MAX:
                raise InvalidArgument(
                    f"the {task.op} request is a line of {len(line)} bytes, the limit is {wire.LINE_BYTES_MAX}; split it"
                )
            already_waiting = len(life.outbox) > 0  # then the IO thread looks at the pipe anyway
            if not life.outbox.push(line):
                self._refuse(task, "SATURATED", f"{len(life.outbox)} bytes wait for a sidecar that does not read")
                return
            self._next_id += 1
            task.id = number
            self.counters.sent += 1
            life.arena.send(task.slots)
            if not life.expects_something():
                life.heard_us = max(life.heard_us, now_us())  # silence counts from here
            life.unanswered[number] = task
            last_word_us = task.deadline_us + GRACE_US
            heapq.heappush(self.timers, (last_word_us, number))
            self._write(life)
            full_now = len(life.outbox) > 0 and not already_waiting
            if full_now or life.broken or self.planned_us is None or self.next_wake_us() < self.planned_us:
                self.wake()

    def cancel(self, task: Task[Any]) -> None:
        """Asks the sidecar to settle it. The task is settled by its own answer, or by its deadline."""
        with self.lock:
            life = self.life
            if task.done or life is None or task.id not in life.unanswered or self.refusal() is not None:
                return
            number = self._next_id
            if life.outbox.push(f'{{"id":{number},"op":"cancel","task":{task.id}}}\n'.encode()):
                self._next_id += 1
                life.unanswered[number] = quiet_task(task.deadline_us)
                life.unanswered[number].id = number
                self._write(life)
                if life.outbox or life.broken:
                    self.wake()

    def fetch_finished(self) -> list[Task[Any]]:
        with self.lock:
            self.run_timers(now_us())
            finished = list(self._finished.values())
            self._finished.clear()
            return finished

    def forget_finished(self, task: Task[Any]) -> None:
        if task.listed:
            with self.lock:
                self._finished.pop(id(task), None)

    def last_word(self, task: Task[Any]) -> None:
        """The caller's own look at the clock, should the IO thread be late."""
        with self.lock:
            if not task.done and now_us() >= task.deadline_us + GRACE_US:
                self._settle_by_own_clock(task)

    def facts(self) -> dict[str, Any]:
        """What this side knows of itself."""
        with self.lock:
            arena = self.life.arena if self.life is not None else None
            return {
                **asdict(self.counters),
                "state": self.state,
                "reason": self.reason,
                "life": self.lives,
                "in_flight": 0 if self.life is None else sum(not t.done for t in self.life.unanswered.values()),
                "unanswered": 0 if self.life is None else len(self.life.unanswered),
                "slots_free": arena.free_count() if arena else 0,
                "slots_quarantined": arena.quarantined() if arena else [],
                "arenas_abandoned": self.corpses.abandoned_arenas(),
                "unreaped_pids": self.corpses.unreaped_pids(),
                "callbacks_failed": self.callbacks.failed,
                "callbacks_dropped": self.callbacks.dropped,
            }

    def request_close(self) -> None:
        """At once, without waiting; also from a finaliser."""
        self.close_wanted = True
        self.wake()

    # --- settling ------------------------------------------------------------------------------------------------

    def settle(self, task: Task[Any], result: Result) -> None:
        if task._result is not None:
            return
        task._result = result
        if task._waiter is not None:
            task._waiter.release()
        if task._led_by is not None and task._led_by != threading.get_ident():
            self.nudge()
        if task.listed:
            if len(self._finished) >= FINISHED_MAX:
                del self._finished[next(iter(self._finished))]
                self.counters.unfetched_dropped += 1
            self._finished[id(task)] = task
        if task._on_settle is not None:
            on_settle, task._on_settle = task._on_settle, None
            on_settle(task)

    def _refuse(self, task: Task[Any], code: str, message: str) -> None:
        self.counters.refused += 1
        self.settle(task, task._refuse(task, code, message))

    def _settle_by_own_clock(self, task: Task[Any]) -> None:
        if self.life is not None:
            for slot in task.slots:
                self.life.arena.settle_by_own_clock(slot)
        self.counters.settled_by_client += 1
        waited_ms = (now_us() - task.submitted_us) // 1000
        message = f"{task.op} of {task.count}: no answer from the sidecar {waited_ms} ms after it was sent"
        self.settle(task, task._refuse(task, "DEADLINE_EXCEEDED", message))

    def _check_slots(self, task: Task[Any]) -> tuple[str, str] | None:
        life = self.life
        arena = None if life is None or life.arena.abandoned else life.arena
        for slot in task.slots:
            if slot._arena is not arena:
                return SIDECAR_GONE, f"slot {slot.index} belongs to sidecar life {slot.life}, which is over"
            if slot._state != "leased":
                raise SlotNotLeased(f"slot {slot.index} is {slot.state}; only a leased slot can go into a {task.op}")
        if len(set(task.slots)) != len(task.slots):
            raise InvalidArgument(f"one {task.op} names a slot twice")
        return None

    # --- for the IO thread ---------------------------------------------------------------------------------------

    def handle_message(self, life: Life, message: Mapping[str, Any]) -> None:
        """One line of the sidecar. Raises ProtocolBroken, or StartFailed for a wrong first line."""
        life.heard_us = now_us()
        if life.ping == UNSENT_PING:
            life.ping = None
        if life.ready is None:
            life.handshake(message)
            self.set_state("up", f"sidecar {message.get('version')} runs as pid {life.process.pid}")
            if life.advice is not None:
                self.notes.add(life.advice)
        elif "event" in message:
            self._handle_event(life, message)
        else:
            self._handle_answer(life, message)

    def _handle_answer(self, life: Life, answer: Mapping[str, Any]) -> None:
        number = answer.get("id")
        if number is not None and number == life.ping:
            life.ping = None
            return
        task = life.unanswered.get(number) if type(number) is int else None  # True is no 1
        if task is None:
            self.counters.unknown_answers += 1
            self.notes.add(f"an answer to nothing we asked: {json.dumps(answer)[:300]}")
            return
        result = task._decode(task, answer)
        del life.unanswered[task.id]
        self.counters.answered += 1
        if isinstance(result, BlocksResult) and task.slots:
            life.arena.answered(task.slots, {failure.block for failure in result.failed if failure.slot == "quarantined"})
        if task.done:
            self.counters.late_answers += 1
        else:
            self.settle(task, result)

    def _handle_event(self, life: Life, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "slots_freed":
            slots = event.get("slots")
            if not isinstance(slots, list):
                raise ProtocolBroken(f"slots_freed without slots: {event!r:.120}")
            for index in slots:
                if type(index) is int and life.arena.freed(index):
                    self.counters.slots_freed += 1
                else:  # a lie must not free a slot that the kernel may still write to
                    self.counters.bad_slots_freed += 1
                    self.notes.add(f"slots_freed names slot {index!r}, which waits for no such word")
        elif kind in ("mount", "stalled", "recovered"):
            self.tell(event)
        else:
            self.counters.unknown_events += 1

    def run_timers(self, at_us: int) -> None:
        """Our own last word on what is due, and a look for tasks that a living sidecar has lost. At most
        SETTLED_AT_ONCE_MAX a call: the lock is held meanwhile, and a caller's thread may want it."""
        unanswered = self.life.unanswered if self.life is not None else {}
        for _ in range(SETTLED_AT_ONCE_MAX):
            if not self.timers or self.timers[0][0] > at_us:
                break
            _, number = heapq.heappop(self.timers)
            task = unanswered.get(number)
            if task is None:
                continue
            overdue_us = task.deadline_us + GRACE_US + ANSWER_OVERDUE_US
            if not task.done:
                self._settle_by_own_clock(task)
            if at_us < overdue_us:
                heapq.heappush(self.timers, (overdue_us, number))
            elif self.life is not None and self.life.broken is None:
                self.life.broken = f"it never answered task {number}, {task.op}, though it answers others"
                self.wake()
        if len(self.timers) > 1024 + 4 * len(unanswered):
            self.timers = [entry for entry in self.timers if entry[1] in unanswered]
            heapq.heapify(self.timers)

    def next_wake_us(self) -> int:
        """The earliest time at which something of a life that is up is due."""
        due = self.timers[0][0] if self.timers else 1 << 62
        life = self.life
        if life is not None and life.ready is not None and life.expects_something():
            heartbeat_us = self.options.heartbeat_ms * 1000
            look_us = max(life.heard_us, life.looked_us) + heartbeat_us
            due = min(due, look_us, life.heard_us + self.options.mute_ms * 1000)
        return due

    def heartbeat(self, life: Life, at_us: int) -> None:
        """Pings only while something is outstanding, an answer or a quarantined slot: an idle sidecar sleeps."""
        if not life.expects_something() or life.ready is None or life.broken is not None:
            return
        silent_us = at_us - life.heard_us
        if silent_us < self.options.heartbeat_ms * 1000:
            return
        if silent_us >= self.options.mute_ms * 1000:
            life.broken = f"mute for {silent_us // 1000} ms with {len(life.unanswered)} requests unanswered"
            return
        if at_us - life.looked_us < self.options.heartbeat_ms * 1000:
            return
        life.looked_us = at_us
        if life.process.is_dying():
            life.broken = "it was killed, and the kernel has not let go of it"
        elif life.ping is None:
            if life.outbox.push(f'{{"id":{self._next_id},"op":"ping"}}\n'.encode()):
                life.ping = self._next_id
                self._next_id += 1
                self._write(life)
            else:
                life.ping = UNSENT_PING  # it does not even read: silence alone decides

    def _write(self, life: Life) -> None:
        if life.process.stdin < 0:
            return
        try:
            life.outbox.flush(life.process.stdin)
        except OSError as error:
            life.broken = life.broken or f"its stdin is gone: {error}"

    def flush(self, life: Life) -> None:
        with self.lock:
            self._write(life)

    def end_life(self, life: Life, reason: str, code: str = SIDECAR_GONE) -> None:
        """Kill, abandon, answer everything. The IO thread only."""
        process = life.process
        if process.reap():
            reason = f"{reason} (pid {process.pid} {process.status})"
        else:
            process.kill()
        self.life = None
        life.is_over = True
        if life.reader is not None:  # a caller: he closes it when he looks up, which the answer to his task makes him do
            process.stdout = -1
            self.nudge()
        process.close_pipes()
        life.stderr_ring.end()
        life.arena.abandon()
        self.corpses.add(process, life.arena)
        tasks, life.unanswered = life.unanswered, {}
        self.timers.clear()
        self.notes.add(f"sidecar life {life.number} is over: {reason}")
        for task in tasks.values():
            if not task.done:
                self.settle(task, task._refuse(task, code, f"the sidecar is gone: {reason}"))

    def may_start(self) -> bool:
        return self.corpses.abandoned_arenas() <= ABANDONED_ARENAS_MAX

    def set_state(self, state: State, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        was, self.state, self.reason = self.state, state, reason
        self.changed.notify_all()
        if was != state:
            self.tell({"event": "sidecar", "state": state, "was": was, "reason": reason, "life": self.lives})

    def tell(self, event: Mapping[str, Any]) -> None:
        for listener in self.listeners:
            self.callbacks.call(listener, event)

    def drain_wake(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._wake_read, 4096)
        self._woken = False  # after the read: who asks in between is served by the turn that follows

    def nudge(self) -> None:
        if self.nudge_fd >= 0:
            with contextlib.suppress(OSError):
                os.eventfd_write(self.nudge_fd, 1)

    def drain_nudge(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_read(self.nudge_fd)

    def watch(self, fd: int) -> None:
        """The IO thread sees to it again. These two with the lock held."""
        with contextlib.suppress(OSError, ValueError):  # it does already
            self.poller.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.poller.unregister(fd)

    def wake_fd(self) -> int:
        return self._wake_read

    def finish(self, reason: str) -> None:
        """The end: nothing is in flight, nobody waits. Corpses pass to the next client of this process."""
        with self.lock:
            if self.life is not None:
                self.end_life(self.life, reason, "SHUTTING_DOWN")
            self.close_wanted = True
            self.set_state("closed", reason)
            self.corpses.prune()
            due = self.corpses.leave_behind()
            self.callbacks.end()
            self.finished.set()
        ask(due, lambda: None)

    def forget_after_fork(self) -> None:
        """In a forked child: the sidecar and its pipes are the parent's. Locks may be held by threads that are gone."""
        self.lock.forget_after_fork()
        self.notes.forget_after_fork()
        self.sidecar_log.forget_after_fork()
        self.changed = threading.Condition(self.lock.inner)
        self.close_wanted = True
        self.state, self.reason = "closed", "it belongs to the process that forked this one"
        life, self.life = self.life, None
        if life is not None:
            life.process.forget_after_fork()
            life.arena.forget_after_fork()
        self.corpses.forget_after_fork()
        self._close_wake()


def parse_line(line: bytes) -> Mapping[str, Any]:
    try:
        message = _json.decode(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolBroken(f"a line that is not JSON: {line[:120]!r} ({error})") from error
    if not isinstance(message, dict):
        raise ProtocolBroken(f"a line that is no object: {line[:120]!r}")
    return message


def quiet_task(deadline_us: int) -> Task[Any]:
    """For a request whose answer nobody waits for."""
    return Task(
        op="cancel",
        mount="",
        count=0,
        slots=[],
        deadline_us=deadline_us,
        decode=decode_control,
        refuse=refuse_control,
        on_settle=None,
        listed=False,
        tag=None,
    )
