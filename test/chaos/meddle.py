"""The one who touches a store from outside: damages blocks, fills the file system, makes it read-only, counts what was left behind.

A process of its own, one for each mount, because it may hang there as anybody may: meddle.py MOUNTPOINT FILES, one JSON command a line, one
answer each. FILES is where it touches files: the mount itself, or what lies behind it and never hangs. Damaged copies are
renamed over a block, so that the harm comes to this name at this moment and to no file that was recycled meanwhile.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096
PAGE = 4096
WRITER = slice(40, 56)  # of the header page: who wrote the block (native/core/header.h)
FILL_STEP = 4 << 20
REMOUNT_S = 1.0
MESSY_FILES = 2000
KINDS = ("flip payload", "flip header", "truncate", "other key", "blank", "garbage")

libc = ctypes.CDLL(None, use_errno=True)


def blocks(root: Path) -> Path:
    return root / "blocks" / "chaos"


def block(root: Path, hex_name: str) -> Path:
    return blocks(root) / hex_name[:2] / f"{hex_name}.kvb"


def damage(root: Path, kind: str, hex_name: str, other: str, seed: int) -> dict[str, Any]:
    dice, path = random.Random(seed), block(root, hex_name)
    try:
        content = bytearray((block(root, other) if kind == "other key" else path).read_bytes())
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        return {"done": False, "why": error.strerror}
    if len(content) <= PAGE:
        return {"done": False, "why": "no block"}
    if kind == "flip payload":
        (length,) = struct.unpack_from("<Q", content, 16)
        content[PAGE + dice.randrange(max(1, min(length, len(content) - PAGE)))] ^= 1 << dice.randrange(8)
    elif kind == "flip header":
        content[dice.randrange(8, 272)] ^= 1 << dice.randrange(8)
        if content[8:12] != b"\1\0\0\0":
            content[8:12] = b"\1\0\0\0"  # a newer format is left alone: that is no damage
            content[20] ^= 1
    elif kind == "truncate":
        del content[dice.choice((0, 100, PAGE, PAGE + 1, len(content) - PAGE, len(content) - 1)) :]
    elif kind == "blank":
        content = bytearray(len(content))
    elif kind == "garbage":
        content = bytearray(dice.randbytes(len(content)))
    new = path.with_name(f"harm-{os.getpid()}")
    try:
        with open(new, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), mode)
        os.rename(new, path)
    except OSError as error:
        new.unlink(missing_ok=True)
        return {"done": False, "why": error.strerror}
    return {"done": True}


def fill(root: Path) -> None:
    with open(root.parent / "filler", "ab") as file:
        at, step = file.tell(), FILL_STEP
        while step >= PAGE:
            try:
                os.posix_fallocate(file.fileno(), at, step)
                at += step
            except OSError:
                step //= 2


def remount(mount_point: Path, read_only: bool) -> dict[str, Any]:
    """This mount only, not the file system: no journal is forced out, and nobody waits. Busy while somebody writes."""
    end, flags = time.monotonic() + REMOUNT_S, MS_REMOUNT | MS_BIND | (MS_RDONLY if read_only else 0)
    while libc.mount(None, str(mount_point).encode(), None, ctypes.c_ulong(flags), None):
        if time.monotonic() > end:
            return {"done": False, "why": os.strerror(ctypes.get_errno())}
        time.sleep(0.002)
    return {"done": True}


def look(root: Path, living: list[str]) -> dict[str, Any]:
    """Temporaries by writer, the names of the living writers (by the blocks that they stored last), and files at all."""
    temporaries: Counter[str] = Counter()
    files = 0
    for path in blocks(root).rglob("*"):
        files += 1
        if path.suffix == ".tmp":
            temporaries[path.name.split(".")[1].split("-")[0]] += 1
    names = {}
    for hex_name in living:
        with open(block(root, hex_name), "rb") as file:
            names[hex_name] = file.read(PAGE)[WRITER].decode()
    waiting = Counter(path.parent.name for path in (root / "recycle").glob("*/*"))
    return {"temporaries": temporaries, "writers": names, "files": files, "recycle": sum(waiting.values()), "aside": len(list((root / "aside").glob("*")))}


def sweep(root: Path, living: list[str]) -> dict[str, Any]:
    """What dead writers left, when it has become much: a soak of an hour must not end for want of room."""
    removed = 0
    waiting = [path for path in (root / "recycle").glob("*/*") if path.parent.name not in living]
    old = [path for path in blocks(root).rglob("*.tmp") if path.name.split(".")[1].split("-")[0] not in living]
    aside = list((root / "aside").glob("*"))
    if len(waiting) + len(old) + len(aside) > MESSY_FILES:
        for path in waiting + old + aside:
            path.unlink(missing_ok=True)
            removed += 1
    return {"removed": removed}


def obey(command: dict[str, Any], mount_point: Path, root: Path) -> dict[str, Any]:
    what = command["do"]
    if what == "damage":
        return damage(root, command["kind"], command["hex"], command["other"], command["seed"])
    if what == "fill":
        fill(root)
    elif what == "unfill":
        (root.parent / "filler").unlink(missing_ok=True)
    elif what in ("read-only", "writable"):
        return remount(mount_point, what == "read-only")
    elif what == "look":
        return look(root, command["living"])
    elif what == "sweep":
        return sweep(root, command["living"])
    return {"done": True}


def main() -> None:
    mount_point, files = Path(sys.argv[1]), Path(sys.argv[2])
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = obey(command, mount_point, files / command["root"])
        except OSError as error:
            answer = {"done": False, "why": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
