"""Where the files lie. Made for one run, in its own mount namespace, and taken down with it, also when it is killed.

    ram-ext4   ext4 on a loop device with direct IO, whose image lies in a tmpfs: the kernel's real O_DIRECT path at memory speed
    tmpfs      a copy between two pieces of memory: what the software costs per byte
    disk       a folder on the machine's disk
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import host

COMMAND_S = 60.0  # mkfs, mount, losetup
PREFIX = "kvlane-bench-scratch-"
MEMORY_KEPT_MIB = 2048  # what a file system in memory leaves to the arms and everybody else
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


def unmount(path: Path) -> None:
    """At the latest it goes with its last user: a sidecar that was killed may take a moment to leave."""
    try:
        run("umount", str(path))
    except RuntimeError:
        run("umount", "--lazy", str(path))


def room(what: str, wanted_mib: int, there_mib: int) -> None:
    if there_mib < wanted_mib:
        raise RuntimeError(f"{wanted_mib} MiB of {what} are wanted, {there_mib} MiB are free")


@contextlib.contextmanager
def scratch(where: Path) -> Iterator[Path]:
    """A new folder that is gone afterwards. What a killed run left there is removed first; a lock on the folder says who lives."""
    remove_abandoned(where)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=where))
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned(where: Path) -> None:
    for path in where.glob(f"{PREFIX}????????"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # of a run that is under way
        finally:
            os.close(lock)


@contextlib.contextmanager
def tmpfs(size_mib: int) -> Iterator[Path]:
    room("memory", size_mib + MEMORY_KEPT_MIB, host.memory_mib("MemAvailable"))
    with scratch(Path(tempfile.gettempdir())) as path:
        run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "kvlane-bench", str(path))
        try:
            yield path
        finally:
            unmount(path)


@contextlib.contextmanager
def ram_ext4(size_mib: int, inodes: int = 0) -> Iterator[Path]:
    with tmpfs(size_mib + size_mib // 16 + 16) as below:
        image, path = below / "image", below / "fs"
        path.mkdir()
        with image.open("wb") as file:
            # its memory is there from the beginning: else the arm that writes new blocks first would pay for it
            os.posix_fallocate(file.fileno(), 0, size_mib << 20)
        # no lazy initialisation: the kernel would go on writing under the measurement
        few = ["-N", str(inodes)] if inodes else []
        run("mkfs.ext4", "-q", "-F", "-m", "0", *few, "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", str(image))
        try:
            device = run("losetup", "--find", "--show", "--direct-io=on", str(image))
            if host.read(f"/sys/block/{Path(device).name}/loop/dio") != "1":
                raise RuntimeError(f"{device} does not do direct IO: its figures would be those of the page cache")
            run("mount", "-o", "noatime", device, str(path))
        finally:
            # From here on the device goes with its last user: with the mount, or with this namespace if we are killed.
            for line in run("losetup", "--noheadings", "--output", "NAME", "--associated", str(image)).split():
                run("losetup", "--detach", line)
        try:
            yield path
        finally:
            unmount(path)


@contextlib.contextmanager
def medium(name: str, size_mib: int, disk: Path, inodes: int = 0) -> Iterator[Medium]:
    if name == "disk":
        fs, source, options = (run("findmnt", "-n", "-o", word, "--target", str(disk)) for word in ("FSTYPE", "SOURCE", "OPTIONS"))
        if fs == "tmpfs":
            raise RuntimeError(f"{disk} is a tmpfs: --disk names a folder on a disk")
        room(f"space in {disk}", size_mib, shutil.disk_usage(disk).free >> 20)
        with scratch(disk) as path:
            yield Medium(name, path, f"{fs} on {source} ({options})")
    elif name == "tmpfs":
        with tmpfs(size_mib) as path:
            yield Medium(name, path, f"tmpfs, {size_mib} MiB")
    elif name == "ram-ext4":
        with ram_ext4(size_mib, inodes) as path:
            yield Medium(name, path, f"ext4 (noatime) on a loop device with direct IO, image in tmpfs, {size_mib} MiB")
    else:
        raise ValueError(f"no medium {name!r}; there are {', '.join(MEDIA)}")
