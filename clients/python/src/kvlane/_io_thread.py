"""The client's only thread that must never stop: it reads the sidecar, keeps the clock, and replaces what died.

It waits in poll() and nowhere else. It runs no code of the caller's, writes no log, and touches no mount, so that a stuck
mount under the engine's own stderr cannot hold it. It is a daemon, and nobody joins it.

Closing is a sequence of bounded steps, each a share of `close_timeout_ms`: ask for a shutdown, close stdin, TERM, KILL,
and at the end leave the corpse behind and say so.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import threading
import time
import weakref

from . import _corpses
from ._clock import now_us
from ._core import GRACE_US, Core
from ._life import Life
from ._reader import READS_MAX, read, read_beside
from .errors import StartFailed

STREAM_US = GRACE_US
"""So long after the last word of the sidecar one more wake-up is planned. Nothing of a request can be due sooner than that
after it was sent, so that in a stream of requests none has to wake this thread for its deadline's sake."""
LATE_US = 50_000
"""A wake-up this late was not the sidecar's doing (SIGSTOP, a paused machine, no CPU): silence is counted anew from it."""
EOF_LINGER_US = 100_000
"""Between EOF and exit status of a sidecar that fails to start or was asked to leave: its status says more than our
SIGKILL would. One that is not gone by then has a call in the kernel, and nobody waits for that."""
READER_S = 0.02
"""For so long a caller who reads may go on when the process is gone: he finds the end himself, but for a signal handler."""
CORPSE_LOOK_US = 100_000
STDERR_LAST_BYTES = 1 << 16
EVENTS_MAX = 64
BACKOFF_FORGIVEN_US = 10_000_000
"""A life that lasted this long was a good one: the next restart waits the shortest time again."""

CLOSE_STEPS = ((0.6, "stdin"), (0.7, "term"), (0.8, "kill"))

_cores: weakref.WeakSet[Core] = weakref.WeakSet()


