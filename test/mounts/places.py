"""A place is a mounted file system for one store, and the ways in which it can be made to hang and heal.

Local ones lie on a loop device whose image is on a file system that hangs on command (test/stall): to the kernel, a disk that does
not answer. Network ones hang by stopping their server, by cutting its cable, or by dropping its packets. tmpfs cannot hang.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hosts import Host, run
from servers import IMPATIENT_S, Server

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients" / "python" / "tests"))
import kernel  # of test/stall
import stall

LOCAL = ("ext4", "xfs", "btrfs", "tmpfs", "overlay")
IMAGE_MIB = {"ext4": 160, "xfs": 320, "btrfs": 400, "overlay": 160}  # the least that mkfs takes, and some
MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", "-J", "size=8", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-K"],
    "btrfs": ["mkfs.btrfs", "-q", "-K", "-m", "single", "-d", "single"],
}

# So small a btrfs gives all its space to data, and cannot even remove a file then.
OPTIONS = {"btrfs": "metadata_ratio=1"}


@dataclasses.dataclass
class Way:
    """One way to hang. `names`: names that are not in a cache hang too."""

    name: str
    hang: Callable[[], object]
    heal: Callable[[], object]
    loads: bool = True
    names: bool = True
    hold_s: float = 0.0  # at least so long


@dataclasses.dataclass
class Place:
    name: str
    root: str  # as the sidecar sees it
    outside: Path  # the same from here; only while nothing is stuck
    version: str
    ways: list[Way]
    host: Host | None = None
    behind: list[Path] = dataclasses.field(default_factory=list)  # where a ballast fills it up
    fs_type: str = ""
    direct: bool = True
    recycled: bool = False
    full_codes: tuple[str, ...] = ("NO_SPACE",)  # none: it cannot be shown here that it is full
    full_after_s: float = 0.0  # how long it may say so when there is room again

    def argv(self, *command: str) -> list[str]:
        return self.host.argv(*command) if self.host else list(command)


@contextlib.contextmanager
def local(kind: str) -> Iterator[Place]:
    if kind == "tmpfs":
        with _directory() as at:
            kernel.mount("tmpfs", at, "tmpfs", options="size=64m,mode=755")
            try:
                yield _place("tmpfs", at, [], recycled=True)
            finally:
                _unmount(at)
        return
    base = "ext4" if kind == "overlay" else kind
    with stall.lab(size_mib=IMAGE_MIB[kind] + 32) as lab, _directory() as at:
        image = str(lab.back / "disk.img")
        with open(image, "wb") as file:
            file.truncate(IMAGE_MIB[kind] << 20)
        run(*MKFS[base], image)
        device, fd = kernel.attach_loop(str(lab.mnt / "disk.img"))
        undo: list[Callable[[], object]] = [lambda: os.close(fd)]
        try:
            kernel.mount(device, at, base, kernel.MS_NOSUID | kernel.MS_NODEV, OPTIONS.get(base, ""))
            undo.append(lambda: _unmount(at))
            root = at
            if kind == "overlay":
                root = tempfile.mkdtemp(prefix="overlay-")
                for name in ("lower", "upper", "work"):
                    os.mkdir(f"{at}/{name}")
                kernel.mount("overlay", root, "overlay", options=f"lowerdir={at}/lower,upperdir={at}/upper,workdir={at}/work")
                undo.append(lambda: _unmount(root))
            # A hung fsync would hold up the loop driver's reads as well: here all of it is to hang.
            ways = [Way("the disk does not answer", lambda: lab.hang("read,write,fsync"), lab.resume, names=False)]
            if kind != "overlay":
                ways.append(Way("frozen", lambda: _frozen(at, kernel.FIFREEZE), lambda: _frozen(at, kernel.FITHAW), loads=False, names=False))
            yield _place(kind, root, ways, recycled=kind in ("ext4", "xfs"))
        finally:
            lab.resume()
            for step in reversed(undo):
                step()


def _place(kind: str, root: str, ways: list[Way], recycled: bool) -> Place:
    return Place(name=kind, root=root, outside=Path(root), version=f"Linux {os.uname().release.split('-')[0]}", ways=ways, behind=[Path(root)],
                 fs_type=kind, recycled=recycled)  # fmt: skip


def _frozen(at: str, how: int) -> None:
    kernel.bounded(lambda: kernel.freeze(at, how), 10)


@contextlib.contextmanager
def _directory() -> Iterator[str]:
    made = tempfile.mkdtemp(prefix="place-")
    try:
        yield made
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(made)


def _unmount(at: str) -> None:
    """EBUSY for a while is somebody who just leaves; after that it is something left."""
    end = time.monotonic() + 5
    while True:
        try:
            kernel.umount(at)
            return
        except OSError as error:
            if time.monotonic() > end:
                raise OSError(error.errno, f"{error.strerror}; held by {kernel.holders(at)}") from None
        time.sleep(0.02)


AT = "/run/mounts/kv"


@contextlib.contextmanager
def network(server: Server, host: Host, *, impatient: bool = False) -> Iterator[Place]:
    """One host's mount of a server that is up. `impatient`: its client gives the server up after some seconds, and connects anew."""
    server.mount(host, AT, impatient=impatient)
    ways = [
        Way("the server is stopped", server.host.stop, server.host.cont),
        Way("the cable is cut", server.host.cut, server.host.mend),
        Way("packets are dropped", server.host.drop, server.host.undrop),
    ]
    if impatient:
        ways = [Way(f"the cable is cut until {server.kind} gives up", server.host.cut, server.host.mend, hold_s=IMPATIENT_S + 6)]
    try:
        yield Place(name=server.kind, root=f"{AT}/store", outside=Path(host.path(f"{AT}/store")), version=server.version(), ways=ways, host=host,
                    behind=server.behind(), fs_type="fuse", full_codes=server.full_codes, full_after_s=server.full_after_s)  # fmt: skip
    finally:
        unmount_from(host)


def unmount_from(host: Host) -> None:
    end = time.monotonic() + 5
    while True:
        try:
            host.run("umount", AT)
            return
        except Exception:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


@contextlib.contextmanager
def full(place: Place, block_bytes: int) -> Iterator[None]:
    """No room for another block."""
    made: list[Path] = []
    try:
        for number, where in enumerate(place.behind):
            size = 64 << 20
            while size >= 65_536:  # not to the last page: btrfs wants some to remove files with
                path = where / f".ballast-{number}-{len(made)}"
                try:
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                except OSError:
                    break
                made.append(path)
                try:
                    os.posix_fallocate(fd, 0, size)
                except OSError:
                    size //= 2
                finally:
                    os.close(fd)
        yield
    finally:
        for path in made:
            path.unlink()


def what_kernel_refuses() -> dict[str, str]:
    """Network file systems of the kernel: what mount(2) says of each type. ENODEV: this kernel has no such file system."""
    said = {}
    with _directory() as at:
        for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "lustre", "beegfs"):
            try:
                kernel.mount("10.77.0.250:/nothing", at, kind)
                _unmount(at)
                said[kind] = "mounted"
            except OSError as error:
                said[kind] = f"{_name(error.errno)}"
    return said


def _name(number: int | None) -> str:
    import errno

    return errno.errorcode.get(number or 0, str(number))
