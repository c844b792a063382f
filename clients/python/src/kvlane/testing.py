"""A sidecar that does what the test tells it: die, go mute, lie, repeat itself, answer late or out of order.

    with FakeSidecar() as fake, Client(fake.options(mounts={"kv0": "/anywhere"})) as kv:
        task = kv.lookup(["llama/00"])
        request = fake.expect("lookup")            # blocks until it was asked; bounded
        fake.answer(request, present=[True], prefix=1, complete=True)
        assert kv.wait(task).prefix == 1

It is a real process over real pipes, so that death, SIGSTOP and full pipes are the kernel's own. `FakeSidecar(handler)`
answers by itself: the handler gets each request and returns the answer's fields, or None to stay silent. `MemoryStore` is
such a handler that keeps blocks in memory, for tests of code that only wants a cache that works.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import _messages as wire
from ._clock import now_us
from .options import Options

WAIT_S = 5.0
"""Every wait of a test is bounded by this."""

Handler = Callable[["FakeSidecar", Mapping[str, Any]], "Mapping[str, Any] | None"]


class FakeSidecar:
    """The test's end. One object serves all lives of one client; the latest life is the one that is talked to."""

    def __init__(self, handler: Handler | None = None, *, ready: Mapping[str, Any] | None = None, auto: bool = True) -> None:
        """`ready` overrides fields of the ready event. `auto` False: not even `ready` is said by itself."""
        self.handler = handler
        self.ready_fields = dict(ready or {})
        self.auto = auto
        self.mute = False  # True: pings stay unanswered too
        self.pid = 0
        self.argv: list[str] = []
        self.environment: dict[str, str] = {}
        self.cwd = ""
        self.lives: list[int] = []
        self._pidfds: dict[int, int] = {}
        self._directory = tempfile.TemporaryDirectory(prefix="kvlane-fake-")
        self._path = os.path.join(self._directory.name, "control")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self._path)
        self._listener.listen(8)
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._aside: list[dict[str, Any]] = []
        self._born: queue.Queue[int] = queue.Queue()
        self._ended: queue.Queue[int] = queue.Queue()
        self._eof: queue.Queue[int] = queue.Queue()
        self._control: socket.socket | None = None
        self._send_lock = threading.Lock()
        threading.Thread(target=self._serve, name="kvlane-fake", daemon=True).start()

    def __enter__(self) -> FakeSidecar:
        return self

    def __exit__(self, *_: object) -> None:
        for pidfd in self._pidfds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._pidfds.clear()
        self._listener.close()
        self._directory.cleanup()

    def options(self, **fields: Any) -> Options:
        """Options that start this fake; small and quick unless said otherwise."""
        command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_relay.py")), self._path]
        defaults: dict[str, Any] = {
            "mounts": {"kv0": "/nowhere"},
            "slot_bytes": 4096,
            "slots": 16,
            "timeout_ms": 1000,
            "huge_pages": "off",
        }
        return Options(**{**defaults, "command": command, **fields})

    # --- the script ----------------------------------------------------------------------------------------------

    def expect(self, op: str) -> dict[str, Any]:
        """The next request of this kind; others wait for their own expect."""
        for index, request in enumerate(self._aside):
            if request["op"] == op:
                return self._aside.pop(index)
        while True:
            try:
                request = self._requests.get(timeout=WAIT_S)
            except queue.Empty:
                raise AssertionError(f"no {op} was asked within {WAIT_S} s; waiting: {self._aside}") from None
            if request["op"] == op:
                return request
            self._aside.append(request)

    def answer(self, request: Mapping[str, Any], **fields: Any) -> None:
        """`ok` is true unless said otherwise. For a load or store without failures, `done` is filled in."""
        answer = {"id": request["id"], "ok": True, **fields}
        if request["op"] in ("load", "store", "remove") and "error" not in answer:
            answer.setdefault("done", len(request["keys"]))
        self.say(answer)

    def fail(self, request: Mapping[str, Any], code: str, *, slot: str = "free", blocks: list[int] | None = None) -> None:
        """Fails these blocks, or all."""
        failed = range(len(request["keys"])) if blocks is None else blocks
        entries = [{"block": block, "code": code, "phase": "read", "waited_ms": 1, "slot": slot} for block in failed]
        self.answer(request, ok=False, done=len(request["keys"]) - len(entries), failed=entries)

    def say(self, message: Mapping[str, Any] | str) -> None:
        self.order(say=message if isinstance(message, str) else json.dumps(message))

    def order(self, **order: Any) -> None:
        """Any order of `_relay.py`: raw, log, exit, deaf, close, ignore_term."""
        control = self._control
        assert control is not None, "the fake has not been started"
        with self._send_lock:
            control.sendall(json.dumps(order).encode() + b"\n")

    def signal(self, number: int, pid: int | None = None) -> None:
        """To the latest life, or another one. Through a pidfd: a pid may have a new owner by now."""
        signal.pidfd_send_signal(self._pidfds[self.pid if pid is None else pid], number)

    def wait_born(self) -> int:
        """The pid of the next life, once it runs."""
        return self._born.get(timeout=WAIT_S)

    def wait_eof(self) -> int:
        """Until a life sees the end of its stdin."""
        return self._eof.get(timeout=WAIT_S)

    def wait_ended(self) -> int:
        """Until the kernel says that a life is gone."""
        return self._ended.get(timeout=WAIT_S)

    def write(self, slot: int, data: bytes) -> None:
        """Puts bytes into a slot as a sidecar's lane would, whether the client likes it or not."""
        path = f"/proc/{self.pid}/fd/{self.arena_fd}"
        # Mapped, because hugetlb takes no write(2).
        with open(path, "r+b", buffering=0) as arena, mmap.mmap(arena.fileno(), 0) as memory:
            memory[slot * self.slot_bytes : slot * self.slot_bytes + len(data)] = data

    def read(self, slot: int, length: int) -> bytes:
        with open(f"/proc/{self.pid}/fd/{self.arena_fd}", "rb", buffering=0) as arena:
            return os.pread(arena.fileno(), length, slot * self.slot_bytes)

    def option(self, name: str) -> str:
        return self.argv[self.argv.index(name) + 1]

    @property
    def arena_fd(self) -> int:
        return int(self.option("--arena-fd"))

    @property
    def slot_bytes(self) -> int:
        return int(self.option("--slot-bytes"))

    # --- behind it -----------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                control, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(control,), name="kvlane-fake-life", daemon=True).start()

    def _talk(self, control: socket.socket) -> None:
        pid = 0
        try:
            with control, control.makefile("rb") as lines:
                hello = json.loads(lines.readline())["hello"]
                pid = hello["pid"]
                self.pid, self.argv, self.environment, self.cwd = pid, hello["argv"], hello["environment"], hello["cwd"]
                self._control = control
                self.lives.append(pid)
                self._pidfds[pid] = os.pidfd_open(pid)
                if self.auto:
                    self.say_ready()
                self._born.put(pid)
                for line in lines:
                    self._heard(json.loads(line), pid)
        except (OSError, ValueError):
            pass
        finally:
            self._ended.put(pid)

    def _heard(self, said: Mapping[str, Any], pid: int) -> None:
        if "eof" in said:
            self._eof.put(pid)
            if self.auto and not self.mute:
                self.order(exit=0)
            return
        request = json.loads(said["heard"])
        if self.auto and request["op"] == "ping":
            if not self.mute:
                self.answer(request, now_us=now_us())
            return
        if self.auto and request["op"] == "shutdown" and not self.mute:
            self.answer(request)
            self.order(exit=0)
            return
        if self.handler is not None:
            answer = self.handler(self, request)
            if answer is not None:
                self.answer(request, **answer)
            return
        self._requests.put(request)

    def say_ready(self) -> None:
        path = f"/proc/{self.pid}/fd/{self.arena_fd}"
        size, page_bytes = os.stat(path).st_size, os.statvfs(path).f_bsize
        mounts = [argument for i, argument in enumerate(self.argv) if self.argv[i - 1] == "--mount"]
        ready: dict[str, Any] = {
            "event": "ready",
            "protocol": wire.PROTOCOL,
            "version": wire.VERSION,
            "pid": self.pid,
            "now_us": now_us(),
            "engine": "fake",
            "timeout_ms": int(self.option("--timeout-ms")),
            "stall_ms": 1000,
            "arena": {
                "owner": "client",
                "path": path,
                "bytes": size,
                "slot_bytes": self.slot_bytes,
                "slots": size // self.slot_bytes,
                "page_bytes": page_bytes,
                "backing": "hugetlb" if page_bytes > mmap.PAGESIZE else "shmem",
                "huge_bytes": size if page_bytes > mmap.PAGESIZE else 0,
            },
            "mounts": [
                {"name": name, "root": root, "device": f"fake:{name}", "state": "unknown"}
                for name, _, root in (mount.partition("=") for mount in mounts)
            ],
            "limits": wire.LIMITS,
        }
        self.say({**ready, **self.ready_fields})


