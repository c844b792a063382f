"""What goes wrong, by the dice: on the mounts, with the sidecars, with the clients. Every fault ends by itself, or at the latest with `end_all`."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import resource
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import meddle
from model import Fault, Harm, Model
from stage import MEDDLER_S, Mount

METADATA = "open,lookup,getattr,rename,mkdir,unlink,close"
NAMED = {
    "hang read": "hang read",
    "hang write": "hang write",
    "hang all": "hang all",
    "delay read": "delay read 60",
    "delay all": "delay read,write,open,rename 25",
    "rate": "rate read,write 3000000",
    "eio read": "fail read EIO",
}
ON_FUSE = {
    "hang metadata": f"hang {METADATA}",
    "hang rename after": "hang rename when=after",
    "hang open": "hang open",
    "hang unlink": "hang unlink,rename",
    "short": "short 8192",  # no read brings more at once; nobody may notice
    "eio write": "fail write EIO",  # on ext4 it would end the journal, and with it the run
}
ENDED_BY = {"unfill": "enospc", "writable": "erofs"}
"""What the meddler undoes, which is over when it says so."""
STORM_KILLS = 6
HISTORY = 4000


class Victim(Protocol):
    """A client process, as faults see it."""

    name: str
    who: str
    pid: int
    sidecar: int
    expendable: bool
    harmed_us: int
    stopped_us: int

    def respawn(self) -> None: ...


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Faults:
    def __init__(self, seed: int, model: Model, mounts: list[Mount], root: str, clock: Path, keys: int, hexes: Callable[[int], str]) -> None:
        self.random = random.Random(seed)
        self.model, self.mounts, self.root, self.keys, self.hexes = model, mounts, root, keys, hexes
        self.weights = (50, 20, 20, 6, 4)
        self.counts: Counter[str] = Counter()
        self.history: list[str] = []
        self.pending: list[tuple[float, str, Callable[[], None]]] = []  # when it ends, what it was, how
        self.busy: set[str] = set()
        self.harms: dict[int, list[Harm]] = {mount.number: [] for mount in mounts}  # under way
        self.ending: list[Fault] = []  # the meddler is at it
        self.killed: set[int] = set()
        self.starved: set[int] = set()  # of memory: these may end as they like
        clock.write_bytes(bytes(8))
        with open(clock, "r+b") as file:
            self.clock = mmap.mmap(file.fileno(), 8)

    def note(self, text: str) -> None:
        self.history.append(f"{now_us()} us  {text}")
        del self.history[:-HISTORY]

    # --- beginning and end ---------------------------------------------------------------------------------------------

    def begin(
        self, kind: str, mount: int | None, seconds: float, place: str, end: Callable[[], None], start: Callable[[], object], about: str = "", who: str | None = None
    ) -> None:
        """The model learns of it before the first one can feel it."""
        fault = Fault(kind, mount, now_us(), who=who)
        self.model.faults.append(fault)
        try:
            start()
        except RuntimeError:
            fault.end_us = now_us()
            raise
        self.counts[kind] += 1
        self.busy.add(place)
        self.note(f"{kind} on {place} for {seconds * 1000:.0f} ms {about}")

        def finish() -> None:
            if kind in ENDED_BY.values():
                self.ending.append(fault)
            end()
            if fault not in self.ending:
                fault.end_us = now_us()
            self.busy.discard(place)
            self.note(f"end of {kind} on {place}")

        self.pending.append((time.monotonic() + seconds, kind, finish))

    def once(self, kind: str, mount: int | None, about: str, who: str | None = None) -> None:
        at_us = now_us()
        self.model.faults.append(Fault(kind, mount, at_us, at_us, who))
        self.counts[kind] += 1
        self.note(f"{kind} {about}")

    def tick(self) -> None:
        due = [entry for entry in self.pending if entry[0] <= time.monotonic()]
        self.pending = [entry for entry in self.pending if entry not in due]
        for _, _, finish in due:
            finish()
        for mount in self.mounts:
            for command, answer in mount.meddler.answers():
                self._meddled(mount, command, answer)

    def _meddled(self, mount: Mount, command: dict[str, Any], answer: dict[str, Any]) -> None:
        if command["do"] == "damage":
            harm = self.harms[mount.number].pop(0)
            harm.end_us = now_us()
            if answer["done"]:
                self.counts[f"damage: {command['kind']}"] += 1
            else:
                self.model.harmless(harm)
            self.note(f"damage on kv{mount.number}: {command['kind']} of {command['root']}/{command['hex']}: {answer}")
        elif not answer["done"]:
            self.note(f"{command['do']} on kv{mount.number}: {answer}")
            if command["do"] == "read-only":
                self.counts["erofs: busy, not done"] += 1
        elif command["do"] in ENDED_BY:
            for fault in [fault for fault in self.ending if (fault.kind, fault.mount) == (ENDED_BY[command["do"]], mount.number)]:
                fault.end_us = now_us()
                self.ending.remove(fault)
                self.note(f"{fault.kind} on kv{mount.number} is undone")

    def end_all(self) -> None:
        """Everything answers again, and stays so."""
        for _, _, finish in sorted(self.pending, key=lambda entry: entry[0]):
            finish()
        self.pending.clear()
        for mount in self.mounts:
            mount.ask("cont")
            mount.ask("resume all")
            for command in ("writable", "unfill"):
                mount.meddler.ask(do=command, root=self.root)
        limit = time.monotonic() + MEDDLER_S
        while any(mount.meddler.waiting for mount in self.mounts):
            self.tick()
            if time.monotonic() > limit:
                raise RuntimeError(f"a meddler has not answered within {MEDDLER_S} s although nothing hangs: {[m.meddler.waiting for m in self.mounts]}")
            time.sleep(0.002)
        self.set_clock(0)
        self.note("everything was resumed")

    # --- one more ------------------------------------------------------------------------------------------------------

    def one(self, victims: list[Victim]) -> None:
        mount = self.random.choice(self.mounts)
        victim = self.random.choice(victims)
        kind = self.random.choices(("mount", "damage", "sidecar", "client", "clock"), self.weights)[0]
        if kind == "mount":
            self.on_mount(mount)
        elif kind == "damage":
            self.damage(mount)
        elif kind == "sidecar":
            self.on_sidecar(victim)
        elif kind == "client":
            self.on_client(victim)
        else:
            self.jump()

    def on_mount(self, mount: Mount) -> None:
        place = f"kv{mount.number}"
        if place in self.busy:
            return
        seconds = self.random.choice((0.03, 0.15, 0.4, 0.8, 1.5)) * self.random.uniform(0.7, 1.3)
        choices = [*NAMED, "stop", "enospc", "erofs", *(["freeze"] if mount.loop else ON_FUSE)]
        kind = self.random.choice(choices)
        rules = NAMED | ON_FUSE
        if kind in rules:
            self.begin(kind, mount.number, seconds, place, lambda: void(mount.ask("resume all")), lambda: mount.ask(rules[kind]))
        elif kind == "stop":
            self.begin(kind, mount.number, seconds, place, lambda: void(mount.ask("cont")), lambda: mount.ask("stop"))
        elif kind == "freeze":
            with contextlib.suppress(RuntimeError):
                self.begin(kind, mount.number, seconds, place, lambda: void(mount.ask("thaw")), lambda: mount.ask("freeze"))
        elif not mount.meddler.waiting:
            how, back = ("fill", "unfill") if kind == "enospc" else ("read-only", "writable")
            end = lambda: mount.meddler.ask(do=back, root=self.root)  # noqa: E731
            self.begin(kind, mount.number, seconds, place, end, lambda: mount.meddler.ask(do=how, root=self.root))

    def damage(self, mount: Mount) -> None:
        if mount.meddler.waiting or (mount.loop and f"kv{mount.number}" in self.busy):
            return  # it would touch the file later than the model knows
        kind = self.random.choice(meddle.KINDS)
        key = self.random.randrange(self.keys)
        other = (key + 8) % self.keys  # one of the same length
        self.harms[mount.number].append(self.model.harm((mount.number, key), now_us()))
        mount.meddler.ask(do="damage", root=self.root, kind=kind, hex=self.hexes(key), other=self.hexes(other), seed=self.random.getrandbits(32))

    def on_sidecar(self, victim: Victim) -> None:
        pid, place = victim.sidecar, f"sidecar of {victim.name}"
        if not pid or place in self.busy or not alive(pid):
            return
        kind = self.random.choices(("sigkill", "sigstop", "storm", "nofile", "memory"), (20, 40, 8, 20, 12))[0]
        victim.harmed_us = now_us()
        if kind == "sigkill":
            self.killed.add(pid)
            self.once("sigkill sidecar", None, f"pid {pid} of {victim.name}", victim.who)
            signal_to(pid, signal.SIGKILL)
        elif kind == "sigstop":
            seconds = self.random.choice((0.02, 0.1, 0.3, 0.9))  # the longest is longer than mute_ms
            self.stop(pid, victim, "sigstop sidecar", seconds, place)
        elif kind == "storm":
            self._storm(victim, place)
        else:
            self._limit(kind, victim, pid, place)

    def _storm(self, victim: Victim, place: str) -> None:
        """Each new sidecar is killed as soon as it is seen."""
        self.counts["restart storm"] += 1
        self.begin("sigkill storm", None, 1.5, place, lambda: None, lambda: None, who=victim.who)
        killed: set[int] = set()

        def kill_next() -> None:
            pid = victim.sidecar
            if pid and pid not in killed:
                killed.add(pid)
                self.killed.add(pid)
                victim.harmed_us = now_us()
                self.once("sigkill sidecar", None, f"pid {pid} of {victim.name}, in a storm", victim.who)
                signal_to(pid, signal.SIGKILL)
            if len(killed) < STORM_KILLS and place in self.busy:
                self.pending.append((time.monotonic() + 0.02, "storm", kill_next))

        kill_next()

    def _limit(self, kind: str, victim: Victim, pid: int, place: str) -> None:
        which = resource.RLIMIT_NOFILE if kind == "nofile" else resource.RLIMIT_AS
        try:
            before = resource.prlimit(pid, which)
            if kind == "nofile":
                low = self.random.choice((0, 3, 5, 8))
            else:  # a little more than it has: no new thread's stack, no large buffer
                with open(f"/proc/{pid}/statm") as file:
                    low = int(file.read().split()[0]) * resource.getpagesize() + (4 << 20)
        except (OSError, ValueError, IndexError):
            return

        def lower() -> None:
            if kind == "memory":
                self.starved.add(pid)
            with contextlib.suppress(OSError):
                resource.prlimit(pid, which, (low, before[1]))

        def restore() -> None:
            victim.harmed_us = now_us()
            with contextlib.suppress(OSError):
                resource.prlimit(pid, which, before)

        self.begin(kind, None, self.random.uniform(0.2, 1.0), place, restore, lower, f"{low}", victim.who)

    def on_client(self, victim: Victim) -> None:
        place = f"client {victim.name}"
        if place in self.busy:
            return
        if victim.expendable and self.random.random() < 0.6:
            signal_to(victim.pid, signal.SIGKILL)
            self.once("sigkill client", None, f"pid {victim.pid}, {victim.name}", victim.who)
            victim.respawn()
            return
        self.stop(victim.pid, victim, "sigstop client", self.random.choice((0.05, 0.3, 0.7)), place)

    def stop(self, pid: int, victim: Victim, kind: str, seconds: float, place: str) -> None:
        victim.harmed_us = victim.stopped_us = now_us()

        def go_on() -> None:
            signal_to(pid, signal.SIGCONT)
            victim.harmed_us = victim.stopped_us = now_us()

        self.begin(kind, None, seconds, place, go_on, lambda: signal_to(pid, signal.SIGSTOP), who=victim.who)

    def jump(self) -> None:
        seconds = self.random.choice((-86400 * 400, -3600, -1, 0, 1, 3600, 86400 * 400, -int(time.time()) + 10))
        self.set_clock(seconds)
        self.once("clock jump", None, f"by {seconds} s")

    def set_clock(self, seconds: int) -> None:
        self.clock[:8] = struct.pack("<q", seconds)


def void(_: object) -> None:
    return


def signal_to(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def alive(pid: int) -> bool:
    """Not by /proc/PID/stat, whose reading may hang in the place of a dying sidecar."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
    return True
