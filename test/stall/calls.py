"""One process that makes one kind of file call, for the tests of the lab: calls.py CALL DIR NAME. Says "ok" or the errno.

A call that hangs belongs in a process that nobody needs. Reads and writes are O_DIRECT: no page cache, no second try by the kernel.
"""
import errno
import mmap
import os
import sys
import threading

PAGE = 4096


def direct(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_DIRECT)


def read(path: str, fd: int | None = None) -> None:
    fd = direct(path, os.O_RDONLY) if fd is None else fd
    os.preadv(fd, [mmap.mmap(-1, PAGE)], 0)


def write(path: str) -> None:
    fd = direct(path, os.O_WRONLY)
    os.pwritev(fd, [mmap.mmap(-1, PAGE)], 0)


def create(path: str) -> None:
    fd = direct(path, os.O_WRONLY | os.O_CREAT)
    os.pwritev(fd, [mmap.mmap(-1, PAGE)], 0)
    os.fsync(fd)


def read_many(path: str, n: int) -> None:
    threading.stack_size(64 << 10)
    fd = direct(path, os.O_RDONLY)
    threads = [threading.Thread(target=read, args=(path, fd)) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def read_all(path: str) -> None:
    fd, at, buffer = direct(path, os.O_RDONLY), 0, mmap.mmap(-1, 1 << 20)
    while n := os.preadv(fd, [buffer], at):
        at += n


def late_write(path: str) -> None:
    """Hands "B"s to the kernel, and changes them to "C"s while the write is stuck."""
    buffer = mmap.mmap(-1, PAGE)
    buffer.write(b"B" * PAGE)
    fd = direct(path, os.O_WRONLY)
    print("opened", flush=True)
    sys.stdin.readline()
    t = threading.Thread(target=os.pwritev, args=(fd, [buffer], 0))
    t.start()
    sys.stdin.readline()
    buffer[:] = b"C" * PAGE
    print("changed", flush=True)
    t.join()


def one(call: str, path: str, *more: str) -> None:
    if call == "open":
        os.open(path, os.O_RDONLY)
    elif call == "fstat":
        os.fstat(os.open(path, os.O_RDONLY))
    elif call == "fsync":
        os.fsync(os.open(path, os.O_RDWR))
    elif call == "rename":
        os.rename(path, path + ".new")
    elif call == "mkdir":
        os.mkdir(path + ".d")
    elif call == "unlink":
        os.unlink(path)
    elif call == "close":
        os.close(os.open(path, os.O_RDONLY))
    elif call == "read-many":
        read_many(path, int(more[0]))
    else:
        {"read": read, "write": write, "create": create, "read-all": read_all, "late-write": late_write}[call](path)


def main(call: str, *args: str) -> None:
    if call == "wait-then":  # so that a rule can be made after the interpreter has started
        print("ready", flush=True)
        sys.stdin.readline()
        call, *args = args
    try:
        one(call, os.path.join(args[0], args[1]), *args[2:])
        print("ok", flush=True)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)


main(*sys.argv[1:])
