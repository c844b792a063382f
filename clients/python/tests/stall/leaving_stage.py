"""What the tests of leaving start from: an engine of its own (engine_child.py) whose requests the kernel holds, and a look at what
is left of processes that were to go.

What is promised is less than a second; asserted is what no noise excuses, printed what was seen. Requests have a minute,
so that it is never their deadline that ends something.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import stall
from support import eventually

EXIT_S = 1.0
NOISE_S = 1.5
STEP_S = 20.0
"""The next word of a child, on a noisy machine."""
ENGINES = ("threads", "aio")
CHILD = Path(__file__).with_name("engine_child.py")
STUCK = {
    "stuck reads": ("load", "read", 4),
    "stuck writes": ("store", "write", 4),
    "a stuck open": ("load", "open", 1),
    "a stuck rename": ("store", "rename", 1),
    "100 stuck reads": ("load", "read", 100),
}


@dataclass
class Engine:
    process: subprocess.Popen[bytes]
    said: dict[str, dict[str, Any]]

    def hear(self, step: str, timeout_s: float = STEP_S) -> dict[str, Any]:
        """Its words up to this one."""
        out = self.process.stdout
        assert out is not None
        limit = time.monotonic() + timeout_s
        while step not in self.said:
            readable = select.select([out], [], [], max(0.0, limit - time.monotonic()))[0]
            line = out.readline() if readable else b""
            assert line, f"{step} did not come in {timeout_s} s; said {list(self.said)}; {self.errors()}"
            word = json.loads(line)
            self.said[word["step"]] = word
        return self.said[step]

    def go_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def errors(self) -> str:
        assert self.process.stderr is not None
        os.set_blocking(self.process.stderr.fileno(), False)
        return (self.process.stderr.read() or b"").decode()

    def left_within(self, timeout_s: float) -> bool:
        """Whether it is over by then. Does not reap: the status is for wait()."""
        pidfd = os.pidfd_open(self.process.pid)
        try:
            return bool(select.select([pidfd], [], [], timeout_s)[0])
        finally:
            os.close(pidfd)


@contextlib.contextmanager
def engine(
    root: Path, kind: str, *, wrapper: tuple[str, ...] = (), stuck: str = "stuck reads", **how: Any
) -> Iterator[Engine]:
    op, _, count = STUCK[stuck]
    asked = {
        "client": "sync",
        "close": False,
        "end": "normal",
        "signal": "",
        **how,
        "root": str(root),
        "engine": kind,
        "op": op,
        "count": count,
    }
    process = subprocess.Popen(
        [*wrapper, sys.executable, "-W", "error", str(CHILD), json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd="/",
    )
    guard = threading.Timer(2 * STEP_S, process.kill)
    guard.start()
    try:
        yield Engine(process, {})
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout, process.stderr):
            close(pipe)
        process.wait(STEP_S)
        guard.cancel()


def close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(OSError):
            pipe.close()


def run_until_stuck(lab: stall.Lab, child: Engine, stuck: str) -> list[int]:
    """The engine has asked, and the kernel holds all of it; it ends as soon as it is told to go on. All that is below it."""
    _, held, count = STUCK[stuck]
    child.hear("filled")
    lab.hang(held, match="/case-*/blocks/*")
    child.go_on()
    child.hear("asked")
    lab.wait_stuck(held, count)
    return below(child.process.pid)


def has_memory(task: Path) -> bool:
    """Told by the link to its program. Reading stat, status or cmdline of a task that has any holds that memory for a moment,
    and whoever holds it last waits for the native AIO of the other."""
    try:
        (task / "exe").readlink()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def state_of(task: Path) -> str:
    """As in ps; M of one that still has its memory."""
    return "M" if has_memory(task) else (task / "stat").read_text().rpartition(")")[2].split()[0]


def is_gone(pid: int) -> bool:
    """Reaped, or a zombie without threads, which an init that does not reap leaves."""
    try:
        return state_of(Path(f"/proc/{pid}")) in "ZX" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except (FileNotFoundError, ProcessLookupError):
        return True


def has_left(pid: int) -> bool:
    """It has given its memory back: what is left of it, if anything, is the kernel's doing. A keeper stays as long as the
    corpse of its sidecar."""
    try:
        return not has_memory(Path(f"/proc/{pid}")) or Path(f"/proc/{pid}/comm").read_text() == "kv-keeper\n"
    except (FileNotFoundError, ProcessLookupError):
        return True


def below(pid: int) -> list[int]:
    """Its children and theirs, eldest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in (task / "children").read_text().split():
                found += [int(child), *below(int(child))]
    return found


def family(pid: int) -> list[int]:
    """A sidecar, and with native AIO the process that keeps its address space until the kernel is done with it. To be asked
    while the sidecar lives: its end makes an orphan of that process."""
    return [pid, *below(pid)]


def left_behind(*pids: int) -> str:
    """The states of all their threads, as in "D:4 Z:1"."""
    tasks: list[str] = []
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            tasks += map(state_of, Path(f"/proc/{pid}/task").iterdir())
    return " ".join(f"{state}:{tasks.count(state)}" for state in sorted(set(tasks))) or "nothing"


def resumed_and_gone(lab: stall.Lab, *pids: int) -> None:
    """Nothing is left that could have left: before the resume all but the stuck threads, after it everything."""
    eventually(lambda: all(map(has_left, pids)), f"still alive though nothing holds them: {pids}")
    lab.resume()
    began = time.monotonic()
    eventually(lambda: all(map(is_gone, pids)), f"corpses after the resume: {[left_behind(pid) for pid in pids]}")
    print(f"measured: every corpse gone {(time.monotonic() - began) * 1000:.0f} ms after the resume")
