"""The chaos soak: real clients, real sidecars, real mounts that hang, and a model that knows what each answer may be.

    npm run chaos -- [--seconds N] [--seed N] [--engine threads|aio|both] [--plant NAME] [--json FILE]

In rounds: some seconds of faults at random, then everything is resumed, and everything must come back: answers, slots, arenas, descriptors,
threads, memory. Exit status 1 when anything was wrong; then the seed, what was wrong, the faults of that time and the logs are kept.
--plant runs it against a product with a planted fault (plants.py), which it has to find: exit status 0 when it did.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path.insert(0, str(CHECKOUT / "clients/python/src"))

import faults  # noqa: E402
import judge  # noqa: E402
import plants  # noqa: E402
import report  # noqa: E402
from asking import CHANGEABLE_LENGTHS, KEYS, hex_of  # noqa: E402
from model import Change, Model, account  # noqa: E402
from stage import Mount  # noqa: E402

ROOT = "store"
WARM_S = 1.2
ROUND_S = 9.0
PLANTED_ROUND_S = 3.0
QUIET_S = 60.0
LEAVE_S = 10.0
START_S = 40.0
STUCK_MAX = 6
UNHARMED_US = 1_000_000
LOGS_KEPT = 40
"""Of the clients before: what may explain what comes. An hour's are gigabytes."""


def now_us() -> int:
    return time.monotonic_ns() // 1000


