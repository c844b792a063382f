"""The real client on a clock of its own, against a sidecar that dies, goes mute, lies, repeats itself, answers late and out of order.

One thread runs everything: the IO thread's turns are taken by hand, the poller never waits, time moves when the run says so.
Pipes and memory are the kernel's own; the process behind them is a script in this one. A seed decides all, so a failing one
replays: `python tests/sim_client.py SEED` tells its story.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import json
import os
import random
import select
import signal
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import kvlane._core as core
import kvlane._corpses as corpses
import kvlane._io_thread as io_thread
from kvlane import Client, Options
from kvlane import _messages as wire
from kvlane._arena import Slot
from kvlane._process import SidecarProcess
from kvlane.aio import AsyncClient
from kvlane.errors import KvlaneError, StartFailed

START_US = 1_000_000_000
GRACE_US = wire.GRACE_MS * 1000
SLACK_US = 2_000
"""A poller counts whole milliseconds; one more for the turn itself."""
SLOTS = 12
BACKOFF_MAX_MS = 800
MUTE_MS = 1200
HEARTBEAT_MS = 200
CLOSE_MS = 400


class Broken(AssertionError):
    """A promise that did not hold."""


class ScriptedSidecar(SidecarProcess):
    """Both ends of three pipes; what a process would do is done by the run."""

    def __init__(self, world: World, arena_fd: int) -> None:
        flags = os.O_CLOEXEC | os.O_NONBLOCK
        self.reads, stdin = os.pipe2(flags)
        stdout, self.writes = os.pipe2(flags)
        stderr, self.logs = os.pipe2(flags)
        super().__init__(10_000_000 + world.spawned, -1, stdin, stdout, stderr)
        self.world = world
        self.arena_bytes = os.fstat(arena_fd).st_size
        self.dead = False
        self.reapable_us = 0
        self.deaf_until_us = 0
        self.stopped_until_us = 0
        self.pent_up: list[bytes] = []  # what it has to say when it goes on
        self.mute_until_us = 0
        self.stubborn = False  # stays when asked to leave
        self.said_us = world.now_us
        self.heard = b""
        self.ready = False
        self.held: set[int] = set()  # what its kernel may write to
        self.quarantined: set[int] = set()

    # --- what the client sees of it --------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        if number == signal.SIGKILL or (number == signal.SIGTERM and not self.stubborn):
            self.die(0 if self.world.pick.random() < 0.8 else self.world.pick.choice([50_000, 3_000_000, 20_000_000]))

    def is_dying(self) -> bool:
        return self.dead

    def reap(self) -> bool:
        if self.status is None and self.dead and self.world.now_us >= self.reapable_us:
            self.status = "was ended by signal 9"
        return self.status is not None

    # --- what it does ----------------------------------------------------------------------------------------------

    def die(self, corpse_us: int) -> None:
        if self.dead:
            return
        self.world.tell(f"sidecar {self.pid} dies" + (f", its corpse stays for {corpse_us // 1000} ms" if corpse_us else ""))
        self.dead = True
        self.reapable_us = self.world.now_us + corpse_us
        self.close_theirs()

    def close_theirs(self) -> None:
        for name in ("reads", "writes", "logs"):
            fd = getattr(self, name)
            if fd >= 0:
                setattr(self, name, -1)
                os.close(fd)

    def say(self, message: Mapping[str, Any] | bytes) -> None:
        if self.dead or self.world.now_us < self.mute_until_us:
            return
        data = message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        if self.world.now_us < self.stopped_until_us:
            self.pent_up.append(data)
            return
        self.world.tell(f"sidecar says {data[:160]!r}")
        self.said_us = self.world.now_us
        while data:
            try:
                data = data[os.write(self.writes, data) :]
            except BlockingIOError:
                self.world.turn()  # the client reads
            except OSError:
                return
            if self.is_dying():
                return

    def stop(self, us: int) -> None:
        """SIGSTOP, and SIGCONT after so long: whatever it would have said meanwhile comes in one burst."""
        self.stopped_until_us = self.world.now_us + us
        self.world.later(us, self.go_on)

    def go_on(self) -> None:
        if self.world.now_us >= self.stopped_until_us:
            burst, self.pent_up = b"".join(self.pent_up), []
            self.say(burst)

    def listen(self) -> bool:
        """Takes what was asked; False when there was nothing."""
        if self.dead or self.world.now_us < max(self.deaf_until_us, self.stopped_until_us):
            return False
        try:
            data = os.read(self.reads, 1 << 16)
        except BlockingIOError:
            return False
        if not data:
            if not self.stubborn:
                self.die(0)
            return False
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            self.world.asked(self, json.loads(line))
        return True


class Call:
    """One request of the run, synchronous or awaited, and its outcome."""

    def __init__(
        self, op: str, number: int, deadline_us: int, poll: Callable[[], Any], cancel: Callable[[], object]
    ) -> None:
        self.op = op
        self.number = number
        self.sent_us = 0
        self.deadline_us = deadline_us
        self.poll = poll
        self.cancel = cancel
        self.result: Any = None


class _NoThread:
    """Stands in for threading.Thread: the run takes the turns of the IO thread itself."""

    last: Any = None

    def __init__(self, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        _NoThread.last = target.__self__  # type: ignore[attr-defined]
        del name, daemon

    def start(self) -> None:
        """Not here."""


class _Poller:
    """Looks, and never waits."""

    def __init__(self, world: World) -> None:
        self._real = select.epoll()
        self._world = world
        self.register = self._real.register
        self.unregister = self._real.unregister
        self.close = self._real.close

    def poll(self, _timeout_s: float | None, events_max: int) -> list[tuple[int, int]]:
        ready = self._real.poll(0, events_max)
        self._world.busy = self._world.busy or bool(ready)
        return ready


class World:
    def __init__(self, seed: int, *, told: bool = False) -> None:
        self.seed = seed
        self.pick = random.Random(seed)
        self.story: list[str] | None = [] if told else None
        self.now_us = START_US
        self.spawned = 0
        self.agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.order = 0
        self.busy = False
        self.sidecar: ScriptedSidecar | None = None
        self.all: list[ScriptedSidecar] = []
        self.calls: list[Call] = []
        self.asked_calls = 0
        self.said: dict[int, list[dict[str, Any]]] = {}  # by call: the answers that a sidecar gave it
        self.leased: list[Slot] = []
        self.lost_us = START_US
        self.closing = False
        self.outcomes: dict[str, int] = {}
        self.truthful = self.pick.random() < 0.3  # no lies: what breaks then is not a lie's fault
        self.loop: asyncio.AbstractEventLoop | None = None

    # --- the run -----------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        before = len(os.listdir("/proc/self/fd"))
        if self.pick.random() < 0.5:
            self.loop = asyncio.new_event_loop()
        try:
            with _patched(self):
                options = Options(
                    mounts={"kv0": "/nowhere"},
                    slot_bytes=4096,
                    slots=SLOTS,
                    timeout_ms=300,
                    huge_pages="off",
                    command=["scripted"],
                    start_timeout_ms=2000,
                    close_timeout_ms=CLOSE_MS,
                    heartbeat_ms=HEARTBEAT_MS,
                    mute_ms=MUTE_MS,
                    backoff_first_ms=50,
                    backoff_max_ms=BACKOFF_MAX_MS,
                )
                self.awaited = AsyncClient(options, _spawn=self.spawn) if self.loop is not None else None
                self.client = Client(options, _spawn=self.spawn) if self.awaited is None else self.awaited._client
                self.io = _NoThread.last
                self.core = self.client._core
                try:
                    for _ in range(steps):
                        self.step()
                    self.end()
                finally:
                    self.core.exiting = True
                    for sidecar in self.all:
                        sidecar.close_theirs()
                    if not self.core.finished.is_set():
                        self.core.finish("the run is over")
                    if self.loop is not None:
                        for waiting in asyncio.all_tasks(self.loop):
                            waiting.cancel()
                        self.spin()
                        self.loop.close()
        finally:
            self.forget()
        after = len(os.listdir("/proc/self/fd"))
        if after > before:
            gc.collect()
            after = len(os.listdir("/proc/self/fd"))
        if after > before:
            raise Broken(f"{after - before} descriptors are left open: {_open_files()[-4:]}")

    def forget(self) -> None:
        """Also after a broken promise: the dead of this run are not those of the next client of this process."""
        self.leased.clear()
        self.calls.clear()
        for sidecar in self.all:
            sidecar.close_pipes()
        io_thread._cores.discard(self.core)
        self.core._close_wake()
        self.core.corpses._list.clear()
        corpses._left.clear()  # what this run's dead have is not the next run's
        self.all.clear()
        self.sidecar = None
        _NoThread.last = None
        self.agenda.clear()
        del self.io, self.client, self.awaited, self.core

    def tell(self, text: str) -> None:
        if self.story is not None:
            self.story.append(f"{(self.now_us - START_US) / 1000:12.3f} ms  {text}")

    def later(self, us: int, work: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.agenda, (self.now_us + us, self.order, work))

    def spin(self) -> None:
        if self.loop is not None:
            for _ in range(4):
                self.loop.run_until_complete(asyncio.sleep(0))

    def turn(self) -> bool:
        """One turn of the IO thread and one of the sidecar; False when neither had anything to do."""
        self.busy = False
        if not self.core.finished.is_set():
            if self.io._is_finished():
                self.core.finish(self.core.reason)
            else:
                self.io._step()
        heard = self.sidecar is not None and self.sidecar.listen()
        return self.busy or heard

    def pump(self) -> None:
        for _ in range(200):
            if not self.turn():
                break
        else:
            raise Broken("the IO thread is busy for ever, and time stands still")
        self.spin()
        self.check()

    def until(self, until_us: int) -> None:
        while True:
            self.pump()
            planned_us = self.core.planned_us
            due_us = min(self.agenda[0][0] if self.agenda else 1 << 62, planned_us if planned_us is not None else 1 << 62)
            if self.core.finished.is_set() or due_us > until_us:
                break
            self.now_us = max(self.now_us + (1_000 if due_us <= self.now_us else 0), due_us)
            if self.core.life is not None:
                self.lost_us = self.now_us  # until now, if it ends now
            while self.agenda and self.agenda[0][0] <= self.now_us:
                heapq.heappop(self.agenda)[2]()
        self.now_us = max(self.now_us, until_us)
        self.pump()

    # --- what must hold ------------------------------------------------------------------------------------------------

    def check(self) -> None:
        for call in self.calls:
            result = call.poll()
            if call.result is None and result is not None:
                call.result = result
                word = result if isinstance(result, str) else f"{'ok' if result.ok else result.code} by {result.source}"
                self.outcomes[word] = self.outcomes.get(word, 0) + 1
                self.tell(f"{call.op} ends: {word}")
                if (
                    not isinstance(result, str)
                    and result.code == "DEADLINE_EXCEEDED"
                    and result.source == "client"
                    and self.now_us < call.deadline_us + GRACE_US
                ):
                    raise Broken(
                        f"{call.op}: the client's last word came {call.deadline_us + GRACE_US - self.now_us} us early"
                    )
                self.check_said(call, result)
            elif call.result is not None and result is not call.result:
                raise Broken(f"{call.op} had an outcome, and has another now: {call.result!r}, then {result!r}")
            if call.result is None and self.now_us > call.deadline_us + GRACE_US + SLACK_US:
                raise Broken(f"{call.op} has no outcome {self.now_us - call.deadline_us} us after its deadline")
        self.calls = [call for call in self.calls if call.result is None or self.now_us < call.deadline_us + 1_000_000]
        if self.core.finished.is_set():
            return
        life, sidecar = self.core.life, self.sidecar
        if self.core.corpses.abandoned_arenas() > 2:
            raise Broken(f"{self.core.corpses.abandoned_arenas()} arenas are abandoned")
        if life is not None:
            self.lost_us = self.now_us
            waits = [call for call in self.calls if call.result is None]
            if sidecar is not None and sidecar.ready and waits and not self.closing:
                silent_us = self.now_us - max(sidecar.said_us, min(call.sent_us for call in waits))
                if silent_us > (MUTE_MS + 2 * HEARTBEAT_MS + 100) * 1000:
                    raise Broken(f"a sidecar that has been mute for {silent_us // 1000} ms is still believed in")
        elif self.core.corpses.abandoned_arenas() > 1:
            self.lost_us = self.now_us  # it may not start one
        elif not self.closing and self.now_us - self.lost_us > (BACKOFF_MAX_MS + 1_500) * 1000:
            raise Broken(f"no sidecar was started for {(self.now_us - self.lost_us) // 1000} ms")

    def check_said(self, call: Call, result: Any) -> None:
        """What is passed on as the sidecar's word was said, for this very call, and to the letter."""
        if isinstance(result, str) or result.source != "sidecar":
            return
        for answer in self.said.get(call.number, ()):
            failed = sorted((entry["block"], entry["code"], entry["slot"]) for entry in answer.get("failed", ()))
            told = sorted((one.block, one.code, one.slot or entry_slot) for one, entry_slot in _failures(result, call.op))
            present = tuple(answer.get("present", ()))
            if answer["ok"] == result.ok and failed == told and present == tuple(getattr(result, "present", ())):
                return
        raise Broken(f"{call.op}: {result!r:.300} was never said; what was said is {self.said.get(call.number)}")

    def end(self) -> None:
        """Everything ends: calls by their deadlines, then the client in its time."""
        self.until(self.now_us + 3_000_000)
        if any(call.result is None for call in self.calls):
            raise Broken("calls are left without an outcome")
        self.closing = True
        began_us = self.now_us
        self.tell("the client is closed")
        self.core.request_close()
        self.until(began_us + CLOSE_MS * 1000 + 60_000)
        if not self.core.finished.is_set():
            raise Broken(f"close() takes longer than {CLOSE_MS} ms")
        if self.core.life is not None or any(not task.done for task in self.core._finished.values()):
            raise Broken("something is left after close()")

    # --- the sidecar's script --------------------------------------------------------------------------------------------

    def spawn(self, _argv: object, _environment: object, arena_fd: int) -> ScriptedSidecar:
        self.spawned += 1
        if self.pick.random() < 0.03:
            self.tell("no process can be made")
            self.lost_us = self.now_us  # it was tried
            self.outcomes["fault spawn"] = self.outcomes.get("fault spawn", 0) + 1
            raise StartFailed("no process: Resource temporarily unavailable", code="SPAWN_FAILED")
        sidecar = self.sidecar = ScriptedSidecar(self, arena_fd)
        self.all.append(sidecar)
        self.tell(f"sidecar {sidecar.pid} is started")
        fate = self.pick.random()
        if fate < 0.05:
            self.later(self.pick.randrange(100_000), lambda: sidecar.die(0))
        elif fate < 0.08:
            pass  # never ready
        else:
            self.later(self.pick.randrange(80_000), lambda: self.is_ready(sidecar, wrong=fate < 0.12))
        return sidecar

    def is_ready(self, sidecar: ScriptedSidecar, *, wrong: bool) -> None:
        arena = {"bytes": sidecar.arena_bytes, "slot_bytes": 4096, "slots": sidecar.arena_bytes // 4096, "backing": "shmem"}
        ready: dict[str, Any] = {
            "event": "ready",
            "protocol": wire.PROTOCOL,
            "version": wire.VERSION,
            "now_us": self.now_us,
            "arena": arena,
            "mounts": [{"name": "kv0", "device": "1:1"}],
            "limits": {},
        }
        if wrong:
            field = self.pick.choice(["protocol", "now_us", "arena", "event", "mounts"])
            ready[field] = self.pick.choice([0, None, "x", True, [{"name": 1}, {"name": "a"}], [{"name": []}], _nested(900)])
        else:
            sidecar.ready = True
        sidecar.say(ready)

    def asked(self, sidecar: ScriptedSidecar, request: dict[str, Any]) -> None:
        op = request["op"]
        self.tell(f"sidecar hears {json.dumps(request)[:120]}")
        if op == "ping":
            sidecar.say({"id": request["id"], "ok": True, "now_us": self.now_us})
            return
        if op == "shutdown":
            if not sidecar.stubborn:
                sidecar.say({"id": request["id"], "ok": True})
                sidecar.die(0)
            return
        sidecar.held.update(request.get("slots", ()))
        fate = self.pick.random()
        if fate < 0.6:
            self.later(self.pick.choice([0, 200, 5_000, 100_000]), lambda: self.answer(sidecar, request))
        elif fate < 0.8:
            self.later(self.pick.randrange(1_500_000), lambda: self.answer(sidecar, request))  # late, perhaps
        elif fate < 0.86 or self.truthful:
            pass  # lost
        else:
            self.later(self.pick.randrange(50_000), lambda: self.misbehave(sidecar, request))

    def answer(self, sidecar: ScriptedSidecar, request: dict[str, Any]) -> None:
        op, count = request["op"], len(request.get("keys", ()))
        answer: dict[str, Any] = {"id": request["id"], "ok": True}
        if op in ("load", "store", "remove"):
            failed = [block for block in range(count) if self.pick.random() < 0.25]
            kept = {block for block in failed if op != "remove" and self.pick.random() < 0.4}
            entries = [
                {
                    "block": block,
                    "code": "DEADLINE_EXCEEDED" if block in kept else "NOT_FOUND",
                    "phase": "read",
                    "waited_ms": 1,
                    "slot": "quarantined" if block in kept else "free",
                }
                for block in failed
            ]
            answer |= {"ok": not failed, "done": count - len(failed)} | ({"failed": entries} if failed else {})
            slots = request.get("slots", [])
            quarantined = {slots[block] for block in kept}
            sidecar.held.difference_update(set(slots) - quarantined)
            sidecar.quarantined |= quarantined
            if quarantined:
                self.later(self.pick.randrange(3_000_000), lambda: self.free(sidecar, sorted(quarantined)))
        elif op == "lookup":
            present = [self.pick.choice([True, False, None]) for _ in range(count)]
            prefix = next((i for i, one in enumerate(present) if one is not True), count)
            answer |= {"present": present, "prefix": prefix, "complete": None not in present}
        elif op == "cancel":
            answer["state"] = "unknown"
        if op != "cancel":
            self.said.setdefault(_call_of(request), []).append(answer)
        sidecar.say(answer)

    def free(self, sidecar: ScriptedSidecar, slots: list[int]) -> None:
        sidecar.quarantined.difference_update(slots)
        sidecar.held.difference_update(slots)
        sidecar.say({"event": "slots_freed", "slots": slots})

    def misbehave(self, sidecar: ScriptedSidecar, request: dict[str, Any]) -> None:
        number = request["id"]
        what = self.pick.choice(
            [
                "twice",
                "wrong id",
                "garbage",
                "half",
                "half and death",
                "huge",
                "sums",
                "freed",
                "mute",
                "deaf",
                "death",
                "corpse",
                "event",
                "noise",
                "stopped",
                "ready again",
                "stdout closed",
                "flood",
                "deep",
                "other kinds",
            ]
        )
        self.tell(f"fault: {what}")
        self.outcomes[f"fault {what}"] = self.outcomes.get(f"fault {what}", 0) + 1
        if what == "twice":
            self.answer(sidecar, request)
            sidecar.say({"id": number, "ok": False, "error": {"code": "CANCELLED", "message": "again"}})
        elif what == "wrong id":
            sidecar.say({"id": self.pick.choice([number + 100_000, "x", None, -5, 1.5]), "ok": True, "done": 1})
        elif what == "garbage":
            sidecar.say(self.pick.choice([b"not json\n", b"[]\n", b"null\n", b"\xff\xfe\n", b"\n", b"{}\n"]))
        elif what.startswith("half"):
            sidecar.say(b'{"id":%d,"ok":tr' % number)
            if what == "half":
                self.later(self.pick.randrange(200_000), lambda: sidecar.say(b"ue}\n"))
            else:
                sidecar.die(0)
        elif what == "huge":
            sidecar.say(b'{"id":%d,"x":"' % number + b"x" * (wire.LINE_BYTES_MAX + 10))
        elif what == "sums":
            sidecar.say(
                {
                    "id": number,
                    "ok": True,
                    "done": 77,
                    "failed": [{"block": 9}],
                    "present": [True],
                    "prefix": 3,
                    "complete": False,
                }
            )
        elif what == "freed":
            sidecar.say(
                {
                    "event": "slots_freed",
                    "slots": [self.pick.choice(sorted(sidecar.held - sidecar.quarantined) or [SLOTS + 3]), -1],
                }
            )
        elif what == "mute":
            sidecar.mute_until_us = self.now_us + self.pick.randrange(4_000_000)
        elif what == "deaf":
            sidecar.deaf_until_us = self.now_us + self.pick.randrange(4_000_000)
            sidecar.stubborn = self.pick.random() < 0.5
        elif what in ("death", "corpse"):
            sidecar.die(0 if what == "death" else self.pick.choice([1_000_000, 15_000_000]))
        elif what == "stopped":
            sidecar.stop(self.pick.choice([50_000, 900_000, 4_000_000]))
            self.answer(sidecar, request)
        elif what == "ready again":
            self.is_ready(sidecar, wrong=False)
        elif what == "stdout closed":  # and it lives on, and listens
            if sidecar.writes >= 0:
                os.close(sidecar.writes)
                sidecar.writes = -1
            sidecar.stubborn = True
        elif what == "flood":
            sidecar.say(b'{"event":"mount","mount":"kv0","class":"load","state":"ok","was":"suspended"}\n' * 3_000)
        elif what == "deep":
            depth = self.pick.randrange(900, 1_000)  # about where json gives up, which it does at another depth each way
            nested = b"[" * depth + b"]" * depth
            sidecar.say(self.pick.choice([b'{"id":-5,"x":%s}\n', b'{"event":"slots_freed","slots":{"x":%s}}\n']) % nested)
        elif what == "other kinds":
            sidecar.say(
                {"id": self.pick.choice([True, [number], {"x": number}, str(number), float(number)]), "ok": True, "done": 1}
            )
        elif what == "event":
            sidecar.say({"event": self.pick.choice(["mount", "stalled", "comet"]), "mount": "kv0"})
        else:
            with contextlib.suppress(OSError):
                os.write(sidecar.logs, b"noise on stderr\n" * 50)

    # --- the client's side -------------------------------------------------------------------------------------------------

    def step(self) -> None:
        before = len(self.calls)
        self.act()
        for call in self.calls[before:]:
            call.sent_us = self.now_us
        self.until(self.now_us + self.pick.choice([0, 100, 5_000, 50_000, 50_000, 400_000, 1_000, 2_500_000]))

    def act(self) -> None:
        pick = self.pick
        what = pick.choice(
            [
                "load",
                "load",
                "store",
                "store",
                "lookup",
                "remove",
                "release",
                "release",
                "cancel",
                "poll",
                "kill",
                "wait",
                "wait",
            ]
        )
        try:
            if what in ("load", "store"):
                self.blocks(what)
            elif what in ("lookup", "remove"):
                self.call(what, self.keys(pick.randint(1, 5)))
            elif what == "release" and self.leased:
                self.leased.pop(pick.randrange(len(self.leased))).release()
            elif what == "cancel" and self.calls:
                pick.choice(self.calls).cancel()
            elif what == "poll":
                self.client.poll()
            elif what == "kill" and self.sidecar is not None and pick.random() < 0.1:
                self.sidecar.die(pick.choice([0, 0, 500_000]))
        except KvlaneError as error:  # no sidecar just now, or no slots: said at once
            self.tell(f"{what} is refused: {error}")

    def keys(self, count: int) -> list[str]:
        """Each call has its own, so that a sidecar's answer can be told to be for it."""
        self.asked_calls += 1
        return [f"llama/{self.asked_calls:08x}{i:02x}" for i in range(count)]

    def blocks(self, op: str) -> None:
        if self.pick.random() < 0.7 or not self.leased:
            got = self.client.try_lease(self.pick.randint(1, 3), use="load" if op == "load" else "store")
            if got is not None:
                for slot in got:
                    self.may_be_leased(slot)
                self.leased += got
        slots = [slot for slot in self.leased if slot.state == "leased" and slot.slot_class == op][: self.pick.randint(1, 4)]
        self.leased = [slot for slot in self.leased if slot.state in ("leased", "in flight")]
        if slots:
            self.call(op, self.keys(len(slots)), slots)

    def may_be_leased(self, slot: Slot) -> None:
        if self.sidecar is None or slot.life != self.core.lives:
            raise Broken(f"slot {slot.index} of life {slot.life} was handed out in life {self.core.lives}")
        if slot.index in self.sidecar.held:
            raise Broken(f"slot {slot.index} was handed out, and the sidecar has not given it back")

    def call(self, op: str, keys: list[str], slots: list[Slot] | None = None) -> None:
        number = self.asked_calls
        timeout_ms = self.pick.choice([1, 20, 300, 1_000, 2_500])
        deadline_us = self.now_us + timeout_ms * 1000
        self.tell(f"{op} of {len(keys)} in {timeout_ms} ms")
        more: dict[str, Any] = {"slots": slots} if slots is not None else {}
        if self.loop is None:
            task = getattr(self.client, op)(keys, **more, timeout_ms=timeout_ms)
            self.calls.append(Call(op, number, deadline_us, lambda: task.result, lambda: self.client.cancel(task)))
            return
        awaiting = self.loop.create_task(getattr(self.awaited, op)(keys, **more, timeout_ms=timeout_ms))
        self.spin()

        def poll() -> Any:
            if not awaiting.done():
                return None
            return "cancelled" if awaiting.cancelled() else awaiting.result()

        self.calls.append(Call(op, number, deadline_us, poll, awaiting.cancel))


@contextlib.contextmanager
def _patched(world: World) -> Iterator[None]:
    """The clock of every module of the client, and what its IO thread waits with."""
    clocks = [module for name, module in sys.modules.items() if name.startswith("kvlane") and hasattr(module, "now_us")]
    poller = types.SimpleNamespace(epoll=lambda: _Poller(world), EPOLLIN=select.EPOLLIN, EPOLLOUT=select.EPOLLOUT)
    changes: list[tuple[Any, str, Any]] = [(module, "now_us", lambda: world.now_us) for module in clocks]
    changes += [(core, "select", poller), (io_thread, "select", poller), (io_thread, "threading", types.SimpleNamespace(Thread=_NoThread))]
    real = [getattr(module, name) for module, name, _ in changes]
    for module, name, instead in changes:
        setattr(module, name, instead)
    try:
        yield
    finally:
        for (module, name, _), was in zip(changes, real, strict=True):
            setattr(module, name, was)


def _call_of(request: Mapping[str, Any]) -> int:
    return int(request["keys"][0].rpartition("/")[2][:8], 16)


def _failures(result: Any, op: str) -> list[tuple[Any, str]]:
    """With the word that a sidecar says of a slot also where there is none."""
    return [
        (one, "quarantined" if one.code == "DEADLINE_EXCEEDED" and op != "remove" else "free")
        for one in getattr(result, "failed", ())
    ]


def _nested(depth: int) -> Any:
    inner: Any = 0
    for _ in range(depth):
        inner = [inner]
    return inner


def _open_files() -> list[str]:
    links = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return links


def run_seed(seed: int, steps: int, *, told: bool = False) -> World:
    world = World(seed, told=told)
    world.run(steps)
    return world


if __name__ == "__main__":
    told = World(int(sys.argv[1]), told=True)
    try:
        told.run(int(sys.argv[2]) if len(sys.argv) > 2 else 60)
    finally:
        print("\n".join(told.story or []))
