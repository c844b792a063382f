"""A child process that does one arm's work, slice by slice. Lines out, a JSON line back; every wait has a bound.

    fill FROM N                    makes blocks FROM … FROM+N-1                 → {"done":true}
    clean FROM N                   removes them, without the arm's own machinery → {"done":true}
    slice SECONDS MAX FIRST SEED   works SECONDS long, or MAX blocks (0: no bound), new names from FIRST on
                                   → {"units":…,"bytes":…,"seconds":…,"cpu_s":…,"task_us":[…]}
    quit

Its first line says that it is ready, and what it found (page size, versions). {"error":…} ends it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

START_S = 60.0  # an arm makes its memory, and imports what it needs; on two busy cores
FILL_S = 240.0  # a data set through the slowest arm
SPARE_S = 60.0  # a slice beyond its own length: the tasks outstanding at its end, on a slow disk
QUIT_S = 5.0


class ArmFailed(Exception):
    """With the arm's own words."""


class Worker:
    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._buffer = b""
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env) if env is not None else None,
            start_new_session=True,  # a Ctrl-C is ours to handle: in order, children first
        )
        assert self._process.stderr is not None
        os.set_blocking(self._process.stderr.fileno(), False)
        try:
            self.facts = self._answer(START_S)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        self.send(line)
        return self._answer(seconds)

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise ArmFailed(f"it is gone: {self._last_words()}") from None

    def fill(self, first: int, count: int) -> None:
        self.ask(f"fill {first} {count}", FILL_S)

    def clean(self, first: int, count: int) -> None:
        self.ask(f"clean {first} {count}", FILL_S)

    def start_slice(self, seconds: float, blocks_max: int, first: int, seed: int) -> None:
        self.send(f"slice {seconds} {blocks_max} {first} {seed}")

    def end_slice(self, seconds: float) -> dict[str, Any]:
        return self._answer(seconds + SPARE_S)

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        out = self._process.stdout.fileno()
        end = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise ArmFailed(f"no answer in {seconds:.0f} s; {self._last_words()}")
            piece = os.read(out, 1 << 20)
            if not piece:
                raise ArmFailed(f"it ended: {self._last_words()}")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ArmFailed(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        assert self._process.stderr is not None
        said = b""
        end = time.monotonic() + 0.5
        while select.select([self._process.stderr], [], [], max(0.0, end - time.monotonic()))[0]:
            piece = os.read(self._process.stderr.fileno(), 1 << 16)
            if not piece:
                break
            said += piece
        lines = said.decode(errors="replace").strip().splitlines()
        return "; ".join(lines[-3:]) or "it said nothing on stderr"

    def close(self) -> None:
        """Asked first, then killed, by its own pid; never waited for without a bound."""
        process = self._process
        try:
            assert process.stdin is not None
            process.stdin.write(b"quit\n")
            process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass
        for sign in (None, signal.SIGTERM, signal.SIGKILL):
            if sign is not None:
                process.send_signal(sign)
            try:
                process.wait(QUIT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
