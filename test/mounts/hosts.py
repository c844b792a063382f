"""Hosts: a process that holds a network and a mount namespace, at a switch that is this process's own network namespace.

Nothing here has a name outside: namespaces live as long as their holders, which end with this process's pid namespace, so there is
nothing to remove. A cable is cut at the switch (`ip link set down`); `drop` makes a host lose every packet without a sign.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Sequence

SWITCH = "switch0"
NET = "10.77.0"
COMMAND_S = 20.0


class CommandFailed(Exception):
    """Says what was run and what it said."""


def run(*command: str, seconds: float = COMMAND_S, stdin: str | None = None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, input=stdin or "")
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{' '.join(command)}: not done within {seconds} s") from None
    if done.returncode:
        raise CommandFailed(f"{' '.join(command)}: exit status {done.returncode}: {(done.stderr + done.stdout).strip()[-600:]}")
    return done.stdout


def make_switch() -> None:
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", SWITCH, "type", "bridge")
    run("ip", "link", "set", SWITCH, "up")


class Host:
    _numbers = itertools.count(1)  # servers are made by several threads

    def __init__(self, name: str) -> None:
        number = next(Host._numbers)
        self.name = name
        self.cable = f"h{number}"
        self.address = f"{NET}.{number}"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", "echo up; exec sleep infinity"],
            stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        assert self.holder.stdout is not None
        if self.holder.stdout.readline() != b"up\n":
            raise CommandFailed(f"{name}: no namespaces: exit status {self.holder.wait()}")
        pid = str(self.holder.pid)
        run("ip", "link", "add", self.cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", self.cable, "master", SWITCH, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        self.stopped: list[int] = []
        self.started: list[subprocess.Popen[bytes]] = []

    def argv(self, *command: str) -> list[str]:
        """The command as this host runs it: nsenter becomes it, so the process id is its own."""
        return ["nsenter", f"--target={self.holder.pid}", "--mount", "--net", "--", *command]

    def run(self, *command: str, seconds: float = COMMAND_S, stdin: str | None = None) -> str:
        return run(*self.argv(*command), seconds=seconds, stdin=stdin)

    def start(self, command: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        with open(log, "ab") as out:
            self.started.append(subprocess.Popen(self.argv(*command), stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd="/"))
            return self.started[-1]

    def path(self, path: str) -> str:
        """A path of this host, from outside. Never for what may be stuck."""
        return f"/proc/{self.holder.pid}/root{path}"

    # ---- the cable

    def cut(self) -> None:
        run("ip", "link", "set", self.cable, "down")

    def mend(self) -> None:
        run("ip", "link", "set", self.cable, "up")

    def drop(self) -> None:
        rules = "".join(f"add chain inet cut {hook} {{ type filter hook {hook} priority 0; policy drop; }}\n" for hook in ("input", "output"))
        self.run("nft", "-f", "-", stdin="add table inet cut\n" + rules)

    def undrop(self) -> None:
        self.run("nft", "delete", "table", "inet", "cut")

    # ---- its processes

    def processes(self) -> list[int]:
        """All that are in its network namespace, but the holder."""
        mine = os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.holder.pid:
                continue
            try:
                if os.stat(f"/proc/{entry}/ns/net").st_ino == mine:
                    found.append(int(entry))
            except OSError:  # gone meanwhile
                continue
        return found

    def stop(self) -> None:
        """SIGSTOP, until nothing is left that runs: a server may make processes meanwhile."""
        for _ in range(10):
            fresh = [pid for pid in self.processes() if pid not in self.stopped]
            if not fresh:
                return
            for pid in fresh:
                _send(pid, signal.SIGSTOP)
            self.stopped += fresh

    def cont(self) -> None:
        for pid in self.stopped:
            _send(pid, signal.SIGCONT)
        self.stopped = []

    def kill(self) -> list[int]:
        """All its processes, file systems in user space among them: calls into those return. Says what would not die within its bound."""
        end = time.monotonic() + 10
        left = self.processes()
        while left and time.monotonic() < end:
            for pid in left:
                _send(pid, signal.SIGKILL)
            time.sleep(0.02)
            left = self.processes()
        return left

    def end(self) -> list[int]:
        left = self.kill()
        for one in self.started:
            one.wait(5)
        self.holder.kill()
        self.holder.wait(5)
        if self.holder.stdout is not None:
            self.holder.stdout.close()
        return left


def _send(pid: int, what: signal.Signals) -> None:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return
