"""Where the files lie. Made for one run, in its own mount namespace, and taken down with it, also when it is killed.

    ram-ext4   ext4 on a loop device with direct IO, whose image lies in a tmpfs: the kernel's real O_DIRECT path at memory speed
    tmpfs      a copy between two pieces of memory: what the software costs per byte
    disk       a folder on the machine's disk
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

COMMAND_S = 60.0  # mkfs, mount, losetup
MEDIA = ("ram-ext4", "tmpfs", "disk")


@dataclass(frozen=True)
class Medium:
    name: str
    path: Path
    about: str


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


@contextlib.contextmanager
def tmpfs(size_mib: int) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kvlane-bench-"))
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "kvlane-bench", str(path))
        try:
            yield path
        finally:
            run("umount", str(path))
    finally:
        path.rmdir()


@contextlib.contextmanager
def ram_ext4(size_mib: int, inodes: int = 0) -> Iterator[Path]:
    with tmpfs(size_mib + size_mib // 16 + 16) as below:
        image, path = below / "image", below / "fs"
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(size_mib << 20)
        # no lazy initialisation: the kernel would go on writing under the measurement
        few = ["-N", str(inodes)] if inodes else []
        run("mkfs.ext4", "-q", "-F", "-m", "0", *few, "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(image))
        device = run("losetup", "--find", "--show", "--direct-io=on", str(image))
        try:
            run("mount", "-o", "noatime", device, str(path))
        finally:
            # From here on the device goes with its last user: with the mount, or with this namespace if we are killed.
            run("losetup", "--detach", device)
        try:
            yield path
        finally:
            run("umount", str(path))


@contextlib.contextmanager
def folder(where: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kvlane-bench-", dir=where))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def medium(name: str, size_mib: int, disk: Path, inodes: int = 0) -> Iterator[Medium]:
    if name == "disk":
        fs, source, options = (run("findmnt", "-n", "-o", word, "--target", str(disk)) for word in ("FSTYPE", "SOURCE", "OPTIONS"))
        if fs == "tmpfs":
            raise RuntimeError(f"{disk} is a tmpfs: --disk names a folder on a disk")
        with folder(disk) as path:
            yield Medium(name, path, f"{fs} on {source} ({options})")
    elif name == "tmpfs":
        with tmpfs(size_mib) as path:
            yield Medium(name, path, f"tmpfs, {size_mib} MiB")
    elif name == "ram-ext4":
        with ram_ext4(size_mib, inodes) as path:
            yield Medium(name, path, f"ext4 (noatime) on a loop device with direct IO, image in tmpfs, {size_mib} MiB")
    else:
        raise ValueError(f"no medium {name!r}; there are {', '.join(MEDIA)}")


def direct_io(path: Path) -> bool:
    """Whether files there can be opened with O_DIRECT."""
    probe = path / "direct-io"
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600))
        return True
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
