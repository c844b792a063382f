"""The mounts, and who touches them from outside: an ext4 on a device that hangs (kv0), a FUSE file system that hangs (kv1), a meddler each."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "stall"))
import stall  # noqa: E402

EXT4_MIB, FUSE_MIB = 384, 256
MEDDLER_S = 30.0
MAX_HANG_S = 25.0


class Meddler:
    """Asked, and listened to without waiting: while the mount hangs it does too."""

    def __init__(self, mount_point: Path, files: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "meddle.py"), str(mount_point), str(files)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self.waiting: list[dict[str, Any]] = []
        self._buffer = b""

    def ask(self, **command: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.waiting.append(command)
        self.last = command

    def answers(self, timeout_s: float = 0) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        assert self.process.stdout
        if not self.waiting or not select.select([self.process.stdout], [], [], timeout_s)[0]:
            return []
        piece = os.read(self.process.stdout.fileno(), 1 << 20)
        if not piece:
            raise RuntimeError(f"the meddler has died over {self.waiting[0]}: status {self.process.wait(5)}")
        self._buffer += piece
        *lines, self._buffer = self._buffer.split(b"\n")
        return [(self.waiting.pop(0), json.loads(line)) for line in lines]

    def wait(self, **command: Any) -> dict[str, Any]:
        self.ask(**command)
        limit = time.monotonic() + MEDDLER_S
        while time.monotonic() < limit:
            for asked, answer in self.answers(1):
                if asked is self.last:
                    return answer
        raise RuntimeError(f"the meddler has not answered {self.waiting} within {MEDDLER_S} s although nothing hangs")


class Mount:
    def __init__(self, number: int, *, loop: bool) -> None:
        command = [sys.executable, str(HERE.parent / "stall" / "stall.py"), "up", "--owner", str(os.getpid()), "--life", "100000"]
        command += ["--max-hang", str(MAX_HANG_S), "--size", str(EXT4_MIB if loop else FUSE_MIB)] + ["--loop", "ext4"] * loop
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"no stall lab: {done.stderr.strip()}")
        up = json.loads(done.stdout)
        self.number, self.loop, self.control = number, loop, up["control"]
        self.path = Path(up["blk"] if loop else up["mnt"])
        self.meddler = Meddler(self.path, self.path if loop else Path(up["back"]))

    def ask(self, line: str) -> dict[str, Any]:
        answer = stall.ask(self.control, line)
        if not answer["ok"]:
            raise RuntimeError(f"{line}: {answer.get('error', answer)}")
        return answer

    def root(self, name: str) -> Path:
        return self.path / name

    def make_root(self, name: str) -> None:
        self.root(name).mkdir()

    def down(self) -> list[str]:
        try:
            self.meddler.process.kill()
            self.meddler.process.wait(5)
            return list(stall.ask(self.control, "down").get("left") or [])
        except (FileNotFoundError, ConnectionRefusedError, subprocess.TimeoutExpired) as error:
            return [repr(error)]
