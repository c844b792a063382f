"""vLLM's OpenAI-compatible server, one life of it: started, watched until it serves, ended and looked at while it ends."""
from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from model import MAX_LEN

HERE = Path(__file__).resolve().parent
CLIENT = HERE.parents[2] / "clients" / "python" / "src"
READY_S = 400  # three processes import vLLM one after the other: 40 s of two idle cores, minutes of busy ones
BLOCK_TOKENS = 32
STEP_TOKENS = 512  # one step of the engine computes no more; with it the largest gap of a stream stays small


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def usual_priority() -> None:
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # not that of the measuring process


def environment() -> dict[str, str]:
    paths = [str(HERE), str(CLIENT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": ":".join(filter(None, paths)),
        "OMP_NUM_THREADS": str(max(1, min(4, len(os.sched_getaffinity(0)) - 1))),  # a core for the front end and the sidecars
    }


class Server:
    def __init__(self, model: Path, transfer: dict, log: Path) -> None:
        self.port, self.log = free_port(), log
        # What `vllm serve` starts; that command itself asks for a package named vllm, and the CPU build's has another name.
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "tiny",
                   "--host", "127.0.0.1", "--port", str(self.port), "--enforce-eager", "--dtype", "float32",
                   "--max-model-len", str(MAX_LEN), "--max-num-batched-tokens", str(STEP_TOKENS), "--max-num-seqs", "16",
                   "--block-size", str(BLOCK_TOKENS), "--enable-prompt-tokens-details", "--disable-uvicorn-access-log",
                   "--kv-transfer-config", json.dumps(transfer)]
        self.started = time.monotonic()
        with open(log, "ab") as out:
            self.process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                            start_new_session=True, cwd=log.parent, preexec_fn=usual_priority)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self) -> float:
        while time.monotonic() < self.started + READY_S:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.url + "/v1/models", timeout=2):
                    return time.monotonic() - self.started
            except OSError:
                time.sleep(0.25)
        raise RuntimeError(f"the server does not serve; the end of {self.log}:\n" + self.tail())

    def cpu_s(self) -> float:
        """Of all its processes so far."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(int(p.field(11) or 0) + int(p.field(12) or 0) for p in descendants(self.process.pid)) / ticks

    def tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def metrics(self, pattern: str) -> dict[str, float]:
        """Prometheus samples whose name matches; labels of the engine left out, others kept."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=5) as answer:
            text = answer.read().decode()
        # Line by line: one expression over all of it holds the interpreter, and with it what is being measured, for a second.
        found: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#") and re.match(pattern, line):
                series, value = line.rsplit(" ", 1)
                name, _, labels = series.partition("{")
                rest = ",".join(x for x in labels.rstrip("}").split(",") if x and not x.startswith(("engine=", "model_name=")))
                found[name + ("{" + rest + "}" if rest else "")] = float(value)
        return found

    def stop(self, within_s: float) -> dict:
        """SIGTERM, and who is left after within_s. "vllm": processes of the server; "helpers": what they had started (sidecars)."""
        family = descendants(self.process.pid)
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        seconds: float | None = None
        while time.monotonic() < begun + within_s:
            self.process.poll()
            if not [p for p in family if p.alive() and not p.helper]:
                seconds = time.monotonic() - begun
                break
            time.sleep(0.02)
        left = [p for p in family if p.alive()]
        return {"seconds": seconds, "left": [f"{p.name} ({p.state()})" for p in left if not p.helper],
                "helpers_left": [f"{p.name} ({p.state()})" for p in left if p.helper], "family": family}

    def kill(self, family: list[Process] | None = None) -> None:
        """Whatever is left of it, after the device was resumed."""
        family = family or descendants(self.process.pid)
        for p in family:
            p.kill()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            print(f"experiment: server {self.process.pid} does not go away", file=sys.stderr)


class Process:
    """One process by number and birth, so that a number that was given out again is nobody we know."""

    def __init__(self, pid: int, helper: bool) -> None:
        self.pid, self.helper = pid, helper
        self.born = self.field(19)
        try:
            self.name = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            self.name = "?"

    def field(self, n: int) -> str:
        """Counted from the state, which is field 0."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[n]
        except OSError:
            return ""

    def state(self) -> str:
        threads = Path(f"/proc/{self.pid}/task")
        states = []
        try:
            for task in threads.iterdir():
                states.append((task / "stat").read_text().rsplit(")", 1)[1].split()[0])
        except OSError:
            pass
        return "D" if "D" in states else (states or ["gone"])[0]

    def alive(self) -> bool:
        """A zombie whose threads are all gone is dead; one with a thread in the kernel is not."""
        return self.born != "" and self.field(19) == self.born and self.state() not in ("Z", "X", "gone")

    def kill(self) -> None:
        if self.alive():
            try:
                os.kill(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


def descendants(root: int) -> list[Process]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: list[Process] = []
    todo = [(root, False)]
    while todo:
        pid, helper = todo.pop()
        if not helper and pid != root:
            helper = not is_python(pid)
        found.append(Process(pid, helper))
        todo += [(child, helper) for child in children.get(pid, [])]
    return found


def is_python(pid: int) -> bool:
    try:
        return "python" in os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return False