class MemoryStore:
    """A handler that keeps blocks in memory: `FakeSidecar(MemoryStore())`. One flat store, whatever the mount."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}

    def __call__(self, fake: FakeSidecar, request: Mapping[str, Any]) -> Mapping[str, Any] | None:
        op = request["op"]
        prefix = f"{request['namespace']}/" if "namespace" in request else ""
        keys = [prefix + key for key in request.get("keys", ())]
        if op == "lookup":
            present = [key in self.blocks for key in keys]
            return {"present": present, "prefix": (*present, False).index(False), "complete": True}
        if op == "namespace":
            name = request["name"]
            fingerprint = request["fingerprint"]
            return {"state": "created", "name": name, "generation": 0, "key_namespace": name, "fingerprint": fingerprint}
        if op in ("store", "load", "remove"):
            return self._blocks(fake, op, keys, request)
        if op == "cancel":
            return {"state": "already_settled"}
        return {"stats": {}, "stuck": [], "help": {}}

    def _blocks(self, fake: FakeSidecar, op: str, keys: list[str], request: Mapping[str, Any]) -> Mapping[str, Any]:
        lengths = request.get("bytes", 0)
        failed: list[dict[str, Any]] = []
        kept = 0
        for block, key in enumerate(keys):
            length = lengths[block] if isinstance(lengths, list) else lengths
            if op == "store":
                if key in self.blocks and request.get("if_exists") != "replace":
                    kept += 1
                else:
                    self.blocks[key] = fake.read(request["slots"][block], length)
            elif key not in self.blocks:
                slot = {"slot": "free"} if op == "load" else {}
                failed.append({"block": block, "code": "NOT_FOUND", "phase": "open", "waited_ms": 0, **slot})
            elif op == "remove":
                del self.blocks[key]
            elif len(self.blocks[key]) != length:
                failed.append({"block": block, "code": "LENGTH_MISMATCH", "phase": "header", "waited_ms": 0, "slot": "free"})
            else:
                fake.write(request["slots"][block], self.blocks[key])
        answer: dict[str, Any] = {"ok": not failed, "done": len(keys) - len(failed)}
        if failed:
            answer["failed"] = failed
        if kept:
            answer["kept"] = kept
        return answer
