"""A sidecar, or another program that answers a line with a line, without the client around it."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvlane import Options
from kvlane.options import main_js, node_path

LINE_S = 10.0
LEAVE_S = 5.0


def command(root: Path, *options: str) -> list[str]:
    return [node_path(), str(main_js()), "serve", "--mount", f"kv0={root}", "--create", "--arena-mib", "1", *options]


def environment() -> dict[str, str]:
    """The one that the client gives its sidecar."""
    return Options(mounts={"kv0": "/"}).env()


class Program:
    def __init__(self, words: Sequence[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            list(words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, start_new_session=True, cwd="/"
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()

    def ask(self, line: bytes) -> bytes:
        os.write(self._in, line)
        return self.line()

    def line(self) -> bytes:
        """The next one; nothing else is expected to be under way."""
        got = b""
        while not got.endswith(b"\n"):
            if not select.select([self._out], [], [], LINE_S)[0]:
                raise TimeoutError(f"no line in {LINE_S} s; so far {got[:200]!r}")
            piece = os.read(self._out, 1 << 20)
            if not piece:
                raise EOFError(f"it ended after {got[:200]!r}")
            got += piece
        return got

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(LEAVE_S)
        self.process.stdout.close()


@contextlib.contextmanager
def program(words: Sequence[str], env: dict[str, str]) -> Iterator[Program]:
    made = Program(words, env)
    try:
        yield made
    finally:
        made.close()
