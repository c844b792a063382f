"""The acceptance run on every file system that can be mounted here, and what each was seen to do.

  npm run mounts                       what CI runs: ext4 xfs btrfs tmpfs overlay sshfs gluster crowd planted killed, in two minutes
  npm run mounts -- sshfs crowd        only these
  npm run mounts -- --full             longer hangs, both engines everywhere, every way to hang, and moosefs

Each place: blocks there and back, replaced, removed, damaged, a full disk; then it is hung for real and healed, and left while it
hangs. crowd: sidecars on several hosts, one shared store. planted: faults that the stories above must
find. killed: a run that is killed while a mount hangs leaves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import crowd
import hosts
import places
import servers
from acceptance import acceptance, checksums_skipped
from checks import Checks
from hang import hang, leaving, not_healed
from hosts import CommandFailed, Host
from killed import killed
from places import Place, Way
from stage import ENGINES

WORK = Path("/run/mounts")
REST = ("crowd", "planted", "killed")
CI = (*places.LOCAL, "sshfs", "gluster", *REST)
ALL = (*places.LOCAL, *servers.SERVERS, *REST)
STORY_S = 180.0  # every wait of a story has a bound; this is for a call of its own into a mount that never answers
#: Whose acceptance runs with which engine in the short form, if not with threads.
SHORT = {"ext4": ENGINES, "gluster": ENGINES[1:]}


class Starting:
    """A server that comes up while other places are looked at."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.error: BaseException | None = None
        self.server: servers.Server | None = None
        self.thread = threading.Thread(target=self._up, daemon=True)
        self.thread.start()

    def _up(self) -> None:
        try:
            self.server = servers.SERVERS[self.kind](WORK / self.kind)
            self.server.up()
        except BaseException as error:
            self.error = error

    def get(self) -> servers.Server:
        self.thread.join(180)
        if self.error is not None:
            raise self.error
        if self.thread.is_alive() or self.server is None:
            raise CommandFailed(f"{self.kind}: the server is not up after 180 s")
        return self.server


class Run:
    def __init__(self, checks: Checks, *, full: bool) -> None:
        self.checks, self.full = checks, full
        self.hold_s = 5.0 if full else 1.2
        self.starting: dict[str, Starting] = {}
        self.crowded = {"sshfs", "gluster"}

    def start(self, kind: str) -> None:
        lacking = servers.SERVERS[kind].lacking()
        if lacking:
            self.checks.skip(f"{kind}: {lacking}")
        else:
            self.starting[kind] = Starting(kind)

    @contextlib.contextmanager
    def place(self, name: str, *, impatient: bool = False) -> Iterator[Place]:
        if name in places.LOCAL:
            with places.local(name) as place:
                yield place
            return
        host = Host(f"{name} client")
        rescue = threading.Timer(STORY_S, host.kill)
        rescue.daemon = True
        rescue.start()
        try:
            with places.network(self.starting[name].get(), host, impatient=impatient) as place:
                yield place
        finally:
            rescue.cancel()
            left = host.end()
            self.checks.check(not left, f"{name}: no process is left on the host", left)

    def one(self, name: str) -> None:
        """Each story in a place of its own: what it leaves in a call goes with its host or its disk, and spoils nothing of the next."""
        ways: list[Way] = []
        for engine in ENGINES if self.full else SHORT.get(name, ENGINES[:1]):
            with self.checks.story(f"{name}, {engine}: acceptance"), self.place(name) as place:
                ways = place.ways
                self.checks.fact(name, "version", place.version)
                acceptance(self.checks, place, engine)
                if place.host:
                    shutil.rmtree(place.outside)  # their servers are small
        if name in servers.SERVERS and not ways:
            return  # it could not be mounted, which has been said
        # In the short form each way once, the engines in turn; a network is cut here, and drops its packets there.
        numbers = list(range(len(ways)))
        if name in servers.SERVERS and not self.full:
            numbers = [0, 1 if name == "sshfs" else 2]
        for turn, number in enumerate(numbers):
            for engine in ENGINES if self.full else (ENGINES[turn % 2],):
                with self.checks.story(f"{name}, {engine}: {ways[number].name}"), self.place(name) as place:
                    hang(self.checks, place, engine, place.ways[number], self.hold_s)
        for number, way in enumerate(ways if self.full else ways[:1]):
            for engine in ENGINES if self.full else (ENGINES[(number + 1) % 2],):
                if way.loads:
                    with self.checks.story(f"{name}, {engine}: leaving, {way.name}"), self.place(name) as place:
                        leaving(self.checks, place, engine, place.ways[number])
        if name in servers.SERVERS and self.full:
            for engine in ENGINES:
                with self.checks.story(f"{name}, {engine}: given up"), self.place(name, impatient=True) as place:
                    hang(self.checks, place, engine, place.ways[0], self.hold_s)

    def planted(self) -> None:
        with self.checks.story("planted"), self.place("ext4") as place:
            with self.checks.planted("a sidecar that skips the checksum", "a flipped bit in a payload is found") as inner:
                checksums_skipped(inner, place)
            with self.checks.planted("a hang that is not healed", "healed: loads hit again") as inner:
                not_healed(inner, place, place.ways[0])
        with self.checks.planted("sidecars that skip the checksum, in a crowd", "never torn or another key's") as inner:
            crowd.vandalised(inner)
        with self.checks.planted("stores that are answered and not done, in a crowd", "by the ledger no answer is wrong") as inner:
            crowd.forgetful(inner)

    def part(self, name: str) -> None:
        rest: dict[str, Callable[[], None]] = {"crowd": lambda: crowd.crowds(self), "planted": self.planted, "killed": lambda: killed(self.checks)}
        if name in rest:
            rest[name]()
        elif name not in servers.SERVERS or name in self.starting:
            self.one(name)

    def end(self) -> None:
        for kind, one in self.starting.items():
            with self.checks.story(f"{kind}: its server ends"):
                left = one.server.host.end() if one.server else []
                self.checks.check(not left, f"{kind}: no process is left on the server", left)


def main() -> int:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *ALL], default=[])
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    names = options.names or (ALL if options.full else CI)
    checks = Checks()
    run = Run(checks, full=options.full)
    took: dict[str, float] = {}
    with checks.story("the network"):
        hosts.make_switch()
        for kind in servers.SERVERS:
            if kind in names or (kind in run.crowded and "crowd" in names):
                run.start(kind)
        refused = ", ".join(f"{kind} {said}" for kind, said in places.what_kernel_refuses().items())
        checks.say(f"the kernel's own network file systems, as mount(2) answers: {refused}")
    for name in names:
        began = time.monotonic()
        with checks.story(name):  # whatever happens in one place, the others have their turn
            run.part(name)
        took[name] = time.monotonic() - began
    run.end()
    print(f"took {time.monotonic() - checks.began:.0f} s: {', '.join(f'{name} {seconds:.0f}' for name, seconds in took.items())}")
    return checks.finish()


if __name__ == "__main__":
    sys.exit(main())
