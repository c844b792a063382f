"""A real sidecar in a place, asked through the real Python client, and what all stories ask of it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kvlane import Client, Options
from kvlane.options import main_js, node_path

from blocks import payload, whose
from checks import Checks, eventually
from places import Place

NAMESPACE = "mounts@1"
SLOT_BYTES = 256 << 10
ENGINES = ("threads", "aio")
#: A settled task is at most this late: 20 ms of ours, the rest is for two cores that others use as well.
LATE_MS = 400.0
REFUSED_MS = 200.0  # a refusal needs no lane: under 5 ms on a quiet machine


class Stage:
    """Keys are hexes; `size` of a block is told by its version's payload."""

    def __init__(self, checks: Checks, place: Place, engine: str, kv: Client) -> None:
        self.checks, self.place, self.engine, self.kv = checks, place, engine, kv
        self.late_ms = 0.0

    def __str__(self) -> str:
        return f"{self.place.name}, {self.engine}"

    def check(self, good: object, sentence: str, seen: object = None) -> bool:
        return self.checks.check(good, f"{self}: {sentence}", seen)

    # ---- one request, waited for

    def store(self, keys: Sequence[str], version: int = 1, size: int = SLOT_BYTES, *, replace: bool = False, timeout_ms: int = 10_000) -> Any:
        with self.kv.leasing(len(keys), use="store") as slots:
            for slot, key in zip(slots, keys, strict=True):
                slot.view[:size] = payload(key, version, size)
            task = self.kv.store(list(keys), slots, namespace=NAMESPACE, bytes=size, replace=replace, timeout_ms=timeout_ms)
            return self.waited(task, timeout_ms)

    def load(self, keys: Sequence[str], size: int = SLOT_BYTES, *, timeout_ms: int = 10_000) -> tuple[Any, dict[str, Any]]:
        """The result, and for each key its version, "wrong" for bytes that are not a whole block of it, or a code."""
        with self.kv.leasing(len(keys)) as slots:
            for slot in slots:
                slot.view[:size] = bytes(size)
            task = self.kv.load(list(keys), slots, namespace=NAMESPACE, bytes=size, timeout_ms=timeout_ms)
            result = self.waited(task, timeout_ms)
            failed = {failure.block: failure.code for failure in result.failed}
            seen: dict[str, Any] = {}
            for number, key in enumerate(keys):
                if number in failed or (not result.ok and not result.failed):
                    seen[key] = failed.get(number, result.code)
                else:
                    known = whose(key, bytes(slots[number].view[:size]))
                    seen[key] = "wrong" if known is None else known[1]
            return result, seen

    def lookup(self, keys: Sequence[str], timeout_ms: int = 10_000) -> Any:
        return self.waited(self.kv.lookup(list(keys), namespace=NAMESPACE, timeout_ms=timeout_ms), timeout_ms)

    def remove(self, keys: Sequence[str], timeout_ms: int = 10_000) -> Any:
        return self.waited(self.kv.remove(list(keys), namespace=NAMESPACE, timeout_ms=timeout_ms), timeout_ms)

    def waited(self, task: Any, timeout_ms: float, began: float | None = None) -> Any:
        began = time.monotonic() if began is None else began
        result = self.kv.wait(task)
        self.late_ms = max(self.late_ms, (time.monotonic() - began) * 1000 - timeout_ms)
        return result

    # ---- what the sidecar says

    def mount(self) -> dict[str, Any]:
        """Its mount in `stats`, where it stands also what `ready` was too early for."""
        [mount] = self.kv.stats(5000)["mounts"]
        return dict(mount)

    def files(self) -> list[str]:
        """All files of the store; only while nothing is stuck."""
        found = []
        for directory, _, names in os.walk(self.place.outside):
            found += [os.path.relpath(os.path.join(directory, name), self.place.outside) for name in names]
        return sorted(found)

    def out_of_the_cache(self, keys: Sequence[str]) -> None:
        """Some file systems read around O_DIRECT now and then (btrfs, for its checksums); what they kept of a block would be loaded in a
        hang, too."""
        for key in keys:
            fd = os.open(self.block_path(key), os.O_RDONLY)
            os.fsync(fd)  # what is dirty cannot be dropped
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)

    def block_path(self, key: str) -> str:
        [name] = [name for name in self.files() if name.startswith("blocks/") and name.endswith(f"/{key}.kvb")]
        return os.path.join(self.place.outside, name)


@contextlib.contextmanager
def staged(checks: Checks, place: Place, engine: str, *, gone_s: float = 20, **options: Any) -> Iterator[Stage]:
    with client(place, engine, **options) as kv:
        stage = Stage(checks, place, engine, kv)
        pid = kv.pid
        assert pid is not None
        try:
            yield stage
        finally:
            began = time.monotonic()
            kv.close()
            stage.check(time.monotonic() - began < 2, "close() returns within its bound", f"{time.monotonic() - began:.2f} s")
    gone = still_there(pid, gone_s)
    stage.check(not gone, "the sidecar is gone in the end", gone)


def client(place: Place, engine: str, **options: Any) -> Client:
    fields: dict[str, Any] = {"mounts": {"kv0": place.root}, "create": True, "slots": 64, "slot_bytes": SLOT_BYTES, "stall_ms": 300}
    fields |= {"start_timeout_ms": 30_000, "command": place.argv(node_path(), str(main_js()), "serve"), "engine": engine}
    return Client(Options(**(fields | options)))


def still_there(pid: int, seconds: float) -> str:
    """Empty once the process is gone. Only its link is looked at: the rest of a dying process may hang. The link goes with the first
    thread, and with a call in the kernel others may be there still: our child has ended only when it can be waited for."""

    def gone() -> bool:
        try:
            os.readlink(f"/proc/{pid}/exe")
            return False
        except OSError:
            pass
        try:
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # waited for already, or another's child
            return True

    try:
        eventually(f"process {pid} is gone", gone, seconds)
    except TimeoutError as error:
        return str(error)
    return ""


class Witness:
    """A process beside the sidecar that asks the mount for a name that is in no cache, again and again: when it hears an answer, the
    mount is back, whatever the network or the disk took for it."""

    CODE = """
import mmap, os, sys, time
root, n, page = sys.argv[1], 0, mmap.mmap(-1, 4096)
while True:
    n += 1
    try:
        for flags in (os.O_RDONLY | os.O_DIRECT, os.O_RDONLY):
            try:
                fd = os.open(f"{root}/kvlane.json", flags)
                break
            except OSError: fd = -1
        os.preadv(fd, [page], 0)
        os.close(fd)
        if os.path.exists(f"{root}/no-such-{n}"): break
    except OSError: # an answer, but not that of a mount that is well
        time.sleep(0.02)
        continue
    print(time.monotonic(), flush=True)
    time.sleep(0.02)
"""

    def __init__(self, place: Place) -> None:
        command = place.argv(sys.executable, "-c", self.CODE, place.root)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd="/")
        self.last, self.partial = 0.0, b""
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)
        eventually("the witness hears the mount", self.heard, 20)

    def heard(self) -> bool:
        assert self.process.stdout is not None
        while True:
            try:
                piece = os.read(self.process.stdout.fileno(), 65536)
            except BlockingIOError:
                return self.last > 0
            if not piece:
                raise ChildProcessError(f"the witness ended: {self.process.poll()}")
            self.partial += piece
            *lines, self.partial = self.partial.split(b"\n")
            if lines:
                self.last = float(lines[-1])

    def answered_since(self, when: float) -> bool:
        self.heard()
        return self.last > when

    def end(self) -> None:
        self.process.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.5)  # longer only where nobody heals
