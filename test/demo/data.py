"""The blocks of the demo: bytes and keys that belong to one number and no other."""

from __future__ import annotations

import hashlib

MIB = 1 << 20
BATCH = 16
NAMESPACE = "demo@1"


def block(number: int, size_bytes: int) -> bytes:
    """Bytes of this block and of no other."""
    seed = hashlib.sha256(number.to_bytes(8, "little")).digest()
    return (seed * (size_bytes // len(seed) + 1))[:size_bytes]


def key(number: int) -> str:
    return hashlib.sha256(b"key" + number.to_bytes(8, "little")).hexdigest()


def batches(count: int) -> list[range]:
    return [range(first, min(first + BATCH, count)) for first in range(0, count, BATCH)]
