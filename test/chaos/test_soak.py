"""The test of the test: each planted fault is found by the soak within its seconds, and a soak that is killed leaves nothing.

`npm test` plants a few, side by side; KVLANE_CHAOS_ALL=1 (`npm run chaos -- --plants`) all, one after the other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import plants

HERE = Path(__file__).resolve().parent
ALL = bool(os.environ.get("KVLANE_CHAOS_ALL"))
PLANTED = list(plants.PLANTS) if ALL else list(plants.IN_SHORT)
BESIDE_S = 60.0
"""Compiling, start and end of one run."""
GONE_S = 10.0

sys.path.insert(0, str(HERE.parent / "stall"))
os.environ["KVLANE_LAB_ANY_NAMESPACE"] = "1"  # run.sh makes a namespace for each
import stall  # noqa: E402

pytestmark = pytest.mark.skipif(bool(stall.why_not()), reason=f"no stall lab: {stall.why_not()}")


def start(*words: str) -> subprocess.Popen[str]:
    command, environment = ["bash", str(HERE / "run.sh"), *words], os.environ | {"KVLANE_CHAOS_BUILT": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True)


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All at once where they are few."""
    started = {} if ALL else {name: start("--plant", name) for name in PLANTED}
    yield started
    for run in started.values():
        run.kill()
        run.communicate()


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(name: str, runs: dict[str, subprocess.Popen[str]]) -> None:
    run = runs.get(name) or start("--plant", name)
    try:
        said, _ = run.communicate(timeout=plants.PLANTS[name].seconds + BESIDE_S)
    finally:
        run.kill()
    assert run.returncode == 0, said[-6000:]
    assert f"'{name}' was found" in said


def descendants(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # it has just ended
                found += map(int, task.read_text().split())
    return found[1:]


def test_a_killed_soak_leaves_no_process_no_mount_and_no_file() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    folders = set(Path(tempfile.gettempdir()).glob("kvlane-chaos-*"))
    run = start("--seconds", "30", "--seed", "1")
    limit = time.monotonic() + BESIDE_S
    while len(living := descendants(run.pid)) < 12:  # labs, clients and sidecars are there
        assert run.poll() is None and time.monotonic() < limit, f"{len(living)} processes"
        time.sleep(0.05)
    time.sleep(1.5)  # in the middle of things
    living = descendants(run.pid)
    pidfds = [os.pidfd_open(pid) for pid in living]
    os.kill(run.pid, signal.SIGKILL)
    run.communicate()
    limit = time.monotonic() + GONE_S
    while left := [pid for pid, fd in zip(living, pidfds, strict=True) if is_there(fd)]:
        assert time.monotonic() < limit, f"{left} are still there {GONE_S} s after SIGKILL"
        time.sleep(0.05)
    for fd in pidfds:
        os.close(fd)
    assert Path("/proc/self/mountinfo").read_text() == before
    assert set(Path(tempfile.gettempdir()).glob("kvlane-chaos-*")) <= folders


def is_there(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return False
    return True
