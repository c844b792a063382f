"""What is stored: payloads that say whose they are, and in every byte.

A payload is a header (mount, key, version, length) and a slice of one random sea, cut where the header says. So a mixture of two
versions, a page of another key, or a byte that flipped is seen by one comparison; whoever wrote it, in whichever process.
"""

from __future__ import annotations

import random
import struct

MAGIC = b"kvchaos\n"
HEADER = struct.Struct("<8sBHQI")  # magic, mount, key, version, payload bytes
SEA_BYTES = 1 << 22
SEA = random.Random("kvlane chaos").randbytes(SEA_BYTES)
CANARY = bytes.fromhex("c0ffee5e") * 1024  # 4 KiB
POISON = b"\xa5" * HEADER.size


class WrongBytes(Exception):
    """A load that was said to be good brought something else."""


def _start(mount: int, key: int, version: int, length: int) -> int:
    mixed = (version * 0x9E3779B97F4A7C15 + key * 0xBF58476D1CE4E5B9 + mount * 0x94D049BB133111EB) & (1 << 64) - 1
    return (mixed >> 17) % (SEA_BYTES - length)


def write(view: memoryview, mount: int, key: int, version: int, length: int) -> None:
    view[: HEADER.size] = HEADER.pack(MAGIC, mount, key, version, length)
    at = _start(mount, key, version, length)
    view[HEADER.size : length] = SEA[at : at + length - HEADER.size]


def poison(view: memoryview, length: int) -> None:
    """What stood there before cannot be taken for what a load brings."""
    view[: HEADER.size] = POISON
    view[length - 1] = 0xA5 if view[length - 1] != 0xA5 else 0x5A


def read(view: memoryview, mount: int, key: int, length: int) -> int:
    """The version, or WrongBytes."""
    head = bytes(view[: HEADER.size])
    magic, is_mount, is_key, version, is_length = HEADER.unpack(head)
    if head == POISON:
        raise WrongBytes(f"key {key}: the load was said to be good and the slot's first bytes were never written")
    if (magic, is_mount, is_key, is_length) != (MAGIC, mount, key, length):
        raise WrongBytes(f"mount {mount} key {key} of {length} bytes: it begins with {head.hex()}")
    at = _start(mount, key, version, length)
    if view[HEADER.size : length] != SEA[at : at + length - HEADER.size]:
        body, right = bytes(view[HEADER.size : length]), SEA[at : at + length - HEADER.size]
        first = next(i for i, (a, b) in enumerate(zip(body, right, strict=True)) if a != b)
        differ = sum(a != b for a, b in zip(body, right, strict=True))
        raise WrongBytes(f"mount {mount} key {key} version {version}: {differ} bytes differ, the first at {HEADER.size + first}")
    return int(version)


def scribble(view: memoryview) -> None:
    """A canary: nobody but us may write here now."""
    for at in range(0, len(view), len(CANARY)):
        view[at : at + len(CANARY)] = CANARY


def scribble_intact(view: memoryview) -> bool:
    return all(view[at : at + len(CANARY)] == CANARY for at in range(0, len(view), len(CANARY)))
