"""The few system calls the lab needs that Python has no function for: mount, umount2, loop devices, freezing.

Surprising: every call that may touch a stuck file system runs in a forked child (`bounded`). A call stuck in the kernel
cannot be given up, but a child can be left behind; it goes away by itself once the stall ends.
"""
from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import stat
import struct
import time
from typing import Callable

MS_NOSUID, MS_NODEV, MS_BIND, MNT_DETACH = 2, 4, 4096, 2
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
LOOP_CTL_GET_FREE, LOOP_CONFIGURE, LOOP_CLR_FD = 0x4C82, 0x4C0A, 0x4C01
LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO = 4, 16

libc = ctypes.CDLL(None, use_errno=True)


class Stuck(Exception):
    """The call did not return within its bound."""


def _check(result: int, what: str) -> None:
    if result < 0:
        e = ctypes.get_errno()
        raise OSError(e, f"{what}: {os.strerror(e)}")


def mount(source: str, target: str, fs_type: str | None, flags: int = 0, options: str = "") -> None:
    kind = fs_type.encode() if fs_type else None
    _check(libc.mount(source.encode(), target.encode(), kind, ctypes.c_ulong(flags), options.encode()),
           f"mount {source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    _check(libc.umount2(target.encode(), flags), f"umount {target}")


def freeze(path: str, how: int) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.ioctl(fd, how, 0)


def bounded(call: Callable[[], object], seconds: float) -> None:
    """Runs `call` in a child; raises what it raised (an OSError), or Stuck after `seconds`."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            os.closerange(3, 1 << 16)  # a child left behind must not keep stallfs's command pipe open
            call()
            code = 0
        except OSError as e:
            code = e.errno or 255
        finally:
            os._exit(code)
    fd = os.pidfd_open(pid)
    try:
        if not select.select([fd], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)  # takes effect when the kernel lets go; not waited for
            raise Stuck(f"no answer from the kernel in {seconds} s")
    finally:
        os.close(fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == 255 or code < 0:
        raise OSError(errno.EIO, f"the call failed in its process (status {code})")
    if code:
        raise OSError(code, os.strerror(code))


def mounted_below(directory: str) -> list[tuple[str, str]]:
    """[(mount point, "major:minor")], deepest and latest first. Reads a table of the kernel, touches no mount."""
    rows = [line.split() for line in open("/proc/self/mountinfo")]
    here = [(r[4], r[2]) for r in rows if r[4] == directory or r[4].startswith(directory + "/")]
    return sorted(reversed(here), key=lambda row: -row[0].count("/"))


def attach_loop(path: str, seconds: float = 5) -> tuple[str, int]:
    """A loop device with direct IO on `path`: (device, descriptor). It detaches by itself (autoclear) when the last
    mount and the last descriptor of it are gone, also if this process is killed."""
    config_tail = struct.pack("<4Q", 0, 0, 0, 0) + struct.pack("<Q", 0)  # device, inode, rdevice, offset; size limit
    info = config_tail + struct.pack("<4I", 0, 0, 0, LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO)
    info += path.encode()[:63].ljust(64, b"\0") + bytes(64 + 32 + 16)
    end = time.monotonic() + seconds
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = f"/dev/loop{number}"
            if not os.path.exists(device):  # a container's /dev is not the kernel's
                os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(7, number))
            fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, struct.pack("<2I", backing, 0) + info + bytes(64))
                break
            except OSError as e:
                os.close(fd)
                if e.errno != errno.EBUSY or time.monotonic() > end:  # EBUSY: another lab took this number first
                    raise
    finally:
        os.close(control)
        os.close(backing)
    dio = open(f"/sys/block/loop{number}/loop/dio").read().strip()
    if dio != "1":
        fcntl.ioctl(fd, LOOP_CLR_FD)
        os.close(fd)
        raise OSError(errno.EINVAL, f"{device} does no direct IO on {path}: late completions would not be real")
    return device, fd


def loop_attached(device: str) -> bool:
    return os.path.exists(f"/sys/block/{os.path.basename(device)}/loop/backing_file")


def holders(directory: str) -> list[str]:
    """Who has what open below `directory`; for the message that says why something could not be taken down."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
            links.append(os.readlink(f"/proc/{pid}/cwd"))
            name = open(f"/proc/{pid}/comm").read().strip()
        except OSError:
            continue
        if int(pid) != os.getpid():
            found += [f"process {pid} ({name}) holds {link}" for link in links if link.startswith(directory + "/")]
    return found
