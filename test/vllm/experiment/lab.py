"""The store's device: an ext4 on a loop device that stops answering on command (test/stall). Every arm has its own, new and empty.

Nothing here touches the ext4 while it hangs, but `Probe`, a process nobody needs: a thread inside such a call is gone until the resume.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

STALL_DIR = Path(__file__).resolve().parents[2] / "stall"
STALL = STALL_DIR / "stall.py"
DEAD_DISK = "read,write,fsync"  # what a suspended device does not answer; names in the kernel's cache still answer
LIFE_S = 1200  # of one lab: start of two servers on a busy machine and a hang
UP_S = 60
EVIDENCE_S = 5.0
sys.path.insert(0, str(STALL_DIR))
import stall  # noqa: E402


def why_not() -> str:
    done = subprocess.run([sys.executable, str(STALL), "why-not"], capture_output=True, text=True, timeout=UP_S, check=False)
    return done.stdout.strip() or (done.stderr.strip() if done.returncode else "")


class Lab:
    def __init__(self, *, size_mib: int, max_hang_s: float) -> None:
        """The keeper takes the lab down when this process is gone, and stallfs resumes after max_hang_s whatever happens."""
        command = [sys.executable, str(STALL), "up", "--loop", "ext4", "--owner", str(os.getpid()), "--size", str(size_mib),
                   "--life", str(LIFE_S), "--max-hang", str(max_hang_s)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=UP_S, check=False)
        if done.returncode:
            raise RuntimeError(f"no stall lab: {done.stderr.strip()}")
        up = json.loads(done.stdout)
        self.control, self.device, self.blk = up["control"], up["device"], Path(up["blk"])
        self.root = self.blk / "store"
        self.root.mkdir()
        (self.blk / "probe").write_bytes(b"x" * 4096)

    def ask(self, line: str) -> dict:
        answer = stall.ask(self.control, line)
        if not answer["ok"]:
            raise RuntimeError(f"{line}: {answer.get('error', answer)}")
        return answer

    def hang(self) -> None:
        self.ask(f"hang {DEAD_DISK}")

    def resume(self) -> None:
        self.ask("resume all")

    def held(self) -> dict[str, int]:
        """Requests that the device holds back now, by class."""
        return {k: v for k, v in self.ask("status")["held"].items() if v}

    def evict(self) -> None:
        """No page of the store is left in the page cache: what is read afterwards comes from the device."""
        for path in self.root.rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)

    def files(self) -> tuple[int, int]:
        """Finished files and their bytes. Only while nothing hangs."""
        sizes = [p.stat().st_size for p in self.root.rglob("*") if p.is_file() and p.suffix != ".tmp"]
        return len(sizes), sum(sizes)

    def down(self) -> None:
        try:
            left = stall.ask(self.control, "down").get("left")
            if left:
                print("experiment: the lab left behind:", *left, file=sys.stderr)
        except (FileNotFoundError, ConnectionRefusedError):
            pass


class Probe:
    """The positive evidence: our own reader of the same file system, seen in uninterruptible sleep."""

    def __init__(self, lab: Lab) -> None:
        command = [sys.executable, str(STALL_DIR / "calls.py"), "read", str(lab.blk), "probe"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        self.where = ""

    def state(self) -> str:
        try:
            with open(f"/proc/{self.process.pid}/stat") as f:
                return f.read().rsplit(")", 1)[1].split()[0]
        except OSError:
            return "gone"

    def wait_stuck(self) -> str:
        """"D" as soon as it is there; else the state it was in at the end."""
        end, streak = time.monotonic() + EVIDENCE_S, 0
        while time.monotonic() < end and streak < 5:
            streak = streak + 1 if self.state() == "D" else 0
            time.sleep(0.01)
        try:
            with open(f"/proc/{self.process.pid}/wchan") as f:
                self.where = f.read().strip()
        except OSError:
            pass
        return self.state()

    def returned_within(self, seconds: float) -> bool:
        try:
            return self.process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            return False
