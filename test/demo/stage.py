"""Where the demo plays: a file system that hangs on command, of the strongest kind that this user may make."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import stall

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    store: Path
    how: str
    warning: str
    real: bool
    hang: Callable[[], None]
    resume: Callable[[], None]
    command: Sequence[str] | None


@contextlib.contextmanager
def open_stage(size_mib: int) -> Iterator[Stage]:
    reason = stall.lab_unavailable()
    if not reason:
        with stall.lab(loop=True, size_mib=size_mib) as lab:
            try:
                yield Stage(
                    store=lab.blk,
                    how="ext4 with direct IO, its device accepts requests and answers none",
                    warning="",
                    real=True,
                    hang=lambda: lab.hang("read,write,fsync"),
                    resume=lab.resume,
                    command=None,
                )
            finally:
                lab.resume()
        return
    # In memory, so that it is another device than the healthy store: mounts of one device are suspended together.
    directory = Path(tempfile.mkdtemp(prefix="kvlane-demo-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    control = directory / "control"
    store = directory / "store"
    store.mkdir()
    gate = [str(ROOT / "test/stall/build/sysgate"), "--control", str(control), "--under", str(store), "--"]

    def ask(line: str) -> None:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(str(control))
            s.sendall(line.encode() + b"\n")
            answer = json.loads(s.makefile().readline())
        if not answer["ok"]:
            raise RuntimeError(f"{line}: {answer}")

    try:
        yield Stage(
            store=store,
            how="its system calls are held by seccomp",
            warning=f"no file system can be made to hang here ({reason}). The sidecar's system calls are held instead: the\n"
            "      deadlines are the same, but late bytes and unkillable threads cannot be shown that way.",
            real=False,
            hang=lambda: ask("hang open,read,write,fsync"),
            resume=lambda: ask("resume"),
            command=[*gate, shutil.which("node") or "node", str(ROOT / "dist/kvlane.cjs"), "serve"],
        )
    finally:
        with contextlib.suppress(OSError):
            ask("resume")
        shutil.rmtree(directory, ignore_errors=True)
