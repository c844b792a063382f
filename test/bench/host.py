"""The machine: what it is, what it was doing, and the one setting that a run changes and puts back (huge pages in reserve)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlane import _json

HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
HUGE_PAGES_FREE = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
HUGE_MIB = 2
MEMORY_KEPT_MIB = 4096  # what a reservation leaves to everybody else


def read(path: str | Path) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def said_by(*command: str) -> str:
    """The first line of what a command says, or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{command[0]}: {error}"
    return ((done.stdout or done.stderr).strip().splitlines() or [""])[0]


def memory_mib(name: str) -> int:
    for line in read("/proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) // 1024
    return 0


@contextlib.contextmanager
def huge_pages(wanted_mib: int) -> Iterator[str]:
    """Reserves huge pages for as long as the run lasts; yields "huge", or why it will be 4 KiB pages for everybody."""
    before = read(HUGE_PAGES)
    pages = wanted_mib // HUGE_MIB
    missing = pages - int(read(HUGE_PAGES_FREE) or 0)  # others may have theirs
    try:
        if missing <= 0:
            yield "huge"
            return
        if memory_mib("MemAvailable") < missing * HUGE_MIB + MEMORY_KEPT_MIB:
            yield f"4k: {missing * HUGE_MIB} MiB of huge pages would leave too little of {memory_mib('MemAvailable')} MiB"
            return
        try:
            HUGE_PAGES.write_text(str(int(before or 0) + missing))
        except OSError as error:
            yield f"4k: {HUGE_PAGES} cannot be written: {error.strerror}"
            return
        got = int(read(HUGE_PAGES_FREE) or 0)
        yield "huge" if got >= pages else f"4k: of {pages} huge pages the kernel found {got}"
    finally:
        if read(HUGE_PAGES) != before:
            HUGE_PAGES.write_text(before)


def cpu_model() -> str:
    for line in read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


# What is measured, what measures it, and what both are built by; and of that what changes no figure.
MEASURED = (
    "sidecar",
    "native",
    "protocol",
    "clients/python/src",
    "clients/python/tests/stall.py",
    "package.json",
    "package-lock.json",
    "test/bench",
    "test/stall",
    "test/vllm",
)
NOT_MEASURED = (
    *("*.md", "*.test.ts", "native/core/test", "native/fuzz", "protocol/golden", "test/bench/test_*"),
    *(f"test/bench/{name}.py" for name in ("report", "page", "goals", "why")),
)


def commit(checkout: Path) -> str:
    git = ["git", "-C", str(checkout)]
    changes = subprocess.run([*git, "diff", "HEAD", "--", ".", ":!test/bench/RESULTS.md"], capture_output=True, timeout=20, check=False).stdout
    changed = f", with changes {hashlib.sha256(changes).hexdigest()[:8]}" if changes else ""
    return said_by(*git, "rev-parse", "--short=10", "HEAD") + changed


def source(checkout: Path) -> str:
    """Of every file that decides what a run finds, committed or not. Empty if git cannot say which they are: then no run goes on."""
    git = ["git", "-C", str(checkout), "ls-files", "-z", "-co", "--exclude-standard", "--", *MEASURED, *(f":!{path}" for path in NOT_MEASURED)]
    listed = subprocess.run(git, capture_output=True, timeout=20, check=False).stdout
    found = hashlib.sha256()
    for name in sorted(set(listed.split(b"\0")) - {b""}):
        path = checkout / os.fsdecode(name)
        found.update(name + b"\0" + (path.read_bytes() if path.is_file() else b"") + b"\0")
    return found.hexdigest()[:10] if listed else ""


def conditions(checkout: Path) -> dict[str, Any]:
    package = json.loads(read(checkout / "package.json") or "{}")
    thp = Path("/sys/kernel/mm/transparent_hugepage")
    return {
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "kvlane": package.get("version", "?"),
        "commit": commit(checkout),
        "source": source(checkout),
        "cores": os.cpu_count(),
        "cpu": cpu_model(),
        "memory_mib": memory_mib("MemTotal"),
        "kernel": platform.release(),
        "thp": chosen(read(thp / "enabled")),
        "shmem_thp": chosen(read(thp / "shmem_enabled")),
        "node": said_by(shutil.which("node") or "node", "--version"),
        "python": platform.python_version(),
        "client_json": _json.name,
        "fio": said_by("fio", "--version"),
        "load_average": read("/proc/loadavg").split()[:3],
    }


def chosen(words: str) -> str:
    """The kernel marks the active one with brackets."""
    return words.partition("[")[2].partition("]")[0] or words


def busy_share(since: tuple[float, float]) -> float:
    """How busy all cores were since `cpu_times()`, 0 to 1, everybody included."""
    total, idle = (now - then for now, then in zip(cpu_times(), since, strict=True))
    return 1 - idle / total if total > 0 else 0.0


def stolen_s() -> float:
    """Seconds, over all cores, in which the hypervisor ran somebody else."""
    words = read("/proc/stat").splitlines()[0].split()
    return float(words[8]) / os.sysconf("SC_CLK_TCK") if len(words) > 8 else 0.0


def cpu_times() -> tuple[float, float]:
    fields = [float(word) for word in read("/proc/stat").splitlines()[0].split()[1:9]]
    return sum(fields), fields[3] + fields[4]
