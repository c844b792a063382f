"""A run that is killed by SIGKILL while a mount hangs and a sidecar is stuck in it: what is left? Nothing may be.

The run is a small one in namespaces of its own, as `run.sh` makes them, inside these.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from checks import Checks, eventually

RUN = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


def killed(checks: Checks) -> None:
    log = Path("/run/mounts/killed.log")
    with log.open("wb") as out:
        outer = subprocess.Popen([*RUN, "bash", "test/mounts/run.sh", "ext4"], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        inside = first_inside(outer.pid)
        eventually("it hangs a mount", lambda: "── ext4, threads: the disk does not answer" in log.read_text(), 60, 0.05)
        eventually("a sidecar is stuck in it", lambda: stuck(inside), 20, 0.01)
        loops = set(re.findall(r"/dev/loop\d+", Path(f"/proc/{of_namespace(inside)[0]}/mountinfo").read_text()))
        running = len(of_namespace(inside))
        names = {loop: backing(loop) for loop in loops}
        there = loops and all("/kvlane-lab-" in name for name in names.values())
        checks.check(running > 4 and there, "killed: there is something to leave behind", (running, loops))
    finally:
        outer.send_signal(signal.SIGKILL)
        outer.wait(10)
    began = time.monotonic()

    def left() -> list[str]:
        attached = [loop for loop in loops if backing(loop) and backing(loop) == names[loop]]
        return [*attached, *(f"process {pid}" for pid in of_namespace(inside))]

    with contextlib.suppress(TimeoutError):
        eventually("all of it is gone", lambda: not left(), 20, 0.02)
    checks.check(not left(), "killed: neither a process nor a loop device is left", left())
    checks.say(f"   {running} processes and {', '.join(loops)} were gone {time.monotonic() - began:.2f} s after the SIGKILL")


def first_inside(outer: int) -> str:
    """The pid namespace that it made."""
    found: list[str] = []

    def made() -> bool:
        try:
            found[:] = [os.readlink(f"/proc/{outer}/ns/pid_for_children")]
        except OSError:
            return False
        return found[0] != os.readlink("/proc/self/ns/pid")

    eventually("a pid namespace of its own", made, 20)
    return found[0]


def of_namespace(namespace: str) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and os.readlink(f"/proc/{entry}/ns/pid") == namespace:
                found.append(int(entry))
        except OSError:
            continue
    return found


def stuck(namespace: str) -> bool:
    """A thread of it waits in the kernel for a file system that does not answer."""
    for pid in of_namespace(namespace):
        try:
            if "node" in os.readlink(f"/proc/{pid}/exe") and any(state(pid, task) == "D" for task in os.listdir(f"/proc/{pid}/task")):
                return True
        except OSError:
            continue
    return False


def state(pid: int, task: str) -> str:
    return Path(f"/proc/{pid}/task/{task}/stat").read_text().rsplit(")", 1)[1].split()[0]


def backing(loop: str) -> str:
    try:
        return Path(f"/sys/block/{Path(loop).name}/loop/backing_file").read_text()
    except OSError:
        return ""
