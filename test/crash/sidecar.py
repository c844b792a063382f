"""A real sidecar over real pipes, and blocks that say whose they are."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 60.0  # for one answer, on a machine with other things to do
BYTES = 10_000  # header, two whole pages and a part of one
SHORTER = 3_000
Json = dict[str, Any]


def payload(key: str, version: int, length: int = BYTES) -> bytes:
    return hashlib.shake_128(f"{key} {version}".encode()).digest(length)


def version_of(key: str, data: bytes, last: int) -> int | None:
    """None: no bytes that were ever stored under the key."""
    return next((version for version in range(last + 1) if data == payload(key, version, len(data))), None)


class Dead(Exception):
    """Its stdout has ended."""


class Sidecar:
    def __init__(self, roots: list[Path], *options: str, seam: dict[str, str] | None = None) -> None:
        mounts = [word for i, root in enumerate(roots) for word in ("--mount", f"kv{i}={root}")]
        words = [
            "node",
            str(REPOSITORY / "dist/kvlane.cjs"),
            "serve",
            *mounts,
            "--arena-mib",
            "1",
            "--slot-bytes",
            "65536",
            "--huge-pages",
            "off",
            "--timeout-ms",
            "30000",
        ]
        words += ["--stall-ms", "20000", "--lanes", "1", "--test-start-wait-ms", "30000", "--test-hold-breaker-closed", *options]
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), **(seam or {})}
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/", start_new_session=True
        )
        self.rest = b""
        self.number = 0
        self.mounts = self.line()["mounts"]

    def line(self) -> Json:
        assert self.process.stdout is not None
        end = time.monotonic() + WAIT_S
        while b"\n" not in self.rest:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError(f"no line within {WAIT_S} s")
            read = os.read(self.process.stdout.fileno(), 1 << 20)
            if not read:
                raise Dead
            self.rest += read
        line, _, self.rest = self.rest.partition(b"\n")
        found: Json = json.loads(line)
        return found

    def ask(self, **request: Any) -> Json:
        assert self.process.stdin is not None
        self.number += 1
        try:
            os.write(self.process.stdin.fileno(), json.dumps({"id": self.number, **request}).encode() + b"\n")
        except BrokenPipeError:
            raise Dead from None
        while True:
            answer = self.line()
            if answer.get("id") == self.number:
                return answer

    def store(self, key: str, version: int, *, mount: int = 0, replace: bool = False, length: int = BYTES) -> Json:
        block = {"key": key, "base64": base64.b64encode(payload(key, version, length)).decode()}
        return self.ask(op="store", mount=f"kv{mount}", blocks=[block], if_exists="replace" if replace else "keep")

    def remove(self, key: str, *, mount: int = 0) -> Json:
        return self.ask(op="remove", mount=f"kv{mount}", keys=[key])

    def name_space(self, version: int, *, mount: int = 0, bump: bool = False) -> Json:
        return self.ask(op="namespace", mount=f"kv{mount}", name="llama", fingerprint={"model": version}, bump=bump)

    def load(self, key: str, *, mount: int = 0) -> bytes | str:
        """Its bytes, or the code of why not."""
        answer = self.ask(op="load", mount=f"kv{mount}", keys=[key], inline=True)
        if not answer["ok"]:
            return str(answer["failed"][0]["code"] if "failed" in answer else answer["error"]["code"])
        block = answer["blocks"][0]
        return base64.b64decode(block["base64"]) if "base64" in block else str(block["text"]).encode()

    def quiet(self) -> None:
        """Waits until no lane has anything to do: neither what is left of a request after its answer, nor what nobody asked for."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            devices = self.ask(op="stats")["stats"]["devices"]
            if not any(group["queued"] + group["running"] for device in devices for group in device["classes"].values()):
                return
        raise TimeoutError(f"lanes are busy after {WAIT_S} s")

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process.stdout.close()