class Played:
    """One client process after the other under one name."""

    def __init__(self, soak: Soak, name: str, kind: str, engine: str, *, expendable: bool, arguments: list[str]) -> None:
        self.soak, self.name, self.kind, self.engine, self.expendable, self.arguments = soak, name, kind, engine, expendable, arguments
        self.sidecar = self.pid = self.offset = 0
        self.sidecars: dict[int, int] = {}  # by life
        self.harmed_us = self.stopped_us = self.born_us = 0
        self.quiet: dict[str, Any] | None = None
        self.ready = self.left = False
        self.process: subprocess.Popen[bytes] | None = None
        self.old: list[subprocess.Popen[bytes]] = []
        self.respawn()

    def respawn(self) -> None:
        soak = self.soak
        soak.read(self)
        if self.process is not None:
            assert self.process.stdin
            self.process.stdin.close()
            self.old = [process for process in (*self.old, self.process) if process.poll() is None]
        self.incarnation = soak.next_incarnation()
        self.log = soak.directory / f"{self.name}-{self.incarnation}.log"
        soak.logs.append(self.log)
        self.who = f"{self.name}-{self.incarnation}"
        self.offset = self.sidecar = 0
        self.sidecars = {}
        self.born_us = now_us()
        self.ready = self.left = False
        self.quiet = None
        setup = {
            "name": self.who, "kind": self.kind, "engine": self.engine, "log": str(self.log), "seed": soak.random.getrandbits(32), "incarnation": self.incarnation,
            "roots": [str(mount.root(ROOT)) for mount in soak.mounts], "stuck_max": STUCK_MAX, "arguments": self.arguments, **soak.planted,
        }  # fmt: skip
        setup["environment"] = {"LD_PRELOAD": str(soak.shim), "KVLANE_CHAOS_CLOCK": str(soak.clock), **soak.planted["environment"]}
        environment = os.environ | {"PYTHONPATH": str(CHECKOUT / "clients/python/src"), "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.log.with_suffix(".err"), "wb") as errors:
            command = [sys.executable, "-W", "error", str(HERE / "worker.py"), json.dumps(setup)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, bufsize=0, env=environment, cwd="/")
        self.pid = self.process.pid
        soak.counts["clients started"] += 1
        if soak.playing:
            self.tell("go")

    def tell(self, command: str) -> None:
        assert self.process and self.process.stdin
        with contextlib.suppress(OSError):  # its death is seen otherwise
            self.process.stdin.write(command.encode() + b"\n")


class Soak:
    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options, self.directory = options, directory
        self.random = random.Random(options.seed)
        self.model = Model(CHANGEABLE_LENGTHS, full_says_eio=frozenset({1}))
        self.begun: dict[tuple[str, int], list[Change]] = {}
        self.incarnations = 0
        self.playing = False
        self.counts: Counter[str] = Counter()
        self.found: list[judge.Violation] = []
        self.figures = judge.Figures()
        self.clock, self.shim = directory / "clock", HERE / "build/shift_clock.so"
        self.plant = plants.PLANTS[options.plant] if options.plant else None
        self.planted = plants.prepare(options.plant)
        self.mounts: list[Mount] = []
        self.clients: list[Played] = []
        self.logs: list[Path] = []
        self.over_us: dict[str, list[int]] = {}  # at their deadline, nobody had done anything to client or sidecar; without what the client was late

    def next_incarnation(self) -> int:
        self.incarnations += 1
        return self.incarnations

    def violation(self, kind: str, text: str, at_us: int | None = None) -> None:
        self.found.append(judge.Violation(kind, text, at_us or now_us()))

    # --- what the clients say ----------------------------------------------------------------------------------------

    def read(self, client: Played) -> None:
        if client.process is None:
            return
        try:
            with open(client.log, "rb") as file:
                file.seek(client.offset)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        client.offset += len(whole) + (1 if whole else 0)
        for line in whole.splitlines():
            self._heard(client, json.loads(line))

    def _heard(self, client: Played, record: dict[str, Any]) -> None:
        kind = record["t"]
        if kind in ("begin", "end"):
            account(self.model, record, self.begun)
            if kind == "end" and record["deadline"] - client.harmed_us > UNHARMED_US and any(block[0] == "DEADLINE_EXCEEDED" for block in record["blocks"]):
                over_us = record["end"] - record["deadline"]
                self.figures.unharmed_us.append(over_us)
                self.over_us.setdefault(client.who, []).append(max(0, over_us - record["own"]))
            self.counts["records"] += 1
        elif kind == "violation":
            self.violation(record["kind"], f"{record['who']}: {record['text']}", record["at"])
        elif kind == "sidecar":
            client.sidecar = client.sidecars[record["life"]] = record["pid"]
            self.counts["sidecars"] += 1
        elif kind == "ended":
            judge.ended(self, record)
        elif kind == "death":
            self.counts["sidecar deaths"] += 1
            client.sidecar = 0
            judge.death(self, client, record)
        elif kind == "quiet":
            client.quiet = record
        elif kind == "ready":
            client.ready = True
        elif kind == "left":
            client.left = True

    def listen(self) -> None:
        for client in self.clients:
            self.read(client)
            if client.process and client.process.poll() is not None and not client.left and not client.expendable:
                self.violation("client died", f"{client.who}: status {client.process.returncode}: {tail(client.log.with_suffix('.err'))}")
                client.respawn()

    def wait(self, what: str, true: Any, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        while not all(true(client) for client in self.clients):
            self.listen()
            if time.monotonic() > limit:
                late = [client.who for client in self.clients if not true(client)]
                self.violation("a client does not answer", f"{late} not {what} within {seconds} s")
                return False
            time.sleep(0.005)
        return True

    # --- the course of things ----------------------------------------------------------------------------------------

    def start(self) -> None:
        self.mounts = [Mount(0, loop=True), Mount(1, loop=False)]
        for mount in self.mounts:
            mount.make_root(ROOT)
        self.faults = faults.Faults(self.options.seed, self.model, self.mounts, ROOT, self.clock, KEYS, hex_of)
        if self.plant:
            self.faults.weights = self.plant.weights
        one, other = {"both": ("threads", "aio")}.get(self.options.engine, (self.options.engine,) * 2)
        plan = [("sync", "sync", one, False, []), ("async", "async", other, False, []), ("wild", "sync", one, True, ["--test-hold-breaker-closed"])]
        if self.plant:
            closed = [] if self.plant.breaker else ["--test-hold-breaker-closed"]
            plan = [(name, kind, engine, False, closed) for name, kind, engine, _, _ in plan[:2]]
        for name, kind, engine, expendable, arguments in plan:
            self.clients.append(Played(self, name, kind, engine, expendable=expendable, arguments=arguments))
        self.wait("ready", lambda client: client.ready, START_S)

    def play(self, seconds: float, *, calm: bool) -> None:
        self.playing = True
        for client in self.clients:
            client.tell("go")
        end, next_s = time.monotonic() + seconds, time.monotonic() + 0.2
        while time.monotonic() < end:
            self.listen()
            self.faults.tick()
            if not calm and time.monotonic() > next_s:
                self.faults.one(list(self.clients))
                next_s = time.monotonic() + self.random.choice((0.03, 0.1, 0.2, 0.4))
            time.sleep(0.004)

    def quiet(self) -> None:
        """The end of a round. What is not back then will not come back."""
        self.playing = False
        self.faults.end_all()
        for client in self.clients:
            client.quiet = None
            client.tell("quiet")
        self.wait("quiet", lambda client: client.quiet is not None, QUIET_S)
        for at_us, text in self.model.judge():
            kind, _, about = text.partition(": ")
            self.violation(kind, about, at_us)
        for client in self.clients:
            if client.quiet is not None:
                judge.quiet(self, client, client.quiet)
        judge.left_behind(self)
        self.model.settled(now_us())
        self.model.forget_before(now_us() - 60_000_000)

    def change_over(self) -> None:
        """New processes, and the engines change places."""
        engines = [client.engine for client in self.clients]
        self.leave()
        for client, engine in zip(self.clients, engines[1:] + engines[:1], strict=True):
            client.engine = engine
            client.respawn()
        self.wait("ready", lambda client: client.ready, START_S)
        if not self.found:
            for log in self.logs[:-LOGS_KEPT]:
                log.unlink(missing_ok=True)
                log.with_suffix(".err").unlink(missing_ok=True)
            del self.logs[:-LOGS_KEPT]

    def leave(self) -> None:
        for client in self.clients:
            client.tell("end")
        self.wait("left", lambda client: client.left, LEAVE_S)
        for client in self.clients:
            assert client.process
            client.process.kill()
            client.process.wait(5)

    def has_found_plant(self) -> bool:
        return self.plant is not None and any(violation.kind in self.plant.found_as for violation in self.found)

    def run(self) -> None:
        begun = time.monotonic()
        self.start()
        rounds = 0
        try:
            self.play(WARM_S, calm=True)
            self.quiet()
            self.figures.begin(self.clients)
            while (left := self.options.seconds - (time.monotonic() - begun)) > 2 and not self.has_found_plant():
                rounds += 1
                self.play(min(PLANTED_ROUND_S if self.plant else ROUND_S, max(1.5, left - 2)), calm=False)
                self.quiet()
                if rounds % 2 == 0 and not self.plant and self.options.seconds - (time.monotonic() - begun) > 6:
                    self.change_over()
            self.leave()
            judge.enough(self)
        finally:
            self.figures.seconds, self.figures.rounds = time.monotonic() - begun, rounds
            for client in self.clients:
                for process in [*client.old, *([client.process] if client.process else [])]:
                    process.kill()
            for mount in self.mounts:
                left_over = mount.down()
                if left_over:
                    self.violation("left behind", f"the lab of kv{mount.number}: {left_over}")
        judge.processes(self)


def tail(path: Path) -> str:
    return path.read_text(errors="replace")[-1500:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="npm run chaos --", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, help="default: 60, or what a planted fault is given")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--engine", choices=["threads", "aio", "both"], default="both")
    parser.add_argument("--plant", choices=sorted(plants.PLANTS), help="a planted fault, which has to be found")
    parser.add_argument("--json", type=Path, help="where the figures go as JSON")
    parser.add_argument("--keep", type=Path, help="where the logs go (default, when something was wrong: a folder in the temporary directory)")
    options = parser.parse_args()
    if options.seconds is None:
        options.seconds = plants.PLANTS[options.plant].seconds if options.plant else 60.0
    options.seed = int.from_bytes(os.urandom(4), "little") if options.seed is None else options.seed
    print(f"chaos: seed {options.seed}, {options.seconds:.0f} s, engine {options.engine}{', planted: ' + options.plant if options.plant else ''}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="kvlane-chaos-"))
    soak = Soak(options, directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        soak.run()
    except Exception as error:
        import traceback

        traceback.print_exc()
        soak.violation("the soak failed", repr(error))
    status = report.tell(soak, options)
    shutil.rmtree(directory, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