class IoThread:
    def __init__(self, core: Core) -> None:
        self.core = core
        self.restart_us = 0
        self.backoff_us = core.options.backoff_first_ms * 1000
        self.closing_us: int | None = None
        self.close_step = 0
        self.lingered = False  # the life that was closed had its EOF_LINGER_US
        self.watched: dict[int, int] = {}  # descriptors and events that the poller knows
        _cores.add(core)
        self.thread = threading.Thread(target=self._run, name="kvlane-io", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        core = self.core
        try:
            while not self._is_finished():
                self._step()
            core.finish(core.reason)
        except Exception as error:  # a defect of ours: nobody may hang on it
            core.notes.add(f"IO thread failed: {type(error).__name__}: {error}")
            core.finish(f"the IO thread failed: {type(error).__name__}: {error}")

    # --- one turn ------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        core = self.core
        if core.life is None and self.closing_us is None and not core.exiting:
            self._start_if_due()
        with core.lock:
            life = core.life
            self._register(life)
            planned_us = self._next_us()
            core.planned_us = planned_us
            # Counted in whole milliseconds, rounded up: half of one less is rounded to what is meant.
            timeout_s = None if planned_us is None else max(0.0, (-(-(planned_us - now_us()) // 1000) - 0.5) / 1000)
            poller = core.poller
        ready = dict(poller.poll(timeout_s, EVENTS_MAX))
        at_us = now_us()
        if core.wake_fd() in ready:
            core.drain_wake()
        if life is not None:
            if life.process.pidfd in ready:
                self._take_over(life)
            self._read(life, ready)
            if planned_us is not None and at_us >= planned_us and life.reader is not None:
                self._read_beside(life)
        with core.lock:
            if life is not None and planned_us is not None and at_us - planned_us > LATE_US:
                life.heard_us = max(life.heard_us, at_us - core.options.heartbeat_ms * 1000)
            core.run_timers(at_us)
            for process in core.corpses.prune():
                core.notes.add(f"pid {process.pid} {process.status}")
            if life is not None:
                self._judge(life, ready, at_us)
            if core.close_wanted:
                self._close(at_us)
        _corpses.ask(core.corpses.due(), core.wake)

    def _register(self, life: Life | None) -> None:
        core = self.core
        wanted = dict.fromkeys([core.wake_fd(), *core.corpses.pidfds()], select.EPOLLIN)
        if life is not None:
            process = life.process
            for fd in (process.stdout, process.stderr, process.pidfd):
                if fd >= 0:
                    wanted[fd] = select.EPOLLIN
            if life.outbox and process.stdin >= 0:
                wanted[process.stdin] = select.EPOLLOUT
        if wanted == self.watched:
            return
        # Made anew: a closed descriptor that a forked child has too cannot be taken out of the old one.
        try:
            fresh = select.epoll()
        except OSError:  # the process has no descriptor left: the old one serves
            for fd in self.watched:
                core.unwatch(fd)
        else:
            core.poller.close()
            core.poller = fresh
        self.watched = wanted
        for fd, events in wanted.items():
            if life is None or fd != life.stdout or life.reader is None:  # else who reads it puts it back
                core.poller.register(fd, events)

    def _next_us(self) -> int | None:
        core, life = self.core, self.core.life
        due = core.next_wake_us()
        if life is None and self.closing_us is None and not core.exiting and core.may_start():
            due = min(due, self.restart_us)
        if life is not None and now_us() < life.heard_us + STREAM_US:
            due = min(due, life.heard_us + STREAM_US)
        if life is not None and life.ready is None:
            due = min(due, life.born_us + core.options.start_timeout_ms * 1000)
        if life is not None and life.eof_us is not None:
            due = min(due, life.eof_us + EOF_LINGER_US)
        if core.corpses.abandoned_arenas():
            due = min(due, now_us() + CORPSE_LOOK_US * (1 if core.state == "off" or self.closing_us else 10))
        if self.closing_us is not None:
            due = min(due, self._step_us(self.close_step if life is not None else len(CLOSE_STEPS)))
        return due if due < 1 << 62 else None

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self, life: Life, ready: dict[int, int]) -> None:
        process, core = life.process, self.core
        if process.stderr in ready and not self._read_stderr(life, READS_MAX):
            process.close_stderr()
        if process.stdout in ready:
            self._read_stdout(life)
        if process.stdin in ready:
            core.flush(life)

    def _read_stdout(self, life: Life) -> None:
        core = self.core
        with core.lock:
            if life.reader is not None:  # a caller who waits: he took it over just now
                return
            life.reader = self
        more = True
        try:
            more = read(core, life)
        finally:
            with core.lock:
                life.reader = None
                if not more:
                    life.eof_us = now_us()
                    life.process.close_stdout()

    def _take_over(self, life: Life) -> None:
        """The process is gone: whoever reads is to stop, and what it said last is read before it is judged."""
        with self.core.lock:
            life.ended = True
            self.core.nudge()
        until = time.monotonic() + READER_S
        while life.reader is not None and time.monotonic() < until:
            time.sleep(0.0005)
        if life.reader is not None:
            self._read_beside(life)

    def _read_beside(self, life: Life) -> None:
        """What has come by now counts, also when the caller who would read it is away, in a signal handler."""
        if not read_beside(self.core, life):
            with self.core.lock:  # not closed: he has it
                life.eof_us = life.eof_us or now_us()
                self.core.nudge()

    def _read_stderr(self, life: Life, reads: int) -> bool:
        for _ in range(reads):
            try:
                data = os.read(life.process.stderr, STDERR_LAST_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            life.stderr_ring.feed(data)
        return True

    # --- the end of a life and the next one ----------------------------------------------------------------------

    def _judge(self, life: Life, ready: dict[int, int], at_us: int) -> None:
        """Whether this life goes on."""
        core = self.core
        core.heartbeat(life, at_us)
        reason = life.broken
        start_limit_us = life.born_us + core.options.start_timeout_ms * 1000
        pidfd = (
            life.process.pidfd
        )  # it tells; asking at each turn would let go of the interpreter, just when a caller is woken
        if reason is None and (pidfd < 0 or pidfd in ready or life.eof_us is not None) and life.process.reap():
            reason = "it ended"
            if life.process.stdout >= 0:  # what it said last still counts
                self._read_stdout(life)
        if reason is None and life.eof_us is not None:
            linger = life.ready is None or self.closing_us is not None
            if not linger or at_us >= life.eof_us + EOF_LINGER_US:
                reason = "it closed its stdout"
        if reason is None and life.ready is None and at_us >= start_limit_us:
            reason = f"it was not ready within {core.options.start_timeout_ms} ms"
        if reason is None:
            return
        if life.process.stderr >= 0:
            self._read_stderr(life, 1)
        self.lingered = life.eof_us is not None
        was_up = life.ready is not None
        core.end_life(life, reason, "SHUTTING_DOWN" if self.closing_us is not None else "SIDECAR_GONE")
        if self.closing_us is None:
            if was_up and at_us - life.up_us >= BACKOFF_FORGIVEN_US:
                self.backoff_us = core.options.backoff_first_ms * 1000
            if not was_up and core.start_error is None:
                ended = f" (pid {life.process.pid} {life.process.status})" if life.process.status else ""
                core.start_error = StartFailed(
                    f"the sidecar did not start: {reason}{ended}",
                    code="NOT_READY_IN_TIME" if at_us >= start_limit_us else "DIED_AT_START",
                    log_tail=core.sidecar_log.tail(),
                )
            self._restart_later(reason)

    def _restart_later(self, reason: str) -> None:
        core = self.core
        self.restart_us = now_us() + self.backoff_us
        self.backoff_us = min(2 * self.backoff_us, core.options.backoff_max_ms * 1000)
        core.counters.restarts += 1
        core.set_state("restarting", reason)

    def _start_if_due(self) -> None:
        """Makes the next life. The spawn happens outside the lock: it takes milliseconds."""
        core = self.core
        with core.lock:
            if now_us() < self.restart_us or core.close_wanted:
                return
            core.corpses.prune()
            if not core.may_start():
                pids = ", ".join(map(str, core.corpses.unreaped_pids())) or "none"
                core.set_state(
                    "off",
                    f"{core.corpses.abandoned_arenas()} abandoned arenas are not back yet "
                    f"(processes that cannot be reaped: {pids}; without any, the kernel still writes or somebody "
                    "keeps views); it starts again when one is back",
                )
                return
            if core.state == "off":
                core.set_state("restarting", "an abandoned arena is back")
            core.lives += 1
            number = core.lives
        try:
            life = Life(
                number,
                core.options,
                core.lock,
                core.sidecar_log,
                core.spawn,
                beside_a_corpse=core.corpses.abandoned_arenas() > 0,
                stop=lambda: core.close_wanted or core.exiting,
            )
        except StartFailed as error:
            with core.lock:
                core.start_error = core.start_error or error
                self._restart_later(str(error))
            return
        with core.lock:
            core.life = life
            for fd in self.watched:  # its descriptors may have the numbers of the former life's
                core.unwatch(fd)
            self.watched = {}

    # --- closing -------------------------------------------------------------------------------------------------

    def _step_us(self, step: int) -> int:
        share = CLOSE_STEPS[step][0] if step < len(CLOSE_STEPS) else 1.0
        return (self.closing_us or 0) + int(self.core.options.close_timeout_ms * 1000 * share)

    def _close(self, at_us: int) -> None:
        core, life = self.core, self.core.life
        if self.closing_us is None:
            self.closing_us = at_us
            core.set_state("closed", "close() was called")
            if life is not None and life.ready is not None:
                drain_ms = max(1, core.options.close_timeout_ms // 2)
                life.outbox.push(f'{{"id":{core._next_id},"op":"shutdown","timeout_ms":{drain_ms}}}\n'.encode())
                life.ping = core._next_id  # its answer needs no task
                core._next_id += 1
                core._write(life)
            elif life is not None:
                self.close_step = len(CLOSE_STEPS)
                life.process.kill()
        if life is None:
            return
        while self.close_step < len(CLOSE_STEPS) and at_us >= self._step_us(self.close_step):
            what = CLOSE_STEPS[self.close_step][1]
            if what == "stdin":
                life.process.close_stdin()
            elif what == "term":
                life.process.signal(signal.SIGTERM)
            else:
                life.process.kill()
            self.close_step += 1
        if at_us >= self._step_us(len(CLOSE_STEPS)):
            core.end_life(life, "it did not leave when asked", "SHUTTING_DOWN")

    def _is_finished(self) -> bool:
        core = self.core
        if self.closing_us is None or core.life is not None:
            return False
        with core.lock:
            core.corpses.prune()
            # A killed process is usually reaped within milliseconds; give the last one what is left of the time. Not
            # after its EOF: it has left but for what the kernel holds.
            left_us = self._step_us(len(CLOSE_STEPS)) - now_us()
            if left_us > 0 and not self.lingered and core.corpses.unreaped_since(self.closing_us):
                return False
            pids = core.corpses.unreaped_pids()
            if pids:
                core.reason = f"closed; pid {', '.join(map(str, pids))} cannot be reaped yet and was left behind"
                core.notes.add(core.reason)
            return True


def _at_exit() -> None:
    """Signals only, no waiting: the pipes close with the process. A stopped sidecar is continued, or it would stay
    stopped for good and never see the end of its stdin; one that is mute is killed."""
    for core in list(_cores):
        core.exiting = True
        life = core.life
        if life is None:
            continue
        silent_us = now_us() - life.heard_us
        mute = life.ping is not None and life.unanswered and silent_us > 2000 * core.options.heartbeat_ms
        with contextlib.suppress(Exception):
            life.process.signal(signal.SIGKILL if mute else signal.SIGCONT)


def _after_fork() -> None:
    _corpses.forget_after_fork()
    for core in list(_cores):
        core.forget_after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
