"""A file system in memory that knows what a power cut may take: it keeps a journal of every change, in order, and what was forced out.

    python3 cutfs.py MOUNTPOINT        commands on stdin, one line each; answers on stdout, one JSON line each
        mark          everything until now is on the disk; the journal starts anew
        journal FILE  the disk at the mark and all changes since, as a pickle (disk.py reads it)
        quit

It speaks the kernel's FUSE protocol itself, one request at a time. Nothing is cached by the kernel (lifetimes of 0), so every call of the
sidecar is seen in its order. When stdin ends it leaves, and the mount with it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pickle
import select
import stat
import struct
import sys
import time
from dataclasses import dataclass, field

# Only as much of the protocol as a store needs.
LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE = (
    1,
    2,
    3,
    4,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
)
FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, CREATE, INTERRUPT, BATCH_FORGET, RENAME2 = 20, 25, 26, 27, 28, 29, 30, 35, 36, 42, 45
HEADER = struct.Struct("<IIQQIIIHH")
ROOT = 1
WRITE_MAX = 1 << 20
NOREPLACE, EXCHANGE = 1, 2
ASYNC_READ, BIG_WRITES, ASYNC_DIO, MAX_PAGES = 1 << 0, 1 << 5, 1 << 15, 1 << 22
SET_MODE, SET_SIZE = 1 << 0, 1 << 3


@dataclass
class Node:
    number: int
    mode: int
    names: dict[str, int] = field(default_factory=dict)  # of a directory
    data: bytearray = field(default_factory=bytearray)
    links: int = 1
    changed: float = 0.0


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(os.strerror(number))
        self.number = number


class CutFs:
    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {ROOT: Node(ROOT, stat.S_IFDIR | 0o755)}
        self.next = ROOT + 1
        self.mark()

    # ---- what a power cut may take ----

    def mark(self) -> None:
        self.base = {n.number: (n.mode, dict(n.names), bytes(n.data)) for n in self.nodes.values()}
        self.changes: list[tuple[object, ...]] = []

    def change(self, *what: object) -> None:
        self.changes.append(what)

    # ---- the tree ----

    def node(self, number: int) -> Node:
        return self.nodes[number]

    def child(self, parent: int, name: str) -> Node:
        found = self.node(parent).names.get(name)
        if found is None:
            raise Refused(errno.ENOENT)
        return self.node(found)

    def make(self, parent: int, name: str, mode: int) -> Node:
        if name in self.node(parent).names:
            raise Refused(errno.EEXIST)
        made = Node(self.next, mode, changed=time.time())
        self.next += 1
        self.nodes[made.number] = made
        self.node(parent).names[name] = made.number
        self.change("name", parent, name, made.number, mode)
        return made

    def remove(self, parent: int, name: str, directory: bool) -> None:
        found = self.child(parent, name)
        if directory and found.names:
            raise Refused(errno.ENOTEMPTY)
        del self.node(parent).names[name]
        self.change("gone", parent, name, found.number)

    def rename(self, parent: int, name: str, to_parent: int, to_name: str, flags: int) -> None:
        moved = self.child(parent, name)
        there = self.node(to_parent).names.get(to_name)
        if flags & NOREPLACE and there is not None:
            raise Refused(errno.EEXIST)
        if flags & EXCHANGE and there is None:
            raise Refused(errno.ENOENT)
        self.node(to_parent).names[to_name] = moved.number
        if flags & EXCHANGE:
            assert there is not None
            self.node(parent).names[name] = there
        else:
            del self.node(parent).names[name]
        moved.changed = time.time()
        self.change("rename", parent, name, moved.number, to_parent, to_name, there if flags & EXCHANGE else None)

    # ---- answers ----

    def attributes(self, n: Node) -> bytes:
        seconds, part = int(n.changed), int(n.changed % 1 * 1e9)
        links = 2 if stat.S_ISDIR(n.mode) else n.links
        return struct.pack(
            "<6Q10I",
            n.number,
            len(n.data),
            (len(n.data) + 511) // 512,
            seconds,
            seconds,
            seconds,
            part,
            part,
            part,
            n.mode,
            links,
            0,
            0,
            0,
            4096,
            0,
        )

    def entry(self, n: Node) -> bytes:
        return struct.pack("<4Q2I", n.number, 0, 0, 0, 0, 0) + self.attributes(n)

    def attributes_answer(self, n: Node) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self.attributes(n)

    def request(self, opcode: int, number: int, body: bytes) -> bytes | None:
        """The answer; None where there is none."""
        text = body.split(b"\0")
        match opcode:
            case 26:  # INIT
                (major, minor, readahead, _flags) = struct.unpack_from("<4I", body)
                flags = ASYNC_READ | BIG_WRITES | ASYNC_DIO | MAX_PAGES
                return (
                    struct.pack("<4IHHIIHHII6I", 7, min(minor, 36), readahead, flags, 64, 64, WRITE_MAX, 1, WRITE_MAX // 4096, 0, 0, 0, *[0] * 6)
                    if major == 7
                    else None
                )
            case 2 | 42 | 36:  # FORGET, BATCH_FORGET, INTERRUPT
                return None
            case 1:  # LOOKUP
                return self.entry(self.child(number, text[0].decode()))
            case 3:  # GETATTR
                return self.attributes_answer(self.node(number))
            case 4:  # SETATTR
                valid, _, _, size = struct.unpack_from("<IIQQ", body)
                (mode,) = struct.unpack_from("<I", body, 68)
                n = self.node(number)
                if valid & SET_MODE:
                    n.mode = stat.S_IFMT(n.mode) | mode & 0o7777
                if valid & SET_SIZE:
                    n.data[:] = n.data[:size].ljust(size, b"\0")
                    self.change("size", number, size)
                return self.attributes_answer(n)
            case 9:  # MKDIR
                (mode, _) = struct.unpack_from("<II", body)
                return self.entry(self.make(number, body[8:].split(b"\0")[0].decode(), stat.S_IFDIR | mode & 0o7777))
            case 35:  # CREATE
                (_, mode, _, _) = struct.unpack_from("<4I", body)
                made = self.make(number, body[16:].split(b"\0")[0].decode(), stat.S_IFREG | mode & 0o7777)
                return self.entry(made) + struct.pack("<QII", 0, 0, 0)
            case 10 | 11:  # UNLINK, RMDIR
                self.remove(number, text[0].decode(), opcode == RMDIR)
                return b""
            case 12 | 45:  # RENAME, RENAME2
                size, flags = (8, 0) if opcode == RENAME else (16, struct.unpack_from("<QII", body)[1])
                (to_parent,) = struct.unpack_from("<Q", body)
                old, new = body[size:].split(b"\0")[:2]
                self.rename(number, old.decode(), to_parent, new.decode(), flags)
                return b""
            case 14 | 27:  # OPEN, OPENDIR
                return struct.pack("<QII", 0, 0, 0)
            case 15:  # READ
                _, offset, count = struct.unpack_from("<QQI", body)
                return bytes(self.node(number).data[offset : offset + count])
            case 16:  # WRITE
                _, offset, count = struct.unpack_from("<QQI", body)
                data = body[40 : 40 + count]
                n = self.node(number)
                if len(n.data) < offset + count:
                    n.data.extend(bytes(offset + count - len(n.data)))
                n.data[offset : offset + count] = data
                n.changed = time.time()
                self.change("write", number, offset, bytes(data))
                return struct.pack("<II", count, 0)
            case 28:  # READDIR
                _, offset, count = struct.unpack_from("<QQI", body)
                out = b""
                for i, (name, child) in enumerate(list(self.node(number).names.items())[offset:], int(offset) + 1):
                    raw = name.encode()
                    one = struct.pack("<QQII", child, i, len(raw), self.node(child).mode >> 12) + raw
                    one += bytes(-len(one) % 8)
                    if len(out) + len(one) > count:
                        break
                    out += one
                return out
            case 17:  # STATFS
                return struct.pack("<5Q4I6I", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, 4096, 255, 4096, 0, *[0] * 6)
            case 20 | 30:  # FSYNC, FSYNCDIR
                self.change("forced", number)
                return b""
            case 18 | 29 | 25:  # RELEASE, RELEASEDIR, FLUSH
                return b""
            case _:
                raise Refused(errno.ENOSYS)


def serve(fs: CutFs, mount_point: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    if libc.mount(b"cutfs", mount_point.encode(), b"fuse.cutfs", 6, options.encode()):
        sys.exit(f"cutfs: mount {mount_point}: {os.strerror(ctypes.get_errno())}")
    print(json.dumps({"ok": True}), flush=True)
    commands = b""
    try:
        while True:
            ready, _, _ = select.select([0, device], [], [])
            if device in ready:
                raw = os.read(device, WRITE_MAX + 65_536)
                _, opcode, unique, number, *_ = HEADER.unpack_from(raw)
                try:
                    error, body = 0, fs.request(opcode, number, raw[HEADER.size :])
                except Refused as refused:
                    error, body = -refused.number, b""
                if body is not None:
                    os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
            if 0 in ready:
                read = os.read(0, 4096)
                if not read:
                    return
                commands += read
                while b"\n" in commands:
                    line, _, commands = commands.partition(b"\n")
                    word, *rest = line.decode().split(" ", 1)
                    if word == "mark":
                        fs.mark()
                    elif word == "journal":
                        with open(rest[0], "wb") as file:
                            pickle.dump((fs.base, fs.changes), file)
                    elif word == "quit":
                        return
                    print(json.dumps({"ok": True, "changes": len(fs.changes)}), flush=True)
    finally:
        libc.umount2(mount_point.encode(), 2)
        os.close(device)


if __name__ == "__main__":
    serve(CutFs(), sys.argv[1])
