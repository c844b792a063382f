"""The stall lab for pytest: real mounts that hang on command. What each stall shows: test/stall/README.md.

Never touch ``mnt`` or ``blk`` in the test's own process while something hangs there: that thread is gone until the
resume. ``back`` is the same directory behind the gates; it never hangs.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

STALL = Path(__file__).resolve().parents[3] / "test" / "stall" / "stall.py"
UP_S = 30.0  # compiling included, on a busy machine
ANSWER_S = 20.0  # the longest command is "down", whose steps are bounded by about 10 s together
POLL_S = 0.003


@functools.cache
def lab_unavailable() -> str:
    """Why there can be no lab here; empty if there can."""
    done = subprocess.run([sys.executable, str(STALL), "why-not"], capture_output=True, text=True, timeout=UP_S, check=False)
    return done.stdout.strip() or (done.stderr.strip() if done.returncode else "")


class Lab:
    """A FUSE mount (``mnt``), and with ``loop`` an ext4 with direct IO on it (``blk``)."""

    def __init__(self, *, loop: bool = False, size_mib: int = 1024) -> None:
        command = [sys.executable, str(STALL), "up", "--owner", str(os.getpid()), "--size", str(size_mib)]
        if loop:
            command += ["--loop", "ext4"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=UP_S, check=False)
        if done.returncode:
            raise RuntimeError(f"no stall lab: {done.stderr.strip()}")
        up: dict[str, Any] = json.loads(done.stdout)
        self.control: str = up["control"]
        self.mnt, self.back = Path(up["mnt"]), Path(up["back"])
        self.blk = Path(up["blk"] or up["mnt"])
        self.daemon_pid: int = up["daemon_pid"]

    def ask(self, line: str) -> dict[str, Any]:
        """Any line of stall.py's commands; an answer that is not ok is an error."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(ANSWER_S)
            s.connect(self.control)
            s.sendall(line.encode() + b"\n")
            with s.makefile(encoding="utf-8") as stream:
                answer: dict[str, Any] = json.loads(stream.readline() or '{"ok": false, "error": "no answer"}')
        if not answer["ok"]:
            raise RuntimeError(f"{line}: {answer.get('error', answer)}")
        return answer

    def hang(self, classes: str, *, match: str = "", count: int = 0, when: Literal["before", "after"] = "before") -> None:
        """Classes: open lookup getattr read write fsync rename mkdir unlink close, joined by commas, or all."""
        words = [f"hang {classes}", f"match={match}" * bool(match), f"count={count}" * bool(count), f"when={when}"]
        self.ask(" ".join(filter(None, words)))

    def resume(self, classes: str = "all", errno_name: str = "") -> None:
        self.ask(f"resume {classes} {errno_name}")

    def rate(self, classes: str, bytes_per_s: int) -> None:
        self.ask(f"rate {classes} {bytes_per_s}")

    def stop(self) -> None:
        """No request is read any more: what a caller writes is still in its own buffer, and is taken at cont()."""
        self.ask("stop")

    def cont(self) -> None:
        self.ask("cont")

    def freeze(self) -> None:
        """Writes and name changes hang, reads go on."""
        self.ask("freeze")

    def thaw(self) -> None:
        self.ask("thaw")

    def wait_stuck(self, what: str, n: int = 1, timeout_s: float = 10.0) -> None:
        """Until n operations of a class hang; "waiting": until the kernel waits for n requests, read or not."""
        end = time.monotonic() + timeout_s
        while True:
            status = self.ask("status")
            now = status["waiting"] if what == "waiting" else status["held"][what]
            if now is not None and now >= n:
                return
            if time.monotonic() > end:
                raise TimeoutError(f"waited {timeout_s} s for {n} stuck in {what}; the lab says {status}")
            time.sleep(POLL_S)

    def down(self) -> None:
        with suppress(FileNotFoundError, ConnectionRefusedError):  # down already
            self.ask("down")


@contextmanager
def lab(*, loop: bool = False, size_mib: int = 1024) -> Iterator[Lab]:
    made = Lab(loop=loop, size_mib=size_mib)
    try:
        yield made
    finally:
        made.down()
